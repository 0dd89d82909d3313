"""Our own reading of DICOM's structure: in every transfer syntax, and with every way to end a sequence."""

from __future__ import annotations

import io
import struct
from itertools import product

import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset

from medseg.imaging.dicom_elements import (
    FRAME_GROUPS,
    PIXEL_DATA,
    PLACE_GROUP,
    SHARED_GROUPS,
    BrokenStructureError,
    CutShortError,
    decimals,
    read_elements,
)

LIMIT = 1 << 20
PLACE, ROWS, PATIENT, SPACING = 0x00200032, 0x00280010, 0x00100020, 0x00280030
IMPLICIT, EXPLICIT, DEFLATED, BIG = ("1.2.840.10008.1.2" + tail for tail in ("", ".1", ".1.99", ".2"))


def _dataset(endless: bool, endless_items: bool) -> Dataset:
    """Groups of three frames, a sequence that nothing depends on, and pixels of 3 x 2."""
    data = Dataset()
    data.SOPClassUID, data.Modality, data.PatientID = "1.2.840.10008.5.1.4.1.1.2", "CT", "P1"
    data.Rows, data.Columns, data.BitsAllocated, data.PixelRepresentation = 2, 3, 16, 0
    data.PixelSpacing = ["0.5", "0.25"]
    data.ReferencedImageSequence = [Dataset(), Dataset()]
    data.ReferencedImageSequence[0].PatientID = "other"
    data.SharedFunctionalGroupsSequence = [Dataset()]
    data.PerFrameFunctionalGroupsSequence = [_frame(z) for z in (1.5, 2.5, -3.5)]
    data.PixelData = bytes(range(12))
    data["PixelData"].VR = "OW"
    for element in data.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = endless
            for item in element.value:
                item.is_undefined_length_sequence_item = endless_items
    return data


def _frame(z: float) -> Dataset:
    frame, place = Dataset(), Dataset()
    place.ImagePositionPatient = ["1", "-2", str(z)]
    frame.PlanePositionSequence = [place]
    return frame


def _bytes(data: Dataset, syntax: str) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = syntax
    out, file = io.BytesIO(), FileDataset("", data, file_meta=meta, preamble=bytes(128))
    ways = {"implicit_vr": syntax == IMPLICIT, "little_endian": syntax != BIG}
    pydicom.dcmwrite(out, file, enforce_file_format=True, **ways)
    return out.getvalue()


WAYS = list(product([IMPLICIT, EXPLICIT, DEFLATED, BIG], [False, True], [False, True]))


@pytest.mark.parametrize(("syntax", "endless", "endless_items"), WAYS)
def test_every_element_is_found(syntax: str, endless: bool, endless_items: bool) -> None:
    read = read_elements(_bytes(_dataset(endless, endless_items), syntax), max_inflated=LIMIT)
    assert (read.syntax, read.little, read.doubled) == (syntax, syntax != BIG, ())
    assert (read.text(PATIENT), read.whole(ROWS)) == ("P1", 2)
    assert decimals(read.elements, SPACING, 2) == (0.5, 0.25)
    places = [decimals(frame[PLACE_GROUP][0], PLACE, 3) for frame in read.elements[FRAME_GROUPS]]
    assert places == [(1.0, -2.0, 1.5), (1.0, -2.0, 2.5), (1.0, -2.0, -3.5)]
    assert len(read.elements[SHARED_GROUPS]) == 1
    assert bytes(read.elements[PIXEL_DATA]) == bytes(range(12))


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG])
def test_without_file_meta_information_the_bytes_tell(syntax: str) -> None:
    content = _bytes(_dataset(endless=True, endless_items=False), syntax)
    start = 144 + int.from_bytes(content[140:144], "little")
    read = read_elements(content[start:], max_inflated=LIMIT)
    assert (read.syntax, read.little) == (syntax, syntax != BIG)
    assert read.whole(ROWS) == 2


@pytest.mark.parametrize(("syntax", "endless", "endless_items"), [way for way in WAYS if way[0] != DEFLATED])
def test_no_byte_less_is_the_same(syntax: str, endless: bool, endless_items: bool) -> None:
    content = _bytes(_dataset(endless, endless_items), syntax)
    for size in range(132, len(content)):
        try:
            read = read_elements(content[:size], max_inflated=LIMIT)
        except BrokenStructureError:
            continue
        assert PIXEL_DATA not in read.elements, size  # cut between two elements


