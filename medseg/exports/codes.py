"""Organs in the words of SNOMED CT, as DICOM objects and Slicer want them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

from pydicom.sr.codedict import codes

from medseg.labels import Label

ANATOMY = ("91723000", "Anatomical Structure")
TISSUE = ("85756007", "Tissue")
SIDES = {"right": ("24028007", "Right"), "left": ("7771000", "Left")}
PRIVATE_SCHEME = "99MEDSEG"
_TISSUES = frozenset({"272673000", "55603005"})


@dataclass(frozen=True)
class Coded:
    """A coded concept."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class OrganCode:
    """What an organ is: category, type, and its side where it has one."""

    category: Coded
    type: Coded
    side: Coded | None


def code_of(label: Label) -> OrganCode:
    """The code of an organ; one that DICOM's part of SNOMED CT does not name gets a code of this project's own."""
    stem, side = split_side(label.name)
    value, meaning = _snomed(label.snomed, stem)
    kind = Coded(value, "SCT", meaning) if value else Coded(_private_value(stem), PRIVATE_SCHEME, _words(stem))
    category = TISSUE if value in _TISSUES else ANATOMY
    return OrganCode(_sct(category), kind, _sct(SIDES[side]) if side else None)


def _sct(code: tuple[str, str]) -> Coded:
    return Coded(code[0], "SCT", code[1])


def split_side(name: str) -> tuple[str, str]:
    """('parotid_gland', 'left') of 'parotid_gland_left'; the side is empty where there is none."""
    words = name.split("_")
    if words[-1] in SIDES and len(words) > 1:
        return "_".join(words[:-1]), words[-1]
    return name, ""


def _snomed(given: str, stem: str) -> tuple[str, str]:
    found = _dictionary().get(stem.replace("_", "").casefold(), ("", ""))
    if not given:
        return found
    return given, found[1] if found[0] == given else _words(stem)


@lru_cache(maxsize=1)
def _dictionary() -> dict[str, tuple[str, str]]:
    """Every SNOMED CT concept that DICOM names, by its name without blanks."""
    concepts = ((keyword, getattr(codes.SCT, keyword)) for keyword in codes.SCT.dir())
    return {keyword.casefold(): (code.value, code.meaning) for keyword, code in concepts}


def _words(stem: str) -> str:
    return stem.replace("_", " ").capitalize()


def _private_value(stem: str) -> str:
    # Code values hold 16 characters; names that begin alike are told apart by a digest.
    short = stem.upper()
    return short if len(short) <= 16 else f"{short[:9]}_{sha256(stem.encode()).hexdigest()[:6].upper()}"
