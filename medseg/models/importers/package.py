"""A ForeignModel -> a package on a shelf, checked before it is written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from medseg.errors import ConfigError, ModelImportError
from medseg.imaging.emit import emit_text, sha256_file
from medseg.labels import LabelTable
from medseg.models.card import InputSpec, ModelCard, NetworkSpec
from medseg.models.importers.foreign import ForeignModel
from medseg.models.store import CARD, WEIGHTS
from medseg.models.tensors import emit_tensors
from medseg.models.versions import new_place
from medseg.networks.catalogue import build_network
from medseg.runtime.provenance import now, versions

UNKNOWN = "Not stated by the source."
LIMITS = (
    "Taken over from another tool; nobody scored it here. Compare its masks with the original's before use.",
    "Nothing checks whether the scan shows the region that it was trained on.",
)


def write_foreign(
    model: ForeignModel, network: NetworkSpec, shelf: Path, name: str, *, version: str = "1.0.0", licence: str = UNKNOWN
) -> Path:
    """Write a package to `shelf/name`.

    Raises:
        ConfigError: a name that is no folder name, or one that is taken.
        ModelImportError: weights that do not fit the network or are not finite.
    """
    _check_weights(model, network)
    return write_package(make_card(model, network, name, version, licence), model.weights, shelf)


def write_package(card: ModelCard, weights: Mapping[str, Tensor], shelf: Path) -> Path:
    """Weights, then the card that seals them, to `shelf/NAME`; what the name meant before, it goes on to mean.

    Raises:
        ConfigError: a name that is no folder's, or one that is taken with this version.
        OutputError: it could not be written.
    """
    with new_place(shelf, card.name, card.version) as folder:
        # One parameter under two names shares memory, which safetensors does not take.
        own = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in weights.items()}
        emit_tensors(folder / WEIGHTS, own)
        card = card.model_copy(update={"files": {WEIGHTS: sha256_file(folder / WEIGHTS)}})
        emit_text(folder / CARD, card.model_dump_json(indent=2) + "\n")
    return shelf / card.name


def make_card(model: ForeignModel, network: NetworkSpec, name: str, version: str, licence: str) -> ModelCard:
    """The card of a foreign model, files not yet listed.

    Raises:
        ModelImportError: more labels than a mask can hold, or sizes that are none.
    """
    try:
        labels = LabelTable.from_names({organ: value for value, organ in enumerate(model.labels, start=1)})
        return ModelCard(
            name=name,
            version=version,
            title=f"{name} ({model.tool})",
            description=model.description or f"A {model.tool} model, imported from {model.path.name}.",
            labels=labels.to_json(),
            field_of_view=UNKNOWN,
            intended_use="Research; as stated by those who trained it.",
            limits=[*LIMITS, *model.remarks],
            licence=licence,
            network=network,
            input=_input(model),
            keep_islands=True,  # nobody knows which of its labels are one piece
            training={"tool": model.tool, "imported": now(), **model.facts, "versions": versions()},
        )
    except (ConfigError, ValueError) as error:
        raise ModelImportError(
            model.path, f"gives no valid model card ({error}).", advice="Correct it at its source."
        ) from error


def _input(model: ForeignModel) -> InputSpec:
    return InputSpec(
        spacing_mm=model.spacing_mm,
        window_hu=model.scale.window_hu,
        patch_size=model.patch_size,
        overlap_ratio=model.overlap_ratio,
        blend=model.blend,
        intensity=model.scale.intensity,
        beyond=model.scale.beyond,
        spread=model.spread,
        fitted=model.fitted,
        mirror_axes=model.mirror_axes,
        mirror_even=model.mirror_even,
    )


def _check_weights(model: ForeignModel, network: NetworkSpec) -> None:
    wanted = _shapes(model, network)
    missing = [f"{name} is missing" for name in wanted if name not in model.weights]
    extra = [f"{name} is unknown" for name in model.weights if name not in wanted]
    shapes = [
        f"{name} is {tuple(tensor.shape)}, not {wanted[name]}"
        for name, tensor in model.weights.items()
        if name in wanted and tuple(tensor.shape) != wanted[name]
    ]
    found = [*shapes, *missing, *extra]
    if found:
        listed = "; ".join(found[:3]) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")
        raise ModelImportError(
            model.path,
            f"its weights do not fit the network that its files describe: {listed}.",
            advice="Take weights and description from the same training.",
        )
    if not all(torch.isfinite(tensor).all() for tensor in model.weights.values()):
        raise ModelImportError(model.path, "its weights are not finite.", advice="Take another checkpoint.")


def _shapes(model: ForeignModel, network: NetworkSpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the network's state."""
    try:
        return {name: tuple(tensor.shape) for name, tensor in _skeleton(network).state_dict().items()}
    except (ConfigError, RuntimeError) as error:
        reason = f"its network cannot be built ({error})."
        raise ModelImportError(model.path, reason, advice="Use a standard network.") from error


def _skeleton(network: NetworkSpec) -> nn.Module:
    """Without memory for weights where the network allows that: a file must not be able to ask for terabytes."""
    try:
        with torch.device("meta"):
            return build_network(network.name, network.options)
    except (NotImplementedError, RuntimeError):
        return build_network(network.name, network.options)


def network_spec(model: ForeignModel) -> NetworkSpec:
    """The catalogue network of one foreign model."""
    return NetworkSpec(name="Adapted", options=model.adapted_options)