def test_a_deflated_data_set_that_does_not_end() -> None:
    content = _bytes(_dataset(endless=False, endless_items=False), DEFLATED)
    for size in (len(content) - 3, len(content) - 20):
        with pytest.raises(BrokenStructureError):
            read_elements(content[:size], max_inflated=LIMIT)
    with pytest.raises(CutShortError):
        read_elements(content, max_inflated=100)


@pytest.mark.parametrize("zeros", [1, 3, 4, 8, 600])
def test_zeros_behind_the_last_element(zeros: int) -> None:
    content = _bytes(_dataset(endless=False, endless_items=False), EXPLICIT)
    read = read_elements(content + bytes(zeros), max_inflated=LIMIT)
    assert read.rest == zeros
    assert bytes(read.elements[PIXEL_DATA]) == bytes(range(12))
    with pytest.raises(BrokenStructureError):
        read_elements(content + bytes(zeros) + b"\1", max_inflated=LIMIT)


def test_only_the_data_set_itself_may_contradict_itself() -> None:
    """An element twice with two values: in the data set it is noted, items of sequences do not decide."""
    one, other = (struct.pack("<HH2sH", 0x10, 0x20, b"LO", 2) + value for value in (b"P1", b"P2"))
    item = b"\xfe\xff\x00\xe0" + struct.pack("<I", 20) + one + other
    head = b"\x08\0\x40\x11SQ\0\0"
    nested = head + struct.pack("<I", len(item)) + item
    opened = struct.pack("<HH2s2sI", 0x5200, 0x9229, b"SQ", b"\0\0", len(item)) + item
    first = struct.pack("<HH2sH", 0x08, 0x60, b"CS", 2) + b"CT"
    assert read_elements(first + nested + one + opened, max_inflated=LIMIT).doubled == ()
    assert read_elements(first + one + other, max_inflated=LIMIT).doubled == (PATIENT,)
    endless = [head + b"\xff\xff\xff\xff" + item[:-1] + end + END for end in (b"1", b"2")]
    assert read_elements(first + endless[0] * 2, max_inflated=LIMIT).doubled == ()
    assert read_elements(first + endless[0] + endless[1], max_inflated=LIMIT).doubled == (0x00081140,)


FRAGMENT = b"\xfe\xff\x00\xe0"
END = b"\xfe\xff\xdd\xe0\0\0\0\0"
PIXELS = b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff"


def _compressed(*parts: bytes) -> bytes:
    items = b"".join(FRAGMENT + struct.pack("<I", len(part)) + part for part in parts)
    return struct.pack("<HH2sH", 0x08, 0x60, b"CS", 2) + b"CT" + PIXELS + items + END


def test_fragments_of_compressed_pixels() -> None:
    content = _compressed(b"", b"abcd", b"ef")
    read = read_elements(content, max_inflated=LIMIT)
    assert [bytes(part) for part in read.elements[PIXEL_DATA]] == [b"", b"abcd", b"ef"]  # type: ignore[union-attr]
    for size in range(len(content) - 42 + 12, len(content)):
        with pytest.raises(BrokenStructureError):
            read_elements(content[:size], max_inflated=LIMIT)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"1\\2 ", (1.0, 2.0)),
        (b" 1.5\\-2e1\0", (1.5, -20.0)),
        (b"1", None),
        (b"1\\2\\3", None),
        (b"1\\x", None),
        (b"1\\inf", None),
        (b"nan\\1", None),
        (b"", None),
    ],
)
def test_numbers_written_as_text(text: bytes, found: tuple[float, ...] | None) -> None:
    assert decimals({SPACING: memoryview(text)}, SPACING, 2) == found
    assert decimals({}, SPACING, 2) is None
    assert decimals({SPACING: ()}, SPACING, 2) is None


@pytest.mark.parametrize(("depth", "fits"), [(60, True), (61, False)])
def test_sequences_nest_sixty_deep(depth: int, fits: bool) -> None:
    first = struct.pack("<HH2sH", 0x08, 0x60, b"CS", 2) + b"CT"
    begin, item = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff", b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    content = first + (begin + item) * depth + (b"\xfe\xff\x0d\xe0\0\0\0\0" + END) * depth
    if fits:
        assert len(read_elements(content, max_inflated=LIMIT).elements) == 2
    else:
        with pytest.raises(BrokenStructureError, match="60 deep"):
            read_elements(content, max_inflated=LIMIT)


def test_pydicom_finds_the_same() -> None:
    content = _bytes(_dataset(endless=True, endless_items=True), EXPLICIT)
    theirs = pydicom.dcmread(io.BytesIO(content))
    ours = read_elements(content, max_inflated=LIMIT).elements
    assert sorted(tag for tag in ours if tag >> 16 != 2) == sorted(int(element.tag) for element in theirs)
