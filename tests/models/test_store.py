"""The shelf: packages found by name, verified to the byte, refused by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from medseg.errors import ModelError, ModelIntegrityError, UnknownModelError
from medseg.imaging.emit import sha256_file
from medseg.models.store import CARD, SHIPPED, WEIGHTS, list_models, load_model, shelves
from tests.inference.planted import threshold_card, write_package


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_package(tmp_path / "shelf" / "threshold")


def edit(folder: Path, **changes: Any) -> None:
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(card | changes))


def test_a_package_is_loaded_from_its_folder(folder: Path) -> None:
    package = load_model(folder)
    assert package.card.id == "threshold@1.2.3"
    assert package.file(WEIGHTS) == folder / WEIGHTS
    assert package.sha256 == sha256_file(folder / CARD)


def test_a_flipped_bit_is_refused(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(ModelIntegrityError, match=r"threshold: weights\.safetensors is not the file") as caught:
        load_model(folder)
    assert "Install the model package again." in str(caught.value)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    with pytest.raises(ModelIntegrityError, match=r"weights\.safetensors is missing"):
        load_model(folder)


@pytest.mark.parametrize("name", ["../secret", "a/b", "/etc/hostname", "sub/../x"])
def test_file_names_that_leave_the_package_are_refused(folder: Path, name: str) -> None:
    (folder.parent / "secret").write_text("x")
    edit(folder, files={name: "0" * 64})
    with pytest.raises(ModelIntegrityError, match=r"does not name a file of the package itself"):
        load_model(folder)


def test_a_file_that_the_card_does_not_list_is_not_handed_out(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"x")
    with pytest.raises(ModelIntegrityError, match=r"its card lists no model\.onnx"):
        load_model(folder).file("model.onnx")


def test_unknown_keys_are_named(folder: Path) -> None:
    edit(folder, treshold=3)
    with pytest.raises(ModelIntegrityError, match=r"threshold/model\.json is not a model card: treshold: Extra inputs"):
        load_model(folder)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": None}, "version"),
        ({"kind": "oracle"}, "kind"),
        ({"labels": [{"name": "a"}]}, "labels are no label table"),
        ({"labels": [{"name": "a", "value": 0, "color": [1, 2, 3]}]}, "1 ... 255"),
        ({"labels": [{"name": n, "value": 1, "color": [1, 2, 3]} for n in "ab"]}, "twice"),
        ({"labels": [{"name": n, "value": v, "color": [1, 2, 3]} for n, v in (("a", 1), ("b", "2"))]}, "label table"),
        ({"input": {"spacing_mm": [0, 1, 1]}}, "spacing_mm.0: Input should be greater than 0"),
    ],
)
def test_cards_that_make_no_sense_are_refused(folder: Path, changes: dict[str, Any], reason: str) -> None:
    edit(folder, **changes)
    with pytest.raises(ModelIntegrityError, match=reason.replace(".", r"\.")):
        load_model(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [("overlap_ratio", 1.0), ("overlap_ratio", -0.1), ("patch_size", [0, 8, 8]), ("window_hu", [900, -300])],
)
def test_inputs_out_of_range_are_refused(folder: Path, key: str, value: Any) -> None:
    edit(folder, input=threshold_card().input.model_dump(mode="json") | {key: value})  # type: ignore[union-attr]
    with pytest.raises(ModelIntegrityError, match=key):
        load_model(folder)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe", b""])
def test_cards_that_are_no_json_are_refused(folder: Path, content: bytes) -> None:
    (folder / CARD).write_bytes(content)
    with pytest.raises(ModelIntegrityError, match=r"threshold/model\.json is not a model card: \S"):
        load_model(folder)


def test_an_unknown_name_lists_the_known_ones(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDSEG_MODELS", str(folder.parent))
    with pytest.raises(
        UnknownModelError, match=r"No model named 'head'; installed: .*threshold, tissue-hu\."
    ) as caught:
        load_model("head")
    assert isinstance(caught.value, ModelError)
    assert caught.value.exit_code == 66


@pytest.mark.parametrize("name", ["", "no/such/folder", ".."])
def test_names_of_nothing_are_unknown(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_package(tmp_path)  # even here: no name is no folder
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path if name == "" else tmp_path / "inside" if name != ".." else tmp_path)
    with pytest.raises(UnknownModelError):
        load_model(name)


def test_the_folder_of_a_training_is_led_to_its_package(tmp_path: Path) -> None:
    write_package(tmp_path / "RUN" / "package")
    with pytest.raises(UnknownModelError) as caught:
        load_model(tmp_path / "RUN")
    assert str(caught.value) == f"{tmp_path}/RUN holds no model.json; did you mean {tmp_path}/RUN/package?"


def test_the_users_shelves_come_before_the_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for shelf, version in (("one", "7.0.0"), ("two", "8.0.0")):
        write_package(tmp_path / shelf / "any", threshold_card(name="tissue-hu", version=version))
    paths = [tmp_path / "one", tmp_path / "two"]
    monkeypatch.setenv("MEDSEG_MODELS", os.pathsep.join(["", *map(str, paths)]))
    assert shelves() == [*paths, SHIPPED]
    assert load_model("tissue-hu").card.version == "7.0.0"
    assert load_model("tissue-hu@8.0.0").folder == tmp_path / "two" / "any"
    assert load_model("tissue-hu@1.0.0").folder == SHIPPED / "tissue-hu"
    assert [card.version for card in list_models() if card.name == "tissue-hu"] == ["7.0.0"]


def test_a_folder_that_happens_to_be_called_like_a_model_is_not_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_package(tmp_path / "tissue-hu")
    write_package(tmp_path / "own")
    monkeypatch.chdir(tmp_path)
    assert load_model("tissue-hu").folder == SHIPPED / "tissue-hu"
    assert load_model("./tissue-hu").card.name == "threshold"
    assert load_model("own").card.name == "threshold"


def test_a_damaged_card_on_a_shelf_is_not_passed_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDSEG_MODELS", str(folder.parent))
    (folder / CARD).write_text("{}")
    with pytest.raises(ModelIntegrityError, match=r"threshold/model\.json"):
        list_models()


def test_the_shipped_models_are_whole() -> None:
    names = [card.name for card in list_models()]
    assert "tissue-hu" in names
    for name in names:
        package = load_model(name)
        assert package.card.licence
        assert package.card.limits
        assert package.card.intended_use


def test_the_shelf_needs_no_torch() -> None:
    code = (
        "import sys, medseg.models.store as s; s.load_model('tissue-hu'); "
        "print([m for m in ('torch', 'monai', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
