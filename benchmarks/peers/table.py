"""The table of docs/RELIABILITY.md: every case of the catalogue, read by this project and by its peers.

    python -m benchmarks.peers.table                       # makes the peers' environments (minutes), reads, writes
    python -m benchmarks.peers.table --python nnunet=/path/to/python --python monai=...   # uses existing ones
    python -m benchmarks.peers.table --render              # writes the document from the stored results

Each peer runs in an environment of its own and each case in a process of its own (60 s, 8 GB). A volume counts as right
when every voxel of the phantom lies at its place in the patient with its value; where the case has no right answer, or
another one came out, it is wrong: 'says so' when anything was written to warnings or standard error, else 'silently
wrong'.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import venv
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.document import render
from medseg.errors import MedsegError
from medseg.imaging import read_volume
from medseg.imaging.emit import emit_json
from medseg.runtime.provenance import machine, now, versions
from tests.poison.base import Case, base
from tests.poison.catalogue import catalogue

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "reliability.json"
ENVIRONMENTS = {
    "readers": ("nibabel", "SimpleITK", "dicom2nifti", "dcm2niix", "pydicom"),
    "monai": ("torch==2.13.0", "monai", "nibabel", "pydicom"),
    "nnunet": ("torch==2.13.0", "nnunetv2"),
}
CONTROLS = ("A24", "B28b", "D0")
"""Scans with nothing wrong: what a reader writes for these, it writes always."""
READERS = {
    "nibabel": ("readers", "files"),
    "simpleitk": ("readers", "both"),
    "dicom2nifti": ("readers", "dicom"),
    "dcm2niix": ("readers", "dicom"),
    "monai": ("monai", "both"),
    "nnunet_sitk": ("nnunet", "files"),
    "nnunet_nibabel": ("nnunet", "nifti"),
}


def environment(name: str, given: dict[str, str], home: Path) -> str:
    """The Python of a peer's environment, which is made where it is missing."""
    if name in given:
        return given[name]
    python = home / name / "bin" / "python"
    if not python.exists():
        print(f"Making the environment {name} ...", flush=True)
        venv.create(home / name, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *ENVIRONMENTS[name]], check=True)
    return str(python)


def suits(source: Path, kind: str) -> bool:
    """Whether a reader of that kind takes such an input at all."""
    if source.is_dir() or source.suffix == ".dcm":
        return kind in ("dicom", "both")
    if source.name.endswith((".nrrd", ".mha", ".mhd", ".zip")):
        return kind in ("files", "both") and not source.name.endswith(".zip")
    return kind != "dicom"


def is_truth(array: np.ndarray, affine: np.ndarray) -> bool:
    """Whether every voxel of the phantom lies at its place in the patient, with its value."""
    truth, array = base(), np.squeeze(array)
    if array.ndim != 3 or array.size != truth.hu.size or not np.isfinite(affine).all():
        return False
    index = np.stack(np.meshgrid(*[np.arange(n) for n in truth.hu.shape], indexing="ij")).reshape(3, -1)
    place = truth.affine @ np.vstack([index, np.ones(index.shape[1])])
    try:
        found = (np.linalg.inv(affine) @ place)[:3]
    except np.linalg.LinAlgError:
        return False
    at = np.round(found).astype(int)
    inside = ((at >= 0) & (at < np.array(array.shape)[:, None])).all()
    if not inside or np.abs(found - at).max() > 0.02:
        return False
    return bool(np.nanmax(np.abs(np.maximum(array[tuple(at)], -1024) - truth.hu.ravel())) < 1.0)


def same_grid(array: np.ndarray, affine: np.ndarray, ours: tuple[np.ndarray, np.ndarray]) -> bool:
    """Whether a volume has our values at our places, whatever the order of its axes."""
    hu, grid = ours
    array = np.squeeze(array)
    if array.ndim != 3 or array.size != hu.size:
        return False
    index = np.stack(np.meshgrid(*[np.arange(n) for n in hu.shape], indexing="ij")).reshape(3, -1)
    try:
        found = (np.linalg.inv(affine) @ grid @ np.vstack([index, np.ones(index.shape[1])]))[:3]
    except np.linalg.LinAlgError:
        return False
    at = np.round(found).astype(int)
    if not ((at >= 0) & (at < np.array(array.shape)[:, None])).all() or np.abs(found - at).max() > 0.02:
        return False
    return bool(np.nanmax(np.abs(np.maximum(array[tuple(at)], -1024) - hu.ravel())) < 1.0)


def our_verdict(case: Case, source: Path) -> tuple[dict[str, str], tuple[np.ndarray, np.ndarray] | None]:
    """What this project does with a case, judged as the peers are."""
    try:
        volume = read_volume(source, series=case.series)
    except MedsegError as error:
        return {"verdict": "refuses", "said": str(error)}, None
    except Exception as error:
        return {"verdict": "crashes", "said": repr(error)}, None
    said = " ".join(str(finding) for finding in volume.findings)
    right = case.expect.verdict != "refused" and (not case.expect.truth or is_truth(volume.hu, volume.affine))
    verdict = "right" if right else "says so" if said else "silently wrong"
    return {"verdict": verdict, "said": said}, (volume.hu, volume.affine)


