"""`medseg train check`: one planted fault a data set, found by name; a sound one is called sound."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg.cli import main
from medseg.commands.training import check_data
from medseg.errors import OutputError
from medseg.imaging.nifti import write_label_map
from medseg.imaging.volume import Geometry, Volume
from medseg.training.check_report import check_and_report
from tests.phantoms import phantom_labels, phantom_volume, write_nifti
from tests.training.conftest import LABELS, write_case, write_index


def sound(root: Path, train: int = 3) -> list[Any]:
    entries = [write_case(root, f"p{n}", "train", phantom_volume(seed=n)) for n in range(train)]
    return [*entries, write_case(root, "v0", "validation", phantom_volume(seed=9))]


def faults(root: Path, entries: list[Any], out: Path, labels: Any = LABELS) -> list[tuple[str, str, str]]:
    report = check_and_report(write_index(root, entries, labels), out, pictures=1, say=lambda line: None)
    return [(fault.level, fault.case, fault.text) for fault in report.faults]


def relabel(root: Path, name: str, change: Any, split: str = "train") -> None:
    volume = phantom_volume(seed=1)
    labels = change(phantom_labels(volume))
    write_label_map(root / split / f"{name}_label.nii.gz", labels, volume.geometry)


def test_a_sound_data_set_is_called_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = write_index(tmp_path, sound(tmp_path))
    assert check_data(index, out=tmp_path / "report", pictures=2) == 0
    assert "4 cases: 0 errors, 0 warnings" in capsys.readouterr().out
    seen = json.loads((tmp_path / "report" / "check.json").read_text())
    assert seen["faults"] == []
    assert seen["cases"][0]["spacing_mm"] == [3.5, 3.5, 4.0]
    assert seen["cases"][0]["orientation"] == "RAS"
    assert set(seen["cases"][0]["volumes_ml"]) == set(LABELS)
    text = (tmp_path / "report" / "report.html").read_text()
    pictures = re.findall(r'<img src="([^"]+)"', text)
    assert pictures == ["pictures/p0.png", "pictures/p1.png"]
    assert all((tmp_path / "report" / picture).read_bytes().startswith(b"\x89PNG") for picture in pictures)


def swapped(labels: Any) -> Any:
    return np.array([0, 2, 1, 3], np.uint8)[labels]


@pytest.mark.parametrize(
    ("change", "level", "text"),
    [
        (lambda labels: labels * 0, "error", "the mask is empty"),
        (lambda labels: labels + 9 * (labels == 3), "error", r"label values \[12\] are not in the label table"),
        (lambda labels: labels * (labels != 2), "warning", "parotid_gland_right: said to be contoured, and has no"),
        (swapped, "error", "parotid_gland_right lies to the left of parotid_gland_left"),
    ],
)
def test_faults_of_a_mask(tmp_path: Path, change: Any, level: str, text: str) -> None:
    entries = sound(tmp_path)
    relabel(tmp_path, "p1", change)
    found = [fault for fault in faults(tmp_path, entries, tmp_path / "out") if fault[1] == "p1"]
    assert any(fault[0] == level and re.search(text, fault[2]) for fault in found), found


def test_a_case_that_nobody_contoured_is_no_error(tmp_path: Path) -> None:
    """As the training itself advises for a mask that nobody drew."""
    entries = sound(tmp_path)
    relabel(tmp_path, "p1", lambda labels: labels * 0)
    entries[1]["contoured"] = []
    found = [fault for fault in faults(tmp_path, entries, tmp_path / "out") if fault[1] == "p1"]
    assert found == [("warning", "p1", "nothing is contoured, so that nothing is learned from it.")]


def beside(labels: Any) -> Any:
    """The sphere drawn in the air in front of the body."""
    moved = np.where(labels == 1, 0, labels).astype(np.uint8)
    moved[:, -12:][np.roll(labels, 12, axis=1)[:, -12:] == 1] = 1
    return moved


def a_slice_of_it(labels: Any) -> Any:
    places = np.argwhere(labels == 1)[:, 2]
    few = np.arange(labels.shape[2]) == int(np.median(places))
    return np.where((labels == 1) & ~few, 0, labels).astype(np.uint8)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (a_slice_of_it, r"parotid_gland_left: \d+\.\d ml, where the median of whole ones is \d+\.\d ml: cut off"),
        (beside, r"parotid_gland_left: -\d+ HU inside its contour \(median\), where it is \d+ HU in most cases"),
    ],
)
def test_a_contour_unlike_the_others(tmp_path: Path, change: Any, text: str) -> None:
    entries = sound(tmp_path, train=8)
    assert faults(tmp_path, entries, tmp_path / "before") == []
    relabel(tmp_path, "p1", change)
    found = faults(tmp_path, entries, tmp_path / "out")
    assert [(level, case) for level, case, fault in found if re.search(text, fault)] == [("warning", "p1")], found


def test_voxels_of_an_organ_that_is_not_listed(tmp_path: Path) -> None:
    entries = sound(tmp_path)
    entries[0]["contoured"] = ["spinal_cord", "parotid_gland_left"]
    (found,) = faults(tmp_path, entries, tmp_path / "out")
    assert found == ("warning", "p0", "parotid_gland_right: has voxels, but is not listed as contoured.")


@pytest.mark.parametrize("shift", [True, False])
def test_a_mask_on_another_grid(tmp_path: Path, shift: bool) -> None:
    entries = sound(tmp_path)
    volume = phantom_volume(seed=1)
    affine = volume.affine.copy()
    affine[0, 3] += 2.0 if shift else 0
    labels = phantom_labels(volume)[:, :, : None if shift else -1]
    write_label_map(tmp_path / "train/p1_label.nii.gz", labels, Geometry(labels.shape, affine))
    (found,) = faults(tmp_path, entries, tmp_path / "out")
    assert found[:2] == ("error", "p1")
    assert re.search("different grids: .*" + ("corners lie up to 2 mm apart" if shift else "voxels"), found[2])


def test_the_same_scan_on_both_sides_of_the_split(tmp_path: Path) -> None:
    entries = sound(tmp_path)
    shutil.copy(tmp_path / "train/p1_ct.nii.gz", tmp_path / "validation/v0_ct.nii.gz")
    (found,) = faults(tmp_path, entries, tmp_path / "out")
    assert found == ("error", "p1", "(train) is the same scan as v0 (validation).")


def test_one_patient_on_both_sides_of_the_split(tmp_path: Path) -> None:
    entries = sound(tmp_path)
    entries[1]["patient"] = entries[3]["patient"] = "somebody"
    (found,) = faults(tmp_path, entries, tmp_path / "out")
    assert found[:2] == ("error", "p1")
    assert "one patient stands in several splits: p1 (train), v0 (validation)." in found[2]


def test_the_same_scan_twice_within_a_split_is_a_warning_also_when_it_is_stored_another_way(tmp_path: Path) -> None:
    entries = sound(tmp_path)
    entries.append(write_case(tmp_path, "p9", "train", phantom_volume(seed=9 - 8)))  # as p1
    turned = phantom_volume(seed=1, orientation="LPS")
    write_nifti(tmp_path / "train/p9_ct.nii.gz", turned)
    write_label_map(tmp_path / "train/p9_label.nii.gz", phantom_labels(turned), turned.geometry)
    (found,) = faults(tmp_path, entries, tmp_path / "out")
    assert found == ("warning", "p1", "(train) is the same scan as p9 (train).")


def test_a_scan_that_cannot_be_read_or_is_no_ct(tmp_path: Path) -> None:
    entries = sound(tmp_path)
    file = tmp_path / "train/p0_ct.nii.gz"
    file.write_bytes(file.read_bytes()[:900])
    volume = phantom_volume(seed=1)
    bright = Volume(volume.hu + 1000, volume.geometry)
    write_nifti(tmp_path / "train/p1_ct.nii.gz", bright)
    found = faults(tmp_path, entries, tmp_path / "out")
    assert [fault[:2] for fault in found] == [("error", "p0"), ("error", "p1")]
    assert "p0_ct.nii.gz" in found[0][2]
    assert "Hounsfield" in found[1][2]


def test_a_scan_that_stands_on_its_head_is_noticed(tmp_path: Path) -> None:
    """Pixels turned, header left as it was: nothing in the file itself is wrong."""
    entries = sound(tmp_path)
    volume = phantom_volume(seed=1)
    upside_down = Volume(volume.hu[:, :, ::-1].copy(), volume.geometry)
    write_nifti(tmp_path / "train/p1_ct.nii.gz", upside_down)
    relabel(tmp_path, "p1", lambda labels: labels[:, :, ::-1].copy())
    found = faults(tmp_path, entries, tmp_path / "out")
    assert ("warning", "p1") in [fault[:2] for fault in found]
    assert any("upside down" in fault[2] for fault in found)


def half_drawn(labels: Any) -> Any:
    """The right parotid's lowest third alone, as where a clinic contoured what the beam would meet."""
    slices = np.flatnonzero((labels == LABELS["parotid_gland_right"]).any(axis=(0, 1)))
    above = np.arange(labels.shape[2]) > slices[len(slices) // 3]
    return np.where((labels == LABELS["parotid_gland_right"]) & above, 0, labels)


def test_a_contour_that_was_left_half_drawn_is_noticed(tmp_path: Path) -> None:
    entries = sound(tmp_path, train=8)
    relabel(tmp_path, "p1", half_drawn)
    (found,) = faults(tmp_path, entries, tmp_path / "out")
    assert found[:2] == ("warning", "p1")
    assert re.search(r"parotid_gland_right: \d+\.\d ml, where the median of whole ones is .*: cut off", found[2])


def test_an_organ_that_the_scan_cuts_is_rightly_small(tmp_path: Path) -> None:
    entries = sound(tmp_path, train=8)
    volume = phantom_volume(seed=1)
    labels = phantom_labels(volume)
    slices = np.flatnonzero((labels == LABELS["parotid_gland_right"]).any(axis=(0, 1)))
    ends = slices[len(slices) // 3]
    below = (slice(None), slice(None), slice(0, ends + 1))
    geometry = Geometry(labels[below].shape, volume.affine)
    write_nifti(tmp_path / "train/p1_ct.nii.gz", Volume(volume.hu[below].copy(), geometry))
    write_label_map(tmp_path / "train/p1_label.nii.gz", labels[below], geometry)
    assert not [fault for fault in faults(tmp_path, entries, tmp_path / "out") if "median" in fault[2]]


def test_without_a_readable_scan_there_is_still_a_report(tmp_path: Path) -> None:
    entries = sound(tmp_path)
    for file in tmp_path.glob("*/*_ct.nii.gz"):
        file.write_bytes(b"nothing")
    found = faults(tmp_path, entries, tmp_path / "out")
    assert [fault[0] for fault in found] == ["error"] * 4
    assert (tmp_path / "out" / "report.html").is_file()


def test_splits_and_organs_that_nobody_contoured(tmp_path: Path) -> None:
    entries = sound(tmp_path)[:3]
    found = faults(tmp_path, entries, tmp_path / "out", LABELS | {"larynx": 4})
    assert ("warning", "", "No case has the split `validation`: the model will have no scores.") in found
    assert ("error", "", "larynx is contoured in no training case.") in found
    entries = [write_case(tmp_path / "b", "v", "validation", phantom_volume(seed=3))]
    assert ("error", "", "No case has the split `train`.") in faults(tmp_path / "b", entries, tmp_path / "out")


def test_a_split_that_nobody_uses_is_named(tmp_path: Path) -> None:
    entries = [*sound(tmp_path), write_case(tmp_path, "t0", "training", phantom_volume(seed=7))]
    (found,) = faults(tmp_path, entries, tmp_path / "out")
    assert found == (
        "warning", "t0", "its split 'training' is none of train, validation, test: neither trained on nor scored."
    )  # fmt: skip


def test_sides_without_a_name_are_seen(tmp_path: Path) -> None:
    """The ball on the left and the box on the right are of one size."""
    labels = {"parotis_li": 1, "parotis_re": 2, "spinal_cord": 3}
    entries = [entry | {"contoured": list(labels)} for entry in sound(tmp_path)]
    (found,) = faults(tmp_path, entries, tmp_path / "out", labels)
    assert found[0] == "warning"
    assert "parotis_li and parotis_re lie like the left and the right of one organ" in found[2]


def test_a_folder_that_takes_no_report_is_told_before_cases_are_read(tmp_path: Path) -> None:
    index, said = write_index(tmp_path, sound(tmp_path)), list[str]()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"Nothing can be written into .*file"):
        check_and_report(index, tmp_path / "file", say=said.append)
    assert said == []


def test_the_command_in_two_words_ends_with_its_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = sound(tmp_path)
    relabel(tmp_path, "p1", lambda labels: labels * 0)
    index = write_index(tmp_path, entries)
    with pytest.raises(SystemExit) as end:
        main(["train", "check", str(index), "-o", str(tmp_path / "out"), "--pictures", "1"])
    assert end.value.code == 3
    assert "error: p1: the mask is empty." in capsys.readouterr().out
    assert (tmp_path / "out" / "pictures" / "p1.png").is_file()  # the one with the fault is drawn first
