"""DICOM studies with RTSTRUCT or SEG as data: converted on the scan's own grid, partial labels, split by patient."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from medseg.commands.training import check_data, train
from medseg.errors import DataError, ResourceError
from medseg.imaging import read_volume
from medseg.imaging.nifti import read_label_map, read_nifti
from medseg.imaging.study import read_study
from medseg.imaging.volume import Array, Geometry, reorient
from medseg.models.store import load_model
from medseg.training.cases import read_index
from medseg.training.foreign import adopt, locate
from medseg.training.plan import plan_and_write
from tests.dicom_objects import Polygon, write_rtstruct, write_seg
from tests.phantoms import edit_dicom, phantom_labels, phantom_volume, write_dicom_series
from tests.training.conftest import settings
from tests.training.test_plan import ROOM

SHAPE, SPACING = (40, 36, 24), (6.0, 6.0, 8.0)
ROIS = {"Parotid_L": 1, "Parotid_R": 2, "Cord": 3}
REAL = Path(__file__).resolve().parents[3] / "shared" / "data"


def box(k: range, low: tuple[float, float], high: tuple[float, float]) -> list[Polygon]:
    corners = [low, (high[0], low[1]), high, (low[0], high[1])]
    return [(plane, corners) for plane in k]


def outlines(labels: Array) -> dict[str, list[Polygon]]:
    """Boxes around the phantom's organs: drawings, so that the reader of contours has to fill them."""
    found = {}
    for name, value in ROIS.items():
        where = np.argwhere(labels == value)
        (i, j, k), (i2, j2, k2) = where.min(axis=0), where.max(axis=0)
        found[name] = box(range(k, k2 + 1), (i - 0.5, j - 0.5), (i2 + 0.5, j2 + 0.5))
    return found


def write_study(
    folder: Path, patient: str, rois: tuple[str, ...] = tuple(ROIS), seed: int = 0, kind: str = "rt"
) -> Path:
    volume = phantom_volume(SHAPE, SPACING, orientation="LPS", seed=seed)
    write_dicom_series(folder / "CT", volume)
    for file in (folder / "CT").iterdir():
        edit_dicom(file, lambda dataset: setattr(dataset, "PatientID", patient))
    geometry = read_volume(folder / "CT").geometry
    labels = phantom_labels(volume)
    if kind == "rt":
        drawn = {name: polygons for name, polygons in outlines(labels).items() if name in rois}
        (folder / "RS").mkdir()
        write_rtstruct(folder / "RS" / "rs.dcm", geometry, drawn)
    elif kind == "seg":
        write_seg(folder / "seg.dcm", geometry, {name: labels == ROIS[name] for name in rois})
    return folder


