"""Data sets of nnU-Net v2, MSD and MONAI: read as they lie, never changed, refused by name where they do not fit."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from medseg.commands.training import train
from medseg.errors import ConfigError, DataError
from medseg.imaging.nifti import read_label_map, write_label_map
from medseg.inference.segmenter import build_segmenter
from medseg.models.store import load_model
from medseg.training.cases import load_cases, read_index
from medseg.training.config import PhantomConfig
from medseg.training.foreign import adopt, locate
from medseg.training.phantoms import write_phantoms
from tests.packaging.checkout import ROOT
from tests.phantoms import phantom_labels, phantom_volume, write_nifti
from tests.training.conftest import SPACING_MM, settings, write_case, write_index

NNUNET = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "Left Parotid": 1, "parotid_R": 2, "cord": 3},
    "numTraining": 5,
    "file_ending": ".nii.gz",
}
MSD_LABELS = {"0": "background", "1": "Left Parotid", "2": "parotid_R", "3": "cord"}


def write(folder: Path, description: Any, count: int = 5, scan: str = "imagesTr/c{}_0000.nii.gz") -> Path:
    """`count` phantoms in nnU-Net's folders, and a dataset.json."""
    for sub in ("imagesTr", "labelsTr"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    for n in range(count):
        volume = phantom_volume(seed=n)
        write_nifti(folder / scan.format(n), volume)
        write_label_map(folder / f"labelsTr/c{n}.nii.gz", phantom_labels(volume), volume.geometry)
    counted = {"numTraining": count} if "numTraining" in description else {}
    (folder / "dataset.json").write_text(json.dumps(description | counted))
    return folder / "dataset.json"


def msd(count: int = 5, **more: Any) -> dict[str, Any]:
    rows = [{"image": f"./imagesTr/c{n}.nii.gz", "label": f"./labelsTr/c{n}.nii.gz"} for n in range(count)]
    return {"modality": {"0": "CT"}, "labels": MSD_LABELS, "training": rows} | more


def test_an_nnunet_folder_becomes_an_index_of_links(tmp_path: Path) -> None:
    description = write(tmp_path / "Dataset001_Neck", NNUNET)
    assert locate(description.parent) == (description, False)
    index = adopt(description, tmp_path / "run")
    dataset = read_index(index)
    assert dataset.labels == {"parotid_left": 1, "parotid_right": 2, "cord": 3}
    assert [case.id for case in dataset.of("train")] == ["c0", "c1", "c2", "c3"]
    assert [case.id for case in dataset.of("validation")] == ["c4"]
    assert dataset.cases[0].ct.resolve() == description.parent / "imagesTr/c0_0000.nii.gz"
    assert locate(index) == (index, True)
    assert locate(index.parent) == (index, True)
    (case,) = load_cases(dataset.cases[:1], dataset.labels, SPACING_MM)
    assert np.unique(case.labels).tolist() == [0, 1, 2, 3]
    adopt(description, tmp_path / "run")  # again, over what is there


def test_a_case_that_changes_sides_leaves_nothing_behind(tmp_path: Path) -> None:
    """`medseg evaluate` goes by the files: a reference that lay on both sides would be a miss."""
    description = write(tmp_path / "in", NNUNET)
    adopt(description, tmp_path / "run")
    for file in (tmp_path / "in").rglob("c0*"):
        file.rename(file.with_name(file.name.replace("c0", "c9")))
    dataset = read_index(adopt(description, tmp_path / "run"))
    assert [case.id for case in dataset.of("validation")] == ["c9"]
    found = {
        split: sorted(path.name for path in (tmp_path / "run" / split).iterdir()) for split in ("train", "validation")
    }
    assert found["validation"] == ["c9_ct.nii.gz", "c9_label.nii.gz"]
    assert [name[:2] for name in found["train"][::2]] == ["c1", "c2", "c3", "c4"]


def test_a_data_set_that_somebody_wrote_is_not_overwritten(tmp_path: Path) -> None:
    own = tmp_path / "run"
    write_index(own, [write_case(own, "c0", "train", phantom_volume())])
    before = {path: path.read_bytes() for path in own.rglob("*.*")}
    with pytest.raises(ConfigError, match=r"run/index\.json would be overwritten, and is a data set of its own"):
        adopt(write(tmp_path / "in", NNUNET), own)
    with pytest.raises(ConfigError, match="is a data set of its own"):
        write_phantoms(own, PhantomConfig())
    assert {path: path.read_bytes() for path in own.rglob("*.*")} == before


def test_nnunets_own_folds_decide_where_there_are_some(tmp_path: Path) -> None:
    description = write(tmp_path, NNUNET)
    folds = [{"train": ["c2", "c3", "c4"], "val": ["c0", "c1"]}, {"train": [], "val": []}]
    (tmp_path / "splits_final.json").write_text(json.dumps(folds))
    dataset = read_index(adopt(description, tmp_path / "run"))
    assert [case.id for case in dataset.of("validation")] == ["c0", "c1"]


def test_a_case_that_the_fold_holds_back_is_not_trained_on(tmp_path: Path) -> None:
    description = write(tmp_path, NNUNET)
    (tmp_path / "splits_final.json").write_text(json.dumps([{"train": ["c2", "c3"], "val": ["c0"]}]))
    dataset = read_index(adopt(description, tmp_path / "run"))
    assert [case.id for case in dataset.of("train")] == ["c2", "c3"]
    assert [(study.id, study.fault) for study in dataset.left_out] == [("c1", False), ("c4", False)]
    assert "neither trains nor validates" in dataset.left_out[0].reason


@pytest.mark.parametrize(
    ("folds", "reason"),
    [
        ([{"train": ["c0"], "val": ["c7"]}], "names cases that are not there: c7"),
        ([{"train": ["c0", "c1"], "val": ["c1"]}], "trains on cases that validate: c1"),
        ([], "is no list of nnU-Net's folds"),
        ({"train": ["c0"]}, "is no list of nnU-Net's folds"),
        ([{"train": "c0", "val": []}], "is no list of nnU-Net's folds"),
        (None, "is no list of nnU-Net's folds"),
    ],
    ids=str,
)
def test_folds_that_do_not_fit_are_refused(tmp_path: Path, folds: Any, reason: str) -> None:
    description = write(tmp_path, NNUNET, count=2)
    (tmp_path / "splits_final.json").write_text(json.dumps(folds) if folds is not None else '[{"tr')
    with pytest.raises(DataError, match=reason):
        adopt(description, tmp_path / "run")


def test_an_incomplete_copy_is_noticed(tmp_path: Path) -> None:
    description = write(tmp_path, NNUNET, count=3)
    (tmp_path / "labelsTr/c1.nii.gz").unlink()
    with pytest.raises(DataError, match=r"counts 3 training cases; labelsTr holds 2 .*Copy what is missing"):
        adopt(description, tmp_path / "run")


def gappy(folder: Path) -> Path:
    """The phantoms with labels 2, 5 and 9."""
    description = write(folder, NNUNET | {"labels": {"background": 0, "cord": 9, "Left Parotid": 2, "parotid_R": 5}})
    for file in (folder / "labelsTr").iterdir():
        labels, geometry = read_label_map(file)
        write_label_map(file, np.array([0, 2, 5, 9], np.uint8)[labels], geometry)
    return description


def test_labels_with_gaps_are_numbered_anew_beside_the_data(tmp_path: Path) -> None:
    description = gappy(tmp_path / "d")
    before = {file.name: file.read_bytes() for file in (tmp_path / "d/labelsTr").iterdir()}
    dataset = read_index(adopt(description, tmp_path / "run"))
    assert dataset.labels == {"cord": 3, "parotid_left": 1, "parotid_right": 2}
    for n, case in enumerate(dataset.cases):
        assert np.array_equal(read_label_map(case.label)[0], phantom_labels(phantom_volume(seed=n)))
    assert before == {file.name: file.read_bytes() for file in (tmp_path / "d/labelsTr").iterdir()}


def test_what_was_numbered_anew_is_kept_until_data_or_table_change(tmp_path: Path) -> None:
    description = gappy(tmp_path / "d")
    made = read_index(adopt(description, tmp_path / "run")).cases[0].label
    first = made.stat()
    adopt(description, tmp_path / "run")
    assert made.stat().st_ino == first.st_ino
    os.utime(tmp_path / "d/labelsTr/c0.nii.gz", ns=(1, 1))
    adopt(description, tmp_path / "run")
    assert made.stat().st_ino != first.st_ino
    description.write_text(json.dumps(NNUNET | {"labels": {"background": 0, "x": 1, "a": 2, "b": 5, "c": 9}}))
    dataset = read_index(adopt(description, tmp_path / "run"))
    assert dataset.labels == {"x": 1, "a": 2, "b": 3, "c": 4}
    assert np.unique(read_label_map(made)[0]).tolist() == [0, 2, 3, 4]
    adopt(write(tmp_path / "d", NNUNET), tmp_path / "run")  # links again
    assert np.unique(read_label_map(made)[0]).tolist() == [0, 1, 2, 3]


def test_a_label_that_the_table_lacks_is_refused_where_they_are_numbered_anew(tmp_path: Path) -> None:
    description = gappy(tmp_path / "d")
    description.write_text(json.dumps(NNUNET | {"labels": {"background": 0, "a": 2, "b": 5}}))
    with pytest.raises(DataError, match=r"Case c0: label values \[9\] are not in the label table"):
        adopt(description, tmp_path / "run")


def test_a_model_of_labels_with_gaps_can_be_used(tmp_path: Path) -> None:
    description = gappy(tmp_path / "d")
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(settings(description, max_steps=1, open_ended=[])))
    assert train(str(config), out=tmp_path / "out", set_=("batch_size=1",)) == 0
    package = load_model(tmp_path / "out" / "package")
    assert package.card.label_table.names == {"parotid_left": 1, "parotid_right": 2, "cord": 3}
    assert build_segmenter(package).labels.names == package.card.label_table.names


