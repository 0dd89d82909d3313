"""The typed training config: one YAML, every key checked, unknown keys refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, ValidationError

from medseg.errors import ConfigError
from medseg.training.loop import LoopConfig, Strict

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
    """How a training patch is changed; probabilities are per patch."""

    rotate_deg: float = Field(15.0, ge=0, le=45)
    scale: Factors = (0.8, 1.25)
    mirror_left_right: float = Field(0.5, ge=0, le=1)
    couch: float = Field(0.5, ge=0, le=1)
    noise_hu: float = Field(40.0, ge=0)
    blur_voxels: float = Field(0.9, ge=0)
    shift_hu: float = Field(40.0, ge=0)
    low_resolution: float = Field(0.15, ge=0, le=1)
    artificial_body: float = Field(0.08, ge=0, le=1)


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

    `open_ended` names organs that go on beyond the model's field (cord, esophagus): they are
    no landmarks, and stay unknown in artificial bodies. `organ_weights` draws some organs more often
    (1 where not named): small or rare ones, which patches around others seldom show.
    `voxel_weights` weighs an organ's voxels in cross-entropy.
    """

    name: str
    version: str = "1.0.0"
    index: Path
    open_ended: tuple[str, ...] = ()
    spacing_mm: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    window_hu: Span
    patch_size: tuple[PositiveInt, PositiveInt, PositiveInt] = (64, 64, 64)
    overlap_ratio: float = Field(0.3, ge=0, lt=0.9)
    mirror_average: bool = False
    network: NetworkConfig = NetworkConfig()
    augment: AugmentConfig = AugmentConfig()
    foreground_share: float = Field(0.75, ge=0, le=1)
    organ_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    voxel_weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    batch_size: int = Field(2, ge=1)
    loop: LoopConfig = LoopConfig()
    card: CardConfig = CardConfig()


def load_config(source: str | Path, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """A YAML file or a preset's name -> config; overrides that are not None win, `loop.seed` inside its group.

    A relative `index` of the file is sought from the file's folder, then from the current one; an
    overriding one from the current folder alone.

    Raises:
        ConfigError: no such file or preset, no YAML, unknown key, value out of range.
    """
    path = _find(source)
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    if "index" in given:
        given["index"] = Path.cwd() / given["index"]
    values = _read(path)
    for key, value in given.items():
        _put(values, key, value)
    try:
        config = TrainConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path.name}: {_first_fault(error)}") from error
    index = config.index if config.index.is_absolute() else (path.parent / config.index)
    local = index if index.exists() else Path.cwd() / config.index
    return config.model_copy(update={"index": local})


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *groups, last = key.split(".")
    for group in groups:
        inner = values.setdefault(group, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{key}: {group} is no group of settings.")
        values = inner
    values[last] = value


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name} is no YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path.name} is not a mapping of settings.")
    return values


def _find(source: str | Path) -> Path:
    for path in (Path(source), PRESETS / f"{source}.yaml"):
        if path.is_file():
            return path
    known = ", ".join(sorted(preset.stem for preset in PRESETS.glob("*.yaml")))
    raise ConfigError(f"No config file or preset named {str(source)!r}; presets: {known}.")


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"])
    got = "" if fault["type"] == "missing" else f" (got {fault['input']!r})"
    return f"{key}: {fault['msg']}{got}."
