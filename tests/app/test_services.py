"""The desk, with real jobs: scans in, results out, errors as advice, and every study its owner's alone."""

from __future__ import annotations

import io
import json
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from app.results import FILES
from app.services import Desk
from app.studies import Refused
from app.uploads import strip_ending
from medseg.imaging.volume import reorient
from tests.app.conftest import OTHER, VISITOR, Upload, ended, read, run, until
from tests.phantoms import ROD_CENTRE_MM, orient, phantom_volume, write_dicom_series, write_nifti


def test_an_upload_is_seen_and_becomes_a_result_on_its_grid(desk: Desk, tmp_path: Path) -> None:
    volume = phantom_volume(orientation="LPS", noise_hu=0)
    content = write_nifti(tmp_path / "a.nii.gz", volume).read_bytes()
    study = desk.take_uploads([Upload("Müller Ankle.nii.gz", content)], VISITOR)
    view = read(desk, study)
    assert (view.phase, view.title, view.runs) == ("read", "Müller Ankle", ())
    assert view.scan is not None
    assert (view.scan.hu() == reorient(volume.hu, volume.geometry.to_canonical)).all()

    finished = run(desk, study)
    assert (finished.state, finished.number, finished.model) == ("done", 1, "tissue-hu")
    result = desk.result(study, VISITOR, 1)
    assert result is not None
    written = {row["organ"]: row["volume_ml"] for row in json.loads((result.folder / "measurements.json").read_text())}
    assert {row.name: row.volume_ml for row in result.organs} == written
    assert written["bone"] > 10

    mask = nib.load(result.folder / "mask.nii.gz")
    assert (result.mask() == reorient(np.asarray(mask.dataobj), nib.io_orientation(mask.affine))).all()
    bone = next(row.value for row in result.organs if row.name == "bone")
    assert result.mask()[result.middles[bone]] == bone
    assert result.middles[bone][1] < 20 + ROD_CENTRE_MM[1] / 3.5 + 2  # the rod is at the back
    assert sum(result.histograms[bone].counts) == (result.mask() == bone).sum()


def test_the_first_picture_is_there_before_the_viewers_data_and_for_its_owner_alone(desk: Desk, tmp_path: Path) -> None:
    study = desk.take_path(write_nifti(tmp_path / "a.nii.gz", phantom_volume()), VISITOR)
    desk.await_reading(study, VISITOR, 60, or_picture=True)
    picture = desk.first_picture(study, VISITOR)
    assert picture is not None
    with Image.open(picture) as image:
        assert image.size == (3 * 480, 480)
    assert desk.first_picture(study, OTHER) is None
    desk.await_reading(study, VISITOR, 60)
    scan = desk.scan(study, VISITOR)
    assert scan is not None
    assert picture.stat().st_mtime_ns < (scan.folder / "scan.json").stat().st_mtime_ns


def test_the_zip_holds_the_files_and_nothing_of_the_page(desk: Desk, tmp_path: Path) -> None:
    study = desk.take_path(write_nifti(tmp_path / "b.nii.gz", phantom_volume()), VISITOR)
    run(desk, study)
    result = desk.result(study, VISITOR, 1)
    assert result is not None
    packed = zipfile.ZipFile(io.BytesIO(result.archive()))
    assert packed.namelist() == list(FILES)
    assert packed.read("mask.nii.gz") == (result.folder / "mask.nii.gz").read_bytes()


@pytest.mark.parametrize(
    "name", ["../../evil.nii.gz", "/etc/passwd.nii.gz", "..\\up.nii.gz", "a\0b.nii.gz", "n" * 400 + ".nii.gz"]
)
def test_the_browsers_name_is_never_a_path(desk: Desk, name: str) -> None:
    study = desk.take_uploads([Upload(name, b"x")], VISITOR)
    inside = [path for path in (desk.folders.root / study / "input").rglob("*") if path.is_file()]
    assert [path.name for path in inside] == ["scan.nii.gz"]
    desk.forget(study, VISITOR)


def test_several_files_are_one_series(desk: Desk, tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "series", phantom_volume())
    uploads = [Upload(path.name, path.read_bytes()) for path in sorted(folder.iterdir())]
    view = read(desk, desk.take_uploads(uploads, VISITOR))
    assert (view.phase, view.title) == ("read", "36 files")
    assert view.scan is not None
    assert view.scan.shape == (48, 40, 36)


