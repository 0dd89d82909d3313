"""A copy of the project in which mutants are tried: a survey of what the tests reach, then trial after trial."""

from __future__ import annotations

import compileall
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from benchmarks.mutants.changes import ROOT, Mutant, mutated

COPIED = ("medseg", "tests", "app", "scripts", "benchmarks", "pyproject.toml", ".streamlit")
LEAST_LIMIT_S, MOST_LIMIT_S = 30.0, 300.0
MOST_TESTS_S = 60.0


@dataclass(frozen=True)
class Survey:
    """What the tests reach in the unchanged sources.

    Attributes:
        seconds: of each test.
        reached: module -> line -> tests.
        left_out: tests that need the reading room itself, and fail without it.
    """

    seconds: dict[str, float]
    reached: dict[str, dict[int, list[str]]]
    left_out: list[str]

    @classmethod
    def of(cls, told: dict[str, Any]) -> Survey:
        """From JSON, whose keys are text."""
        reached = {
            module: {int(line): tests for line, tests in lines.items()} for module, lines in told["reached"].items()
        }
        return cls(told["seconds"], reached, told["left_out"])

    def tests_for(self, mutant: Mutant) -> list[str]:
        """The tests that reach the statement, quickest first, as many as take a minute or so.

        Where it runs at import, those of the whole module.
        """
        lines = self.reached[mutant.module]
        found = {test for line in mutant.lines for test in lines.get(line, ()) if test}
        if not found and any(line in lines for line in mutant.lines):
            found = {test for tests in lines.values() for test in tests if test}
        quickest = sorted(found, key=lambda test: (self.seconds[test], test))
        ends = accumulate(self.seconds[test] for test in quickest)
        return [test for test, end in zip(quickest, ends, strict=True) if end <= MOST_TESTS_S]


class Bench:
    """The copy, and a warm process in it."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="medseg-mutants-"))
        for name in COPIED:
            source, target = ROOT / name, self.home / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "packages"))
            else:
                shutil.copy2(source, target)
        (self.home / "medseg" / "models" / "packages").symlink_to(ROOT / "medseg" / "models" / "packages")
        compileall.compile_dir(self.home, quiet=2)
        self._environment = os.environ | {"PYTHONPATH": str(self.home), "OMP_NUM_THREADS": "1"}
        self._process: subprocess.Popen[str] | None = None

    def survey(self, modules: list[str], tests: list[str]) -> Survey:
        """Run all tests once under a tracer."""
        out = self.home / "survey.json"
        request = json.dumps({"modules": modules, "tests": tests})
        command = [sys.executable, "-m", "benchmarks.mutants.survey", str(out), request]
        subprocess.run(command, cwd=self.home, env=self._environment, check=True, stdout=subprocess.DEVNULL)
        return Survey.of(json.loads(out.read_text()))

    @property
    def digest(self) -> str:
        """Of everything that a survey depends on."""
        found = hashlib.sha256()
        for path in sorted(self.home.rglob("*.py")):
            found.update(str(path.relative_to(self.home)).encode() + path.read_bytes())
        return found.hexdigest()

    def try_out(self, mutant: Mutant | None, tests: list[str], seconds: float) -> tuple[str, float]:
        """'killed', 'survived' or 'timeout', and how long it took."""
        if mutant is not None:
            (self.home / mutant.module).write_text(mutated(mutant))
        try:
            limit = min(MOST_LIMIT_S, LEAST_LIMIT_S + 8 * seconds)
            answer = self._ask({"tests": tests, "limit_s": limit})
        finally:
            if mutant is not None:  # with its old time, so that what was compiled from it counts again
                shutil.copy2(ROOT / mutant.module, self.home / mutant.module)
        return answer["fate"], answer["s"]

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._process is None:
            command = [sys.executable, "-m", "benchmarks.mutants.trial"]
            self._process = subprocess.Popen(
                command,
                cwd=self.home,
                env=self._environment,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            self._answer()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """End the process and remove the copy."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(30)
        shutil.rmtree(self.home, ignore_errors=True)
