"""ModelCard: everything about a model that is not its weights. Read without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from medseg.errors import ConfigError
from medseg.labels import LabelTable
from medseg.preprocess.intensity import Intensity

Range = tuple[float, float, float]
Millimetres = Annotated[float, Field(gt=0)]
Voxels = Annotated[int, Field(gt=0)]
ALL = "all"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class NetworkSpec(_Strict):
    """A catalogue network and its options."""

    name: str
    options: dict[str, Any]


Blend = Literal["gaussian", "constant"]


class InputSpec(_Strict):
    """What the network wants to see: RAS order, spacing, HU window, window size.

    `mirror_average`: each window is seen mirrored left to right as well, and the mean counts.
    `mirror_axes`: each window is seen mirrored along every combination of these axes as well, organs keeping their
    names, and the mean counts; another tool's way, in place of `mirror_average`.
    `mirror_even`: of these combinations only those of an even number of axes: half of them, each axis in half of these.
    `intensity`: how HU become its input; see `preprocess.prepare`.
    `spread`: directions such as LPS along which nnU-Net counts its evenly spread windows, where its layout is wanted
    over the whole scan; None lays them as MONAI does, where the body is.
    `fitted`: in place of either, as few windows as cover the patient, evenly spread; see `windows.reached`.
    `blend`: a voxel in several windows believes those more in whose middle it lies, or all alike.
    `beyond`: what lies beyond the scan where a window leaves it, in the network's input units; -1 is air in a window.
    """

    spacing_mm: tuple[Millimetres, Millimetres, Millimetres]
    window_hu: tuple[float, float]
    patch_size: tuple[Voxels, Voxels, Voxels]
    overlap_ratio: float = Field(ge=0, lt=1)
    blend: Blend = "gaussian"
    mirror_average: bool = False
    mirror_axes: tuple[Annotated[int, Field(ge=0, le=2)], ...] = ()
    mirror_even: bool = False
    intensity: Intensity = "window"
    beyond: float = -1.0
    spread: str | None = Field(default=None, pattern="^[RL][AP][SI]$")
    fitted: bool = False

    @model_validator(mode="after")
    def _window_opens(self) -> Self:
        if not self.window_hu[0] < self.window_hu[1]:
            raise ValueError("window_hu must run from low to high")
        return self

    @model_validator(mode="after")
    def _windows_lie_one_way(self) -> Self:
        if self.fitted and self.spread is not None:
            raise ValueError("fitted windows cannot be spread over the whole scan")
        return self

    @model_validator(mode="after")
    def _mirrors_one_way(self) -> Self:
        if len(set(self.mirror_axes)) < len(self.mirror_axes) or (self.mirror_average and self.mirror_axes):
            raise ValueError("mirror_axes names each axis once, and not beside mirror_average")
        if self.mirror_even and len(self.mirror_axes) < 2:
            raise ValueError("mirror_even wants two mirror_axes or more")
        return self


class OrganRange(_Strict):
    """1st, 50th and 99th percentile of an organ in the training references."""

    volume_ml: Range
    mean_hu: Range


class Offset(_Strict):
    """Mean and SD of the way from one organ's centre to another's, RAS mm."""

    start: str
    end: str
    mean_mm: tuple[float, float, float]
    sd_mm: tuple[float, float, float]


class FieldLimits(_Strict):
    """How far below and above a landmark's centre the model's field reaches, mm."""

    below_mm: float
    above_mm: float


class Anatomy(_Strict):
    """Where organs lie relative to each other; decides whether a finding can be true."""

    upper_end: str = "upper end of the field"
    lower_end: str = "lower end of the field"
    organs: dict[str, OrganRange]
    offsets: list[Offset]
    field: dict[str, FieldLimits]


class VariantFigures(_Strict):
    """What the parity gate measured before it let a variant in.

    Attributes:
        scans: how many scans were segmented by both, none of them used for calibration where there were two or more.
        agreement: per organ, mean Dice between the variant's masks and the fp32 masks; None where neither found it.
        dice: per organ, mean Dice of the variant's masks against references; empty without references.
        dice_fp32: the same of the fp32 masks.
        logit_error: largest difference of logits on a test tile, relative to the largest fp32 logit.
        size_bytes: size of the variant's file.
        size_ratio: that, divided by the size of the fp32 ONNX file.
        seconds: of one tile on `machine`, by the variant.
        latency_ratio: that, divided by the seconds of PyTorch eager fp32 on the same machine.
        machine: processor and threads on which the seconds were taken.
    """

    scans: int = Field(ge=0)
    agreement: dict[str, float | None] = Field(default_factory=dict)
    dice: dict[str, float] = Field(default_factory=dict)
    dice_fp32: dict[str, float] = Field(default_factory=dict)
    logit_error: float = Field(ge=0)
    size_bytes: int = Field(gt=0)
    size_ratio: float = Field(gt=0)
    seconds: float = Field(gt=0)
    latency_ratio: float = Field(gt=0)
    machine: str


class Variant(_Strict):
    """The same network in another file; listed only where it passed the parity gate."""

    name: str
    file: str
    precision: Literal["fp32", "int8"]
    backend: Literal["onnxruntime", "openvino"]
    figures: VariantFigures


class ModelCard(_Strict):
    """`model.json` of a model package. Unknown keys are errors.

    `keep_islands`: small parts of a label beside its largest stay, as they must where a label has many parts.
    """

    name: str
    version: str
    title: str
    description: str
    kind: Literal["network", "rules"] = "network"
    labels: list[dict[str, Any]]
    field_of_view: str
    intended_use: str
    limits: list[str]
    licence: str
    network: NetworkSpec | None = None
    input: InputSpec | None = None
    anatomy: Anatomy | None = None
    keep_islands: bool = False
    metrics: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)
    variants: list[Variant] = Field(default_factory=list)

    @model_validator(mode="after")
    def _labels_are_a_table(self) -> Self:
        try:
            LabelTable.from_json(self.labels)
        except (ConfigError, KeyError, TypeError) as error:
            raise ValueError(f"labels are no label table ({error})") from error
        return self

    @property
    def id(self) -> str:
        """name@version."""
        return f"{self.name}@{self.version}"

    @property
    def label_table(self) -> LabelTable:
        return LabelTable.from_json(self.labels)

    def maps(self, organs: Sequence[str]) -> dict[str, int]:
        """{organ: value} of those whose probability at every voxel is asked for; 'all' is every one.

        Raises:
            ConfigError: an organ that the model does not know, or a model that has no probabilities.
        """
        if organs and self.kind == "rules":
            raise ConfigError(f"Model {self.id} works by rules: it has no probabilities.", advice="Leave them out.")
        known = self.label_table.names
        if wrong := [organ for organ in organs if organ not in known and organ != ALL]:
            advice = f"There are: {', '.join((*known, ALL))}."
            raise ConfigError(f"{wrong[0]!r} is no organ of model {self.id}.", advice=advice)
        return {organ: value for organ, value in known.items() if organ in organs or ALL in organs}
