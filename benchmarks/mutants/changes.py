"""What can be changed in a source, one place at a time: an operator, a number, a condition, a call."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SILENT = ("SLAB_VALUES", "MAX_VOXELS", "MAX_SHEAR", "SAMPLE_VOXELS", "MAX_DEPTH", "UID_TAIL", "COARSE_SPACING_MM",
          "CHUNK", "MAX_HELD_BYTES")  # fmt: skip
"""Names whose values are budgets: one more or less changes no result."""
GUARDS = ("strict", "frozen")
"""Arguments that guard against a slip in the code itself: `zip(strict=)` and `dataclass(frozen=)` change no result."""
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "floor": "ceil", "ceil": "floor", "any": "all", "all": "any", "argmax": "argmin"}


@dataclass(frozen=True)
class Mutant:
    """One change: the how-manieth place of a module that can be changed.

    Attributes:
        lines: of the statement in which it lies, without what is indented below it.
    """

    module: str
    number: int
    line: int
    lines: range
    change: str

    @property
    def key(self) -> str:
        return f"{self.module}:{self.number}"

    @property
    def place(self) -> str:
        """Where it is, in words that last longer than a line's number."""
        text = (ROOT / self.module).read_text().splitlines()[self.line - 1].strip()
        return f"{self.module} | {text} | {self.change}"


class _Changer(ast.NodeTransformer):
    """Counts what can be changed; changes the one with number `wanted`."""

    def __init__(self, wanted: int | None = None) -> None:
        self.wanted, self.count = wanted, 0
        self.found: list[tuple[int, range, str]] = []
        self._statement = range(0)

    def visit(self, node: ast.AST) -> Any:
        """Go into a node, and remember the lines of the statement that it belongs to."""
        before = self._statement
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            self._statement = range(node.lineno, body[0].lineno if body else (node.end_lineno or node.lineno) + 1)
        try:
            return super().visit(node)
        finally:
            self._statement = before

    def _turn(self, node: ast.AST, line: int, change: str) -> bool:
        self.found.append((line, self._statement, change))
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

    def visit_keyword(self, node: ast.keyword) -> ast.AST:
        return node if node.arg in GUARDS else self.generic_visit(node)

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
    return [Mutant(module, n, *place) for n, place in enumerate(changer.found)]


def mutated(mutant: Mutant) -> str:
    """The module's source with that one change."""
    tree = ast.parse((ROOT / mutant.module).read_text())
    return ast.unparse(ast.fix_missing_locations(_Changer(mutant.number).visit(tree)))
