"""The catalogue: a network's name and options, as a model card stores them -> the module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from medseg.errors import ConfigError
from medseg.networks.optimized_unet import Optimized3DUNet

NETWORKS: dict[str, Callable[..., nn.Module]] = {"Optimized3DUNet": Optimized3DUNet}


def build_network(name: str, options: Mapping[str, Any]) -> nn.Module:
    """Build a catalogue network.

    Raises:
        ConfigError: the name or an option is unknown.
    """
    if name not in NETWORKS:
        raise ConfigError(f"Unknown network {name!r}; the catalogue has {', '.join(NETWORKS)}.")
    try:
        return NETWORKS[name](**options)
    except TypeError as error:
        raise ConfigError(f"Network {name}: {error}.") from error
