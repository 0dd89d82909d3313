"""DICOM segmentations of all kinds, frames in any order, as masks on the scan's grid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from medseg.errors import CorruptFileError, GeometryError, UnknownFormatError
from medseg.imaging.seg import lab_to_rgb, read_seg
from medseg.imaging.volume import Array, Volume, reorient
from tests.dicom_objects import item, write_seg
from tests.phantoms import ORIENTATIONS, edit_dicom, orient, phantom_labels, phantom_volume, write_dicom_series

SHAPE = (26, 22, 14)


def planted(orientation: str = "LPS") -> tuple[Volume, dict[str, Array]]:
    volume = phantom_volume(SHAPE, (6.0, 6.5, 9.0), orientation=orientation)
    labels = phantom_labels(volume)
    return volume, {"sphere": labels == 1, "box": labels == 2, "rod": labels == 3}


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
@pytest.mark.parametrize("orientation", ["LPS", "PIR", "RAS"])
def test_every_kind_comes_back_voxel_for_voxel(tmp_path: Path, kind: str, orientation: str) -> None:
    volume, masks = planted(orientation)
    backwards = list(range(volume.geometry.shape[2]))[::-1]
    path = write_seg(tmp_path / "seg.dcm", volume.geometry, masks, kind=kind, order=backwards)
    found = read_seg(path, volume.geometry)
    assert [structure.name for structure in found.structures] == list(masks)
    for name, mask in masks.items():
        assert mask.sum() > 20
        assert (found[name].mask == mask).all(), name
    assert found["rod"].code == "2748008"
    assert found["rod"].colour == (255, 255, 255)


@pytest.mark.parametrize("orientation", ORIENTATIONS[::7])
def test_frames_are_placed_by_position_on_a_scan_that_is_stored_another_way(tmp_path: Path, orientation: str) -> None:
    volume, masks = planted()
    path = write_seg(tmp_path / "seg.dcm", volume.geometry, masks)
    other = orient(volume, orientation)
    expected = phantom_labels(other)
    found = read_seg(path, other.geometry)
    assert (found["sphere"].mask == (expected == 1)).all()
    assert (found["box"].mask == (expected == 2)).all()


def test_a_scan_that_lacks_end_slices_gets_the_rest_and_a_word(tmp_path: Path) -> None:
    volume, masks = planted("LPS")
    path = write_seg(tmp_path / "seg.dcm", volume.geometry, masks)
    shorter = Volume(volume.hu[:, :, 2:-3], volume.geometry.__class__((26, 22, 9), moved(volume, 2)))
    found = read_seg(path, shorter.geometry)
    assert (found["rod"].mask == masks["rod"][:, :, 2:-3]).all()
    assert [finding.code for finding in found.findings] == ["beyond_scan"]


def moved(volume: Volume, slices: int) -> Array:
    affine = volume.affine.copy()
    affine[:3, 3] += slices * affine[:3, 2]
    return affine


@pytest.mark.parametrize("shift_mm", [(0.0, 0.0, 4.5), (3.0, 0.0, 0.0)])
def test_frames_between_the_voxels_are_refused(tmp_path: Path, shift_mm: tuple[float, float, float]) -> None:
    volume, masks = planted()
    path = write_seg(tmp_path / "seg.dcm", volume.geometry, masks, shift_mm=shift_mm)
    with pytest.raises(GeometryError, match="another grid"):
        read_seg(path, volume.geometry)


def test_frames_that_stick_out_at_a_side_are_refused(tmp_path: Path) -> None:
    volume, masks = planted()
    path = write_seg(tmp_path / "seg.dcm", volume.geometry, masks, shift_mm=(-12.0, 0.0, 0.0))
    with pytest.raises(GeometryError, match="larger than the slices"):
        read_seg(path, volume.geometry)


def test_another_series_is_refused(tmp_path: Path) -> None:
    volume, masks = planted()
    path = write_seg(tmp_path / "seg.dcm", volume.geometry, masks, series="1.2.3")
    assert read_seg(path, volume.geometry, series="1.2.3")["rod"].mask.any()
    with pytest.raises(GeometryError, match="another series"):
        read_seg(path, volume.geometry, series="1.2.4")


def test_what_is_no_segmentation_is_named(tmp_path: Path) -> None:
    volume, masks = planted()
    folder = write_dicom_series(tmp_path / "ct", volume)
    with pytest.raises(UnknownFormatError):
        read_seg(next(folder.iterdir()), volume.geometry)
    path = write_seg(tmp_path / "seg.dcm", volume.geometry, masks)
    edit_dicom(path, lambda dataset: delattr(dataset, "PerFrameFunctionalGroupsSequence"))
    with pytest.raises(CorruptFileError, match=r"seg\.dcm"):
        read_seg(path, volume.geometry)


def _number_from_zero(dataset: Dataset) -> None:
    for number, segment in enumerate(dataset.SegmentSequence):
        segment.SegmentNumber = number
    for own in dataset.PerFrameFunctionalGroupsSequence:
        own.SegmentIdentificationSequence[0].ReferencedSegmentNumber -= 1


def _number_alike(dataset: Dataset) -> None:
    dataset.SegmentSequence[1].SegmentNumber = 1


CONTRADICTIONS: dict[str, tuple[str, Callable[[Dataset], object], str]] = {
    "groups": ("BINARY", lambda d: d.PerFrameFunctionalGroupsSequence.pop(), r"holds \d+ frames and describes \d+"),
    "frames": ("BINARY", lambda d: setattr(d, "NumberOfFrames", 3), "holds 3 frames and describes"),
    "no frames": ("BINARY", lambda d: setattr(d, "NumberOfFrames", None), "not described as DICOM asks"),
    "no rows": ("BINARY", lambda d: delattr(d, "Rows"), "not described as DICOM asks"),
    "segment 0": ("BINARY", _number_from_zero, "does not number its segments from 1, each once"),
    "segment 1 twice": ("LABELMAP", _number_alike, "does not number its segments from 0, each once"),
    "segment 3": ("BINARY", lambda d: d.SegmentSequence.pop(), "frames of segments that it does not describe: 3"),
    "whole is 0": ("FRACTIONAL", lambda d: setattr(d, "MaximumFractionalValue", 0), "which value is a whole one"),
    "whole is empty": ("FRACTIONAL", lambda d: setattr(d, "MaximumFractionalValue", None), "which value is a whole"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_what_contradicts_itself_is_refused(tmp_path: Path, name: str) -> None:
    kind, edit, reason = CONTRADICTIONS[name]
    volume, masks = planted()
    path = write_seg(tmp_path / "seg.dcm", volume.geometry, masks, kind=kind)
    edit_dicom(path, edit)
    with pytest.raises(CorruptFileError, match=rf"seg\.dcm: .*{reason}"):
        read_seg(path, volume.geometry)


@pytest.mark.parametrize("padding", [True, False])
def test_the_background_of_a_label_map_is_no_segment_and_another_segment_0_is_one(
    tmp_path: Path, padding: bool
) -> None:
    def add(dataset: Dataset) -> None:
        dataset.SegmentSequence.insert(0, item(SegmentNumber=0, SegmentLabel="rest"))
        if padding:
            dataset.add_new("PixelPaddingValue", "US", 0)

    volume, masks = planted()
    path = write_seg(tmp_path / "seg.dcm", volume.geometry, masks, kind="LABELMAP")
    edit_dicom(path, add)
    found = read_seg(path, volume.geometry)
    assert [structure.name for structure in found.structures] == [*([] if padding else ["rest"]), *masks]
    assert padding or (found["rest"].mask == (phantom_labels(volume) == 0)).all()


def test_pixels_that_are_cut_off_are_refused(tmp_path: Path) -> None:
    volume, masks = planted()
    path = write_seg(tmp_path / "seg.dcm", volume.geometry, masks, kind="LABELMAP")
    edit_dicom(path, lambda dataset: setattr(dataset, "PixelData", dataset.PixelData[:1000]))
    with pytest.raises(CorruptFileError, match="cannot be decoded"):
        read_seg(path, volume.geometry)


def test_masks_do_not_depend_on_the_turn(tmp_path: Path) -> None:
    """The same body in the canonical frame, whichever way the scan is stored."""
    canonical = []
    for orientation in ("LPS", "SAR"):
        volume, masks = planted(orientation)
        found = read_seg(write_seg(tmp_path / f"{orientation}.dcm", volume.geometry, masks), volume.geometry)
        canonical.append(reorient(found["sphere"].mask, volume.geometry.to_canonical))
    assert (canonical[0] == canonical[1]).all()


@pytest.mark.parametrize(
    ("lab", "rgb"),
    [
        ((0.0, 0.0, 0.0), (0, 0, 0)),
        ((100.0, 0.0, 0.0), (255, 255, 255)),
        ((54.29, 80.81, 69.89), (255, 0, 0)),
        ((87.82, -79.29, 80.99), (0, 255, 0)),
        ((29.57, 68.30, -112.03), (0, 0, 255)),
    ],
)
def test_cielab_becomes_the_colour_that_a_screen_shows(
    lab: tuple[float, float, float], rgb: tuple[int, int, int]
) -> None:
    assert np.abs(np.subtract(lab_to_rgb(*lab), rgb)).max() <= 2