def test_a_broken_file_is_named_as_the_visitor_knows_it(desk: Desk, tmp_path: Path) -> None:
    content = write_nifti(tmp_path / "c.nii.gz", phantom_volume()).read_bytes()
    study = desk.take_uploads([Upload("my scan.nii.gz", content[: len(content) // 2])], VISITOR)
    view = read(desk, study)
    assert view.phase == "unreadable"
    assert view.problem is not None
    assert view.problem.message.startswith("my scan.nii.gz: ")
    assert view.problem.advice
    assert view.problem.code in ("TruncatedFileError", "CorruptFileError")
    assert "Traceback" not in view.problem.message
    assert str(desk.folders.root) not in view.problem.message


def test_several_series_are_a_choice_and_the_chosen_one_is_read(desk: Desk, tmp_path: Path) -> None:
    write_dicom_series(tmp_path / "study", phantom_volume())
    small = phantom_volume((30, 30, 20), (4.0, 4.0, 6.0))
    write_dicom_series(tmp_path / "study", small, names=lambda k: f"B{k}.dcm")
    study = desk.take_path(tmp_path / "study", VISITOR)
    problem = read(desk, study).problem
    assert problem is not None
    assert len(problem.series) == 2
    shapes = []
    for series in ("1", "2"):
        desk.choose_series(study, VISITOR, series)
        view = read(desk, study)
        assert view.scan is not None
        shapes.append(view.scan.shape)
    assert sorted(shapes) == [(30, 30, 20), (48, 40, 36)]
    assert run(desk, study).state == "done"
    result = desk.result(study, VISITOR, 1)
    assert result is not None
    assert result.mask().shape == shapes[1]


def test_the_source_on_the_server_is_left_alone(desk: Desk, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "mine.nii.gz", orient(phantom_volume(), "PIR"))
    before = path.read_bytes()
    study = desk.take_path(path, VISITOR)
    run(desk, study)
    desk.forget(study, VISITOR)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.nii.gz"]


def test_forgetting_deletes_scan_and_result(desk: Desk, tmp_path: Path) -> None:
    content = write_nifti(tmp_path / "d.nii.gz", phantom_volume()).read_bytes()
    study = desk.take_uploads([Upload("d.nii.gz", content)], VISITOR)
    run(desk, study)
    desk.forget(study, VISITOR)
    until(lambda: not (desk.folders.root / study).exists())
    assert desk.view(study, VISITOR).phase == "gone"


def test_a_study_is_its_owners_alone(desk: Desk, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "own.nii.gz", phantom_volume())
    study = desk.take_path(path, VISITOR)
    run(desk, study)
    assert study in [view.id for view in desk.studies(VISITOR)]
    for stranger in (OTHER, ""):
        assert desk.view(study, stranger).phase == "gone"
        assert study not in [view.id for view in desk.studies(stranger)]
        assert desk.scan(study, stranger) is None
        assert desk.result(study, stranger, 1) is None
        assert desk.preview(study, stranger, 1) is None
        assert desk.corrections.draft(study, stranger, 1) is None
    asked: list[Callable[[], object]] = [
        lambda: desk.run(study, OTHER, "tissue-hu"),
        lambda: desk.cancel(study, OTHER, 1),
        lambda: desk.choose_series(study, OTHER, "1"),
        lambda: desk.errands.export(study, OTHER, 1, "stl", "en"),
        lambda: desk.errands.surfaces(study, OTHER, 1),
        lambda: desk.errands.training_case(study, OTHER, 1, tmp_path / "t", ["bone"]),
        lambda: desk.corrections.save(study, OTHER, 1),
    ]
    for question in asked:
        with pytest.raises(Refused):
            question()
    mine = desk.take_path(path, OTHER)
    run(desk, mine, visitor=OTHER)
    with pytest.raises(Refused):
        desk.errands.compare(mine, OTHER, 1, study, 1)
    desk.forget(study, OTHER)
    assert desk.view(study, VISITOR).phase == "read"


def test_a_job_in_the_queue_knows_its_place_and_is_cancelled_at_once(desk: Desk, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "e.nii.gz", phantom_volume())
    studies = [desk.take_path(path, VISITOR) for _ in range(3)]
    for study in studies:
        read(desk, study)
    for study in studies:
        desk.run(study, VISITOR, "tissue-hu")
    last = desk.view(studies[2], VISITOR).run(1)
    assert last is not None
    assert last.before in (1, 2)  # the first may have ended by now
    desk.cancel(studies[2], VISITOR, 1)
    assert ended(desk, studies[2], 1).state == "cancelled"
    assert [ended(desk, study, 1).state for study in studies[:2]] == ["done", "done"]


def test_cancelling_a_run_leaves_the_studys_others_alone(desk: Desk, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "h.nii.gz", phantom_volume())
    study = desk.take_path(path, VISITOR)
    read(desk, study)
    numbers = [desk.run(study, VISITOR, "tissue-hu") for _ in range(3)]
    desk.cancel(study, VISITOR, numbers[1])
    assert [ended(desk, study, number).state for number in numbers] == ["done", "cancelled", "done"]


def test_a_full_disk_is_said_and_leaves_no_part_of_an_upload(desk: Desk) -> None:
    before = set(desk.folders.root.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(Refused) as refused:
            desk.take_uploads([Upload("large.nii", bytes(3 << 20))], VISITOR)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "could not be stored on the server: File too large" in refused.value.problem.message
    assert str(desk.folders.root) not in refused.value.problem.message
    assert refused.value.problem.advice
    assert set(desk.folders.root.iterdir()) == before


def test_a_scan_that_is_replaced_while_it_is_shown_gets_no_mask(desk: Desk, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "i.nii.gz", phantom_volume())
    first, study = desk.take_path(path, VISITOR), desk.take_path(path, VISITOR)
    run(desk, first)
    read(desk, study)
    write_nifti(path, phantom_volume(seed=2))  # on the same grid
    refused = run(desk, study)
    assert refused.state == "failed"
    assert refused.problem is not None
    assert refused.problem.code == "ScanChangedError"
    assert refused.problem.message == "i.nii.gz: the scan has changed since it was opened."
    until(lambda: desk.errands.export(first, VISITOR, 1, "stl", "en").state == "failed")

    made = desk.result(first, VISITOR, 1)
    assert made is not None
    opened = desk.take_result(path, made.folder, VISITOR, "tissue-hu")
    view = ended(desk, opened, 1)
    assert view.problem is not None
    assert (view.state, view.problem.code) == ("failed", "ScanChangedError")


def test_what_is_not_there_is_refused_with_advice(desk: Desk, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        desk.take_path(tmp_path / "nothing", VISITOR)
    assert str(tmp_path / "nothing") in refused.value.problem.message
    assert refused.value.problem.advice
    assert desk.view("x" * 22, VISITOR).phase == "gone"


def test_a_forecast_is_known_before_the_run(desk: Desk, tmp_path: Path) -> None:
    study = desk.take_path(write_nifti(tmp_path / "f.nii.gz", phantom_volume()), VISITOR)
    read(desk, study)
    assert desk.errands.known_forecast(study, VISITOR, "tissue-hu") == 0
    until(lambda: desk.errands.forecast(study, VISITOR, "tissue-hu") is not None)
    found = desk.errands.forecast(study, VISITOR, "tissue-hu")
    assert found is not None
    assert 0 <= found.seconds < 30
    assert 20 < found.memory_mb < 8000
    assert desk.errands.known_forecast(study, VISITOR, "tissue-hu") == found.seconds


def test_every_format_is_made_when_asked_for(desk: Desk, tmp_path: Path) -> None:
    study = desk.take_path(write_dicom_series(tmp_path / "series", phantom_volume()), VISITOR)
    run(desk, study)
    for name, wanted in (("dicom-seg", ".dcm"), ("stl", ".zip"), ("report-html", ".html")):
        until(lambda name=name: desk.errands.export(study, VISITOR, 1, name, "zh").state == "done")  # type: ignore[misc]
        folder = desk.errands.export(study, VISITOR, 1, name, "zh").folder
        assert [path.suffix for path in folder.iterdir() if path.is_file()] == [wanted]


def test_a_finished_result_of_elsewhere_opens_as_one_of_ours(desk: Desk, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "g.nii.gz", phantom_volume())
    first = desk.take_path(path, VISITOR)
    run(desk, first)
    made = desk.result(first, VISITOR, 1)
    assert made is not None
    study = desk.take_result(path, made.folder, VISITOR, "tissue-hu")
    assert ended(desk, study, 1).state == "done"
    opened = desk.result(study, VISITOR, 1)
    assert opened is not None
    assert (opened.mask() == made.mask()).all()
    assert opened.organs == made.organs


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
