"""B: NIfTI, NRRD and MetaImage headers and geometry."""

from __future__ import annotations

import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813

from medseg.imaging.volume import Geometry, Volume
from tests.phantoms import ORIENTATIONS, orient, phantom_volume, write_nifti
from tests.poison.base import (
    FINE,
    FINE_OTHER,
    SHAPE,
    base,
    case,
    nifti_bytes,
    nifti_of,
    patched,
    put,
    refused,
    warned,
)


def _image(folder: Path, array: np.ndarray) -> Path:
    image = nib.Nifti1Image(array, base().affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, folder / "scan.nii.gz")
    return folder / "scan.nii.gz"


def _i2() -> np.ndarray:
    return base().hu.astype(np.int16)


@case("B1", "two dimensions", refused("NotVolumeError"))
def _(folder: Path) -> Path:
    return _image(folder, _i2()[:, :, 5])


@case("B2", "two volumes in one file", refused("NotVolumeError"))
def _(folder: Path) -> Path:
    return _image(folder, np.stack([_i2(), _i2()], -1))


@case("B3", "fourth axis of length one", FINE)
def _(folder: Path) -> Path:
    return _image(folder, _i2()[..., None])


@case("B4", "five dimensions", refused("NotVolumeError"))
def _(folder: Path) -> Path:
    return _image(folder, np.stack([np.stack([_i2()] * 2, -1)] * 2, -1))


@case("B5", "colours", refused("NotVolumeError"))
def _(folder: Path) -> Path:
    rgb = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    return _image(folder, rgb)


@case("B6", "complex numbers", refused("NotVolumeError"))
def _(folder: Path) -> Path:
    return _image(folder, base().hu.astype(np.complex64))


@case("B7", "one NaN in the body", refused("NonFiniteError"))
def _(folder: Path) -> Path:
    hu = base().hu.copy()
    hu[16, 14, 11] = np.nan
    return nifti_of(folder, hu)


@case("B7b", "infinity", refused("NonFiniteError"))
def _(folder: Path) -> Path:
    hu = base().hu.copy()
    hu[3, 3, 3] = np.inf
    return nifti_of(folder, hu)


@case("B8", "slope 0", FINE)
def _(folder: Path) -> Path:
    return put(folder, patched(slope=struct.pack("<ff", 0, 0)))


@case("B8b", "slope NaN", FINE)
def _(folder: Path) -> Path:
    return put(folder, patched(slope=struct.pack("<ff", np.nan, np.nan)))


@case("B9", "intercept infinite", refused("CorruptFileError"))
def _(folder: Path) -> Path:
    return put(folder, patched(inter=struct.pack("<f", np.inf)))


@case("B10", "slope 2, intercept -10", FINE_OTHER)
def _(folder: Path) -> Path:
    return write_nifti(folder / "scan.nii.gz", base(), slope=2.0, inter=-10.0)


for _type in ("<i2", ">i2", "<i4", ">i4", "<f4", ">f4", "<f8", ">f8"):

    @case("B11", f"voxels as {_type}", FINE)
    def _(folder: Path, dtype: str = _type) -> Path:
        return _big_or_little(folder, dtype)


def _big_or_little(folder: Path, dtype: str) -> Path:
    header = nib.Nifti1Header(endianness=dtype[0])
    image = nib.Nifti1Image(base().hu.astype(dtype), base().affine, header)
    image.header.set_xyzt_units("mm")
    image.set_qform(base().affine, 1)
    image.set_sform(base().affine, 1)
    nib.save(image, folder / "scan.nii.gz")
    return folder / "scan.nii.gz"


@case("B11b", "voxels as u1 with slope and intercept", FINE_OTHER)
def _(folder: Path) -> Path:
    return write_nifti(folder / "scan.nii.gz", base(), dtype=np.uint8, slope=16.0, inter=-1024.0)


@case("B12", "neither qform nor sform", refused("GeometryError"))
def _(folder: Path) -> Path:
    return put(folder, patched(qform=struct.pack("<hh", 0, 0)))


@case("B12b", "orientation code -200", refused("CorruptFileError"))
def _(folder: Path) -> Path:
    return put(folder, patched(sform=struct.pack("<h", -200)))


@case("B13", "qform and sform contradict each other", refused("GeometryError"))
def _(folder: Path) -> Path:
    return put(folder, patched(quatern=struct.pack("<fff", 1, 0, 0)))


@case("B14", "empty row in the sform", refused("GeometryError"))
def _(folder: Path) -> Path:
    return put(folder, patched(qform=struct.pack("<hh", 0, 1), srow_x=struct.pack("<4f", 0, 0, 0, 0)))


@case("B14b", "NaN in the sform", refused("GeometryError"))
def _(folder: Path) -> Path:
    return put(folder, patched(qform=struct.pack("<hh", 0, 1), srow_z=struct.pack("<4f", np.nan, 0, 5, 0)))


@case("B15", "sheared axes", refused("GeometryError"))
def _(folder: Path) -> Path:
    affine = base().affine.copy()
    affine[1, 2] = 1.7
    return write_nifti(folder / "scan.nii.gz", Volume(base().hu, Geometry(SHAPE, affine)), edit=_only_sform)


def _only_sform(header: nib.Nifti1Header) -> None:
    header["qform_code"] = 0


for _number, _what, _value in (
    ("B16", "spacing 0", 0.0),
    ("B17", "spacing negative", -6.0),
    ("B18", "spacing that contradicts the sform", 12.0),
):

    @case(_number, _what, refused("GeometryError"))
    def _(folder: Path, value: float = _value) -> Path:
        content = bytearray(nifti_bytes())
        content[88:92] = struct.pack("<f", value)
        return put(folder, bytes(content))


