"""The second reading: what pydicom and our own reader understand differently is refused."""

from __future__ import annotations

import random
import struct
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from medseg import errors
from medseg.imaging.dicom import read_dicom_folder
from medseg.imaging.dicom_elements import (
    BrokenStructureError,
    CutShortError,
    decimals,
    read_elements,
)
from medseg.imaging.dicom_headers import DicomFile, SliceHeader, read_headers
from medseg.imaging.dicom_witness import Witness
from tests.phantoms import phantom_volume, write_dicom_series

SMALL = phantom_volume((24, 20, 18), (7.0, 7.0, 7.5), orientation="LPS")
LIMIT = 1 << 26


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("position", (1.0, 2.0, 3.02), "its place"),
        ("orientation", (1.0, 0.0, 0.0, 0.0, 0.999, 0.001), "its direction"),
        ("spacing", (7.01, 7.0), "its pixel spacing"),
        ("rescale", (1.001, -1024.0, "HU"), "its rescale slope"),
        ("rescale", (1.0, -1023.0, "HU"), "its rescale intercept"),
        ("rows", 21, "its image size"),
        ("spacing", None, "its pixel spacing"),
    ],
)
def test_a_difference_between_the_readers_is_refused(
    field: str, value: object, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_dicom_series(tmp_path / "case", SMALL)
    confirm = Witness.confirm

    def lie(witness: Witness, header: SliceHeader) -> None:
        header = SliceHeader(**{**header.__dict__, field: value}) if header.file.label == "IM0005.dcm" else header
        confirm(witness, header)

    monkeypatch.setattr(Witness, "confirm", lie)
    with pytest.raises(errors.CorruptFileError, match=rf"two readers understand IM0005\.dcm differently: {words}"):
        read_dicom_folder(folder)


OFF: dict[str, tuple[str, tuple[float, ...], float, float]] = {
    "place": ("position", (0, 0, 1), 0.008, 0.012),
    "direction": ("orientation", (0, 0, 1, 0, 0, 0), 3e-5, 3.5e-5),
    "pixel spacing": ("spacing", (0, 1), 0.00045, 0.00055),
    "rescale slope": ("rescale", (1, 0), 0.9e-9, 1.2e-9),
    "rescale intercept": ("rescale", (0, 1), 0.9e-6, 1.2e-6),
}
"""Which number of a header is off, and how far it may and may not be."""


@pytest.mark.parametrize("what", OFF)
@pytest.mark.parametrize("far", [False, True])
def test_the_readers_agree_within_a_hundredth_of_a_millimetre(what: str, far: bool, tmp_path: Path) -> None:
    """At the far side of the picture, which is 20 rows and 24 columns of 7 mm."""
    path = write_dicom_series(tmp_path / "case", SMALL, skip=range(1, 18)) / "IM0000.dcm"
    file = DicomFile(path, path.name)
    (header,) = read_headers(path, file)
    witness = Witness.of(path, file, path.read_bytes())
    name, where, inside, outside = OFF[what]
    found = getattr(header, name)
    moved = tuple(v + w * (outside if far else inside) for v, w in zip(found, where, strict=False))
    changed = replace(header, **{name: (*moved, *found[len(where) :])})
    if far:
        with pytest.raises(errors.CorruptFileError, match=what):
            witness.confirm(changed)
    else:
        witness.confirm(changed)


@pytest.mark.filterwarnings("ignore")
def test_pydicom_s_own_files_are_understood() -> None:
    """Files of many vendors, syntaxes and faults that come with pydicom: only the truncated ones are cut short."""
    home = Path(pydicom.data.__file__).parent / "test_files"
    short, seen = [], 0
    for path in sorted(home.rglob("*")):
        if not path.is_file() or path.read_bytes()[128:132] != b"DICM":
            continue
        seen += 1
        try:
            reading = read_elements(path.read_bytes(), max_inflated=LIMIT)
        except CutShortError:
            short.append(path.name)
            continue
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        if "Rows" in dataset:
            assert reading.whole(0x00280010) == dataset.Rows, path.name
        if "PixelSpacing" in dataset and dataset.PixelSpacing:
            assert decimals(reading.elements, 0x00280030, 2) == tuple(map(float, dataset.PixelSpacing)), path.name
    assert seen > 100
    assert short == ["MR_truncated.dcm", "rtplan_truncated.dcm"]


def test_every_cut_is_seen(tmp_path: Path) -> None:
    whole = (write_dicom_series(tmp_path / "case", SMALL, skip=range(1, 18)) / "IM0000.dcm").read_bytes()
    pixels = len(whole) - 24 * 20 * 2
    for size in [*range(140, pixels, 37), pixels + 1, len(whole) - 1]:
        try:
            reading = read_elements(whole[:size], max_inflated=LIMIT)
        except BrokenStructureError:
            continue
        assert 0x7FE00010 not in reading.elements  # cut between two elements: the picture is missing, and missed


def _explicit(tag: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr + struct.pack("<H", len(value)) + value


def _sequence(*items: bytes) -> bytes:
    begin, end = b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"\xfe\xff\x0d\xe0\0\0\0\0"
    return b"".join(begin + item + end for item in items) + b"\xfe\xff\xdd\xe0\0\0\0\0"


def test_structures() -> None:
    modality = _explicit(0x00080060, b"CS", b"CT")
    nested = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + _sequence(modality, modality)
    read = read_elements(modality + nested + bytes(600), max_inflated=LIMIT)
    assert read.text(0x00080060) == "CT"
    assert len(read.elements[0x00081140]) == 2
    assert (read.rest, read.syntax, read.doubled) == (600, "1.2.840.10008.1.2.1", ())
    double = read_elements(modality + _explicit(0x00080060, b"CS", b"MR"), max_inflated=LIMIT)
    assert double.doubled == (0x00080060,)
    assert read_elements(modality * 2, max_inflated=LIMIT).doubled == ()


@pytest.mark.parametrize(
    "content",
    [
        b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\x08\x00\x60\x00CS\x02\x00CT",
        b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff",
        b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + b"\x08\x00\x00\x00\0\0\0\0",
        b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\x00\x00\x00",
        b"\x08\x00\x60\x00CS\xff\x00CT",
        b"\x08\x00\x60",
    ],
)
def test_broken_structures(content: bytes) -> None:
    with pytest.raises(BrokenStructureError):
        read_elements(content, max_inflated=LIMIT)


def test_bottomless_nesting_is_refused() -> None:
    content = b"".join(b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" for _ in range(5000))
    with pytest.raises(BrokenStructureError, match="deep"):
        read_elements(content, max_inflated=LIMIT)


def test_noise_never_does_more_than_fail() -> None:
    rng = random.Random(0)
    for _ in range(400):
        try:
            read_elements(rng.randbytes(300), max_inflated=LIMIT)
        except BrokenStructureError:
            continue


DECISIVE = {
    "SOPClassUID": (0x08, 0x16), "Modality": (0x08, 0x60), "SeriesInstanceUID": (0x20, 0x0E),
    "ImagePositionPatient": (0x20, 0x32), "ImageOrientationPatient": (0x20, 0x37), "SamplesPerPixel": (0x28, 0x02),
    "PhotometricInterpretation": (0x28, 0x04), "Rows": (0x28, 0x10), "Columns": (0x28, 0x11),
    "PixelSpacing": (0x28, 0x30), "BitsAllocated": (0x28, 0x100), "BitsStored": (0x28, 0x101), "HighBit": (0x28, 0x102),
    "PixelRepresentation": (0x28, 0x103), "RescaleIntercept": (0x28, 0x1052), "RescaleSlope": (0x28, 0x1053),
}  # fmt: skip


@pytest.mark.parametrize("keyword", DECISIVE)
def test_what_decides_said_twice_is_refused(keyword: str, tmp_path: Path) -> None:
    """The element with one bit changed, and then the element: readers take the first or the last of them."""
    folder = write_dicom_series(tmp_path / "case", SMALL)
    path = folder / "IM0005.dcm"
    content = path.read_bytes()
    at = content.find(struct.pack("<HH", *DECISIVE[keyword]), 132 + 150)
    element = bytearray(content[at : at + 8 + int.from_bytes(content[at + 6 : at + 8], "little")])
    element[8] ^= 1
    path.write_bytes(content[:at] + element + content[at:])
    with pytest.raises(errors.InputError, match=r"case: .*IM0005\.dcm"):
        read_dicom_folder(folder)
