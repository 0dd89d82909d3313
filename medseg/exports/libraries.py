"""Libraries of this room, imported when they are used."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from medseg.errors import ConfigError

EXTRA = "exports"


def highdicom_library() -> Any:
    """highdicom, which writes DICOM segmentations.

    Raises:
        ConfigError: not installed.
    """
    try:
        import highdicom
        import highdicom.seg
    except ModuleNotFoundError as error:
        raise _missing("highdicom") from error
    return highdicom


def marching_cubes_library() -> Any:
    """skimage.measure, which finds surfaces.

    Raises:
        ConfigError: not installed.
    """
    try:
        import skimage.measure
    except ModuleNotFoundError as error:
        raise _missing("scikit-image") from error
    return skimage.measure


def pdf_library() -> Any:
    """The parts of reportlab that lay out a PDF.

    Raises:
        ConfigError: not installed.
    """
    try:
        from reportlab import platypus
        from reportlab.lib import pagesizes, styles
        from reportlab.pdfbase import pdfmetrics, ttfonts
    except ModuleNotFoundError as error:
        raise _missing("reportlab") from error
    return SimpleNamespace(
        platypus=platypus, pagesizes=pagesizes, styles=styles, pdfmetrics=pdfmetrics, ttfonts=ttfonts
    )


LIBRARIES: dict[str, Callable[[], Any]] = {
    "dicom-seg": highdicom_library,
    "dicom-seg-labelmap": highdicom_library,
    "stl": marching_cubes_library,
    "glb": marching_cubes_library,
    "report-pdf": pdf_library,
}
"""Format -> what brings the library that it needs; the others need none."""


def _missing(name: str) -> ConfigError:
    return ConfigError(f"This needs {name}, which is not installed.", advice=f"pip install 'medseg[{EXTRA}]'")