@case("B19", "lengths in micrometres", refused("GeometryError"))
def _(folder: Path) -> Path:
    return put(folder, patched(xyzt=bytes([3])))


@case("B19b", "lengths in metres", refused("GeometryError"))
def _(folder: Path) -> Path:
    return put(folder, patched(xyzt=bytes([1])))


@case("B20", "nine dimensions", refused("CorruptFileError", "UnknownFormatError"))
def _(folder: Path) -> Path:
    return put(folder, patched(dim=struct.pack("<h", 9)))


@case("B20b", "an axis of length -28", refused("CorruptFileError"))
def _(folder: Path) -> Path:
    return put(folder, patched(dim=struct.pack("<4h", 3, 32, -28, 22)))


@case("B21", "first voxel within the header", refused("CorruptFileError"))
def _(folder: Path) -> Path:
    return put(folder, patched(vox_offset=struct.pack("<f", 0)), "scan.nii")


for _code in ORIENTATIONS[::5]:

    @case("B22", f"stored as {_code}", FINE)
    def _(folder: Path, code: str = _code) -> Path:
        return write_nifti(folder / "scan.nii.gz", orient(base(), code))


@case("B22b", "oblique by 12 degrees", FINE_OTHER)
def _(folder: Path) -> Path:
    angle = np.deg2rad(12)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return write_nifti(folder / "scan.nii.gz", Volume(base().hu, Geometry(SHAPE, turn @ base().affine)))


@case("B24", "one slice", refused("NotVolumeError"))
def _(folder: Path) -> Path:
    return _image(folder, _i2()[:, :, 5:6])


@case("B26", "slices of 12 mm", warned("coarse_spacing", truth=False))
def _(folder: Path) -> Path:
    return write_nifti(folder / "scan.nii.gz", phantom_volume((32, 28, 12), (5.0, 5.2, 12.0), orientation="LPS"))


@case("B26b", "voxels of a micrometre", refused("GeometryError"))
def _(folder: Path) -> Path:
    return write_nifti(folder / "scan.nii.gz", Volume(base().hu, Geometry(SHAPE, base().affine * 1e-3)))


@case("B27", "nothing but air", refused("NotHUError"))
def _(folder: Path) -> Path:
    return nifti_of(folder, np.full(SHAPE, -1000.0))


@case("B28", "a name in the free text", FINE)
def _(folder: Path) -> Path:
    return put(folder, patched(descrip=b"DOE^PLANTED"))


@case("B28b", "NIfTI-2", FINE)
def _(folder: Path) -> Path:
    return write_nifti(folder / "scan.nii.gz", base(), version=2)


@case("B28c", "pair of .hdr and .img", refused("UnknownFormatError"))
def _(folder: Path) -> Path:
    nib.save(nib.Nifti1Pair(_i2(), base().affine), folder / "scan.hdr")
    return folder / "scan.hdr"


@case("B28d", "Analyze", refused("UnknownFormatError"))
def _(folder: Path) -> Path:
    nib.save(nib.AnalyzeImage(_i2(), base().affine), folder / "scan.hdr")
    return folder / "scan.hdr"


@case("B28e", "header extension before the voxels", FINE)
def _(folder: Path) -> Path:
    image = nib.Nifti1Image(_i2(), base().affine)
    image.header.set_xyzt_units("mm")
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"DOE^PLANTED " * 40))
    nib.save(image, folder / "scan.nii.gz")
    return folder / "scan.nii.gz"


@case("B30", "data type that does not exist", refused("CorruptFileError"))
def _(folder: Path) -> Path:
    return put(folder, patched(datatype=struct.pack("<h", 77)))


@case("B31", "bits that contradict the data type", refused("CorruptFileError"))
def _(folder: Path) -> Path:
    return put(folder, patched(bitpix=struct.pack("<h", 32)))


def _itk(folder: Path, name: str, compress: bool) -> Path:
    image = sitk.GetImageFromArray(np.ascontiguousarray(base().hu.T).astype(np.int16))
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ base().affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    sitk.WriteImage(image, str(folder / name), compress)
    return folder / name


for _suffix in ("nrrd", "mha"):
    for _packed in (False, True):

        @case("B32", f".{_suffix}{' packed' if _packed else ''}", FINE)
        def _(folder: Path, suffix: str = _suffix, packed: bool = _packed) -> Path:
            return _itk(folder, f"scan.{suffix}", packed)

        @case("B33", f".{_suffix}{' packed' if _packed else ''}, cut", refused("TruncatedFileError"))
        def _(folder: Path, suffix: str = _suffix, packed: bool = _packed) -> Path:
            path = _itk(folder, f"scan.{suffix}", packed)
            path.write_bytes(path.read_bytes()[:-500])
            return path

    @case("B34", f".{_suffix} packed, damaged", refused("CorruptFileError", "TruncatedFileError"))
    def _(folder: Path, suffix: str = _suffix) -> Path:
        path = _itk(folder, f"scan.{suffix}", True)
        content = bytearray(path.read_bytes())
        content[-900] ^= 0x55
        path.write_bytes(content)
        return path

    @case("B35", f".{_suffix} of 30000³", refused("TooLargeError"))
    def _(folder: Path, suffix: str = _suffix) -> Path:
        path = _itk(folder, f"scan.{suffix}", False)
        path.write_bytes(path.read_bytes().replace(b"32 28 22", b"30000 30000 30000"))
        return path


@case("B36", "header whose voxels lie in another folder", refused("UnknownFormatError"))
def _(folder: Path) -> Path:
    path = _itk(folder, "scan.mhd", False)
    path.write_bytes(path.read_bytes().replace(b"scan.raw", b"../scan.raw"))
    return path
