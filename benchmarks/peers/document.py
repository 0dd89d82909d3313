"""docs/RELIABILITY.md from the stored results of the table, the fuzzer, the mutants and the soak."""

# ruff: noqa: E501 - prose

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

NAMES = {
    "medseg": "medseg",
    "nibabel": "nibabel",
    "simpleitk": "SimpleITK",
    "dicom2nifti": "dicom2nifti",
    "dcm2niix": "dcm2niix",
    "monai": "MONAI",
    "nnunet_sitk": "nnU-Net",
    "nnunet_nibabel": "nnU-Net (nibabel)",
}
SIGNS = {
    "right": "right",
    "refuses": "refuses",
    "says so": "wrong, said",
    "silently wrong": "**WRONG**",
    "crashes": "crash",
}

GUARANTEES = (
    ("No silent geometry error: two readings that share no code agree within 0.01 mm, or the scan is refused",
     "tests/imaging/test_orientations.py, tests/imaging/test_dicom_resampled.py, tests/imaging/test_dicom_witness.py"),
    ("No missing, duplicate, mixed or disordered slices; lost end slices are warned of where the header counts them",
     "tests/imaging/test_dicom_stacks.py, tests/imaging/test_dicom_faults.py, tests/poison/test_poison.py"),
    ("No other modality and no other units without a recorded reason (`--accept`)", "tests/imaging/test_acceptance.py"),
    ("A complete file or none: truncation, checksums, short pixels and codec errors refuse the whole study",
     "tests/imaging/test_nifti_faults.py, tests/imaging/test_archives.py"),
    ("Outputs are atomic and read back before they appear; full disk and kill -9 leave the earlier file or none",
     "tests/faults/test_disk.py, tests/imaging/test_label_map.py"),
    ("The mask lies on the input's grid (a straightened one where that is said)",
     "tests/inference/test_planted_organs.py, tests/imaging/test_label_map.py"),
    ("Not-a-number never becomes an empty mask; empty is a verdict with its reason",
     "tests/imaging/test_hounsfield.py, tests/test_api.py"),
    ("One bad study never harms another", "tests/poison/test_batch.py"),
    ("A rerun is safe and cheap", "tests/jobs/test_batch.py, tests/faults/test_processes.py"),
    ("No patient's identity in logs, leftovers, reports or errors; nothing is sent anywhere",
     "tests/faults/test_identity.py"),
    ("Models cannot run code and cannot be altered unnoticed",
     "tests/models/test_store.py, tests/faults/test_models.py, tests/security/test_code.py"),
    ("Training resumes bit for bit on a CPU", "tests/training/test_trainer.py"),
    ("Nobody in by default: loopback, or a sign-in; quotas; private folders that are swept",
     "tests/security/test_access.py, tests/security/test_quotas.py, tests/app/test_folders.py"),
    ("Bounded resources: memory is forecast, archives and decoders are limited",
     "tests/imaging/test_room.py, tests/inference/test_memory.py"),
    ("Every refusal names the file, the reason and the way out", "tests/poison/test_poison.py"),
)  # fmt: skip


def render(root: Path) -> str:
    """The whole document."""
    found = _stored(root, "reliability")
    parts = [_head(found), _totals(found), _real(found), _guarantees(), _others(root), _table(found), _limits()]
    return "\n\n".join(parts) + "\n"


def _stored(root: Path, name: str) -> dict[str, Any]:
    path = root / "benchmarks" / "results" / f"{name}.json"
    stored: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return stored


def _head(found: dict[str, Any]) -> str:
    peers = {name: version for versions in found["peers"].values() for name, version in versions.items()}
    listed = ", ".join(f"{name} {version}" for name, version in sorted(peers.items()))
    return (
        "# Reliability\n\n"
        f"Written by `{found['command']}` on {found['date'][:10]} from stored results; do not edit. {len(found['cases'])} inputs, "
        "made by `tests/poison/` from a computed phantom, were read by medseg and by its peers' readers, each in its own "
        f"environment ({listed}).\n\n"
        "What counts: **right** – every voxel of the phantom lies at its place in the patient with its value; where a case "
        "changes values or grid on purpose, the same as ours, which the tests check against the phantom. **refuses** – an "
        "error. **wrong, said** – a volume that is wrong, or has no right answer, with a warning or a line on standard error. "
        "**WRONG** – the same without a word. Reading is all that is compared: whether a peer's reader is meant to judge "
        "Hounsfield units (rows C) is another question, but nobody else in its pipeline does."
    )


