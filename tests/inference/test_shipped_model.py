"""The model that ships: `head-neck-oar` on real scans and on the example."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import medseg
from medseg.examples import example_path
from medseg.imaging.emit import sha256_file
from medseg.imaging.volume import Volume
from medseg.models.store import CARD, SHIPPED, WEIGHTS, load_model
from medseg.results.segmentation import Segmentation
from tests.phantoms import orient

NAME = "head-neck-oar"
VALUES = {
    "brainstem": 1,
    "spinal_cord": 2,
    "parotid_gland_right": 3,
    "parotid_gland_left": 4,
    "esophagus": 5,
    "larynx": 6,
    "mandible": 7,
}
COMPACT = ("brainstem", "parotid_gland_right", "parotid_gland_left", "larynx", "mandible")
# ml: what the organ of a grown-up may measure, from textbooks, not from this model.
PLAUSIBLE_ML = {
    "brainstem": (10, 50),
    "spinal_cord": (4, 60),
    "parotid_gland_right": (8, 70),
    "parotid_gland_left": (8, 70),
    "esophagus": (2, 40),
    "larynx": (5, 70),
    "mandible": (20, 120),
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (SHIPPED / NAME / CARD).is_file(), reason=f"the package {NAME} is not on the shelf yet"),
]


def test_weights_are_those_of_the_card_and_small() -> None:
    package = load_model(NAME)
    weights = package.file(WEIGHTS)
    assert sha256_file(weights) == package.card.files[WEIGHTS]
    assert sum(path.stat().st_size for path in package.folder.iterdir()) <= 20e6
    assert {path.suffix for path in package.folder.iterdir()} <= {".json", ".safetensors", ".md", ".onnx"}


def test_int8_is_a_quarter_and_passed_its_gate() -> None:
    card = load_model(NAME).card
    (int8,) = [variant for variant in card.variants if variant.precision == "int8"]
    assert int8.figures.size_ratio <= 0.26
    loss = [int8.figures.dice_fp32[organ] - dice for organ, dice in int8.figures.dice.items()]
    assert sum(loss) / len(loss) <= 0.003


def test_the_card_says_what_a_user_has_to_know() -> None:
    card = load_model(NAME).card
    assert card.label_table.names == VALUES
    assert card.input is not None
    assert card.input.overlap_ratio == pytest.approx(0.3)
    assert card.network is not None
    assert card.network.name == "Optimized3DUNet"
    assert card.anatomy is not None
    assert set(card.anatomy.field) <= set(card.anatomy.organs)
    assert set(card.metrics["organs"]) == set(VALUES)
    assert card.metrics["left_right_swaps"] == 0
    assert all(isinstance(card.training[key], list) and card.training[key] for key in ("sources",))
    assert card.licence
    assert card.limits


def centre(result: Segmentation, organ: str) -> np.ndarray:
    index = np.argwhere(result.mask == result.labels[organ].value).mean(axis=0)
    return np.asarray((result.volume.affine @ [*index, 1])[:3])


@pytest.mark.skipif(not example_path().is_file(), reason="the example CT is not there yet")
def test_the_example_yields_all_seven_organs_on_their_sides() -> None:
    result = medseg.segment(example_path())
    volumes = {row.organ: row.volume_ml for row in result.measurements}
    assert set(volumes) == set(VALUES)
    for organ, (low, high) in PLAUSIBLE_ML.items():
        assert low <= volumes[organ] <= high, (organ, volumes[organ])
    places = {organ: centre(result, organ) for organ in VALUES}
    assert places["parotid_gland_left"][0] < places["brainstem"][0] - 20
    assert places["parotid_gland_right"][0] > places["brainstem"][0] + 20
    assert places["brainstem"][2] > places["mandible"][2] > places["larynx"][2]
    assert places["larynx"][1] > places["spinal_cord"][1]


def test_ctrl_c_ends_it_soon_and_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    # A shell that starts the tests in the background has Ctrl-C ignored, and children inherit it.
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from medseg.cli import main; main(sys.argv[1:])"
    command = ["segment", str(example_path()), "-o", str(out), "--backend", "torch", "--precision", "fp32"]
    process = subprocess.Popen([sys.executable, "-c", code, *command], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = next(line for line in process.stderr if "forecast" in line)
    assert "This will take about" in said
    time.sleep(0.5)  # into the network
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert time.monotonic() - began < 4.0  # two seconds on an idle machine
    assert process.returncode == 130
    assert {path.name for path in out.iterdir()} <= {"manifest.json", "manifest.csv", ".medseg-batch.lock"}


@pytest.mark.real
def test_one_real_scan_gives_the_same_mask_in_six_orientations(real_data: Path) -> None:
    volume = medseg.read_volume(real_data / "openkbp_hn" / "validation" / "pt_201_ct.nii.gz")
    reference = medseg.segment(volume)
    assert reference.mask.any()
    for orientation in ("LPS", "RAS", "SPR", "AIL", "PRI", "SLA"):
        expected = orient(Volume(reference.mask, volume.geometry), orientation).hu
        mask = medseg.segment(orient(volume, orientation)).mask
        np.testing.assert_array_equal(mask, expected, err_msg=orientation)


@pytest.mark.real
@pytest.mark.parametrize("name", ["crlm_ct_1004.zip", "sts_001.zip"])
def test_outside_its_field_it_invents_nothing(real_data: Path, name: str) -> None:
    result = medseg.segment(real_data / "dicom" / name)
    rows: dict[str, Any] = {row.organ: row for row in result.measurements}
    assert {organ: rows[organ].volume_ml for organ in COMPACT} == dict.fromkeys(COMPACT, 0.0)
    said = [str(finding) for finding in result.findings if finding.code == "outside_field"]
    assert len(said) == 1
    assert "outside the model's field" in said[0]
