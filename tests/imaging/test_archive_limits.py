"""What a zip announces, at the limits: the numbers in its directory are judged before anything is unpacked."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from medseg import errors
from medseg.imaging import read_volume
from tests.phantoms import phantom_volume, write_dicom_series, write_nifti

SMALL = phantom_volume((24, 20, 18), (7.0, 7.0, 7.5), orientation="LPS")
FREE = 64 << 20


def _announcing(path: Path, *sizes: tuple[int, int]) -> Path:
    """Entries of a few bytes each whose directory says other sizes, unpacked and packed."""
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(len(sizes)):
            archive.writestr(f"IM{number}", b"few bytes")
    content, at = bytearray(path.read_bytes()), 0
    for size, packed in sizes:
        at = content.index(b"PK\x01\x02", at)
        struct.pack_into("<II", content, at + 20, packed, size)
        at += 46
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("size", "packed", "fits"),
    [
        (FREE, 1, True),
        (FREE + 1, 1, False),
        (FREE + 1, 0, False),
        (100_000_000, 200_000, True),
        (100_000_001, 200_000, False),
        (60_000_000, 90_000_000, True),
    ],
)
def test_an_entry_grows_five_hundredfold_at_most(size: int, packed: int, fits: bool, tmp_path: Path) -> None:
    path = _announcing(tmp_path / "case.zip", (size, packed))
    with pytest.raises(errors.InputError) as refused:  # what fits is found to be no scan, or damaged
        read_volume(path)
    assert ("times its size" in str(refused.value)) is not fits


@pytest.mark.parametrize(("last", "fits"), [(2_863_311_530, True), (2_863_311_531, False)])
def test_eight_gigabytes_are_the_most(last: int, fits: bool, tmp_path: Path) -> None:
    third = (2_863_311_531, 1_000_000_000)
    path = _announcing(tmp_path / "case.zip", third, third, (last, 1_000_000_000))
    with pytest.raises(errors.InputError) as refused:
        read_volume(path)
    assert ("8,192 MB are accepted" in str(refused.value)) is not fits


def test_all_entries_together_grow_five_hundredfold_at_most(tmp_path: Path) -> None:
    path = _announcing(tmp_path / "case.zip", *[(FREE // 2, 1000)] * 3)
    with pytest.raises(errors.UnsafeArchiveError, match="unpacks to 33554 times its size"):
        read_volume(path)


def test_air_may_be_packed_as_tightly_as_it_goes(tmp_path: Path) -> None:
    scan = write_nifti(tmp_path / "x.nii", SMALL)
    with zipfile.ZipFile(tmp_path / "case.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(scan, "x.nii")
        archive.writestr("notes.txt", b" " * 4_000_000)
        archive.writestr("nothing.txt", b"")
    assert np.array_equal(read_volume(tmp_path / "case.zip").hu, SMALL.hu)


@pytest.mark.parametrize("change", [-1, 1])
def test_an_entry_of_another_size_than_it_says(change: int, tmp_path: Path) -> None:
    scan = write_nifti(tmp_path / "x.nii", SMALL).read_bytes()
    with zipfile.ZipFile(tmp_path / "case.zip", "w") as archive:
        archive.writestr("x.nii", scan)
    content = bytearray((tmp_path / "case.zip").read_bytes())
    struct.pack_into("<I", content, content.index(b"PK\x01\x02") + 24, len(scan) + change)
    (tmp_path / "case.zip").write_bytes(content)
    if change < 0:
        with pytest.raises(errors.InputError, match=r"x\.nii"):
            read_volume(tmp_path / "case.zip")
    else:
        assert np.array_equal(read_volume(tmp_path / "case.zip").hu, SMALL.hu)


ODD_NAMES = ["a/./b/IM{}", "IM{}..dcm", "x.zip.{}", "ab:c/IM{}", "__macosx_{}"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_no_danger(name: str, tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "ct", SMALL)
    with zipfile.ZipFile(tmp_path / "case.zip", "w") as archive:
        for number, file in enumerate(sorted(folder.iterdir())):
            archive.write(file, name.format(number))
    assert np.array_equal(read_volume(tmp_path / "case.zip").hu, SMALL.hu)


@pytest.mark.parametrize("name", ["report.docx", "TABLE.XLSX", "viewer.jar"])
def test_documents_that_are_zips_are_left_aside(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "case.zip", "w") as archive:
        archive.write(write_nifti(tmp_path / "x.nii", SMALL), "x.nii")
        archive.writestr(name, b"PK\x03\x04" + bytes(100))
    assert np.array_equal(read_volume(tmp_path / "case.zip").hu, SMALL.hu)


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [(b"", errors.TruncatedFileError, "is empty"), (b"hello", errors.CorruptFileError, "is not DICOM inside")],
)
def test_a_slice_in_name_alone(content: bytes, kind: type[errors.InputError], words: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "case.zip", "w") as archive:
        archive.writestr("IM1.DCM", content)
    with pytest.raises(kind, match=rf"IM1\.DCM {words}"):
        read_volume(tmp_path / "case.zip")
