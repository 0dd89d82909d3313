"""A study in words: what is shown to people, and what is indexed so that other words find it, too."""

from __future__ import annotations

import numpy as np

from vlretrieval.facts.grammar import Language, every_sentence, say
from vlretrieval.facts.kinds import Facts
from vlretrieval.intake import Seen
from vlretrieval.lexicon import title, words_of


def describe_study(seen: Seen) -> str:
    """Sentences for people: parts of the body, organs with their volumes, facts."""
    regions = [words_of("regions")[region][0] for region in seen.regions]
    organs = [f"{title(organ)} ({seen.measures[f'{organ}_ml']:.0f} ml)" for organ in seen.organs]
    sentences = [
        f"CT of {' and '.join(regions)}" if regions else "CT",
        f"In view: {', '.join(organs)}" if organs else "",
    ]
    return ". ".join([sentence for sentence in sentences if sentence] + plain_sentences(seen.facts)) + "."


def plain_sentences(facts: Facts, language: Language = "en") -> list[str]:
    """Each fact in its first and plainest sentence."""
    first = _First()
    return [say(name, value, first, "train", language) for name, value in facts.items()]  # type: ignore[arg-type]


class _First(np.random.Generator):
    """Chooses what stands first."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(0))

    def integers(self, *_: object, **__: object) -> int:  # type: ignore[override]
        return 0


def index_words(seen: Seen) -> str:
    """All ways to say what was seen: never shown, only searched."""
    said = [word for region in seen.regions for word in words_of("regions")[region]]
    for organ in seen.organs:
        bare = organ.removesuffix("_right").removesuffix("_left")
        side = organ.removeprefix(bare).strip("_")
        names = words_of("organs").get(bare, [bare.replace("_", " ")])
        said += names + [f"{word} {name}" for word in words_of("sides").get(side, [])[:1] for name in names]
    for name, value in seen.facts.items():
        for language in ("en", "zh"):
            said += every_sentence(name, value, "train", language)  # type: ignore[arg-type]
    return "\n".join(said)


def fact_terms(facts: Facts) -> str:
    """Facts as terms of the index of facts."""
    return " ".join(f"{name}={value}" for name, value in facts.items())
