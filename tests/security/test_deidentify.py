"""PS3.15: every attribute of the basic profile's table is planted, and none is found again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset

from medseg.imaging import read_volume
from medseg.imaging.deidentify import deidentified, deidentify_folder, profile, remains
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
    assert [f.code for f in findings] == ["pixels_kept"]
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
