"""Every error that this project raises on purpose.

The tree is part of the API; catch the branch that you can handle::

    MedsegError                     a sentence for the user, advice, an exit code
    ├── InputError                  a scan that cannot be used; `path` names the file
    │   ├── UnknownFormatError      not NIfTI, NRRD, MHA, DICOM or zip
    │   ├── TruncatedFileError      the file ends too early
    │   ├── CorruptFileError        damaged bytes, failed checksum, contradicting header
    │   ├── UnsafeArchiveError      a zip that escapes its folder, is encrypted or explodes
    │   ├── TooLargeError           more voxels or bytes than are accepted
    │   ├── NotVolumeError          2-D, 4-D, colour, or a single slice
    │   ├── GeometryError           no orientation, no spacing, sheared axes
    │   │   ├── MissingSlicesError  a gap in the stack
    │   │   ├── DuplicateSlicesError two different slices at one place
    │   │   └── GantryTiltError     slices sheared by a tilted gantry
    │   ├── NotCTError              another modality
    │   ├── NotHUError              CT, but its values are not Hounsfield units
    │   ├── NonFiniteError          NaN or infinity among the voxels
    │   ├── SeriesChoiceError       several CT series; `series` lists them
    │   └── NoScanError             nothing to read in the folder or zip
    ├── ModelError                  a model package that cannot be used
    │   ├── UnknownModelError       no package of that name
    │   ├── ModelIntegrityError     a hash, label table or tensor that does not fit
    │   └── ModelImportError        another tool's model that cannot be taken over; `path` names the file
    ├── ConfigError                 a setting that is unknown or out of range
    ├── DataError                   training or evaluation data that do not fit together
    │   ├── NoReferenceError        a study on which nothing is drawn
    │   └── ScanChangedError        a scan that is not the one that was opened or segmented
    ├── OutputError                 a result that could not be written and verified
    ├── ResourceError               more memory or disk wanted than there is
    ├── WorkerError                 the computing process ended by itself
    │   └── StalledError            it made no progress any more
    └── Cancelled                   the user asked to stop
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

# How Python holds the bytes of a file's name that are no UTF-8. No text with them in it can be written.
_RAW_BYTE = re.compile("[\udc80-\udcff]")


def showable(text: str) -> str:
    """`text` fit to be written: the bytes of a file's name that are no UTF-8 are escaped, as in 'caf\\xe9'."""
    return _RAW_BYTE.sub(lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", text)


class MedsegError(Exception):
    """Base of all errors: what happened (`message`) and what to do about it (`advice`)."""

    exit_code = 1
    default_advice = ""

    def __init__(self, message: str, *, advice: str | None = None) -> None:
        self.message = showable(message)
        self.advice = showable(self.default_advice if advice is None else advice)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} {self.advice}".strip()

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions cross process borders (jobs, batch workers): rebuild from state, not from args.
        return (_rebuild, (type(self), dict(self.__dict__), self.args))


def _rebuild(cls: type[MedsegError], state: dict[str, object], args: tuple[object, ...]) -> MedsegError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    error.args = args
    return error


class InputError(MedsegError):
    """A scan that cannot be used. The text always names the file."""

    exit_code = 65

    def __init__(self, path: str | Path, reason: str, *, advice: str | None = None) -> None:
        self.path = Path(path)
        self.reason = reason
        super().__init__(f"{self.path.name}: {reason}", advice=advice)


class UnknownFormatError(InputError):
    default_advice = "Give a NIfTI, NRRD or MHA file, a DICOM folder, or a zip of one."


class TruncatedFileError(InputError):
    default_advice = "The copy is incomplete: transfer or export the scan again."


class CorruptFileError(InputError):
    default_advice = "Transfer or export the scan again."


class UnsafeArchiveError(InputError):
    default_advice = "Unpack the archive yourself and give the folder."


class TooLargeError(InputError):
    default_advice = "Crop or resample the scan first."


class NotVolumeError(InputError):
    default_advice = "Give one three-dimensional CT volume."


class GeometryError(InputError):
    default_advice = "Export the original axial series again from the scanner or PACS."


class MissingSlicesError(GeometryError):
    default_advice = "Export the complete series again; a mask across a gap would be wrong."


class DuplicateSlicesError(GeometryError):
    default_advice = "Export one reconstruction at a time."


class GantryTiltError(GeometryError):
    default_advice = "Have the series reformatted without tilt on the scanner."


class NotCTError(InputError):
    default_advice = "Only CT is supported; --accept REASON goes on all the same and puts the reason on record."


class NotHUError(InputError):
    default_advice = (
        "Give the scan in Hounsfield units (air near -1000, water 0), or go on with --accept REASON, which is recorded."
    )


class NonFiniteError(InputError):
    default_advice = "Write the scan again without NaN or infinite values."


class SeriesChoiceError(InputError):
    """Several CT series were found. `series` holds one line of text for each."""

    def __init__(self, path: str | Path, series: Sequence[str], reason: str | None = None) -> None:
        self.series = tuple(series)
        listed = "; ".join(self.series)
        super().__init__(
            path,
            reason or f"holds {len(self.series)} CT series: {listed}.",
            advice="Choose one with --series, by its number or UID.",
        )


class NoScanError(InputError):
    default_advice = "Give a folder or zip that holds one CT series."


class ModelError(MedsegError):
    exit_code = 66


class UnknownModelError(ModelError):
    default_advice = "`medseg models` lists what is installed."


class ModelIntegrityError(ModelError):
    default_advice = "Install the model package again."


class ModelImportError(ModelError):
    """Another tool's model that cannot be taken over. The text always names the file."""

    def __init__(self, path: str | Path, reason: str, *, advice: str | None = None) -> None:
        self.path = Path(path)
        self.reason = reason
        super().__init__(f"{self.path.name}: {reason}", advice=advice)


class ConfigError(MedsegError):
    exit_code = 64


class DataError(MedsegError):
    exit_code = 65


class NoReferenceError(DataError):
    pass


class ScanChangedError(DataError):
    default_advice = "Open the scan anew and segment it again."


class OutputError(MedsegError):
    exit_code = 74
    default_advice = "Check free space and permissions of the output folder."


class ResourceError(MedsegError):
    exit_code = 71


class WorkerError(MedsegError):
    exit_code = 70
    default_advice = "This is a fault of the program or its libraries: please report it."


class StalledError(WorkerError):
    pass


class Cancelled(MedsegError):  # noqa: N818 - the field's word for it is the user's word
    exit_code = 130

    def __init__(self, message: str = "Cancelled.") -> None:
        super().__init__(message)
