"""An nnU-Net v2 model folder -> ForeignModel.

Layout: plans.json, dataset.json and fold_N/checkpoint_final.pth. The network saw arrays as SimpleITK reads
files, [slice, row, column]. Two of nnU-Net's readers turn them to RAS; with the others they keep the file's own
orientation, which nnU-Net does not store: it is assumed to be that of a scanner's axial CT (LPS), can be told,
and stands in the card.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from medseg.errors import ConfigError, ModelImportError
from medseg.imaging.emit import sha256_file
from medseg.models.importers.foreign import ForeignModel, in_ras, in_ras_axes, is_orientation
from medseg.models.importers.nnunet_plans import (
    architecture,
    configuration,
    labels,
    read_json,
    require_usual_preparation,
    scale,
)
from medseg.models.importers.weights import pick_tensors, read_checkpoint, without_prefix

PLANS, DATASET = "plans.json", "dataset.json"
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
_OVERLAP = 0.5
_TURN_TO_RAS = ("NibabelIOWithReorient", "SimpleITKIOWithReorient")
_AS_STORED = ("SimpleITKIO", "NibabelIO", "Tiff3DIO")


def read_nnunet(
    folder: Path, *, folds: Sequence[str] = (), orientation: str | None = None, faithful: bool = False
) -> ForeignModel:
    """Read an nnU-Net v2 model folder.

    Args:
        folder: holds plans.json; or a folder with one such folder in it.
        folds: names after 'fold_'; all that are there where none is given. Their logits are averaged.
        orientation: of the files that it was trained on, e.g. 'RAS'; LPS where not given.
        faithful: windows as nnU-Net lays them by default: half a window's step over the whole scan, and all mirror
            images. Otherwise windows of the same step over the patient alone, and up to four images of each.

    Raises:
        ModelImportError: a file that is missing, hostile or not understood; it is named.
    """
    folder = _model_folder(folder)
    plans, dataset = read_json(folder / PLANS), read_json(folder / DATASET)
    checkpoints = [_checkpoint(fold) for fold in _folds(folder, folds)]
    contents = [_content(path) for path in checkpoints]
    name = _configuration_name(contents[0], folder)
    try:
        return _assemble(folder, plans, dataset, name, checkpoints, contents, orientation, faithful)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        reason = f"does not describe configuration {name} as nnU-Net v2 does ({type(error).__name__}: {error})."
        raise ModelImportError(folder / PLANS, reason, advice="Take the folder as nnU-Net wrote it.") from error


def _assemble(
    folder: Path,
    plans: Mapping[str, Any],
    dataset: Mapping[str, Any],
    name: str,
    checkpoints: Sequence[Path],
    contents: Sequence[Mapping[str, Any]],
    orientation: str | None,
    faithful: bool,
) -> ForeignModel:
    _one_ct(dataset, folder / DATASET)
    conf = configuration(plans, name, folder / PLANS)
    require_usual_preparation(conf, folder / PLANS)
    organs, head, channels = labels(dataset, folder / DATASET)
    outs = len(organs) + (head == "softmax")
    network, options = architecture(conf, outs, folder / PLANS)
    read_as, sure = _orientation(plans, orientation, folder / PLANS)
    codes = _array_codes(read_as, plans.get("transpose_forward", [0, 1, 2]))
    mirror = [int(axis) for axis in contents[0].get("inference_allowed_mirroring_axes") or ()]
    # The mean of overlapping regions is taken before they become labels: inside the network alone.
    inside = mirror if faithful and head == "regions" else []
    mirror_axes = () if head == "regions" else in_ras_axes(mirror, codes)
    weights: dict[str, Tensor] = {}
    for number, (path, content) in enumerate(zip(checkpoints, contents, strict=True)):
        tensors = _once(pick_tensors(content, path, ("network_weights",)), len(options["features"]))
        weights |= {f"members.{number}.{key}": tensor for key, tensor in tensors.items()}
    return ForeignModel(
        path=folder,
        tool="nnU-Net v2",
        labels=organs,
        network=network,
        options=options,
        weights=weights,
        scale=scale(plans, conf, folder / PLANS),
        spacing_mm=in_ras([float(step) for step in conf["spacing"]], codes),
        patch_size=in_ras([int(side) for side in conf["patch_size"]], codes),
        overlap_ratio=_OVERLAP,
        count=len(checkpoints),
        spread="".join(sorted(codes, key="RLAPSI".index)) if faithful else None,
        fitted=not faithful,
        mirror_axes=mirror_axes,
        mirror_even=not faithful and len(mirror_axes) > 1,
        around={"orientation": codes, "head": head, "channels": channels, "mirror_axes": inside},
        facts=_facts(folder, name, contents[0], checkpoints, plans, codes, mirror),
        remarks=_remarks(read_as, sure=sure, faithful=faithful),
        description=str(dataset.get("description") or ""),
    )


def _remarks(read_as: str, *, sure: bool, faithful: bool) -> tuple[str, ...]:
    """What was taken for granted, and what the default leaves out."""
    order = f"The files that it was trained on are taken to be in {read_as} order."
    thin = "Looks where the patient is thicker than 12 mm: an ear or a nose may get no label (--faithful: all is seen)."
    return (*(() if sure else (order,)), *(() if faithful else (thin,)))


def _model_folder(folder: Path) -> Path:
    if (folder / PLANS).is_file():
        return folder
    inside = sorted(path.parent for path in folder.glob(f"*/{PLANS}"))
    if len(inside) == 1:
        return inside[0]
    if not inside:
        raise ModelImportError(folder / PLANS, "is missing.", advice="Give the folder that nnU-Net trained into.")
    names = ", ".join(path.name for path in inside)
    raise ModelImportError(folder, f"holds several models: {names}.", advice="Give one of these folders.")


def _one_ct(dataset: Mapping[str, Any], path: Path) -> None:
    channels = dataset.get("channel_names") or dataset.get("modality") or {}
    if len(channels) > 1:
        listed = ", ".join(map(str, channels.values()))
        raise ModelImportError(
            path, f"its network takes {len(channels)} images ({listed}).", advice="One CT is supported."
        )


def _folds(folder: Path, wanted: Sequence[str]) -> list[Path]:
    there = {path.name.removeprefix("fold_"): path for path in sorted(folder.glob("fold_*")) if path.is_dir()}
    if not wanted and len(there) > 1:
        there.pop("all", None)  # trained on everything: no member of the cross-validation
    missing = [fold for fold in wanted if fold not in there]
    if missing or not there:
        listed = ", ".join(there) or "none"
        raise ModelImportError(
            folder,
            f"has no fold {', '.join(missing) or 'at all'}; it has {listed}.",
            advice="Copy fold_N with its checkpoint.",
        )
    return [there[fold] for fold in (wanted or there)]


def _checkpoint(fold: Path) -> Path:
    for name in CHECKPOINTS:
        if (fold / name).is_file():
            return fold / name
    raise ModelImportError(fold / CHECKPOINTS[0], "is missing.", advice=f"Copy {fold.name} with its checkpoint.")


def _content(path: Path) -> Mapping[str, Any]:
    content = read_checkpoint(path)
    if not isinstance(content, Mapping) or "network_weights" not in content:
        raise ModelImportError(path, "holds no network_weights.", advice="Take the checkpoint as nnU-Net wrote it.")
    return content


def _configuration_name(content: Mapping[str, Any], folder: Path) -> str:
    """From the checkpoint, as nnU-Net itself does; else from the folder's name (TRAINER__PLANS__CONFIGURATION)."""
    arguments = content.get("init_args")
    if isinstance(arguments, Mapping) and isinstance(arguments.get("configuration"), str):
        return str(arguments["configuration"])
    return folder.name.rpartition("__")[2]


