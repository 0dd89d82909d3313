"""Words -> facts, by the nearest sentence that the grammar knows. A form for those who do not fill in forms."""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from medseg.inference.backends.predictor import needs
from vlretrieval.facts.grammar import every_sentence
from vlretrieval.facts.kinds import KINDS, Facts
from vlretrieval.reports.sentences import split_sentences

NEAR = 0.6  # cosine below which a sentence is about something else
_WORDS = re.compile(r"[a-z]+|\d+(?:\.\d+)?|[\u4e00-\u9fff]")


def read_words(text: str) -> Facts:
    """The facts that a text states; sentences that are near none are passed over."""
    sentences = split_sentences(text)
    if not sentences:
        return {}
    vectoriser, known, labels = _known()
    likeness = (vectoriser.transform(sentences) @ known.T).toarray()
    best = likeness.argmax(axis=1)
    sure = likeness[np.arange(len(best)), best] >= NEAR
    return {labels[place][0]: labels[place][1] for place, is_sure in zip(best, sure, strict=True) if is_sure}


@cache
def _known() -> tuple[Any, Any, list[tuple[str, str]]]:
    with needs("sklearn", "retrieval"):
        from sklearn.feature_extraction.text import TfidfVectorizer
    sentences, labels = [], []
    for kind in KINDS:
        for value in kind.values:
            for language in ("en", "zh"):
                for sentence in every_sentence(kind.name, value, "train", language):  # type: ignore[arg-type]
                    sentences.append(sentence)
                    labels.append((kind.name, value))
    vectoriser = TfidfVectorizer(analyzer=words_and_pairs, sublinear_tf=True)
    return vectoriser, vectoriser.fit_transform(sentences), labels


def words_and_pairs(text: str) -> list[str]:
    """Words, single Chinese characters, and each with its neighbour."""
    words = _WORDS.findall(text.lower())
    return words + [f"{a}_{b}" for a, b in pairwise(words)]