def _totals(found: dict[str, Any]) -> str:
    lines = [
        "## In one look",
        "",
        "| reader | cases | right | refuses | wrong, said | **WRONG in silence** | crash or hang |",
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for reader, name in NAMES.items():
        count = Counter(row["readers"][reader]["verdict"] for row in found["cases"] if reader in row["readers"])
        kinds = ("right", "refuses", "says so", "silently wrong", "crashes")
        cells = [str(count[kind]) for kind in kinds]
        lines.append(f"| {name} | {count.total()} | {' | '.join(cells)} |")
    good = [row for row in found["cases"] if row["expected"] != "refused"]
    lines += ["", f"Of the {len(good)} cases that can be read right, refused needlessly or read wrong:", ""]
    lines += ["| reader | cases | right | refused | wrong |", "|---|---|---|---|---|"]
    for reader, name in NAMES.items():
        count = Counter(row["readers"][reader]["verdict"] for row in good if reader in row["readers"])
        wrong = count["says so"] + count["silently wrong"] + count["crashes"]
        lines.append(f"| {name} | {count.total()} | {count['right']} | {count['refuses']} | {wrong} |")
    return "\n".join(lines)


def _real(found: dict[str, Any]) -> str:
    real = found["real scans"]
    refused = "; ".join(f"{name}: {why}" for name, why in real["refused"].items()) or "none"
    noted = "; ".join(f"{name}: {', '.join(codes)}" for name, codes in real["with findings"].items()) or "none"
    return (
        f"## False refusals\n\n{real['scans']} real scans (head and neck planning CT, abdominal and soft-tissue DICOM, see "
        f"the model card for sources): {len(real['refused'])} refused ({refused}), {len(real['with findings'])} with a "
        f"finding ({noted})."
    )


def _guarantees() -> str:
    lines = ["## Fifteen guarantees, and the tests that hold them", ""]
    for number, (text, tests) in enumerate(GUARANTEES, 1):
        links = ", ".join(f"[{Path(test).stem}](../{test})" for test in tests.split(", "))
        lines.append(f"{number}. {text}. {links}")
    return "\n".join(lines)


def _others(root: Path) -> str:
    return "\n\n".join(["## Fuzzing, mutants, soak", _fuzz(root), _mutants(root), _soak(root)])


def _fuzz(root: Path) -> str:
    fuzz = _stored(root, "fuzz")
    if not fuzz:
        return "**Fuzzing**: not run."
    return (
        f"**Fuzzing** (`{fuzz['command']}`): {fuzz['mutants']:,} mutants of NIfTI, NRRD, MHA, DICOM and zip, "
        f"{sum(fuzz['refused'].values()):,} refused, {sum(fuzz['accepted'].values()):,} accepted; "
        f"{len(fuzz['faults'])} crashes, hangs or volumes that differ from the independent readers'. "
        f"Slowest {fuzz['slowest_s']} s."
    )


def _mutants(root: Path) -> str:
    found = _stored(root, "mutation")
    if not found:
        return "**Mutation testing**: not run."
    areas = ", ".join(f"{area} {one['killed']} of {one['tried']}" for area, one in found["areas"].items())
    note = f" {found['note']}" if "note" in found else ""
    return (
        f"**Mutation testing** (`{found['command']}`): {found['killed']} of {found['mutants']} mutants are noticed by "
        f"the tests ({found['share']:.1%}): {areas}. {found['equivalent']} of the survivors change nothing that a user "
        f"could notice, each with its reason in the result; without them {found['share without equivalent']:.1%}.{note}"
    )


def _soak(root: Path) -> str:
    found = _stored(root, "soak")
    if not found:
        return "**Soak**: not run for its full time; `PYTHONPATH=. python benchmarks/soak.py --minutes 30`."
    server, queue = found["memory"]["server_mb"], found["queue_s"]
    return (
        f"**Soak** (`{found['command']}`): {found['minutes']:g} minutes, {found['clients']} protocol clients and "
        f"{found['browsers']} browsers, {found['handed in']} studies. Crossed: {found['crossed']}; lost uploads: "
        f"{found['lost']}; turned away: {found['busy']}; errors: {sum(found['errors'].values())}. Wait in the queue: "
        f"half below {queue['p50']} s, 95 of 100 below {queue['p95']} s. Memory of the page's process: "
        f"{server['after warm-up']:g} MB after the warm-up, {server['at the end']:g} MB at the end, "
        f"{server['trend per hour']:+g} MB an hour ([picture](../benchmarks/results/soak.png))."
    )


def _table(found: dict[str, Any]) -> str:
    lines = ["## Every case", "", f"| | case | {' | '.join(NAMES.values())} |", "|---|---|" + "---|" * len(NAMES)]
    for row in found["cases"]:
        cells = [_cell(row["readers"].get(reader)) for reader in NAMES]
        name = row["case"].replace("|", "\\|")
        lines.append(f"| {row['number']} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(answer: dict[str, str] | None) -> str:
    return "–" if answer is None else SIGNS[answer["verdict"]]


def _limits() -> str:
    return (
        "## What cannot be proven\n\n"
        "- A scan mirrored left to right whose header was mirrored with it is consistent. Nothing in the file tells.\n"
        "- Slices lost at an end leave no gap. We warn where the header counts images and fewer are there; most headers "
        "do not count, and scanners number on through the series of a study, so numbers prove nothing.\n"
        "- Pixels altered within a DICOM, raw NRRD or MHA file of right length: these formats hold no checksum.\n"
        "- The phantom is small and computed; scanners err in more ways than the catalogue knows."
    )
