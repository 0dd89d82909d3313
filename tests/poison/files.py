"""A: files and archives."""

from __future__ import annotations

import gzip
import os
import struct
import zipfile
from pathlib import Path

import numpy as np

from medseg.imaging.volume import Volume
from tests.phantoms import write_nifti
from tests.poison.base import FINE, base, case, nifti_bytes, patched, put, refused, series, slices, warned


@case("A1", "empty file", refused("UnknownFormatError"))
def _(folder: Path) -> Path:
    return put(folder, b"", "scan.nii")


@case("A2", "gzip cut at 70 %", refused("TruncatedFileError"))
def _(folder: Path) -> Path:
    whole = gzip.compress(nifti_bytes(), 1)
    return put(folder, whole[: int(0.7 * len(whole))], "scan.nii").rename(folder / "scan.nii.gz")


@case("A3", "half of a .nii", refused("TruncatedFileError"))
def _(folder: Path) -> Path:
    return put(folder, nifti_bytes()[: len(nifti_bytes()) // 2], "scan.nii")


@case("A3b", ".nii cut by one byte", refused("TruncatedFileError"))
def _(folder: Path) -> Path:
    return put(folder, nifti_bytes()[:-1], "scan.nii")


def _flip(folder: Path, at: int) -> Path:
    packed = bytearray(gzip.compress(nifti_bytes(), 1))
    packed[at] ^= 0xFF
    return put(folder, bytes(packed), "scan.nii").rename(folder / "scan.nii.gz")


@case("A4", "bit flip in the gzip body", refused("CorruptFileError", "TruncatedFileError"))
def _(folder: Path) -> Path:
    return _flip(folder, len(gzip.compress(nifti_bytes(), 1)) // 2)


@case("A5", "gzip checksum flipped", refused("CorruptFileError"))
def _(folder: Path) -> Path:
    return _flip(folder, -6)


@case("A6", "junk behind the voxels", warned("trailing_bytes"))
def _(folder: Path) -> Path:
    return put(folder, nifti_bytes() + b"J" * 1000)


@case("A6b", "slices more than the header says", refused("CorruptFileError"))
def _(folder: Path) -> Path:
    return put(folder, nifti_bytes() + b"\0" * 6000)


@case("A7", "gzip bomb behind a large header", refused("TruncatedFileError", "TooLargeError", "NotHUError"))
def _(folder: Path) -> Path:
    path = folder / "scan.nii.gz"
    with gzip.open(path, "wb", 9) as out:
        out.write(patched(dim=struct.pack("<8h", 3, 512, 512, 400, 1, 1, 1, 1))[:352])
        for _ in range(200):
            out.write(bytes(1 << 20))
    return path


@case("A7b", "gzip that goes on and on", refused("CorruptFileError"))
def _(folder: Path) -> Path:
    path = folder / "scan.nii.gz"
    with gzip.open(path, "wb", 9) as out:
        out.write(nifti_bytes())
        for _ in range(200):
            out.write(bytes(1 << 20))
    return path


@case("A8", "30000 x 30000 x 30000 announced", refused("TooLargeError"))
def _(folder: Path) -> Path:
    return put(folder, patched(dim=struct.pack("<8h", 3, 30000, 30000, 30000, 1, 1, 1, 1)), "scan.nii")


@case("A9", "plain NIfTI called .nii.gz", FINE)
def _(folder: Path) -> Path:
    return put(folder, nifti_bytes(), "scan.nii").rename(folder / "scan.nii.gz")


@case("A9b", "gzip called .nii", FINE)
def _(folder: Path) -> Path:
    return put(folder, nifti_bytes()).rename(folder / "scan.nii")


@case("A10", "one DICOM slice called .nii.gz", refused("NotVolumeError"))
def _(folder: Path) -> Path:
    made = slices(series(folder / "other"))[3]
    return made.rename(folder / "scan.nii.gz")


for _name, _content in {
    "HTML": b"<html><body>Not found</body></html>",
    "PNG": b"\x89PNG\r\n\x1a\n" + bytes(200),
    "EXE": b"MZ" + bytes(600),
    "JSON": b'{"error": 404}',
    "noise": bytes(range(256)) * 8,
}.items():

    @case("A11", f"{_name} called .nii.gz", refused("UnknownFormatError"))
    def _(folder: Path, content: bytes = _content) -> Path:
        return put(folder, content, "scan.nii").rename(folder / "scan.nii.gz")


def _zip(folder: Path, **more: bytes) -> Path:
    path = folder / "study.zip"
    made = series(folder / "inside")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in more.items():
            archive.writestr(name, content)
        for file in slices(made):
            archive.write(file, f"study/{file.name}")
    return path


for _name in ("../escape.dcm", "/etc/escape.dcm", "a/../../escape.dcm", "..\\escape.dcm", "C:\\escape.dcm"):

    @case("A12", f"zip entry {_name}", refused("UnsafeArchiveError"))
    def _(folder: Path, name: str = _name) -> Path:
        return _zip(folder, **{name: b"x"})


@case("A12", "zip entry that is a link", refused("UnsafeArchiveError"))
def _(folder: Path) -> Path:
    path = _zip(folder)
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("study/link.dcm")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    return path


@case("A13", "zip bomb", refused("UnsafeArchiveError", "TooLargeError"))
def _(folder: Path) -> Path:
    return _zip(folder, IM0=bytes(200_000_000))


@case("A13b", "zip of 100,001 entries", refused("UnsafeArchiveError"))
def _(folder: Path) -> Path:
    path = folder / "study.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(100_001):
            archive.writestr(zipfile.ZipInfo(f"{number}"), b"")
    return path


@case("A13c", "zip that lies about a size", refused("UnsafeArchiveError", "CorruptFileError", "TruncatedFileError"))
def _(folder: Path) -> Path:
    path = _zip(folder)
    content = bytearray(path.read_bytes())
    entry = content.find(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = struct.pack("<I", 100)
    path.write_bytes(content)
    return path


@case("A14", "encrypted zip", refused("UnsafeArchiveError"))
def _(folder: Path) -> Path:
    path = _zip(folder)
    content = bytearray(path.read_bytes())
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.find(magic) + at] |= 1
    path.write_bytes(content)
    return path


@case("A15", "zip in a zip", refused("UnsafeArchiveError"))
def _(folder: Path) -> Path:
    inner = _zip(folder).rename(folder / "inner.zip").read_bytes()
    return _zip(folder / "again", **{"in.zip": inner}) if (folder / "again").mkdir() is None else folder


@case("A15b", "NIfTI bomb in a zip", refused("TruncatedFileError", "CorruptFileError", "TooLargeError"))
def _(folder: Path) -> Path:
    large = patched(dim=struct.pack("<8h", 3, 512, 512, 400, 1, 1, 1, 1))[:352] + bytes(100 << 20)
    with zipfile.ZipFile(folder / "study.zip", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("scan.nii.gz", gzip.compress(large, 9))
    return folder / "study.zip"


@case("A16", "zip without its end", refused("TruncatedFileError"))
def _(folder: Path) -> Path:
    path = _zip(folder)
    path.write_bytes(path.read_bytes()[:-60])
    return path


@case("A16b", "zip with a damaged member", refused("CorruptFileError"))
def _(folder: Path) -> Path:
    path = _zip(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    return path


@case("A17", "names that clash", FINE)
def _(folder: Path) -> Path:
    made = slices(series(folder / "inside"))
    with zipfile.ZipFile(folder / "study.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for k, file in enumerate(made):
            archive.write(file, f"{'ab'[k % 2]}/IM{k // 4}" if k % 4 < 2 else f"{'AB'[k % 2]}/im{k // 4}")
    return folder / "study.zip"


@case("A18", "names in every script", FINE)
def _(folder: Path) -> Path:
    odd = ["患者 1", "-rf", "a" * 200, "emoji 🫁", "‮rtl", "new\nline", "Müller^Zoë"]
    made = series(folder, names=lambda k: odd[k] if k < len(odd) else f"{k}")
    return made.rename(folder / "ス\u200fキャン -x")


@case("A19", "links, loops, a pipe and a hidden file in the folder", FINE)
def _(folder: Path) -> Path:
    made, outside = series(folder), series(folder / "outside", base(2))
    (made / "link.dcm").symlink_to(slices(outside)[0])
    (made / "loop").symlink_to(made)
    (made / "gone.dcm").symlink_to(made / "nowhere")
    (made / ".hidden.dcm").write_bytes(b"junk")
    os.mkfifo(made / "pipe.dcm")
    return made


@case("A20", "file that is gone", refused("NoScanError"))
def _(folder: Path) -> Path:
    return folder / "nowhere.nii.gz"


@case("A20b", "slice that is a folder", refused("InputError", "CorruptFileError", "MissingSlicesError"))
def _(folder: Path) -> Path:
    made = series(folder)
    middle = slices(made)[9]
    middle.unlink()
    middle.mkdir()
    return made


@case("A21", "two scans in a zip", refused("NoScanError"))
def _(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "study.zip", "w") as archive:
        archive.writestr("a.nii", nifti_bytes())
        archive.writestr("b.nii", nifti_bytes())
    return folder / "study.zip"


@case("A22", "NIfTI in a zip", FINE)
def _(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "study.zip", "w") as archive:
        archive.writestr("患者/scan.nii", nifti_bytes())
    return folder / "study.zip"


@case("A23", "folder without a scan", refused("NoScanError"))
def _(folder: Path) -> Path:
    (folder / "study").mkdir()
    (folder / "study" / "readme.txt").write_text("nothing here")
    return folder / "study"


@case("A24", "float NIfTI that is all there", FINE)
def _(folder: Path) -> Path:
    return write_nifti(folder / "scan.nii.gz", Volume(base().hu.astype(np.float64), base().geometry), dtype=np.float32)
