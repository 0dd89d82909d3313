"""DICOM SEG, read back by hand with pydicom and judged by dciodvfy."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from medseg.errors import DataError, GeometryError
from medseg.exports.dicom_seg import Kind, write_dicom_seg
from medseg.imaging.dicom_source import read_source
from medseg.imaging.seg import lab_to_rgb, read_seg
from medseg.imaging.volume import Array, Geometry
from medseg.labels import KNOWN
from tests.exports.conftest import Scanned, foreign_scan, needs_tool, result_of

FOUND = ("parotid_gland_left", "spinal_cord", "mandible")


def by_hand(dataset: Dataset, geometry: Geometry, number: int) -> Array:
    """The mask of a segment: every set pixel of its frames is carried to millimetres, and from there to a voxel."""
    mask = np.zeros(geometry.shape, bool)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    spacing = shared.PixelMeasuresSequence[0].PixelSpacing
    axes = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    to_index = np.linalg.inv(geometry.affine)
    for frame, own in zip(dataset.pixel_array, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        if own.SegmentIdentificationSequence[0].ReferencedSegmentNumber != number:
            continue
        corner = np.array(own.PlanePositionSequence[0].ImagePositionPatient, float)
        rows, columns = np.nonzero(frame)
        lps = corner + np.outer(columns * spacing[1], axes[:3]) + np.outer(rows * spacing[0], axes[3:])
        index = (lps * [-1, -1, 1]) @ to_index[:3, :3].T + to_index[:3, 3]
        assert np.abs(index - np.round(index)).max() < 0.02
        mask[tuple(np.round(index).astype(int).T)] = True
    return mask


def test_every_organ_lies_where_it_was_found(scan: Scanned, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(write_dicom_seg(tmp_path / "seg.dcm", scan.result, scan.source))
    assert [str(s.SegmentLabel) for s in dataset.SegmentSequence] == ["Parotid gland, left", "Spinal cord", "Mandible"]
    for number, name in enumerate(FOUND, 1):
        assert scan.mask(name).sum() > 100
        assert (by_hand(dataset, scan.result.volume.geometry, number) == scan.mask(name)).all(), name


def test_dciodvfy_finds_no_error(scan: Scanned, tmp_path: Path) -> None:
    needs_tool("dciodvfy", "dicom3tools")
    path = write_dicom_seg(tmp_path / "seg.dcm", scan.result, scan.source)
    done = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).splitlines()
    assert "Segmentation" in said
    assert [line for line in said if line.startswith("Error")] == []


def test_it_belongs_to_the_scan_s_study_and_names_every_slice(scan: Scanned, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(write_dicom_seg(tmp_path / "seg.dcm", scan.result, scan.source))
    first = scan.source.first
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName"):
        assert dataset[keyword].value == first[keyword].value
    assert dataset.SeriesInstanceUID != first.SeriesInstanceUID
    series = dataset.ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == first.SeriesInstanceUID
    named = {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence}
    assert named == {header.SOPInstanceUID for header in scan.source.headers}
    for own in dataset.PerFrameFunctionalGroupsSequence:
        image = own.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        header = next(h for h in scan.source.headers if h.SOPInstanceUID == image)
        place = own.PlanePositionSequence[0].ImagePositionPatient
        assert np.allclose(np.array(place, float), np.array(header.ImagePositionPatient, float), atol=1e-3)


def test_codes_colours_and_the_way_it_was_made_are_in_it(scanned: Callable[[str], Scanned], tmp_path: Path) -> None:
    scan = scanned("axial")
    dataset = pydicom.dcmread(write_dicom_seg(tmp_path / "seg.dcm", scan.result, scan.source))
    parotid = dataset.SegmentSequence[0]
    kind = parotid.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator, kind.CodeMeaning) == ("45289007", "SCT", "Parotid gland")
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert parotid.SegmentAlgorithmType == "AUTOMATIC"
    assert parotid.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "head-neck-oar"
    light, a, b = (part / 65535 for part in parotid.RecommendedDisplayCIELabValue)
    shown = lab_to_rgb(light * 100, a * 255 - 128, b * 255 - 128)
    assert np.abs(np.subtract(shown, KNOWN["parotid_gland_left"][0])).max() <= 6
    assert "Research use only" in dataset.ContentDescription


def test_a_corrected_result_says_that_a_person_had_a_hand_in_it(
    scanned: Callable[[str], Scanned], tmp_path: Path
) -> None:
    scan = scanned("axial")
    corrected = result_of(scan.result.volume, corrected={"version": 2, "organs": ["mandible"]})
    dataset = pydicom.dcmread(write_dicom_seg(tmp_path / "seg.dcm", corrected, scan.source))
    assert dataset.SegmentSequence[0].SegmentAlgorithmType == "SEMIAUTOMATIC"
    assert dataset.SeriesDescription.endswith("corrected")


def test_a_label_map_holds_the_same(scan: Scanned, tmp_path: Path) -> None:
    path = write_dicom_seg(tmp_path / "map.dcm", scan.result, scan.source, "LABELMAP")
    volume = highdicom.seg.segread(path).get_volume(combine_segments=True)
    theirs = highdicom.Volume(
        np.zeros(scan.result.mask.shape, np.uint8), np.diag([-1, -1, 1, 1]) @ scan.result.volume.affine, "PATIENT"
    )
    labels = volume.match_geometry(theirs).array
    for number, name in enumerate(FOUND, 1):
        assert ((labels == number) == scan.mask(name)).all()
    back = read_seg(path, scan.result.volume.geometry, series=scan.result.volume.series)
    assert [s.name for s in back.structures if s.number] == ["Parotid gland, left", "Spinal cord", "Mandible"]


def test_the_same_mask_has_the_same_uid_and_another_mask_another(
    scanned: Callable[[str], Scanned], tmp_path: Path
) -> None:
    scan = scanned("axial")
    one, two = (pydicom.dcmread(write_dicom_seg(tmp_path / f"{n}.dcm", scan.result, scan.source)) for n in "ab")
    assert one.SOPInstanceUID == two.SOPInstanceUID
    other = scan.result.mask.copy()
    other[other == 3] = 0
    third = write_dicom_seg(tmp_path / "c.dcm", result_of(scan.result.volume, other), scan.source)
    assert pydicom.dcmread(third).SOPInstanceUID != one.SOPInstanceUID


@pytest.mark.parametrize(("charset", "patient"), [("ISO_IR 100", "Müller^Jürgen"), ("GB18030", "张^三")])
@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_names_of_organs_and_patient_survive_the_scan_s_character_set(
    tmp_path: Path, charset: str, patient: str, kind: Kind
) -> None:
    scan = foreign_scan(tmp_path / "scan", charset, patient)
    dataset = pydicom.dcmread(write_dicom_seg(tmp_path / "seg.dcm", scan.result, scan.source, kind))
    assert dataset.SpecificCharacterSet == "ISO_IR 192"
    labels = [str(item.SegmentLabel) for item in dataset.SegmentSequence if item.SegmentNumber]
    assert labels == ["腮腺, left", "脊髓", "下颌骨"]
    assert [dataset.PatientName, dataset.StudyDescription] == [patient, patient]
    assert dataset.ProcedureCodeSequence[0].CodeMeaning == patient


def test_an_empty_mask_and_a_scan_without_study_or_frame_of_reference_are_refused(
    scanned: Callable[[str], Scanned], tmp_path: Path
) -> None:
    scan = scanned("axial")
    nothing = result_of(scan.result.volume, np.zeros_like(scan.result.mask))
    with pytest.raises(DataError, match="Nothing was segmented"):
        write_dicom_seg(tmp_path / "a.dcm", nothing, scan.source)
    for keyword, words in (("FrameOfReferenceUID", "frame of reference"), ("StudyInstanceUID", "study")):
        headers = [Dataset() for _ in scan.source.headers]
        for header, whole in zip(headers, scan.source.headers, strict=True):
            header.update(whole)
            del header[keyword]
        with pytest.raises(DataError, match=f"no {words}"):
            write_dicom_seg(tmp_path / "b.dcm", scan.result, type(scan.source)(tuple(headers)))
    assert list(tmp_path.iterdir()) == []


def test_values_that_dicom_forbids_are_left_empty(scanned: Callable[[str], Scanned], tmp_path: Path) -> None:
    scan = scanned("axial")
    headers = []
    for whole in scan.source.headers:
        header = Dataset()
        header.update(whole)
        with pytest.warns(UserWarning, match="exceeds the maximum length"):
            header.StudyID = "much too long for a short string"
        headers.append(header)
    path = write_dicom_seg(tmp_path / "a.dcm", scan.result, type(scan.source)(tuple(headers)))
    assert not pydicom.dcmread(path).StudyID


def test_slices_are_found_by_place_and_not_by_name(scanned: Callable[[str], Scanned], tmp_path: Path) -> None:
    scan = scanned("oblique")
    for number, header in enumerate(scan.source.headers):
        corner = np.linalg.inv(scan.result.volume.affine) @ [*(np.array(header.ImagePositionPatient) * [-1, -1, 1]), 1]
        assert np.allclose(corner[:3], [0, 0, number], atol=1e-3)
    moved = Geometry(scan.result.volume.geometry.shape, scan.result.volume.affine + np.eye(4) * [[0], [0], [0], [0]])
    shifted = moved.affine.copy()
    shifted[:3, 3] += 1.0
    with pytest.raises(GeometryError, match="resampled"):
        read_source(scan.folder, Geometry(moved.shape, shifted), series=scan.result.volume.series)