def zipped(folder: Path) -> Path:
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
        for file in sorted(folder.rglob("*.dcm")):
            archive.write(file, file.relative_to(folder))
    shutil.rmtree(folder)
    return folder.with_suffix(".zip")


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six studies of five patients, one zipped, one by SEG, one with two organs; and one that nobody drew on."""
    root = tmp_path_factory.mktemp("studies")
    for number in range(4):
        write_study(root / f"s{number}", f"planted-{number % 3}", seed=number)
    write_study(root / "s4", "planted-3", rois=("Parotid_L", "Parotid_R"), seed=4)
    zipped(root / "s4")
    write_study(root / "s5", "planted-4", seed=5, kind="seg")
    write_study(root / "s6", "planted-5", seed=6, kind="none")
    return root


@pytest.fixture(scope="module")
def index(studies: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    description, ours = locate(studies)
    assert (description, ours) == (studies, False)
    return adopt(description, tmp_path_factory.mktemp("adopted"))


def test_drawings_become_partial_labels_split_by_patient(index: Path) -> None:
    dataset = read_index(index)
    assert set(dataset.labels) == {"parotid_left", "parotid_right", "cord"}
    contoured = {case.id: set(case.contoured) for case in dataset.cases}
    assert contoured["s4"] == {"parotid_left", "parotid_right"}
    assert all(organs == set(dataset.labels) for name, organs in contoured.items() if name != "s4")
    assert [case.id for case in dataset.of("validation")] == ["s5"]  # the fifth patient; s0 and s3 are one
    assert [case.patient for case in dataset.cases] == ["s0", "s1", "s2", "s0", "s4", "s5"]
    (left_out,) = dataset.left_out
    assert (left_out.id, left_out.fault) == ("s6", False)
    assert "no RTSTRUCT" in left_out.reason


@pytest.mark.parametrize("name", ["s0", "s4", "s5"])
def test_masks_lie_on_the_scan_where_they_were_drawn(index: Path, name: str) -> None:
    dataset = read_index(index)
    case = next(case for case in dataset.cases if case.id == name)
    volume, (found, geometry) = read_nifti(case.ct), read_label_map(case.label)
    source = phantom_volume(SHAPE, SPACING, orientation="LPS", seed=int(name[1:]))
    assert geometry.matches(volume.geometry)
    assert np.abs(canonical(volume.hu, volume.geometry) - canonical(source.hu, source.geometry)).max() <= 0.5
    planted, seen = canonical(phantom_labels(source), source.geometry), canonical(found, geometry)
    for organ, value in {"parotid_left": 1, "parotid_right": 2, "cord": 3}.items():
        if organ in case.contoured:
            mask = seen == dataset.labels[organ]
            inside = planted == value
            assert mask[inside].all() if name != "s5" else (mask == inside).all()
            assert mask.sum() < 3 * inside.sum()


def canonical(array: Array, geometry: Geometry) -> Array:
    return np.asarray(reorient(array, geometry.to_canonical), dtype=np.float64)


def test_nothing_of_the_patient_is_written(index: Path) -> None:
    for file in index.parent.rglob("*"):
        assert not file.is_file() or b"planted" not in file.read_bytes().lower()


def test_unchanged_studies_are_not_read_again_and_changed_ones_are(tmp_path: Path) -> None:
    write_study(tmp_path / "in" / "a", "p")
    made = adopt(tmp_path / "in", tmp_path / "out")
    before = made.stat().st_mtime_ns
    assert adopt(tmp_path / "in", tmp_path / "out").stat().st_mtime_ns == before
    geometry = read_volume(tmp_path / "in" / "a" / "CT").geometry
    write_rtstruct(tmp_path / "in/a/RS/rs.dcm", geometry, {"Other": box(range(5, 9), (5.5, 5.5), (9.5, 9.5))})
    dataset = read_index(adopt(tmp_path / "in", tmp_path / "out"))
    assert dataset.labels == {"other": 1}
    assert int((read_label_map(dataset.cases[0].label)[0] == 1).sum()) == 4 * 16


def test_a_failure_that_may_pass_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        write_study(tmp_path / "in" / name, name)
    (tmp_path / "in" / "a" / "gone.dcm").symlink_to(tmp_path / "not-fetched.dcm")

    def full(path: Path) -> Any:
        if path.name == "b":
            raise ResourceError("b: unpacking needs 60 MB of temporary space, more than is free.")
        return read_study(path)

    with monkeypatch.context() as patched:
        patched.setattr("medseg.training.studies.read_study", full)
        dataset = read_index(adopt(tmp_path / "in", tmp_path / "out"))
        with pytest.raises(DataError, match="b: unpacking needs 60 MB"):
            plan_and_write(tmp_path / "in", tmp_path / "mine.yaml", None, ROOM)
    assert ([case.id for case in dataset.cases], [study.id for study in dataset.left_out]) == (["a"], ["b"])
    assert [case.id for case in read_index(adopt(tmp_path / "in", tmp_path / "out")).cases] == ["a", "b"]
    assert not (tmp_path / "mine.yaml").exists()


def test_the_smaller_of_two_overlapping_structures_keeps_the_voxels(tmp_path: Path) -> None:
    study = write_study(tmp_path / "in" / "a", "p", kind="none")
    geometry = read_volume(study / "CT").geometry
    body, organ = box(range(2, 20), (1.5, 1.5), (30.5, 30.5)), box(range(5, 9), (5.5, 5.5), (9.5, 9.5))
    write_rtstruct(study / "rs.dcm", geometry, {"organ": organ, "BODY": body})
    dataset = read_index(adopt(tmp_path / "in", tmp_path / "out"))
    labels = read_label_map(dataset.cases[0].label)[0]
    assert int((labels == dataset.labels["organ"]).sum()) == 4 * 16
    assert any("the smaller keeps them" in note for note in dataset.cases[0].notes)


def test_names_of_any_script_are_organs_and_lines_between_others_are_none(tmp_path: Path) -> None:
    study = write_study(tmp_path / "in" / "a", "p", kind="none")
    geometry = read_volume(study / "CT").geometry
    organ = box(range(5, 9), (5.5, 5.5), (9.5, 9.5))
    write_rtstruct(study / "rs.dcm", geometry, {"Rückenmark": organ, "-----": []})
    assert read_index(adopt(tmp_path / "in", tmp_path / "out")).labels == {"ruckenmark": 1}
    write_rtstruct(study / "rs.dcm", geometry, {"-----": organ})
    (left_out,) = read_index(adopt(tmp_path / "in", tmp_path / "again")).left_out
    assert left_out.fault
    assert "'-----' is no name" in left_out.reason


def describe(folder: Path, **content: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "dataset.json"
    path.write_text(json.dumps(content))
    return path


def test_a_description_chooses_and_names_organs_and_the_split(studies: Path, tmp_path: Path) -> None:
    structures = {"parotid_gland_left": ["Parotid_L", "lt parotid"], "spinal_cord": "Cord"}
    path = describe(tmp_path, studies=str(studies), structures=structures, validation=["s0"])
    dataset = read_index(adopt(path, tmp_path / "out"))
    assert set(dataset.labels) == set(structures)
    assert [case.id for case in dataset.of("validation")] == ["s0", "s3"]  # the same patient


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"studies": "in", "structure": {}}, "structure: Extra"),
        ({"studies": "nowhere"}, "No study in"),
        ({"studies": "in", "validation": ["z"]}, "validation names studies that are not in .*: z"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(tmp_path: Path, content: Any, reason: str) -> None:
    write_study(tmp_path / "in" / "a", "p")
    with pytest.raises(DataError, match=reason):
        adopt(describe(tmp_path, **content), tmp_path / "out")


def test_a_study_to_validate_on_that_was_left_out_keeps_its_reason(studies: Path, tmp_path: Path) -> None:
    shutil.copytree(studies, tmp_path / "in")
    rs = tmp_path / "in/s1/RS/rs.dcm"
    rs.write_bytes(rs.read_bytes()[:700])
    path = describe(tmp_path, studies="in", validation=["s0", "s1"])
    (found,) = [study for study in read_index(adopt(path, tmp_path / "out")).left_out if study.fault]
    assert found.id == "s1"
    assert found.reason


def test_two_drawings_of_one_name_are_refused(tmp_path: Path) -> None:
    study = write_study(tmp_path / "a", "p")
    shutil.copy(study / "RS" / "rs.dcm", study / "RS" / "older.dcm")
    with pytest.raises(DataError, match="a: drawn more than once: Cord, Parotid_L, Parotid_R"):
        read_study(study)


def test_the_check_lists_what_was_left_out_and_a_broken_study_stops_training(
    studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(studies, tmp_path / "in")
    assert check_data(tmp_path / "in", out=tmp_path / "sound", pictures=1) == 0
    assert "warning: s6: holds no RTSTRUCT" in capsys.readouterr().out
    rs = tmp_path / "in/s1/RS/rs.dcm"
    rs.write_bytes(rs.read_bytes()[:700])
    assert check_data(tmp_path / "in", out=tmp_path / "broken", pictures=1) == 3
    assert "error: s1: " in capsys.readouterr().out
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(settings(tmp_path / "in", max_steps=1, open_ended=[])))
    with pytest.raises(DataError, match="s1"):
        train(str(config), out=tmp_path / "run")


def test_the_command_trains_on_a_folder_of_studies(studies: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(settings(tmp_path / "no.json", max_steps=1, open_ended=[])))
    assert train(str(config), out=tmp_path / "run", index=studies, set_=("batch_size=1",)) == 0
    card = load_model(tmp_path / "run" / "package").card
    assert card.metrics["data"] == f"{studies.name}, validation split, 1 patients"
    assert set(card.metrics["organs"]) == {"parotid_left", "parotid_right", "cord"}


@pytest.mark.real
@pytest.mark.skipif(not (REAL / "dicom").is_dir(), reason="needs ../shared/data")
def test_the_sarcomas_become_an_index(tmp_path: Path) -> None:
    dataset = read_index(adopt(REAL / "dicom", tmp_path))
    assert dataset.labels == {"gtv_mass_ct": 1}
    assert [case.id for case in dataset.cases] == ["sts_001", "sts_003", "sts_005"]
    assert [case.id for case in dataset.of("validation")] == ["sts_005"]
    assert [study.id for study in dataset.left_out] == ["crlm_ct_1004.zip"]
