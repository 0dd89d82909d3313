"""Commands about models: list, take over, keep versions, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from medseg.commands.arguments import MaybeOut
from medseg.errors import OutputError


def models(name: Positional[str | None] = None, /, json: bool = False) -> int:
    """List the installed models, or show the card of one.

    See also `medseg models import`, `register`, `promote`, `rollback` and `ensemble`, each with a --help of its own.

    Args:
        name: Show this model's card: organs, scores, intended use, limits.
        json: Print the card or the list as JSON, for programs.
    """
    from medseg.models.console import print_card, print_models

    return print_card(name, as_json=json) if name else print_models(as_json=json)


def import_model(
    paths: Positional[tuple[Path, ...]],
    /,
    name: str,
    out: MaybeOut = None,
    folds: tuple[str, ...] = (),
    orientation: str | None = None,
    faithful: bool = False,
    labels: Path | None = None,
    licence: str | None = None,
    version: str = "1.0.0",
) -> int:
    """Take over a model of nnU-Net v2 or a MONAI bundle (`medseg models import` is the same command).

    Weights are read without running anything that the files hold. The package is written to OUT/NAME;
    `medseg segment ... --model OUT/NAME` uses it.

    Args:
        paths: An nnU-Net model folder (plans.json) or a MONAI bundle (configs/metadata.json). Several of one
            spacing and window become one model that knows the organs of all.
        name: Name of the model here.
        out: Shelf that gets the package; the first folder of $MEDSEG_MODELS if not given.
        folds: Folds of nnU-Net to average, e.g. 0 1; all that are there if not given.
        orientation: Order of the axes (i, j, k) in the files that nnU-Net was trained on, e.g. RAS; LPS if not
            given. For a bundle: the order that its network saw, where it does not say so itself.
        faithful: Windows and mirror images as nnU-Net runs them by default: the same mask, several times slower.
            Without it, windows over the patient alone, and up to four images of each.
        labels: JSON {organ: value} that numbers the organs of several models.
        licence: Under which the weights may be used; stands in the model card.
        version: Version of the package.
    """
    from medseg.models.importers.console import import_and_report

    return import_and_report(
        paths,
        out,
        name,
        folds=folds,
        orientation=orientation,
        faithful=faithful,
        labels=labels,
        licence=licence,
        version=version,
    )


def register_model(package: Positional[Path], /, out: MaybeOut = None, tracking: Path | None = None) -> int:
    """Copy a finished package to a shelf as NAME@VERSION (`medseg models register` is the same command).

    What `--model NAME` means stays as it is until `medseg models promote`.

    Args:
        package: Folder of a package, e.g. RUN/package.
        out: The shelf; the first folder of $MEDSEG_MODELS if not given.
        tracking: MLflow folder (`tracking:` of a config) whose model registry is to show the shelf's versions, too.
    """
    return _change("register", str(package), out, tracking)


def promote_model(
    model: Annotated[Positional[str], arg(metavar="NAME@VERSION")],
    /,
    out: MaybeOut = None,
    tracking: Path | None = None,
) -> int:
    """Let `--model NAME` mean this version from now on (`medseg models promote` is the same command).

    Args:
        model: The version, as `medseg models register` named it.
        out: The shelf; the first folder of $MEDSEG_MODELS if not given.
        tracking: MLflow folder whose model registry is to follow.
    """
    return _change("promote", model, out, tracking)


def roll_back_model(
    name: Annotated[Positional[str], arg(metavar="NAME")], /, out: MaybeOut = None, tracking: Path | None = None
) -> int:
    """Take the last promotion back (`medseg models rollback` is the same command).

    Args:
        name: Name of the model, without a version.
        out: The shelf; the first folder of $MEDSEG_MODELS if not given.
        tracking: MLflow folder whose model registry is to follow.
    """
    return _change("rollback", name, out, tracking)


def _change(what: str, model: str, out: Path | None, tracking: Path | None) -> int:
    from medseg.models.console import change_versions

    if tracking is None:
        change_versions(what, model, out)
        return 0
    from medseg.training.tracking import mirror_versions, require_mlflow

    require_mlflow()
    versions = change_versions(what, model, out)
    try:
        mirror_versions(versions, tracking)
    except Exception as error:  # whatever MLflow raises: the shelf has changed all the same
        again = "the same command tries the registry again"
        if what == "rollback":  # which would go back one more
            again = f"`medseg models promote` of what is in use there, with --tracking {tracking}, tries it again"
        advice = f"The shelf is as shown; {again}."
        raise OutputError(f"MLflow's registry in {tracking} could not follow: {error}.", advice=advice) from error
    print(f"MLflow's registry in {tracking} shows the same.")
    return 0


def ensemble_models(
    members: Positional[tuple[str, ...]], /, name: str, out: MaybeOut = None, version: str = "1.0.0"
) -> int:
    """Average several trainings of one model, e.g. the folds (`medseg models ensemble` is the same command).

    Their logits are averaged in every window: better than any of them, and as slow as all of them.

    Args:
        members: Names or folders of packages of one config.
        name: Name of the ensemble.
        out: Shelf that gets the package; the first folder of $MEDSEG_MODELS if not given.
        version: Version of the ensemble.
    """
    from medseg.models.ensemble import make_ensemble
    from medseg.models.versions import own_shelf

    print(f"Model package: {make_ensemble(members, own_shelf(out), name, version=version)}")
    return 0


def export(
    model: Positional[str],
    /,
    out: MaybeOut = None,
    int8: bool = False,
    share: bool = False,
    calibrate: Path | None = None,
    references: Path | None = None,
) -> int:
    """Export a model to ONNX, and to int8, which is the fastest on a CPU.

    Writes a copy of the model package with model.onnx (float32, any batch, the model's window; spacing,
    HU window, labels and version stand in its metadata) and, with --int8, model.int8.onnx (a quarter of the
    size). A variant enters only through the parity gate: its masks have to be those of the float32
    network, organ by organ, on scans that calibration has not seen; the figures stand in the card.
    Use the copy as any model: `medseg segment CT -o OUT --model FOLDER`. Needs medseg[deploy].

    Examples:
        medseg export head-neck-oar -o export
        medseg export head-neck-oar -o export --int8 --calibrate scans/ --references scans/

    Exit codes: 0 all fine, 3 exported, but int8 did not pass the gate.

    Args:
        model: Name of an installed model (see `medseg models`) or folder of a package.
        out: New folder for the package; NAME-VERSION-export here if not given.
        int8: Also quantise to 8 bits (a minute for a few scans, more for large models).
        share: With --int8, tie the kernels of deep layers in groups of four by likeness, and let the network learn
            for two minutes from the one before: about a tenth of the size of fp32 in place of a quarter, as fast,
            and up to 1.2 points of Dice lost.
        calibrate: Folder of CT scans as the model will see them, ten or more; every second one calibrates,
            the others judge, at most twelve each.
        references: Folder of label maps (ID_label.nii.gz for ID_ct.nii.gz) of these scans: then the loss of Dice
            against them counts too.
    """
    from medseg.deploy.console import export_and_report

    return export_and_report(model, out, int8=int8, share=share, calibrate=calibrate, references=references)
