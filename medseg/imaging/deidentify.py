"""De-identification by the basic application confidentiality profile of DICOM PS3.15, annex E.

What the profile's table names is removed, emptied, replaced by a dummy, or given another UID; private elements, curves
and overlays go, and so do elements whose kind nobody knows. The dummy of a sequence is one empty item: what reports and
annotations say goes with it, and a warning says so. UIDs are replaced by a keyed digest: within one run the same UID
becomes the same other one, so that series, references and segmentations still fit together, and nobody without the key
can find the old one. Pixels are not touched: text burned into them and faces stay, and a warning says so.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import warnings
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path

import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileDataset

from medseg.errors import CorruptFileError, MedsegError, NoScanError, OutputError
from medseg.imaging.dicom import _files
from medseg.imaging.dicom_headers import DicomFile
from medseg.imaging.emit import emit
from medseg.imaging.volume import Finding

TABLE = Path(__file__).with_name("deidentify.txt")
METHOD = "medseg: DICOM PS3.15 basic application confidentiality profile"
_DUMMY = {"DA": "19000101", "DT": "19000101000000", "TM": "000000", "AS": "000Y", "PN": "REMOVED", "UI": "2.25.0"}
_NUMBERS = frozenset({"DS", "IS", "FD", "FL", "SL", "SS", "UL", "US", "SV", "UV"})
_BYTES = frozenset({"OB", "OW", "OF", "OD", "OL", "OV", "UN"})
# Structured reports, notes on waveforms, documents (PDF) and notes on images: without them little is left to read.
_CONTENT = (0x0040A730, 0x0040B020, 0x00420011, 0x00700001)


@cache
def profile() -> dict[int, str]:
    """Tag -> action of the basic profile: D, Z, X or U."""
    lines = (line.split() for line in TABLE.read_text("ascii").splitlines() if not line.startswith("#"))
    return {int(tag, 16): action for tag, action in lines}


def deidentified(dataset: Dataset, key: bytes) -> Dataset:
    """A copy without what tells who the patient is.

    Args:
        dataset: any DICOM object: an image, a segmentation, a structure set.
        key: secret of this run; the same one keeps objects that refer to each other together.
    """
    out = deepcopy(dataset)
    _clean(out, key)
    out.PatientIdentityRemoved = "YES"
    out.DeidentificationMethod = METHOD
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
    code.CodeMeaning = "Basic Application Confidentiality Profile"
    out.DeidentificationMethodCodeSequence = [code]
    out.LongitudinalTemporalInformationModified = "REMOVED"
    if isinstance(out, FileDataset):
        out.preamble = b"\0" * 128
        for keyword in ("SourceApplicationEntityTitle", "PrivateInformationCreatorUID", "PrivateInformation"):
            out.file_meta.pop(keyword, None)
        out.file_meta.MediaStorageSOPInstanceUID = out.SOPInstanceUID
    return out


def deidentify_folder(source: Path, out: Path, key: bytes | None = None) -> tuple[Finding, ...]:
    """Write a de-identified copy of every DICOM image below `source` under numbers as names.

    Args:
        source: a folder.
        out: folder for the copies; made where it is missing.
        key: see `deidentified`; a new one, which nobody keeps, if not given.

    Returns:
        What a person still has to look at.

    Raises:
        NoScanError: no DICOM there.
        CorruptFileError: a file cannot be parsed, or is no object of its own, as a DICOMDIR is none.
        OutputError: a copy could not be written, or still holds something that the profile removes.
    """
    files = list(_files(source))
    if not files:
        raise NoScanError(source, "holds no DICOM images.")
    key, noted = key or secrets.token_bytes(32), Counter[str]()
    for number, file in enumerate(files, 1):
        with warnings.catch_warnings(action="ignore"):
            noted += _copy(source, file, key, out / f"{number:06d}.dcm")
    return _warnings(noted["burned"], noted["emptied"])


def _copy(source: Path, file: DicomFile, key: bytes, path: Path) -> Counter[str]:
    """Write one copy; what a person has to know of it."""
    try:
        dataset = pydicom.dcmread(file.path, force=True)
        if not dataset.get("SOPInstanceUID"):
            reason = f"{file.label} has no SOP Instance UID: it is no image or other object of its own."
            raise CorruptFileError(source, reason, advice="Move it out of the folder.")
        _write(deidentified(dataset, key), path)
        burned = str(dataset.get("BurnedInAnnotation", "")).upper() == "YES"
        return Counter(burned=burned, emptied=any(tag in dataset for tag in _CONTENT))
    except (OSError, MemoryError, MedsegError):
        raise
    except Exception as error:  # pydicom passes on whatever its parsing stumbles over
        raise CorruptFileError(source, f"{file.label} cannot be parsed as DICOM.") from error


def _write(dataset: Dataset, path: Path) -> None:
    def check(temporary: Path) -> None:
        if left := remains(pydicom.dcmread(temporary, force=True)):
            raise OutputError(f"{path}: de-identification left {', '.join(left)}.")

    emit(path, lambda temporary: dataset.save_as(temporary), check)


def remains(dataset: Dataset) -> Sequence[str]:
    """Names of attributes that the profile would have removed or emptied and that still say something."""
    found = []
    for element in dataset.iterall():
        action = profile().get(int(element.tag))
        says = (action == "Z" and not element.is_empty) or (action == "D" and _says_more(element))
        if element.tag.is_private or action == "X" or says or _is_closed(element):
            found.append(element.name)
    return found


def _says_more(element: DataElement) -> bool:
    return element.VR == "SQ" and any(len(item) for item in element.value)


def _is_closed(element: DataElement) -> bool:
    """Bytes that are a sequence, or may be one: nobody looks inside."""
    return element.VR == "UN" and _standard_vr(element) in ("", "SQ")


def _standard_vr(element: DataElement) -> str:
    try:
        return str(dictionary_VR(element.tag))
    except KeyError:
        return ""


def _warnings(burned: int, emptied: int) -> tuple[Finding, ...]:
    text = "Pixels were not changed: a face can be recognised from a scan of the head."
    found = [Finding("pixels_kept", text)]
    if burned:
        text = f"{burned} image(s) say that text is burned into their pixels: look at them before they leave the house."
        found.append(Finding("burned_in", text))
    if emptied:
        text = f"{emptied} report(s), annotation(s) or document(s) lost their content: its words may name the patient."
        found.append(Finding("content_removed", text))
    return tuple(found)


def _clean(dataset: Dataset, key: bytes) -> None:
    for tag in list(dataset.keys()):
        action = _action(int(tag))
        if action == "X" or _is_closed(element := _opened(dataset, tag)):
            del dataset[tag]
        elif action == "Z":
            element.value = None if element.VR != "SQ" else []
        elif action == "D":
            _replace(dataset, element)
        elif element.VR == "SQ":
            for item in element.value:
                _clean(item, key)
        elif action == "U":
            element.value = _other_uids(element, key)


def _opened(dataset: Dataset, tag: int) -> DataElement:
    """An element by its standard VR: pydicom leaves long ones of VR UN as bytes, sequences among them."""
    element = dataset[tag]
    vr = _standard_vr(element)
    if element.VR == "UN" and vr and " or " not in vr:
        value = element.value or b""
        # PS3.5, 6.2.2: the bytes of UN are implicit and little endian, whatever the file is.
        dataset[tag] = RawDataElement(element.tag, vr, len(value), value, 0, True, True)
    return dataset[tag]


def _action(tag: int) -> str:
    group = tag >> 16
    if group % 2 or group & 0xFF00 == 0x5000 or group & 0xFF00 == 0x6000:  # private, curves, overlays
        return "X"
    return profile().get(tag, "")


def _replace(dataset: Dataset, element: DataElement) -> None:
    if element.VR == "SQ":
        element.value = [Dataset()]
    elif element.VR in _BYTES:
        del dataset[element.tag]
    elif element.VR in _NUMBERS:
        element.value = 0
    else:
        element.value = _DUMMY.get(element.VR, "REMOVED")


def _other_uids(element: DataElement, key: bytes) -> str | list[str] | None:
    if element.is_empty:
        return None
    if element.VM > 1:
        return [_other_uid(str(uid), key) for uid in element.value]
    return _other_uid(str(element.value), key)


def _other_uid(uid: str, key: bytes) -> str:
    digest = hmac.new(key, uid.encode(), hashlib.sha256).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"
