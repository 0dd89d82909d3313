"""AutoMixedPrecision: torch's autocast and gradient scaler behind the specification's call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from medseg.errors import ConfigError
from medseg.training.loop import AUTO, LoopConfig, Precision
from medseg.training.trial import bf16_pays

_HALF: dict[str, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}
_NEVER = 2**31 - 1
_COUNTS = ("good_steps", "skipped_steps", "helpless_steps", "half_share")  # that a checkpoint keeps


def fastest(device: torch.device) -> Precision:
    """The precision in which a training step takes least time on a device.

    A GPU: bf16, or fp16 where it has none. A CPU: bf16 where small steps show that it pays, found out once per machine;
    what a processor claims to have decides nothing (docs/BENCHMARKS.md). Others: fp32.
    """
    if device.type == "cuda":
        return "bf16" if _gpu_has_bf16() else "fp16"
    return "bf16" if device.type == "cpu" and bf16_pays() else "fp32"


def _gpu_has_bf16() -> bool:
    """A GPU that is only planned for is taken for a recent one."""
    return not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)


class AutoMixedPrecision:
    """Half precision where it is safe, with a scale for fp16 gradients that would vanish otherwise.

    The scale starts at `init_scale`, halves when a gradient overflows (that step is skipped), doubles after
    `growth_interval` good steps, and never falls below `loss_scale`. With `init_scale=None` it stays at
    `loss_scale`. bf16 has fp32's range and needs no scale; fp32 and fp64 compute as ever.

    Usage::

        with amp.autocast():
            loss = ...
        with amp.scale_loss(loss, optimizer) as scaled:
            scaled.backward()
        optimizer.step()          # after an overflow there are no gradients left, and nothing moves

    Attributes:
        good_steps, skipped_steps: how many steps were taken and left out so far.
        half_share: share of the floating-point work of a step that was done in half precision; None until
            `measure` has looked at one.
        helpless_steps: how many steps in a row were left out although the scale could not fall any more.

    Raises:
        ConfigError: a scale that is not positive, or scales in the wrong order.
    """

    def __init__(
        self,
        loss_scale: float = 128,
        init_scale: float | None = 65536,
        growth_interval: int = 2000,
        *,
        precision: Precision = "fp16",
        device: str | torch.device = "cpu",
    ) -> None:
        if loss_scale <= 0 or (init_scale is not None and init_scale < loss_scale):
            raise ConfigError(f"Scales must be positive and init_scale >= loss_scale, not {init_scale}, {loss_scale}.")
        self.loss_scale, self.static = float(loss_scale), init_scale is None
        self.precision, self.device_type = precision, torch.device(device).type
        self.good_steps = self.skipped_steps = self.helpless_steps = 0
        self.half_share: float | None = None
        self._scaler = torch.amp.GradScaler(
            self.device_type,
            init_scale=self.loss_scale if init_scale is None else float(init_scale),
            growth_interval=_NEVER if self.static else growth_interval,
            enabled=precision == "fp16",
        )
        self.overflowed = False

    @classmethod
    def from_config(cls, config: LoopConfig, device: torch.device, auto: Precision | None = None) -> AutoMixedPrecision:
        """As a run's settings want it; where they say `auto`, in that precision, or the fastest of the device."""
        precision = config.precision if config.precision != AUTO else auto or fastest(device)
        return cls(config.loss_scale, config.init_scale, config.growth_interval, precision=precision, device=device)

    @property
    def scale(self) -> float:
        """The factor of the loss now; 1 where none is needed."""
        return float(self._scaler.get_scale())

    def autocast(self) -> Any:
        """The context in which a loss is computed."""
        half = _HALF.get(self.precision)
        return nullcontext() if half is None else torch.autocast(self.device_type, half)

    @contextmanager
    def scale_loss(
        self, loss: Tensor, optimizer: torch.optim.Optimizer, *, delay_unscale: bool = False
    ) -> Iterator[Tensor]:
        """The scaled loss to call `backward` on; when the block ends, gradients have their true size again.

        Args:
            loss: of one batch.
            optimizer: holds the gradients; after an overflow they are dropped, so that its next step does nothing.
            delay_unscale: more batches follow before the step; leave the gradients scaled.
        """
        yield self._scaler.scale(loss)
        if not delay_unscale:
            self._unscale(optimizer)

    def _unscale(self, optimizer: torch.optim.Optimizer) -> None:
        self.overflowed, before = False, self.scale
        if self._scaler.is_enabled():
            self._scaler.unscale_(optimizer)
            self._scaler.update()
            self.overflowed = self.scale < before
            if self.static or self.scale < self.loss_scale:
                self._scaler.update(self.loss_scale)
        self.helpless_steps = self.helpless_steps + 1 if self.overflowed and before <= self.loss_scale else 0
        if self.overflowed:
            self.skipped_steps += 1
            optimizer.zero_grad(set_to_none=True)
        else:
            self.good_steps += 1

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Look at the work inside the block once: fills `half_share`."""
        with _WorkByType() as work:
            yield
        total = sum(work.flops.values())
        self.half_share = sum(work.flops.get(half, 0) for half in _HALF.values()) / total if total else 0.0

    def report(self) -> dict[str, float | int | str | None]:
        """What the log and the report say."""
        return {
            "precision": self.precision,
            "scale": self.scale,
            "good_steps": self.good_steps,
            "skipped_steps": self.skipped_steps,
            "half_share": None if self.half_share is None else round(self.half_share, 4),
        }

    def state_dict(self) -> dict[str, Any]:
        """JSON that a checkpoint keeps."""
        counts = {name: getattr(self, name) for name in _COUNTS}
        return {"scaler": self._scaler.state_dict(), "precision": self.precision} | counts

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        if state["scaler"]:
            self._scaler.load_state_dict(state["scaler"])
        for name in _COUNTS:
            setattr(self, name, state.get(name, 0))  # checkpoints of older versions lack helpless_steps


class _WorkByType(TorchDispatchMode):
    """Counts the floating-point operations of convolutions and products by the type they are computed in."""

    def __init__(self) -> None:
        super().__init__()
        self.flops: dict[torch.dtype, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if packet in flop_registry:
            dtype = next((value.dtype for value in args if isinstance(value, Tensor)), torch.float32)
            count = flop_registry[packet](*args, **(kwargs or {}), out_val=out)
            self.flops[dtype] = self.flops.get(dtype, 0) + int(count)
        return out
