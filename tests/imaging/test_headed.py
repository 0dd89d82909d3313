"""MetaImage and NRRD: read as SimpleITK wrote them, refused where SimpleITK would make voxels up."""

from __future__ import annotations

import bz2
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from medseg import errors
from medseg.imaging import Volume, read_volume
from tests.phantoms import ORIENTATIONS, orient, phantom_volume

SMALL = phantom_volume((24, 20, 18), (7.0, 7.0, 7.5), orientation="LPS")


def _write(path: Path, volume: Volume = SMALL, *, packed: bool = False, dtype: str = "i2") -> Path:
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.hu.T.astype(dtype)))
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
    image.SetSpacing(volume.spacing_mm)
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / volume.spacing_mm).ravel().tolist())
    sitk.WriteImage(image, str(path), packed)
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("extension", ["mha", "mhd", "nrrd", "nhdr"])
def test_reads_what_simpleitk_writes(extension: str, packed: bool, tmp_path: Path) -> None:
    volume = read_volume(_write(tmp_path / f"case.{extension}", packed=packed))
    assert np.array_equal(volume.hu, SMALL.hu)
    assert volume.hu.dtype == np.float32
    assert volume.geometry.matches(SMALL.geometry, 1e-3)
    assert volume.name == "case"
    assert volume.findings == ()
    assert volume.format == ("nrrd" if extension in ("nrrd", "nhdr") else "mha")


@pytest.mark.parametrize("extension", ["mha", "nrrd"])
@pytest.mark.parametrize("orientation", ORIENTATIONS[::5])
def test_orientations(extension: str, orientation: str, tmp_path: Path) -> None:
    turned = orient(SMALL, orientation)
    volume = read_volume(_write(tmp_path / f"case.{extension}", turned))
    assert np.array_equal(volume.hu, turned.hu)
    assert volume.geometry.matches(turned.geometry, 1e-3)


