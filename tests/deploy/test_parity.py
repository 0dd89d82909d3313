"""The gate lets in what gives the same masks, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from medseg.deploy.calibration import find_scans
from medseg.deploy.onnx_export import export_onnx
from medseg.deploy.parity import Gate, Judge
from medseg.deploy.quantize import Quantization
from medseg.deploy.references import References
from medseg.errors import DataError
from medseg.imaging import read_volume
from medseg.imaging.nifti import write_label_map
from medseg.imaging.volume import Geometry
from medseg.inference.backends import load_network
from medseg.inference.backends.openvino_backend import OpenVinoPredictor
from medseg.inference.backends.torch_backend import TorchPredictor
from medseg.models.card import VariantFigures
from medseg.models.store import WEIGHTS, ModelPackage
from tests.inference.planted import planted_labels, planted_volume
from tests.phantoms import write_nifti

ORGANS = {"parotid_gland_left", "parotid_gland_right"}


def figures(**changes: Any) -> VariantFigures:
    fields: dict[str, Any] = {
        "scans": 2,
        "agreement": {"a": 0.99, "b": 0.97, "c": None},
        "dice": {"a": 0.80, "b": 0.70},
        "dice_fp32": {"a": 0.80, "b": 0.70},
        "logit_error": 0.0,
        "size_bytes": 10,
        "size_ratio": 0.25,
        "seconds": 0.1,
        "latency_ratio": 0.2,
        "machine": "abacus, 2 threads",
    }
    return VariantFigures(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "precision", "told"),
    [
        ({}, "int8", []),
        ({"logit_error": 0.3}, "int8", []),
        ({"logit_error": 0.3}, "fp32", ["logits differ by 30.00%"]),
        ({"agreement": {}, "dice": {}, "dice_fp32": {}}, "fp32", []),
        ({"agreement": {}}, "int8", ["no scan in which an organ was found"]),
        ({"agreement": {"a": None}}, "int8", ["no scan in which an organ was found"]),
        ({"agreement": {"a": 1.0, "b": 0.5}}, "int8", ["b agrees by 0.500", "0.750 on average"]),
        ({"agreement": {"a": 0.94, "b": 0.94}}, "int8", ["0.940 on average"]),
        ({"dice": {"a": 0.80, "b": 0.67}}, "int8", ["b loses 0.030", "0.0150 of Dice"]),
        ({"dice": {"a": 0.79, "b": 0.69}}, "int8", ["0.0100 of Dice are lost on average"]),
        ({"dice": {"a": 0.90, "b": 0.69}}, "int8", []),
    ],
)
def test_objections(changes: dict[str, Any], precision: str, told: list[str]) -> None:
    objections = Gate().objections(figures(**changes), precision)
    assert len(objections) == len(told)
    for objection, word in zip(objections, told, strict=True):
        assert word in objection


@pytest.fixture(scope="module")
def judge(planted: ModelPackage, scans: Path) -> Judge:
    return Judge(planted, find_scans(scans)[1:2], References(scans))


def weights_file(package: ModelPackage) -> Path:
    return package.file(WEIGHTS)


def test_the_network_agrees_with_itself(judge: Judge, planted: ModelPackage) -> None:
    same = judge.figures(TorchPredictor(load_network(planted), "fp32"), weights_file(planted), 4000)
    assert same.scans == 1
    assert same.agreement == dict.fromkeys(ORGANS, 1.0)
    assert same.logit_error == 0
    assert same.dice == same.dice_fp32
    assert set(same.dice) == ORGANS
    assert min(same.dice.values()) > 0.8
    assert same.size_ratio == pytest.approx(weights_file(planted).stat().st_size / 4000, abs=1e-4)
    assert "threads" in same.machine
    assert Gate().objections(same, "fp32") == []


class Swapped(TorchPredictor):
    """A variant that takes left for right."""

    def __call__(self, tiles: Tensor) -> Tensor:
        return super().__call__(tiles)[:, [0, 2, 1]]


def test_a_variant_that_swaps_sides_is_refused(judge: Judge, planted: ModelPackage) -> None:
    swapped = judge.figures(Swapped(load_network(planted), "fp32"), weights_file(planted), 4000)
    assert swapped.agreement == dict.fromkeys(ORGANS, 0.0)
    told = " ".join(Gate().objections(swapped, "int8"))
    assert "parotid_gland_left agrees by 0.000" in told
    assert "parotid_gland_left loses" in told


def test_int8_that_was_calibrated_with_the_wrong_tiles_is_refused(
    judge: Judge, planted: ModelPackage, tmp_path: Path
) -> None:
    """Calibrated with nothing but water, bone and air are cut off."""
    patch = planted.card.input.patch_size
    exported = export_onnx(planted, tmp_path / "model.onnx")
    path = Quantization(exported).export(tmp_path / "int8.onnx", [torch.full((1, 1, *patch), 0.1)])
    broken = judge.figures(OpenVinoPredictor(path, patch, "int8"), path, exported.stat().st_size)
    assert Gate().objections(broken, "int8") != []


def test_references_are_found_by_name_and_have_to_fit(scans: Path, planted: ModelPackage) -> None:
    references = References(scans)
    first, second, _ = find_scans(scans)
    assert [path.name for path in (first, second)] == ["p0_ct.nii.gz", "p1_ct.nii.gz"]
    assert references.covers(first)
    assert not references.covers(Path("p9_ct.nii.gz"))
    assert all(map(references.covers, map(Path, ("p0.nrrd", "p0_ct.mha", "p0_0000.nii.gz", "p0.zip"))))
    labels = planted.card.label_table.names
    references.require_some([first, Path("p9_ct.nii.gz")], labels)
    with pytest.raises(DataError, match=r"No reference fits a scan .* by name: p0, p1, p2 against p9\."):
        references.require_some([Path("p9_ct.nii.gz")], labels)
    grid, empty = read_volume(first).geometry, np.zeros((26, 26, 24), np.uint8)
    assert references.dice(first, empty, grid, labels) == dict.fromkeys(ORGANS, 0.0)


def test_references_on_another_grid_are_refused(planted: ModelPackage, tmp_path: Path) -> None:
    """Of as many voxels too: the same organs, stored with two axes turned."""
    volume = planted_volume((26, 26, 24), (4.0, 4.0, 4.0))
    write_nifti(tmp_path / "p0_ct.nii.gz", volume)
    turn = np.diag([-1.0, -1.0, 1.0, 1.0])
    turn[:2, 3] = 25.0
    turned = Geometry(volume.geometry.shape, volume.geometry.affine @ turn)
    labels = planted_labels(volume)
    write_label_map(tmp_path / "p0_label.nii.gz", labels[::-1, ::-1], turned)
    judge = Judge(planted, [tmp_path / "p0_ct.nii.gz"], References(tmp_path))
    with pytest.raises(DataError, match=r"Case p0: .* grids: their corners lie up to 141 mm apart") as caught:
        judge.figures(TorchPredictor(load_network(planted), "fp32"), weights_file(planted), 4000)
    assert "p0_label.nii.gz" in caught.value.advice
    with pytest.raises(DataError, match=r"Case p0: .* \(26, 26, 25\) and \(26, 26, 24\) voxels"):
        judge.references.dice(Path("p0_ct.nii.gz"), labels, Geometry((26, 26, 25), turned.affine), {})


def test_a_data_set_that_was_taken_over_can_judge(scans: Path, planted: ModelPackage, tmp_path: Path) -> None:
    """Its scans and labels are links to files elsewhere."""
    place = tmp_path / "data" / "train"
    place.mkdir(parents=True)
    for file in scans.iterdir():
        (place / file.name).symlink_to(file)
    with pytest.raises(DataError, match=r"No CT scan in .* p0_ct\.nii\.gz is a link that leads out of the folder"):
        find_scans(place)
    index = {"labels": {"liver": 1}, "cases": [{"id": "p0", "contoured": ["liver"]}]}
    (tmp_path / "data" / "index.json").write_text(json.dumps(index))
    found = find_scans(place)
    assert [path.name for path in found] == ["p0_ct.nii.gz", "p1_ct.nii.gz", "p2_ct.nii.gz"]
    with pytest.raises(DataError, match="The references show liver, of which the model knows none"):
        References(place).require_some(found, planted.card.label_table.names)
