"""D: DICOM series of odd or damaged values, pixels and syntaxes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from medseg.imaging.volume import Geometry, Volume
from tests.dicom_edits import Edit, only, tags
from tests.phantoms import write_enhanced_ct
from tests.poison.base import FINE, FINE_OTHER, base, case, edit, refused, series, simple, slices, warned


def _own_rescale(dataset: Dataset, k: int) -> None:
    slope = 1 + k / 20
    hu = base().hu[:, :, k].T.astype(np.float64)
    dataset.RescaleSlope = slope
    dataset.PixelData = np.round((hu + 1024) / slope).astype("<i2").tobytes()


simple("D15", "a rescale of its own for each slice", FINE_OTHER, _own_rescale)
simple(
    "D15b", "one slice with another intercept", warned("rescale_leap", truth=False), only(4, tags(RescaleIntercept=0))
)
simple("D16", "no rescale", refused("NotHUError"), tags(RescaleSlope=None, RescaleIntercept=None))
simple("D16b", "rescale slope 0", refused("NotHUError"), tags(RescaleSlope=0))
simple("D16c", "rescale to density", refused("NotHUError"), tags(RescaleType="MGML"))


@case("D17", "first slice all tissue", FINE_OTHER)
def _(folder: Path) -> Path:
    hu = base().hu.copy()
    hu[:, :, 0] = np.random.default_rng(1).integers(30, 70, hu.shape[:2])
    return series(folder, Volume(hu, base().geometry))


def _unsigned(dataset: Dataset, k: int) -> None:
    dataset.PixelRepresentation, dataset.RescaleIntercept = 0, 0
    dataset.PixelData = base().hu[:, :, k].T.astype("<i2").tobytes()


simple("D18", "signed values marked unsigned", refused("NotHUError"), _unsigned)


def _twelve(dataset: Dataset, k: int) -> None:
    stored = np.clip(base().hu[:, :, k].T, -1024, 1023).astype(np.int16)
    dataset.BitsStored, dataset.HighBit, dataset.RescaleIntercept = 12, 11, 0
    dataset.PixelData = ((stored.astype(np.uint16) & 0x0FFF) | 0xA000).astype("<u2").tobytes()


simple("D19", "12 bits of 16, other data above them", FINE, _twelve)


def _compress(uid: str) -> Edit:
    # OpenJPEG makes no stream of pictures smaller than 32 pixels, so these are repeated to twice their size.
    def fault(dataset: Dataset, k: int) -> None:
        dataset.compress(uid)

    return fault


def _larger() -> Volume:
    hu = np.repeat(np.repeat(base().hu, 2, axis=0), 2, axis=1)
    affine = base().affine.copy()
    affine[:3, :2] /= 2
    return Volume(hu, Geometry(hu.shape, affine))


case("D24", "JPEG 2000 with loss", warned("lossy", truth=False))(
    lambda folder: series(folder, _larger(), fault=lambda d, k: d.compress(JPEG2000, j2k_cr=[4]))
)

for _name, _uid in (("JPEG 2000", JPEG2000Lossless), ("JPEG-LS", JPEGLSLossless), ("RLE", RLELossless)):
    case("D20" if _uid != RLELossless else "D21", f"{_name}, lossless", FINE_OTHER)(
        lambda folder, uid=_uid: series(folder, _larger(), fault=_compress(uid))
    )


def _dcmtk(folder: Path, *options: str) -> Path:
    made = series(folder)
    for path in slices(made):
        subprocess.run(["dcmcjpeg", *options, path, path], check=True, capture_output=True)
    return made


if shutil.which("dcmcjpeg"):
    case("D20b", "JPEG lossless SV1", FINE)(lambda folder: _dcmtk(folder, "+e1"))
    case("D20c", "JPEG lossless, process 14", FINE)(lambda folder: _dcmtk(folder, "+el"))
    case("D24c", "lossy JPEG of 12 bits", refused("UnknownFormatError"))(lambda folder: _lossy(folder))


def _lossy(folder: Path) -> Path:
    made = series(folder, fault=_unsigned_twelve)
    for path in slices(made):
        subprocess.run(["dcmcjpeg", "+ee", path, path], check=True, capture_output=True)
    return made


def _unsigned_twelve(dataset: Dataset, k: int) -> None:
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 0
    dataset.PixelData = np.clip(base().hu[:, :, k].T + 1024, 0, 4095).astype("<u2").tobytes()


@case("D20d", "JPEG-LS stream cut off", refused("TruncatedFileError", "CorruptFileError"))
def _(folder: Path) -> Path:
    made = series(folder, _larger(), fault=_compress(JPEGLSLossless))
    frame = next(iter(pydicom.encaps.generate_frames(pydicom.dcmread(slices(made)[6]).PixelData, number_of_frames=1)))
    cut = frame[: len(frame) // 2]
    edit(slices(made)[6], lambda d: setattr(d, "PixelData", pydicom.encaps.encapsulate([cut + b"\0" * (len(cut) % 2)])))
    return made


@case("D20e", "syntax that is no picture's", refused("UnknownFormatError"))
def _(folder: Path) -> Path:
    def video(dataset: Dataset, k: int) -> None:
        dataset.compress(RLELossless)
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"

    return series(folder, fault=video)


simple("D22", "deflated", FINE,
        lambda d, k: setattr(d.file_meta, "TransferSyntaxUID", DeflatedExplicitVRLittleEndian))  # fmt: skip


def _rewrite(folder: Path, little: bool, implicit: bool) -> Path:
    made = series(folder)
    for path in slices(made):
        dataset = pydicom.dcmread(path)
        plain = Dataset(dataset)
        plain.file_meta = dataset.file_meta
        if not little:
            plain.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
        plain.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRBigEndian
        pydicom.dcmwrite(path, plain, implicit_vr=implicit, little_endian=little, enforce_file_format=True)
    return made


case("D23", "big endian", FINE)(lambda folder: _rewrite(folder, little=False, implicit=False))
case("D23b", "implicit VR", FINE)(lambda folder: _rewrite(folder, little=True, implicit=True))
simple("D24b", "compressed with loss before", warned("lossy"), tags(LossyImageCompression="01"))


@case("D25", "deflated bomb", refused("TooLargeError"))
def _(folder: Path) -> Path:
    def bomb(dataset: Dataset, k: int) -> None:
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        dataset.add_new(0x00091001, "OB", bytes(70 << 20) if k == 3 else b"")

    return series(folder, fault=bomb)


@case("D26", "enhanced multi-frame, frames out of order", FINE)
def _(folder: Path) -> Path:
    return write_enhanced_ct(folder / "enhanced.dcm", base(), order=[(k * 7) % 22 for k in range(22)])


@case("D26b", "enhanced, a frame missing", refused("MissingSlicesError"))
def _(folder: Path) -> Path:
    return write_enhanced_ct(folder / "enhanced.dcm", base(), order=[k for k in range(22) if k != 9])


@case("D26c", "multi-frame without places", refused("NotVolumeError", "TruncatedFileError", "GeometryError"))
def _(folder: Path) -> Path:
    made = series(folder, skip=range(1, 22))
    edit(slices(made)[0], lambda d: (setattr(d, "NumberOfFrames", 22), setattr(d, "PixelData", d.PixelData * 22)))
    return made


simple("D27", "one slice without pixels", refused("TruncatedFileError", "CorruptFileError"),
        only(4, tags(PixelData=None)))  # fmt: skip
simple("D28", "one slice with short pixels", refused("TruncatedFileError"),
        only(4, lambda d, k: setattr(d, "PixelData", d.PixelData[:1000])))  # fmt: skip


@case("D28b", "one slice cut in half", refused("TruncatedFileError"))
def _(folder: Path) -> Path:
    made = series(folder)
    slices(made)[4].write_bytes(slices(made)[4].read_bytes()[: slices(made)[4].stat().st_size // 2])
    return made


@case("D28c", "one slice empty", refused("TruncatedFileError"))
def _(folder: Path) -> Path:
    made = series(folder)
    slices(made)[4].write_bytes(b"")
    return made


@case("D28d", "one slice replaced by text", refused("CorruptFileError"))
def _(folder: Path) -> Path:
    made = series(folder)
    slices(made)[4].write_bytes(b"404 not found " * 100)
    return made


@case("D28e", "last slice without extension damaged", refused("CorruptFileError", "TruncatedFileError"))
def _(folder: Path) -> Path:
    made = series(folder, names=lambda k: f"IM{k:04d}")
    (made / "IM0021").write_bytes((made / "IM0021").read_bytes()[:100])
    return made


simple("D29", "pixels longer than the picture", warned("trailing_bytes"),
        lambda d, k: setattr(d, "PixelData", d.PixelData + bytes(64)))  # fmt: skip
simple("D44", "inverted (MONOCHROME1)", refused("NotHUError"), tags(PhotometricInterpretation="MONOCHROME1"))
simple("D45", "colour", refused("NotVolumeError"), tags(PhotometricInterpretation="RGB", SamplesPerPixel=3))
