"""Zips: the good ones are read as their content, the dangerous ones leave nothing behind."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medseg import errors
from medseg.imaging import read_volume
from medseg.imaging.room import reading_room
from tests.phantoms import phantom_volume, write_dicom_series, write_nifti

SMALL = phantom_volume((24, 20, 18), (7.0, 7.0, 7.5), orientation="LPS")


@pytest.fixture(autouse=True)
def own_temporary_folder() -> Path:
    """Where the reading process unpacks, so that what is left behind can be seen."""
    room = reading_room()
    room.warm_up()
    assert room._scratch is not None
    return room._scratch.path


def _zip_folder(path: Path, folder: Path, **extra: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder.parent))
        for name, content in extra.items():
            archive.writestr(name, content)
    return path


def test_zip_of_a_dicom_folder(tmp_path: Path, own_temporary_folder: Path) -> None:
    folder = write_dicom_series(tmp_path / "ct", SMALL, names=lambda k: f"I{k}")
    junk = {"DICOMDIR": b"x" * 200, "__MACOSX/ct/._I1": b"\0\x05\x16\x07" * 60, "notes.txt": b"hello"}
    volume = read_volume(_zip_folder(tmp_path / "study 1.2.zip", folder, **junk))
    assert np.array_equal(volume.hu, SMALL.hu)
    assert (volume.name, volume.format, volume.findings) == ("study 1.2", "dicom", ())
    assert volume.sha256 == read_volume(folder).sha256
    assert list(own_temporary_folder.iterdir()) == []


def test_zip_of_one_nifti(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_nifti(tmp_path / "in" / "x.nii.gz", SMALL)
    volume = read_volume(_zip_folder(tmp_path / "case.zip", tmp_path / "in"))
    assert np.array_equal(volume.hu, SMALL.hu)
    assert volume.name == "case"


def test_faults_inside_name_the_zip_and_the_member(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    scan = write_nifti(tmp_path / "in" / "x.nii", SMALL)
    scan.write_bytes(scan.read_bytes()[:-100])
    with pytest.raises(errors.TruncatedFileError, match=r"case\.zip: in/x\.nii ends after"):
        read_volume(_zip_folder(tmp_path / "case.zip", tmp_path / "in"))
    folder = write_dicom_series(tmp_path / "ct", SMALL, skip=(9,))
    with pytest.raises(errors.MissingSlicesError, match=r"gap\.zip: 1 slice"):
        read_volume(_zip_folder(tmp_path / "gap.zip", folder))


def test_same_names_in_two_folders_are_two_files(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "case.zip", "w") as archive:
        for half in (0, 1):
            skipped = [k for k in range(18) if k % 2 != half]
            uid = {"series_uid": "1.2.3", "study_uid": "1.2.4"}
            folder = write_dicom_series(
                tmp_path / f"h{half}", SMALL, skip=skipped, names=lambda k: f"IM{k // 2}", **uid
            )
            for file in folder.iterdir():
                archive.write(file, f"{'aA'[half]}/{file.name}")
    assert np.array_equal(read_volume(tmp_path / "case.zip").hu, SMALL.hu)


def _entry(name: str, content: bytes = b"x", mode: int = 0) -> Callable[[zipfile.ZipFile], None]:
    def write(archive: zipfile.ZipFile) -> None:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        entry.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(entry, content)

    return write


def _many(archive: zipfile.ZipFile) -> None:
    for number in range(100_001):
        archive.writestr(str(number), b"")


DANGERS: dict[str, tuple[Callable[[zipfile.ZipFile], None], str]] = {
    "parent folder": (_entry("../evil"), "points out"),
    "parent folder, Windows": (_entry("a\\..\\..\\evil"), "points out"),
    "absolute": (_entry("/tmp/evil"), "points out"),
    "drive": (_entry("C:/evil"), "points out"),
    "symbolic link": (_entry("link", b"/etc/passwd", 0o120777), "link"),
    "pipe": (_entry("pipe", b"", 0o010666), "link or a device"),
    "zip within": (_entry("in.zip", b"PK\x03\x04" + bytes(100)), "archive within"),
    "gzip within": (_entry("in.gz", b"\x1f\x8b\x08" + bytes(100)), "archive within"),
    "7z within": (_entry("in.7z", b"7z\xbc\xaf\x27\x1c" + bytes(100)), "archive within"),
    "bomb": (_entry("IM0", bytes(200_000_000)), "times its size"),
}


@pytest.mark.parametrize("case", DANGERS)
def test_dangerous_zip_is_refused_and_writes_nothing(case: str, tmp_path: Path, own_temporary_folder: Path) -> None:
    write, words = DANGERS[case]
    with zipfile.ZipFile(tmp_path / "case.zip", "w") as archive:
        write(archive)
    before = set(tmp_path.iterdir())
    with pytest.raises(errors.UnsafeArchiveError, match=r"case\.zip") as refused:
        read_volume(tmp_path / "case.zip")
    assert words in str(refused.value)
    assert set(tmp_path.iterdir()) == before
    assert list(own_temporary_folder.iterdir()) == []


@pytest.mark.slow
def test_too_many_entries(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "case.zip", "w") as archive:
        _many(archive)
    with pytest.raises(errors.UnsafeArchiveError, match="100,001 entries"):
        read_volume(tmp_path / "case.zip")


def _spoil(tmp_path: Path, change: Callable[[bytearray], bytes | bytearray | None]) -> Path:
    folder = write_dicom_series(tmp_path / "ct", SMALL)
    path = tmp_path / "case.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    content = bytearray(path.read_bytes())
    path.write_bytes(change(content) or content)
    return path


def _encrypt(content: bytearray) -> None:
    local, central = content.find(b"PK\x03\x04"), content.find(b"PK\x01\x02")
    struct.pack_into("<H", content, local + 6, 1)
    struct.pack_into("<H", content, central + 8, 1)


def _damage(content: bytearray) -> None:
    content[1500] ^= 255


def _method(content: bytearray) -> None:
    local, central = content.find(b"PK\x03\x04"), content.find(b"PK\x01\x02")
    struct.pack_into("<H", content, local + 8, 9)
    struct.pack_into("<H", content, central + 10, 9)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (_encrypt, errors.UnsafeArchiveError, "encrypted"),
        (_method, errors.UnsafeArchiveError, "not supported"),
        (_damage, errors.CorruptFileError, r"IM0000\.dcm is damaged"),
        (lambda c: c[: len(c) // 2], errors.TruncatedFileError, "no directory"),
        (lambda c: c[:60], errors.TruncatedFileError, "no directory"),
    ],
)
def test_damaged_zip_is_refused(
    change: Callable[[bytearray], bytes | bytearray | None], kind: type[errors.InputError], words: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=rf"case\.zip: .*{words}"):
        read_volume(_spoil(tmp_path, change))


def test_zip_without_or_with_several_volumes(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as archive:
        archive.writestr("a.txt", "hello")
    with pytest.raises(errors.NoScanError, match=r"none\.zip"):
        read_volume(tmp_path / "none.zip")
    scan = write_nifti(tmp_path / "x.nii", SMALL).read_bytes()
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.nii", scan)
        archive.writestr("b.nii", scan)
    with pytest.raises(errors.NoScanError, match="2 volumes"):
        read_volume(tmp_path / "two.zip")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(errors.NoScanError):
        read_volume(tmp_path / "empty.zip")


def test_empty_slice_in_a_zip(tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "ct", SMALL)
    (folder / "IM0017.dcm").write_bytes(b"")
    with pytest.raises(errors.TruncatedFileError, match=r"IM0017\.dcm is empty"):
        read_volume(_zip_folder(tmp_path / "case.zip", folder))
