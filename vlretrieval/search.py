"""Words find CTs, CTs find CTs: legs that each rank the archive, and one order from them, with reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medseg.errors import ModelError
from medseg.imaging.volume import Array
from vlretrieval.describe import fact_terms
from vlretrieval.encoder import Encoder
from vlretrieval.facts.kinds import BY_NAME
from vlretrieval.fusion import fuse, scaled
from vlretrieval.intake import Seen
from vlretrieval.lexicon import title, words_of
from vlretrieval.query import Query, parse_query
from vlretrieval.store import Ranking, Store
from vlretrieval.study import Hit, Reason, Study, Vectors
from vlretrieval.words import DENIED, analyse

DEPTH = 100  # of each leg; as many as are asked for, where that is more
JUDGED = 1000  # nearest studies that are judged sentence by sentence, or as many as are asked for
RERANKED = 50
# Where a package says nothing else.
FUSION = {"whole": 1.0, "organs": 0.5, "words": 0.5, "facts": 1.0, "sizes": 1.0}


@dataclass(frozen=True)
class Found:
    """Hits, how the question was understood, and what a reader should know."""

    hits: tuple[Hit, ...]
    query: Query | None = None
    notes: tuple[str, ...] = ()


class Searcher:
    """Searches an archive with the encoder that made it.

    Raises:
        ModelError: another encoder made the archive.
    """

    def __init__(self, store: Store, encoder: Encoder) -> None:
        if store.info.encoder != encoder.id:
            raise ModelError(
                f"The archive {store.uri} was made with {store.info.encoder}; this is {encoder.id}.",
                advice="Take that model, or index anew into another folder.",
            )
        self.store, self.encoder = store, encoder
        self.weights = FUSION | dict(encoder.fusion)

    def by_words(self, text: str, k: int = 10, *, where: str | None = None, rerank: bool = False) -> Found:
        """Studies that a text describes.

        Measures with a limit ("spleen > 300 ml"), organs and parts of the body that are named are asked of every
        hit; what else is said decides the order.

        Args:
            text: English or Chinese.
            k: how many.
            where: one more filter, SQL over the archive's columns.
            rerank: let the matching head put the first fifty hits in order; a note says where it cannot.

        Raises:
            ConfigError: a limit on something that the archive does not measure.
        """
        query = parse_query(text, self.store.info)
        asked = _both(query.where(), where)
        legs = self._legs(query, asked, max(DEPTH, k))
        ranking = fuse(legs, self.weights, max(k, RERANKED))
        if query.where():
            ranking = _with_rest(ranking, self.store.keys(asked), k)
        notes: tuple[str, ...] = ()
        if rerank and query.text:
            ranking, notes = self._rerank(query.text, ranking)
        hits = self._hits(
            ranking, k, lambda study, key: _word_reasons(study, query, legs, key, judged=self.encoder.judges)
        )
        return Found(tuple(hits), query, notes + _notes(hits, query))

    def _legs(self, query: Query, where: str | None, depth: int) -> dict[str, Ranking]:
        if not query.text:
            return {}
        legs = {"words": self.store.by_words(query.text, depth, where)}
        if query.facts:
            legs["facts"] = self.store.by_facts(fact_terms(query.facts), depth, where)
        if query.sizes:
            legs["sizes"] = _best_of([self._by_size(names, size, where, depth) for names, size in query.sizes])
        vector = self.encoder.words(query.text)
        return legs if vector is None else legs | self._vector_legs(query, vector, where, depth)

    def _by_size(self, organs: Sequence[str], size: str, where: str | None, depth: int) -> Ranking:
        """Studies by the volume of an organ, among those of this archive that show it."""
        found = [self.store.by_measure(f"{organ}_ml", depth, where, largest=size == "large") for organ in organs]
        return _best_of([Ranking(ranking.keys, scaled(ranking.scores)) for ranking in found])

    def _vector_legs(self, query: Query, vector: Array, where: str | None, depth: int) -> dict[str, Ranking]:
        near = self.store.nearest(vector, max(JUDGED, depth), where)
        legs = {"whole": self._likeliest(query.text, near, depth)}
        organs = [name for names in query.organs for name in names if name in self.encoder.organs]
        if organs:
            found = [self.store.nearest(vector, depth, where, organ=name) for name in organs]
            legs["organs"] = _best_of(found)
        return legs

    def _likeliest(self, text: str, near: Ranking, depth: int) -> Ranking:
        """Of the studies near a text as a whole those of which its sentences are most likely true, one by one."""
        judged = self.encoder.judges and len(near)
        scores = self.encoder.likelihood(text, self.store.wholes(near.keys)) if judged else None
        if scores is None:
            return Ranking(near.keys[:depth], near.scores[:depth])
        order = np.lexsort((near.keys, -scores))[:depth]
        return Ranking(near.keys[order], scores[order].astype(np.float64))

    def _rerank(self, text: str, ranking: Ranking) -> tuple[Ranking, tuple[str, ...]]:
        """The first hits as the matching head puts them, the others behind; a note where there is no trained head."""
        features = self.store.features(ranking.keys[:RERANKED].tolist())
        first = np.flatnonzero(np.isin(ranking.keys[:RERANKED], list(features)))
        keys = ranking.keys[first]
        match = self.encoder.match(text, np.array([features[key] for key in keys.tolist()])) if features else None
        if match is None:
            return ranking, (_unjudged(self.encoder.id),) if len(ranking) else ()
        scores = scaled(ranking.scores[first]) + self.weights.get("matching", 0.5) * scaled(match)
        order = np.lexsort((keys, -scores))
        return _followed(Ranking(keys[order], scores[order]), ranking.keys[RERANKED:]), ()

    def like(
        self,
        vectors: Vectors,
        regions: Sequence[str],
        k: int = 10,
        *,
        leave_out: str = "",
        organ: str = "",
        where: str | None = None,
    ) -> Found:
        """Studies that look like one, those of the same part of the body first.

        Args:
            vectors: of the study.
            regions: that it shows, the largest first.
            k: how many.
            leave_out: id of the study itself, where it is in the archive.
            organ: compare this organ alone.
            where: filter, SQL over the archive's columns.
        """
        asked = _both(where, f"id <> '{leave_out}'" if leave_out else None)
        vector = vectors.organs[organ] if organ else vectors.whole
        same = f"array_has(regions, '{regions[0]}')" if regions else None
        first = self.store.nearest(vector, k, _both(asked, same), organ=organ)
        rest = self.store.nearest(vector, k, _both(asked, f"NOT {same}"), organ=organ) if same else Ranking.nothing()
        keys = np.concatenate([first.keys, rest.keys])[:k]
        scores = np.concatenate([first.scores, rest.scores])[:k]
        hits = self._hits(Ranking(keys, scores), k, lambda study, key: _like_reasons(study, regions, organ))
        return Found(tuple(hits))

    def like_known(self, fingerprint: str, k: int = 10, *, organ: str = "", where: str | None = None) -> Found | None:
        """Studies that look like one of the archive, which is found by its files; None where it is not there."""
        keys = self.store.keys(f"fingerprint = '{fingerprint}'").tolist() if fingerprint else []
        if not keys:
            return None
        study, vectors = self.store.studies(keys[:1])[0], self.store.vectors(keys[0])
        if organ and organ not in vectors.organs:
            return _without(organ, study.name)
        return self.like(vectors, study.regions, k, leave_out=study.id, organ=organ, where=where)

    def like_seen(self, seen: Seen, k: int = 10, *, organ: str = "", where: str | None = None) -> Found:
        """Studies that look like one that has just been looked at."""
        vectors = self.encoder.studies([seen.input])[0]
        if organ and organ not in vectors.organs:
            return _without(organ, seen.name)
        return self.like(vectors, seen.regions, k, leave_out=seen.id, organ=organ, where=where)

    def _hits(self, ranking: Ranking, k: int, why: object) -> list[Hit]:
        keys, scores = ranking.keys[:k].tolist(), ranking.scores[:k].tolist()
        studies = {study.key: study for study in self.store.studies(keys)}
        found = [(studies[key], score) for key, score in zip(keys, scores, strict=True) if key in studies]
        return [
            Hit(rank, score, study, tuple(why(study, study.key)))  # type: ignore[operator]
            for rank, (study, score) in enumerate(found, 1)
        ]


def _without(organ: str, name: str) -> Found:
    return Found((), notes=(f"{title(organ).capitalize()} was not found in {name}.",))


def _both(first: str | None, second: str | None) -> str | None:
    clauses = [clause for clause in (first, second) if clause]
    return " AND ".join(f"({clause})" for clause in clauses) or None


def _followed(first: Ranking, rest: Array) -> Ranking:
    """Others behind a ranking. What they scored was on another scale: they have 0, the least that a first one has."""
    return Ranking(np.concatenate([first.keys, rest]), np.concatenate([first.scores, np.zeros(len(rest))]))


def _with_rest(ranking: Ranking, passing: Array, k: int) -> Ranking:
    """Behind the studies that words found, the others that pass what was asked for."""
    return _followed(ranking, passing[~np.isin(passing, ranking.keys)][: max(0, k - len(ranking))])


def _best_of(rankings: Sequence[Ranking]) -> Ranking:
    """The better of a study's scores: of its right or its left organ."""
    best: dict[int, float] = {}
    for ranking in rankings:
        for key, score in zip(ranking.keys.tolist(), ranking.scores.tolist(), strict=True):
            best[key] = max(score, best.get(key, -np.inf))
    keys = np.array(list(best), dtype=np.int64)
    scores = np.array([best[key] for key in keys.tolist()])
    order = np.argsort(-scores, kind="stable")
    return Ranking(keys[order], scores[order])


