"""Zip: members are streamed one by one into a private folder, under names of our own, within limits."""

from __future__ import annotations

import errno
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from medseg.errors import (
    CorruptFileError,
    InputError,
    NoScanError,
    ResourceError,
    TooLargeError,
    TruncatedFileError,
    UnsafeArchiveError,
)
from medseg.imaging.acceptance import NOTHING, Acceptance
from medseg.imaging.naming import printable, scan_name, stray_sibling
from medseg.imaging.sniff import HEAD_BYTES, describe, sniff_bytes
from medseg.imaging.stream import CHUNK
from medseg.imaging.volume import Volume
from medseg.runtime.scratch import Scratch

MAX_ENTRIES = 100_000
MAX_TOTAL_BYTES = 8 << 30
MAX_RATIO = 500
RATIO_FREE_BYTES = 64 << 20
"""Below this size the ratio does not matter: an image of nothing but air compresses a thousandfold."""

_ARCHIVES = (
    "a tar archive",
    "a 7z archive",
    "a RAR archive",
    "a bzip2 file",
    "an xz file",
    "a zstd file",
    "gzip",
    "a damaged gzip",
)
_HARMLESS_ZIPS = (".jar", ".docx", ".xlsx", ".pptx", ".odt")


@dataclass(frozen=True)
class Member:
    """A scan file taken out of a zip."""

    path: Path
    label: str
    kind: str


def read_zip(path: Path, *, series: str | None = None, accept: Acceptance = NOTHING) -> Volume:
    """Read the CT in a zip of one DICOM folder, or of one NIfTI, NRRD or MHA file.

    Raises:
        UnsafeArchiveError: it leaves its folder, links, is encrypted, nested or explodes.
        InputError: the other branches, for what lies inside.
    """
    with unpacked(path) as members:
        if slices := [m for m in members if m.kind == "dicom"]:
            return _read_slices(path, slices, series, accept)
        if not members:
            raise NoScanError(path, "holds no scan.")
        if len(members) > 1:
            names = ", ".join(m.label for m in members[:4])
            raise NoScanError(path, f"holds {len(members)} volumes ({names}).", advice="Give one of them at a time.")
        return _read_member(path, members[0], accept)


def _read_slices(path: Path, slices: list[Member], series: str | None, accept: Acceptance) -> Volume:
    from medseg.imaging.dicom import read_dicom_files
    from medseg.imaging.dicom_headers import DicomFile

    return read_dicom_files(path, [DicomFile(m.path, m.label) for m in slices], series=series, accept=accept)


def _read_member(path: Path, member: Member, accept: Acceptance) -> Volume:
    from medseg.imaging.metaimage import read_metaimage
    from medseg.imaging.nifti import read_nifti
    from medseg.imaging.nrrd import read_nrrd

    try:
        read = {"nifti": read_nifti, "nrrd": read_nrrd, "mha": read_metaimage}[member.kind]
        volume = read(member.path, accept=accept)
    except InputError as error:
        raise type(error)(path, f"{member.label} {error.reason}", advice=error.advice) from error
    return replace(volume, name=scan_name(path))


@contextmanager
def unpacked(path: Path) -> Iterator[list[Member]]:
    """The scan files of a zip in a private temporary folder, which is removed at the end.

    The folder is of the reading rooms' kind: if this process is killed, the next room that starts removes it.
    """
    with closing(Scratch("reading")) as scratch:
        try:
            with zipfile.ZipFile(path) as archive:
                members = list(_unpack(path, archive, scratch.path))
        except zipfile.BadZipFile as error:
            raise _bad_zip(path, error) from error
        except NotImplementedError as error:
            raise UnsafeArchiveError(path, "needs features of zip that are not supported.") from error
        except (ValueError, OverflowError, struct.error) as error:
            raise CorruptFileError(path, "the zip is damaged.") from error
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # zipfile seeks wherever a damaged directory sends it.
            raise CorruptFileError(path, "the zip is damaged: its directory points outside.") from error
        yield members


def _bad_zip(path: Path, error: zipfile.BadZipFile) -> InputError:
    if "not a zip file" in str(error):
        return TruncatedFileError(path, "the zip has no directory at its end.")
    return CorruptFileError(path, "the zip is damaged.")


