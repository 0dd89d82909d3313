"""The real validation references, shifted by a voxel: everything is read, nothing is dropped, and it is quick."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medseg.evaluation import evaluate
from medseg.imaging.nifti import read_label_map

DATA = Path(__file__).parents[3] / "shared" / "data" / "openkbp_hn"


@pytest.mark.real
@pytest.mark.skipif(not DATA.is_dir(), reason="the real CTs are not beside the checkout")
def test_shifted_references_score_as_their_contours_say(tmp_path: Path, save: Callable[..., Path]) -> None:
    references = sorted((DATA / "validation").glob("*_label.nii.gz"))
    for path in references:
        labels, grid = read_label_map(path)
        moved = np.zeros_like(labels)
        moved[1:] = labels[:-1]
        save(tmp_path / "pred" / path.name.replace("_label", "_ct"), moved, grid.affine)
    began = time.process_time()
    card = evaluate(tmp_path / "pred", DATA / "validation", tmp_path / "scores", within_contoured=("spinal_cord",))
    assert time.process_time() - began < 60
    counts = {organ: figures["n"] for organ, figures in card.summary["organs"].items()}
    assert counts == {
        "brainstem": 23,
        "spinal_cord": 29,
        "parotid_gland_right": 31,
        "parotid_gland_left": 29,
        "esophagus": 12,
        "larynx": 16,
        "mandible": 21,
    }
    assert card.left_right_swapped == ()
    for figures in card.summary["organs"].values():
        assert 0.2 < figures["dice"]["mean"] < 0.95
        assert 3.0 < figures["hd95_mm"]["mean"] < 5.5  # one voxel
        assert figures["surface_dice"]["mean"] > 0.97
