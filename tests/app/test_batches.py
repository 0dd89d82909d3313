"""Batches from the page: progress, failures by name, stopping, going on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.batches import Batches, BatchView
from app.studies import Refused
from tests.app.conftest import until
from tests.app.test_paths import NOBODYS, TOO_LONG
from tests.phantoms import phantom_volume, write_nifti


@pytest.fixture
def batches() -> Iterator[Batches]:
    batches = Batches()
    yield batches
    batches.close()


def studies(folder: Path, count: int = 2) -> Path:
    folder.mkdir()
    for number in range(count):
        write_nifti(folder / f"case{number}.nii.gz", phantom_volume(seed=number))
    return folder


def ended(batches: Batches, out: Path) -> BatchView:
    def view() -> BatchView:
        found = batches.view(out)
        assert found is not None
        return found

    until(lambda: view().state != "running")
    return view()


def test_a_batch_tells_what_became_of_every_study(batches: Batches, tmp_path: Path) -> None:
    source = studies(tmp_path / "in")
    broken = write_nifti(source / "broken.nii.gz", phantom_volume())
    broken.write_bytes(broken.read_bytes()[:2000])
    out = batches.start(source, tmp_path / "out", "tissue-hu", "stl")
    view = ended(batches, out)
    assert (view.state, view.total) == ("done", 3)
    rows = {row.study: row for row in view.rows}
    assert {study: row.state for study, row in rows.items()} == {"broken": "failed", "case0": "done", "case1": "done"}
    assert rows["broken"].error in ("TruncatedFileError", "CorruptFileError")
    assert rows["broken"].message
    assert rows["case0"].path == source / "case0.nii.gz"
    assert list((out / "case0").glob("*/*.stl")) or list((out / "case0").glob("*.stl"))
    assert batches.known() == [out]

    again = ended(batches, batches.start(source, out, "tissue-hu", "stl"))
    assert {row.state for row in again.rows if row.study != "broken"} == {"skipped-unchanged"}
    another_day = Batches().view(out)
    assert another_day is not None
    assert {row.study for row in another_day.rows} == {"broken", "case0", "case1"}


def test_a_batch_is_stopped_and_what_is_finished_stays(batches: Batches, tmp_path: Path) -> None:
    out = batches.start(studies(tmp_path / "in", 6), tmp_path / "out", "tissue-hu")
    with pytest.raises(Refused):
        batches.start(tmp_path / "in", tmp_path / "out", "tissue-hu")

    def some_are_done() -> bool:
        view = batches.view(out)
        return view is not None and len(view.rows) > 0

    until(some_are_done)
    batches.cancel(out)
    view = ended(batches, out)
    assert view.state == "stopped"
    finished = [row.study for row in view.rows if row.state == "done"]
    assert finished
    assert all((out / study / "mask.nii.gz").exists() for study in finished)


def test_what_is_no_folder_and_what_holds_nothing_is_said(batches: Batches, tmp_path: Path) -> None:
    with pytest.raises(Refused):
        batches.start(tmp_path / "nothing", tmp_path / "out", "tissue-hu")
    (tmp_path / "empty").mkdir()
    view = ended(batches, batches.start(tmp_path / "empty", tmp_path / "out", "tissue-hu"))
    assert view.state == "failed"
    assert view.problem is not None
    assert view.problem.code == "NoScanError"
    assert batches.view(tmp_path / "elsewhere") is None


def test_paths_that_cannot_be_are_refused_and_a_manifest_that_cannot_be_read_is_said(
    batches: Batches, tmp_path: Path
) -> None:
    for source, out in ((Path(TOO_LONG), tmp_path / "out"), (tmp_path, Path(TOO_LONG)), (Path(NOBODYS), tmp_path)):
        with pytest.raises(Refused):
            batches.start(source, out, "tissue-hu")
    assert batches.known() == []
    view = batches.view(Path(TOO_LONG))
    assert view is not None
    assert view.problem is not None
    assert view.problem.code == "OutputError"
