"""DynamicLoss: several losses -> one, by weights that follow the training and do not run away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from medseg.errors import ConfigError, DataError

Method = Literal["fixed", "uncertainty", "dwa", "famo", "literal"]
Losses = Mapping[str, Tensor] | Sequence[Tensor] | Tensor
_CLAMP = 3.0


class DynamicLoss(nn.Module):
    """One loss from several.

    `uncertainty` (Kendall et al., 2018) divides each loss by a learned scale and charges for the scale; `dwa` (Liu et
    al., 2019) gives more to losses that fall slowly; `famo` (Liu et al., 2023) moves weights so that all losses fall
    at one rate; `fixed` keeps `base_weights`. Weights stay positive and are exactly `base_weights` at the start.

    `literal` is sum(w_i l_i) / sum(l_i) with w learned, as it stood in a specification; it is here to be compared
    with and must not be used: equal weights leave no gradient, and a weight's own gradient is always positive, so
    that descent takes all weights to minus infinity (`tests/vlretrieval/losses/test_weighting.py`).

    Args:
        base_weights: one for each loss; a mapping names them.
        method: how the weights move.
        temperature: of `dwa`; higher keeps weights closer together.
        window: training calls that `dwa` averages over.
        rate: step size of `famo`.

    Raises:
        ConfigError: no weights, or one that is not positive.
    """

    base: Tensor
    means: Tensor
    running: Tensor
    logits: Tensor
    before: Tensor
    calls: Tensor

    def __init__(
        self,
        base_weights: Mapping[str, float] | Sequence[float] | Tensor,
        method: Method = "uncertainty",
        *,
        temperature: float = 2.0,
        window: int = 25,
        rate: float = 0.025,
    ) -> None:
        super().__init__()
        self.names = tuple(base_weights) if isinstance(base_weights, Mapping) else None
        values = list(base_weights.values()) if isinstance(base_weights, Mapping) else base_weights
        base = torch.as_tensor(values, dtype=torch.float32).detach().clone().reshape(-1)
        if not len(base) or not (base > 0).all() or not torch.isfinite(base).all():
            raise ConfigError("Base weights of losses are one or more positive numbers.")
        if method not in ("fixed", "uncertainty", "dwa", "famo", "literal"):
            raise ConfigError(f"There is no way {method!r} to weigh losses.")
        self.method, self.temperature, self.window, self.rate = method, temperature, window, rate
        self.register_buffer("base", base)
        # What is learned: log-variances, or the literal weights themselves. Buffers cross checkpoints as well.
        start = base.clone() if method == "literal" else torch.zeros(len(base))
        self.scores = nn.Parameter(start, requires_grad=method in ("uncertainty", "literal"))
        self.register_buffer("means", torch.zeros(2, len(base)))
        self.register_buffer("running", torch.zeros(len(base)))
        self.register_buffer("logits", torch.zeros(len(base)))
        self.register_buffer("before", torch.full((len(base),), torch.nan))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, losses: Losses) -> Tensor:
        """The weighted loss. In training mode the weights move.

        Raises:
            DataError: not as many losses as weights, or other names.
        """
        stacked = self._stack(losses)
        if self.method == "literal":
            return (self.scores * stacked).sum() / stacked.sum()
        if self.training:
            self._follow(stacked.detach())
        if self.method == "uncertainty":
            scores = self.scores.clamp(-_CLAMP, _CLAMP)
            return (self.base * (torch.exp(-scores) * stacked + scores)).sum()
        return (self.weights * stacked).sum()

    @property
    def weights(self) -> Tensor:
        """The factors that the losses have now."""
        if self.method == "literal":
            return self.scores.detach()
        if self.method == "uncertainty":
            return self.base * torch.exp(-self.scores.detach().clamp(-_CLAMP, _CLAMP))
        if self.method == "dwa" and (self.means > 0).all():
            pace = torch.softmax(self.means[1] / self.means[0] / self.temperature, dim=0)
            return self.base * pace * len(self.base)
        if self.method == "famo":
            return self.base * torch.softmax(self.logits, dim=0) * len(self.base)
        return self.base.clone()

    def _stack(self, losses: Losses) -> Tensor:
        if isinstance(losses, Mapping):
            wanted = self.names or tuple(losses)
            if set(wanted) != set(losses):
                raise DataError(f"Losses {', '.join(losses)} were given; weights are of {', '.join(wanted)}.")
            losses = [losses[name] for name in wanted]
        stacked = losses if isinstance(losses, Tensor) else torch.stack([torch.as_tensor(loss) for loss in losses])
        stacked = stacked.reshape(-1).float()
        if len(stacked) != len(self.base):
            raise DataError(f"{len(stacked)} losses were given for {len(self.base)} weights.")
        return stacked

    @torch.no_grad()
    def _follow(self, losses: Tensor) -> None:
        if not torch.isfinite(losses).all():
            return  # a skipped step of mixed precision must not spoil the running means
        self.calls += 1
        if self.method == "dwa":
            self.running += losses / self.window
            if int(self.calls) % self.window == 0:
                self.means[0], self.means[1] = self.means[1].clone(), self.running.clone()
                self.running.zero_()
        elif self.method == "famo":
            self._follow_famo(losses)

    def _follow_famo(self, losses: Tensor) -> None:
        now = torch.log(losses.clamp(min=1e-8))
        if torch.isfinite(self.before).all():
            fall = self.before - now
            share = torch.softmax(self.logits, dim=0)
            # The gradient of the weighted fall; a loss that falls more slowly than the others gains weight.
            self.logits -= self.rate * share * (fall - (share * fall).sum())
            self.logits -= self.logits.mean()
        self.before.copy_(now)
