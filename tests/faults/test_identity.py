"""No patient's name in outputs, logs, errors, caches or leftovers: every byte is searched."""

from __future__ import annotations

import gzip
import os
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from tests.packaging.checkout import tool
from tests.phantoms import phantom_volume, write_dicom_series

SMALL = phantom_volume((24, 20, 18), (7.0, 7.0, 7.5), orientation="LPS")
SECRET = "QUXDOE"
FORMS = (SECRET.encode(), SECRET.encode("utf-16-le"), SECRET.lower().encode(), b"DOE^PLANTED")


def _everywhere(dataset: pydicom.Dataset, k: int) -> None:
    for keyword in (
        "PatientName", "PatientAddress", "OtherPatientNames", "ReferringPhysicianName", "InstitutionName",
        "StudyDescription", "SeriesDescription", "ProtocolName", "PatientComments", "ImageComments", "OperatorsName",
        "StationName", "ContrastBolusAgent", "ConvolutionKernel", "AccessionNumber", "StudyID", "DeviceSerialNumber",
        "ManufacturerModelName",
    ):  # fmt: skip
        setattr(dataset, keyword, f"{SECRET}{keyword[:6]}")
    dataset.PatientID = f"{SECRET}-ID"
    dataset.add_new(0x00091010, "LO", SECRET)


def _broken(dataset: pydicom.Dataset, k: int) -> None:
    _everywhere(dataset, k)
    if k == 7:
        dataset.ImagePositionPatient = None


def _garbled(dataset: pydicom.Dataset, k: int) -> None:
    """Numbers that are a name: what parsers quote in their complaints."""
    _everywhere(dataset, k)
    dataset.add_new(0x00281053, "LO", f"{SECRET}^DOE")
    dataset["RescaleSlope"].VR = "LO"


def _contents(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            yield path, content
            if content[:2] == b"\x1f\x8b":
                yield path, gzip.decompress(content)
            for at in [n for n in range(len(content)) if content[n : n + 4] == b"IDAT"]:
                try:
                    yield path, zlib.decompressobj().decompress(content[at + 4 :])
                except zlib.error:
                    continue


def _found(folder: Path) -> list[str]:
    return [str(path) for path, content in _contents(folder) if any(form in content for form in FORMS)]


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_planted_name_is_nowhere(workers: str, tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    write_dicom_series(studies / "good", SMALL, fault=_everywhere)
    write_dicom_series(studies / "broken", SMALL, fault=_broken)
    write_dicom_series(studies / "garbled", SMALL, fault=_garbled)
    write_dicom_series(studies / "phases", SMALL, fault=_everywhere)
    write_dicom_series(studies / "phases", SMALL, fault=_everywhere, names=lambda k: f"B{k}")
    (studies / "cut").mkdir()
    for path in (studies / "good").iterdir():
        (studies / "cut" / path.name).write_bytes(path.read_bytes()[:-100])
    places = {name: tmp_path / name for name in ("tmp", "cache", "home", "cwd")}
    for place in places.values():
        place.mkdir()
    environment = os.environ | {
        "TMPDIR": str(places["tmp"]),
        "MEDSEG_CACHE": str(places["cache"]),
        "HOME": str(places["home"]),
    }
    command = [tool("medseg"), "segment", studies, "-o", tmp_path / "out", "--model", "tissue-hu", "--workers", workers]
    done = subprocess.run(command, env=environment, cwd=places["cwd"], capture_output=True, check=False)
    assert done.returncode == 3, done.stderr
    assert (tmp_path / "out" / "good" / "mask.nii.gz").is_file()
    said = done.stdout + done.stderr
    assert not any(form in said for form in FORMS)
    assert b"failed" in said
    for place in (tmp_path / "out", *places.values()):
        assert _found(place) == []
    left = [path for path in places["tmp"].rglob("*") if path.is_file()]
    assert left == []


def test_the_search_finds_what_is_planted(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"xx" + FORMS[0]))
    (tmp_path / "b").write_bytes(FORMS[1])
    assert len(_found(tmp_path)) == 2
