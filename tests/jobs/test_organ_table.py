"""What a person sees after one study: organs, findings, files."""

from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from medseg.jobs.manifest import ManifestRow
from medseg.jobs.organ_table import print_study

FOUND = {"organ": "mandible", "label": 7, "volume_ml": 61.349, "mean_hu": 612.4, "sd_hu": 301.2, "slices": 24}
ABSENT = {"organ": "larynx", "label": 6, "volume_ml": 0.0, "mean_hu": None, "sd_hu": None, "slices": 0}


def printed(folder: Path, row: ManifestRow) -> list[str]:
    rows = [
        {**FOUND, "touches_edge": True, "mean_probability": 0.934},
        {**ABSENT, "touches_edge": False, "mean_probability": None},
    ]
    (folder / "measurements.json").write_text(json.dumps(rows))
    (folder / "mask.nii.gz").write_bytes(b"")
    stream = io.StringIO()
    print_study(folder, row, Console(file=stream, width=100, soft_wrap=True))
    return stream.getvalue().splitlines()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_organs_findings_and_files_are_shown(tmp_path: Path) -> None:
    findings = ("The scan ends below [the skull].",)
    lines = printed(tmp_path, ManifestRow("neck", "/scans/neck.nii.gz", "done", findings=findings))
    rows = [cells(line) for line in lines if line.startswith("│")]
    assert lines[0].strip() == "neck"
    assert rows == [
        ["mandible", "61.3", "612", "301", "24", "yes", "0.93"],
        ["larynx", "0.0", "-", "-", "0", "", "-"],
    ]
    assert lines[-2] == "  - The scan ends below [the skull]."
    assert lines[-1] == f"{tmp_path}: mask.nii.gz, measurements.json"
