"""The viewer on the page: what it is told. Everything that it shows it fetches itself (`app.routes`)."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app.results import Result
from app.scans import Scan
from app.studies import RunView
from app.text import language, name_of, say, sentences, volume_text
from app.widgets.style import assets_path, base_path

# The program is fetched once, by a name that changes with it, and not sent with every page. Streamlit may begin a
# component that it has given up already, after its successor, and end it in the same breath: that one is never mounted.
_LOADER = """
const programs = {}
export default function (component) {
  const path = window.location.origin + component.data.assets + "/viewer.js"
  programs[path] ??= import(path)
  let isWanted = true
  programs[path].then((program) => isWanted && program.mount(component))
  return () => {
    isWanted = false
    programs[path].then((program) => program.unmount(component))
  }
}
"""
_mount = st.components.v2.component("medseg_viewer", js=_LOADER)
_AHEAD = """
export default function ({ data }) {
  import(window.location.origin + data.assets + "/viewer.js")
}
"""
_fetch = st.components.v2.component("medseg_viewer_ahead", js=_AHEAD)
_HEAD = "head-neck"


def show_viewer(
    study: str,
    scan: Scan,
    run: RunView | None,
    result: Result | None,
    *,
    is_preview: bool = False,
    compare: dict[str, Any] | None = None,
    key: str = "viewer",
) -> int | None:
    """Show a scan, with a result where there is one.

    Args:
        study: id of the study.
        scan: what to show.
        run, result: the result to show over it.
        is_preview: the result is a coarse one that is shown meanwhile.
        compare: the other side (`other_side`), where two are compared.
        key: of the component; one for each place on the page.

    Returns:
        The number of a new version that was saved in the viewer, once.
    """
    data = {
        "assets": assets_path(),
        "lang": language(),
        "words": _words(),
        "preset": "head_neck" if run is not None and run.model.startswith(_HEAD) else "soft_tissue",
        **side_of(study, scan, run, result, is_preview=is_preview),
        "compare": compare,
    }
    if compare is not None:
        data["title"] = say("compare.this_side")
    answer = _mount(key=f"{key}-{study}", data=data, on_saved_change=_nothing)
    return answer.saved if isinstance(answer.saved, int) else None


def _nothing() -> None: ...


def fetch_ahead() -> None:
    """Let the browser fetch the viewer while the visitor still looks for a scan."""
    _fetch(key="viewer-ahead", data={"assets": assets_path()})


def side_of(
    study: str, scan: Scan, run: RunView | None, result: Result | None, *, is_preview: bool = False
) -> dict[str, Any]:
    """What the viewer has to know of one scan and its result."""
    return {
        "base": f"{base_path()}/study/{study}",
        "scan": {"shape": scan.shape, "spacing": scan.spacing_mm, "affine": scan.facts["affine"]},
        "run": None if run is None or result is None else _run(run, is_preview),
        "organs": [] if result is None else _organs(result),
        "middles": {} if result is None else {str(value): at for value, at in result.middles.items()},
    }


def _run(run: RunView, is_preview: bool) -> dict[str, Any]:
    if is_preview:
        return {"number": 0, "stamp": "preview", "path": f"run/{run.number}/preview"}
    return {
        "number": run.number,
        "stamp": "",
        "path": f"run/{run.number}/mask",
        "base": f"run/{run.number}",
        "surfaces": f"surface/{run.number}",
        "editable": True,
    }


def _organs(result: Result) -> list[dict[str, Any]]:
    return [
        {
            "value": row.value,
            "name": row.name,
            "title": name_of("organ", row.name),
            "colour": row.colour,
            "ml": row.volume_ml,
            "volume": volume_text(row.volume_ml) if row.volume_ml else say("table.none"),
        }
        for row in result.organs
    ]


def _words() -> dict[str, str]:
    """All sentences of the viewer, without their common beginning."""
    return {
        key.removeprefix("viewer."): text for key, text in sentences(language()).items() if key.startswith("viewer.")
    }
