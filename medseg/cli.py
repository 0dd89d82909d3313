"""The `medseg` command: segment, models, export, deidentify, evaluate, train ... What each takes: `medseg.commands`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches

from medseg.commands.measuring import benchmark, evaluate
from medseg.commands.models import (
    ensemble_models,
    export,
    import_model,
    models,
    promote_model,
    register_model,
    roll_back_model,
)
from medseg.commands.segmenting import deidentify, segment
from medseg.commands.training import check_data, plan_training, train
from medseg.runtime.command import Commands, run_commands

# `medseg models promote` is `medseg promote`.
TWO_WORDS: dict[tuple[str, ...], str] = {
    ("models", "import"): "import",
    ("models", "ensemble"): "ensemble",
    ("models", "register"): "register",
    ("models", "promote"): "promote",
    ("models", "rollback"): "rollback",
    ("train", "check"): "check",
    ("train", "plan"): "plan",
}


def _nearest(argv: Sequence[str]) -> str:
    """The second word that was meant. Only where the call is wrong in any case: `models` and `train` take one name."""
    if len(argv) < 3 or argv[2].startswith("-"):
        return ""
    seconds = [second for first, second in TWO_WORDS if first == argv[0]]
    return next(iter(get_close_matches(argv[1], seconds, 1, 0.7)), "")  # plan.yaml is a file, and no `plan`


def main(argv: list[str] | None = None) -> None:
    """Entry point of the `medseg` command."""
    argv = sys.argv[1:] if argv is None else argv
    argv = [TWO_WORDS[first], *argv[2:]] if (first := tuple(argv[:2])) in TWO_WORDS else argv
    if nearest := _nearest(argv):
        said = f"no command `medseg {' '.join(argv[:2])}`; did you mean `medseg {argv[0]} {nearest}`?"
        print(f"Error: {said}", file=sys.stderr)
        sys.exit(2)
    commands: Commands = {
        "segment": segment,
        "models": models,
        "import": import_model,
        "ensemble": ensemble_models,
        "register": register_model,
        "promote": promote_model,
        "rollback": roll_back_model,
        "export": export,
        "deidentify": deidentify,
        "evaluate": evaluate,
        "train": train,
        "check": check_data,
        "plan": plan_training,
        "benchmark": benchmark,
    }
    about = "CT in, named and measured organs out. Research use only; not a medical device."
    run_commands(commands, argv, "medseg", about)
