"""The report as one page that carries its pictures with it."""

from __future__ import annotations

import base64
from html import escape

from medseg.exports.report import COLUMNS, Picture, Report, Row

_LANG = {"en": "en", "zh": "zh-Hans"}
_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "Noto Sans SC", "PingFang SC", "Microsoft YaHei", sans-serif; color: #16202a;
  max-width: 62rem; margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.05rem; margin: 1.75rem 0 .5rem; }
.notice { background: #fff4e0; border-left: 4px solid #b45309; padding: .6rem .9rem; margin: 1rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.25rem; margin: 0; }
dt { color: #51606e; } dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .35rem .5rem; white-space: nowrap; border-bottom: 1px solid #d5dce3; }
td, th { font-size: .93rem; }
th { color: #51606e; font-weight: 600; } th:first-child, td:first-child { text-align: left; }
.absent td { color: #66727e; } .cut { color: #9a3412; font-weight: 600; }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: .2em; margin-right: .55em;
  border: 1px solid rgb(0 0 0 / .25); -webkit-print-color-adjust: exact; print-color-adjust: exact; }
.pictures { display: grid; grid-template-columns: repeat(3, 1fr); gap: .75rem; }
figure { margin: 0; } img { width: 100%; display: block; background: #000; }
figcaption, .small { font-size: .85rem; color: #51606e; margin: .3rem 0; }
@media (max-width: 40rem) { .pictures { grid-template-columns: 1fr; } }
@media print { body { margin: 0; max-width: none; } h2 { break-after: avoid; } tr, figure { break-inside: avoid; } }
"""


def render(report: Report) -> str:
    """The report as HTML."""
    body = "".join(
        [
            f"<h1>{escape(report.say('title'))}</h1>",
            f'<p class="notice">{escape(report.say("notice"))}</p>',
            _pairs(report.facts),
            _list(report.say("findings"), report.findings or (report.say("findings.none"),)),
            _table(report),
            _pictures(report),
            _list(report.say("limits"), report.limits),
            f"<h2>{escape(report.say('provenance'))}</h2>{_pairs(report.provenance)}",
        ]
    )
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
    title = f"<title>{escape(report.say('title'))}</title>"
    return (
        f'<!DOCTYPE html>\n<html lang="{_LANG[report.language]}"><head>{head}{title}</head><body>{body}</body></html>\n'
    )


def _pairs(pairs: tuple[tuple[str, str], ...]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in pairs) + "</dl>"


def _list(title: str, lines: tuple[str, ...]) -> str:
    if not lines:
        return ""
    return f"<h2>{escape(title)}</h2><ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _table(report: Report) -> str:
    head = "".join(f"<th>{escape(report.say(f'column.{column}'))}</th>" for column in COLUMNS)
    rows = "".join(_row(report, row) for row in report.rows)
    notes = "".join(f'<p class="small">{escape(source)}</p>' for source in report.sources)
    title = escape(report.say("organs"))
    return f"<h2>{title}</h2><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{notes}"


def _row(report: Report, row: Row) -> str:
    red, green, blue = row.colour
    swatch = f'<span class="swatch" style="background:rgb({red},{green},{blue})"></span>'
    cells = [escape(cell) for cell in row.cells]
    cells[0] = swatch + cells[0]
    cut = report.say("edge.yes")
    marked = "".join(f'<td class="cut">{cell}</td>' if cell == escape(cut) else f"<td>{cell}</td>" for cell in cells)
    return f"<tr>{marked}</tr>" if row.found else f'<tr class="absent">{marked}</tr>'


def _pictures(report: Report) -> str:
    figures = "".join(_figure(picture) for picture in report.pictures)
    title, note = escape(report.say("pictures")), escape(report.say("convention"))
    return f'<h2>{title}</h2><div class="pictures">{figures}</div><p class="small">{note}</p>'


def _figure(picture: Picture) -> str:
    caption, content = escape(picture.caption), base64.b64encode(picture.png).decode()
    image = f'<img alt="{caption}" src="data:image/png;base64,{content}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"
