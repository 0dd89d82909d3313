"""What is installed: a bill of materials, and nothing that is known to be bad."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from scripts import sbom
from tests.packaging.checkout import ROOT


def _locked() -> dict[str, str]:
    lines = [
        line for name in ("requirements.lock", "requirements-dev.lock") for line in (ROOT / name).read_text().split()
    ]
    return {sbom.canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines}


def test_nothing_locked_is_banned() -> None:
    assert sbom.banned(_locked()) == []


@pytest.mark.parametrize("entry", json.loads(sbom.BANNED.read_text()), ids=lambda entry: entry["versions"])
def test_the_ban_list_bans(entry: dict[str, str]) -> None:
    bad = Requirement(entry["versions"])
    limit = next(iter(bad.specifier)).version
    (problem,) = sbom.banned({bad.name: "0.1"})
    assert entry["why"] in problem
    assert sbom.banned({bad.name: limit}) == []


def test_what_the_project_asks_for_leaves_no_banned_version() -> None:
    """The lower bounds of pyproject.toml lie above the ban-list."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(r for group in project["optional-dependencies"].values() for r in group)]
    lowest = {}
    for requirement in map(Requirement, wanted):
        bounds = [part.version for part in requirement.specifier if part.operator in (">=", "==")]
        if bounds:
            lowest.setdefault(sbom.canonicalize_name(requirement.name), bounds[0])
    assert {problem.split()[0] for problem in sbom.banned(lowest)} <= {"torch"}  # pinned by the lock file


def test_the_bill(tmp_path: Path) -> None:
    out = tmp_path / "sbom.json"
    command = [sys.executable, ROOT / "scripts" / "sbom.py", "--out", out]
    assert subprocess.run(command, check=False).returncode == 0
    found = json.loads(out.read_text())
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.5")
    names = {component["name"]: component for component in found["components"]}
    assert {"torch", "pydicom", "simpleitk", "nibabel", "streamlit"} <= names.keys()
    assert len(names["pydicom"]["hashes"][0]["content"]) == 64
    assert str(tmp_path) not in out.read_text()
