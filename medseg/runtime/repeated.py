"""`--set A --set B` means `--set A B`: parsers keep the last of a repeated option, and drop the others in silence."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, get_args, get_origin, get_type_hints


def several(command: Callable[..., Any]) -> set[str]:
    """The options of a command that take any number of values: '--organs', '--set'."""
    hints = get_type_hints(command)
    names = [
        name for name, what in inspect.signature(command).parameters.items() if what.kind is not what.POSITIONAL_ONLY
    ]
    return {f"--{name.strip('_').replace('_', '-')}" for name in names if _takes_many(hints[name])}


def _takes_many(hint: Any) -> bool:
    kinds = (hint, *get_args(hint))  # of `tuple[str, ...] | None`, too
    return any(get_origin(kind) is tuple and Ellipsis in get_args(kind) for kind in kinds)


def together(argv: Sequence[str], options: set[str]) -> list[str]:
    """`argv` with each of `options` at most once, at its first place, with the values of all its places in order."""
    groups: list[list[str]] = [[]]  # each option with what follows it
    for text in argv:
        name, sign, value = text.partition("=")
        if sign and name in options:
            groups += [[name, value]]
        elif text.startswith("-"):
            groups += [[text]]
        else:
            groups[-1].append(text)
    return [text for group in _merged(groups, options) for text in group]


def _merged(groups: Sequence[list[str]], options: set[str]) -> list[list[str]]:
    first: dict[str, list[str]] = {}
    kept = []
    for group in groups:
        name = group[0] if group else ""
        if name in first:
            first[name] += group[1:]
            continue
        kept.append(group)
        if name in options:
            first[name] = group
    return kept
