"""Model folders as nnU-Net v2 and MONAI's model zoo lay them out, with planted weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.models.importers.facts import FACTS, theirs
from tests.models.importers.planted_weights import planted_tensor

CT_FACTS = {"mean": 60.0, "std": 320.0, "percentile_00_5": -900.0, "percentile_99_5": 1100.0, "min": -1024.0}
LABELS = {"background": 0, "Kidney left": 1, "spinal-cord": 2}


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


RESAMPLED = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
PREPARED = {
    "preprocessor_name": "DefaultPreprocessor",
    "resampling_fn_data": "resample_data_or_seg_to_shape",
    "resampling_fn_data_kwargs": RESAMPLED,
    "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
    "resampling_fn_probabilities_kwargs": RESAMPLED | {"order": 1},
}


def plans(kind: str = "plain_conv_unet", **changes: Any) -> dict[str, Any]:
    """plans.json around the architecture of data/KIND.json; `changes` go into 3d_fullres."""
    fullres = PREPARED | {
        "patch_size": [8, 16, 12],
        "spacing": [5.0, 3.0, 4.0],
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "architecture": FACTS[kind]["architecture"],
    }
    return {
        "dataset_name": "Dataset042_Planted",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "foreground_intensity_properties_per_channel": {"0": CT_FACTS},
        "configurations": {
            "2d": {"patch_size": [16, 12], "spacing": [3.0, 4.0], "normalization_schemes": ["CTNormalization"]},
            "3d_fullres": fullres | changes,
            "3d_lowres": {"inherits_from": "3d_fullres", "spacing": [7.0, 6.0, 6.0]},
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        },
    }


def checkpoint(
    weights: Mapping[str, torch.Tensor], configuration: str = "3d_fullres", mirror: Sequence[int] | None = (0, 1, 2)
) -> dict[str, Any]:
    """What nnU-Net's trainer saves: weights, optimiser, and a log with NumPy scalars."""
    return {
        "network_weights": dict(weights),
        "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.01, "params": [0]}]},
        "grad_scaler_state": None,
        "logging": {
            "mean_fg_dice": [np.float64(0.5), np.float32(0.6)],
            "dice_per_class_or_region": [[np.float32(0.1)]],
        },
        "_best_ema": np.float64(0.7),
        "current_epoch": 5,
        "init_args": {"configuration": configuration, "fold": 0, "plans": {}, "device": torch.device("cpu")},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": mirror,
    }


def write_nnunet(
    folder: Path,
    kind: str = "plain_conv_unet",
    *,
    folds: Sequence[str] = ("0",),
    configuration: str = "3d_fullres",
    weights: Mapping[str, torch.Tensor] | None = None,
    dataset: Mapping[str, Any] | None = None,
    content: Mapping[str, Any] | None = None,
    mirror: Sequence[int] | None = (0, 1, 2),
    **changes: Any,
) -> Path:
    """A model folder; fold N has the planted weights times 1 + N/10."""
    usual = {"channel_names": {"0": "CT"}, "labels": LABELS, "file_ending": ".nii.gz"}
    write_json(folder / "plans.json", dict(content) if content is not None else plans(kind, **changes))
    write_json(folder / "dataset.json", usual | dict(dataset or {}))
    for number, fold in enumerate(folds):
        (folder / f"fold_{fold}").mkdir(parents=True)
        state = weights if weights is not None else fold_weights(kind, number)
        torch.save(checkpoint(state, configuration, mirror), folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder


def fold_weights(kind: str, number: int) -> dict[str, torch.Tensor]:
    return {name: tensor * (1 + number / 10) for name, tensor in theirs(FACTS[kind]).items()}


MODEL = "$@bundle_root + '/models/model.pt'"
UNET = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 3,
    "channels": [4, 8],
    "strides": [2],
    "num_res_units": 1,
    "norm": "batch",
}


def bundle_config(definition: Mapping[str, Any] = UNET, /, **changes: Any) -> dict[str, Any]:
    """inference.json as bundles of the model zoo write it, with their devices, paths and handlers."""
    config = {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "output_dir": "$@bundle_root + '/eval'",
        "dataset_dir": "datasets",
        "datalist": "$list(sorted(glob.glob(os.path.join(@dataset_dir, 'imagesTs', '*.nii.gz'))))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "spacing": [4.0, 3.0, 5.0],
        "network_def": dict(definition),
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
                {"_target_": "Spacingd", "keys": "image", "pixdim": "@spacing", "mode": "bilinear"},
                {
                    "_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -57, "a_max": 164,
                    "b_min": 0.0, "b_max": 1.0, "clip": True,
                },
                {"_target_": "EnsureTyped", "keys": "image"},
            ],
        },
        "dataset": {"_target_": "Dataset", "data": "$[{'image': i} for i in @datalist]", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 16], "sw_batch_size": 4, "overlap": 0.5},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "device": "@device"},
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir"},
            ],
        },
        "handlers": [
            {"_target_": "CheckpointLoader", "load_path": MODEL, "load_dict": {"model": "@network"}},
            {"_target_": "StatsHandler", "iteration_log": False},
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator", "device": "@device", "val_data_loader": "@dataloader",
            "network": "@network", "inferer": "@inferer", "postprocessing": "@postprocessing", "amp": True,
        },
        "initialize": ["$setattr(torch.backends.cudnn, 'benchmark', True)"],
        "run": ["$@evaluator.run()"],
    }  # fmt: skip
    return config | changes


def metadata(*organs: str) -> dict[str, Any]:
    channels = {"0": "background"} | {str(n): organ for n, organ in enumerate(organs, start=1)}
    return {
        "version": "0.1.2",
        "description": "Planted weights",
        "authors": "tests",
        "network_data_format": {"outputs": {"pred": {"type": "image", "channel_def": channels}}},
    }


def write_bundle(
    folder: Path, config: Mapping[str, Any], weights: Any, meta: Mapping[str, Any] | None = None, *, yaml: bool = False
) -> Path:
    """A bundle; YAML holds JSON, which is YAML too."""
    write_json(folder / "configs/metadata.json", dict(meta or metadata("Spleen", "liver")))
    write_json(folder / f"configs/inference.{'yaml' if yaml else 'json'}", dict(config))
    (folder / "models").mkdir()
    torch.save(weights, folder / "models/model.pt")
    return folder


def planted_state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Planted weights for any network: kernels and biases; statistics of norms stay."""
    return {
        name: planted_tensor(name, tensor.shape) if "running" not in name and tensor.is_floating_point() else tensor
        for name, tensor in network.state_dict().items()
    }
