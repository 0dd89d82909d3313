"""ModelCard: everything about a model that is not its weights. Read without torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from medseg.labels import LabelTable

Range = tuple[float, float, float]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class NetworkSpec(_Strict):
    """A catalogue network and its options."""

    name: str
    options: dict[str, Any]


class InputSpec(_Strict):
    """What the network wants to see: RAS order, spacing, HU window, window size."""

    spacing_mm: tuple[float, float, float]
    window_hu: tuple[float, float]
    patch_size: tuple[int, int, int]
    overlap_ratio: float


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

    organs: dict[str, OrganRange]
    offsets: list[Offset]
    field: dict[str, FieldLimits]


class ModelCard(_Strict):
    """`model.json` of a model package. Unknown keys are errors."""

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
    metrics: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)

    @property
    def id(self) -> str:
        """name@version."""
        return f"{self.name}@{self.version}"

    @property
    def label_table(self) -> LabelTable:
        return LabelTable.from_json(self.labels)
