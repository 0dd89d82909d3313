"""Mutation testing: do the tests notice when geometry, intake, restore or measure compute something else?

    python benchmarks/mutation.py --sample 40 --workers 2 --out benchmarks/results/mutation.json

Each mutant changes one operator, comparison, constant, condition or call in a copy of the sources; the tests of its
module run until one fails. `--sample` takes that many of each module, chosen by `--seed`; 0 takes all (hours). Results
are kept as they come, and a second run goes on where the first one stopped. Mutants that cannot change anything a test
could see (in texts of errors, in limits of memory and chunk sizes) are left out by rule, see `SILENT`.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.imaging.emit import emit_json
from medseg.runtime.provenance import now

ROOT = Path(__file__).resolve().parents[1]
DICOM = "tests/imaging/test_dicom_faults.py tests/imaging/test_dicom_resampled.py tests/imaging/test_dicom_witness.py"
POISON = "tests/poison/test_poison.py"
MODULES = {
    "medseg/imaging/volume.py": "tests/imaging/test_geometry.py tests/imaging/test_orientations.py tests/preprocess",
    "medseg/imaging/grid.py": f"tests/imaging/test_geometry.py tests/imaging/test_nifti_faults.py {POISON}",
    "medseg/imaging/nifti.py": f"tests/imaging/test_nifti_faults.py tests/imaging/test_label_map.py {POISON}",
    "medseg/imaging/checks.py": f"tests/imaging/test_hounsfield.py {POISON}",
    "medseg/imaging/dicom_geometry.py": f"{DICOM} {POISON}",
    "medseg/imaging/dicom_regrid.py": f"{DICOM} {POISON}",
    "medseg/imaging/dicom_series.py": f"{DICOM} {POISON}",
    "medseg/imaging/dicom_elements.py": f"tests/imaging/test_dicom_witness.py {DICOM} {POISON}",
    "medseg/imaging/dicom_witness.py": f"tests/imaging/test_dicom_witness.py {DICOM} {POISON}",
    "medseg/preprocess/restore.py": "tests/preprocess tests/inference/test_planted_organs.py",
    "medseg/results/measure.py": "tests/results/test_measure.py",
}
SILENT = ("SLAB_VALUES", "MAX_VOXELS", "MAX_SHEAR", "SAMPLE_VOXELS", "MAX_DEPTH", "UID_TAIL", "COARSE_SPACING_MM")
"""Names whose values are budgets: one more or less changes no result."""
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "floor": "ceil", "ceil": "floor", "any": "all", "all": "any", "argmax": "argmin"}
LIMIT_S = 300


@dataclass(frozen=True)
class Mutant:
    """One change: the how-manieth node that can be changed, and in which of its ways."""

    module: str
    number: int
    line: int
    change: str

    @property
    def key(self) -> str:
        return f"{self.module}:{self.number}"


class _Changer(ast.NodeTransformer):
    """Counts what can be changed; changes the one with number `wanted`."""

    def __init__(self, wanted: int | None = None) -> None:
        self.wanted, self.count = wanted, 0
        self.found: list[tuple[int, str]] = []

    def _turn(self, node: ast.AST, line: int, change: str) -> bool:
        self.found.append((line, change))
        self.count += 1
        return self.count - 1 == self.wanted

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return node  # what an error says is judged elsewhere

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        return node if node.value is None else self._value(node)

    def _value(self, node: Any) -> Any:
        node.value = self.visit(node.value)
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        names = {target.id for target in node.targets if isinstance(target, ast.Name)}
        return node if names & set(SILENT) else self._value(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.body = [self.visit(part) for part in node.body]
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        other = SWAPS.get(type(node.op))
        if other is not None and not _is_text(node) and self._turn(node, node.lineno, other.__name__):
            node.op = other()  # type: ignore[assignment]
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        other = SWAPS[type(node.op)]
        if self._turn(node, node.lineno, other.__name__):
            node.op = other()  # type: ignore[assignment]
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        for n, op in enumerate(node.ops):
            other = SWAPS.get(type(op))
            if other is not None and self._turn(node, node.lineno, other.__name__):
                node.ops[n] = other()  # type: ignore[call-overload]
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.Not | ast.USub) and self._turn(node, node.lineno, "dropped"):
            return node.operand
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, bool):
            return self._constant(node, not node.value)
        if isinstance(node.value, int):
            return self._constant(node, node.value + 1)
        if isinstance(node.value, float):
            return self._constant(node, node.value * 2 + 1)
        return node

    def _constant(self, node: ast.Constant, value: object) -> ast.AST:
        if self._turn(node, node.lineno, f"{node.value} -> {value}"):
            return ast.copy_location(ast.Constant(value), node)  # type: ignore[arg-type]
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name in NAMES and self._turn(node, node.lineno, NAMES[name]):
            if isinstance(node.func, ast.Name):
                node.func.id = NAMES[name]
            else:
                node.func.attr = NAMES[name]  # type: ignore[attr-defined]
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        if self._turn(node, node.lineno, "branches swapped"):
            node.body, node.orelse = node.orelse, node.body
        return node


def _is_text(node: ast.BinOp) -> bool:
    return any(isinstance(side, ast.JoinedStr | ast.Constant) and isinstance(getattr(side, "value", ""), str)
               for side in (node.left, node.right))  # fmt: skip


def mutants(module: str) -> list[Mutant]:
    """Everything that can be changed in a module."""
    changer = _Changer()
    changer.visit(ast.parse((ROOT / module).read_text()))
    return [Mutant(module, n, line, change) for n, (line, change) in enumerate(changer.found)]


def mutated(mutant: Mutant) -> str:
    """The module's source with that one change."""
    tree = copy.deepcopy(ast.parse((ROOT / mutant.module).read_text()))
    return ast.unparse(ast.fix_missing_locations(_Changer(mutant.number).visit(tree)))