def _unpack(path: Path, archive: zipfile.ZipFile, folder: Path) -> Iterator[Member]:
    entries = archive.infolist()
    _check_entries(path, entries)
    needed = sum(e.file_size for e in entries)
    if needed > shutil.disk_usage(folder).free:
        raise ResourceError(f"{path.name}: unpacking needs {needed >> 20} MB of temporary space, more than is free.")
    total, others, slices = 0, [], []
    for number, entry in enumerate(entries):
        if entry.is_dir() or _is_dropping(entry.filename):
            continue
        member, size = _unpack_one(path, archive, entry, folder / f"{number:06d}", MAX_TOTAL_BYTES - total)
        total += size
        if member is not None:
            slices += [member.label] if member.kind == "dicom" else []
            yield member
        else:
            others.append(printable(entry.filename))
    if stray := stray_sibling(others, slices):
        raise CorruptFileError(path, f"{stray} is not DICOM inside.")


def _check_entries(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > MAX_ENTRIES:
        raise UnsafeArchiveError(path, f"holds {len(entries):,} entries; {MAX_ENTRIES:,} are accepted.")
    for entry in entries:
        if why := _danger(entry):
            raise UnsafeArchiveError(path, f"{printable(entry.orig_filename)} {why}.")
    size, packed = sum(e.file_size for e in entries), sum(e.compress_size for e in entries)
    if size > MAX_TOTAL_BYTES:
        raise TooLargeError(path, f"unpacks to {size >> 20:,} MB; {MAX_TOTAL_BYTES >> 20:,} MB are accepted.")
    if size > RATIO_FREE_BYTES and size > MAX_RATIO * packed:
        raise UnsafeArchiveError(path, f"unpacks to {size // max(1, packed)} times its size.")


def _danger(entry: zipfile.ZipInfo) -> str:
    name = entry.orig_filename.replace("\\", "/")
    if name.startswith("/") or name[1:2] == ":" or ".." in name.split("/"):
        return "points out of the archive"
    if entry.flag_bits & 1:
        return "is encrypted"
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if entry.file_size > RATIO_FREE_BYTES and entry.file_size > MAX_RATIO * entry.compress_size:
        return f"unpacks to {entry.file_size // max(1, entry.compress_size)} times its size"
    return ""


def _is_dropping(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return parts[-1].startswith(".") or "__MACOSX" in parts or parts[-1].upper() == "DICOMDIR"


def _unpack_one(
    path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, room: int
) -> tuple[Member | None, int]:
    """Stream one member; files that are no scan are read for their checksum and not kept."""
    label = printable(entry.filename)
    try:
        with archive.open(entry) as stream:
            head = stream.read(HEAD_BYTES)
            kind = _kind(path, label, head)
            with target.open("wb") as out:
                size = len(head)
                out.write(head)
                while block := stream.read(CHUNK):
                    size += len(block)
                    if size > min(room, entry.file_size):
                        raise UnsafeArchiveError(path, f"{label} is larger than it says.")
                    if kind:
                        out.write(block)
    except (zipfile.BadZipFile, zlib.error) as error:
        raise CorruptFileError(path, f"{label} is damaged (checksum).") from error
    except EOFError as error:
        raise TruncatedFileError(path, f"{label} ends too early.") from error
    except (NotImplementedError, RuntimeError) as error:
        raise UnsafeArchiveError(path, f"{label} is packed in a way that is not supported.") from error
    if not kind:
        target.unlink()
        return None, size
    return Member(target, label, kind), size


def _kind(path: Path, label: str, head: bytes) -> str:
    kind = sniff_bytes(head)
    what = "" if kind else describe(head)
    if (kind == "zip" and not label.lower().endswith(_HARMLESS_ZIPS)) or what.startswith(_ARCHIVES):
        raise UnsafeArchiveError(path, f"{label} is an archive within the archive.")
    if not kind and label.lower().endswith(".dcm"):
        problem = "is empty" if not head else "is not DICOM inside"
        raise (CorruptFileError if head else TruncatedFileError)(path, f"{label} {problem}.")
    return "" if kind == "zip" else kind
