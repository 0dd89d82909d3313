"""What `medseg train check` leaves behind: check.json, report.html, pictures, lines on the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from medseg.errors import MedsegError
from medseg.imaging.emit import emit, emit_json, emit_text, make_folder
from medseg.imaging.nifti import read_label_map, read_nifti
from medseg.labels import LabelTable
from medseg.results.preview import write_preview
from medseg.training.cases import CaseFiles, read_index
from medseg.training.check import CheckReport, check_dataset
from medseg.training.foreign import adopt, locate
from medseg.training.html import heading, page, paragraph, picture, table

_say = partial(print, flush=True)


def check_and_report(path: Path, out: Path, pictures: int = 12, say: Callable[[str], None] = _say) -> CheckReport:
    """Check the data set at `path` and write the report into `out`.

    Raises:
        DataError: the data set's own description is broken.
        OutputError: the report could not be written.
    """
    description, ours = locate(path)
    make_folder(out)  # before every case is read
    dataset = read_index(description if ours else adopt(description, out / "data", say))
    report = check_dataset(dataset, say)
    faults = [{"level": fault.level, "case": fault.case, "text": fault.text} for fault in report.faults]
    facts = [fact.to_json() for fact in report.facts]
    emit_json(out / "check.json", {"labels": dataset.labels, "faults": faults, "cases": facts})
    drawn = [case for case in _chosen(report, pictures) if _draw(case, report.labels, out / "pictures")]
    emit_text(out / "report.html", _page(report, drawn, path))
    for fault in report.faults:
        say(f"{fault.level}: {fault.case}{': ' if fault.case else ''}{fault.text}")
    say(f"{_summary(report)} Report: {out / 'report.html'}")
    return report


def _summary(report: CheckReport) -> str:
    errors, total = len(report.errors), len(report.faults)
    return f"{len(report.cases)} cases: {errors} errors, {total - errors} warnings."


def _chosen(report: CheckReport, pictures: int) -> list[CaseFiles]:
    """Cases with faults first, then others as they come."""
    faulty = {fault.case for fault in report.faults}
    return sorted(report.cases, key=lambda case: case.id not in faulty)[:pictures]


def _draw(case: CaseFiles, labels: LabelTable, folder: Path) -> bool:
    """Three planes with the mask; False where the files cannot be shown together."""
    try:
        volume = read_nifti(case.ct)
        mask, geometry = read_label_map(case.label)
    except MedsegError:
        return False
    if mask.shape != volume.hu.shape or not geometry.matches(volume.geometry):
        return False
    emit(folder / f"{case.id}.png", lambda temporary: write_preview(temporary, volume, mask, labels, ()))
    return True


def _page(report: CheckReport, drawn: list[CaseFiles], path: Path) -> str:
    faults = [(fault.level, fault.case, fault.text) for fault in report.faults]
    return page(
        f"Data set {path.resolve().name}",
        [
            paragraph(_summary(report)),
            heading("Faults"),
            table(("", "case", "what"), faults) if faults else paragraph("None was found."),
            heading("Organs"),
            table(("organ", "training cases", "validation cases", "median volume, ml"), _organs(report)),
            heading("Cases"),
            table(("case", "split", "voxels", "spacing, mm", "axes", "HU 1 / 50 / 99 % of the body"), _cases(report)),
            heading("Pictures"),
            *[picture(f"pictures/{case.id}.png", f"{case.id}, {case.split}") for case in drawn],
        ],
    )


def _organs(report: CheckReport) -> list[tuple[object, ...]]:
    known = Counter((organ, case.split) for case in report.cases for organ in case.contoured)
    rows: list[tuple[object, ...]] = []
    for label in report.labels:
        volumes = sorted(fact.volumes_ml[label.name] for fact in report.facts if label.name in fact.volumes_ml)
        middle = f"{volumes[len(volumes) // 2]:.1f}" if volumes else "-"
        rows.append((label.name, known[label.name, "train"], known[label.name, "validation"], middle))
    return rows


def _cases(report: CheckReport) -> list[tuple[object, ...]]:
    return [
        (
            fact.id,
            fact.split,
            " x ".join(map(str, fact.shape)),
            " x ".join(f"{mm:.2f}" for mm in fact.spacing_mm),
            fact.orientation,
            " / ".join(f"{hu:.0f}" for hu in fact.hu_range),
        )
        for fact in report.facts
    ]
