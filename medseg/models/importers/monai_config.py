"""A MONAI bundle's inference config as data: references followed by hand, code found and refused, nothing run.

MONAI evaluates `$...` as Python and imports whatever `_target_` names. Here both are text. Sections that decide
the mask must be literal; in the others (devices, paths, data loading) the phrases that MONAI's own bundles use are
passed over unread, and anything else is refused with its place in the file.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from medseg.errors import ModelImportError

_ADVICE = "Only bundles whose network and transforms are written out can be taken over: replace these by literals."
_MODULES = {"glob", "os", "torch", "numpy", "monai", "json", "pathlib", "math", "ignite", "scipy"}
_CALLS = {
    "torch.device", "torch.cuda.is_available", "torch.cuda.device_count", "monai.utils.set_determinism",
    "os.path.join", "os.path.basename", "os.path.dirname", "glob.glob", "sorted", "list", "len", "str", "int", "float",
    "range", "dict", "zip", "min", "max", "monai.handlers.from_engine", "setattr",
}  # fmt: skip
_METHODS = {"to", "run", "eval", "parameters", "keys", "items", "values", "format", "join", "get"}
MAX_DEPTH = 40
# Parts of a bundle that move data about and do not change the mask.
INERT = {
    "Compose", "Dataset", "CacheDataset", "PersistentDataset", "DataLoader", "ThreadDataLoader", "SupervisedEvaluator",
    "CheckpointLoader", "StatsHandler", "SimpleInferer",
}  # fmt: skip


class BundleConfig:
    """The config of a bundle.

    Args:
        path: configs/inference.json or .yaml.
        known: `_target_`s beside `INERT` that may stand in it.

    Raises:
        ModelImportError: unreadable, or code in it; every place is listed.
    """

    def __init__(self, path: Path, known: set[str]) -> None:
        self.path, self.root = path, _read(path)
        found = list(_suspicious(self.root, known | INERT))
        if found:
            listed = "; ".join(found[:8]) + (f"; and {len(found) - 8} more" if len(found) > 8 else "")
            raise ModelImportError(path, f"holds code, which was refused; nothing was run: {listed}.", advice=_ADVICE)

    def section(self, *names: str) -> Any:
        """The first of the sections that is there.

        Raises:
            ModelImportError: none is.
        """
        for name in names:
            if name in self.root:
                return self.follow(self.root[name], name)
        raise ModelImportError(
            self.path, f"has no section {' or '.join(names)}.", advice="Complete it as in the model zoo."
        )

    def follow(self, node: Any, place: str) -> Any:
        """`node`, or what it refers to where it is one reference.

        Raises:
            ModelImportError: it refers to nothing, to itself, or is an expression.
        """
        for _ in range(20):
            if not isinstance(node, str) or node[:1] not in ("$", "%", "@"):
                return node
            if node[0] != "@":
                raise ModelImportError(self.path, f"{place} is an expression: {node}.", advice=_ADVICE)
            node = self._at(node[1:], place)
        raise ModelImportError(self.path, f"{place} refers to itself.", advice=_ADVICE)

    def literal(self, node: Any, place: str) -> Any:
        """`node` with all references followed: numbers, texts, lists and dicts only.

        Raises:
            ModelImportError: an expression or a component in it.
        """
        node = self.follow(node, place)
        if isinstance(node, list):
            return [self.literal(item, f"{place}[{n}]") for n, item in enumerate(node)]
        if isinstance(node, Mapping):
            if "_target_" in node:
                reason = f"{place} is built by {node['_target_']}, not a literal."
                raise ModelImportError(self.path, reason, advice=_ADVICE)
            return {str(key): self.literal(value, f"{place}.{key}") for key, value in node.items()}
        return node

    def _at(self, reference: str, place: str) -> Any:
        node: Any = self.root
        for key in re.split("::|#", reference):
            try:
                node = node[int(key)] if isinstance(node, list) else node[key]
            except (KeyError, IndexError, ValueError, TypeError):
                raise ModelImportError(
                    self.path, f"{place} refers to @{reference}, which is not there.", advice=_ADVICE
                ) from None
        return node


def target(node: Any) -> str:
    """The component that a node builds, without MONAI's module path; '' where it builds none."""
    name = str(node.get("_target_", "")) if isinstance(node, Mapping) else ""
    return name.rpartition(".")[2] if name.startswith("monai.") else name


class _WithoutAliases(yaml.SafeLoader):
    """Plain YAML: aliases let a small file unfold into gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):  # type: ignore[no-untyped-call]
            raise yaml.YAMLError("aliases are not taken")
        return super().compose_node(parent, index)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.load(text, Loader=_WithoutAliases)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ModelImportError(path, f"is not readable ({error}).", advice="Copy the bundle again.") from error
    if not isinstance(content, dict):
        raise ModelImportError(path, "holds no settings.", advice="Copy the bundle again.")
    return content


def _suspicious(node: Any, known: set[str], place: str = "") -> Iterator[str]:
    """Places that hold code or name something that is not known."""
    if place.count("::") > MAX_DEPTH:
        yield f"{place[:60]}...: nested too deep"
    elif isinstance(node, Mapping):
        if "_requires_" in node:
            yield f"{place or 'the file'}: _requires_ {node['_requires_']}"
        if "_target_" in node and target(node) not in known:
            yield f"{place or 'the file'}: _target_ {node['_target_']}"
        for key, value in node.items():
            if key not in ("_target_", "_requires_"):
                yield from _suspicious(value, known, f"{place}::{key}".removeprefix("::"))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _suspicious(value, known, f"{place}::{number}")
    elif isinstance(node, str) and (node.startswith("%") or (node.startswith("$") and not is_usual(node[1:]))):
        yield f"{place}: {node[:120]}"


def is_usual(expression: str) -> bool:
    """Whether an expression holds only what bundles of the model zoo say about devices, paths and lists.

    Parsed, never evaluated: a judgement on the text.
    """
    try:
        tree = ast.parse(re.sub("@", "_ref_", expression.strip()).replace("::", "_").replace("#", "_"))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(_is_usual_node(node) for node in ast.walk(tree))


def _is_usual_node(node: ast.AST) -> bool:
    if isinstance(node, ast.Import):
        return all(alias.name.partition(".")[0] in _MODULES for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        return str(node.module).partition(".")[0] in _MODULES
    if isinstance(node, ast.Name):
        return "__" not in node.id
    if isinstance(node, ast.Attribute):
        return "__" not in node.attr
    if isinstance(node, ast.Call):
        return _dotted(node.func) in _CALLS or (isinstance(node.func, ast.Attribute) and node.func.attr in _METHODS)
    return not isinstance(node, ast.Lambda | ast.FunctionDef | ast.ClassDef | ast.Assign | ast.NamedExpr | ast.Await)


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"