class Bench:
    """A copy of the project in which mutants are tried, one at a time."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="medseg-mutants-"))
        for name in ("medseg", "tests", "app", "scripts", "benchmarks", "pyproject.toml", ".streamlit"):
            source, target = ROOT / name, self.home / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "packages"))
            else:
                shutil.copy(source, target)
        (self.home / "medseg" / "models" / "packages").symlink_to(ROOT / "medseg" / "models" / "packages")

    def try_out(self, mutant: Mutant | None, tests: str) -> tuple[str, float]:
        """'killed', 'survived' or 'timeout', and the seconds; without a mutant the tests have to pass."""
        began = time.monotonic()
        if mutant is not None:
            (self.home / mutant.module).write_text(mutated(mutant))
        options = ["-x", "-q", "-n0", "-m", "not slow and not real"]
        command = [sys.executable, "-m", "pytest", *options, *dict.fromkeys(tests.split())]
        own = {"PYTHONPATH": str(self.home), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        watch = {"cwd": self.home, "env": os.environ | own, "capture_output": True, "timeout": LIMIT_S}
        try:
            done = subprocess.run(command, check=False, **watch)  # type: ignore[call-overload]
            fate = "survived" if done.returncode == 0 else "killed"
        except subprocess.TimeoutExpired:
            fate = "timeout"
        finally:
            if mutant is not None:
                shutil.copy(ROOT / mutant.module, self.home / mutant.module)
        return fate, time.monotonic() - began

    def close(self) -> None:
        shutil.rmtree(self.home, ignore_errors=True)


def chosen(sample: int, seed: int, modules: list[str]) -> list[Mutant]:
    """A sample of each module, or all."""
    found: list[Mutant] = []
    for module in modules:
        known = mutants(module)
        picked = known if sample == 0 else random.Random(f"{seed} {module}").sample(known, min(sample, len(known)))
        found += sorted(picked, key=lambda mutant: mutant.number)
    return found


def run(asked: argparse.Namespace) -> dict[str, Any]:
    """Try all chosen mutants that have not been tried; keep the results as they come."""
    notes = asked.out.with_suffix(".partial.json")
    known: dict[str, dict[str, Any]] = json.loads(notes.read_text()) if notes.exists() else {}
    todo = [mutant for mutant in chosen(asked.sample, asked.seed, asked.modules) if mutant.key not in known]
    random.Random(asked.seed).shuffle(todo)
    waiting: Iterator[Mutant] = iter(todo)

    def lane(_: int) -> None:
        bench = Bench()
        try:
            for mutant in waiting:
                fate, seconds = bench.try_out(mutant, MODULES[mutant.module])
                known[mutant.key] = {"line": mutant.line, "change": mutant.change, "fate": fate, "s": round(seconds, 1)}
                emit_json(notes, dict(sorted(known.items())))
                print(f"{fate:9} {seconds:5.1f} s  {mutant.module}:{mutant.line} {mutant.change}", flush=True)
        finally:
            bench.close()

    with ThreadPoolExecutor(asked.workers) as pool:
        list(pool.map(lane, range(asked.workers)))
    return report(asked, known)


def report(asked: argparse.Namespace, known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Shares, and every survivor by its place."""
    wanted = {mutant.key: mutant for mutant in chosen(asked.sample, asked.seed, asked.modules)}
    tried = {key: fate for key, fate in known.items() if key in wanted}
    killed = sum(one["fate"] != "survived" for one in tried.values())
    per_module = {}
    for module in asked.modules:
        own = [one for key, one in tried.items() if key.startswith(f"{module}:")]
        dead = sum(one["fate"] != "survived" for one in own)
        per_module[module] = {"can be changed": len(mutants(module)), "tried": len(own), "killed": dead}
    return {
        "command": f"python benchmarks/mutation.py --sample {asked.sample} --seed {asked.seed}",
        "date": now(),
        "modules": [Path(module).stem for module in asked.modules],
        "mutants": len(tried),
        "killed": killed,
        "share": round(killed / max(1, len(tried)), 4),
        "per module": per_module,
        "survivors": [f"{wanted[key].module}:{one['line']} {one['change']}"
                      for key, one in sorted(tried.items()) if one["fate"] == "survived"],
    }  # fmt: skip


def main() -> int:
    """Parse, try, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--modules", nargs="*", default=list(MODULES))
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "mutation.json")
    asked = parser.parse_args()
    found = run(asked)
    emit_json(asked.out, found)
    print(f"{found['killed']} of {found['mutants']} killed ({found['share']:.1%})")
    return 0 if found["share"] >= 0.85 else 1


if __name__ == "__main__":
    raise SystemExit(main())