def _word_reasons(study: Study, query: Query, legs: dict[str, Ranking], key: int, *, judged: bool) -> list[Reason]:
    reasons = [
        Reason("filter", _measured(study, condition.measures), condition.measures) for condition in query.filters
    ]
    for names in query.organs:
        reasons += [_organ_reason(study, name) for name in names if name in study.organs]
    reasons += [_region_reason(region) for region in query.regions if region in study.regions]
    if query.facts and key in legs.get("facts", Ranking.nothing()).keys:
        stated = tuple(name for name in query.facts if name in BY_NAME)
        words = ", ".join(name.replace("_", " ") for name in stated)
        reasons.append(Reason("match", f"facts asked for: {words}", stated))
    if common := _common_words(study, query):
        reasons.append(Reason("words", ", ".join(common[:6])))
    whole = legs.get("whole", Ranking.nothing())
    place = np.flatnonzero(whole.keys == key)
    if len(place):
        score = float(whole.scores[place[0]])
        likely, alike = f"{min(1.0, np.exp(score)):.0%}", f"{score:.2f}"
        reasons.append(
            Reason("likely", f"{likely} likely", (likely,))
            if judged
            else Reason("likeness", f"cosine {alike}", (alike,))
        )
    return reasons


def _common_words(study: Study, query: Query) -> list[str]:
    wanted = dict.fromkeys(term for term in analyse(query.text) if not term.startswith(DENIED))
    held = set(analyse(f"{study.text}\n{study.report}"))
    return [term for term in wanted if term in held]


