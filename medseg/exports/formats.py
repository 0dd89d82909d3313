"""Which files a result can become, by name, and the one call that writes them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medseg.errors import ConfigError, DataError, GeometryError, MedsegError
from medseg.exports.libraries import LIBRARIES
from medseg.exports.words import Language
from medseg.imaging.dicom_source import SourceSlices, read_source
from medseg.imaging.volume import Finding
from medseg.models.card import ModelCard
from medseg.models.store import load_model
from medseg.results.segmentation import Segmentation

Format = Literal[
    "nifti", "dicom-seg", "dicom-seg-labelmap", "rtstruct", "stl", "glb", "seg.nrrd", "csv", "report-html", "report-pdf"
]
WRITTEN_ANYWAY: tuple[Format, ...] = ("nifti", "csv")
"""`mask.nii.gz` and `measurements.csv` are part of every result."""


@dataclass(frozen=True)
class Order:
    """What to export: the result, where its scan came from, its model's card, the language of reports."""

    result: Segmentation
    source: Path | None
    card: ModelCard | None
    language: Language = "en"

    def slices(self) -> SourceSlices:
        """Headers of the scan's slices.

        Raises:
            DataError: the scan did not come as DICOM.
        """
        volume = self.result.volume
        if volume.format != "dicom" or self.source is None:
            raise DataError("The scan did not come as DICOM: there are no slices to refer to.")
        return read_source(self.source, volume.geometry, series=volume.series)


Writer = Callable[[Path, Order], object]


def _dicom_seg(path: Path, order: Order) -> object:
    from medseg.exports.dicom_seg import write_dicom_seg

    return write_dicom_seg(path, order.result, order.slices())


def _dicom_seg_labelmap(path: Path, order: Order) -> object:
    from medseg.exports.dicom_seg import write_dicom_seg

    return write_dicom_seg(path, order.result, order.slices(), "LABELMAP")


def _rtstruct(path: Path, order: Order) -> object:
    from medseg.exports.rtstruct import write_rtstruct

    return write_rtstruct(path, order.result, order.slices())


def _stl(path: Path, order: Order) -> object:
    from medseg.exports.mesh import write_stl

    return write_stl(path, order.result)


def _glb(path: Path, order: Order) -> object:
    from medseg.exports.mesh import write_glb

    return write_glb(path, order.result)


def _seg_nrrd(path: Path, order: Order) -> object:
    from medseg.exports.seg_nrrd import write_seg_nrrd

    return write_seg_nrrd(path, order.result)


def _report_html(path: Path, order: Order) -> object:
    from medseg.exports.report import write_html_report

    return write_html_report(path, order.result, order.card, order.language)


def _report_pdf(path: Path, order: Order) -> object:
    from medseg.exports.report import write_pdf_report

    return write_pdf_report(path, order.result, order.card, order.language)


FORMATS: dict[str, tuple[str, Writer]] = {
    "dicom-seg": ("segmentation.dcm", _dicom_seg),
    "dicom-seg-labelmap": ("segmentation_labelmap.dcm", _dicom_seg_labelmap),
    "rtstruct": ("rtstruct.dcm", _rtstruct),
    "stl": ("", _stl),
    "glb": ("organs.glb", _glb),
    "seg.nrrd": ("mask.seg.nrrd", _seg_nrrd),
    "report-html": ("report.html", _report_html),
    "report-pdf": ("report.pdf", _report_pdf),
}
"""Format -> name of its file in the result folder (STL makes one for each organ), and what writes it."""


def parse_formats(text: str) -> tuple[str, ...]:
    """'nifti,dicom-seg' -> the formats that are written on top of a result, each once, in the order of `FORMATS`.

    Raises:
        ConfigError: a name that is no format, or one whose library is not installed: told before anything is computed.
    """
    asked = [part for part in re.split(r"[,\s]+", text.strip().lower()) if part]
    known = (*WRITTEN_ANYWAY, *FORMATS)
    if wrong := [part for part in asked if part not in known]:
        raise ConfigError(f"{wrong[0]!r} is no format.", advice=f"There are: {', '.join(known)}.")
    for name in asked:
        if name in LIBRARIES:
            LIBRARIES[name]()
    return tuple(name for name in FORMATS if name in asked)


def export(order: Order, formats: Sequence[str], folder: Path) -> tuple[Finding, ...]:
    """Write a result in several formats into `folder`.

    Returns:
        A finding for every format that this scan or result cannot have: an empty mask has no surface, a NIfTI no
        DICOM slices. Everything else raises.

    Raises:
        OutputError: a file could not be written, or read back differently.
        ConfigError: a library is not installed.
    """
    found = []
    for name in formats:
        file, write = FORMATS[name]
        try:
            write(folder / file, order)
        except (DataError, GeometryError) as error:
            found.append(Finding("export_left_out", f"{name} was left out: {error.message}", "info"))
    return tuple(found)


def order_for(result: Segmentation, source: Path | None, language: Language = "en", *, model: str = "") -> Order:
    """An order with the card of the model that made the result, where that very package is at hand.

    Args:
        result: what to export.
        source: where its scan came from.
        language: of reports.
        model: name or folder of the package; if not given, its name and version are looked up among those installed.
    """
    made_by = result.run.get("model", {})
    try:
        package = load_model(model or f"{made_by.get('name')}@{made_by.get('version')}")
    except MedsegError:
        return Order(result, source, None, language)
    # Another package of that name and version has other limits and ranges.
    return Order(result, source, package.card if package.sha256 == made_by.get("sha256") else None, language)
