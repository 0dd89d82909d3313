"""The typed settings of a retrieval run; `loop` is medseg's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from medseg.errors import ConfigError
from medseg.training.loop import LoopConfig, Strict
from medseg.training.settings import find_config, first_fault, put_setting, read_settings

PRESETS = Path(__file__).parents[1] / "presets"
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


LossName = Literal["pairs", "statements", "attributes", "organs", "matching"]


def _usual_weights() -> dict[LossName, Positive]:
    return {"pairs": 1.0, "statements": 4.0, "attributes": 2.0, "organs": 2.0, "matching": 0.5}


class LossConfig(Strict):
    """What is minimised.

    `weights` names the losses: pairs (contrastive, texts against studies), statements (every sentence against every
    study), attributes (facts and findings told from a study's vector alone), organs (sentences about an organ against
    its vectors), matching (the fusion head on true and false pairs).
    `weighting` moves the weights (see `DynamicLoss`). `hard_negatives` of a memory of all training studies stand
    beside the batch's own after `hard_after` steps.
    """

    pairs: Literal["clip", "siglip"] = "clip"
    weights: dict[LossName, Positive] = Field(default_factory=_usual_weights)
    weighting: Literal["fixed", "uncertainty", "dwa", "famo"] = "fixed"
    mask_false_negatives: bool = True
    hard_negatives: int = Field(16, ge=0)
    hard_after: int = Field(200, ge=0)


class SamplerConfig(Strict):
    """How batches are put together; all off is random sampling.

    `balance` draws studies with rare findings more often, `one_per_patient` keeps a batch's studies apart,
    `neighbours` is the share of a batch that are near misses of its other half (after `after` batches),
    `edited_texts` adds to each study a text that one edit makes false (side, negation, size).
    """

    batch_size: int = Field(32, ge=2)
    balance: bool = True
    one_per_patient: bool = True
    neighbours: Share = 0.5
    after: int = Field(100, ge=0)
    edited_texts: bool = True


class TextConfig(Strict):
    """What is said of a study in one step.

    `most_facts` are stated at once at most, in half of the texts all that are known; `chinese` is the share of Chinese
    texts. `forget_words` of a sentence are left out, so that no single word decides.
    """

    most_facts: int = Field(6, ge=1)
    all_facts: Share = 0.25
    chinese: Share = 0.2
    forget_words: Share = 0.08


class ModelConfig(Strict):
    """The small model. `organs` have vectors of their own; `volume` and `slices` look at those beside the numbers."""

    organs: tuple[str, ...] = ()
    volume: bool = True
    slices: bool = True
    text_layers: int = Field(2, ge=1)
    text_width: int = Field(128, ge=32)


class RetrievalConfig(Strict):
    """Everything that decides a run.

    Either `index` (a folder of CTs with reference masks, as OpenKBP's index.json: texts are made of facts) or
    `pairs` (a CSV: image, text, patient, split, and findings as 0/1). `segmenter` is the medseg model whose organs
    the encoder sees. `splits` are those that are trained on, `held_out` those that the model is judged by.
    """

    name: str
    version: str = "1.0.0"
    index: Path | None = None
    pairs: Path | None = None
    splits: tuple[str, ...] = ("train",)
    held_out: tuple[str, ...] = ("validation",)
    segmenter: str = "head-neck-oar"
    model: ModelConfig = ModelConfig()
    losses: LossConfig = LossConfig()
    sampler: SamplerConfig = SamplerConfig()
    texts: TextConfig = TextConfig()
    cut: Share = 0.5
    mirror: Share = 0.5
    loop: LoopConfig = LoopConfig(
        max_steps=1500, learning_rate=2e-3, weight_decay=0.02, warmup_steps=100, ema_decay=0.99, precision="fp32"
    )
    title: str = ""
    description: str = ""
    licence: str = "Apache-2.0"
    limits: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


def load_config(source: str | Path, overrides: Mapping[str, Any] | None = None) -> RetrievalConfig:
    """A YAML file or a preset's name -> config; overrides (`loop.seed`) win, None as YAML's null.

    A relative `index` or `pairs` of the file is sought from the file's folder, then from the current one; an
    overriding one from the current folder alone.

    Raises:
        ConfigError: no such file or preset, no YAML, unknown key, value out of range.
    """
    path = find_config(source, PRESETS)
    values = read_settings(path)
    for key, value in (overrides or {}).items():
        local = key in ("index", "pairs") and value is not None
        put_setting(values, key, Path.cwd() / value if local else value)
    try:
        config = RetrievalConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path.name}: {first_fault(error, RetrievalConfig)}") from error
    return config.model_copy(update={"index": _local(path, config.index), "pairs": _local(path, config.pairs)})


def _local(config: Path, wanted: Path | None) -> Path | None:
    if wanted is None or wanted.is_absolute():
        return wanted
    beside = config.parent / wanted
    return beside if beside.exists() else Path.cwd() / wanted
