"""LabelTable: organ name <-> value in the mask <-> colour <-> SNOMED CT code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from medseg.errors import ConfigError
from medseg.sides import is_sided, words_of

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Label:
    """One organ.

    Attributes:
        name: snake_case English, as in the data's index.
        value: its number in the mask; 0 is background.
        colour: RGB, 0 ... 255.
        snomed: SNOMED CT concept id, empty where there is none.
    """

    name: str
    value: int
    colour: Colour = (200, 200, 200)
    snomed: str = ""

    @property
    def title(self) -> str:
        """The name as people read it: 'Parotid gland, left'."""
        words = self.name.split("_")
        side = words[-1] if words[-1] in ("left", "right") else ""
        head = " ".join(words[:-1] if side else words)
        return f"{head.capitalize()}, {side}" if side else head.capitalize()

    @property
    def stem(self) -> str:
        """The name as a part of a file's name: one from a foreign model never leads out of the folder."""
        return re.sub(r"[^\w-]", "_", self.name)


# Colours follow the eye's distance on grey; codes are SNOMED CT body structures (a side is in the name).
KNOWN: dict[str, tuple[Colour, str]] = {
    "brainstem": ((230, 159, 0), "15926001"),
    "spinal_cord": ((240, 228, 66), "2748008"),
    "parotid_gland_right": ((86, 180, 233), "45289007"),
    "parotid_gland_left": ((0, 158, 115), "45289007"),
    "esophagus": ((213, 94, 0), "32849002"),
    "larynx": ((204, 121, 167), "4596009"),
    "mandible": ((120, 94, 240), "91609006"),
    "body": ((140, 170, 200), "38266002"),
    "lungs": ((86, 180, 233), "39607008"),
    "bone": ((245, 235, 200), "272673000"),
    "fat": ((240, 200, 80), "55603005"),
}


class LabelTable:
    """The labels of a model, in order of their values.

    Raises:
        ConfigError: a name or value stands twice, or a value lies outside 1 ... 255.
    """

    def __init__(self, labels: Iterable[Label]) -> None:
        self.labels = tuple(sorted(labels, key=lambda label: label.value))
        values = [label.value for label in self.labels]
        if len(set(values)) != len(values) or len({label.name for label in self.labels}) != len(values):
            raise ConfigError("A label table names an organ or a value twice.")
        if any(not 0 < value < 256 for value in values):
            raise ConfigError("Label values must lie in 1 ... 255.")

    @classmethod
    def from_names(cls, names: Mapping[str, int]) -> LabelTable:
        """A table from {organ: value}, with known colours and codes."""
        rest: tuple[Colour, str] = ((200, 200, 200), "")
        return cls(Label(name, value, *KNOWN.get(name, rest)) for name, value in names.items())

    def __iter__(self) -> Iterator[Label]:
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, name: str) -> Label:
        for label in self.labels:
            if label.name == name:
                return label
        raise KeyError(name)

    @property
    def names(self) -> dict[str, int]:
        """{organ: value}."""
        return {label.name: label.value for label in self.labels}

    def mirror_pairs(self) -> list[tuple[int, int]]:
        """Values that trade places when the body is mirrored: (right, left)."""
        names = self.names
        rights = [name for name in names if name.endswith("_right")]
        pairs = [(name, f"{name.removesuffix('_right')}_left") for name in rights]
        return [(names[right], names[left]) for right, left in pairs if left in names]

    def unpaired(self) -> list[str]:
        """Organs of one side whose partner on the other has no name here."""
        paired = {value for pair in self.mirror_pairs() for value in pair}
        sided = [label for label in self if is_sided(words_of(label.name))]
        return [label.name for label in sided if label.value not in paired]

    def to_json(self) -> list[dict[str, Any]]:
        """A list of {name, value, color, snomed}, as in model cards and labels.json."""
        return [
            {"name": label.name, "value": label.value, "color": list(label.colour), "snomed": label.snomed}
            for label in self.labels
        ]

    @classmethod
    def from_json(cls, rows: Iterable[Mapping[str, Any]]) -> LabelTable:
        """The inverse of `to_json`."""
        return cls(Label(row["name"], row["value"], tuple(row["color"]), row.get("snomed", "")) for row in rows)
