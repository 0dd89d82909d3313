"""Formats by name, through the command line too."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import MRImageStorage

from medseg.cli import main
from medseg.errors import ConfigError, OutputError
from medseg.exports import FORMATS, Order, export, order_for, parse_formats
from medseg.exports.codes import code_of
from medseg.imaging import Geometry, Volume, read_volume
from medseg.jobs.request import JobRequest
from medseg.jobs.work import segment_study
from medseg.labels import KNOWN, Label
from medseg.models.versions import register
from medseg.results.load import load_result
from medseg.runtime.progress import ignore
from tests.exports.conftest import Scanned, result_of
from tests.inference.planted import planted_volume, threshold_card, write_package
from tests.phantoms import phantom_volume, write_dicom_series, write_enhanced_ct, write_nifti


def test_names_are_read_each_once_and_in_order() -> None:
    assert parse_formats("nifti,csv") == ()
    assert parse_formats("STL, dicom-seg ,stl") == ("dicom-seg", "stl")
    with pytest.raises(ConfigError, match="'seg' is no format"):
        parse_formats("seg")


@pytest.mark.parametrize(
    ("library", "name"),
    [("highdicom", "dicom-seg"), ("skimage", "stl"), ("skimage", "glb"), ("reportlab", "report-pdf")],
)
def test_a_library_that_is_not_there_is_told_before_any_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], library: str, name: str
) -> None:
    without(monkeypatch, library)
    scan = write_nifti(tmp_path / "scan.nii.gz", phantom_volume())
    assert segment(scan, "-o", tmp_path / "out", "--format", name) == 64
    assert "which is not installed. pip install 'medseg[exports]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def without(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    """As where it is not installed."""
    for module in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)


def test_an_export_that_fails_leaves_the_mask_and_the_measurements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = write_dicom_series(tmp_path / "scan", phantom_volume(orientation="LPS"))
    without(monkeypatch, "highdicom")
    done = segment_study(JobRequest(scan, tmp_path / "out", "tissue-hu", formats=("dicom-seg", "rtstruct")), ignore)
    assert done["verdict"] == "segmented"
    assert any(said.startswith("dicom-seg was left out: This needs highdicom") for said in done["findings"])
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"mask.nii.gz", "measurements.csv", "run.json", "rtstruct.dcm"} <= names


def test_a_scan_without_a_study_is_segmented_and_has_no_dicom_objects(tmp_path: Path) -> None:
    def without_study(dataset: pydicom.Dataset, k: int) -> None:
        del dataset.StudyInstanceUID

    scan = write_dicom_series(tmp_path / "scan", phantom_volume(orientation="LPS"), fault=without_study)
    assert segment(scan, "-o", tmp_path / "out", "--format", "rtstruct,dicom-seg,glb") == 0
    run = json.loads((tmp_path / "out" / "scan" / "run.json").read_text())
    left = [finding["message"] for finding in run["findings"] if finding["code"] == "export_left_out"]
    assert len(left) == 2
    assert all("name no study" in message for message in left)
    assert (tmp_path / "out" / "scan" / "mask.nii.gz").is_file()
    assert (tmp_path / "out" / "scan" / "organs.glb").is_file()


def test_a_full_disk_is_no_remark(tmp_path: Path) -> None:
    scan = write_nifti(tmp_path / "scan.nii.gz", phantom_volume())
    (tmp_path / "out" / "organs.glb").mkdir(parents=True)  # nothing can be renamed onto a folder
    with pytest.raises(OutputError, match=r"organs\.glb could not be written"):
        segment_study(JobRequest(scan, tmp_path / "out", "tissue-hu", formats=("glb",)), ignore)


def test_a_report_has_the_limits_of_the_very_model_that_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDSEG_MODELS", str(tmp_path / "shelf"))
    scan = write_nifti(tmp_path / "scan.nii.gz", planted_volume((30, 30, 30), (4.0, 4.0, 4.0)))
    for version, limit in (("1.0.0", "OTHER"), ("2.0.0", "OTHER TOO")):
        register(write_package(tmp_path / version, threshold_card(version=version, limits=[limit])), tmp_path / "shelf")
    used = write_package(tmp_path / "used", threshold_card(version="1.0.0", limits=["NONE BUT THIS"]))

    def report(model: str, out: str) -> str:
        segment_study(JobRequest(scan, tmp_path / out, model, formats=("report-html",)), ignore)
        return (tmp_path / out / "report.html").read_text("utf-8")

    given_as_folder, not_in_use = report(str(used), "a"), report("threshold@2.0.0", "b")
    assert "NONE BUT THIS" in given_as_folder
    assert "OTHER" not in given_as_folder
    assert "OTHER TOO" in not_in_use
    volume = read_volume(scan)
    again = order_for(load_result(tmp_path / "b", volume), scan)  # as the page does, later
    assert again.card is not None
    assert again.card.limits == ["OTHER TOO"]
    assert order_for(load_result(tmp_path / "a", volume), scan).card is None  # another package has its name


def test_all_formats_are_written(scanned: Callable[[str], Scanned], tmp_path: Path) -> None:
    scan = scanned("feet first")
    order = order_for(scan.result, scan.folder)
    assert order.card is not None
    assert export(order, tuple(FORMATS), tmp_path) == ()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {file for file, _ in FORMATS.values() if file} | {
        "parotid_gland_left.stl",
        "spinal_cord.stl",
        "mandible.stl",
    }


def test_what_a_scan_cannot_have_is_said(scanned: Callable[[str], Scanned], tmp_path: Path) -> None:
    scan = scanned("axial")
    findings = export(Order(scan.result, None, None), ("dicom-seg", "rtstruct", "glb"), tmp_path)
    assert [finding.code for finding in findings] == ["export_left_out"] * 2
    assert "did not come as DICOM" in findings[0].message
    assert [path.name for path in tmp_path.iterdir()] == ["organs.glb"]


def test_frames_of_one_object_and_a_straightened_scan_have_no_slices_to_refer_to(tmp_path: Path) -> None:
    body = phantom_volume((24, 20, 18), (7.0, 7.0, 7.5), orientation="LPS")
    path = write_enhanced_ct(tmp_path / "enhanced" / "ct.dcm", body)
    volume = read_volume(path)
    findings = export(Order(result_of(volume), path, None), ("dicom-seg", "rtstruct", "glb"), tmp_path)
    assert [finding.code for finding in findings] == ["export_left_out"] * 2
    assert "multi-frame" in findings[0].message
    folder = write_dicom_series(tmp_path / "single", body)
    source = read_volume(folder)
    every_second = Volume(source.hu[:, :, ::2], Geometry((24, 20, 9), source.affine @ np.diag([1, 1, 1.5, 1])))
    moved = replace(every_second, format="dicom", series=source.series)
    (finding,) = export(Order(result_of(moved), folder, None), ("dicom-seg",), tmp_path)
    assert "slices" in finding.message


def test_another_modality_that_was_accepted_is_exported_as_what_it_is(tmp_path: Path) -> None:
    def as_mr(dataset: pydicom.Dataset, k: int) -> None:
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
        dataset.Modality = "MR"
        del dataset.RescaleSlope, dataset.RescaleIntercept

    body = phantom_volume((24, 20, 18), (7.0, 7.0, 7.5), orientation="LPS")
    folder = write_dicom_series(tmp_path / "mr", body, fault=as_mr, inter=0.0)
    volume = read_volume(folder, accept="planted")
    assert export(Order(result_of(volume), folder, None), ("rtstruct", "dicom-seg"), tmp_path) == ()
    assert len(pydicom.dcmread(tmp_path / "rtstruct.dcm").StructureSetROISequence) == 3


def test_a_saved_result_is_read_back_whole(scanned: Callable[[str], Scanned], tmp_path: Path) -> None:
    result = scanned("oblique").result
    back = load_result(result.save(tmp_path / "out"), result.volume)
    assert (back.mask == result.mask).all()
    assert back.measurements == result.measurements
    assert back.findings == result.findings
    assert back.run == result.run
    assert back.labels.to_json() == result.labels.to_json()


def segment(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main(["segment", *map(str, arguments), "--model", "tissue-hu"])
    return int(end.value.code or 0)


def test_the_command_writes_formats_beside_the_rest_and_again_when_others_are_asked_for(tmp_path: Path) -> None:
    write_dicom_series(tmp_path / "scan", phantom_volume(orientation="LPS"))
    out = tmp_path / "out"
    assert segment(tmp_path / "scan", "-o", out) == 0
    assert not (out / "scan" / "segmentation.dcm").exists()
    assert segment(tmp_path / "scan", "-o", out, "--format", "dicom-seg,seg.nrrd") == 0
    assert pydicom.dcmread(out / "scan" / "segmentation.dcm").Modality == "SEG"
    assert (out / "scan" / "mask.seg.nrrd").is_file()
    assert not list(out.glob("*.previous*"))
    row = json.loads((out / "manifest.json").read_text())["studies"][0]
    assert row["formats"] == "dicom-seg,seg.nrrd"
    assert "segmentation.dcm" in row["files"]


def test_a_nifti_gets_what_it_can_have(tmp_path: Path) -> None:
    scan = write_nifti(tmp_path / "scan.nii.gz", phantom_volume())
    assert segment(scan, "-o", tmp_path / "out", "--format", "rtstruct,stl") == 0
    run = json.loads((tmp_path / "out" / "scan" / "run.json").read_text())
    assert any("rtstruct was left out" in finding["message"] for finding in run["findings"])
    assert (tmp_path / "out" / "scan" / "bone.stl").is_file()


def test_every_known_organ_has_a_snomed_code_and_a_new_one_its_own() -> None:
    for name, (colour, code) in KNOWN.items():
        coded = code_of(Label(name, 1, colour, code))
        assert (coded.type.value, coded.type.scheme) == (code, "SCT")
    spleen = code_of(Label("spleen", 1)).type
    assert (spleen.value, spleen.scheme) == ("78961009", "SCT")
    odd = code_of(Label("some_quite_new_structure_left", 1))
    assert odd.type.scheme == "99MEDSEG"
    assert len(odd.type.value) <= 16
    assert odd.side is not None
