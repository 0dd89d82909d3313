"""Fuzzing: mutated scans against independent readers. Nothing may crash or hang, and nothing may be read otherwise.

    PYTHONPATH=. python benchmarks/fuzz.py --examples 14000 --seed 404 --out benchmarks/results/fuzz.json

Hypothesis mutates headers and bytes of seed files (NIfTI, NRRD, MHA, DICOM in several transfer syntaxes, zip). Each
mutant is read in the reading room under 5 s of computing and 2 GB. Where it is accepted, its voxels and its affine have
to be those that the independent readers give for the same bytes: nibabel and SimpleITK for NIfTI, SimpleITK for NRRD
and MHA, pydicom with plain geometry for DICOM. A reader that itself refuses the bytes gives no opinion.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from medseg.errors import InputError, MedsegError
from medseg.imaging.emit import emit_json
from medseg.imaging.room import ReadingRoom
from medseg.imaging.volume import Volume
from medseg.runtime.provenance import machine, now, versions
from tests.phantoms import phantom_volume, write_dicom_series, write_nifti

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
CPU_S, MEMORY = 5, 2 << 30
SMALL = phantom_volume((20, 18, 8), (8.0, 8.0, 12.0), orientation="LPS")
TOLERANCE_MM, TOLERANCE_HU = 0.01, 0.01
DEEP_AIR = -1024.0


@dataclass
class Tally:
    """What became of the mutants."""

    refused: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    warned: Counter[str] = field(default_factory=Counter)
    no_opinion: int = 0
    faults: list[dict[str, str]] = field(default_factory=list)
    slowest_s: float = 0.0


@dataclass(frozen=True)
class Seed:
    """A whole file (or slice of a series) to mutate, and how to read the mutant with others."""

    name: str
    content: bytes
    header: int
    place: Callable[[Path, bytes], Path]
    others: Callable[[Path], list[tuple[str, np.ndarray, np.ndarray]]]


def _nifti_others(path: Path) -> list[tuple[str, np.ndarray, np.ndarray]]:
    found = []
    with contextlib.suppress(Exception):
        image = nib.load(path)
        found.append(("nibabel", np.asarray(image.get_fdata()).squeeze(), image.affine))
    return found + _itk_others(path)


def _itk_others(path: Path) -> list[tuple[str, np.ndarray, np.ndarray]]:
    with contextlib.suppress(Exception):
        image = sitk.ReadImage(str(path))
        n = image.GetDimension()
        affine = np.eye(4)
        affine[:3, :3] = (np.array(image.GetDirection()).reshape(n, n) * np.array(image.GetSpacing()))[:3, :3]
        affine[:3, 3] = image.GetOrigin()[:3]
        return [("SimpleITK", sitk.GetArrayFromImage(image).T.astype(np.float64).squeeze(), LPS_TO_RAS @ affine)]
    return []


def _dicom_others(folder: Path) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Plain pydicom: sorted by place along the normal, rescaled, the affine from first and last slice."""
    with contextlib.suppress(Exception), warnings.catch_warnings(action="ignore"):
        data = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
        axes = np.array(data[0].ImageOrientationPatient, dtype=float).reshape(2, 3)
        normal = np.cross(axes[0], axes[1])
        data.sort(key=lambda d: float(np.dot(np.array(d.ImagePositionPatient, dtype=float), normal)))
        hu = [d.pixel_array.T * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in data]
        first, last = (np.array(d.ImagePositionPatient, dtype=float) for d in (data[0], data[-1]))
        affine = np.eye(4)
        rows, columns = (float(v) for v in data[0].PixelSpacing)
        affine[:3, 0], affine[:3, 1] = axes[0] * columns, axes[1] * rows
        affine[:3, 2], affine[:3, 3] = (last - first) / (len(data) - 1), first
        return [("pydicom", np.stack(hu, axis=-1), LPS_TO_RAS @ affine)]
    return []


def _file(name: str) -> Callable[[Path, bytes], Path]:
    def place(folder: Path, content: bytes) -> Path:
        path = folder / name
        path.write_bytes(content)
        return path

    return place


def _gzipped(folder: Path, content: bytes) -> Path:
    path = folder / "scan.nii.gz"
    path.write_bytes(gzip.compress(content, 1, mtime=0))
    return path


def _itk_bytes(folder: Path, suffix: str, packed: bool) -> bytes:
    image = sitk.GetImageFromArray(np.ascontiguousarray(SMALL.hu.T).astype(np.int16))
    lps = LPS_TO_RAS @ SMALL.affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    sitk.WriteImage(image, str(folder / f"seed{suffix}"), packed)
    return (folder / f"seed{suffix}").read_bytes()


