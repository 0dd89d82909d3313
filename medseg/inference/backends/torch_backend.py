"""PyTorch: what runs everywhere, and what the others are compared with."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from medseg.errors import ConfigError, ModelIntegrityError
from medseg.inference.backends.choice import Choice
from medseg.models.store import WEIGHTS, ModelPackage
from medseg.networks.catalogue import build_network
from medseg.networks.shared_kernels import expand

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def load_network(package: ModelPackage) -> nn.Module:
    """The network of a verified package: float32, in evaluation mode, channels last, without training's extra heads.

    Raises:
        ModelIntegrityError: weights that do not fit the card's network, or are not finite.
    """
    card = package.card
    if card.network is None:
        raise ModelIntegrityError(f"Model {card.id} does not name its network.")
    options = dict(card.network.options)
    if "deep_supervision" in options:
        options["deep_supervision"] = 0
    try:
        network = build_network(card.network.name, options)
    except ConfigError as error:
        raise ModelIntegrityError(f"Model {card.id}: {error}") from error
    _load_weights(network, package)
    return network.eval().to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload,no-any-return]


def _load_weights(network: nn.Module, package: ModelPackage) -> None:
    try:
        weights = load_file(package.file(WEIGHTS))
    except SafetensorError as error:
        raise ModelIntegrityError(f"Model {package.card.id}: {WEIGHTS} is no safetensors file.") from error
    if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
        raise ModelIntegrityError(f"Model {package.card.id}: weights are not finite.")
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in expand(weights).items()})
    except RuntimeError as error:
        raise ModelIntegrityError(f"Model {package.card.id}: weights do not fit the network of its card.") from error


class TorchPredictor:
    """PyTorch eager on the CPU, or on a CUDA device with automatic mixed precision (on an H200: docs/BENCHMARKS.md).

    Args:
        network: in evaluation mode, [B, 1, i, j, k] -> [B, C, i, j, k].
        precision: 'fp32', 'bf16' or 'fp16' (CUDA alone).
        device: 'cpu' or 'cuda'.
    """

    backend = "torch"

    def __init__(self, network: nn.Module, precision: str, device: str = "cpu") -> None:
        if precision not in ("fp32", *_DTYPES) or (precision == "fp16" and device == "cpu"):
            raise ConfigError(f"PyTorch on {device} does not compute in {precision}.")
        self.precision, self.device = precision, device
        self.choice: Choice | None = None
        self._network = network.to(device)

    def __call__(self, tiles: Tensor) -> Tensor:
        """See `Predictor`. The result is an inference tensor."""
        with torch.inference_mode(), self._autocast():
            batch = tiles.to(self.device).to(memory_format=torch.channels_last_3d)
            logits: Tensor = self._network(batch)
            return logits.float().to(tiles.device)

    def _autocast(self) -> AbstractContextManager[object]:
        # Also switched off explicitly: the caller may compute under autocast.
        if self.precision == "fp32":
            return torch.autocast(self.device, enabled=False)
        return torch.autocast(self.device, _DTYPES[self.precision])


def build_torch(package: ModelPackage, precision: str) -> TorchPredictor:
    """The package's network on the GPU where there is one, else on the CPU."""
    return TorchPredictor(load_network(package), precision, torch_device())


def torch_device() -> str:
    """'cuda' where PyTorch sees a GPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"
