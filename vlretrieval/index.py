"""A folder of studies -> an archive. Killed or interrupted, the same command goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import Cancelled, MedsegError
from medseg.imaging.patient import read_patient
from medseg.jobs.manifest import fingerprint, identity, shown_path
from medseg.runtime.progress import ProgressCallback
from vlretrieval.describe import describe_study, fact_terms, index_words
from vlretrieval.encoder import Encoder
from vlretrieval.intake import Seen, look_at
from vlretrieval.reports.notes import Note
from vlretrieval.reports.table import patient_in
from vlretrieval.store import Store
from vlretrieval.study import Entry, Study
from vlretrieval.thumbnail import draw_thumbnail

TIDY_EVERY = 200


@dataclass(frozen=True)
class Step:
    """One study is over: `indexed`, `unchanged` or `failed` (then `error` says why)."""

    number: int
    total: int
    path: Path
    status: str
    error: str = ""


@dataclass(frozen=True)
class Indexed:
    """What became of the studies."""

    steps: tuple[Step, ...]
    interrupted: bool = False

    def count(self, status: str) -> int:
        return sum(step.status == status for step in self.steps)

    @property
    def exit_code(self) -> int:
        """0 all fine, 3 some failed, 1 all failed or nothing to do, 130 interrupted."""
        if self.interrupted:
            return 130
        failed = self.count("failed")
        return 1 if failed == len(self.steps) else 3 if failed else 0


def index_studies(
    studies: Sequence[Path],
    store: Store,
    encoder: Encoder,
    segmenter: str,
    *,
    notes: Mapping[str, Note] | None = None,
    tell: Callable[[Step], None] = lambda step: None,
    progress: ProgressCallback | None = None,
) -> Indexed:
    """Look at each study and add it at once; a bad one does not stop the others.

    Args:
        studies: files, zips or DICOM folders.
        store: of the archive.
        encoder: that the archive was made with.
        segmenter: name of the medseg model that finds the organs.
        notes: patients and radiologists' words, by the studies' names.
        tell: called after every study.
        progress: told about every step within a study; raises `Cancelled` to stop.

    Raises:
        ModelError: the archive is another encoder's.
        OutputError: the archive could not be written.
    """
    known, steps, notes = set(store.values("fingerprint")), [], notes or {}

    def add(path: Path, mark: str) -> tuple[str, str]:
        try:
            patient = read_patient(path)
            seen = look_at(path, segmenter=segmenter, progress=progress)
        except Cancelled:
            raise
        except MedsegError as error:
            return "failed", str(error)
        note = notes.get(seen.name, Note())
        pseudonym = store.pseudonym(patient or note.patient or patient_of(path, seen.name))
        store.add([make_entry(seen, encoder, pseudonym, path, mark, note.report)])
        return "indexed", ""

    interrupted = False
    try:
        for number, path in enumerate(studies, 1):
            mark = fingerprint(path)
            status, error = ("unchanged", "") if mark in known else add(path, mark)
            steps.append(Step(number, len(studies), path, status, error))
            tell(steps[-1])
            if number % TIDY_EVERY == 0:
                store.tidy()
    except (KeyboardInterrupt, Cancelled):
        interrupted = True
    store.tidy()
    return Indexed(tuple(steps), interrupted)


def patient_of(path: Path, name: str) -> str:
    """Who a scan without a patient's number belongs to: CT-RATE's names tell; any other file is its own patient."""
    known = patient_in(name)
    return known or f"file {identity(path)}"


def make_entry(seen: Seen, encoder: Encoder, pseudonym: str, path: Path, mark: str, report: str) -> Entry:
    """What an archive keeps of a study that was looked at."""
    study = Study(
        id=seen.id,
        patient=pseudonym,
        name=seen.name,
        path=shown_path(path),
        fingerprint=mark,
        regions=seen.regions,
        organs=seen.organs,
        measures=seen.measures,
        text=describe_study(seen),
        report=report,
        thumbnail=draw_thumbnail(seen.view, seen.labels),
    )
    return Entry(study, encoder.studies([seen.input])[0], index_words(seen), fact_terms(seen.facts))
