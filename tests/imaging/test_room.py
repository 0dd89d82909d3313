"""The reading room: what breaks the reader costs one scan, and the process behind it can do no harm."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from medseg import errors
from medseg.imaging import Volume, room_child
from medseg.imaging.acceptance import NOTHING
from medseg.imaging.room import ReadingRoom, reading_room
from medseg.runtime.scratch import Scratch, remove_abandoned
from tests.imaging import spoilers
from tests.phantoms import phantom_volume, write_nifti


@pytest.fixture
def room() -> Iterator[ReadingRoom]:
    made = ReadingRoom(cpu_s=30, wall_s=60)
    yield made
    made.close()


@pytest.fixture
def spoiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[ReadingRoom]:
    """A room whose reader misbehaves as the name of the file says."""
    monkeypatch.setattr("medseg.imaging.room._ENTRY", f"from {spoilers.__name__} import main; main()")
    made = ReadingRoom(cpu_s=2, wall_s=20, memory_bytes=3 << 30)
    yield made
    made.close()


def test_the_process_is_warm_and_the_same(room: ReadingRoom, phantom_nifti: Path, phantom: Volume) -> None:
    first = room.read(phantom_nifti)
    pid = room.pid
    second = room.read(phantom_nifti)
    assert room.pid == pid != os.getpid()
    assert np.array_equal(first.hu, second.hu)
    assert np.array_equal(first.hu, phantom.hu)
    first.hu[0, 0, 0] = 7  # ours to change, as any array; the other one is not touched
    assert second.hu[0, 0, 0] == phantom.hu[0, 0, 0]


def test_evidence_and_findings_cross_the_border(room: ReadingRoom, phantom_dicom: Path) -> None:
    volume = room.read(phantom_dicom)
    assert volume.evidence["slices"] == volume.hu.shape[2]
    assert volume.evidence["largest_corner_error_mm"] < 0.01
    assert len(volume.evidence["not_provable"]) == 3
    assert volume.findings == ()


def test_idle_process_that_was_killed_is_started_again(room: ReadingRoom, phantom_nifti: Path) -> None:
    room.read(phantom_nifti)
    assert room.pid is not None
    os.kill(room.pid, signal.SIGKILL)
    assert room.read(phantom_nifti).findings == ()


@pytest.mark.parametrize(
    ("what", "kind", "words"),
    [
        ("segfault", errors.CorruptFileError, "breaks the program that reads it (SIGSEGV)"),
        ("loop", errors.CorruptFileError, "given up"),
        ("memory", errors.ResourceError, "not enough memory"),
        ("killed", errors.ResourceError, "was killed"),
        ("bug", errors.CorruptFileError, "cannot be read (ZeroDivisionError in spoilers.py"),
        ("recursion", errors.CorruptFileError, "cannot be read (RecursionError"),
        ("exit", errors.WorkerError, "exit code 9"),
        ("socket", errors.CorruptFileError, "cannot be read (PermissionError"),
        ("program", errors.CorruptFileError, "cannot be read (PermissionError"),
    ],
)
def test_whatever_a_scan_does_to_its_reader(
    what: str, kind: type[errors.MedsegError], words: str, spoiled: ReadingRoom, phantom_nifti: Path, tmp_path: Path
) -> None:
    path = tmp_path / f"{what}.nii"
    path.write_bytes(b"x")
    with pytest.raises(kind) as refused:
        spoiled.read(path)
    assert words in str(refused.value)
    assert str(refused.value).startswith(path.name)
    assert "PLANTED" not in str(refused.value)
    assert spoiled.read(phantom_nifti).findings == ()  # the next scan is none the worse


def test_reader_that_waits_for_ever(spoiled: ReadingRoom, phantom_nifti: Path, tmp_path: Path) -> None:
    spoiled.wall_s = 1.0
    path = tmp_path / "sleep.nii"
    path.write_bytes(b"x")
    with pytest.raises(errors.CorruptFileError, match="given up"):
        spoiled.read(path)
    spoiled.wall_s = 60.0
    assert spoiled.read(phantom_nifti).findings == ()


def test_what_was_unpacked_is_removed_when_the_reader_dies(spoiled: ReadingRoom, tmp_path: Path) -> None:
    path = tmp_path / "litter.nii"
    path.write_bytes(b"x")
    with pytest.raises(errors.CorruptFileError):
        spoiled.read(path)
    assert spoiled._scratch is not None
    assert list(spoiled._scratch.path.iterdir()) == []


def test_threads_wait_for_each_other(room: ReadingRoom, tmp_path: Path) -> None:
    volumes = [phantom_volume((24, 20, 18), (7.0, 7.0, 7.5), orientation="LPS", seed=seed) for seed in range(6)]
    paths = [write_nifti(tmp_path / f"{n}.nii.gz", volume) for n, volume in enumerate(volumes)]
    found: dict[int, Volume] = {}
    threads = [
        threading.Thread(target=lambda n=n: found.__setitem__(n, room.read(paths[n], None, NOTHING)))
        for n in range(len(paths))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[n].hu, volume.hu) for n, volume in enumerate(volumes))


def test_the_reader_ends_with_its_parent(tmp_path: Path) -> None:
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        own = ReadingRoom()
        own.warm_up()
        os.write(write, str(own.pid).encode())
        time.sleep(60)
        os._exit(0)
    os.close(write)
    child = int(os.read(read, 20))
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    deadline = time.monotonic() + 30
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_one_room_for_a_process() -> None:
    assert reading_room() is reading_room()


def test_messages_survive_small_reads() -> None:
    import socket

    left, right = socket.socketpair()
    with left, right:
        message = {"kind": "volume", "text": "ü" * 300_000}
        sender = threading.Thread(target=room_child.send, args=(left, message))
        sender.start()
        assert room_child.receive(right) == (message, [])
        sender.join()
        left.close()
        with pytest.raises(EOFError):
            room_child.receive(right)


def test_abandoned_scratch_is_swept_and_a_neighbour_s_is_not(tmp_path: Path) -> None:
    neighbour = Scratch("test", tmp_path)
    dead = neighbour.root.with_name("dead")
    (dead / "files").mkdir(parents=True)
    (dead / "lock").touch()
    (dead / "files" / "scan").write_text("left behind")
    remove_abandoned(neighbour.root.parent)
    assert not dead.exists()
    assert neighbour.path.is_dir()
    assert neighbour.path.stat().st_mode & 0o077 == 0
    neighbour.close()
    assert not neighbour.root.exists()
