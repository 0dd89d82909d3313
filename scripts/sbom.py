"""Bill of materials of this environment (CycloneDX 1.5), and a refusal of versions that are known to be bad.

    python scripts/sbom.py --out sbom.json      # exit code 1 where a banned version is installed

Needs nothing but Python and the ban-list beside it (`banned.json`), and no internet.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

BANNED = Path(__file__).with_name("banned.json")


def installed() -> dict[str, importlib.metadata.Distribution]:
    """Every distribution of this environment by its canonical name."""
    return {canonicalize_name(d.name): d for d in importlib.metadata.distributions() if d.name}


def banned(versions: Mapping[str, str]) -> list[str]:
    """What is in `versions` (name -> version) and must not be, with the reason."""
    found = []
    for entry in json.loads(BANNED.read_text("utf-8")):
        bad = Requirement(entry["versions"])
        version = versions.get(canonicalize_name(bad.name))
        if version is not None and bad.specifier.contains(version, prereleases=True):
            found.append(f"{bad.name} {version} is banned ({entry['versions']}): {entry['why']}")
    return found


def bill(distributions: Iterable[importlib.metadata.Distribution]) -> dict[str, Any]:
    """The bill as CycloneDX: the same bytes for the same environment."""
    components = [_component(distribution) for distribution in distributions]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "medseg", "bom-ref": "medseg"}},
        "components": sorted(components, key=lambda component: component["bom-ref"]),
    }


def _component(distribution: importlib.metadata.Distribution) -> dict[str, Any]:
    name, version = canonicalize_name(distribution.name), distribution.version
    component: dict[str, Any] = {
        "type": "library",
        "name": name,
        "version": version,
        "bom-ref": f"pkg:pypi/{name}@{version}",
        "purl": f"pkg:pypi/{name}@{version}",
    }
    record = distribution.read_text("RECORD")
    if record:
        # What was unpacked, not the wheel: the list of files with their digests.
        component["hashes"] = [{"alg": "SHA-256", "content": hashlib.sha256(record.encode()).hexdigest()}]
    licence = distribution.metadata.get("License-Expression") or distribution.metadata.get("License")
    if licence and len(licence) < 100:
        component["licenses"] = [{"license": {"name": licence.strip()}}]
    return component


def main() -> int:
    """Write the bill, and say what is banned."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file for the bill; standard output if not given")
    asked = parser.parse_args()
    found = installed()
    text = json.dumps(bill(found.values()), indent=1) + "\n"
    if asked.out:
        asked.out.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    problems = banned({name: distribution.version for name, distribution in found.items()})
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
