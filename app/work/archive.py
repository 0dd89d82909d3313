"""Archives of studies: what one holds, what words or a scan find in it, and putting studies into it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from app.archives import ANSWER
from app.work.reading import read
from medseg.errors import NoScanError
from medseg.imaging.emit import emit_json
from medseg.jobs.manifest import fingerprint
from medseg.jobs.request import JobRequest
from medseg.jobs.studies import find_studies
from medseg.results.load import load_result
from medseg.runtime.progress import Progress, ProgressCallback
from vlretrieval.archive import create_archive, look_like_archive, open_archive, segmenter_of, writing
from vlretrieval.index import Step, index_studies
from vlretrieval.intake import Seen, seen_of
from vlretrieval.lexicon import words_of
from vlretrieval.query import parse_query
from vlretrieval.search import Found, Searcher
from vlretrieval.store import Store
from vlretrieval.study import Hit


def answer(request: JobRequest, progress: ProgressCallback) -> dict[str, Any]:
    """What the archive `extra["archive"]` holds; with `extra["words"]`, what these find in it.

    Raises:
        NoScanError: there is no archive.
        ConfigError: a question that it cannot answer.
    """
    searcher = _searcher(request.extra["archive"])
    if "words" in request.extra:
        _tell(request.out, searcher.by_words(request.extra["words"], request.extra["hits"]))
        return {}
    emit_json(request.out / ANSWER, _facts(searcher.store))
    return {}


def like(request: JobRequest, progress: ProgressCallback) -> dict[str, Any]:
    """Find studies of `extra["archive"]` that look like the scan; `extra["words"]` filter, `extra["organ"]` compares.

    A finished result of the scan among `extra["results"]` saves segmenting it once more.

    Raises:
        InputError: the scan cannot be used.
        ModelError: the archive's segmenter is not installed.
    """
    extra = request.extra
    searcher = _searcher(extra["archive"])
    store, organ, hits = searcher.store, extra["organ"], extra["hits"]
    where = parse_query(extra["words"], store.info).where() if extra["words"] else None
    found = searcher.like_known(fingerprint(request.source), hits, organ=organ, where=where)
    if found is None:
        found = searcher.like_seen(_seen(request, store, progress), hits, organ=organ, where=where)
    _tell(request.out, found)
    return {}


def index(request: JobRequest, progress: ProgressCallback) -> dict[str, Any]:
    """Put all studies below the source into `extra["archive"]`, made by `extra["segmenter"]`.

    Raises:
        NoScanError: there are no studies.
        ModelError: other models made the archive.
        OutputError: it cannot be written, or somebody else is writing.
    """
    archive, segmenter, steps = request.extra["archive"], request.extra["segmenter"], list[Step]()
    progress(Progress("find", 0.0, ""))
    skipped: list[list[str]] = []
    studies = find_studies(
        request.source, exclude=[Path(archive)], report=lambda path, reason: skipped.append([path.name, reason])
    )
    if not studies:
        passed_over = "".join(f" {name} {reason}" for name, reason in skipped[:3])
        raise NoScanError(request.source, f"there are no studies to index.{passed_over}")

    def within(event: Progress) -> None:
        share = (len(steps) + min(1.0, event.fraction)) / len(studies)
        progress(Progress("index", share, f"{len(steps) + 1} / {len(studies)}"))

    def tell(step: Step) -> None:
        steps.append(step)
        within(Progress("index", 0.0, ""))

    with writing(archive):
        store, encoder = create_archive(archive, segmenter=segmenter)
        within(Progress("index", 0.0, ""))
        done = index_studies(studies, store, encoder, segmenter, tell=tell, progress=within)
    facts = {"interrupted": done.interrupted, "studies": len(store)} | {
        status: done.count(status) for status in ("indexed", "unchanged", "failed")
    }
    failures = [[step.path.name, step.error] for step in done.steps if step.status == "failed"]
    emit_json(request.out / ANSWER, facts | {"failures": failures, "skipped": skipped[:100]})
    return {}


def _searcher(archive: str) -> Searcher:
    """The archive, kept open between questions; a new one where it was made anew."""
    table = Path(archive) / "studies.lance"
    return _opened(archive, table.stat().st_ino if table.exists() else 0)


@lru_cache(maxsize=2)
def _opened(archive: str, _: int) -> Searcher:
    return open_archive(archive)


def _facts(store: Store) -> dict[str, Any]:
    """What people may ask of an archive."""
    regions = words_of("regions")
    return {
        "studies": len(store),
        "segmenter": store.info.segmenter.partition(":")[0],
        "encoder": store.info.encoder.partition(":")[0],
        "organs": [organ for organ in store.info.organs if _has_words(organ)],
        "regions": [name for name in regions if len(store.keys(f"array_has(regions, '{name}')"))],
    }


def _has_words(organ: str) -> bool:
    return organ.removesuffix("_right").removesuffix("_left") in words_of("organs")


def _seen(request: JobRequest, store: Store, progress: ProgressCallback) -> Seen:
    segmenter_of(store)  # refuses one that is not here, as segmenting would: what it said of organs is compared
    for folder in map(Path, reversed(request.extra["results"])):
        if _is_of(folder, store):
            progress(Progress("read", 0.2, "Reading the scan"))
            return seen_of(load_result(folder, read(request)))
    return look_like_archive(request.source, store, series=request.series, options=request.options, progress=progress)


def _is_of(folder: Path, store: Store) -> bool:
    """Whether the archive's segmenter made a result, and nobody corrected it."""
    model, run = (json.loads((folder / name).read_text("utf-8")) for name in ("labels.json", "run.json"))
    made_by = f"{model['model'].get('name')}@{model['model'].get('version')}"
    return made_by == store.info.segmenter.partition(":")[0] and "corrected" not in run


def _tell(folder: Path, found: Found) -> None:
    """Hits as JSON, their thumbnails beside it."""
    for hit in found.hits:
        if hit.study.thumbnail:
            (folder / f"{hit.rank}.png").write_bytes(hit.study.thumbnail)
    emit_json(folder / ANSWER, {"hits": _hits(found.hits), "notes": list(found.notes)})


def _hits(hits: Sequence[Hit]) -> list[Mapping[str, Any]]:
    kept = ("name", "path", "regions", "organs", "measures", "text", "report")
    return [
        {name: value for name, value in hit.study.to_json().items() if name in kept}
        | {
            "rank": hit.rank,
            "score": hit.score,
            "reasons": [{"kind": r.kind, "text": r.text, "names": list(r.names)} for r in hit.reasons],
        }
        for hit in hits
    ]
