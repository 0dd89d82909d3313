"""nnU-Net's plans.json and dataset.json -> network, scale, axes and labels. Names are compared, never imported."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.errors import ModelImportError
from medseg.models.importers.foreign import Scale, organ_names
from medseg.preprocess.spline import MAX_ANISOTROPY

_USE_3D = "Only 3d_fullres and 3d_lowres can be taken over: train or export one of these."
_NORMS = {
    "torch.nn.modules.instancenorm.InstanceNorm3d": "instance",
    "torch.nn.InstanceNorm3d": "instance",
    "torch.nn.modules.batchnorm.BatchNorm3d": "batch",
    "torch.nn.BatchNorm3d": "batch",
    None: None,
}
_SLOPES = {"LeakyReLU": 0.01, "ReLU": 0.0}
MAX_STAGES = 12
_RESAMPLER = "resample_data_or_seg_to_shape"
_PREPARED_BY = {
    "preprocessor_name": "DefaultPreprocessor",
    "resampling_fn_data": _RESAMPLER,
    "resampling_fn_probabilities": _RESAMPLER,
}
_ANY_WAY = {"is_seg": (False,), "separate_z_anisotropy_threshold": (MAX_ANISOTROPY,)}
_RESAMPLED_WITH: dict[str, dict[str, tuple[Any, ...]]] = {
    "resampling_fn_data": _ANY_WAY | {"order": (3,), "order_z": (0,), "force_separate_z": (None,)},
    # The way back is linear along every axis here, in slices that lie far apart too.
    "resampling_fn_probabilities": _ANY_WAY | {"order": (1,), "order_z": (0, 1), "force_separate_z": (None, False)},
}
_WHERE_NOT_SAID = {"order": 3, "force_separate_z": False}  # what nnU-Net's function takes then
_UNDERSTOOD = {
    "n_stages", "features_per_stage", "conv_op", "kernel_sizes", "strides", "n_conv_per_stage", "n_blocks_per_stage",
    "n_conv_per_stage_decoder", "conv_bias", "norm_op", "norm_op_kwargs", "dropout_op", "dropout_op_kwargs", "nonlin",
    "nonlin_kwargs", "deep_supervision",
}  # fmt: skip


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ModelImportError: missing, unreadable, or not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelImportError(path, "is missing.", advice="Copy the whole model folder.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelImportError(path, f"is no readable JSON ({error}).", advice="Copy the folder again.") from error
    if not isinstance(content, dict):
        raise ModelImportError(path, "holds no JSON object.", advice="Copy the folder again.")
    return content


def configuration(plans: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    """A configuration of the plans with what it inherits.

    Raises:
        ModelImportError: it is not there, is 2-D, or needs another configuration's result (cascade).
    """
    known = plans.get("configurations", {})
    merged: dict[str, Any] = {}
    seen: set[str] = set()
    current: Any = name
    while current is not None:
        if current in seen or current not in known:
            listed = ", ".join(known) or "none"
            raise ModelImportError(path, f"has no configuration {current!r}; it has {listed}.", advice=_USE_3D)
        seen.add(current)
        merged = {**known[current], **merged}
        current = known[current].get("inherits_from")
    if merged.get("previous_stage"):
        raise ModelImportError(path, f"{name} is a cascade: it needs {merged['previous_stage']} first.", advice=_USE_3D)
    if len(merged.get("patch_size", ())) != 3:
        raise ModelImportError(path, f"{name} is not three-dimensional.", advice=_USE_3D)
    return merged


def require_usual_preparation(conf: Mapping[str, Any], path: Path) -> None:
    """Refuse a configuration whose scans or logits are resampled in a way that this project does not reproduce.

    Plans that name no preprocessor or resampler are older than the choice and mean the usual ones.

    Raises:
        ModelImportError: another preprocessor, resampler, or argument of it.
    """
    strange = [f"{key} {conf[key]}" for key, usual in _PREPARED_BY.items() if conf.get(key, usual) != usual]
    for function, known in _RESAMPLED_WITH.items():
        told = conf.get(f"{function}_kwargs")
        arguments = {} if told is None else _WHERE_NOT_SAID | told
        strange += [f"{function} with {k} {v}" for k, v in arguments.items() if v not in known.get(k, ())]
    if strange:
        reason = f"{', '.join(strange)} cannot be reproduced."
        raise ModelImportError(path, reason, advice="Plan and train with nnU-Net's default preprocessing.")


def architecture(conf: Mapping[str, Any], out_channels: int, path: Path) -> tuple[str, dict[str, Any]]:
    """Catalogue name and options of the network, from the new or the old way to write it.

    Raises:
        ModelImportError: another network, or an option that ours does not have.
    """
    block = conf.get("architecture") or _old_architecture(conf, path)
    full_name, kwargs = str(block["network_class_name"]), dict(block["arch_kwargs"])
    name = full_name.rpartition(".")[2]
    if name not in ("PlainConvUNet", "ResidualEncoderUNet") or not full_name.startswith(
        "dynamic_network_architectures."
    ):
        raise ModelImportError(
            path, f"its network is {full_name}.", advice="PlainConvUNet and ResidualEncoderUNet can be taken over."
        )
    strange = sorted(key for key, value in kwargs.items() if key not in _UNDERSTOOD and value)
    if strange:
        raise ModelImportError(
            path, f"{name} with {', '.join(strange)} is not understood.", advice="Use the standard network."
        )
    levels = int(kwargs["n_stages"])
    if not 2 <= levels <= MAX_STAGES:
        raise ModelImportError(path, f"its network has {levels} stages.", advice="Use the standard network.")
    depth = ("convs", "n_conv_per_stage") if name == "PlainConvUNet" else ("blocks", "n_blocks_per_stage")
    return name, {
        "features": _per_stage(kwargs["features_per_stage"], levels),
        "kernels": _triples(kwargs["kernel_sizes"], levels),
        "strides": _triples(kwargs["strides"], levels),
        depth[0]: _per_stage(kwargs[depth[1]], levels),
        "decoder_convs": _per_stage(kwargs["n_conv_per_stage_decoder"], levels - 1),
        "out_channels": out_channels,
        "bias": bool(kwargs.get("conv_bias", False)),
        **_layers(kwargs, path),
    }


def _old_architecture(conf: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The block that plans before nnU-Net 2.3 spread over the configuration."""
    name = conf.get("UNet_class_name")
    if name is None:
        raise ModelImportError(path, "does not describe its network.", advice="Plan again with nnU-Net 2.2 or newer.")
    levels = len(conf["n_conv_per_stage_encoder"])
    base, most = conf["UNet_base_num_features"], conf["unet_max_num_features"]
    depth = "n_conv_per_stage" if name == "PlainConvUNet" else "n_blocks_per_stage"
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
        "arch_kwargs": {
            "n_stages": levels,
            "features_per_stage": [min(base * 2**level, most) for level in range(levels)],
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": conf["conv_kernel_sizes"],
            "strides": conf["pool_op_kernel_sizes"],
            depth: conf["n_conv_per_stage_encoder"],
            "n_conv_per_stage_decoder": conf["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op": "torch.nn.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "nonlin": "torch.nn.LeakyReLU",
        },
    }


