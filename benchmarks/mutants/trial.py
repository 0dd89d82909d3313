"""One warm process in a copy of the project: the large libraries are loaded once, and each mutant is tried in a fork.

In, a line of JSON: `{"tests": [...], "limit_s": ...}`; out, one: `{"fate": ..., "s": ...}`. The mutated source has been
written into the copy before. Libraries are loaded before the fork and nothing of this project: it is imported after it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback

LIBRARIES = (
    "numpy", "scipy.ndimage", "scipy.signal", "pydicom", "pydicom.encoders", "pydicom.pixels", "nibabel", "SimpleITK",
    "pytest", "torch", "monai", "safetensors", "highdicom", "coverage",
)  # fmt: skip
FATES = {0: "survived", 5: "survived"}
_MEMORY = 16 << 30
_LOOK_S = 0.02


def main() -> None:
    """Answer until nobody asks any more."""
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    print(json.dumps({"fate": "ready"}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            _try(asked["tests"])
        print(json.dumps({"fate": _fate(pid, asked["limit_s"]), "s": time.monotonic() - began}), flush=True)


def _try(tests: list[str]) -> None:
    code = 1
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        sys.dont_write_bytecode = True
        nothing = os.open(os.devnull, os.O_RDWR)
        log = os.open("trial.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number, target in ((0, nothing), (1, log), (2, log)):
            os.dup2(target, number)
        os.environ["MUTANTS_ONLY"] = json.dumps(tests)
        code = _run(tests)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(tests: list[str]) -> int:
    import pytest

    from benchmarks.mutants.survey import OPTIONS
    from benchmarks.mutants.watch import Watch

    files = list(dict.fromkeys(test.split("::")[0] for test in tests))
    return int(pytest.main(["-x", *OPTIONS, *files], plugins=[Watch()]))


def _fate(pid: int, limit_s: float) -> str:
    # Looks are counted, not seconds: a machine that pauses this run must not turn survivors into timeouts.
    for _ in range(round(limit_s / _LOOK_S)):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # what the tests have started and left
            return FATES.get(os.waitstatus_to_exitcode(status), "killed")
        time.sleep(_LOOK_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "timeout"


if __name__ == "__main__":
    main()
