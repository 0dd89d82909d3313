"""Datasets: faults of the index named, and one patient whatever the orientation of the file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg.errors import DataError
from medseg.imaging.nifti import write_label_map
from medseg.imaging.volume import Volume
from medseg.training.cases import TrainingCase, load_case, load_cases, read_index
from tests.phantoms import BOX_HU, SPHERE_HU, orient, phantom_labels, phantom_volume
from tests.training.conftest import LABELS, SPACING_MM, write_case, write_index


@pytest.fixture
def entry(tmp_path: Path, phantom: Volume) -> dict[str, Any]:
    return write_case(tmp_path, "a", "train", phantom)


def load(root: Path, *entries: Any, labels: Any = LABELS) -> TrainingCase:
    dataset = read_index(write_index(root, entries, labels))
    return load_case(dataset.cases[0], dataset.labels, SPACING_MM)


def test_splits_are_kept_apart(dataset: Path) -> None:
    index = read_index(dataset)
    assert [case.id for case in index.of("train")] == ["p0", "p1", "p2", "p3", "p4"]
    assert [case.id for case in index.of("validation")] == ["v0"]
    assert index.of("test") == ()
    assert index.labels == LABELS


def test_a_missing_index_says_where_it_was_sought(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No dataset index at .*index\.json.*`index:`"):
        read_index(tmp_path / "index.json")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "JSON"),
        ("[]", "object"),
        ('{"cases": []}', "labels"),
        ('{"labels": {"liver": "one"}, "cases": []}', r"labels\.liver"),
        ('{"labels": {}, "cases": [{"id": "a", "split": "train"}]}', r"cases\.0\.contoured"),
    ],
)
def test_what_is_no_index_is_refused_by_name(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(DataError, match=f"is not a dataset index: .*{reason}"):
        read_index(tmp_path / "index.json")


@pytest.mark.parametrize("labels", [{"a": 1, "b": 3}, {"a": 2}])
def test_numbers_with_gaps_are_refused_before_training(tmp_path: Path, entry: Any, labels: dict[str, int]) -> None:
    with pytest.raises(DataError, match=r"numbered 1, 2, 3 \.\.\. without a gap; they are: a \d.*MSD"):
        load(tmp_path, entry | {"contoured": ["a"]}, labels=labels)
    index = write_index(tmp_path, [entry | {"contoured": ["a"]}], labels)
    assert read_index(index, gaps=True).labels == labels  # of those who train no network on them


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"background": 0, "a": 1}, r"background has the value 0, .*Leave background out of `labels`"),
        ({"a": 1, "b": 2, "c": 1}, r"two organs have one value: a 1, c 1\. .*value of its own"),
    ],
)
def test_background_and_shared_values_are_named(tmp_path: Path, labels: dict[str, int], said: str) -> None:
    with pytest.raises(DataError, match=rf"index\.json: {said}"):
        read_index(write_index(tmp_path, [], labels))


@pytest.mark.parametrize("file", ["a_ct.nii.gz", "a_label.nii.gz"])
def test_a_missing_file_is_named(tmp_path: Path, entry: Any, file: str) -> None:
    (tmp_path / "train" / file).unlink()
    with pytest.raises(DataError, match=f"Case a: {re.escape(str(tmp_path))}/train/{file} is missing"):
        read_index(write_index(tmp_path, [entry]))


def test_a_misspelt_split_is_named_beside_those_there_are(tmp_path: Path, entry: Any) -> None:
    with pytest.raises(DataError, match=r"trian/a_ct\.nii\.gz is missing\. .*'trian'.* train, validation, test\."):
        read_index(write_index(tmp_path, [entry | {"split": "trian"}]))


def test_a_patient_in_two_splits_is_refused(tmp_path: Path, entry: Any, phantom: Volume) -> None:
    again = write_case(tmp_path, "a", "validation", phantom)
    with pytest.raises(DataError, match="listed twice: a"):
        read_index(write_index(tmp_path, [entry, again]))


def test_an_organ_without_a_value_is_refused(tmp_path: Path, entry: Any) -> None:
    with pytest.raises(DataError, match=r"Case a: .*: liver, spleen\. The organs of .*index\.json are: parotid_"):
        read_index(write_index(tmp_path, [entry | {"contoured": ["spleen", "liver"]}]))


def test_a_value_without_a_name_is_refused(tmp_path: Path, entry: Any) -> None:
    fewer = {"parotid_gland_left": 1, "parotid_gland_right": 2}
    with pytest.raises(DataError, match=r"Case a: label values \[3\] are not in the label table"):
        load(tmp_path, entry | {"contoured": list(fewer)}, labels=fewer)


def test_grids_that_differ_are_refused(tmp_path: Path, entry: Any) -> None:
    moved = phantom_volume(orientation="LPS", origin_mm=(7.0, -11.0, 24.0))
    write_label_map(tmp_path / "train" / "a_label.nii.gz", phantom_labels(moved), moved.geometry)
    said = (
        r"Case a: scan and labels lie on different grids: their corners lie up to \d+ mm apart\. Write .*a_label\.nii"
    )
    with pytest.raises(DataError, match=said):
        load(tmp_path, entry)


def test_a_scan_of_nobody_is_refused(tmp_path: Path, phantom: Volume) -> None:
    foam = Volume(np.where(phantom.hu > -300, -225, phantom.hu).astype(np.float32), phantom.geometry)
    with pytest.raises(DataError, match=r"Case a: .*no body"):
        load(tmp_path, write_case(tmp_path, "a", "train", foam))


def test_numbers_may_be_names(tmp_path: Path, phantom: Volume) -> None:
    entry = write_case(tmp_path, "7", "train", phantom) | {"id": 7}
    assert load(tmp_path, entry).id == "7"


@pytest.fixture(scope="module")
def upright(tmp_path_factory: pytest.TempPathFactory) -> TrainingCase:
    root = tmp_path_factory.mktemp("upright")
    return load(root, write_case(root, "a", "train", phantom_volume()))


@pytest.mark.parametrize("orientation", ["LPS", "LAS", "RSP", "SPR", "PIL", "ILA"])
def test_the_files_orientation_does_not_matter(tmp_path: Path, upright: TrainingCase, orientation: str) -> None:
    case = load(tmp_path, write_case(tmp_path, "a", "train", orient(phantom_volume(), orientation)))
    np.testing.assert_array_equal(case.hu, upright.hu)
    np.testing.assert_array_equal(case.labels, upright.labels)
    for value, where in upright.places.items():
        np.testing.assert_array_equal(case.places[value], where)


def test_the_training_grid_is_ras_with_its_spacing(upright: TrainingCase) -> None:
    assert upright.hu.shape == upright.labels.shape == (24, 20, 18)
    assert (upright.hu.dtype, upright.labels.dtype) == (np.int16, np.uint8)
    left, right = (np.argwhere(upright.labels == value).mean(axis=0) for value in (1, 2))
    assert left[0] < 11.5 < right[0]  # i grows to the patient's right
    assert left[2] > right[2]  # the sphere lies higher


def test_organs_keep_their_hu(upright: TrainingCase) -> None:
    assert np.median(upright.hu[upright.labels == 1]) == pytest.approx(SPHERE_HU, abs=12)
    assert np.median(upright.hu[upright.labels == 2]) == pytest.approx(BOX_HU, abs=25)  # narrow: its faces are mixed


def test_on_its_own_spacing_nothing_is_interpolated(dataset: Path) -> None:
    case = load_case(read_index(dataset).cases[0], LABELS, (3.5, 3.5, 4.0))
    volume = phantom_volume(seed=0)
    np.testing.assert_array_equal(case.hu, volume.hu)
    np.testing.assert_array_equal(case.labels, phantom_labels(volume))


def test_what_was_not_contoured_is_unknown(tmp_path: Path, phantom: Volume) -> None:
    case = load(tmp_path, write_case(tmp_path, "a", "train", phantom, ["parotid_gland_right"]))
    assert case.known.tolist() == [True, False, True, False]
    assert set(case.places) == {0, 2}


def test_places_are_voxels_of_the_organ_and_of_the_body(upright: TrainingCase) -> None:
    assert set(upright.places) == {0, 1, 2, 3}
    for value in (1, 2, 3):
        assert len(upright.places[value]) == (upright.labels == value).sum()
        assert (upright.labels[tuple(upright.places[value].T)] == value).all()
    assert (upright.hu[tuple(upright.places[0].T)] >= -200).all()


@pytest.mark.real
def test_the_real_patients_have_their_left_on_the_left(real_data: Path) -> None:
    index = read_index(real_data / "openkbp_hn" / "index.json")
    assert {case.split for case in index.cases} >= {"train", "validation"}
    spacing = (3.906, 3.906, 2.5)
    case = next(case for case in index.of("train") if len(case.contoured) >= 5)
    loaded = load_case(case, index.labels, spacing)
    middle = {name: np.mean(loaded.places[index.labels[name]], axis=0) for name in case.contoured}
    assert middle["parotid_gland_left"][0] < middle["parotid_gland_right"][0]
    assert middle["spinal_cord"][1] < middle["mandible"][1]  # j grows to the front
    assert middle["spinal_cord"][2] < middle["brainstem"][2]  # k grows to the head


def test_many_cases_come_in_order(dataset: Path, cases: list[TrainingCase]) -> None:
    assert [case.id for case in cases] == [case.id for case in read_index(dataset).of("train")]
    assert list(load_cases((), LABELS, SPACING_MM)) == []


def one_voxel_of(labels: Any, value: int) -> Any:
    """Less than half a voxel of the training grid."""
    kept = tuple(np.argwhere(labels == value)[0])
    labels[labels == value] = 0
    labels[kept] = value
    return labels


def test_an_organ_too_small_for_a_voxel_is_not_taught_to_be_absent(tmp_path: Path, entry: Any, phantom: Volume) -> None:
    labels = one_voxel_of(phantom_labels(phantom), LABELS["parotid_gland_left"])
    write_label_map(tmp_path / "train/a_label.nii.gz", labels, phantom.geometry)
    case = load(tmp_path, entry)
    assert case.known.tolist() == [True, False, True, True]
    assert set(case.places) == {0, LABELS["parotid_gland_right"], LABELS["spinal_cord"]}
