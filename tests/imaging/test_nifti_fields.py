"""Every word of a NIfTI header that decides: just inside its range it is read, just outside it is refused."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medseg import errors
from medseg.imaging import Geometry, Volume, read_volume
from medseg.imaging.nifti import read_label_map, write_label_map, write_scan
from tests.phantoms import phantom_volume, write_nifti

SMALL = phantom_volume((24, 20, 18), (7.0, 6.5, 7.5), orientation="LPS")
Words = tuple[str, int, tuple[float, ...]]


def _edited(tmp_path: Path, *words: Words, volume: Volume = SMALL, version: int = 1) -> Path:
    path = write_nifti(tmp_path / "case.nii", volume, version=version)
    content = bytearray(path.read_bytes())
    for form, offset, values in words:
        struct.pack_into(form, content, offset, *values)
    path.write_bytes(content)
    return path


SOUND: dict[str, tuple[Words, ...]] = {
    "seconds beside millimetres": (("<B", 123, (10,)),),
    "no length of a time step": (("<f", 92, (0.0,)),),
    "no bits said": (("<h", 72, (0,)),),
    "no sign of the third axis": (("<f", 76, (0.0,)),),
    "no sign of the third axis, qform alone": (("<f", 76, (0.0,)), ("<h", 254, (0,))),
    "all seven dimensions": (("<8h", 40, (7, 24, 20, 18, 1, 1, 1, 1)),),
    "the largest orientation codes": (("<hh", 252, (5, 5)),),
    "qform a twentieth of a millimetre off": (("<f", 268, (float(SMALL.affine[0, 3]) + 0.05,)),),
}


@pytest.mark.parametrize("case", SOUND)
def test_words_within_their_range_are_read(case: str, tmp_path: Path) -> None:
    volume = read_volume(_edited(tmp_path, *SOUND[case]))
    assert np.array_equal(volume.hu, SMALL.hu)
    assert volume.geometry.matches(SMALL.geometry, 1e-3)
    assert volume.findings == ()


REFUSED: dict[str, tuple[Words, type[errors.InputError], str]] = {
    "one dimension": (("<h", 40, (1,)), errors.NotVolumeError, "1 dimensions"),
    "no dimension": (("<h", 40, (0,)), errors.CorruptFileError, "0 dimensions"),
    "eight dimensions": (("<h", 40, (8,)), errors.CorruptFileError, "8 dimensions"),
    "a length of 0": (("<h", 44, (0,)), errors.CorruptFileError, "24 x 0 x 18"),
    "qform code 6": (("<h", 252, (6,)), errors.CorruptFileError, "codes are 6 and 1"),
    "sform code -1": (("<h", 254, (-1,)), errors.CorruptFileError, "codes are 1 and -1"),
    "a long double": (("<hh", 70, (1536, 128)), errors.NotVolumeError, "single values"),
    "spacing along i": (("<f", 80, (-7.0,)), errors.GeometryError, "spacing is -7"),
    "spacing along j": (("<f", 84, (0.0,)), errors.GeometryError, "spacing is 7 x 0"),
    "spacing infinite": (("<f", 84, (np.inf,)), errors.GeometryError, "spacing is 7 x inf"),
    "an unknown unit": (("<B", 123, (4,)), errors.GeometryError, "an unknown unit"),
    "qform an eighth of a millimetre off": (
        ("<f", 268, (float(SMALL.affine[0, 3]) + 0.125,)),
        errors.GeometryError,
        "origin differs by 0.1",
    ),
    "first voxel in the fourth byte behind": (("<f", 108, (351.0,)), errors.CorruptFileError, "byte 351"),
    "first voxel far off": (("<f", 108, (2.0**24 + 2,)), errors.CorruptFileError, "far off the header"),
    "first voxel as far as it may": (("<f", 108, (2.0**24,)), errors.TruncatedFileError, "ends after 0 of"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_words_beyond_their_range_are_refused(case: str, tmp_path: Path) -> None:
    words, kind, text = REFUSED[case]
    with pytest.raises(kind) as refused:
        read_volume(_edited(tmp_path, words))
    assert type(refused.value) is kind
    assert text in str(refused.value)


def test_a_third_axis_without_its_sign_is_not_mirrored(tmp_path: Path) -> None:
    mirrored = phantom_volume((24, 20, 18), (7.0, 6.5, 7.5), orientation="LPI")
    with pytest.raises(errors.GeometryError, match="sform and qform, contradict"):
        read_volume(_edited(tmp_path, ("<f", 76, (0.0,)), volume=mirrored))


@pytest.mark.parametrize(("share", "fits"), [(0.8, True), (1.3, False)])
def test_two_readers_agree_within_a_hundredth_of_a_millimetre(share: float, fits: bool, tmp_path: Path) -> None:
    """The spacing of the header against the length of the sform's axes, which only one reader looks at."""
    path = _edited(tmp_path, ("<h", 252, (0,)), ("<f", 88, (7.5 + share * 0.01 / 18,)))
    if fits:
        assert 0.001 < read_volume(path).evidence["largest_corner_difference_mm"] < 0.01
    else:
        with pytest.raises(errors.GeometryError, match="two readers"):
            read_volume(path)