def _layers(kwargs: Mapping[str, Any], path: Path) -> dict[str, Any]:
    norm, act, conv = kwargs.get("norm_op"), str(kwargs.get("nonlin")).rpartition(".")[2], kwargs.get("conv_op")
    if norm not in _NORMS or act not in _SLOPES or not str(conv).endswith("Conv3d"):
        raise ModelImportError(
            path, f"layers {conv}, {norm}, {act} are not understood.", advice="Use the standard network."
        )
    options = dict(kwargs.get("norm_op_kwargs") or {})
    if set(options) - {"eps", "affine", "momentum", "track_running_stats"}:
        raise ModelImportError(path, f"norm options {options} are not understood.", advice="Use the standard network.")
    slope = (kwargs.get("nonlin_kwargs") or {}).get("negative_slope", _SLOPES[act])
    return {"norm": _NORMS[norm], "norm_options": options, "negative_slope": float(slope)}


def _per_stage(value: Any, levels: int) -> list[int]:
    return [int(value)] * levels if isinstance(value, int) else [int(n) for n in value]


def _triples(value: Any, levels: int) -> list[list[int]]:
    rows = [value] * levels if isinstance(value, int) else value
    return [[int(row)] * 3 if isinstance(row, int) else [int(n) for n in row] for row in rows]


def scale(plans: Mapping[str, Any], conf: Mapping[str, Any], path: Path) -> Scale:
    """What becomes of HU.

    Raises:
        ModelImportError: a scheme that this project cannot reproduce.
    """
    (scheme,) = conf["normalization_schemes"]
    masked = any(conf.get("use_mask_for_norm", ()))
    if scheme == "CTNormalization":
        facts = plans["foreground_intensity_properties_per_channel"]["0"]
        factor = 1 / max(float(facts["std"]), 1e-8)
        window = (float(facts["percentile_00_5"]), float(facts["percentile_99_5"]))
        return Scale(window, factor, -float(facts["mean"]) * factor, "nnunet-window")
    if scheme == "ZScoreNormalization" and not masked:
        return Scale(intensity="nnunet-z-score")
    if scheme == "NoNormalization":
        return Scale(intensity="nnunet-window")
    reason = f"{scheme}{' within a mask' if masked else ''} cannot be reproduced."
    raise ModelImportError(path, reason, advice="Train with the channel named CT in dataset.json.")


def labels(dataset: Mapping[str, Any], path: Path) -> tuple[tuple[str, ...], str, list[int] | None]:
    """Organs in the order of their values, the head's kind, and the channel for each of ours.

    Regions (labels that name several values) get the values of `regions_class_order`, as in nnU-Net's own masks.

    Raises:
        ModelImportError: values that are not 0, 1, 2 ...
    """
    named = {name: value for name, value in dataset.get("labels", {}).items() if name != "ignore"}
    if not any(isinstance(value, list) and len(value) > 1 for value in named.values()):
        by_value = {_single(value): name for name, value in named.items()}
        _expect_run(sorted(by_value), 0, path)
        return organ_names([by_value[value] for value in sorted(by_value)][1:], path), "softmax", None
    regions = [name for name, value in named.items() if value not in (0, [0])]
    order = [int(value) for value in dataset.get("regions_class_order") or ()]
    if len(order) != len(regions):
        raise ModelImportError(path, "regions_class_order does not fit its regions.", advice="Mend dataset.json.")
    _expect_run(sorted(order), 1, path)
    channels = [order.index(value) for value in sorted(order)]
    return organ_names([regions[n] for n in channels], path), "regions", [0, *(n + 1 for n in channels)]


def _single(value: Any) -> int:
    return int(value[0] if isinstance(value, Sequence) else value)


def _expect_run(values: list[int], first: int, path: Path) -> None:
    if values != list(range(first, first + len(values))) or len(values) < 2 - first:
        raise ModelImportError(path, f"its label values are {values}.", advice="Labels must be numbered 0, 1, 2 ...")
