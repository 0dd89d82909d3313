"""The project's habits, held by tests: rooms and doors, quick import, nothing in the repository that must not be."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from medseg import __version__
from tests.packaging.checkout import ROOT, tool, tracked_files

LOCKS = ("requirements.lock", "requirements-dev.lock")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Scans and pickles by their names, and by their first bytes where a name says nothing.
SCANS = re.compile(r"\.(nii|nii\.gz|dcm|nrrd|mha|mhd|img|hdr)$", re.IGNORECASE)
PICKLES = re.compile(r"\.(pt|pth|pkl|pickle|ckpt|joblib)$", re.IGNORECASE)
MACHINE_PATHS = re.compile(r"(?<![\w.~)}\]])/(?:work|root|opt/wheels|opt/pypi[\w-]*|home/\w+|Users/\w+|tmp/\w+)/")
REGISTRIES = re.compile(r"(?:pypi|pythonhosted|download\.pytorch|registry\.npmjs|anaconda)\.(?:org|com)")


def locked(name: str) -> dict[str, str]:
    pairs = (line.split("==") for line in (ROOT / name).read_text().splitlines())
    return {canonicalize_name(package): version for package, version in pairs}


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_the_import_contracts_hold() -> None:
    done = subprocess.run([tool("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert re.search(r"Contracts: (?:[6-9]|\d\d) kept, 0 broken", done.stdout)


def test_import_takes_under_a_second() -> None:
    code = "import time; start = time.perf_counter(); import medseg; print(time.perf_counter() - start)"
    assert min(float(python(code)) for _ in range(3)) < 1.0


def test_import_brings_no_heavy_library() -> None:
    code = "import sys, medseg; print(*{'torch', 'monai', 'scipy', 'streamlit', 'matplotlib'} & set(sys.modules))"
    assert python(code) == ""


def test_no_scan_is_tracked_but_what_the_project_computed() -> None:
    scans = [path for path in tracked_files() if SCANS.search(path.name)]
    assert [path for path in scans if path.parent != ROOT / "medseg/examples"] == []


def test_no_dicom_file_is_tracked_under_another_name() -> None:
    assert [path for path in tracked_files() if path.read_bytes()[128:132] == b"DICM"] == []


def test_no_pickle_is_tracked() -> None:
    assert [path for path in tracked_files() if PICKLES.search(path.name)] == []


def test_no_tracked_file_is_large() -> None:
    assert [path for path in tracked_files() if path.stat().st_size > 25 * 2**20] == []


@pytest.mark.parametrize("pattern", [MACHINE_PATHS, REGISTRIES], ids=["machine paths", "registries"])
def test_no_address_of_a_machine_or_registry_is_tracked(pattern: re.Pattern[str]) -> None:
    found = {str(path.relative_to(ROOT)): pattern.findall(text) for path, text in texts() if pattern.search(text)}
    assert found == {}


def texts() -> list[tuple[Path, str]]:
    contents = ((path, path.read_bytes()) for path in tracked_files())
    return [(path, content.decode(errors="replace")) for path, content in contents if b"\0" not in content[:8000]]


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_file_holds_names_and_versions_only(name: str) -> None:
    lines = (ROOT / name).read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", line)] == []
    assert len(set(lines)) == len(lines) > 20


def test_no_lock_file_asks_for_a_gpu_s_libraries() -> None:
    names = {package for name in LOCKS for package in locked(name)}
    assert "torch" in names
    assert [package for package in names if package.startswith(("nvidia", "cuda", "triton"))] == []


def test_the_two_lock_files_share_nothing() -> None:
    assert locked(LOCKS[0]).keys() & locked(LOCKS[1]).keys() == set()


@pytest.mark.parametrize("group", ["dependencies", "app", "cpu", "dev"])
def test_every_declared_dependency_is_locked_in_its_range(group: str) -> None:
    declared = PROJECT["dependencies"] if group == "dependencies" else PROJECT["optional-dependencies"][group]
    versions = locked(LOCKS[1]) if group == "dev" else locked(LOCKS[0])
    for requirement in map(Requirement, declared):
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement


def test_one_version_is_told_everywhere() -> None:
    assert PROJECT["version"] == __version__
    assert f"{__version__}" in (ROOT / "containers/README.md").read_text()


def test_the_licence_is_the_whole_text() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert PROJECT["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_change_log_has_a_place_for_what_comes_next() -> None:
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


def test_no_room_is_called_utils() -> None:
    assert [path for path in tracked_files() if re.search(r"\b_?(utils?|helpers?|misc)\.py$", path.name)] == []


def test_help_names_every_command() -> None:
    done = subprocess.run([tool("medseg"), "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert [word for word in ("segment", "models", "evaluate", "train") if word not in done.stdout] == []
