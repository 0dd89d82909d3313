"""PS3.15: every attribute of the basic profile's table is planted, and none is found again."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset

from medseg.errors import CorruptFileError
from medseg.imaging import read_volume
from medseg.imaging.deidentify import deidentified, deidentify_folder, profile, remains
from tests.dicom_objects import item, new_object
from tests.phantoms import phantom_volume, write_dicom_series

KEY = b"k" * 32
SMALL = phantom_volume((24, 20, 18), (7.0, 7.0, 7.5), orientation="LPS")
PLANTED = {
    "DA": "19770707",
    "DT": "19770707070707",
    "TM": "070707",
    "AS": "047Y",
    "UI": "1.2.777.7777",
    "PN": "DOE^PLANTED",
}
TEXTS = ("LO", "SH", "ST", "LT", "UT", "UC", "AE", "CS", "PN", "UR")
SECRETS = (b"PLANTED", b"19770707", b"070707", b"047Y", b"1.2.777.7777")


def _value(vr: str) -> object:
    if vr == "SQ":
        item = Dataset()
        item.PatientName, item.StudyDate = "DOE^PLANTED", "19770707"
        return [item]
    if vr in PLANTED:
        return PLANTED[vr]
    if vr in TEXTS:
        return "PLANTED"
    return b"PLANTED!" if vr in ("OB", "UN", "OW") else None


def _plant(dataset: Dataset, k: int) -> None:
    """Everything that the table names, so far as pydicom knows it."""
    keep = {0x00080016, 0x0020000D, 0x0020000E, 0x00200052, 0x00080018}
    for tag in profile():
        try:
            vr = dictionary_VR(tag).split(" ")[0]
        except KeyError:
            continue
        value = _value(vr)
        if value is not None and tag not in keep and tag >> 16 not in (0, 2, 0x5000, 0x6000):
            dataset.add_new(tag, vr, value)
    dataset.add_new(0x00091010, "LO", "PLANTED")
    dataset.add_new(0x60000010, "US", 4)
    dataset.add_new(0x60000022, "LO", "PLANTED")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dicom_series(tmp_path_factory.mktemp("deid") / "study", SMALL, fault=_plant, patient_id="PLANTED-ID-7")


@pytest.mark.filterwarnings("ignore")
def test_nothing_planted_is_found_again(folder: Path, tmp_path: Path) -> None:
    assert PLANTED["UI"].encode() in (folder / "IM0003.dcm").read_bytes()
    findings = deidentify_folder(folder, tmp_path / "out", KEY)
    assert [f.code for f in findings] == ["pixels_kept", "content_removed"]
    made = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in made[:2]] == ["000001.dcm", "000002.dcm"]
    for path in made:
        content = path.read_bytes()
        assert [secret for secret in SECRETS if secret in content] == []
    assert remains(pydicom.dcmread(made[0])) == []


def test_the_copy_is_the_same_scan(tmp_path: Path) -> None:
    plain = write_dicom_series(tmp_path / "study", SMALL)
    deidentify_folder(plain, tmp_path / "out", KEY)
    volume = read_volume(tmp_path / "out")
    assert np.array_equal(volume.hu, SMALL.hu)
    assert np.allclose(volume.affine, SMALL.affine, atol=1e-4)
    assert volume.findings == ()
    one = pydicom.dcmread(tmp_path / "out" / "000001.dcm")
    assert one.PatientIdentityRemoved == "YES"
    assert one.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
    assert one.file_meta.MediaStorageSOPInstanceUID == one.SOPInstanceUID
    assert one.PatientName == ""


def test_uids_stay_together_under_one_key_and_part_under_another(tmp_path: Path) -> None:
    plain = write_dicom_series(tmp_path / "study", SMALL, skip=range(2, 18))
    first, second = (pydicom.dcmread(plain / f"IM000{n}.dcm") for n in (0, 1))
    a, b, other = deidentified(first, KEY), deidentified(second, KEY), deidentified(first, b"x" * 32)
    assert a.SeriesInstanceUID == b.SeriesInstanceUID != first.SeriesInstanceUID
    assert a.SOPInstanceUID != b.SOPInstanceUID
    assert a.SeriesInstanceUID != other.SeriesInstanceUID
    assert first.PatientName == "DOE^PLANTED"  # the original is left alone


def test_burned_in_text_is_told(tmp_path: Path) -> None:
    plain = write_dicom_series(tmp_path / "study", SMALL, BurnedInAnnotation="YES")
    assert "burned_in" in [f.code for f in deidentify_folder(plain, tmp_path / "out", KEY)]


STRUCTURED_REPORT, ENHANCED_CT, RT_STRUCTURES = "88.11", "2.1", "481.3"


def write_object(path: Path, kind: str, **values: object) -> Path:
    dataset = new_object(f"1.2.840.10008.5.1.4.1.1.{kind}")
    dataset.update(item(**values))
    path.parent.mkdir(exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_words_of_reports_and_codes_of_persons_do_not_stay(tmp_path: Path) -> None:
    text = item(ValueType="TEXT", TextValue="Mrs. PLANTED, born 7 July")
    person = item(PersonIdentificationCodeSequence=[item(CodeValue="7", CodeMeaning="Dr. PLANTED")])
    values = {"ContentSequence": [item(ContentSequence=[text])], "VerifyingObserverSequence": [person]}
    path = write_object(tmp_path / "in" / "sr.dcm", STRUCTURED_REPORT, **values)
    assert "Content Sequence" in remains(pydicom.dcmread(path))
    findings = deidentify_folder(path.parent, tmp_path / "out", KEY)
    assert "1 report(s), annotation(s) or document(s) lost their content" in findings[1].message
    made = tmp_path / "out" / "000001.dcm"
    assert b"PLANTED" not in made.read_bytes()
    assert [len(part) for part in pydicom.dcmread(made).ContentSequence] == [0]


def _unknown(tag: int, value: bytes) -> bytes:
    return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, b"UN", 0, len(value)) + value


def _implicit(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value


@pytest.mark.filterwarnings("ignore")
def test_sequences_of_unknown_kind_are_opened_and_unknown_elements_go(tmp_path: Path) -> None:
    """Of more than 64 KiB under VR UN pydicom makes bytes; large numbers are stored like that and stay."""
    content = _implicit(0x00209111, _implicit(0xFFFEE000, _implicit(0x00209158, b"PLANTED ")))
    groups = _implicit(0xFFFEE000, content) * 2000
    path = write_object(tmp_path / "in" / "a.dcm", ENHANCED_CT, Rows=2)
    path.write_bytes(path.read_bytes() + _unknown(0x0028FFFE, b"PLANTED ") + _unknown(0x52009230, groups))
    assert len(remains(pydicom.dcmread(path))) == 2
    numbers = b"\\".join([b"-123.5"] * 12_000)
    other = write_object(tmp_path / "in" / "b.dcm", RT_STRUCTURES)
    other.write_bytes(other.read_bytes() + _unknown(0x30060050, numbers + b" "))
    deidentify_folder(path.parent, tmp_path / "out", KEY)
    made, second = (pydicom.dcmread(tmp_path / "out" / f"00000{n}.dcm") for n in (1, 2))
    assert b"PLANTED" not in (tmp_path / "out" / "000001.dcm").read_bytes()
    assert (made.Rows, len(made.PerFrameFunctionalGroupsSequence)) == (2, 2000)
    assert second.ContourData.strip() == numbers


def test_an_object_without_a_uid_of_its_own_is_refused_by_name(tmp_path: Path) -> None:
    path = write_object(tmp_path / "in" / "DICOMDIR.old", STRUCTURED_REPORT, PatientID="PLANTED", SOPInstanceUID=None)
    with pytest.raises(CorruptFileError, match=r"in: DICOMDIR\.old has no SOP Instance UID"):
        deidentify_folder(path.parent, tmp_path / "out", KEY)
