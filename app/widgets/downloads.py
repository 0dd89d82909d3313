"""Files of a result, for people and for other programs."""

from __future__ import annotations

import streamlit as st

from app.downloads import EXPORTS, NEEDS_DICOM
from app.scans import Scan
from app.studies import RunView
from app.text import language, say
from app.widgets.style import assets_path, base_path

_LOADER = """
const programs = {}
export default function (component) {
  const path = window.location.origin + component.data.assets + "/viewer.js"
  programs[path] ??= import(path)
  programs[path].then((program) => program.mountDownloads(component))
}
"""
_mount = st.components.v2.component(
    "medseg_downloads", html='<div class="downloads-host"></div>', js=_LOADER, isolate_styles=False
)
_FILES = {
    "all": "all.zip",
    "mask": "mask.nii.gz",
    "table": "measurements.csv",
    "preview": "preview.png",
    "report": "run.json",
}


def show_downloads(study: str, scan: Scan, run: RunView) -> None:
    """Links to what is there, and buttons for what is made when asked for."""
    base, is_dicom = f"{base_path()}/study/{study}/run/{run.number}", scan.facts["format"] == "dicom"
    offered = [name for name in EXPORTS if is_dicom or name not in NEEDS_DICOM]
    order = ["report-pdf", "report-html"]
    offered.sort(key=lambda name: order.index(name) if name in order else len(order))
    data = {
        "assets": assets_path(),
        "files": [
            {"name": name, "label": say(f"download.{key}"), "url": f"{base}/file/{name}", "main": key == "all"}
            for key, name in _FILES.items()
        ],
        "exports": [
            {"name": name, "label": say(f"download.{name}"), "url": f"{base}/export/{name}?lang={language()}"}
            for name in offered
        ],
        "lead": say("download.lead"),
        "note": say("download.identity" if is_dicom else "download.needs_dicom"),
        "words": {"preparing": say("download.preparing"), "failed": say("download.failed")},
    }
    _mount(key=f"downloads-{study}-{run.number}", data=data)
