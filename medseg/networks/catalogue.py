"""The catalogue: a network's name and options, as a model card stores them -> the module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from inspect import Parameter, signature
from typing import Any

from torch import nn

from medseg.errors import ConfigError
from medseg.networks.adapted import Adapted, Merged
from medseg.networks.nnunet import PlainConvUNet, ResidualEncoderUNet
from medseg.networks.optimized_unet import Optimized3DUNet


def build_network(name: str, options: Mapping[str, Any]) -> nn.Module:
    """Build a catalogue network.

    Raises:
        ConfigError: the name or an option is unknown.
    """
    if name not in NETWORKS:
        raise ConfigError(f"Unknown network {name!r}; the catalogue has {', '.join(NETWORKS)}.")
    _check_options(name, NETWORKS[name], options)
    try:
        return NETWORKS[name](**options)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise ConfigError(f"Network {name}: {error}.") from error


def _check_options(name: str, builder: Callable[..., nn.Module], options: Mapping[str, Any]) -> None:
    """A misspelt option beside those there are; a builder that hands its options on leaves it to the next one."""
    parameters = signature(builder).parameters
    strangers = sorted(set(options) - set(parameters))
    if strangers and not any(each.kind is Parameter.VAR_KEYWORD for each in parameters.values()):
        raise ConfigError(f"Network {name}: no option {', '.join(strangers)}; it has: {', '.join(parameters)}.")


def _monai(name: str) -> Callable[..., nn.Module]:
    """A network of MONAI, imported when it is first built: its networks take seconds to load."""

    def build(**options: Any) -> nn.Module:
        from monai.networks import nets

        if name == "SwinUNETR" and find_spec("einops") is None:  # MONAI notices only when the network runs
            raise ConfigError("SwinUNETR needs the package einops.", advice="pip install einops")

        _check_options(name, getattr(nets, name), options)
        network: nn.Module = getattr(nets, name)(**options)
        return network

    return build


def _adapted(
    network: str, options: Mapping[str, Any], count: int = 1, deep_supervision: int = 0, **around: Any
) -> nn.Module:
    """`count` networks of one kind, adapted; helper heads are left out when a foreign model is taken over."""
    return Adapted([build_network(network, options) for _ in range(count)], **around)


def _merged(
    parts: Sequence[Mapping[str, Any]], channels: Sequence[int] | None = None, deep_supervision: int = 0
) -> nn.Module:
    return Merged([build_network("Adapted", part) for part in parts], channels=channels)


MONAI_NETWORKS = ("AttentionUnet", "BasicUNet", "DynUNet", "SegResNet", "SwinUNETR", "UNet")

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "Optimized3DUNet": Optimized3DUNet,
    "PlainConvUNet": PlainConvUNet,
    "ResidualEncoderUNet": ResidualEncoderUNet,
    "Adapted": _adapted,
    "Merged": _merged,
    **{name: _monai(name) for name in MONAI_NETWORKS},
}
