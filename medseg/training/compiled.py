"""torch.compile, with the graph kept on the disk: the second start of a run finds what the first one built."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from sysconfig import get_paths

import torch
from torch import nn

from medseg.training.journal import StepRecord

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
_set_here: set[str] = set()


def why_not(device: torch.device) -> str:
    """Why nothing can be compiled for a device here; empty where it can."""
    from torch._inductor.cpp_builder import get_cpp_compiler  # takes seconds to import
    from torch._inductor.exc import InvalidCxxCompiler

    if device.type != "cpu":
        return _no_triton()
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return "there is no C++ compiler here (on Debian and Ubuntu: apt-get install g++)"
    return ""


def _no_triton() -> str:
    """What triton, which compiles for GPUs, builds its launchers with."""
    if not find_spec("triton"):
        return "triton is missing, which compiles for GPUs"
    if not (os.environ.get("CC") or any(which(name) for name in ("cc", "gcc", "clang"))):
        return "there is no C compiler here, which triton needs (on Debian and Ubuntu: apt-get install gcc)"
    if not (Path(get_paths()["include"]) / "Python.h").is_file():
        return "Python's headers are missing, which triton needs (on Debian and Ubuntu: apt-get install python3-dev)"
    return ""


def compiled(model: nn.Module, device: torch.device, folder: Path, say: Callable[[str], None]) -> nn.Module:
    """The model, compiled when it is first called; as it is, with a word, where that cannot be done.

    Weights are those of `model`; checkpoints know nothing of this. The graph is kept in `folder`, unless the variable
    `TORCHINDUCTOR_CACHE_DIR` names another one.
    """
    named = _users_folder()  # before torch's compiler is imported, which fills the variable
    if reason := why_not(device):
        say(f"loop.compile: {reason}; training goes on uncompiled")
        return model
    if named is None:
        os.environ[CACHE_VARIABLE] = str(folder.resolve())
        _set_here.add(os.environ[CACHE_VARIABLE])
    built: nn.Module = torch.compile(model)  # type: ignore[assignment]
    return built


def _users_folder() -> str | None:
    """What the variable says, unless an earlier run of this process put it there, or torch."""
    named = os.environ.get(CACHE_VARIABLE)
    if not named or named in _set_here:
        return None
    folder = Path(named)
    torchs = folder.parent == Path(tempfile.gettempdir()) and folder.name.startswith("torchinductor_")
    return None if torchs else named


def first_steps(records: list[StepRecord]) -> tuple[float, float]:
    """Seconds that the steps which built the graph took beyond an ordinary one, and those of an ordinary one."""
    usual = sorted(record.seconds - record.waited_s for record in records)[len(records) // 2]
    building = sum(max(0.0, record.seconds - record.waited_s - usual) for record in records[:3])
    return building, usual
