"""What is segmented when a folder is indexed again: changed files, copies, moved files, and notes that came later."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

pytest.importorskip("lancedb")
pytest.importorskip("sklearn")
from medseg.imaging.room import reading_room
from medseg.jobs.studies import find_studies
from tests.phantoms import edit_dicom, phantom_volume, write_dicom_series, write_nifti
from vlretrieval.archive import create_archive
from vlretrieval.index import Indexed, index_studies
from vlretrieval.reports.notes import Note
from vlretrieval.store import Store


def scan(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_nifti(path, phantom_volume((30, 26, 24), (5.0, 5.0, 5.5), seed=seed))


def index(folder: Path, notes: dict[Path, Note] | None = None) -> tuple[list[str], Store]:
    """Status of every study, in the order of their paths, and the archive."""
    store, encoder = create_archive(str(folder / "archive"), segmenter="tissue-hu")
    done = index_studies(find_studies(folder / "scans"), store, encoder, "tissue-hu", notes=notes)
    reading_room().close()
    return statuses(done), store


def statuses(done: Indexed) -> list[str]:
    assert not done.count("failed"), [step.error for step in done.steps]
    return [step.status for step in done.steps]


def test_a_changed_study_leaves_nothing_under_its_path(tmp_path: Path) -> None:
    path = scan(tmp_path / "scans" / "a.nii.gz", 1)
    index(tmp_path)
    scan(path, 2)
    found, store = index(tmp_path)
    assert (found, store.rows("path")) == (["indexed"], [(str(path),)])


def test_a_second_row_of_an_older_version_under_one_path_goes(tmp_path: Path) -> None:
    path = scan(tmp_path / "scans" / "a.nii.gz", 1)
    _, store = index(tmp_path)
    scan(tmp_path / "scans" / "b.nii.gz", 2)
    index(tmp_path)
    store.amend({2: {"path": str(path)}})  # what was there before, and the newer
    (tmp_path / "scans" / "b.nii.gz").rename(path)
    found, store = index(tmp_path)
    assert (found, store.rows("key", "path")) == (["unchanged"], [(2, str(path))])


def test_copies_touched_and_moved_files_are_not_segmented_again(tmp_path: Path) -> None:
    first = scan(tmp_path / "scans" / "a.nii.gz", 1)
    copy = first.with_name("b.nii.gz")
    shutil.copy(first, copy)
    assert index(tmp_path)[0] == ["indexed", "unchanged"]
    found, store = index(tmp_path)
    assert (found, store.rows("key", "path")) == (["unchanged", "unchanged"], [(1, str(first))])
    os.utime(first, (1, 1))
    first.rename(first.with_name("c.nii.gz"))
    copy.unlink()
    found, store = index(tmp_path)
    moved = (1, str(first.with_name("c.nii.gz")), "c")
    assert (found, store.rows("key", "path", "name")) == (["unchanged"], [moved])


def test_a_folder_and_its_zip_are_one_study(tmp_path: Path) -> None:
    folder = tmp_path / "scans" / "dicom"
    write_dicom_series(folder, phantom_volume((30, 26, 24), (5.0, 5.0, 5.5), seed=3))
    shutil.make_archive(str(folder), "zip", folder)
    assert index(tmp_path)[0] == ["indexed", "unchanged"]
    found, store = index(tmp_path)
    assert (found, len(store)) == (["unchanged", "unchanged"], 1)


def test_files_that_change_places_stay_two(tmp_path: Path) -> None:
    first, second = scan(tmp_path / "scans" / "a.nii.gz", 1), scan(tmp_path / "scans" / "b.nii.gz", 2)
    _, store = index(tmp_path)
    before = dict(store.rows("path", "id"))
    first.rename(tmp_path / "c")
    second.rename(first)
    (tmp_path / "c").rename(second)
    _, store = index(tmp_path)
    assert dict(store.rows("path", "id")) == {str(first): before[str(second)], str(second): before[str(first)]}


def test_equal_files_of_other_content_are_two_studies(tmp_path: Path) -> None:
    """Name, size and time are those of another folder's scan: the path counts as well."""
    for patient, seed in (("P1", 1), ("P2", 2)):
        path = write_nifti(tmp_path / f"{patient}.nii", phantom_volume((30, 26, 24), (5.0, 5.0, 5.5), seed=seed))
        (tmp_path / "scans" / patient).mkdir(parents=True)
        path.rename(tmp_path / "scans" / patient / "ct.nii")
        os.utime(tmp_path / "scans" / patient / "ct.nii", (1, 1))
    assert index(tmp_path)[0] == ["indexed", "indexed"]


def test_notes_that_come_later_are_stored(tmp_path: Path) -> None:
    first, second = scan(tmp_path / "scans" / "a.nii.gz", 1), scan(tmp_path / "scans" / "b.nii.gz", 2)
    index(tmp_path)
    notes = {first: Note("P1", "Zebrafinch sign."), second: Note(report="Goitre.")}
    found, store = index(tmp_path, notes)
    assert found == ["updated", "updated"]
    assert dict(store.rows("path", "report")) == {str(first): "Zebrafinch sign.", str(second): "Goitre."}
    assert store.by_words("zebrafinch", 5).keys.tolist() == store.keys(f"patient = '{store.pseudonym('P1')}'").tolist()
    assert index(tmp_path, notes)[0] == ["unchanged", "unchanged"]
    assert index(tmp_path)[0] == ["unchanged", "unchanged"]
    assert store.delete_patient(store.pseudonym("P1")).studies == 1
    files = (path for path in (tmp_path / "archive").rglob("*") if path.is_file())
    assert b"ebrafinch" not in b"".join(path.read_bytes() for path in files)


def test_the_number_in_dicom_counts_more_than_a_note(tmp_path: Path) -> None:
    folder = tmp_path / "scans" / "dicom"
    write_dicom_series(folder, phantom_volume((30, 26, 24), (5.0, 5.0, 5.5), seed=3))
    for path in folder.iterdir():
        edit_dicom(path, lambda header: setattr(header, "PatientID", "4711"))
    index(tmp_path)
    found, store = index(tmp_path, {folder: Note("P1")})
    assert (found, store.rows("patient")) == (["unchanged"], [(store.pseudonym("4711"),)])