def _slice_seed(name: str, home: Path, fault: Callable[[Any, int], Any] | None) -> Seed:
    made = write_dicom_series(home / name.replace(" ", "-"), SMALL, fault=fault, names=lambda k: f"{k}")
    whole = {path.name: path.read_bytes() for path in made.iterdir()}

    def place(folder: Path, content: bytes) -> Path:
        study = folder / "study"
        study.mkdir()
        for file, original in whole.items():
            (study / file).write_bytes(content if file == "3" else original)
        return study

    pixels = whole["3"].rfind(b"\xe0\x7f\x10\x00")
    return Seed(name, whole["3"], pixels, place, _dicom_others)


def _compressed(uid: str) -> Callable[[Any, int], None]:
    return lambda dataset, k: dataset.compress(uid)


def _deflated(dataset: Any, k: int) -> None:
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian


def seeds(home: Path) -> list[Seed]:
    """Files with nothing wrong, small, so that a mutation soon hits something that matters."""
    plain = write_nifti(home / "seed.nii", SMALL).read_bytes()
    second = write_nifti(home / "seed2.nii", SMALL, version=2).read_bytes()
    floats = write_nifti(home / "seed3.nii", SMALL, dtype=np.float32).read_bytes()
    with zipfile.ZipFile(home / "seed.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("scan.nii", plain)
    nothing = lambda path: []  # noqa: E731
    return [
        Seed("NIfTI-1", plain, 352, _file("scan.nii"), _nifti_others),
        Seed("NIfTI-1, header inside gzip", plain, 352, _gzipped, _nifti_others),
        Seed("NIfTI-1, bytes of the gzip", gzip.compress(plain, 1), 20, _file("scan.nii.gz"), _nifti_others),
        Seed("NIfTI-2", second, 544, _file("scan.nii"), _nifti_others),
        Seed("NIfTI-1, float", floats, 352, _file("scan.nii"), _nifti_others),
        Seed("NRRD", _itk_bytes(home, ".nrrd", False), 400, _file("scan.nrrd"), _itk_others),
        Seed("NRRD, packed", _itk_bytes(home, ".nrrd", True), 400, _file("scan.nrrd"), _itk_others),
        Seed("MHA", _itk_bytes(home, ".mha", False), 400, _file("scan.mha"), _itk_others),
        Seed("MHA, packed", _itk_bytes(home, ".mha", True), 400, _file("scan.mha"), _itk_others),
        _slice_seed("DICOM", home, None),
        _slice_seed("DICOM deflated", home, _deflated),
        _slice_seed("DICOM RLE", home, _compressed(pydicom.uid.RLELossless)),
        _slice_seed("DICOM JPEG-LS", home, _compressed(pydicom.uid.JPEGLSLossless)),
        Seed("zip", (home / "seed.zip").read_bytes(), 60, _file("study.zip"), nothing),
    ]


NUMBERS = (0, 1, 2, 255, 32767, 65535, 2**31 - 1, 2**32 - 1, 2**63)
CHANGES = ("bit", "byte", "number", "digit", "cut", "drop", "double", "zeros")


def _change(draw: st.DrawFn, out: bytearray, at: int) -> None:
    kind = draw(st.sampled_from(CHANGES))
    size = draw(st.sampled_from((1, 2, 4, 8, 16, 32)))
    if kind == "bit":
        out[at] ^= 1 << draw(st.integers(0, 7))
    elif kind == "byte":
        out[at] = draw(st.integers(0, 255))
    elif kind == "number":
        out[at : at + size] = draw(st.sampled_from(NUMBERS)).to_bytes(32, "little")[:size]
    elif kind == "digit":
        found = [n for n in range(at, min(len(out), at + 80)) if 48 <= out[n] <= 57]
        out[found[0] if found else at] = 48 + draw(st.integers(0, 9))
    else:
        _move(kind, out, at, size)


def _move(kind: str, out: bytearray, at: int, size: int) -> None:
    if kind == "cut":
        del out[max(1, at) :]
    elif kind == "drop":
        del out[at : at + size]
    elif kind == "double":
        out[at:at] = out[at : at + size]
    else:
        out[at : at + size] = bytes(size)


@st.composite
def mutants(draw: st.DrawFn, content: bytes, header: int) -> bytes:
    """A few changes, most of them in the header: bits, bytes, numbers, cuts, copies and swaps."""
    out = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        limit = header if draw(st.integers(0, 3)) else len(out)
        at = draw(st.integers(0, max(0, min(limit, len(out)) - 1)))
        _change(draw, out, at)
        if not out:
            return b"\0"
    return bytes(out)


def judge(volume: Volume, others: list[tuple[str, np.ndarray, np.ndarray]]) -> str:
    """How an accepted mutant differs from what the others read; '' when it does not."""
    resampled = any(finding.code in ("straightened", "uneven_spacing") for finding in volume.findings)
    for name, values, affine in [] if resampled else others:
        if values.shape != volume.hu.shape:
            return f"{name} reads {values.shape}, we read {volume.hu.shape}"
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in values.shape], [1])).reshape(4, -1)
        corners[3] = 1
        apart = np.abs((affine - volume.affine) @ corners).max()
        if not apart <= TOLERANCE_MM * 10:
            return f"{name} puts a corner {apart:.3f} mm away"
        with np.errstate(invalid="ignore", over="ignore"):
            off = np.abs(np.maximum(values, DEEP_AIR) - volume.hu).max()
            relative = max(TOLERANCE_HU, 1e-6 * float(np.abs(volume.hu).max()))
        if not off <= relative:
            return f"{name} reads values that differ by {off:g}"
    return ""


