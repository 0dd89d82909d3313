"""Make `vlretrieval/vocabulary.json` anew: the words of CT-Facts' training sentences and of the lexicon.

Held-out sentences of CT-Facts and reports of patients are not read.

Example: python scripts/build_vocabulary.py
"""

from __future__ import annotations

import string
from collections.abc import Iterator

import yaml

from vlretrieval.facts.grammar import every_sentence
from vlretrieval.facts.kinds import KINDS
from vlretrieval.lexicon import FILE
from vlretrieval.text_encoder import VOCABULARY, train_vocabulary

SIZE = 1500


def corpus() -> Iterator[str]:
    """Sentences and words, frequent ones often."""
    for kind in KINDS:
        for value in kind.values:
            yield from every_sentence(kind.name, value, "train", "en")
            yield from every_sentence(kind.name, value, "train", "zh")
    raw = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    for group in ("organs", "regions", "sides", "sizes", "comparisons", "units"):
        for words in raw[group].values():
            yield from [" ".join(map(str, words))] * 20
    yield from [raw["words"]] * 50
    yield from [" ".join(string.ascii_lowercase), " ".join(string.digits), string.punctuation] * 20


if __name__ == "__main__":
    train_vocabulary(corpus(), VOCABULARY, SIZE)
    print(VOCABULARY)