def _orientation(plans: Mapping[str, Any], told: str | None, path: Path) -> tuple[str, bool]:
    """Orientation of the arrays as files were read, i j k, and whether that is certain."""
    reader = plans.get("image_reader_writer", _AS_STORED[0])
    if reader in _TURN_TO_RAS:
        return "RAS", True
    if reader not in _AS_STORED:
        own = ", ".join((*_AS_STORED, *_TURN_TO_RAS))
        reason = f"its scans were read by {reader}, of which nobody here knows how it turns them."
        raise ModelImportError(path, reason, advice=f"These readers are known: {own}.")
    if told and not is_orientation(told.upper()):
        raise ConfigError(f"--orientation {told} names no three axes of the body.", advice="Write them as RAS or LPS.")
    return (told.upper(), True) if told else ("LPS", False)


def _array_codes(file_codes: str, transpose: Sequence[int]) -> str:
    as_read = file_codes[::-1]  # readers give [k, j, i]
    return "".join(as_read[axis] for axis in transpose)


def _once(weights: Mapping[str, Tensor], levels: int) -> dict[str, Tensor]:
    """Each parameter under one name, and of the heads only the one at full resolution."""
    head = f"decoder.seg_layers.{levels - 2}."
    out = {}
    for name, tensor in without_prefix(weights).items():
        name = name.replace(head, "decoder.head.")
        if not re.search(r"\.all_modules\.|^decoder\.encoder\.|^decoder\.seg_layers\.", name):
            out[name] = tensor
    return out


def _facts(
    folder: Path,
    name: str,
    content: Mapping[str, Any],
    checkpoints: Sequence[Path],
    plans: Mapping[str, Any],
    codes: str,
    mirror: Sequence[int],
) -> dict[str, Any]:
    return {
        "dataset": str(plans.get("dataset_name", "")),
        "model_folder": folder.name,
        "configuration": name,
        "trainer": str(content.get("trainer_name", "")),
        "epochs": int(content.get("current_epoch", 0)),
        "checkpoints": {f"{path.parent.name}/{path.name}": sha256_file(path) for path in checkpoints},
        "arrays": f"axes grow to {codes}",
        "mirroring_in_training": list(mirror),
    }
