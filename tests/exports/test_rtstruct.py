"""RT structure sets, filled by plastimatch, which did not write them, and judged by dciodvfy."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from scipy import ndimage

from medseg.errors import DataError
from medseg.exports.contours import polygons
from medseg.exports.rtstruct import write_rtstruct
from medseg.imaging.rtstruct import fill
from medseg.labels import LabelTable
from tests.exports.conftest import CHINESE, Scanned, dice, foreign_scan, needs_tool, result_of
from tests.imaging.test_rtstruct import plastimatch_masks

FOUND = ("parotid_gland_left", "spinal_cord", "mandible")


def test_plastimatch_fills_the_contours_with_the_mask(scan: Scanned, tmp_path: Path) -> None:
    needs_tool("plastimatch", "plastimatch")
    path = write_rtstruct(tmp_path / "rs.dcm", scan.result, scan.source)
    theirs = plastimatch_masks(path, scan.folder, tmp_path / "pm", scan.result.volume.geometry)
    assert set(theirs) == set(FOUND)
    for name in FOUND:
        assert dice(theirs[name], scan.mask(name)) >= 0.97, name


def test_dciodvfy_finds_no_error(scan: Scanned, tmp_path: Path) -> None:
    needs_tool("dciodvfy", "dicom3tools")
    path = write_rtstruct(tmp_path / "rs.dcm", scan.result, scan.source)
    done = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).splitlines()
    assert "RTStructureSet" in said
    assert [line for line in said if line.startswith("Error")] == []


def test_contours_lie_in_the_planes_of_the_slices_that_they_name(scan: Scanned, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(write_rtstruct(tmp_path / "rs.dcm", scan.result, scan.source))
    by_uid = {header.SOPInstanceUID: header for header in scan.source.headers}
    for entry in dataset.ROIContourSequence:
        for contour in entry.ContourSequence:
            header = by_uid[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
            axes = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            off = (points - np.array(header.ImagePositionPatient, float)) @ np.cross(axes[0], axes[1])
            assert np.abs(off).max() < 1e-3
            assert len(points) == contour.NumberOfContourPoints


def test_frame_of_reference_names_codes_and_colours_are_in_it(
    scanned: Callable[[str], Scanned], tmp_path: Path
) -> None:
    scan = scanned("oblique")
    dataset = pydicom.dcmread(write_rtstruct(tmp_path / "rs.dcm", scan.result, scan.source))
    frame = dataset.ReferencedFrameOfReferenceSequence[0]
    assert frame.FrameOfReferenceUID == dataset.FrameOfReferenceUID == scan.source.first.FrameOfReferenceUID
    series = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == scan.source.first.SeriesInstanceUID
    assert len(series.ContourImageSequence) == scan.result.mask.shape[2]
    assert [roi.ROIName for roi in dataset.StructureSetROISequence] == list(FOUND)
    assert {roi.ReferencedFrameOfReferenceUID for roi in dataset.StructureSetROISequence} == {frame.FrameOfReferenceUID}
    assert list(dataset.ROIContourSequence[2].ROIDisplayColor) == [120, 94, 240]
    code = dataset.RTROIObservationsSequence[0].RTROIIdentificationCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("45289007", "SCT")
    assert dataset.ApprovalStatus == "UNAPPROVED"


@pytest.mark.parametrize(("charset", "patient"), [("ISO_IR 100", "Müller^Jürgen"), ("GB18030", "张^三")])
def test_names_of_organs_and_patient_survive_the_scan_s_character_set(
    tmp_path: Path, charset: str, patient: str
) -> None:
    scan = foreign_scan(tmp_path / "scan", charset, patient)
    dataset = pydicom.dcmread(write_rtstruct(tmp_path / "rs.dcm", scan.result, scan.source))
    assert dataset.SpecificCharacterSet == "ISO_IR 192"
    assert [roi.ROIName for roi in dataset.StructureSetROISequence] == list(CHINESE)
    assert [dataset.PatientName, dataset.StudyDescription] == [patient, patient]


def test_a_name_that_dicom_would_part_is_written_as_one(scanned: Callable[[str], Scanned], tmp_path: Path) -> None:
    scan = scanned("axial")
    names = {" left\\right\n": 1, "x" * 70: 2, "mandible": 3}
    odd = replace(scan.result, labels=LabelTable.from_names(names))
    dataset = pydicom.dcmread(write_rtstruct(tmp_path / "rs.dcm", odd, scan.source))
    assert [roi.ROIName for roi in dataset.StructureSetROISequence] == ["left_right?", "x" * 64, "mandible"]


def test_a_body_without_its_fat_is_no_outline_of_the_patient(scanned: Callable[[str], Scanned], tmp_path: Path) -> None:
    scan = scanned("axial")
    body = replace(scan.result, labels=LabelTable.from_names({"body": 1, "spinal_cord": 2, "mandible": 3}))
    dataset = pydicom.dcmread(write_rtstruct(tmp_path / "rs.dcm", body, scan.source))
    assert {told.RTROIInterpretedType for told in dataset.RTROIObservationsSequence} == {"ORGAN"}


def test_nothing_found_is_nothing_written(scanned: Callable[[str], Scanned], tmp_path: Path) -> None:
    scan = scanned("axial")
    with pytest.raises(DataError, match="Nothing was segmented"):
        write_rtstruct(tmp_path / "a.dcm", result_of(scan.result.volume, np.zeros_like(scan.result.mask)), scan.source)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", range(12))
def test_any_picture_comes_back_from_its_polygons(seed: int) -> None:
    """Islands, holes, islands in holes, regions that touch at a corner or the edge."""
    noise = np.random.default_rng(seed).normal(size=(57, 49))
    field = ndimage.gaussian_filter(noise, seed % 4 * 0.8)
    mask = field > np.quantile(field, 0.2 + 0.06 * seed)
    found = polygons(mask)
    assert (fill(found, mask.shape) == mask).all()
    # The area of the polygons, holes taken off by their keyholes, is that of the pixels but for the corners.
    area = sum(abs(shoelace(polygon)) for polygon in found)
    assert area == pytest.approx(mask.sum(), rel=0.25)


def shoelace(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def test_an_empty_slice_has_no_polygon() -> None:
    assert polygons(np.zeros((5, 4), bool)) == []
