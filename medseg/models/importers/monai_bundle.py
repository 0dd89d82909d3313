"""A MONAI bundle -> ForeignModel: configs/metadata.json, configs/inference.json or .yaml, models/model.pt."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.errors import ModelImportError
from medseg.imaging.emit import sha256_file
from medseg.models.card import Blend
from medseg.models.importers.foreign import ForeignModel, in_ras, is_orientation, organ_names
from medseg.models.importers.monai_config import BundleConfig, target
from medseg.models.importers.monai_transforms import KNOWN, Seen, read_postprocessing, read_preprocessing
from medseg.models.importers.nnunet_plans import read_json
from medseg.models.importers.weights import pick_tensors, read_checkpoint, without_prefix
from medseg.networks.catalogue import MONAI_NETWORKS

METADATA = "configs/metadata.json"
CONFIGS = ("configs/inference.json", "configs/inference.yaml", "configs/inference.yml")
WEIGHTS = "models/model.pt"
_INFERERS = {"SlidingWindowInferer", "SlidingWindowInfererAdapt"}
_ADVICE = "Only bundles that segment one CT with a standard network and a sliding window can be taken over."


_FAULTS = (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, RecursionError)


def read_bundle(folder: Path, *, orientation: str | None = None) -> ForeignModel:
    """Read a MONAI bundle.

    Args:
        folder: holds configs/ and models/.
        orientation: of the arrays that the network saw, where the bundle has no Orientationd.

    Raises:
        ModelImportError: a file that is missing, hostile or not understood; it is named.
    """
    try:
        return _bundle(folder, orientation)
    except _FAULTS as error:
        reason = f"is not written as MONAI writes bundles ({type(error).__name__}: {error})."
        raise ModelImportError(_config(folder), reason, advice=_ADVICE) from error


def _bundle(folder: Path, orientation: str | None) -> ForeignModel:
    metadata = read_json(folder / METADATA)
    config = BundleConfig(_config(folder), {*KNOWN, *_INFERERS, *MONAI_NETWORKS})
    name, options = _network(config)
    seen = read_preprocessing(config)
    head, remarks = read_postprocessing(config)
    organs = _organs(metadata, folder / METADATA, head)
    _check_channels(config, options, organs, head)
    codes = _codes(seen, orientation, config)
    patch, overlap, blend = _window(config)
    if seen.spacing is None:
        raise ModelImportError(config.path, "has no Spacingd: the network's grid is unknown.", advice=_ADVICE)
    tensors = pick_tensors(read_checkpoint(folder / WEIGHTS), folder / WEIGHTS, ("model", "state_dict", "net"))
    return ForeignModel(
        path=folder,
        tool="MONAI bundle",
        labels=organs,
        network=name,
        options=options,
        weights={f"members.0.{key}": tensor for key, tensor in without_prefix(tensors).items()},
        scale=seen.scale,
        spacing_mm=in_ras(seen.spacing, codes),
        patch_size=in_ras(patch, codes),
        overlap_ratio=overlap,
        blend=blend,
        around={"orientation": codes, "head": head},
        facts=_facts(folder, metadata),
        remarks=(*seen.remarks, *remarks),
        description=str(metadata.get("description") or ""),
    )


def _config(folder: Path) -> Path:
    for name in CONFIGS:
        if (folder / name).is_file():
            return folder / name
    raise ModelImportError(folder / CONFIGS[0], "is missing.", advice="Copy the whole bundle.")


def _network(config: BundleConfig) -> tuple[str, dict[str, Any]]:
    section = "network_def" if "network_def" in config.root else "network"
    node = config.section(section)
    _expect_reference(config, config.root.get("network"), section)
    name = target(node)
    if name not in MONAI_NETWORKS:
        reason = f"its network is {name or 'not written out'}."
        raise ModelImportError(config.path, reason, advice=f"These can be taken over: {', '.join(MONAI_NETWORKS)}.")
    options = {key: config.literal(value, f"network_def.{key}") for key, value in node.items() if str(key)[0] != "_"}
    if name == "SwinUNETR":
        options.pop("img_size", None)  # older bundles say it; the network takes any size
    if options.get("spatial_dims", 3) != 3 or options.get("in_channels", 1) != 1:
        raise ModelImportError(config.path, "its network does not take one three-dimensional image.", advice=_ADVICE)
    return name, options


def _expect_reference(config: BundleConfig, node: Any, section: str) -> None:
    """Whether another part of the file uses `section` and nothing else in its place."""
    if isinstance(node, str) and section not in re.findall(r"@(\w+)", node)[:1]:
        raise ModelImportError(config.path, f"runs {node} in place of {section}.", advice=_ADVICE)


def _organs(metadata: Mapping[str, Any], path: Path, head: str) -> tuple[str, ...]:
    """Names of the channels after background, which need not be listed."""
    try:
        definition = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
        named = {int(key): str(definition[key]) for key in sorted(definition, key=int)}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"does not name the output's channels ({type(error).__name__}: {error})."
        raise ModelImportError(path, reason, advice="Complete network_data_format.outputs.pred.channel_def.") from error
    organs = {channel: name for channel, name in named.items() if name.strip().lower() != "background"}
    if head == "softmax" and list(organs) != list(range(1, len(organs) + 1)):
        listed = ", ".join(f"{channel} {name}" for channel, name in list(named.items())[:3])
        reason = f"channel_def begins with {listed}; with softmax, background is channel 0 and organs follow from 1 on."
        raise ModelImportError(path, reason, advice="Mend channel_def, or train with background as channel 0.")
    return organ_names(organs.values(), path)


def _check_channels(config: BundleConfig, options: Mapping[str, Any], organs: tuple[str, ...], head: str) -> None:
    if head == "regions" and len(organs) > 1:
        reason = "several overlapping channels (sigmoid) do not say which one wins."
        raise ModelImportError(config.path, reason, advice="Only one organ with sigmoid, or classes with softmax.")
    channels = options.get("out_channels", 2)
    if channels != len(organs) + (head == "softmax"):
        reason = f"{channels} output channels do not fit {', '.join(organs)} with {head}."
        raise ModelImportError(config.path, reason, advice="Mend channel_def in metadata.json.")


def _codes(seen: Seen, told: str | None, config: BundleConfig) -> str:
    codes = seen.codes or (told.upper() if told else "")
    if not codes:
        reason = "has no Orientationd: the axes that the network saw are unknown."
        raise ModelImportError(config.path, reason, advice="Tell them, e.g. --orientation RAS.")
    if not is_orientation(codes):
        raise ModelImportError(config.path, f"{codes} names no three axes of the body.", advice="Write them as RAS.")
    return codes


def _window(config: BundleConfig) -> tuple[tuple[int, int, int], float, Blend]:
    node = config.section("inferer")
    _expect_used(config)
    if target(node) not in _INFERERS:
        raise ModelImportError(config.path, f"its inferer is {target(node) or 'not written out'}.", advice=_ADVICE)
    try:
        i, j, k = (int(side) for side in config.literal(node["roi_size"], "inferer.roi_size"))
        overlap = float(config.literal(node.get("overlap", 0.25), "inferer.overlap"))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelImportError(config.path, f"its inferer is not understood ({error}).", advice=_ADVICE) from error
    if min(i, j, k) < 1:
        raise ModelImportError(config.path, "its window takes a whole axis, whatever its length.", advice=_ADVICE)
    return (i, j, k), overlap, _blend(config, node)


def _blend(config: BundleConfig, node: Mapping[str, Any]) -> Blend:
    """Of overlapping windows; whatever else would change their voxels is refused."""
    usual = {"padding_mode": "constant", "cval": 0.0, "sigma_scale": 0.125}
    told = {key: config.literal(node[key], f"inferer.{key}") for key in usual if key in node}
    strange = [f"{key} {value}" for key, value in told.items() if value != usual[key]]
    mode = config.literal(node.get("mode", "constant"), "inferer.mode")
    if strange or mode not in ("constant", "gaussian"):
        reason = f"its inferer has {', '.join(strange) or f'mode {mode}'}."
        raise ModelImportError(config.path, reason, advice="Only MONAI's default padding and weights are supported.")
    return "gaussian" if mode == "gaussian" else "constant"


def _expect_used(config: BundleConfig) -> None:
    """The evaluator, where it is written out, uses the sections that are read here."""
    evaluator = config.root.get("evaluator")
    if isinstance(evaluator, Mapping):
        for key in ("network", "inferer", "postprocessing"):
            _expect_reference(config, evaluator.get(key), key)


def _facts(folder: Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    told = ("version", "monai_version", "task", "authors", "copyright", "data_source", "intended_use", "eval_metrics")
    return {
        "bundle": folder.name,
        **{key: metadata[key] for key in told if key in metadata},
        "checkpoints": {WEIGHTS: sha256_file(folder / WEIGHTS)},
    }