def _measured(study: Study, measures: Sequence[str]) -> str:
    parts = []
    for measure in measures:
        if measure in study.measures:
            name, unit = measure.rsplit("_", 1)
            parts.append(f"{title(name)} {study.measures[measure]:g} {unit.replace('hu', 'HU')}")
    return ", ".join(parts)


def _organ_reason(study: Study, organ: str) -> Reason:
    volume = study.measures.get(f"{organ}_ml")
    return Reason("organ", title(organ) if volume is None else f"{title(organ)}, {volume:.1f} ml", (organ,))


def _region_reason(region: str) -> Reason:
    return Reason("region", words_of("regions")[region][0], (region,))


def _like_reasons(study: Study, regions: Sequence[str], organ: str) -> list[Reason]:
    same = [region for region in regions if region in study.regions]
    reasons = [_region_reason(region) for region in same]
    reasons += [] if same or not regions else [Reason("region", "another part of the body")]
    return reasons + ([_organ_reason(study, organ)] if organ else [])


def _unjudged(encoder: str) -> str:
    return f"Not re-ranked: {encoder} has no matching head, or its card does not say that it was trained."


def _notes(hits: Sequence[Hit], query: Query) -> tuple[str, ...]:
    unknown = ", ".join(title(organ) for organ in query.unknown)
    notes = (f"The archive's segmenter does not know: {unknown}. Only words were looked for.",) if unknown else ()
    return notes if hits else notes + _nothing(query)


def _nothing(query: Query) -> tuple[str, ...]:
    asked = [str(condition) for condition in query.filters]
    asked += [" or ".join(title(name) for name in names) for names in query.organs]
    asked += [f"no {' or '.join(title(name) for name in names)}" for names in query.absent]
    asked += [" or ".join(words_of("regions")[region][0] for region in regions) for regions in query.parts]
    asked += [f"no {words_of('regions')[region][0]}" for region in query.absent_parts]
    return (f"No study passes: {'; '.join(asked)}.",) if asked else ("Nothing was found.",)
