"""Archives on the terminal: what is being indexed, what was found and why."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from medseg.errors import ConfigError, DataError, NoScanError
from medseg.imaging.room import reading_room
from medseg.jobs.manifest import fingerprint
from medseg.jobs.studies import find_studies
from vlretrieval.archive import archive_uri, create_archive, look_like_archive, open_archive, writing
from vlretrieval.index import Indexed, Step, index_studies
from vlretrieval.query import parse_query
from vlretrieval.reports.notes import Note, match_notes, read_notes
from vlretrieval.search import Found, Searcher
from vlretrieval.store import Store

_COLOURS = {"indexed": "green", "updated": "cyan", "unchanged": "dim", "failed": "red"}
_SHOWN = 5


def _console(*, stderr: bool = False) -> Console:
    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def index_and_report(
    paths: Sequence[Path], archive: str | None, *, segmenter: str, model: str, notes: Path | None
) -> int:
    """Index all studies in `paths`; progress goes to standard error, the summary to standard output.

    Raises:
        MedsegError: nothing could be started.
    """
    uri, show = archive_uri(archive), _console(stderr=True)

    def skipped(path: Path, reason: str) -> None:
        show.print(f"[yellow]skipped[/]    {escape(f'{path} {reason}')}")

    def tell(step: Step) -> None:
        text = escape(f"{step.path} {step.error}".rstrip())
        show.print(f"[{_COLOURS[step.status]}]{step.status:<10}[/] {step.number}/{step.total} {text}")

    shut = [] if "://" in uri else [Path(uri)]
    studies = [study for path in paths for study in find_studies(path, exclude=shut, report=skipped)]
    if not studies:
        raise NoScanError(paths[0] if paths else Path("."), "there are no studies to index.")
    told = _matched(read_notes(notes), studies, show) if notes else None
    with writing(uri):
        store, encoder = create_archive(uri, segmenter=segmenter, model=model)
        done = index_studies(studies, store, encoder, segmenter, notes=told, tell=tell)
    reading_room().close()
    print(f"{_counts(done)}.{' Interrupted: the same command goes on.' if done.interrupted else ''}")
    print(f"Archive: {uri} ({len(store)} studies)")
    return done.exit_code


def _matched(notes: Mapping[str, Note], studies: Sequence[Path], show: Console) -> dict[Path, Note]:
    found, lost = match_notes(notes, studies)
    if lost:
        names = ", ".join(lost[:_SHOWN]) + (" ..." if len(lost) > _SHOWN else "")
        show.print(f"[yellow]notes[/]      {len(lost)} of {len(notes)} are about none of the studies: {escape(names)}")
    return found


def _counts(done: Indexed) -> str:
    """`updated` where anything was: it takes notes."""
    counts = {status: done.count(status) for status in _COLOURS}
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count or status != "updated")


def search_and_report(
    words: str,
    archive: str | None,
    *,
    like: Path | None,
    organ: str,
    hits: int,
    model: str,
    rerank: bool,
    as_json: bool,
) -> int:
    """Search and print. Exit code 0 also where nothing was found.

    Raises:
        MedsegError: no archive, a question that it cannot answer, or options that do not go together.
    """
    _check_question(words, like, organ, hits, rerank=rerank)
    searcher = open_archive(archive_uri(archive), model)
    found = _find_like(searcher, like, words, organ, hits) if like else searcher.by_words(words, hits, rerank=rerank)
    if as_json:
        print(json.dumps({"hits": [hit.to_json() for hit in found.hits], "notes": list(found.notes)}, indent=2))
        return 0
    _print_hits(found)
    return 0


def _check_question(words: str, like: Path | None, organ: str, hits: int, *, rerank: bool) -> None:
    """Nothing that was asked for is left out unsaid."""
    if not words and like is None:
        raise ConfigError("Nothing is looked for.", advice='Give words ("parotid > 30 ml") or --like CT.')
    if hits < 1:
        raise ConfigError(f"--hits is {hits}; 1 is the least.")
    if like and rerank:
        raise ConfigError(
            "--rerank judges words, and with --like they only filter.", advice="Leave one of the two out."
        )
    if organ and not like:
        raise ConfigError("--organ belongs to --like.", advice="Name the organ in the words instead.")


def _find_like(searcher: Searcher, like: Path, words: str, organ: str, hits: int) -> Found:
    store = searcher.store
    if organ and organ not in searcher.encoder.organs:
        raise ConfigError(f"There is no organ {organ!r}.", advice=f"There are: {', '.join(searcher.encoder.organs)}.")
    where = parse_query(words, store.info).where() if words else None
    if (known := searcher.like_known(fingerprint(like), hits, organ=organ, where=where)) is not None:
        return known
    found = searcher.like_seen(look_like_archive(like, store), hits, organ=organ, where=where)
    reading_room().close()
    return found


def _print_hits(found: Found) -> None:
    show = _console()
    if found.hits:
        table = Table(box=None, pad_edge=False)
        for name in ("", "study", "shows", "score", "why"):
            table.add_column(name, overflow="fold")
        for hit in found.hits:
            why = "; ".join(dict.fromkeys(reason.text for reason in hit.reasons))
            shows = ", ".join(hit.study.regions)
            table.add_row(str(hit.rank), escape(hit.study.name), shows, f"{hit.score:.2f}", escape(why))
        show.print(table)
    for note in found.notes:
        show.print(escape(note))


def delete_and_report(who: str, archive: str | None) -> int:
    """Delete a patient's studies and say how many; a deletion that was left halfway is finished first.

    Raises:
        MedsegError: no archive, nobody of that name, or several.
    """
    uri = archive_uri(archive)
    Store.open(uri)  # before the lock, which makes a folder where there is none
    with writing(uri):
        store = Store.open(uri)
        if finished := store.finish():
            print(f"Finished: a deletion of {finished} studies that had been left halfway.")
        if finished and not _called(store, who):
            print(f"Nothing else is {who!r}. {len(store)} studies are left.")
            return 0
        removed = store.delete_patient(find_patient(store, who))
    print(f"Deleted: {removed.studies} studies, {removed.organs} vectors of organs. {len(store)} studies are left.")
    return 0


def find_patient(store: Store, who: str) -> str:
    """The pseudonym of a patient who is named by number, pseudonym or study.

    Raises:
        DataError: nobody, or several.
    """
    found = _called(store, who)
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"{len(found)} patients have a study {who!r}.", advice=f"Pseudonyms: {', '.join(found)}.")
    raise DataError(f"The archive {store.uri} holds no patient or study {who!r}.")


def _called(store: Store, who: str) -> list[str]:
    """Pseudonyms of those who are named so."""
    rows = store.rows("patient", "name")
    for pseudonym in (store.pseudonym(who), who):
        if any(patient == pseudonym for patient, _ in rows):
            return [pseudonym]
    return sorted({patient for patient, name in rows if name == who})


def export_and_report(out: Path, archive: str | None) -> int:
    """Write parquet files and name them."""
    for path in Store.open(archive_uri(archive)).export_parquet(out):
        print(path)
    return 0