def test_msd_and_monai_lists(tmp_path: Path) -> None:
    description = write(tmp_path, msd(), scan="imagesTr/c{}.nii.gz")
    dataset = read_index(adopt(description, tmp_path / "run"))
    assert dataset.labels == {"parotid_left": 1, "parotid_right": 2, "cord": 3}
    assert [len(dataset.of(split)) for split in ("train", "validation")] == [4, 1]
    rows = msd()["training"]
    description.write_text(json.dumps(msd(training=rows[:2], validation=rows[2:])))
    dataset = read_index(adopt(description, tmp_path / "monai"))
    assert [len(dataset.of(split)) for split in ("train", "validation")] == [2, 3]


def test_names_that_look_like_roles_are_scored_under_their_own(tmp_path: Path) -> None:
    """MONAI's ID_seg, and a stale label of a case that went over to the other side."""
    description = write(tmp_path / "data", msd(), scan="imagesTr/c{}.nii.gz")
    rows = [{"image": row["image"], "label": row["label"].replace(".nii", "_seg.nii")} for row in msd()["training"]]
    for n in range(5):
        (tmp_path / f"data/labelsTr/c{n}.nii.gz").rename(tmp_path / f"data/labelsTr/c{n}_seg.nii.gz")
    description.write_text(json.dumps(msd(training=rows[:4], validation=rows[4:])))
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(settings(description, max_steps=1, open_ended=[])))
    stale = tmp_path / "out/data/data/validation"
    stale.mkdir(parents=True)
    shutil.copy(tmp_path / "data/labelsTr/c0_seg.nii.gz", stale / "c0_seg_label.nii.gz")
    assert train(str(config), out=tmp_path / "out", set_=("batch_size=1",)) == 0
    rows = (tmp_path / "out/scores/scores.csv").read_text().splitlines()[1:]
    assert {row.split(",")[0] for row in rows} == {"c4_seg"}


