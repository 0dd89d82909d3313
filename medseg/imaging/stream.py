"""Bytes of a scan, plain or gzip, read to the very end and hashed as they lie on the disk.

Readers that stop after the last voxel never see a wrong checksum, and some fill what is
missing with zeros, which are water in Hounsfield units. This one does neither.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from medseg.errors import CorruptFileError, TruncatedFileError

CHUNK = 1 << 20
# Some writers pad the file; more than this behind the voxels means that the header lies.
MAX_TRAILING_BYTES = 1 << 20


class _Hashing:
    """A file whose bytes pass through SHA-256 on the way."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        block = self._file.read(size)
        self.sha256.update(block)
        return block


class ByteSource:
    """Sequential bytes of one file after removing gzip, if it is gzip."""

    def __init__(self, path: Path, file: IO[bytes], *, compressed: bool) -> None:
        self.path = path
        self._hashing = _Hashing(file)
        self._file = gzip.GzipFile(fileobj=cast("IO[bytes]", self._hashing), mode="rb") if compressed else self._hashing

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, fewer only at the end of the file."""
        parts = bytearray()
        while len(parts) < size and (block := self._read(min(CHUNK, size - len(parts)))):
            parts += block
        return bytes(parts)

    def fill(self, size: int) -> bytearray:
        """Exactly `size` bytes in a writable buffer.

        Raises:
            TruncatedFileError: the file ends before that.
        """
        buffer = bytearray(size)
        view = memoryview(buffer)
        done = 0
        while done < size:
            block = self._read(min(CHUNK, size - done))
            if not block:
                raise TruncatedFileError(self.path, f"ends after {done} of {size} bytes of voxels.")
            view[done : done + len(block)] = block
            done += len(block)
        return buffer

    def finish(self) -> int:
        """Read to the end, so that the checksum is verified; the number of bytes left over.

        Raises:
            CorruptFileError: the checksum is wrong, or the file goes on and on.
        """
        extra = 0
        while block := self._read(CHUNK):
            extra += len(block)
            if extra > MAX_TRAILING_BYTES:
                raise CorruptFileError(self.path, "holds far more data than its header describes.")
        return extra

    @property
    def sha256(self) -> str:
        """Hex digest of the file; complete once `finish` has run."""
        return self._hashing.sha256.hexdigest()

    def _read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except EOFError as error:
            raise TruncatedFileError(self.path, "the compressed data end too early.") from error
        except (zlib.error, gzip.BadGzipFile) as error:
            raise CorruptFileError(self.path, "the compressed data are damaged (checksum or structure).") from error


@contextmanager
def open_source(path: Path, *, compressed: bool) -> Iterator[ByteSource]:
    """Open `path` for one pass of reading."""
    with path.open("rb") as file:
        yield ByteSource(path, file, compressed=compressed)
