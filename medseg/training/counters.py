"""What a machine can say about itself while it trains; where it cannot, the reason is the answer.

`gpu_util` and `mem_copy` are NVML's: the share of time in which a kernel ran, and in which the GPU's memory was read or
written. They want an NVIDIA GPU that trains, and the package nvidia-ml-py (`medseg[gpu]`). `ipc` is instructions per
cycle of this process's threads, from the kernel's performance counters.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

Counter = Callable[[], float | None]
"""One reading; None where there is nothing to say yet."""


@runtime_checkable
class Closes(Protocol):
    """A counter that holds something of the system's."""

    def close(self) -> None:
        """Let it go."""


class NotHereError(Exception):
    """This machine lacks a counter; the text says why."""


def open_counter(metric: str, device: torch.device | None = None) -> Counter:
    """The counter of a metric.

    Args:
        metric: of `COUNTERS`.
        device: what is trained on; None where that is not known: counters of the first GPU, if there is one.

    Raises:
        NotHereError: this machine does not have it.
        KeyError: no such metric.
    """
    return COUNTERS[metric](device)


def _gpu_util(device: torch.device | None) -> Counter:
    return _nvml(torch.cuda.utilization, device)


def _mem_copy(device: torch.device | None) -> Counter:
    return _nvml(torch.cuda.memory_usage, device)


def _nvml(read: Callable[[torch.device | None], int], device: torch.device | None) -> Counter:
    if not torch.cuda.is_available():
        raise NotHereError("no GPU")
    if device is not None and device.type != "cuda":
        raise NotHereError(f"training runs on {device}, not on the GPU")
    try:
        read(device)
    except ModuleNotFoundError as error:
        raise NotHereError("the package nvidia-ml-py is missing (pip install 'medseg[gpu]')") from error
    except Exception as error:  # NVML's own errors
        raise NotHereError(f"NVML does not answer: {error}") from error
    return lambda: read(device) / 100


def _ipc(device: torch.device | None) -> Counter:
    return _Ipc()


_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
_HARDWARE, _CYCLES, _INSTRUCTIONS = 0, 0, 1
_ATTR_SIZE = 64
_INHERIT, _NO_KERNEL, _NO_HYPERVISOR = 1 << 1, 1 << 5, 1 << 6
_WHY = {
    errno.EPERM: "the kernel's counters are closed to programs (kernel.perf_event_paranoid)",
    errno.EACCES: "the kernel's counters are closed to programs (kernel.perf_event_paranoid)",
    errno.ENOENT: "this processor, or the virtual machine around it, shows no cycle counter",
    errno.ENOSYS: "the kernel has no performance counters",
}


class _Ipc:
    """Instructions per cycle since the last reading, of the threads that there were at the start and their children."""

    def __init__(self) -> None:
        number = _PERF_EVENT_OPEN.get(platform.machine())
        if number is None or platform.system() != "Linux":
            raise NotHereError(f"no performance counters are read on {platform.system()} {platform.machine()}")
        self.handles: dict[int, list[int]] = {_CYCLES: [], _INSTRUCTIONS: []}
        try:
            for thread in [int(entry.name) for entry in Path("/proc/self/task").iterdir()]:
                for event, handles in self.handles.items():
                    handles.append(_open_event(number, event, thread))
        except NotHereError:
            self.close()
            raise
        self.before = self._totals()

    def __call__(self) -> float | None:
        now, (cycles, instructions) = self._totals(), self.before
        spent, done = now[0] - cycles, now[1] - instructions
        self.before = now
        return done / spent if spent > 0 else None

    def close(self) -> None:
        """Give the kernel its counters back."""
        for handles in self.handles.values():
            while handles:
                os.close(handles.pop())

    def _totals(self) -> tuple[int, int]:
        return _total(self.handles[_CYCLES]), _total(self.handles[_INSTRUCTIONS])


def _open_event(number: int, config: int, thread: int) -> int:
    flags = _INHERIT | _NO_KERNEL | _NO_HYPERVISOR
    attributes = struct.pack("=IIQQQQQ", _HARDWARE, _ATTR_SIZE, config, 0, 0, 0, flags).ljust(_ATTR_SIZE, b"\0")
    libc = ctypes.CDLL(None, use_errno=True)
    handle = int(libc.syscall(number, ctypes.c_char_p(attributes), thread, -1, -1, 0))
    if handle < 0:
        code = ctypes.get_errno()
        raise NotHereError(_WHY.get(code, os.strerror(code)))
    return handle


def _total(handles: list[int]) -> int:
    return sum(struct.unpack("=Q", os.read(handle, 8))[0] for handle in handles)


COUNTERS: Mapping[str, Callable[[torch.device | None], Counter]] = {
    "gpu_util": _gpu_util,
    "mem_copy": _mem_copy,
    "ipc": _ipc,
}
