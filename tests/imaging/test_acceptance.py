"""--accept: what may be overridden is, with its reason on record; what is damaged stays refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import MRImageStorage

from medseg import errors, segment
from medseg.imaging import Volume, read_volume
from medseg.runtime.options import Options
from tests.phantoms import phantom_volume, write_dicom_series, write_nifti

SMALL = phantom_volume((24, 20, 18), (7.0, 7.0, 7.5), orientation="LPS")
REASON = "phantom, HU checked by hand"


def _shifted(folder: Path) -> Path:
    moved = Volume(SMALL.hu + 1024, SMALL.geometry)
    return write_nifti(folder / "shifted.nii.gz", moved, dtype=np.uint16)


def test_values_that_are_no_hu(tmp_path: Path) -> None:
    path = _shifted(tmp_path)
    with pytest.raises(errors.NotHUError, match="--accept REASON"):
        read_volume(path)
    volume = read_volume(path, accept=REASON)
    assert [f.code for f in volume.findings] == ["accepted"]
    assert volume.findings[0].severity == "warning"
    assert REASON in str(volume.findings[0])
    assert "1024" in str(volume.findings[0])
    assert np.array_equal(volume.hu, SMALL.hu + 1024)  # never shifted in silence


def test_another_modality(tmp_path: Path) -> None:
    def as_mr(dataset, k):
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
        dataset.Modality = "MR"
        del dataset.RescaleSlope, dataset.RescaleIntercept

    folder = write_dicom_series(tmp_path / "mr", SMALL, fault=as_mr, inter=0.0)
    with pytest.raises(errors.NotCTError, match="--accept REASON"):
        read_volume(folder)
    volume = read_volume(folder, accept=REASON)
    assert [f.code for f in volume.findings] == ["accepted"]
    assert np.array_equal(volume.hu, SMALL.hu)


@pytest.mark.parametrize("fault", ["truncated", "missing"])
def test_damage_is_not_to_be_accepted(fault: str, tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "case", SMALL, skip=(9,) if fault == "missing" else ())
    if fault == "truncated":
        (folder / "IM0003.dcm").write_bytes((folder / "IM0003.dcm").read_bytes()[:-100])
    with pytest.raises((errors.TruncatedFileError, errors.MissingSlicesError)):
        read_volume(folder, accept=REASON)


def test_the_reason_stands_in_the_run_report(tmp_path: Path) -> None:
    result = segment(_shifted(tmp_path), model="tissue-hu", options=Options(accept=REASON))
    assert result.run["accepted"] == REASON
    assert "accepted" in [f.code for f in result.findings]


def test_a_reason_is_needed() -> None:
    with pytest.raises(errors.ConfigError, match="needs a reason"):
        Options.asked(None, "auto", None, accept="  ")


def test_a_reason_is_one_printable_line(tmp_path: Path) -> None:
    volume = read_volume(_shifted(tmp_path), accept="two\nlines\x1b[31m and  blanks" + "x" * 400)
    text = str(volume.findings[0])
    assert "\n" not in text
    assert "\x1b" not in text
    assert len(text) < 600
