"""`medseg models` on a terminal and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medseg.models.console import print_card, print_models
from tests.inference.planted import threshold_card, write_package

METRICS = {
    "data": "phantoms [draft]",
    "mean_dice": 0.8123,
    "organs": {
        "parotid_gland_left": {"n": 31, "misses": 1, "dice": 0.8, "surface_dice": 0.91},
        "parotid_gland_right": {"n": 0, "misses": 0, "dice": None, "surface_dice": None},
    },
}


@pytest.fixture(autouse=True)
def _shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = threshold_card(title="Two [/thresholds]", limits=["[red]only[/red] phantoms"], metrics=METRICS)
    write_package(tmp_path / "threshold", card)
    monkeypatch.setenv("MEDSEG_MODELS", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")


def test_the_table_names_models_organs_and_scores(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_models(as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    (own,) = [line for line in lines if "threshold" in line]
    assert "1.2.3" in own
    assert "parotid gland, left; parotid gland, right" in own
    assert "0.812" in own
    (tissue,) = [line for line in lines if "tissue-hu" in line]
    assert "no references" in tissue


def test_a_shelf_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEDSEG_MODELS", "/no/such[/b]folder")
    assert print_models(as_json=True) == 0
    said = capsys.readouterr()
    assert said.err == "Warning: $MEDSEG_MODELS names /no/such[/b]folder, and there is no such folder.\n"
    assert json.loads(said.out)


def test_the_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_models(as_json=True) == 0
    said = capsys.readouterr()
    assert said.err == ""
    cards = {card["name"]: card for card in json.loads(said.out)}
    assert cards["threshold"]["input"]["spacing_mm"] == [4.0, 4.0, 4.0]


def test_one_card_says_limits_and_scores_and_takes_brackets_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_card("threshold", as_json=False) == 0
    out = capsys.readouterr().out
    for text in ("Two [/thresholds]", "threshold@1.2.3", "[red]only[/red] phantoms", "Licence: Apache-2.0"):
        assert text in out
    assert "phantoms [draft]" in out
    (left,) = [line for line in out.splitlines() if "parotid_gland_left" in line]
    assert all(text in left for text in ("31", "0.800", "0.910", "1"))
    (right,) = [line for line in out.splitlines() if "parotid_gland_right" in line]
    assert right.count("-") >= 2


def test_a_card_without_scores(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_card("tissue-hu", as_json=False) == 0
    assert "surface Dice" not in capsys.readouterr().out


def test_one_card_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_card("threshold@1.2.3", as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == METRICS
