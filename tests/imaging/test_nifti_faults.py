"""NIfTI files as they should not be: each is refused by name, or read as what it is."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg import errors
from medseg.imaging import Volume, read_volume
from tests.phantoms import phantom_volume, write_nifti

SMALL = phantom_volume((24, 20, 18), (7.0, 7.0, 7.5), orientation="LPS")
Bytes = Callable[[bytearray], object]


def _plain(tmp_path: Path, change: Bytes | None = None, volume: Volume = SMALL) -> Path:
    path = write_nifti(tmp_path / "case.nii", volume)
    if change is not None:
        content = bytearray(path.read_bytes())
        replaced = change(content)
        path.write_bytes(replaced if isinstance(replaced, (bytes, bytearray)) else content)
    return path


def _pack(form: str, offset: int, *values: float) -> Bytes:
    return lambda content: struct.pack_into(form, content, offset, *values)


def _both(*changes: Bytes) -> Bytes:
    def change(content: bytearray) -> None:
        for one in changes:
            one(content)

    return change


def _nan(content: bytearray) -> bytearray:
    voxels = np.frombuffer(content[352:], "<i2").astype("<f4")
    voxels[[3, 5]] = np.nan, np.inf
    struct.pack_into("<hh", content, 70, 16, 32)
    return content[:352] + voxels.tobytes()


def _sheared(content: bytearray) -> None:
    struct.pack_into("<h", content, 252, 0)
    struct.pack_into("<4f", content, 280, -7.0, 3.0, 0.0, 80.0)


HEADER_FAULTS: dict[str, tuple[Bytes, type[errors.InputError], str]] = {
    "cut in half": (lambda c: c[: len(c) // 2], errors.TruncatedFileError, "ends after"),
    "one voxel short": (lambda c: c[:-2], errors.TruncatedFileError, "ends after"),
    "cut in the header": (lambda c: c[:200], errors.UnknownFormatError, ""),
    "30000 cubed": (_pack("<8h", 40, 3, 30000, 30000, 30000, 1, 1, 1, 1), errors.TooLargeError, "27,000,000,000"),
    "two dimensions": (_pack("<8h", 40, 2, 24, 360, 1, 1, 1, 1, 1), errors.NotVolumeError, "2 dimensions"),
    "four volumes": (_pack("<8h", 40, 4, 24, 20, 6, 3, 1, 1, 1), errors.NotVolumeError, "3 volumes"),
    "five dimensions": (_pack("<8h", 40, 5, 24, 20, 6, 1, 3, 1, 1), errors.NotVolumeError, "3 volumes"),
    "a slice more than it says": (_pack("<h", 46, 17), errors.CorruptFileError, "1.0 slices"),
    "one slice": (_pack("<8h", 40, 3, 24, 360, 1, 1, 1, 1, 1), errors.NotVolumeError, "single slice"),
    "nine dimensions": (_pack("<h", 40, 9), errors.CorruptFileError, "dimensions"),
    "negative size": (_pack("<h", 44, -20), errors.CorruptFileError, "-20"),
    "colours": (_pack("<hh", 70, 128, 24), errors.NotVolumeError, "colours"),
    "complex numbers": (_pack("<hh", 70, 32, 64), errors.NotVolumeError, "complex"),
    "no such type": (_pack("<h", 70, 77), errors.CorruptFileError, "77"),
    "bits contradict the type": (_pack("<h", 72, 8), errors.CorruptFileError, "8 bits"),
    "NaN and infinity": (_nan, errors.NonFiniteError, "2 of 8,640"),
    "infinite intercept": (_pack("<ff", 112, 1.0, np.inf), errors.CorruptFileError, "intercept"),
    "no orientation": (_pack("<hh", 252, 0, 0), errors.GeometryError, "both unset"),
    "qform against sform": (_pack("<3f", 256, 1.0, 0.0, 0.0), errors.GeometryError, "contradict"),
    "qform shifted": (_pack("<f", 268, 12.0), errors.GeometryError, "origin differs"),
    "sform row of zeros": (_pack("<4f", 312, 0, 0, 0, 0), errors.GeometryError, "axis"),
    "sform NaN": (_pack("<f", 312, np.nan), errors.GeometryError, "NaN"),
    "sheared": (_sheared, errors.GeometryError, "sheared"),
    "spacing 0": (_pack("<f", 88, 0.0), errors.GeometryError, "spacing"),
    "spacing negative": (_pack("<f", 88, -7.5), errors.GeometryError, "-7.5"),
    "spacing contradicts": (_pack("<f", 88, 5.0), errors.GeometryError, "spacing differs"),
    "spacing contradicts sform alone": (
        _both(_pack("<h", 252, 0), _pack("<f", 88, 5.0)),
        errors.GeometryError,
        "two readers",
    ),
    "metres": (lambda c: c.__setitem__(123, 1), errors.GeometryError, "metres"),
    "micrometres": (lambda c: c.__setitem__(123, 3), errors.GeometryError, "micrometres"),
    "voxels at byte 0": (_pack("<f", 108, 0.0), errors.CorruptFileError, "byte 0"),
    "voxels at byte 348": (_pack("<f", 108, 348.0), errors.CorruptFileError, "byte 348"),
    "voxels at NaN": (_pack("<f", 108, np.nan), errors.CorruptFileError, "nan"),
    "half of a pair": (lambda c: c.__setitem__(slice(344, 348), b"ni1\0"), errors.UnknownFormatError, "pair"),
    "quaternion no rotation": (
        _both(_pack("<h", 254, 0), _pack("<3f", 256, 5.0, 5.0, 5.0)),
        errors.GeometryError,
        "rotation",
    ),
}


@pytest.mark.parametrize("case", HEADER_FAULTS)
def test_faulty_header_is_refused_by_name(case: str, tmp_path: Path) -> None:
    change, kind, words = HEADER_FAULTS[case]
    path = _plain(tmp_path, change)
    with pytest.raises(kind) as refused:
        read_volume(path)
    assert type(refused.value) is kind
    assert "case.nii" in str(refused.value)
    assert words in str(refused.value)
    assert refused.value.advice


GZIP_FAULTS: dict[str, tuple[Callable[[bytes], bytes], type[errors.InputError]]] = {
    "cut to 70 percent": (lambda g: g[: int(0.7 * len(g))], errors.TruncatedFileError),
    "checksum missing": (lambda g: g[:-8], errors.TruncatedFileError),
    "checksum wrong": (lambda g: g[:-6] + bytes([g[-6] ^ 255]) + g[-5:], errors.CorruptFileError),
    "bit flipped": (
        lambda g: g[: len(g) // 2] + bytes([g[len(g) // 2] ^ 255]) + g[len(g) // 2 + 1 :],
        errors.InputError,
    ),
    "junk behind": (lambda g: g + b"J" * 100, errors.CorruptFileError),
    "bomb": (lambda g: gzip.compress(gzip.decompress(g) + bytes(50_000_000), 1), errors.CorruptFileError),
    "empty": (lambda g: b"", errors.UnknownFormatError),
}


@pytest.mark.parametrize("case", GZIP_FAULTS)
def test_faulty_compression_is_refused_by_name(case: str, tmp_path: Path) -> None:
    change, kind = GZIP_FAULTS[case]
    path = write_nifti(tmp_path / "case.nii.gz", SMALL)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(kind, match=r"case\.nii\.gz"):
        read_volume(path)


SOUND: dict[str, Bytes] = {
    "slope 0 means none": _pack("<ff", 112, 0.0, 5.0),
    "slope NaN means none": _pack("<ff", 112, np.nan, np.nan),
    "last dimension 1": _pack("<8h", 40, 4, 24, 20, 18, 1, 1, 1, 1),
    "no unit": lambda c: c.__setitem__(123, 0),
    "qform alone": _pack("<h", 254, 0),
    "sform alone": _pack("<h", 252, 0),
    "sform code 4": _pack("<h", 254, 4),
    "text in the header": lambda c: c.__setitem__(slice(148, 159), b"DOE^PLANTED"),
}


@pytest.mark.parametrize("case", SOUND)
def test_unusual_but_sound_headers_are_read(case: str, tmp_path: Path) -> None:
    volume = read_volume(_plain(tmp_path, SOUND[case]))
    assert np.array_equal(volume.hu, SMALL.hu)
    assert volume.geometry.matches(SMALL.geometry, 1e-3)
    assert volume.findings == ()
    assert "PLANTED" not in repr(volume)


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<i4", "<i8", "<f4", ">f4", "<f8"])
def test_every_number_type_gives_the_same_values(dtype: str, tmp_path: Path) -> None:
    image = nib.Nifti1Image(SMALL.hu.astype(dtype), SMALL.affine, nib.Nifti1Header(endianness=dtype[0]), dtype=dtype)
    nib.save(image, tmp_path / "case.nii")
    volume = read_volume(tmp_path / "case.nii")
    assert volume.hu.dtype == np.float32
    assert np.array_equal(volume.hu, SMALL.hu)


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "case.nii.gz", SMALL, dtype=np.uint16, slope=0.5, inter=-1024.0)
    assert np.array_equal(read_volume(path).hu, SMALL.hu)


def test_nifti_2(tmp_path: Path) -> None:
    volume = read_volume(write_nifti(tmp_path / "case.nii.gz", SMALL, version=2))
    assert np.array_equal(volume.hu, SMALL.hu)
    assert volume.geometry.matches(SMALL.geometry)


def test_bytes_behind_the_voxels_are_a_finding(tmp_path: Path) -> None:
    volume = read_volume(_plain(tmp_path, lambda c: c + b"J" * 500))
    assert [f.code for f in volume.findings] == ["trailing_bytes"]
    assert np.array_equal(volume.hu, SMALL.hu)


def test_coarse_slices_are_a_finding(tmp_path: Path) -> None:
    coarse = phantom_volume((24, 20, 12), (7.0, 7.0, 12.0))
    volume = read_volume(write_nifti(tmp_path / "case.nii", coarse))
    assert [f.code for f in volume.findings] == ["coarse_spacing"]
