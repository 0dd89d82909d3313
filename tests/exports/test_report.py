"""Reports: what they say is what was measured, in both languages, with pictures, and nothing from outside."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import medseg
from medseg.exports.report import build_report, volume_text, write_html_report, write_pdf_report
from medseg.exports.words import LANGUAGES, Language, organ_name
from medseg.results.references import reference_for
from tests.exports.conftest import Scanned, result_of
from tests.phantoms import PLANTED_NAME


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_row_is_the_measurement(scanned: Callable[[str], Scanned], language: Language) -> None:
    result = scanned("axial").result
    report = build_report(result, medseg.load_model("head-neck-oar").card, language)
    for row, measured in zip(report.rows, result.measurements, strict=True):
        assert row.cells[0] == organ_name(measured.organ, language)
        assert row.found is (measured.volume_ml > 0)
        if row.found:
            assert row.cells[1] == volume_text(measured.volume_ml)
            assert row.cells[5] == str(measured.slices)
            assert row.cells[3].startswith(f"{measured.mean_hu:.0f}".replace("-", "−"))
    assert len(report.limits) >= 3


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_stands_alone(scanned: Callable[[str], Scanned], tmp_path: Path, language: Language) -> None:
    scan = scanned("axial")
    text = write_html_report(tmp_path / "r.html", scan.result, None, language).read_text("utf-8")
    assert not re.search(r"<script|src=\"(?!data:)|href=|url\(|@import", text)
    assert PLANTED_NAME not in text
    assert ("仅供研究使用" if language == "zh" else "Research use only") in text
    pictures = [base64.b64decode(found) for found in re.findall(r"data:image/png;base64,([^\"]+)", text)]
    assert len(pictures) == 3
    for content in pictures:
        pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
        assert (np.ptp(pixels, axis=-1) > 40).mean() > 0.01  # coloured organs
        assert pixels.std() > 20


def test_text_from_outside_is_shown_and_not_obeyed(scanned: Callable[[str], Scanned], tmp_path: Path) -> None:
    result = result_of(scanned("axial").result.volume, study="<img src=x onerror=alert(1)>")
    text = write_html_report(tmp_path / "r.html", result).read_text("utf-8")
    assert "<img src=x" not in text
    assert "&lt;img src=x" in text
    assert write_pdf_report(tmp_path / "r.pdf", result).read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_pdf_brings_its_letters_with_it(
    scanned: Callable[[str], Scanned], tmp_path: Path, language: Language
) -> None:
    content = write_pdf_report(tmp_path / "r.pdf", scanned("oblique").result, None, language).read_bytes()
    assert content.startswith(b"%PDF")
    assert content.count(b"/FontFile2") >= 1
    assert content.count(b"/Subtype /Image") == 3


def test_an_empty_result_is_a_report_too(scanned: Callable[[str], Scanned], tmp_path: Path) -> None:
    volume = scanned("axial").result.volume
    result = result_of(volume, np.zeros(volume.geometry.shape, np.uint8))
    text = write_html_report(tmp_path / "r.html", result).read_text("utf-8")
    assert text.count("not found") == len(result.labels)
    assert write_pdf_report(tmp_path / "r.pdf", result).stat().st_size > 10_000


def test_references_are_named_and_not_a_verdict_where_they_mean_nothing() -> None:
    card = medseg.load_model("head-neck-oar").card
    parotid = reference_for("parotid_gland_left", card)
    assert parotid is not None
    assert "Medbery" in parotid.source
    assert [parotid.verdict(ml, cut_off=False) for ml in (5.0, 25.0, 60.0)] == ["below", "within", "above"]
    assert parotid.verdict(5.0, cut_off=True) == ""
    larynx = reference_for("larynx", card)
    assert larynx is not None
    assert larynx.kind == "training"
    liver = reference_for("liver")
    assert liver is not None
    assert liver.verdict(2500.0, cut_off=False) == ""  # reference man and woman are no limits
    assert reference_for("larynx") is None


@pytest.mark.parametrize(
    ("name", "english", "chinese"),
    [
        ("parotid_gland_left", "Parotid gland, left", "左腮腺"),
        ("spinal_cord", "Spinal cord", "脊髓"),
        ("vertebrae_L4", "Vertebrae L4", "第4腰椎"),
        ("rib_left_7", "Rib left 7", "左第7肋"),
        ("quite_new_organ", "Quite new organ", "Quite new organ"),
    ],
)
def test_organs_have_names_in_both_languages(name: str, english: str, chinese: str) -> None:
    assert organ_name(name) == english
    assert organ_name(name, "zh") == chinese
