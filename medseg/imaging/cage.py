"""What the reading process may not do: take all memory or time, write elsewhere, start programs, open the network.

Readers of medical files are large C and C++ programs that have been broken by files before. The cage makes such a file
cost one process. Linux only; what a kernel refuses to promise is left out, and `lock` says what holds.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import struct
from contextlib import suppress

GIB = 1 << 30
MAX_MEMORY_BYTES = 16 * GIB
MAX_FILE_BYTES = 9 * GIB
MAX_OPEN_FILES = 256

_NO_NEW_PRIVS, _SET_SECCOMP, _SECCOMP_FILTER, _NOT_DUMPABLE = 38, 22, 2, 4
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
# Numbers of: socket, connect, bind, execve, execveat, ptrace, process_vm_readv, process_vm_writev, mount, bpf, keyctl.
_CALLS = {
    "x86_64": (0xC000003E, (41, 42, 49, 59, 322, 101, 310, 311, 165, 321, 250)),
    "aarch64": (0xC00000B7, (198, 203, 200, 221, 281, 117, 270, 271, 40, 280, 219)),
}
_X32 = 0x40000000


def limit(memory_bytes: int | None = None) -> None:
    """Bound memory, file size and open files of this process for good; no core dumps, which would hold a scan."""
    most = min(MAX_MEMORY_BYTES, _physical_bytes() * 4 // 5) if memory_bytes is None else memory_bytes
    bounds = {
        resource.RLIMIT_AS: most,
        resource.RLIMIT_FSIZE: MAX_FILE_BYTES,
        resource.RLIMIT_NOFILE: MAX_OPEN_FILES,
        resource.RLIMIT_CORE: 0,
    }
    for what, value in bounds.items():
        _, hard = resource.getrlimit(what)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(what, (value, value))


def limit_cpu(seconds: int) -> None:
    """The next request may compute for that long; then the kernel ends the process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + seconds
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def lock() -> bool:
    """Forbid new programs, sockets and the memory of other processes; whether the kernel agreed."""
    known = _CALLS.get(platform.machine())
    if known is None:
        return False
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_NOT_DUMPABLE, 0, 0, 0, 0)
        program, holder = _filter(*known)
        if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0):
            return False
        return libc.prctl(_SET_SECCOMP, _SECCOMP_FILTER, ctypes.byref(program), 0, 0) == 0 and holder is not None
    except (OSError, AttributeError):
        return False


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def _filter(architecture: int, calls: tuple[int, ...]) -> tuple[_Program, ctypes.Array[ctypes.c_char]]:
    """A Berkeley packet filter over (number of the call, architecture)."""
    count = len(calls)
    steps = [
        (_LOAD, 0, 0, 4),
        (_JUMP_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _REFUSE),
        (_LOAD, 0, 0, 0),
        # Another numbering of the same calls would walk around the list.
        (_JUMP_AT_LEAST, count + 1, 0, _X32),
        # A match jumps over the rest of the list and over "allow".
        *((_JUMP_EQUAL, count - n, 0, call) for n, call in enumerate(calls)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    packed = b"".join(struct.pack("HBBI", *step) for step in steps)
    holder = ctypes.create_string_buffer(packed, len(packed))
    return _Program(len(steps), ctypes.addressof(holder)), holder


def _physical_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
