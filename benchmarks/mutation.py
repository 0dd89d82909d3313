"""Mutation testing: do the tests notice when geometry, intake, restore or measure compute something else?

    PYTHONPATH=. python benchmarks/mutation.py --sample 300 --seed 2711 --out benchmarks/results/mutation.json

Each mutant changes one operator, comparison, constant, condition or call in a copy of the sources. All tests run once
under a tracer; a mutant is then tried by the tests that reach its statement, quickest first, until one fails. The
sample takes as many from each of the four areas (all of an area that has fewer), at random by `--seed`; 0 takes
everything. Results are kept as they come, and a second run goes on where the first one stopped. What no test of a
result could see (texts of errors, limits of memory, sizes of chunks: `changes.SILENT`; arguments that guard against a
slip in the code: `changes.GUARDS`) is not mutated.

A survivor that changes nothing a user could notice may be named, with its reason, in `mutants/equivalent.json`; it is
counted as a survivor all the same, and beside that the share without such is given.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.mutants.bench import Bench, Survey
from benchmarks.mutants.changes import ROOT, Mutant, mutants
from medseg.imaging.emit import emit_json
from medseg.runtime.provenance import now

AREAS = {
    "geometry": ("volume", "grid", "dicom_geometry", "dicom_regrid"),
    "intake": (
        "intake", "sniff", "nifti", "headed", "nrrd", "metaimage", "itk", "stream", "checks", "acceptance", "archive",
        "dicom", "dicom_headers", "dicom_elements", "dicom_series", "dicom_source", "dicom_frames", "dicom_pixels",
        "dicom_witness",
    ),
    "restore": ("preprocess/restore",),
    "measure": ("results/measure",),
}  # fmt: skip
TESTS = ["tests/imaging", "--ignore=tests/imaging/test_room.py", "tests/poison/test_poison.py", "tests/preprocess",
         "tests/results/test_measure.py", "tests/exports/test_dicom_seg.py", "tests/test_api.py"]  # fmt: skip
CHECKED = 5
"""Every how-manieth test is run once more without a mutant, where mutants are tried."""
EQUIVALENT = ROOT / "benchmarks" / "mutants" / "equivalent.json"
GOAL = 0.85


def modules(area: str) -> list[str]:
    """The files of an area."""
    return [f"medseg/{name}.py" if "/" in name else f"medseg/imaging/{name}.py" for name in AREAS[area]]


def chosen(sample: int, seed: int) -> dict[str, list[Mutant]]:
    """The sample, by area; an area that has too few leaves its share to the others."""
    known = {area: [mutant for module in modules(area) for mutant in mutants(module)] for area in AREAS}
    left, found = sample or sum(map(len, known.values())), {}
    for n, area in enumerate(sorted(known, key=lambda area: len(known[area]))):
        count = min(len(known[area]), round(left / (len(known) - n)))
        found[area] = random.Random(f"{seed} {area}").sample(known[area], count)
        left -= count
    return found


def run(asked: argparse.Namespace) -> dict[str, Any]:
    """Try all chosen mutants that have not been tried; keep the results as they come."""
    notes = asked.out.with_suffix(f".{asked.seed}.partial.json")
    known: dict[str, dict[str, Any]] = json.loads(notes.read_text()) if notes.exists() else {}
    by_area = chosen(asked.sample, asked.seed)
    todo = [mutant for area in by_area.values() for mutant in area if mutant.key not in known]
    random.Random(asked.seed).shuffle(todo)
    bench = Bench()
    try:
        survey = _survey(bench, asked.out.with_suffix(".survey.json"))
        for mutant in todo:
            known[mutant.key] = _tried(bench, survey, mutant)
            emit_json(notes, known)
    finally:
        bench.close()
    return report(asked, by_area, known)


def _survey(bench: Bench, kept: Path) -> Survey:
    """What the tests reach; found out once for the same sources and tests."""
    if kept.exists() and (told := json.loads(kept.read_text()))["of"] == bench.digest:
        return Survey.of(told)
    survey = bench.survey([module for area in AREAS for module in modules(area)], TESTS)
    total = sum(survey.seconds.values())
    print(f"{len(survey.seconds)} tests, {total:.0f} s; left out: {', '.join(survey.left_out) or 'none'}", flush=True)
    fate, seconds = bench.try_out(None, list(survey.seconds)[::CHECKED], total)
    if fate != "survived":
        raise SystemExit(f"The tests fail without a mutant ({fate}): {(bench.home / 'trial.log').read_text()[-3000:]}")
    print(f"unchanged sources pass in {seconds:.0f} s", flush=True)
    emit_json(kept, {"of": bench.digest, **asdict(survey)})
    return survey


def _tried(bench: Bench, survey: Survey, mutant: Mutant) -> dict[str, Any]:
    tests = survey.tests_for(mutant)
    fate, seconds = ("not reached", 0.0)
    if tests:
        fate, seconds = bench.try_out(mutant, tests, sum(survey.seconds[test] for test in tests))
    print(
        f"{fate:11} {seconds:5.1f} s  {len(tests):4} tests  {mutant.module}:{mutant.line} {mutant.change}", flush=True
    )
    return {"place": mutant.place, "line": mutant.line, "fate": fate, "tests": len(tests), "s": round(seconds, 1)}


def report(asked: argparse.Namespace, by_area: dict[str, list[Mutant]], known: dict[str, Any]) -> dict[str, Any]:
    """Shares, and every survivor by its place."""
    reasons = json.loads(EQUIVALENT.read_text()) if EQUIVALENT.exists() else {}
    fates = {mutant.key: known[mutant.key] for area in by_area.values() for mutant in area if mutant.key in known}
    survivors = {one["place"]: one for one in fates.values() if not _is_killed(one)}
    equivalent = {place: reasons[place] for place in survivors if place in reasons}
    killed = sum(map(_is_killed, fates.values()))
    same = sum(one["place"] in equivalent for one in fates.values() if not _is_killed(one))
    areas = {area: _area(area, by_area[area], fates) for area in AREAS}
    return {
        "command": f"PYTHONPATH=. python benchmarks/mutation.py --sample {asked.sample} --seed {asked.seed}",
        "date": now(),
        "mutants": len(fates),
        "killed": killed,
        "timeouts": sum(one["fate"] == "timeout" for one in fates.values()),
        "not reached": sum(one["fate"] == "not reached" for one in fates.values()),
        "share": round(killed / max(1, len(fates)), 4),
        "equivalent": same,
        "share without equivalent": round(killed / max(1, len(fates) - same), 4),
        "areas": areas,
        "survivors": sorted(place for place in survivors if place not in equivalent),
        "equivalent survivors": equivalent,
        **({"note": asked.note} if asked.note else {}),
    }


def _is_killed(one: dict[str, Any]) -> bool:
    return one["fate"] in ("killed", "timeout")


def _area(area: str, picked: list[Mutant], fates: dict[str, Any]) -> dict[str, Any]:
    own = [fates[mutant.key] for mutant in picked if mutant.key in fates]
    return {
        "modules": [Path(module).stem for module in modules(area)],
        "can be changed": sum(len(mutants(module)) for module in modules(area)),
        "tried": len(own),
        "killed": sum(map(_is_killed, own)),
    }


def main() -> int:
    """Parse, try, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=320)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--note", default="", help="what has to be said of this sample")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "mutation.json")
    asked = parser.parse_args()
    found = run(asked)
    emit_json(asked.out, found)
    print(f"{found['killed']} of {found['mutants']} killed ({found['share']:.1%})")
    return 0 if found["share"] >= GOAL else 1


if __name__ == "__main__":
    raise SystemExit(main())
