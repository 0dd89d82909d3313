"""The typed settings of the training loop, the same for every task."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Precision = Literal["fp32", "bf16", "fp16", "fp64"]
AUTO: Final = "auto"


class Strict(BaseModel):
    """A frozen group of settings: unknown keys and NaN are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class LoopConfig(Strict):
    """How a network is trained, whatever it is.

    `max_minutes` counts the time of the steps alone, over all resumed parts; where it is given, the schedule ends with
    it or with `max_steps`, whichever comes first. `gradient_aggregation_interval` batches make one optimiser step.
    `precision: auto` is the fastest one of the device where a run begins, and stays when it goes on elsewhere.
    `loss_scale`, `init_scale` and `growth_interval` belong to fp16 (see `AutoMixedPrecision`). `workers` prepare
    batches beside the network: `auto` is one for a CPU and more for a GPU; 0 prepares them in between. `compile`
    builds a graph first (torch.compile), which pays in long runs; it is kept beside the run, so that the next start
    finds it. `ema_decay: null` keeps no average. `spare_memory` gives a CPU's memory back as soon as it is free: the
    peak is lower, a step takes longer.
    """

    max_steps: int = Field(6000, ge=1)
    max_minutes: float | None = Field(None, gt=0)
    optimiser: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(1.5e-3, gt=0)
    schedule: Literal["cosine", "poly", "constant"] = "cosine"
    warmup_steps: int = Field(200, ge=0)
    weight_decay: float = Field(1e-2, ge=0)
    momentum: float = Field(0.99, ge=0, lt=1)
    gradient_aggregation_interval: int = Field(1, ge=1)
    gradient_clip: float = Field(1.0, gt=0)
    ema_decay: float | None = Field(0.998, ge=0, lt=1)
    precision: Literal[Precision, "auto"] = AUTO
    loss_scale: float = Field(128, gt=0)
    init_scale: float | None = Field(65536, gt=0)
    growth_interval: int = Field(2000, ge=1)
    device: str = "auto"
    compile: bool = False
    spare_memory: bool = False
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = AUTO
    seed: int = Field(0, ge=0)
    log_steps: int = Field(25, ge=1)
    validate_steps: int = Field(0, ge=0, description="0: only when the run has ended")
    checkpoint_minutes: float = Field(5.0, gt=0)

    @model_validator(mode="after")
    def _scales_in_order(self) -> Self:
        if self.init_scale is not None and self.init_scale < self.loss_scale:
            raise ValueError("init_scale must not lie below loss_scale, which the scale never undercuts")
        return self
