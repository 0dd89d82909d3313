"""The report as PDF, with letters that are in the file: Latin, Greek, Cyrillic and Chinese."""

from __future__ import annotations

import io
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

from medseg.exports.libraries import pdf_library
from medseg.exports.report import COLUMNS, Report

FONT, FONT_FILE = "NotoSansSC", Path(__file__).parent / "fonts" / "NotoSansSC-Regular-subset.ttf"
_MARGIN = 42.0
_INK, _PALE, _LINE = "#16202a", "#51606e", "#d5dce3"


def render(report: Report) -> bytes:
    """The report as the bytes of a PDF.

    Raises:
        ConfigError: reportlab is not installed.
    """
    library = pdf_library()
    _register()
    packed = io.BytesIO()
    document = library.platypus.SimpleDocTemplate(
        packed,
        pagesize=library.pagesizes.A4,
        leftMargin=_MARGIN,
        rightMargin=_MARGIN,
        topMargin=_MARGIN,
        bottomMargin=_MARGIN + 14,
        title=report.say("title"),
        author="medseg",
        lang={"en": "en", "zh": "zh-Hans"}[report.language],
    )
    foot = _footer(report)
    document.build(_story(report, document.width), onFirstPage=foot, onLaterPages=foot)
    return packed.getvalue()


@lru_cache(maxsize=1)
def _register() -> None:
    library = pdf_library()
    library.pdfmetrics.registerFont(library.ttfonts.TTFont(FONT, FONT_FILE))


def _style(name: str, size: float, **more: Any) -> Any:
    style = pdf_library().styles.ParagraphStyle
    return style(name, fontName=FONT, fontSize=size, leading=size * 1.45, **{"textColor": _INK} | more)


def _footer(report: Report) -> Any:
    def draw(canvas: Any, document: Any) -> None:
        canvas.saveState()
        canvas.setFont(FONT, 7.5)
        canvas.setFillColor(_PALE)
        canvas.drawString(_MARGIN, _MARGIN - 12, report.say("notice"))
        canvas.drawRightString(document.pagesize[0] - _MARGIN, _MARGIN - 12, report.say("page", number=document.page))
        canvas.restoreState()

    return draw


def _story(report: Report, width: float) -> list[Any]:
    return [
        _text(report.say("title"), _style("title", 16, spaceAfter=6)),
        _notice(report, width),
        _pairs(report.facts, width),
        *_section(report.say("findings"), report.findings or (report.say("findings.none"),)),
        *_organs(report, width),
        *_pictures(report, width),
        *_section(report.say("limits"), report.limits),
        _heading(report.say("provenance")),
        _pairs(report.provenance, width),
    ]


def _text(words: str, style: Any, bullet: str | None = None) -> Any:
    # Chinese may break at every sign, other words only between them.
    if any(sign > "\u2e80" for sign in words):
        style = style.clone(style.name, wordWrap="CJK")
    return pdf_library().platypus.Paragraph(escape(words), style, bulletText=bullet)


def _heading(words: str) -> Any:
    return _text(words, _style("heading", 11, spaceBefore=10, spaceAfter=4, keepWithNext=1))


def _section(title: str, lines: tuple[str, ...]) -> list[Any]:
    if not lines:
        return []
    style = _style("line", 9, leftIndent=9, bulletIndent=0)
    return [_heading(title), *[_text(line, style, "·") for line in lines]]


def _notice(report: Report, width: float) -> Any:
    cell = [[_text(report.say("notice"), _style("notice", 9))]]
    look = [("BACKGROUND", (0, 0), (-1, -1), "#fff4e0"), ("LINEBEFORE", (0, 0), (0, -1), 3, "#b45309")]
    return _table(cell, [width], look)


def _pairs(pairs: tuple[tuple[str, str], ...], width: float) -> Any:
    name, text = _style("name", 9, textColor=_PALE), _style("text", 9)
    cells = [[_text(key, name), _text(value, text)] for key, value in pairs]
    return _table(cells, [width * 0.26, width * 0.74], [("TOPPADDING", (0, 0), (-1, -1), 1.5)])


def _organs(report: Report, width: float) -> list[Any]:
    head, left, right = _style("th", 8, textColor=_PALE, alignment=2), _style("organ", 9), _style("td", 9, alignment=2)
    titles = [
        _text(report.say(f"column.{column}"), left if number == 0 else head) for number, column in enumerate(COLUMNS)
    ]
    lines = [[_text(cell, left if n == 0 else right) for n, cell in enumerate(row.cells)] for row in report.rows]
    cells = [["", *titles], *[["", *line] for line in lines]]
    shares = (0.02, 0.2, 0.1, 0.15, 0.13, 0.15, 0.08, 0.1, 0.07)
    look = [("LINEBELOW", (0, 0), (-1, -1), 0.5, _LINE), ("VALIGN", (0, 0), (-1, -1), "MIDDLE")]
    for number, row in enumerate(report.rows, 1):
        look.append(("BACKGROUND", (0, number), (0, number), "#{:02x}{:02x}{:02x}".format(*row.colour)))
    notes = [_text(source, _style("source", 7.5, textColor=_PALE)) for source in report.sources]
    return [_heading(report.say("organs")), _table(cells, [width * s for s in shares], look, repeat=1), *notes]


def _pictures(report: Report, width: float) -> list[Any]:
    side = width / 3 - 4
    image = pdf_library().platypus.Image
    pictures = [image(io.BytesIO(picture.png), side, side) for picture in report.pictures]
    small = _style("caption", 8, textColor=_PALE)
    captions = [_text(picture.caption, small) for picture in report.pictures]
    look = [("LEFTPADDING", (0, 0), (-1, -1), 2), ("RIGHTPADDING", (0, 0), (-1, -1), 2)]
    grid = _table([pictures, captions], [width / 3] * 3, look)
    whole = pdf_library().platypus.KeepTogether
    return [whole([_heading(report.say("pictures")), grid, _text(report.say("convention"), small)])]


def _table(cells: list[list[Any]], widths: list[float], look: list[tuple[Any, ...]], repeat: int = 0) -> Any:
    table = pdf_library().platypus.Table(cells, widths, repeatRows=repeat, hAlign="LEFT")
    table.setStyle([("VALIGN", (0, 0), (-1, -1), "TOP"), *look])
    return table