@pytest.mark.parametrize("dtype", ["i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("extension", ["mha", "nrrd"])
def test_number_types(extension: str, dtype: str, tmp_path: Path) -> None:
    assert np.array_equal(read_volume(_write(tmp_path / f"case.{extension}", dtype=dtype)).hu, SMALL.hu)


def test_big_endian_and_bzip2(tmp_path: Path) -> None:
    voxels = SMALL.hu.astype(">i2").tobytes(order="F")
    mha = _write(tmp_path / "case.mha").read_bytes().replace(b"MSB = False", b"MSB = True")
    start = mha.index(b"LOCAL\n") + 6
    (tmp_path / "case.mha").write_bytes(mha[:start] + voxels)
    assert np.array_equal(read_volume(tmp_path / "case.mha").hu, SMALL.hu)
    nrrd = _write(tmp_path / "case.nrrd").read_bytes().replace(b"endian: little", b"endian: big")
    start = nrrd.index(b"\n\n") + 2
    head = nrrd[:start].replace(b"encoding: raw", b"encoding: bzip2")
    (tmp_path / "case.nrrd").write_bytes(head + bz2.compress(voxels))
    assert np.array_equal(read_volume(tmp_path / "case.nrrd").hu, SMALL.hu)


@pytest.mark.parametrize("space", [b"right-anterior-superior", b"left-anterior-superior"])
def test_nrrd_spaces(space: bytes, tmp_path: Path) -> None:
    path = _write(tmp_path / "case.nrrd")
    path.write_bytes(path.read_bytes().replace(b"left-posterior-superior", space))
    flips = np.diag([-1.0 if space.startswith(b"r") else 1.0, -1.0, 1.0, 1.0])
    assert np.allclose(read_volume(path).affine, flips @ SMALL.affine, atol=1e-3)


def _swap(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        assert old in content
        return content.replace(old, new, 1)

    return change


def _cut(content: bytes) -> bytes:
    return content[:-500]


FAULTS: dict[str, tuple[str, bool, Callable[[bytes], bytes], type[errors.InputError], str]] = {
    "mha cut": ("mha", False, _cut, errors.TruncatedFileError, "ends after"),
    "mha packed and cut": ("mha", True, _cut, errors.TruncatedFileError, "too early"),
    "nrrd cut": ("nrrd", False, _cut, errors.TruncatedFileError, "ends after"),
    "nrrd packed and cut": ("nrrd", True, _cut, errors.TruncatedFileError, "too early"),
    "mha flipped": ("mha", True, lambda c: c[:-2] + bytes([c[-2] ^ 9]) + c[-1:], errors.CorruptFileError, "damaged"),
    "mha cut in the header": ("mha", False, lambda c: c[:150], errors.CorruptFileError, "header"),
    "mha too large": ("mha", False, _swap(b"24 20 18", b"9999 9999 99"), errors.TooLargeError, "voxels"),
    "mha two dimensions": ("mha", False, _swap(b"NDims = 3", b"NDims = 2"), errors.CorruptFileError, "header"),
    "mha spacing 0": ("mha", False, _swap(b"7 7 7.5", b"7 7 0"), errors.GeometryError, "spacing"),
    "mha no origin": ("mha", False, _swap(b"Offset =", b"Comment ="), errors.GeometryError, "origin"),
    "mha colours": (
        "mha",
        False,
        _swap(b"ElementType", b"ElementNumberOfChannels = 3\nElementType"),
        errors.NotVolumeError,
        "single values",
    ),
    "mha strange type": ("mha", False, _swap(b"MET_SHORT", b"MET_STRING"), errors.CorruptFileError, "MET_STRING"),
    "mha elsewhere": ("mha", False, _swap(b"LOCAL", b"../x.raw"), errors.UnknownFormatError, "another folder"),
    "mha list": ("mha", False, _swap(b"LOCAL", b"LIST"), errors.UnknownFormatError, "several files"),
    "mha lost": ("mha", False, _swap(b"LOCAL", b"x.raw"), errors.TruncatedFileError, "x.raw"),
    "nrrd no space": ("nrrd", False, _swap(b"space: left", b"spice: left"), errors.GeometryError, "how the scan lies"),
    "nrrd vectors": (
        "nrrd",
        False,
        lambda c: _swap(b"space directions: ", b"space directions: none ")(
            _swap(b"sizes: 24 20 18", b"sizes: 3 24 20 6")(_swap(b"dimension: 3", b"dimension: 4")(c))
        ),
        errors.NotVolumeError,
        "not space",
    ),
    "nrrd text": ("nrrd", False, _swap(b"encoding: raw", b"encoding: ascii"), errors.UnknownFormatError, "ascii"),
    "nrrd metres": (
        "nrrd",
        False,
        _swap(b"endian:", b'space units: "m" "m" "m"\nendian:'),
        errors.GeometryError,
        "millimetres",
    ),
    "nrrd sheared": ("nrrd", False, _swap(b"(0,7,0)", b"(3,7,0)"), errors.GeometryError, "sheared"),
    "nrrd NaN place": (
        "nrrd",
        False,
        _swap(b"space origin: (", b"space origin: (nan,0,0)\n#"),
        errors.GeometryError,
        "NaN",
    ),
    "nrrd elsewhere": (
        "nrrd",
        False,
        _swap(b"endian:", b"data file: /etc/passwd\nendian:"),
        errors.UnknownFormatError,
        "another folder",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_faulty_file_is_refused_by_name(case: str, tmp_path: Path) -> None:
    extension, packed, change, kind, words = FAULTS[case]
    path = _write(tmp_path / f"case.{extension}", packed=packed)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(kind) as refused:
        read_volume(path)
    assert type(refused.value) is kind
    assert str(refused.value).startswith(path.name)
    assert words.lower() in str(refused.value).lower()


@pytest.mark.parametrize("extension", ["mha", "nrrd"])
def test_not_a_number(extension: str, tmp_path: Path) -> None:
    hu = SMALL.hu.copy()
    hu[1, 2, 3] = np.nan
    path = _write(tmp_path / f"case.{extension}", Volume(hu, SMALL.geometry), dtype="f4")
    with pytest.raises(errors.NonFiniteError, match="1 of 8,640"):
        read_volume(path)


def test_bytes_behind_the_voxels_are_a_finding(tmp_path: Path) -> None:
    path = _write(tmp_path / "case.mha")
    path.write_bytes(path.read_bytes() + b"J" * 100)
    assert [f.code for f in read_volume(path).findings] == ["trailing_bytes"]