def peer_verdict(
    case: Case, out: Path, name: str, ours: tuple[np.ndarray, np.ndarray] | None, usual: set[str]
) -> dict[str, str]:
    """What a peer did with a case; `usual` lines are those that it writes for every scan."""
    answer = json.loads((out / f"{name}.json").read_text())
    if answer["status"] != "read":
        kind = "crashes" if answer["status"] == "crashed" or "MemoryError" in answer["error"] else "refuses"
        return {"verdict": kind, "said": plain(answer["error"])}
    said = " ".join(line for line in told(out, name) if line not in usual)
    with np.load(out / f"{name}.npz") as stored:
        array, affine = stored["array"].astype(np.float64), stored["affine"]
    right = is_truth(array, affine)
    if not right and case.expect.verdict != "refused" and not case.expect.truth and ours is not None:
        right = same_grid(array, affine, ours)
    verdict = "right" if right else "says so" if said.strip() else "silently wrong"
    return {"verdict": verdict, "said": plain(said.strip())}


def plain(text: str) -> str:
    """What was said, without the folders of this machine."""
    return re.sub(r"(?<![\w.])/(?:[\w.\-@+]+/)+", "", text)[:200]


def told(out: Path, name: str) -> list[str]:
    """The lines that a peer wrote for a case, to warnings or standard error."""
    answer, stderr = json.loads((out / f"{name}.json").read_text()), out / f"{name}.stderr"
    written = stderr.read_text(errors="replace").splitlines() if stderr.exists() else []
    return [line.strip() for line in [*answer.get("warnings", []), *written] if line.strip()]


def measure(given: dict[str, str], home: Path) -> dict[str, Any]:
    """Make all cases, let everybody read them, and judge."""
    cases = catalogue()
    rows: list[dict[str, Any]] = [
        {"number": c.number, "case": c.name, "expected": c.expect.verdict, "readers": {}} for c in cases
    ]
    with tempfile.TemporaryDirectory() as folder:
        sources = []
        for number, case in enumerate(cases):
            place = Path(folder) / "cases" / f"{number:03d}"
            place.mkdir(parents=True)
            sources.append(case.make(place))
        ours = []
        for case, source, row in zip(cases, sources, rows, strict=True):
            verdict, volume = our_verdict(case, source)
            row["readers"]["medseg"] = verdict
            ours.append(volume)
        for reader, (where, kind) in READERS.items():
            python, out = environment(where, given, home), Path(folder) / reader
            chosen = [n for n, source in enumerate(sources) if suits(source, kind)]
            jobs = Path(folder) / f"{reader}.json"
            jobs.write_text(json.dumps([{"name": f"{n:03d}", "path": str(sources[n])} for n in chosen]))
            script = Path(__file__).with_name("read_one.py")
            subprocess.run([python, script, reader, jobs, out], check=True, stdout=subprocess.DEVNULL)
            usual = {line for n in chosen if cases[n].number in CONTROLS for line in told(out, f"{n:03d}")}
            for n in chosen:
                rows[n]["readers"][reader] = peer_verdict(cases[n], out, f"{n:03d}", ours[n], usual)
            print(f"{reader}: {Counter(row['readers'].get(reader, {}).get('verdict') for row in rows)}", flush=True)
        peers = {name: installed(environment(name, given, home)) for name in ENVIRONMENTS}
    return {
        "command": "python -m benchmarks.peers.table",
        "date": now(),
        "cases": rows,
        "real scans": real_scans(ROOT.parent / "shared" / "data"),
        "versions": versions(),
        "peers": peers,
        "machine": machine(),
    }


def installed(python: str) -> dict[str, str]:
    """Versions of what counts in a peer's environment."""
    wanted = ("nibabel", "SimpleITK", "dicom2nifti", "dcm2niix", "pydicom", "monai", "nnunetv2")
    code = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()), sep='\\n')"
    told = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
    found = {name.lower(): version for name, version in (line.split("==") for line in told.splitlines())}
    return {name: found[name.lower()] for name in wanted if name.lower() in found}


def real_scans(data: Path) -> dict[str, Any]:
    """How many real, clean scans are refused or get a finding: 'refuse everything' must not win the table."""
    found = [*data.glob("openkbp_hn/**/*_ct.nii.gz"), *data.glob("dicom/*.zip"), *data.glob("multi_organ/*ct*.nii.gz")]
    refused, noted = {}, {}
    for scan in sorted(found):
        try:
            volume = read_volume(scan)
        except MedsegError as error:
            refused[scan.name] = str(error)
        else:
            if volume.findings:
                noted[scan.name] = [finding.code for finding in volume.findings]
    return {"scans": len(found), "refused": refused, "with findings": noted}


def main() -> int:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--environments", type=Path, default=ROOT / "out" / "peers")
    parser.add_argument("--render", action="store_true")
    asked = parser.parse_args()
    if not asked.render:
        given = dict(part.split("=", 1) for part in asked.python)
        emit_json(RESULTS, measure(given, asked.environments))
    (ROOT / "docs" / "RELIABILITY.md").write_text(render(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
