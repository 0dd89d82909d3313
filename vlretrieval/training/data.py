"""Training studies from disk: pairs of scans and reports (a CSV), or scans with reference masks (index.json).

Every scan is segmented once; what the encoder sees of it is kept in the run folder, so that a second run, or one that
was killed, does not segment again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import ConfigError, DataError
from medseg.imaging.nifti import read_label_map
from medseg.imaging.reader import read_volume
from medseg.jobs.manifest import fingerprint
from medseg.training.cases import Dataset, read_index
from vlretrieval.inputs import build_input
from vlretrieval.intake import look_at, segmenter_id
from vlretrieval.profile import build_profile
from vlretrieval.reports.table import IDS, PATIENTS, UNKNOWN, first_of, read_reports, read_rows
from vlretrieval.training.config import RetrievalConfig
from vlretrieval.training.studies import TrainingStudy
from vlretrieval.view import StudyView, build_view

IMAGES, SPLIT = ("image", "path"), "split"
Tell = Callable[[str], None]


@dataclass(frozen=True)
class _Source:
    """One scan to be looked at, and what is known of it."""

    id: str
    image: Path
    patient: str = ""
    report: str = ""
    labels: tuple[tuple[str, int], ...] = ()
    reference: Path | None = None
    contoured: frozenset[str] = frozenset()


def load_studies(config: RetrievalConfig, splits: tuple[str, ...], views: Path, tell: Tell) -> list[TrainingStudy]:
    """All studies of these splits.

    Args:
        config: of the run.
        splits: by name.
        views: folder that keeps what was seen of them.
        tell: gets a line after each scan.

    Raises:
        ConfigError: neither or both of `index` and `pairs` are given.
        DataError: the data do not fit together.
        InputError: a scan that cannot be used.
    """
    if (config.index is None) == (config.pairs is None):
        raise ConfigError("Give either `index` (reference masks) or `pairs` (reports) in the config.")
    if config.index is not None:
        dataset = read_index(config.index, gaps=True)
        sources, names = list(_indexed(dataset, splits)), dataset.labels
    else:
        assert config.pairs is not None
        sources, names = list(_paired(config.pairs, splits)), {}
    studies = []
    for number, source in enumerate(sources, 1):
        view = _view(source, config.segmenter, views)
        tell(f"looked at {number}/{len(sources)}: {source.id}")
        reference = None if source.reference is None else _reference(source, names)
        entry, profile = build_input(view), None if reference is None else build_profile(reference)
        studies.append(TrainingStudy(source.id, source.patient, entry, profile, source.report, dict(source.labels)))
    return studies


def _indexed(dataset: Dataset, splits: tuple[str, ...]) -> Iterator[_Source]:
    for split in splits:
        for case in dataset.of(split):
            yield _Source(case.id, case.ct, case.id, reference=case.label, contoured=frozenset(case.contoured))


def _paired(path: Path, splits: tuple[str, ...]) -> Iterator[_Source]:
    """Rows of a CSV: image (from the CSV's folder), words, split, and patient and findings where there are such.

    Raises:
        DataError: no such columns, or a patient in two splits.
    """
    rows, reports = read_rows(path), read_reports(path, findings=False)
    if not set(IMAGES) & set(rows[0]) or SPLIT not in rows[0]:
        raise DataError(f"{path.name} has no columns {' or '.join(IMAGES)}, and {SPLIT}.")
    splits_of: dict[str, str] = {}
    for number, (row, patient) in enumerate(zip(rows, reports.patients, strict=True)):
        image = path.parent / first_of(row, IMAGES)
        own = patient if first_of(row, (*PATIENTS, *IDS)) else image.name
        if splits_of.setdefault(own, row[SPLIT]) != row[SPLIT]:
            raise DataError(f"{path.name}: patient {own} is in two splits.", advice="Split by patient.")
        known = zip(reports.findings, reports.labels[number].tolist(), strict=True)
        labels = tuple((name, label) for name, label in known if label != UNKNOWN)
        if row[SPLIT] in splits:
            yield _Source(image.name, image, own, reports.texts[number], labels)


def _view(source: _Source, segmenter: str, views: Path) -> StudyView:
    """What was seen before of this very file by this very segmenter, or what is seen now."""
    kept = views / view_name(source.image, segmenter)
    if kept.is_file():
        return StudyView.load(kept)
    view = look_at(source.image, segmenter=segmenter).view
    view.save(kept)
    return view


def view_name(image: Path, segmenter: str) -> str:
    """The file that keeps what a segmenter saw of a scan."""
    return f"{fingerprint(image)[:24]}-{segmenter_id(segmenter)[0].rpartition(':')[2]}.npz"


def _reference(source: _Source, names: dict[str, int]) -> StudyView:
    assert source.reference is not None
    volume = read_volume(source.image)
    labels, geometry = read_label_map(source.reference)
    if not geometry.matches(volume.geometry, tolerance_mm=0.1):
        raise DataError(f"{source.reference.name} is not on the grid of {source.image.name}.")
    return build_view(volume, labels, names, source.contoured)
