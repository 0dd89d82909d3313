"""Pages for a browser that need nothing but the folder they lie in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1c2733; }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; margin: .8rem 0 } th, td { padding: .25rem .7rem; text-align: left; border-bottom: 1px solid #d8dee6 }
td.error { color: #a3122a; font-weight: 600 } td.warning { color: #8a5a00; font-weight: 600 }
figure { margin: 1rem 0 } img { max-width: 100%; border-radius: 4px } figcaption { color: #52606d }
"""  # noqa: E501


def page(title: str, parts: Iterable[str]) -> str:
    """A whole page from parts that are HTML already."""
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    body = "\n".join([f"<h1>{escape(title)}</h1>", *parts])
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def heading(text: str) -> str:
    """A section's name."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str) -> str:
    """Plain text."""
    return f"<p>{escape(text)}</p>"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of plain text; a cell that says error or warning is coloured."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "\n".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"


def _cell(value: object) -> str:
    text = str(value)
    mark = f' class="{text}"' if text in ("error", "warning") else ""
    return f"<td{mark}>{escape(text)}</td>"


def picture(file: str, caption: str) -> str:
    """A picture beside the page."""
    return (
        f'<figure><img src="{escape(file)}" alt="{escape(caption)}"><figcaption>{escape(caption)}</figcaption></figure>'
    )
