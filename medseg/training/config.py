"""The typed training config: one YAML, every key checked, unknown keys refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from medseg.errors import ConfigError
from medseg.training.loop import LoopConfig, Strict
from medseg.training.settings import find_config, first_fault, put_setting, read_settings

PRESETS = Path(__file__).parent / "presets"


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if not pair[0] < pair[1]:
        raise ValueError("the first number must be the smaller one")
    return pair


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if not 0 < pair[0] <= pair[1]:
        raise ValueError("two positive factors, the smaller one first")
    return pair


Span = Annotated[tuple[float, float], AfterValidator(_ascending)]
Factors = Annotated[tuple[float, float], AfterValidator(_ordered)]


class NetworkConfig(Strict):
    """A catalogue name and the options that its builder takes."""

    name: str = "Optimized3DUNet"
    options: dict[str, Any] = Field(default_factory=dict)


class AugmentConfig(Strict):
    """How a training patch is changed; probabilities are per patch.

    `affine` is the share of patches that are rotated and scaled; the others keep every voxel as it was scanned, since
    interpolation smooths a picture, and those that a model is given later are not smoothed.
    `rotate_deg` turns in voxels, as nnU-Net does: where these are no cubes, a patch is sheared a little as well.
    `artificial_body` shows trunks drawn at random, in which no organ of the data set is: only where all of them are
    small (none of the body, its bones or lungs), so that a scan of another region stays empty.
    """

    affine: float = Field(1.0, ge=0, le=1)
    rotate_deg: float = Field(15.0, ge=0, le=45)
    scale: Factors = (0.8, 1.25)
    mirror_left_right: float = Field(0.5, ge=0, le=1)
    couch: float = Field(0.5, ge=0, le=1)
    noise_hu: float = Field(40.0, ge=0)
    blur_voxels: float = Field(0.9, ge=0)
    shift_hu: float = Field(40.0, ge=0)
    low_resolution: float = Field(0.15, ge=0, le=1)
    artificial_body: float = Field(0.0, ge=0, le=1)


class PhantomConfig(Strict):
    """Computed bodies in place of a data set: how many to train on and to validate."""

    train: int = Field(8, ge=1)
    validation: int = Field(2, ge=0)
    seed: int = Field(0, ge=0)


class SmallBatchConfig(Strict):
    """The first stage: `steps` on `batches` of `cases`, for at most `max_minutes`, then a validation of `cases`.

    Their loss has to fall to `must_fall_to` of what it was when each batch was seen first: each is seen twice at least.
    """

    cases: int = Field(2, ge=1)
    batches: int = Field(4, ge=1)
    steps: int = Field(40, ge=2)
    max_minutes: float = Field(5.0, gt=0)
    must_fall_to: float = Field(0.85, gt=0, le=1)

    @model_validator(mode="after")
    def _each_batch_twice(self) -> Self:
        if self.steps < 2 * self.batches:
            raise ValueError(f"steps {self.steps} must be twice batches {self.batches} or more: each is seen twice")
        return self


class FoldConfig(Strict):
    """Cross-validation: fold `number` of `count` validates, whatever split the data set has."""

    count: int = Field(5, ge=2)
    number: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _there(self) -> Self:
        if self.number >= self.count:
            raise ValueError(f"folds are numbered 0 to {self.count - 1}")
        return self


class CardConfig(Strict):
    """The words of the model card, and where the data come from."""

    title: str = ""
    description: str = ""
    field_of_view: str = ""
    upper_end: str = "upper end of the field"
    lower_end: str = "lower end of the field"
    intended_use: str = "Research use only. Not a medical device."
    licence: str = "Apache-2.0"
    limits: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


class TrainConfig(Strict):
    """Everything that decides a run. See `presets/head-neck-oar.yaml` for the shipped model.

    `index` names the data set, or `phantoms` describes computed ones.
    `open_ended` names organs that go on beyond the model's field (cord, esophagus): they are
    no landmarks, and stay unknown in artificial bodies. `organ_weights` draws some organs more often
    (1 where not named): small or rare ones, which patches around others seldom show.
    `voxel_weights` weighs an organ's voxels in cross-entropy, `neglected_weight` any organ's for as long as the network
    does not find it. `anatomy_check` lets the package keep an organ only where the training references have it in
    relation to the others, and sure of it; it wants tens of cases.
    `small_batch: null` leaves the first stage out. `cache` is a folder for prepared cases that several runs share;
    without it a run has its own. `tracking` is a folder in which MLflow (`medseg[train]`) mirrors finished runs.
    """

    name: str
    version: str = "1.0.0"
    index: Path | None = None
    phantoms: PhantomConfig | None = None
    open_ended: tuple[str, ...] = ()
    spacing_mm: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    window_hu: Span
    patch_size: tuple[PositiveInt, PositiveInt, PositiveInt] = (64, 64, 64)
    overlap_ratio: float = Field(0.3, ge=0, lt=0.9)
    mirror_average: bool = False
    anatomy_check: bool = True
    network: NetworkConfig = NetworkConfig()
    augment: AugmentConfig = AugmentConfig()
    foreground_share: float = Field(0.75, ge=0, le=1)
    organ_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    voxel_weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    neglected_weight: float = Field(10.0, ge=1)
    batch_size: int = Field(2, ge=1)
    folds: FoldConfig | None = None
    small_batch: SmallBatchConfig | None = SmallBatchConfig()
    cache: Path | None = None
    tracking: Path | None = None
    loop: LoopConfig = LoopConfig()
    card: CardConfig = CardConfig()

    @model_validator(mode="after")
    def _has_data(self) -> Self:
        if (self.index is None) == (self.phantoms is None):
            raise ValueError("name the data by index, or describe phantoms; one of the two")
        return self


def load_config(source: str | Path, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """A YAML file or a preset's name -> config; overrides win, `loop.seed` inside its group, None as YAML's null.

    A relative `index` of the file is sought from the file's folder, then from the current one; an
    overriding one from the current folder alone.

    Raises:
        ConfigError: no such file or preset, no YAML, unknown key, value out of range.
    """
    path = find_config(source, PRESETS)
    given = dict(overrides or {})
    if given.get("index") is not None:
        given["index"] = Path.cwd() / given["index"]
    values = read_settings(path)
    if given.get("index") is not None:
        values.pop("phantoms", None)
    for key, value in given.items():
        put_setting(values, key, value)
    config = checked(values, path.name)
    return config if config.index is None else config.model_copy(update={"index": _local(path.parent, config.index)})


def parse_settings(given: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE with dots for groups and YAML for values -> overrides.

    Raises:
        ConfigError: no KEY=VALUE.
    """
    settings: dict[str, Any] = {}
    for text in given:
        key, sign, value = text.partition("=")
        try:
            settings[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {text}: the value is no YAML.") from error
        if not sign or not key.strip():
            raise ConfigError(f"--set {text}: write KEY=VALUE.", advice="For example loop.learning_rate=1e-3.")
    return settings


def checked(values: Mapping[str, Any], source: str = "Settings") -> TrainConfig:
    """Settings -> config.

    Raises:
        ConfigError: unknown key, value out of range; names the source.
    """
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{source}: {first_fault(error, TrainConfig)}") from error


def _local(folder: Path, index: Path) -> Path:
    beside = folder / index
    return beside if beside.exists() else Path.cwd() / index
