"""Just enough of the Dockerfile language to check the recipes and to run their steps without an engine."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Step:
    """One instruction: `RUN`, `COPY` ... and its text with the continued lines joined."""

    name: str
    text: str

    def words(self) -> list[str]:
        """The text as the words of a command, in its JSON or its shell form."""
        return json.loads(self.text) if self.text.startswith("[") else shlex.split(self.text)


def read_recipe(path: Path) -> list[Step]:
    """The instructions of a Dockerfile in order; comments are dropped."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [Step(*line.split(maxsplit=1)) for line in joined.splitlines()]


def named(steps: list[Step], name: str) -> list[Step]:
    """The steps with that instruction."""
    return [step for step in steps if step.name == name]


def environment(steps: list[Step]) -> dict[str, str]:
    """What all ENV steps set."""
    return dict(word.split("=", 1) for step in named(steps, "ENV") for word in step.words())


def health_command(steps: list[Step]) -> list[str]:
    """The command of HEALTHCHECK."""
    (step,) = named(steps, "HEALTHCHECK")
    return json.loads(step.text.split("CMD ", 1)[1])
