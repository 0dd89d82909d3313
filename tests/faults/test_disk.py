"""Injections 8 and 9: the disk is full, closed to us, or changes under our hands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from medseg import errors
from medseg.imaging import intake
from medseg.imaging.emit import emit, emit_bytes
from medseg.imaging.nifti import read_label_map, write_label_map
from medseg.jobs.batch import run_batch
from tests.phantoms import phantom_labels, phantom_volume, write_nifti

BIG = phantom_volume((96, 80, 60), (2.0, 2.0, 2.4), orientation="LPS")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 120 kB, where we may mount one."""
    place = tmp_path / "tiny"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=120k", "tmpfs", place]
    if os.getuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield place
    subprocess.run(["umount", place], check=True)


def _noise() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 200, BIG.geometry.shape).astype(np.uint8)


def test_a_full_disk_raises_and_leaves_nothing(tiny_disk: Path) -> None:
    with pytest.raises(errors.OutputError, match="No space left"):
        write_label_map(tiny_disk / "mask.nii.gz", _noise(), BIG.geometry)
    assert list(tiny_disk.iterdir()) == []


def test_a_full_disk_leaves_the_earlier_mask(tiny_disk: Path) -> None:
    path = tiny_disk / "mask.nii.gz"
    small = phantom_labels(BIG)
    write_label_map(path, small, BIG.geometry)
    with pytest.raises(errors.OutputError, match=r"mask\.nii\.gz could not be written"):
        write_label_map(path, _noise(), BIG.geometry)
    assert np.array_equal(read_label_map(path)[0], small)


def test_a_batch_on_a_full_disk_names_it_and_goes_on_when_there_is_space(tiny_disk: Path, tmp_path: Path) -> None:
    scan = write_nifti(tmp_path / "a.nii.gz", phantom_volume((40, 36, 30), (4.0, 4.0, 4.0), orientation="LPS"))
    ballast = tiny_disk / "ballast"
    ballast.write_bytes(bytes(90_000))
    report = run_batch([scan], tiny_disk / "out", model="tissue-hu")
    assert [row.error for row in report.failed] == ["OutputError"]
    assert "could not be written" in report.failed[0].message
    assert report.failed[0].advice
    ballast.unlink()
    (tmp_path / "roomy").mkdir()
    assert run_batch([scan], tmp_path / "roomy", model="tissue-hu").exit_code == 0


def test_a_limit_of_file_size_is_a_full_disk_for_everybody(tmp_path: Path) -> None:
    """As an ordinary user: the kernel refuses to let a file grow."""
    code = f"""
import resource, signal, sys, numpy as np
from pathlib import Path
from medseg.errors import OutputError
from medseg.imaging.emit import emit_bytes
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    emit_bytes(Path({str(tmp_path)!r}) / "out.bin", bytes(50_000))
except OutputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "out.bin could not be written: File too large" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_no_permission(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if os.access(closed, os.W_OK):
        closed = Path("/proc/self/closed")  # root may write everywhere but here
    with pytest.raises(errors.OutputError, match="could not be written"):
        emit_bytes(closed / "out.bin", b"x")


def test_a_kill_while_writing_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    emit_bytes(path, b"earlier")
    child = os.fork()
    if child == 0:
        emit(path, lambda temporary: (temporary.write_bytes(b"half"), os.kill(os.getpid(), signal.SIGKILL)))
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert path.read_bytes() == b"earlier"


def test_what_reads_back_differently_never_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mask.nii.gz"
    monkeypatch.setattr("medseg.imaging.itk.read_back", lambda _: (np.zeros(BIG.geometry.shape), BIG.affine))
    with pytest.raises(errors.OutputError, match="read back differently"):
        write_label_map(path, phantom_labels(BIG), BIG.geometry)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["longer", "touched", "new slice"])
def test_a_scan_that_changes_while_it_is_read(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    path = write_nifti(folder / "a.nii", BIG)
    read = intake._read

    def slow(*asked: object) -> object:
        volume = read(path, None, intake.NOTHING)
        if what == "longer":
            path.write_bytes(path.read_bytes() + b"more")
        elif what == "touched":
            os.utime(path, ns=(1, 1))
        else:
            (folder / "b.nii").write_bytes(b"x")
        return volume

    monkeypatch.setattr(intake, "_read", slow)
    with pytest.raises(errors.TruncatedFileError, match="changed while it was read"):
        intake.read_here(folder if what == "new slice" else path)
