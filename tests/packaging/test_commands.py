"""`make` and `.ci/run`: what they say, what they would start, and the exit code that comes out."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.packaging.checkout import ROOT


def make(*arguments: str, folder: Path = ROOT) -> str:
    return subprocess.run(
        ["make", "--no-print-directory", *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


def test_help_lists_every_public_command() -> None:
    listed = {line.split()[1] for line in make("help").splitlines()}
    assert listed >= {"run", "demo", "test", "test-slow", "lint", "fix", "lock", "clean", "help"}


def test_the_page_is_started_on_loopback_and_on_the_port_asked_for() -> None:
    line = make("--dry-run", "run", "PORT=9123")
    assert "--server.address 127.0.0.1 --server.port 9123 --server.headless true" in line
    assert "--browser.gatherUsageStats false" in line


def test_the_demo_segments_an_example_that_is_there() -> None:
    words = make("--dry-run", "demo", "OUT=out/somewhere").split()
    example, option, out = words[words.index("segment") + 1 :][:3]
    assert (ROOT / example).is_file()
    assert (option, out) == ("--out", '"out/somewhere"')


def test_the_fast_suite_has_every_check_and_the_floor() -> None:
    line = make("--dry-run", "test")
    for check in ("ruff check", "ruff format --check", "mypy", "lint-imports", "--cov-fail-under=90"):
        assert check in line


def test_an_old_python_is_named(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    folder = new_checkout(tmp_path)
    done = subprocess.run(["make", "setup", f"PYTHON={old}"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "needs Python 3.11 or newer" in done.stderr
    assert not (folder / ".venv").exists()


def new_checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "a new checkout"
    folder.mkdir()
    for name in ("Makefile", "requirements.lock", "requirements-dev.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture
def ci(tmp_path: Path) -> Path:
    """A checkout whose suites only say what they did; tests/first and /second hold their exit codes."""
    folder = tmp_path / "a checkout"
    (folder / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci/run", folder / ".ci/run")
    return folder


def run_ci(folder: Path, first: int, second: int) -> subprocess.CompletedProcess[str]:
    recipe = (
        f"test:\n\t@echo CI=$$CI; echo 'Required coverage of 90% reached'; echo '7 passed in 1.25s'; exit {first}\n"
        f"test-slow:\n\t@cat; echo '2 passed, 1 skipped in 61.00s (0:01:01)'; exit {second}\n"
    )
    (folder / "Makefile").write_text(recipe)
    # As CI calls it: not from inside the make that runs these tests.
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = [folder / ".ci/run"]
    return subprocess.run(command, input="", capture_output=True, text=True, check=False, cwd="/", env=outside)


def test_ci_runs_both_suites_and_repeats_their_closing_lines(ci: Path) -> None:
    done = run_ci(ci, 0, 0)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "CI=true"
    assert done.stdout.splitlines()[-3:] == [
        "1-test: 7 passed in 1.25s",
        "2-test-slow: 2 passed, 1 skipped in 61.00s (0:01:01)",
        "exit code 0",
    ]


@pytest.mark.parametrize(("first", "second"), [(1, 0), (0, 1)])
def test_ci_fails_where_a_suite_fails(ci: Path, first: int, second: int) -> None:
    done = run_ci(ci, first, second)
    assert done.returncode == 2
    assert done.stdout.splitlines()[-1] == "exit code 2"
