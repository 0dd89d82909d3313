"""What may lie in a DICOM folder, and what a folder or file is taken for."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    CTImageStorage,
    MRImageStorage,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from medseg import errors
from medseg.imaging import Volume, read_volume
from medseg.imaging.intake import read_here
from medseg.imaging.scan_files import own_files
from tests.dicom_edits import Edit, both, of_class, only, tags
from tests.phantoms import edit_dicom, phantom_volume, write_dicom_series, write_nifti

SMALL = phantom_volume((24, 20, 18), (7.0, 7.0, 7.5), orientation="LPS")
OTHER = phantom_volume((24, 20, 18), (7.0, 7.0, 7.5), orientation="LPS", seed=2)


def test_what_lies_beside_a_ct_in_an_archive_is_no_finding(tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "case" / "ct", SMALL, names=lambda k: f"{k:08d}")
    extra = tmp_path / "case" / "extra"
    write_dicom_series(extra, SMALL, skip=range(1, 18), fault=of_class(RTStructureSetStorage, "RTSTRUCT"))
    write_dicom_series(extra / "pt", SMALL, fault=of_class("1.2.840.10008.5.1.4.1.1.128", "PT"))
    write_dicom_series(extra / "scout", SMALL, skip=range(1, 18), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    disc = of_class("1.2.840.10008.1.3.10", "")
    write_dicom_series(extra, SMALL, skip=range(1, 18), names=lambda k: "disc.dcm", fault=disc)
    for junk in ("DICOMDIR", ".DS_Store", "Thumbs.db", "readme.txt", "._00000001", "empty"):
        (folder / junk).write_bytes(b"" if junk == "empty" else b"DICM junk" * 40)
    volume = read_volume(tmp_path / "case")
    assert np.array_equal(volume.hu, SMALL.hu)
    assert volume.findings == ()
    assert volume.name == "case"


def test_digest_does_not_depend_on_file_names(tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "one", SMALL)
    (tmp_path / "two" / "deep").mkdir(parents=True)
    for k, path in enumerate(sorted(folder.iterdir())):
        shutil.copy(path, tmp_path / "two" / "deep" / f"x{99 - k}")
    one, two = read_volume(tmp_path / "one"), read_volume(tmp_path / "two")
    assert one.sha256 == two.sha256
    assert len(one.sha256) == 64


def test_data_set_without_preamble(tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "case", SMALL, names=lambda k: f"{k}")
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        plain = pydicom.Dataset(dataset)
        pydicom.dcmwrite(path, plain, implicit_vr=True, little_endian=True, enforce_file_format=False)
    volume = read_volume(folder)
    assert np.array_equal(volume.hu, SMALL.hu)


def test_one_file_stands_for_its_series(tmp_path: Path) -> None:
    write_dicom_series(tmp_path / "case", SMALL)
    write_dicom_series(tmp_path / "case", OTHER, names=lambda k: f"B{k}.dcm")
    volume = read_volume(tmp_path / "case" / "B3.dcm")
    assert np.array_equal(volume.hu, OTHER.hu)
    assert volume.name == "B3"


def test_lonely_slice_whatever_its_name(tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "case", SMALL, skip=range(1, 18), names=lambda k: "x.nii.gz")
    with pytest.raises(errors.NotVolumeError, match=r"x\.nii\.gz: is a single slice"):
        read_volume(folder / "x.nii.gz")


def test_file_that_is_no_ct(tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "case", SMALL, fault=of_class(MRImageStorage, "MR"))
    with pytest.raises(errors.NotCTError, match=r"IM0000\.dcm: is no CT image \(modality MR\)"):
        read_volume(folder / "IM0000.dcm")


def test_folder_without_dicom(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii.gz", SMALL)
    with pytest.raises(errors.NoScanError):
        read_volume(tmp_path)


def test_links_and_pipes_in_a_folder_are_not_followed(tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "case", SMALL)
    outside = write_dicom_series(tmp_path / "outside", OTHER)
    (folder / "link.dcm").symlink_to(outside / "IM0001.dcm")
    (folder / "loop").symlink_to(folder)
    (folder / "gone.dcm").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "pipe.dcm")
    assert np.array_equal(read_volume(folder).hu, SMALL.hu)


@pytest.mark.parametrize("fault", [tags(Modality="CU"), of_class(SecondaryCaptureImageStorage, "CT")])
def test_a_slice_that_is_called_no_ct_is_missed(fault: Edit, tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "case", SMALL, fault=only(17, fault))
    for path in (folder, folder / "IM0003.dcm"):
        with pytest.raises(
            errors.CorruptFileError, match=r"IM0017\.dcm is a slice .* no CT by Modality or SOPClassUID"
        ):
            read_volume(path)


@pytest.mark.parametrize("other", [tags(ImagePositionPatient=None), tags(Rows=10)])
def test_what_else_a_series_holds_is_said(other: Edit, tmp_path: Path) -> None:
    fault = both(of_class(RTStructureSetStorage, "RTSTRUCT"), other)
    volume = read_volume(write_dicom_series(tmp_path / "case", SMALL, fault=only(17, fault)))
    assert [str(finding) for finding in volume.findings] == [
        "Of the series, 1 x RTSTRUCT became no part of the volume."
    ]
    assert (volume.hu.shape[2], volume.evidence["set_aside"]) == (17, {"RTSTRUCT": 1})


def test_phases_that_were_not_chosen_are_counted(tmp_path: Path) -> None:
    uid = {"series_uid": generate_uid(), "study_uid": "1.2.3"}
    folder = write_dicom_series(tmp_path / "case", SMALL, **uid)
    write_dicom_series(folder, OTHER, names=lambda k: f"B{k}.dcm", AcquisitionNumber=2, **uid)
    volume = read_volume(folder, series=1)
    assert (volume.findings, volume.evidence["set_aside"]) == ((), {"CT": 18})


def test_what_cannot_be_looked_at_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_dicom_series(tmp_path / "case", SMALL, skip=range(10, 18))
    shut = write_dicom_series(folder / "shut", SMALL, skip=range(10))

    def fails(real: Any, at: Path) -> Any:
        def look(path: Any, *rest: Any, **more: Any) -> Any:
            if Path(path) == at:
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *rest, **more)

        return look

    for module, name, at in ((os, "scandir", shut), (Path, "stat", shut / "IM0012.dcm")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, fails(getattr(module, name), at))
            told = str(at.relative_to(folder))
            with pytest.raises(errors.InputError, match=rf"case: {told} cannot be looked at \(Permission denied\)"):
                read_here(folder)
            assert set(folder.glob("*.dcm")) <= set(own_files(folder))  # a batch goes on with its other studies


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ({"BurnedInAnnotation": "YES"}, "burned_in"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MIP"]}, "derived"),
        ({"GantryDetectorTilt": 12}, "gantry_tilt"),
    ],
)
def test_what_a_reader_must_know(tags: dict[str, Any], code: str, tmp_path: Path) -> None:
    volume = read_volume(write_dicom_series(tmp_path / "case", SMALL, **tags))
    assert [f.code for f in volume.findings] == [code]


def test_edited_series_keeps_its_class(tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "case", SMALL)
    edit_dicom(folder / "IM0000.dcm", lambda dataset: setattr(dataset, "SOPClassUID", CTImageStorage))
    assert isinstance(read_volume(folder), Volume)


@pytest.mark.parametrize("name", [".IM0005.dcm", "DICOMDIR", "dicomdir"])
def test_hidden_pictures_are_none_of_the_series(name: str, tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "case", SMALL)
    shutil.copy(folder / "IM0005.dcm", folder / name)
    edit_dicom(folder / name, lambda dataset: setattr(dataset, "PixelData", bytes(len(dataset.PixelData))))
    volume = read_volume(folder)
    assert np.array_equal(volume.hu, SMALL.hu)
    assert volume.findings == ()