def test_submillimetre_voxels_and_a_plain_slope(tmp_path: Path) -> None:
    fine = Volume(SMALL.hu, Geometry(SMALL.geometry.shape, SMALL.affine * [0.1, 0.1, 0.1, 1]))
    volume = read_volume(write_nifti(tmp_path / "case.nii", fine, slope=1.0, inter=-1024.0))
    assert np.array_equal(volume.hu, SMALL.hu)
    assert volume.spacing_mm == pytest.approx((0.7, 0.65, 0.75), rel=1e-5)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("missing", [24 * 20 * 18 * 2, 24 * 20 * 18 * 2 + 4, 24 * 20 * 18 * 2 + 100])
def test_a_file_that_ends_within_its_header(version: int, missing: int, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "case.nii", SMALL, version=version)
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(errors.InputError, match=r"case\.nii"):
        read_volume(path)


@pytest.mark.parametrize("size", [400, 539])
def test_a_second_version_cut_in_its_header_is_said(size: int, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "case.nii", SMALL, version=2)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(errors.CorruptFileError, match="ends within its header"):
        read_volume(path)


@pytest.mark.parametrize(("extra", "fits"), [(24 * 20 * 2 - 1, True), (24 * 20 * 2, False)])
def test_a_slice_behind_the_voxels_is_one_too_many(extra: int, fits: bool, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "case.nii", SMALL)
    path.write_bytes(path.read_bytes() + bytes(extra))
    if fits:
        assert [finding.code for finding in read_volume(path).findings] == ["trailing_bytes"]
    else:
        with pytest.raises(errors.CorruptFileError, match=r"960 bytes more .*1\.0 slices"):
            read_volume(path)


def _bytes_behind(extra: int) -> Callable[[bytes], bytes]:
    return lambda content: content + bytes(extra)


@pytest.mark.parametrize(("extra", "words"), [(1 << 20, "slices"), ((1 << 20) + 1, "far more data")])
def test_reading_on_and_on_ends(extra: int, words: str, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "case.nii", SMALL)
    path.write_bytes(_bytes_behind(extra)(path.read_bytes()))
    with pytest.raises(errors.CorruptFileError, match=words):
        read_volume(path)


@pytest.mark.parametrize(("low", "high", "kind"), [(1, 255, np.uint8), (0, 256, np.int32), (1, 300, np.int32)])
def test_labels_come_back_in_the_smallest_numbers_that_hold_them(
    low: int, high: int, kind: type, tmp_path: Path
) -> None:
    labels = np.full(SMALL.geometry.shape, low)
    labels[3, 4, 5] = high
    path = write_nifti(tmp_path / "mask.nii", Volume(labels.astype(np.float32), SMALL.geometry), dtype=np.int16)
    found, geometry = read_label_map(path)
    assert found.dtype == kind
    assert np.array_equal(found, labels)
    assert geometry.matches(SMALL.geometry)


def test_labels_below_nothing_are_none(tmp_path: Path) -> None:
    labels = np.zeros(SMALL.geometry.shape, np.float32)
    labels[1, 2, 3] = -1
    with pytest.raises(errors.DataError, match="no labels"):
        read_label_map(write_nifti(tmp_path / "mask.nii", Volume(labels, SMALL.geometry)))


def test_a_mask_without_background_is_written(tmp_path: Path) -> None:
    labels = np.full(SMALL.geometry.shape, 255, np.int32)
    labels[0, 0, 0] = 1
    found, _ = read_label_map(write_label_map(tmp_path / "mask.nii.gz", labels, SMALL.geometry))
    assert np.array_equal(found, labels)
    with pytest.raises(errors.OutputError, match="do not fit"):
        write_label_map(tmp_path / "more.nii.gz", labels + 1, SMALL.geometry)


def test_a_written_scan_is_cut_off_at_the_ends_of_its_numbers(tmp_path: Path) -> None:
    hu = SMALL.hu.copy()
    hu[0, 0, :2] = -40000, 40000
    found = read_volume(write_scan(tmp_path / "scan.nii.gz", Volume(hu, SMALL.geometry)), accept="a test")
    assert found.hu[0, 0, 1] == 32767
    assert found.hu[0, 0, 0] == -1024
    assert np.array_equal(found.hu[1:], SMALL.hu[1:])


def test_written_files_hold_no_time(tmp_path: Path) -> None:
    path = write_label_map(tmp_path / "mask.nii.gz", np.zeros(SMALL.geometry.shape, np.uint8), SMALL.geometry)
    assert path.read_bytes()[4:8] == bytes(4)
