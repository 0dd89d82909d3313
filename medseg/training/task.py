"""What is trained, as the loop sees it: a network, batches by number, a loss. The loop knows nothing else of it."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

B = TypeVar("B")


@dataclass(frozen=True)
class Loss:
    """What one batch says: `total` is differentiated, `parts` are noted in the log."""

    total: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)


class Task(ABC, Generic[B]):
    """Something that `Trainer` can train.

    A batch is anything that holds tensors in dataclasses, tuples, lists or dicts. Where it has an attribute `ids`
    (strings), errors name the cases by it. Everything that learns or must survive a restart (temperatures, running
    means, weights of losses) is a parameter or buffer of the network.
    """

    @abstractmethod
    def build(self) -> nn.Module:
        """The network, freshly initialised; the loop has seeded torch before. Called once."""

    @abstractmethod
    def batch(self, number: int) -> B:
        """Batch `number` of the run, the same whenever it is asked for: on the CPU, in a worker process.

        Step s on rank r of W takes the numbers (s * n + m) * W + r, for m below n, the aggregation interval.
        """

    @abstractmethod
    def loss(self, network: nn.Module, batch: B) -> Loss:
        """The loss of one batch, under autocast; `network` may be wrapped for several ranks: call it, no more."""

    def groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """Parameter groups; `scale` multiplies the learning rate, `weight_decay` replaces the config's."""
        return [{"params": [parameter for parameter in network.parameters() if parameter.requires_grad]}]

    def validate(self, network: nn.Module, step: int) -> dict[str, float]:
        """Figures for the log, from the averaged network in evaluation mode. Called on all ranks, or on none."""
        return {}

    def identity(self) -> dict[str, Any]:
        """JSON that must not change within a run, beside the loop's own settings."""
        return {}


def moved(value: Any, device: torch.device) -> Any:
    """`value` with every tensor in it on `device`."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {item.name: moved(getattr(value, item.name), device) for item in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    if isinstance(value, Mapping):
        return {key: moved(item, device) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [moved(item, device) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def case_ids(batch: Any) -> tuple[str, ...]:
    """Of the cases that a batch was drawn from; none where it does not tell."""
    return tuple(getattr(batch, "ids", ()))


def case_names(ids: Iterable[str]) -> str:
    """What an error says about cases, each named once."""
    named = ", ".join(dict.fromkeys(ids))
    return f"; cases {named}" if named else ""
