"""A folder of studies -> an archive. Killed or interrupted, the same command goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from medseg.errors import Cancelled, MedsegError
from medseg.imaging import Volume, read_volume
from medseg.imaging.naming import scan_name
from medseg.imaging.patient import read_patient
from medseg.jobs.manifest import fingerprint, identity, shown_path
from medseg.runtime.progress import ProgressCallback
from vlretrieval.describe import describe_study, fact_terms, index_words
from vlretrieval.encoder import Encoder
from vlretrieval.intake import Seen, content_id, look_at
from vlretrieval.reports.notes import Note
from vlretrieval.reports.table import patient_in
from vlretrieval.store import Catalogue, Held, Store
from vlretrieval.study import Entry, Study
from vlretrieval.thumbnail import draw_thumbnail

TIDY_EVERY = 200


@dataclass(frozen=True)
class Step:
    """One study is over: `indexed`, `updated` (another note), `unchanged` or `failed` (then `error` says why)."""

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
    notes: Mapping[Path, Note] | None = None,
    tell: Callable[[Step], None] = lambda step: None,
    progress: ProgressCallback | None = None,
) -> Indexed:
    """Look at each study and add it at once; a bad one does not stop the others.

    What the archive holds is not segmented again: neither an unchanged study nor a copy, nor one that was moved.

    Args:
        studies: files, zips or DICOM folders.
        store: of the archive.
        encoder: that the archive was made with.
        segmenter: name of the medseg model that finds the organs.
        notes: patients and radiologists' words, by study; where they differ from what is stored, it is changed.
        tell: called after every study.
        progress: told about every step within a study; raises `Cancelled` to stop.

    Raises:
        ModelError: the archive is another encoder's.
        OutputError: the archive could not be written.
    """
    run = _Run(store, encoder, segmenter, notes or {}, progress)
    steps, interrupted = list[Step](), False
    try:
        for number, path in enumerate(studies, 1):
            steps.append(Step(number, len(studies), path, *run.take(path)))
            tell(steps[-1])
            if number % TIDY_EVERY == 0:
                run.write()
                store.tidy()
    except (KeyboardInterrupt, Cancelled):
        interrupted = True
    run.write()
    store.finish()
    store.tidy()
    return Indexed(tuple(steps), interrupted)


class _Unreadable(Exception):  # noqa: N818 - of this file alone: a study is told as failed
    """A study that cannot be used, and why."""


@contextmanager
def _looking() -> Iterator[None]:
    try:
        yield
    except Cancelled:
        raise
    except MedsegError as error:
        raise _Unreadable(str(error)) from error


class _Run:
    """One run over studies. Changes of texts are gathered, so that many are written at once."""

    def __init__(
        self,
        store: Store,
        encoder: Encoder,
        segmenter: str,
        notes: Mapping[Path, Note],
        progress: ProgressCallback | None,
    ) -> None:
        self._store, self._encoder, self._segmenter, self._progress = store, encoder, segmenter, progress
        self._notes = {shown_path(path): note for path, note in notes.items()}
        self._catalogue = Catalogue(store)
        self._changes: dict[int, dict[str, str]] = {}

    def take(self, path: Path) -> tuple[str, str]:
        """What becomes of a study, and why where it fails."""
        try:
            return self._take(path, fingerprint(path)), ""
        except _Unreadable as error:
            return "failed", str(error)

    def write(self) -> None:
        """Write the changes that were gathered."""
        self._store.amend(self._changes)
        self._changes.clear()

    def _take(self, path: Path, mark: str) -> str:
        held = self._catalogue.at(shown_path(path))
        if held is not None and held.fingerprint == mark:
            return self._note(held, path)
        with _looking():
            volume = read_volume(path)
        same = self._catalogue.of(content_id(volume))
        if same is None:
            return self._add(path, mark, volume)
        return self._note(self._meet(same, path, mark), path)

    def _add(self, path: Path, mark: str, volume: Volume) -> str:
        place = shown_path(path)
        note = self._notes.get(place, Note())
        with _looking():
            patient = self._patient(path, note)
            seen = look_at(volume, segmenter=self._segmenter, progress=self._progress)
        self.write()  # a file that was moved is no longer under its path: what comes there does not replace it
        (key,) = self._store.add([make_entry(seen, self._encoder, patient, path, mark, note.report)])
        self._catalogue.put(Held(key, seen.id, place, mark))
        return "indexed"

    def _patient(self, path: Path, note: Note) -> str:
        return self._store.pseudonym(read_patient(path) or note.patient or patient_of(path, scan_name(path)))

    def _meet(self, same: Held, path: Path, mark: str) -> Held:
        """Content that the archive holds: of the same file, touched; of a file that was moved here; or of a copy."""
        place = shown_path(path)
        before = self._catalogue.at(place)
        if before is not None and before.id != same.id:
            self._store.retire([before.key])
            self._catalogue.drop(before)
        if same.path != place and same.is_there():
            return same
        moved = replace(same, path=place, fingerprint=mark)
        self._change(same.key, {"path": place, "name": scan_name(path), "fingerprint": mark})
        self._catalogue.drop(same)
        self._catalogue.put(moved)
        return moved

    def _note(self, held: Held, path: Path) -> str:
        """Change what is stored of a study where it is told otherwise; of a copy, its own note says less."""
        note = self._notes.get(held.path) or self._notes.get(shown_path(path))
        if note is None:
            return "unchanged"
        (study,) = self._store.studies([held.key])
        told = {"report": note.report} if note.report not in ("", study.report) else {}
        if note.patient and self._store.pseudonym(note.patient) != study.patient:
            with _looking():
                patient = self._patient(path, note)
            told |= {"patient": patient} if patient != study.patient else {}
        self._change(held.key, told)
        return "updated" if told else "unchanged"

    def _change(self, key: int, texts: Mapping[str, str]) -> None:
        if texts:
            self._changes.setdefault(key, {}).update(texts)


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
