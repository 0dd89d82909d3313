"""Several trainings of one model as one: their logits are averaged in every window.

Folds of a cross-validation, or seeds. The mean is right more often than its members, and takes as long as all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file

from medseg.errors import ConfigError
from medseg.models.card import ModelCard, NetworkSpec
from medseg.models.importers.package import write_package
from medseg.models.store import WEIGHTS, ModelPackage, load_model
from medseg.networks.shared_kernels import expand
from medseg.runtime.provenance import now


def make_ensemble(members: Sequence[str | Path], shelf: Path, name: str, *, version: str = "1.0.0") -> Path:
    """Write a package to `shelf/name` that averages the members; returns its folder.

    Args:
        members: names or folders of packages that see the same input and name the same organs.
        shelf: gets the package.
        name: of the ensemble.
        version: of the ensemble.

    Raises:
        ConfigError: fewer than two members, one twice, members that do not fit together, or a name or version that is
            taken.
        ModelIntegrityError, UnknownModelError: a member is damaged or not there.
    """
    packages = [load_model(member) for member in members]
    _check(packages)
    weights = {
        f"members.{number}.{key}": tensor
        for number, package in enumerate(packages)
        for key, tensor in expand(load_file(package.file(WEIGHTS))).items()
    }
    return write_package(_card(packages, name, version), weights, shelf)


def _check(packages: Sequence[ModelPackage]) -> None:
    if len({package.sha256 for package in packages}) < max(2, len(packages)):
        raise ConfigError("An ensemble has two members or more, each of them once.")
    first = packages[0].card
    for package in packages:
        card = package.card
        if card.network is None:
            raise ConfigError(f"{card.id} works by rules and has no network to average.")
        for what in ("network", "input"):
            if getattr(card, what) != getattr(first, what):
                reason = f"{card.id} and {first.id} differ in their {what}: their logits cannot be averaged."
                raise ConfigError(reason, advice="Take trainings of one config.")
        if card.label_table.names != first.label_table.names:
            raise ConfigError(f"{card.id} and {first.id} name other organs.", advice="Take trainings of one config.")


def _card(packages: Sequence[ModelPackage], name: str, version: str) -> ModelCard:
    """The first member's, without what was measured of it alone."""
    first, ids = packages[0].card, [package.card.id for package in packages]
    assert first.network is not None
    own = {key: 0 if key == "deep_supervision" else value for key, value in first.network.options.items()}
    options = {"network": first.network.name, "options": own, "count": len(packages)}
    members = [{"id": p.card.id, "sha256": p.sha256, "training": p.card.training} for p in packages]
    changes = {
        "name": name,
        "version": version,
        "title": f"{first.title}, mean of {len(packages)} trainings",
        "description": f"{first.description} The mean of {', '.join(ids)}.".strip(),
        "limits": [*first.limits, f"Takes {len(packages)} times as long as one of its members. Not scored as a whole."],
        "network": NetworkSpec(name="Adapted", options=options),
        "metrics": {},
        "variants": [],
        "training": {"members": members, "made": now()},
    }
    return first.model_copy(update=changes)
