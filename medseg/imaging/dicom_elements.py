"""Our own reading of a DICOM file: every element from the first byte to the last, and not one byte unexplained.

It shares no code with pydicom. Where the two read a file differently, or where this one meets an end that is no
end, the file is damaged: see `dicom_witness`. Values stay bytes until somebody asks for them.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

Value = memoryview | tuple["Elements", ...] | tuple[memoryview, ...]
Elements = Mapping[int, "Value"]

PIXEL_DATA = 0x7FE00010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_LONG = frozenset({b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV"})
_SHORT = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS"}
    | {b"ST", b"TM", b"UI", b"UL", b"US"}
)
_IMPLICIT, _DEFLATED, _BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
# The functional groups of multi-frame objects and what lies in them; sequences elsewhere are stepped over.
SHARED_GROUPS, FRAME_GROUPS = 0x52009229, 0x52009230
PLACE_GROUP, DIRECTION_GROUP, MEASURES_GROUP, RESCALE_GROUP = 0x00209113, 0x00209116, 0x00289110, 0x00289145
_OPENED = frozenset({SHARED_GROUPS, FRAME_GROUPS, PLACE_GROUP, DIRECTION_GROUP, MEASURES_GROUP, RESCALE_GROUP})
MAX_DEPTH = 60


class BrokenStructureError(ValueError):
    """The bytes do not follow the structure; the text says where."""


class CutShortError(BrokenStructureError):
    """The bytes end within an element."""


@dataclass(frozen=True)
class Reading:
    """What a file holds.

    Attributes:
        elements: tag -> value: bytes, the items of an opened sequence, or the fragments of encapsulated pixels.
        syntax: transfer syntax UID; that of the bytes where the file names none.
        little: byte order of numbers.
        doubled: tags that occur twice with different values.
        rest: bytes of zeros behind the last element.
    """

    elements: Elements
    syntax: str
    little: bool = True
    doubled: tuple[int, ...] = ()
    rest: int = 0

    def text(self, tag: int) -> str:
        """A value as text; '' where there is none."""
        value = self.elements.get(tag)
        return bytes(value).decode("latin-1").strip(" \0") if isinstance(value, memoryview) else ""

    def whole(self, tag: int) -> int | None:
        """An unsigned 16-bit value (US)."""
        value = self.elements.get(tag)
        if not isinstance(value, memoryview) or len(value) != 2:
            return None
        return int.from_bytes(value, "little" if self.little else "big")


def decimals(elements: Elements, tag: int, count: int) -> tuple[float, ...] | None:
    """`count` finite numbers written as text (DS, IS); None where there is anything else."""
    value = elements.get(tag)
    if not isinstance(value, memoryview):
        return None
    try:
        found = tuple(float(part.strip(b" \0").decode("ascii")) for part in bytes(value).split(b"\\"))
    except ValueError:
        return None
    return found if len(found) == count and all(map(math.isfinite, found)) else None


def read_elements(data: bytes, *, max_inflated: int) -> Reading:
    """Read all elements of a file of part 10, or of a data set without its preamble.

    Args:
        data: the whole file.
        max_inflated: what a deflated data set may become.

    Raises:
        CutShortError: the file ends within an element.
        BrokenStructureError: bytes that are no element.
    """
    view = memoryview(data)
    start, syntax = _meta(view)
    if syntax == _DEFLATED:
        view, start = memoryview(_inflate(data[start:], max_inflated)), 0
    little = syntax != _BIG
    explicit = syntax != _IMPLICIT
    if not syntax:
        explicit, little = _guess(view[start : start + 8])
        syntax = ("1.2.840.10008.1.2.1" if little else _BIG) if explicit else _IMPLICIT
    walk = _Walk(view, explicit, little)
    elements, end = walk.data_set(start, len(view), 0)
    return Reading(elements, syntax, little, tuple(walk.doubled), len(view) - end)


def _meta(view: memoryview) -> tuple[int, str]:
    """Where the data set begins, and the transfer syntax that the file meta information names."""
    start = 132 if bytes(view[128:132]) == b"DICM" else 0
    if bytes(view[start : start + 2]) != b"\x02\0":
        return start, ""
    walk = _Walk(view, explicit=True, little=True, group=2)
    elements, end = walk.data_set(start, len(view), 0)
    value = elements.get(0x00020010, memoryview(b""))
    return end, bytes(value).decode("latin-1").strip(" \0") if isinstance(value, memoryview) else ""


def _inflate(data: bytes, most: int) -> bytes:
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        out = engine.decompress(data, most)
    except zlib.error as error:
        raise BrokenStructureError("the deflated data are damaged") from error
    if not engine.eof:
        raise CutShortError("the deflated data do not end")
    return out


def _guess(head: memoryview) -> tuple[bool, bool]:
    """Explicit VR? little endian? Group 8 comes first, and a VR is two known letters."""
    little = bytes(head[:2]) != b"\0\x08"
    return bytes(head[4:6]) in _LONG | _SHORT, little


@dataclass
class _Walk:
    """One pass over a data set; `group` ends it where another group begins."""

    view: memoryview
    explicit: bool
    little: bool
    group: int | None = None
    doubled: list[int] = field(default_factory=list)

    def number(self, at: int, size: int) -> int:
        part = self.view[at : at + size]
        if len(part) < size:
            raise CutShortError(f"ends within the element at byte {at}")
        return int.from_bytes(part, "little" if self.little else "big")

    def tag(self, at: int) -> int:
        return self.number(at, 2) << 16 | self.number(at + 2, 2)

    def data_set(self, at: int, end: int, depth: int) -> tuple[Elements, int]:
        """The elements from `at` to `end`, or to the end of the item or group; and where they end."""
        if depth > MAX_DEPTH:
            raise BrokenStructureError(f"nests sequences more than {MAX_DEPTH} deep")
        found: dict[int, Value] = {}
        while at < end:
            if self._is_rest(at, end):
                break
            tag = self.tag(at)
            if tag == _ITEM_END or (self.group is not None and tag >> 16 != self.group):
                break
            value, at = self.element(tag, at, end, depth)
            if tag in found and depth == 0 and found[tag] != value:
                self.doubled.append(tag)
            found[tag] = value
        return found, at

    def _is_rest(self, at: int, end: int) -> bool:
        """Zeros to the end, as some systems pad their files; no element has the tag (0000,0000) here."""
        return bytes(self.view[at : at + 4]).strip(b"\0") == b"" and not any(self.view[at:end])

    def element(self, tag: int, at: int, end: int, depth: int) -> tuple[Value, int]:
        vr, length, start = self.head(tag, at)
        if length != _UNDEFINED:
            stop = start + length
            if stop > end:
                left = max(0, end - start)
                raise CutShortError(f"element {tag_name(tag)} needs {length:,} bytes, {left:,} are there")
            if tag in _OPENED:
                return self.sequence(start, stop, vr, depth)[0], stop
            return self.view[start:stop], stop
        if tag == PIXEL_DATA:
            return self.fragments(start, end)
        return self.sequence(start, end, vr, depth)

    def head(self, tag: int, at: int) -> tuple[bytes, int, int]:
        """VR, length and the first byte of the value."""
        vr = bytes(self.view[at + 4 : at + 6])
        if not self.explicit or tag in (_ITEM, _SEQUENCE_END) or (vr not in _LONG and vr not in _SHORT):
            # Some writers put implicit elements among explicit ones; letters that are no VR are part of a length.
            return b"", self.number(at + 4, 4), at + 8
        if vr in _LONG:
            return vr, self.number(at + 8, 4), at + 12
        return vr, self.number(at + 6, 2), at + 8

    def sequence(self, at: int, end: int, vr: bytes, depth: int) -> tuple[tuple[Elements, ...], int]:
        """Items up to `end`, or to the delimiter; UN holds its items in implicit little endian."""
        inner = _Walk(self.view, explicit=False, little=True) if vr == b"UN" else self
        items: list[Elements] = []
        while at < end:
            tag, length = inner.tag(at), inner.number(at + 4, 4)
            at += 8
            if tag == _SEQUENCE_END:
                return tuple(items), at
            if tag != _ITEM:
                raise BrokenStructureError(f"a sequence is broken at byte {at - 8}")
            stop = end if length == _UNDEFINED else at + length
            if stop > end:
                raise CutShortError(f"ends within the sequence item at byte {at}")
            item, at = inner.data_set(at, stop, depth + 1)
            if length == _UNDEFINED:
                if inner.tag(at) != _ITEM_END:
                    raise CutShortError(f"a sequence item does not end before byte {at}")
                at += 8
            items.append(item)
        return tuple(items), at

    def fragments(self, at: int, end: int) -> tuple[tuple[memoryview, ...], int]:
        """The fragments of encapsulated pixels, the offset table first."""
        found: list[memoryview] = []
        while True:
            tag, length = self.tag(at), self.number(at + 4, 4)
            at += 8
            if tag == _SEQUENCE_END:
                return tuple(found), at
            if tag != _ITEM:
                raise BrokenStructureError(f"the compressed pixels are broken at byte {at - 8}")
            if at + length > end:
                raise CutShortError(f"a fragment of the pixels needs {length:,} bytes, {end - at:,} are there")
            found.append(self.view[at : at + length])
            at += length


def tag_name(tag: int) -> str:
    """A tag as DICOM writes it: (0028,0010)."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