def attack(room: ReadingRoom, seed_file: Seed, content: bytes, tally: Tally) -> None:
    """Read one mutant with everybody and write down what happened."""
    with tempfile.TemporaryDirectory() as folder:
        path = seed_file.place(Path(folder), content)
        began = time.monotonic()
        try:
            volume = room.read(path)
        except InputError as error:
            tally.refused[type(error).__name__] += 1
            reason = error.reason
            if "breaks the program" in reason or "given up" in reason or "cannot be read (" in reason:
                _fault(tally, seed_file, content, reason)
        except MedsegError as error:
            _fault(tally, seed_file, content, str(error))
        except Exception as error:
            _fault(tally, seed_file, content, f"{type(error).__name__}: {error}")
        else:
            others = seed_file.others(path)
            tally.no_opinion += not others
            tally.accepted[seed_file.name] += 1
            tally.warned.update(finding.code for finding in volume.findings)
            if why := judge(volume, others):
                _fault(tally, seed_file, content, why)
        tally.slowest_s = max(tally.slowest_s, time.monotonic() - began)


def _fault(tally: Tally, seed_file: Seed, content: bytes, why: str) -> None:
    changed = [n for n, (a, b) in enumerate(zip(content, seed_file.content, strict=False)) if a != b][:8]
    tally.faults.append({"seed": seed_file.name, "why": why, "first changes": str(changed), "size": str(len(content))})
    if keep := os.environ.get("MEDSEG_FUZZ_KEEP"):
        target = Path(keep) / f"{len(tally.faults):04d}-{seed_file.name.replace(' ', '-')}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def run(examples: int, start: int) -> dict[str, Any]:
    """Attack with `examples` mutants; the report."""
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    tally, room = Tally(), ReadingRoom(cpu_s=CPU_S, wall_s=120, memory_bytes=MEMORY)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as home:
        files = seeds(Path(home))
        share = -(-examples // len(files))
        for number, seed_file in enumerate(files):
            _round(room, seed_file, share, start + number, tally)
            print(f"{seed_file.name}: {sum(tally.refused.values())} refused, {sum(tally.accepted.values())} accepted, "
                  f"{len(tally.faults)} faults", flush=True)  # fmt: skip
    room.close()
    return {
        "command": f"PYTHONPATH=. python benchmarks/fuzz.py --examples {examples} --seed {start}",
        "date": now(),
        "mutants": sum(tally.refused.values()) + sum(tally.accepted.values()) + len(tally.faults),
        "refused": dict(tally.refused.most_common()),
        "accepted": dict(tally.accepted.most_common()),
        "findings of accepted": dict(tally.warned.most_common()),
        "accepted without another reader's opinion": tally.no_opinion,
        "faults": tally.faults,
        "slowest_s": round(tally.slowest_s, 2),
        "minutes": round((time.monotonic() - began) / 60, 1),
        "versions": versions() | {"hypothesis": __import__("hypothesis").__version__},
        "machine": machine(),
    }


def _round(room: ReadingRoom, seed_file: Seed, examples: int, number: int, tally: Tally) -> None:
    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(mutants(seed_file.content, seed_file.header))
    def one(content: bytes) -> None:
        attack(room, seed_file, content, tally)

    one()


def main() -> int:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=12000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    report = run(asked.examples, asked.seed)
    if asked.out:
        emit_json(asked.out, report)
    print(json.dumps({key: report[key] for key in ("mutants", "refused", "accepted", "slowest_s")}, indent=1))
    for fault in report["faults"][:20]:
        print(fault)
    return 1 if report["faults"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
