"""The reading process: takes a path, reads the scan inside the cage, hands the voxels back through shared memory.

In: `{"path", "series", "accept", "scratch", "cpu_s"}`. Out: `accepted`, then `volume` (with the file descriptor of
the voxels), `refused` or `broken`. Messages are JSON with their length before them; nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import mmap
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import InputError, MedsegError
from medseg.imaging import cage
from medseg.imaging.acceptance import Acceptance
from medseg.imaging.volume import Volume

_PARENT_CHECK_S = 1.0


def send(pipe: socket.socket, message: dict[str, Any], handles: tuple[int, ...] = ()) -> None:
    """Write one message, with file descriptors beside it."""
    body = json.dumps(message).encode()
    socket.send_fds(pipe, [len(body).to_bytes(8, "big")], handles)
    pipe.sendall(body)


def receive(pipe: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Read one message.

    Raises:
        EOFError: the other side is gone.
    """
    head, handles, _, _ = socket.recv_fds(pipe, 8, 1)
    while 0 < len(head) < 8:
        head += _some(pipe, 8 - len(head))
    if not head:
        raise EOFError
    body = bytearray()
    size = int.from_bytes(head, "big")
    while len(body) < size:
        body += _some(pipe, min(1 << 20, size - len(body)))
    message: dict[str, Any] = json.loads(body)
    return message, handles


def _some(pipe: socket.socket, size: int) -> bytes:
    block = pipe.recv(size)
    if not block:
        raise EOFError
    return block


def main() -> None:
    """Entry of the process; its arguments are the file descriptor of the pipe and the limit of memory."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    faulthandler.enable()
    pipe = socket.socket(fileno=int(sys.argv[1]))
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    # Everything that reads is loaded before the door closes.
    for name in ("intake", "dicom", "dicom_frames", "dicom_regrid", "archive", "nrrd", "metaimage", "itk"):
        importlib.import_module(f"medseg.imaging.{name}")
    cage.limit(int(sys.argv[2]) or None)
    cage.lock()
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            message, _ = receive(pipe)
            _answer(pipe, message)


def _end_with(parent: int) -> None:
    """End when the parent does, also in the middle of a scan."""
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_S)
    os._exit(0)


def _answer(pipe: socket.socket, message: dict[str, Any]) -> None:
    cage.limit_cpu(message["cpu_s"])
    send(pipe, {"kind": "accepted"})
    tempfile.tempdir = message["scratch"]
    try:
        handle, answer = _read(message)
    except MedsegError as error:
        send(pipe, _refusal(error))
        return
    except MemoryError:
        send(pipe, {"kind": "memory"})
        return
    except Exception as error:  # whatever a library stumbles over is a fault of this one file
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        place = "" if where is None else f" in {Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno}"
        # The text of the exception stays here: it may quote a header, and a header names a patient.
        send(pipe, {"kind": "broken", "what": f"{type(error).__name__}{place}"})
        return
    try:
        send(pipe, answer, (handle,))
    finally:
        os.close(handle)


def _read(message: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    from medseg.imaging.intake import read_here

    volume = read_here(Path(message["path"]), message["series"], Acceptance(message["accept"]))
    return _shared(volume), _facts(volume)


def _shared(volume: Volume) -> int:
    """The voxels in memory that the parent can map, in the order of a file (first axis fastest)."""
    handle = os.memfd_create("voxels", os.MFD_CLOEXEC)
    try:
        os.ftruncate(handle, volume.hu.nbytes)
        with mmap.mmap(handle, volume.hu.nbytes) as shared:
            target = np.frombuffer(shared, np.float32).reshape(volume.hu.shape, order="F")
            target[...] = volume.hu
            del target
    except BaseException:
        os.close(handle)
        raise
    return handle


def _facts(volume: Volume) -> dict[str, Any]:
    return {
        "kind": "volume",
        "shape": volume.geometry.shape,
        "affine": volume.affine.tolist(),
        "name": volume.name,
        "findings": [asdict(finding) for finding in volume.findings],
        "sha256": volume.sha256,
        "format": volume.format,
        "series": volume.series,
        "evidence": dict(volume.evidence),
    }


def _refusal(error: MedsegError) -> dict[str, Any]:
    return {
        "kind": "refused",
        "error": type(error).__name__,
        "message": error.message,
        "advice": error.advice,
        "reason": error.reason if isinstance(error, InputError) else "",
        "series": list(getattr(error, "series", ())),
    }
