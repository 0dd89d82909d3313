"""Which studies lie in a folder."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from medseg.jobs.studies import find_studies

PREAMBLE = bytes(128) + b"DICM"
CT, STRUCTURES = b"1.2.840.10008.5.1.4.1.1.2", b"1.2.840.10008.5.1.4.1.1.481.3"


def make(root: Path, *names: str, content: bytes = b"anything") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def found(root: Path, **options: object) -> list[str]:
    return [str(path.relative_to(root)) for path in find_studies(root, **options)]  # type: ignore[arg-type]


def test_scan_files_of_every_format_are_studies_even_when_damaged(tmp_path: Path) -> None:
    names = ["a.nii", "b.nii.gz", "c.nrrd", "d.mha", "deep/er/e.ZIP", "f.mhd"]
    make(tmp_path, *names, content=b"")
    assert found(tmp_path) == names[:4] + names[4:]


def test_folders_that_hold_dicom_are_studies_and_their_parents_are_not(tmp_path: Path) -> None:
    make(tmp_path, "p1/s1/IM0", "p1/s1/IM1", "p1/s2/x.dcm", "p2/IM0", content=PREAMBLE + CT)
    make(tmp_path, "p1/DICOMDIR", content=PREAMBLE)
    make(tmp_path, "p1/s1/readme.txt")
    assert found(tmp_path) == ["p1/s1", "p1/s2", "p2"]
    assert find_studies(tmp_path / "p2") == [tmp_path / "p2"]


def test_a_folder_of_damaged_slices_is_not_overlooked(tmp_path: Path) -> None:
    make(tmp_path, "broken/1.dcm", "broken/2.dcm", content=b"")
    assert found(tmp_path) == ["broken"]


def test_dicom_without_images_is_reported_and_no_study(tmp_path: Path) -> None:
    make(tmp_path, "ct/1.dcm", content=PREAMBLE + CT)
    make(tmp_path, "structures/1.dcm", content=PREAMBLE + STRUCTURES)
    told: list[tuple[str, str]] = []
    assert found(tmp_path, report=lambda path, reason: told.append((path.name, reason))) == ["ct"]
    assert told == [("structures", "holds DICOM without images (structures, segmentations or reports).")]


def test_junk_and_hidden_files_are_passed_over_in_silence(tmp_path: Path) -> None:
    make(tmp_path, "a.nii.gz", ".hidden.nii.gz", "._a.nii.gz", "__MACOSX/a.nii.gz", ".git/b.nii.gz", "Thumbs.db")
    told: list[Path] = []
    assert found(tmp_path, report=lambda path, _: told.append(path)) == ["a.nii.gz"]
    assert told == []


def test_other_files_are_reported(tmp_path: Path) -> None:
    make(tmp_path, "a.nii.gz", "notes.txt")
    make(tmp_path, "office.docx", content=b"PK\x03\x04")
    told: list[tuple[str, str]] = []
    assert found(tmp_path, report=lambda path, reason: told.append((path.name, reason))) == ["a.nii.gz"]
    assert told == [("notes.txt", "is not a scan."), ("office.docx", "is not a scan.")]


def test_pipes_sockets_and_links_out_are_skipped_and_reported(tmp_path: Path) -> None:
    root, away = tmp_path / "in", tmp_path / "out"
    make(root, "a.nii.gz")
    make(away, "b.nii.gz")
    os.mkfifo(root / "pipe.nii.gz")
    (root / "link.nii.gz").symlink_to(away / "b.nii.gz")
    (root / "loop").symlink_to(root / "loop")
    (root / "self").symlink_to(root)
    with socket.socket(socket.AF_UNIX) as ear:
        ear.bind(str(root / "socket"))
        told: dict[str, str] = {}
        assert found(root, report=lambda path, reason: told.update({path.name: reason})) == ["a.nii.gz"]
    assert told == {
        "pipe.nii.gz": "is a pipe, not a file.",
        "socket": "is a socket, not a file.",
        "link.nii.gz": "is a link that leads out of the folder.",
        "loop": "is a link that leads nowhere.",
        "self": "is a link to a folder of the same tree.",
    }


def test_links_inside_the_tree_count_once(tmp_path: Path) -> None:
    make(tmp_path, "z.nii.gz", ".store/deadbeef")
    (tmp_path / "a.nii.gz").symlink_to("z.nii.gz")
    (tmp_path / "stored.nii.gz").symlink_to(".store/deadbeef")
    assert found(tmp_path) == ["stored.nii.gz", "z.nii.gz"]


def test_results_and_excluded_folders_are_no_studies(tmp_path: Path) -> None:
    make(tmp_path, "a.nii.gz", "out/a/mask.nii.gz", "old/a/mask.nii.gz", "old/a/run.json")
    told: list[str] = []
    assert found(tmp_path, exclude=[tmp_path / "out"], report=lambda path, _: told.append(path.name)) == ["a.nii.gz"]
    assert told == ["a"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root opens everything")
def test_a_folder_that_cannot_be_opened_is_reported(tmp_path: Path) -> None:
    make(tmp_path, "a.nii.gz", "shut/b.nii.gz")
    (tmp_path / "shut").chmod(0)
    told: list[str] = []
    assert found(tmp_path, report=lambda _, reason: told.append(reason)) == ["a.nii.gz"]
    assert told == ["cannot be opened: Permission denied."]


def test_a_file_is_its_own_study_even_when_it_is_missing(tmp_path: Path) -> None:
    assert find_studies(tmp_path / "nowhere") == [tmp_path / "nowhere"]
