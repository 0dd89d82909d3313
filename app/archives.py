"""Archives that are searched from the page: questions, examples and indexing, each in a process of its own.

An archive is a folder of this computer (`vlretrieval index`). Naming one is for visitors who may name paths; answers
are the asker's alone, in a private folder like a study's. Knows no streamlit.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.paths import path_of, there
from app.studies import JobState, Problem, refused
from medseg.jobs.queue import Job, JobQueue
from medseg.jobs.request import JobRequest
from medseg.runtime.options import Options

if TYPE_CHECKING:
    from app.services import Desk

ANSWER = "answer.json"
_KEPT = 8
_WORK = "app.work.archive"


@dataclass(frozen=True)
class AnswerView:
    """Something that was asked of an archive, at one moment; `facts` once it is done."""

    state: JobState
    stage: str = ""
    fraction: float = 0.0
    message: str = ""
    problem: Problem | None = None
    facts: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class _Asked:
    """A question as it is kept; `shown` is what the visitor calls the scan that it is about."""

    job: Job
    shown: str = ""


def own_archive() -> Path:
    """The archive that is searched where none is named: $VLRETRIEVAL_ARCHIVE, else one in the visitor's home."""
    return Path(os.environ.get("VLRETRIEVAL_ARCHIVE") or "~/.local/share/medseg/archive").expanduser()


def is_archive(folder: Path) -> bool:
    """Whether an archive lies there, as far as names tell.

    Raises:
        Refused: this computer may not look into the folder.
    """
    return path_of(folder / "studies.lance").is_dir()


def can_search() -> bool:
    """Whether the libraries of archives are installed."""
    return find_spec("lancedb") is not None


class Archives:
    """What visitors ask of archives. Closed before the desk is."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        # Looking at an example takes as long as segmenting it, indexing takes a night: neither holds up words.
        self.queues = {kind: JobQueue(work=f"{_WORK}:{kind}") for kind in ("answer", "like", "index")}
        self._homes: dict[str, str] = {}
        self._asked: dict[tuple[str, str], _Asked] = {}
        self._indexing: dict[Path, tuple[str, str]] = {}
        self._lock = threading.RLock()

    def about(self, visitor: str, archive: Path) -> str:
        """Ask what an archive holds; the number of the answer."""
        return self._submit("answer", visitor, archive, {"archive": str(archive)})

    def search(self, visitor: str, archive: Path, words: str, hits: int) -> str:
        """Ask an archive in words; the number of the answer."""
        return self._submit("answer", visitor, archive, {"archive": str(archive), "words": words, "hits": hits})

    def search_like(self, visitor: str, archive: Path, study: str, *, words: str, organ: str, hits: int) -> str:
        """Ask for studies that look like one of the visitor's own; the number of the answer.

        Raises:
            Refused: the study is gone.
        """
        entry = self.desk.entry(study, visitor)
        results = [str(self.desk.run_folder(study, run.number)) for run in entry.runs if run.job.state == "done"]
        extra = {"archive": str(archive), "words": words, "organ": organ, "hits": hits, "results": results}
        options = Options(accept=entry.accept)
        return self._submit("like", visitor, entry.source, extra, entry.series, options, entry.shown_name)

    def index(self, visitor: str, studies: Path, archive: Path, segmenter: str) -> str:
        """Begin to index a folder of studies; an archive that is there grows.

        Raises:
            Refused: the folder is not there.
        """
        studies = there(studies)
        with self._lock:
            number = self._submit("index", visitor, studies, {"archive": str(archive), "segmenter": segmenter})
            self._indexing[archive] = (visitor, number)
        return number

    def indexing(self, archive: Path) -> AnswerView | None:
        """How the last indexing of an archive stands, whoever at this computer began it."""
        with self._lock:
            key = self._indexing.get(archive)
        return None if key is None else self.view(*key)

    def stop_indexing(self, archive: Path) -> None:
        """Stop; what is indexed stays, and the same indexing goes on where it stopped."""
        with self._lock:
            key = self._indexing.get(archive)
        if key is not None:
            self.cancel(*key)

    def _submit(
        self,
        kind: str,
        visitor: str,
        source: Path,
        extra: Mapping[str, Any],
        series: str | None = None,
        options: Options | None = None,
        shown: str = "",
    ) -> str:
        if sum(job.state == "queued" for job in self.queues[kind].jobs()) >= self.desk.quota.limits.max_waiting:
            raise refused("busy.queue")
        number = secrets.token_hex(16)
        with self._lock:
            out = self._home(visitor) / number
            request = JobRequest(source, out, series=series, options=options or Options(), extra=extra)
            self._asked[visitor, number] = _Asked(self.queues[kind].submit(request), shown)
            self._forget_oldest(visitor)
        return number

    def _home(self, visitor: str) -> Path:
        """The private folder of a visitor's answers."""
        folders = self.desk.folders
        home = folders.path(self._homes.get(visitor, ""))
        if home is None:
            self._homes[visitor] = folders.new()
            return folders.root / self._homes[visitor]
        folders.touch(self._homes[visitor])
        return home

    def _forget_oldest(self, visitor: str) -> None:
        """Only the last answers are kept, and what is still being worked on."""
        over = [key for key, asked in self._asked.items() if key[0] == visitor and asked.job.finished]
        over = [key for key in over if key not in self._indexing.values()]
        for key in over[: max(0, len(over) - _KEPT)]:
            shutil.rmtree(self._asked.pop(key).job.request.out, ignore_errors=True)

    def view(self, visitor: str, number: str) -> AnswerView:
        """How an answer stands; 'gone' where it was forgotten, never was, or is another visitor's."""
        asked = self._of(visitor, number)
        if asked is None:
            return AnswerView("gone")
        now = asked.job.status
        facts = _facts(asked.job.request.out) if now.state == "done" else None
        if now.state == "done" and facts is None:
            return AnswerView("gone")
        problem = None
        if now.error is not None:
            source = asked.job.request.source.name
            message = now.error.message.replace(f"{source}:", f"{asked.shown}:") if asked.shown else now.error.message
            problem = Problem(message, now.error.advice, now.error.series, now.error.error)
        return AnswerView(now.state, now.stage, min(1.0, max(0.0, now.fraction)), now.message, problem, facts)

    def cancel(self, visitor: str, number: str) -> None:
        """Stop a question."""
        asked = self._of(visitor, number)
        if asked is not None:
            asked.job.cancel()

    def thumbnail(self, visitor: str, number: str, rank: int) -> Path | None:
        """The picture of a hit; None where there is none, for this visitor."""
        asked = self._of(visitor, number)
        path = asked.job.request.out / f"{rank}.png" if asked is not None else None
        return path if path is not None and path.is_file() else None

    def _of(self, visitor: str, number: str) -> _Asked | None:
        with self._lock:
            return self._asked.get((visitor, number)) if visitor else None

    def close(self) -> None:
        """Stop all."""
        for queue in self.queues.values():
            queue.close()


def _facts(folder: Path) -> dict[str, Any] | None:
    path = folder / ANSWER
    if not path.is_file():
        return None
    facts: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return facts
