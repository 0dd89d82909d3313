"""The door itself: what is recognised by content, how scans are named, what an import costs."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

import medseg
from medseg import errors
from medseg.imaging import Volume, read_volume
from medseg.imaging.emit import emit_json
from tests.phantoms import PLANTED_NAME, phantom_volume, write_dicom_series, write_nifti

SMALL = phantom_volume((24, 20, 18), (7.0, 7.0, 7.5), orientation="LPS")

JUNK = {
    "empty": (b"", "empty"),
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(400), "PNG"),
    "JPEG": (b"\xff\xd8\xff\xe0" + bytes(400), "JPEG"),
    "web page": (b"<!DOCTYPE html><html>" + b" " * 400, "web page"),
    "JSON": (b'{"a": 1}', "JSON"),
    "program": (b"MZ" + bytes(400), "program"),
    "text": (b"hello, this is text", "text"),
    "bytes": (bytes(range(256)) * 4, "binary"),
    "Analyze": (b"\x5c\x01\0\0" + bytes(344), "Analyze"),
    "gzip of text": (__import__("gzip").compress(b"hello" * 99), "gzip with text"),
}


@pytest.mark.parametrize("case", JUNK)
def test_other_files_are_named_as_what_they_are(case: str, tmp_path: Path) -> None:
    content, words = JUNK[case]
    (tmp_path / "case.nii.gz").write_bytes(content)
    with pytest.raises(errors.UnknownFormatError, match=r"case\.nii\.gz") as refused:
        read_volume(tmp_path / "case.nii.gz")
    assert words in str(refused.value)


def test_tar_is_named(tmp_path: Path) -> None:
    scan = write_nifti(tmp_path / "x.nii", SMALL)
    with tarfile.open(tmp_path / "case.tar", "w") as archive:
        archive.add(scan, "x.nii")
    with pytest.raises(errors.UnknownFormatError, match="tar archive"):
        read_volume(tmp_path / "case.tar")


def test_missing_and_special_files(tmp_path: Path) -> None:
    with pytest.raises(errors.NoScanError, match="does not exist"):
        read_volume(tmp_path / "nothing.nii")
    with pytest.raises(errors.UnknownFormatError, match="neither a file nor a folder"):
        read_volume("/dev/null")
    with pytest.raises(errors.NoScanError, match="no DICOM"):
        read_volume(tmp_path)


@pytest.mark.parametrize("name", ["x.nii", "x.img", "x", "x.dcm", "x.zip"])
@pytest.mark.parametrize("packed", [False, True])
def test_content_decides_not_the_extension(name: str, packed: bool, tmp_path: Path) -> None:
    source = write_nifti(tmp_path / ("a.nii.gz" if packed else "a.nii"), SMALL)
    source.rename(tmp_path / name)
    assert np.array_equal(read_volume(tmp_path / name).hu, SMALL.hu)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a.b.nii.gz", "a.b"),
        ("scan.NII.GZ", "scan"),
        ("scan.nii", "scan"),
        ("-x.nii", "-x"),
        ("患者 1.nii", "患者 1"),
        ("1.2.840.5", "1.2.840.5"),
        ("x" * 200 + ".nii", "x" * 200),
    ],
)
def test_names_come_from_the_file(file: str, name: str, tmp_path: Path) -> None:
    source = write_nifti(tmp_path / ("a.nii.gz" if file.lower().endswith("gz") else "a.nii"), SMALL)
    source.rename(tmp_path / file)
    assert read_volume(tmp_path / file).name == name


def test_a_name_that_is_no_utf8_is_escaped(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.nii"))
    write_nifti(tmp_path / "a.nii", SMALL).rename(odd)
    assert read_volume(odd).name == "caf\\xe9"
    odd.write_bytes(odd.read_bytes()[:2000])
    with pytest.raises(errors.TruncatedFileError) as refused:
        read_volume(odd)
    assert str(refused.value).encode().startswith(b"caf\\xe9.nii: ")
    assert refused.value.path == odd
    assert emit_json(tmp_path / "a.json", odd.name).read_bytes() == b'"caf\\udce9.nii"\n'  # still the name, if read


def test_folder_keeps_its_dots(tmp_path: Path) -> None:
    assert read_volume(str(write_dicom_series(tmp_path / "1.2.840.nii", SMALL))).name == "1.2.840.nii"


def test_digest_is_that_of_the_file(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", SMALL)
    assert read_volume(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_unreadable_file(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii", SMALL)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root reads everything")
    with pytest.raises(errors.InputError, match=r"a\.nii: cannot be read"):
        read_volume(path)


def test_no_name_of_a_patient_in_the_volume(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    volume = read_volume(write_dicom_series(tmp_path / "case", SMALL))
    facts = f"{volume.name} {volume.findings} {volume.series} {volume.geometry} {volume.format}"
    shown = capfd.readouterr()
    for word in (*PLANTED_NAME.split("^"), "PLANTED-ID"):
        assert word not in facts + shown.out + shown.err


def test_import_is_light() -> None:
    code = (
        "import sys, medseg; medseg.read_volume\n"
        "heavy = {'torch', 'monai', 'SimpleITK', 'streamlit'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_top_level_door() -> None:
    assert medseg.read_volume is read_volume
    assert medseg.Volume is Volume