def test_cases_in_folders_of_their_own_keep_their_names(tmp_path: Path) -> None:
    rows = []
    for n in range(2):
        volume, folder = phantom_volume(seed=n), tmp_path / f"p{n}"
        folder.mkdir()
        write_nifti(folder / "ct.nii", volume)
        write_label_map(folder / "label.nii.gz", phantom_labels(volume), volume.geometry)
        rows.append({"image": f"p{n}/ct.nii", "label": f"p{n}/label.nii.gz"})
    (tmp_path / "dataset.json").write_text(json.dumps(msd(training=rows)))
    dataset = read_index(adopt(tmp_path / "dataset.json", tmp_path / "run"))
    assert [case.id for case in dataset.cases] == ["p0_label", "p1_label"]
    assert len(list(load_cases(dataset.cases, dataset.labels, SPACING_MM))) == 2  # .nii behind a link named .nii.gz


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"channel_names": {"0": "CT", "1": "PET"}}, "2 channels"),
        ({"labels": {"background": 0, "tumour": [1, 2]}}, "tumour is a region"),
        ({"labels": {"background": 0, "a": 1, "ignore": 2}}, "ignore label"),
        ({"labels": {"background": 0, "a": "x"}}, "a has the value 'x'"),
        ({"labels": {"background": 0, "left a": 1, "a_l": 2}}, "one name or one value"),
        ({"labels": None}, "no `labels`"),
        ({"labels": {"background": 0, "--": 1}}, "the label '--' is no name"),
        ({"channel_names": None}, "no channels"),
        ({"file_ending": ".nrrd"}, r"counts 1 training cases; labelsTr holds 0 that end in \.nrrd"),
        ({"training": None}, "one `image` and one `label`"),
        ({"training": [{"image": "imagesTr/c0_0000.nii.gz"}]}, "one `image` and one `label`"),
        ({"training": [{"image": "x.nii.gz", "label": "labelsTr/c0.nii.gz"}]}, "Case c0: .*x.nii.gz is missing"),
        ({"training": [{"image": "dataset.json", "label": "labelsTr/c0.nii.gz"}]}, "dataset.json is no NIfTI"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_by_name(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    description = write(tmp_path, NNUNET | change, count=1)
    with pytest.raises(DataError, match=reason):
        adopt(description, tmp_path / "run")


@pytest.mark.parametrize("text", ["{", "[1]", "\xff"])
def test_a_description_that_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset.json").write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=r"dataset\.json is no"):
        locate(tmp_path)


def test_a_scan_in_place_of_a_description_is_told_what_is_wanted(tmp_path: Path) -> None:
    scan = write_nifti(tmp_path / "scan.nii.gz", phantom_volume())
    with pytest.raises(DataError, match=r"scan\.nii\.gz is no description .*: it is no text\. Give an index"):
        locate(scan)


def test_nothing_there_is_said_with_what_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is nothing at .*nowhere\. Give .*nnU-Net v2 dataset folder"):
        locate(tmp_path / "nowhere")


def test_the_index_that_the_documentation_shows_can_be_read(tmp_path: Path) -> None:
    (index,) = re.findall(r"```json\n(.*?)```", (ROOT / "docs/DATA.md").read_text(), re.DOTALL)
    (tmp_path / "index.json").write_text(index)
    for case in json.loads(index)["cases"]:
        for role in ("ct", "label"):
            (tmp_path / case["split"]).mkdir(exist_ok=True)
            (tmp_path / case["split"] / f"{case['id']}_{role}.nii.gz").touch()
    assert locate(tmp_path) == (tmp_path / "index.json", True)
    assert [case.id for case in read_index(tmp_path / "index.json").cases] == ["anna", "ben", "carl"]


@pytest.mark.parametrize("place", ["scan.nii.gz", "train/a_ct.nii.gz"])
def test_a_folder_that_nothing_describes_is_not_said_to_be_missing(tmp_path: Path, place: str) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    write_nifti(tmp_path / place, phantom_volume())
    with pytest.raises(DataError, match=r"is there, but nothing describes it: .*Write an index\.json .*docs/DATA\.md"):
        locate(tmp_path)


def test_the_command_trains_on_an_nnunet_folder(tmp_path: Path) -> None:
    description = write(tmp_path / "Dataset002_Small", NNUNET)
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(settings(tmp_path / "no.json", max_steps=1, open_ended=[])))
    assert train(str(config), out=tmp_path / "out", index=description.parent, set_=("batch_size=1",)) == 0
    card = load_model(tmp_path / "out" / "package").card
    assert card.metrics["data"] == "Dataset002_Small, validation split, 1 patients"
    assert card.training["config"]["batch_size"] == 1
