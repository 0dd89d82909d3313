"""A tiny dataset of computed phantoms: five patients to train on, one to validate."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from medseg.imaging.nifti import write_label_map
from medseg.imaging.volume import Volume
from medseg.labels import LabelTable
from medseg.training.cases import TrainingCase, load_cases, read_index
from medseg.training.config import TrainConfig
from medseg.training.loop import LoopConfig
from tests.phantoms import phantom_labels, phantom_volume, write_nifti

LABELS = {"parotid_gland_left": 1, "parotid_gland_right": 2, "spinal_cord": 3}
"""The phantom's sphere (on its left), box (on its right) and rod."""
SPACING_MM = (7.0, 7.0, 8.0)
TINY = {"channels": [4, 8], "deep_supervision": 1}


def write_case(root: Path, name: str, split: str, volume: Volume, contoured: Sequence[str] = tuple(LABELS)) -> Any:
    """Write scan and labels (of contoured organs alone) and return the index entry."""
    folder = root / split
    folder.mkdir(parents=True, exist_ok=True)
    labels = phantom_labels(volume)
    labels[~np.isin(labels, [LABELS[organ] for organ in contoured])] = 0
    write_nifti(folder / f"{name}_ct.nii.gz", volume)
    write_label_map(folder / f"{name}_label.nii.gz", labels, volume.geometry)
    return {"id": name, "split": split, "contoured": list(contoured)}


def write_index(root: Path, entries: Sequence[Any], labels: Any = LABELS) -> Path:
    path = root / "index.json"
    path.write_text(json.dumps({"labels": labels, "cases": list(entries)}))
    return path


def settings(index: Path, **changes: Any) -> dict[str, Any]:
    """A config as YAML would hold it: seconds instead of hours. Changes of the loop may stand beside the others."""
    loop = {"max_steps": 10, "warmup_steps": 2, "precision": "fp32", "checkpoint_minutes": 60, "workers": 0}
    loop |= {key: value for key, value in changes.items() if key in LoopConfig.model_fields}
    return {
        "name": "tiny",
        "index": str(index),
        "open_ended": ["spinal_cord"],
        "spacing_mm": list(SPACING_MM),
        "window_hu": [-300, 900],
        "patch_size": [16, 16, 16],
        "network": {"options": TINY},
        "small_batch": None,
        "loop": loop,
    } | {key: value for key, value in changes.items() if key not in loop}


def config(index: Path = Path("index.json"), **changes: Any) -> TrainConfig:
    return TrainConfig.model_validate(settings(index, **changes))


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """index.json of five phantoms to train on and one to validate; not to be changed."""
    root = tmp_path_factory.mktemp("dataset")
    entries = [write_case(root, f"p{n}", "train", phantom_volume(seed=n)) for n in range(5)]
    entries.append(write_case(root, "v0", "validation", phantom_volume(seed=9)))
    return write_index(root, entries)


@pytest.fixture(scope="session")
def cases(dataset: Path) -> list[TrainingCase]:
    """The five training cases on the training grid."""
    index = read_index(dataset)
    return list(load_cases(index.of("train"), index.labels, SPACING_MM))


@pytest.fixture(scope="session")
def table() -> LabelTable:
    return LabelTable.from_names(LABELS)
