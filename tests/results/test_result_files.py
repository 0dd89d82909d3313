"""Segmentation.save: six files that agree with each other, name no patient, and appear whole or not at all."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from medseg.api import segment
from medseg.errors import OutputError
from medseg.imaging.volume import Finding
from medseg.results.segmentation import COLUMNS, Segmentation
from tests.phantoms import PLANTED_NAME

FILES = {"mask.nii.gz", "labels.json", "measurements.csv", "measurements.json", "preview.png", "run.json"}


@pytest.fixture(scope="module")
def result(phantom_dicom: Path) -> Segmentation:
    return segment(phantom_dicom, model="tissue-hu")


@pytest.fixture(scope="module")
def folder(result: Segmentation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return result.save(tmp_path_factory.mktemp("out") / "deep" / "study")


def test_exactly_six_files_are_written(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == FILES


def test_probabilities_of_an_earlier_result_do_not_stay(result: Segmentation, tmp_path: Path) -> None:
    maps = {"bone": np.full(result.mask.shape, 100, np.uint8), "body": np.zeros(result.mask.shape, np.uint8)}
    result_with = replace(result, probabilities=maps)
    result_with.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} - FILES == {
        "probability_bone.nii.gz",
        "probability_body.nii.gz",
    }
    result.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == FILES
    with pytest.raises(OutputError, match="101 per cent"):
        replace(result, probabilities={"bone": maps["bone"] + 1}).save(tmp_path)


def test_two_readers_find_the_mask_on_the_scans_grid(folder: Path, result: Segmentation) -> None:
    first = nib.load(folder / "mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(first.dataobj), result.mask)
    np.testing.assert_allclose(first.affine, result.volume.affine, atol=1e-4)
    assert first.get_data_dtype() == np.uint8
    second = sitk.ReadImage(str(folder / "mask.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(second).T, result.mask)
    np.testing.assert_allclose(second.GetOrigin(), result.volume.affine[:3, 3] * [-1, -1, 1], atol=1e-4)


def test_csv_and_json_say_the_same(folder: Path, result: Segmentation) -> None:
    text = (folder / "measurements.csv").read_text()
    table = list(csv.DictReader(io.StringIO(text)))
    rows = json.loads((folder / "measurements.json").read_text())
    assert tuple(table[0]) == COLUMNS
    assert [row["organ"] for row in rows] == [row.organ for row in result.measurements]
    for line, row in zip(table, rows, strict=True):
        right, anterior, superior = row.pop("extent_mm")
        row |= {"extent_right_mm": right, "extent_anterior_mm": anterior, "extent_superior_mm": superior}
        texts = {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in row.items()}
        assert line == {key: "" if value == "None" else value for key, value in texts.items()}


def test_volumes_are_those_of_the_mask(folder: Path, result: Segmentation) -> None:
    labels = json.loads((folder / "labels.json").read_text())
    assert labels["model"]["name"] == "tissue-hu"
    rows = {row["organ"]: row for row in json.loads((folder / "measurements.json").read_text())}
    for label in labels["labels"]:
        count = int((result.mask == label["value"]).sum())
        assert rows[label["name"]]["volume_ml"] == pytest.approx(count * result.volume.geometry.voxel_ml, abs=6e-4)
        assert len(label["color"]) == 3


def test_the_run_report_says_what_ran_on_what(folder: Path, result: Segmentation) -> None:
    run = json.loads((folder / "run.json").read_text())
    assert {"study", "created", "model", "input", "seconds", "peak_memory_mb", "versions", "machine"} <= set(run)
    assert set(run["model"]) == {"name", "version", "sha256"}
    assert len(run["model"]["sha256"]) == len(run["input"]["sha256"]) == 64
    assert run["input"]["shape"] == list(result.mask.shape)
    assert run["input"]["orientation"] == "LPS"
    assert run["input"]["format"] == "dicom"
    assert {"model", "read", "segment", "measure", "total"} <= set(run["seconds"])
    assert run["versions"]["medseg"]
    assert run["peak_memory_mb"] > 10
    assert "Research use only" in run["notice"]
    assert [finding["message"] for finding in run["findings"]] == [str(finding) for finding in result.findings]
    assert {"code", "message", "severity"} == set(run["findings"][0])


def test_no_file_holds_the_patients_name(folder: Path) -> None:
    for path in folder.iterdir():
        content = nib.load(path).header.binaryblock if path.suffix == ".gz" else path.read_bytes()
        for secret in (PLANTED_NAME, "DOE", "PLANTED-ID-7"):
            assert secret.encode() not in content, path.name


def test_findings_with_any_letters_survive(result: Segmentation, tmp_path: Path) -> None:
    odd = Segmentation(
        result.mask, result.labels, result.volume, result.measurements, (Finding("x", 'ß "q" 颈'),), result.run
    )
    run = json.loads((odd.save(tmp_path / "o") / "run.json").read_text(encoding="utf-8"))
    assert run["findings"] == [{"code": "x", "message": 'ß "q" 颈', "severity": "warning"}]


def test_saving_again_replaces_and_leaves_other_files(result: Segmentation, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    result.save(tmp_path)
    first = (tmp_path / "mask.nii.gz").read_bytes()
    result.save(tmp_path)
    assert (tmp_path / "mask.nii.gz").read_bytes() == first
    assert {path.name for path in tmp_path.iterdir()} == FILES | {"note.txt"}


def test_a_save_that_fails_leaves_no_run_report_of_the_earlier_one(result: Segmentation, tmp_path: Path) -> None:
    """Else an old report would vouch for a new mask."""
    result.save(tmp_path)
    (tmp_path / "preview.png").unlink()
    (tmp_path / "preview.png").mkdir()
    with pytest.raises(OutputError, match=r"preview\.png"):
        result.save(tmp_path)
    assert not (tmp_path / "run.json").exists()
    assert not list(tmp_path.glob(".part-*"))


def test_a_place_that_cannot_be_written_is_named(result: Segmentation, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="file"):
        result.save(tmp_path / "file")
    (tmp_path / "run.json").mkdir()
    with pytest.raises(OutputError, match=r"run\.json"):
        result.save(tmp_path)
