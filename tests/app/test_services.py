"""The desk, with real jobs: uploads in, results out, errors as advice, nothing left behind."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from app.results import FILES, read_scene
from app.services import Desk, Refused, Status, models, strip_ending
from medseg.imaging.volume import reorient
from tests.phantoms import ROD_CENTRE_MM, orient, phantom_volume, write_dicom_series, write_nifti


class Upload(io.BytesIO):
    """What a browser hands in."""

    def __init__(self, name: str, content: bytes) -> None:
        super().__init__(content)
        self.name = name


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    desk = Desk(tmp_path_factory.mktemp("page"))
    yield desk
    desk.close()
    assert not desk.folders.root.exists()


def finish(desk: Desk, study: str, timeout_s: float = 200) -> Status:
    end = time.monotonic() + timeout_s
    while desk.status(study).state in ("queued", "running"):
        assert time.monotonic() < end, desk.status(study)
        time.sleep(0.05)
    return desk.status(study)


def run(desk: Desk, study: str, series: str | None = None) -> Status:
    desk.run(study, "tissue-hu", series)
    return finish(desk, study)


def test_an_upload_becomes_a_result_with_pictures_on_its_grid(desk: Desk, tmp_path: Path) -> None:
    volume = phantom_volume(orientation="LPS", noise_hu=0)
    content = write_nifti(tmp_path / "a.nii.gz", volume).read_bytes()
    study = desk.take_uploads([Upload("Müller Ankle.nii.gz", content)])
    status = run(desk, study)
    assert (status.state, status.title, status.model) == ("done", "Müller Ankle", "tissue-hu")

    result = desk.result(study)
    written = {row["organ"]: row["volume_ml"] for row in json.loads((result.folder / "measurements.json").read_text())}
    assert {row.name: row.volume_ml for row in result.organs} == written
    assert written["bone"] > 10

    scene = read_scene(result.folder)
    mask = nib.load(result.folder / "mask.nii.gz")
    canonical = reorient(np.asarray(mask.dataobj), nib.io_orientation(mask.affine))
    assert (scene.mask == canonical).all()
    assert (scene.hu == reorient(volume.hu, volume.geometry.to_canonical)).all()
    assert scene.spacing_mm == pytest.approx((3.5, 3.5, 4.0))
    bone = next(row.value for row in result.organs if row.name == "bone")
    assert scene.middles[bone][1] < scene.shape[1] / 2 + ROD_CENTRE_MM[1] / 3.5 + 2  # the rod is at the back


def test_the_zip_holds_the_files_and_no_pictures(desk: Desk, tmp_path: Path) -> None:
    study = desk.take_path(write_nifti(tmp_path / "b.nii.gz", phantom_volume()))
    run(desk, study)
    packed = zipfile.ZipFile(io.BytesIO(desk.result(study).archive()))
    assert packed.namelist() == list(FILES)
    assert packed.read("mask.nii.gz") == (desk.result(study).folder / "mask.nii.gz").read_bytes()


@pytest.mark.parametrize(
    "name", ["../../evil.nii.gz", "/etc/passwd.nii.gz", "..\\up.nii.gz", "a\0b.nii.gz", "n" * 400 + ".nii.gz"]
)
def test_the_browsers_name_is_never_a_path(desk: Desk, name: str) -> None:
    study = desk.take_uploads([Upload(name, b"x")])
    inside = [path for path in desk.folders.root.rglob("*") if study in path.parts and path.is_file()]
    assert [path.name for path in inside] == ["scan.nii.gz"]
    desk.forget(study)


def test_several_files_are_one_series(desk: Desk, tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "series", phantom_volume())
    uploads = [Upload(path.name, path.read_bytes()) for path in sorted(folder.iterdir())]
    study = desk.take_uploads(uploads)
    status = run(desk, study)
    assert (status.state, status.title) == ("done", "36 files")
    assert read_scene(desk.result(study).folder).shape == (48, 40, 36)


def test_a_broken_file_is_named_as_the_user_knows_it(desk: Desk, tmp_path: Path) -> None:
    content = write_nifti(tmp_path / "c.nii.gz", phantom_volume()).read_bytes()
    study = desk.take_uploads([Upload("my scan.nii.gz", content[: len(content) // 2])])
    status = run(desk, study)
    assert status.state == "failed"
    assert status.problem is not None
    assert status.problem.message.startswith("my scan.nii.gz: ")
    assert status.problem.advice
    assert "Traceback" not in status.problem.message
    assert str(desk.folders.root) not in status.problem.message


def test_several_series_are_a_choice_and_the_chosen_one_is_run(desk: Desk, tmp_path: Path) -> None:
    write_dicom_series(tmp_path / "study", phantom_volume())
    small = phantom_volume((30, 30, 20), (4.0, 4.0, 6.0))
    write_dicom_series(tmp_path / "study", small, names=lambda k: f"B{k}.dcm")
    study = desk.take_path(tmp_path / "study")
    problem = run(desk, study).problem
    assert problem is not None
    assert len(problem.series) == 2
    shapes = []
    for number in ("1", "2"):
        assert run(desk, study, number).state == "done"
        shapes.append(read_scene(desk.result(study).folder).shape)
    assert sorted(shapes) == [(30, 30, 20), (48, 40, 36)]


def test_the_source_on_the_server_is_left_alone(desk: Desk, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "mine.nii.gz", orient(phantom_volume(), "PIR"))
    before = path.read_bytes()
    study = desk.take_path(path)
    run(desk, study)
    desk.forget(study)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.nii.gz"]


def test_forgetting_deletes_scan_and_result(desk: Desk, tmp_path: Path) -> None:
    content = write_nifti(tmp_path / "d.nii.gz", phantom_volume()).read_bytes()
    study = desk.take_uploads([Upload("d.nii.gz", content)])
    run(desk, study)
    desk.forget(study)
    end = time.monotonic() + 5
    while (desk.folders.root / study).exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert not (desk.folders.root / study).exists()
    assert desk.status(study).state == "gone"


def test_a_job_in_the_queue_is_cancelled_at_once_and_knows_its_place(desk: Desk, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "e.nii.gz", phantom_volume())
    studies = [desk.take_path(path) for _ in range(3)]
    for study in studies:
        desk.run(study, "tissue-hu")
    assert desk.status(studies[2]).before in (1, 2)  # the first may have ended by now
    desk.cancel(studies[2])
    assert desk.status(studies[2]).state == "cancelled"
    assert [finish(desk, study).state for study in studies[:2]] == ["done", "done"]


def test_what_is_not_there_is_refused_with_advice(desk: Desk, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        desk.take_path(tmp_path / "nothing")
    assert str(tmp_path / "nothing") in refused.value.problem.message
    assert refused.value.problem.advice
    assert desk.status("x" * 22).state == "gone"


def test_models_say_what_they_are_for() -> None:
    found = {model.name: model for model in models()}
    assert found["tissue-hu"].field
    assert found["tissue-hu"].limits


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a.nii.gz", "a"),
        ("b.NII.GZ", "b"),
        ("x/y.zip", "y"),
        ("c:\\d\\e.dcm", "e"),
        ("IM0001", "IM0001"),
        ("f.g.mha", "f.g"),
    ],
)
def test_names_are_shown_without_folder_and_ending(name: str, shown: str) -> None:
    assert strip_ending(name) == shown
