"""medseg.segment: one call from a scan to measured organs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import medseg
from medseg.errors import Cancelled, GeometryError, InputError, NonFiniteError, UnknownModelError
from medseg.imaging.volume import Geometry, Volume
from medseg.labels import LabelTable
from medseg.models.card import Anatomy, FieldLimits, OrganRange
from medseg.runtime.progress import Progress
from tests.inference.planted import planted_labels, planted_volume, threshold_card, write_package
from tests.phantoms import ORIENTATIONS, orient, phantom_volume, write_dicom_series, write_nifti


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_package(tmp_path_factory.mktemp("shelf") / "threshold"))


@pytest.fixture(scope="module")
def planted() -> Volume:
    return planted_volume((28, 26, 24), (4.0, 4.0, 4.0))


def test_files_in_48_orientations_give_the_reoriented_mask(planted: Volume, model: str, tmp_path: Path) -> None:
    """Written, read, segmented: what was planted, on the file's own grid, to the voxel."""
    for orientation in ORIENTATIONS:
        volume = orient(planted, orientation)
        result = medseg.segment(write_nifti(tmp_path / "scan.nii", volume), model=model)
        np.testing.assert_array_equal(result.mask, planted_labels(volume), err_msg=orientation)
        assert result.volume.geometry.orientation == orientation
        assert result.mask.dtype == np.uint8


@pytest.mark.parametrize("orientation", ["LPS", "RPI"])
def test_a_dicom_folder_gives_what_was_planted(planted: Volume, model: str, tmp_path: Path, orientation: str) -> None:
    volume = orient(planted, orientation)
    result = medseg.segment(write_dicom_series(tmp_path / "study", volume), model=model)
    left = result.measurements[0]
    assert left.volume_ml == pytest.approx((planted_labels(planted) == 1).sum() * 0.064, abs=1e-3)
    centre = result.volume.affine @ [*np.argwhere(result.mask == 1).mean(axis=0), 1]
    expected = planted.affine @ [*np.argwhere(planted_labels(planted) == 1).mean(axis=0), 1]
    np.testing.assert_allclose(centre, expected, atol=1e-3)


def test_a_volume_is_taken_as_it_is(planted: Volume, model: str) -> None:
    result = medseg.segment(planted, model=model)
    assert result.volume is planted
    np.testing.assert_array_equal(result.mask, planted_labels(planted))
    assert isinstance(result.labels, LabelTable)
    assert [row.organ for row in result.measurements] == ["parotid_gland_left", "parotid_gland_right"]
    assert result.findings == ()
    assert result.run["model"]["name"] == "threshold"
    assert result.run["precision"] in ("fp32", "bf16")
    assert result.run["input"]["format"] == "array"
    assert result.run["seconds"]["total"] == pytest.approx(
        sum(v for k, v in result.run["seconds"].items() if k != "total"), abs=0.01
    )


def test_progress_runs_from_nothing_to_done(planted: Volume, model: str) -> None:
    seen: list[Progress] = []
    medseg.segment(planted, model=model, progress=seen.append)
    fractions = [event.fraction for event in seen]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    stages = list(dict.fromkeys(event.stage for event in seen))
    assert stages == ["model", "read", "forecast", "prepare", "segment", "clean", "measure", "done"]
    assert all(event.message for event in seen)


@pytest.mark.parametrize("stage", ["model", "read", "segment", "measure", "done"])
def test_every_stage_can_be_cancelled(planted: Volume, model: str, stage: str) -> None:
    def stop(event: Progress) -> None:
        if event.stage == stage:
            raise Cancelled

    with pytest.raises(Cancelled):
        medseg.segment(planted, model=model, progress=stop)


def test_an_empty_mask_is_said_in_words(model: str) -> None:
    water = planted_volume((10, 10, 10), (4.0, 4.0, 4.0), sphere_hu=40.0, box_hu=40.0)
    result = medseg.segment(water, model=model)
    assert [row.volume_ml for row in result.measurements] == [0.0, 0.0]
    assert [str(f) for f in result.findings] == [
        "Nothing was found: no parotid gland, left, parotid gland, right in this scan."
    ]


def test_what_was_said_once_is_not_said_twice(planted: Volume, tmp_path: Path) -> None:
    organs = {"parotid_gland_left": OrganRange(volume_ml=(5e3, 6e3, 7e3), mean_hu=(0, 1, 2))}
    field = {"parotid_gland_left": FieldLimits(below_mm=100, above_mm=100)}
    card = threshold_card(anatomy=Anatomy(organs=organs, offsets=[], field=field))
    result = medseg.segment(planted, model=str(write_package(tmp_path / "m", card)))
    assert [f.code for f in result.findings] == ["outside_field"]
    air = Volume(np.full((9, 9, 9), -1000, np.float32), Geometry((9, 9, 9), np.diag([4.0, 4.0, 4.0, 1.0])))
    assert [f.code for f in medseg.segment(air, model="tissue-hu").findings] == ["empty"]


def test_findings_of_the_scan_come_first() -> None:
    metal = phantom_volume(orientation="LPS")
    noted = Volume(metal.hu, metal.geometry, findings=(medseg.Finding("metal", "There is metal.", "info"),))
    codes = [f.code for f in medseg.segment(noted, model="tissue-hu").findings]
    assert codes == ["metal", "rules_only"]


def test_volumes_that_do_not_hold_together_are_refused(model: str) -> None:
    hu, grid = np.zeros((4, 5, 6), np.float32), Geometry((4, 5, 6), np.diag([4.0, 4.0, 4.0, 1.0]))
    with pytest.raises(GeometryError, match=r"mine: an array of \(4, 5, 6\) on a grid of \(6, 5, 4\)"):
        medseg.segment(Volume(hu, Geometry((6, 5, 4), grid.affine), name="mine"), model=model)
    for affine in (np.diag([4.0, 4.0, 0.0, 1.0]), np.diag([4.0, 4.0, np.nan, 1.0])):
        with pytest.raises(GeometryError, match="singular or not finite"):
            medseg.segment(Volume(hu, Geometry((4, 5, 6), affine)), model=model)
    hu[1, 2, 3] = np.nan
    with pytest.raises(NonFiniteError, match="mine: 1 of 120 voxels"):
        medseg.segment(Volume(hu, grid, name="mine"), model="tissue-hu")


def test_errors_name_the_file_or_the_model(tmp_path: Path, planted: Volume, model: str) -> None:
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"\x1f\x8b not a scan")
    with pytest.raises(InputError, match=r"broken\.nii\.gz"):
        medseg.segment(broken, model=model)
    with pytest.raises(UnknownModelError, match=r"installed: .*tissue-hu"):
        medseg.segment(planted, model="no-such-model")


def test_the_packages_own_door() -> None:
    assert medseg.segment is medseg.api.segment
    assert {"segment", "read_volume", "Volume", "list_models"} <= set(dir(medseg))
    assert medseg.errors.Cancelled is Cancelled
    with pytest.raises(AttributeError, match="no attribute 'segmnt'"):
        _ = medseg.segmnt
