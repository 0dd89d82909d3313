"""Vectors whose neighbours are known: reconstructions, equal reports, patients who come again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medseg.errors import DataError
from vlretrieval.cli import main
from vlretrieval.evaluation.embeddings import Embeddings, evaluate_embeddings, read_embeddings


def table(vectors: list[list[float]], studies: str, patients: str = "", texts: str = "", **more: object) -> Embeddings:
    names = np.array(studies.split())
    unit = np.array(vectors, float)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    words = np.array(texts.split("|")) if texts else np.full(len(names), "")
    return Embeddings(unit, names, np.array(patients.split()) if patients else names, words, **more)  # type: ignore[arg-type]


EYE = np.eye(4).tolist()


def test_a_space_that_is_right_finds_everything_first() -> None:
    found = evaluate_embeddings(table(EYE, "a b c d"), table(EYE, "a b c d", texts="one|two|three|four"))
    for direction in ("text_to_image", "text_to_study", "image_to_text"):
        assert found[direction]["recall"]["1"] == [1, 1, 1]
        assert found[direction]["chance"]["1"] == 0.25
        assert found[direction]["median_rank"][0] == 1
        assert found[direction]["pool"] == 4
    assert "image_to_image" not in found


def test_any_reconstruction_of_the_study_is_an_answer() -> None:
    """The second reconstruction of `a` is nearest to its text; the first lies with `b`."""
    images = table([EYE[1], EYE[0], EYE[1]], "a a b")
    found = evaluate_embeddings(images, table([EYE[0], EYE[1]], "a b", texts="one|two"))
    assert found["text_to_image"]["recall"]["1"][0] == pytest.approx((1 + 0.5) / 2)  # b's image ties with a's first
    assert found["text_to_study"]["pool"] == 2
    assert found["text_to_study"]["recall"]["1"][0] == pytest.approx((1 + 0.5) / 2)


def test_equal_reports_answer_for_each_other() -> None:
    """Texts of a and b are the same words; each finds the other's image first, which is no mistake."""
    images = table([EYE[1], EYE[0], EYE[2]], "a b c")
    texts = table([EYE[0], EYE[1], EYE[2]], "a b c", texts="Normal chest.|normal  chest.|Effusion.")
    found = evaluate_embeddings(images, texts)
    assert found["text_to_image"]["recall"]["1"][0] == 1
    assert found["text_to_image"]["chance"]["1"] == pytest.approx((2 / 3 + 2 / 3 + 1 / 3) / 3, abs=1e-4)
    different = table([EYE[0], EYE[1], EYE[2]], "a b c", texts="Normal chest.|Goitre.|Effusion.")
    assert evaluate_embeddings(images, different)["text_to_image"]["recall"]["1"][0] == pytest.approx(1 / 3, abs=1e-4)


def test_empty_reports_are_not_equal_reports() -> None:
    images, texts = table([EYE[1], EYE[0]], "a b"), table([EYE[0], EYE[1]], "a b", texts="|")
    assert evaluate_embeddings(images, texts)["text_to_image"]["recall"]["1"][0] == 0


def test_a_patients_own_studies_are_no_hits_for_image_to_image() -> None:
    labels = np.array([[1, 0], [1, 0], [1, 0], [0, 1]])
    images = table(
        [[1, 0, 0, 0], [1, 0.1, 0, 0], [0, 0, 1, 0], [0.9, 0.2, 0, 0]], "a1 a2 b c", "a a b c", labels=labels
    )
    found = evaluate_embeddings(images, table([EYE[0]], "a1", texts="one"))["image_to_image"]
    assert found["unanswerable"] == 1  # nobody else has c's findings
    assert found["recall"]["1"][0] == pytest.approx(2 / 3 / 3, abs=1e-3)  # a finds c first; b ties all three


def test_unknown_studies_and_other_spaces_are_refused() -> None:
    with pytest.raises(DataError, match="No text belongs"):
        evaluate_embeddings(table(EYE, "a b c d"), table([EYE[0]], "x", texts="one"))
    with pytest.raises(DataError, match="two spaces"):
        evaluate_embeddings(table(EYE, "a b c d"), table([[1, 0]], "a", texts="one"))


def test_the_command_prints_the_figures_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vectors = np.random.default_rng(0).normal(size=(30, 8))
    names = np.array([f"s{n}" for n in range(30)])
    np.savez(tmp_path / "images.npz", vectors=vectors, studies=names)
    np.savez(tmp_path / "texts.npz", vectors=vectors, studies=names, texts=names)
    with pytest.raises(SystemExit) as left:
        main(["evaluate", "embeddings", str(tmp_path / "images.npz"), "--texts", str(tmp_path / "texts.npz")])
    out = capsys.readouterr().out
    assert left.value.code == 0
    assert json.loads(out.splitlines()[-1])["text_to_image"]["recall"]["1"][0] == 1
    assert "pool of 30" in out


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"vectors": np.ones((2, 3))}, "studies"),
        ({"vectors": np.ones((2, 3)), "studies": np.array(["a"])}, "different lengths"),
        ({"vectors": np.zeros((1, 3)), "studies": np.array(["a"])}, "nothing or not finite"),
        ({"vectors": np.full((1, 3), np.nan), "studies": np.array(["a"])}, "nothing or not finite"),
    ],
)
def test_files_that_hold_no_vectors(tmp_path: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataError, match=said):
        read_embeddings(tmp_path / "bad.npz")


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_text("words")
    with pytest.raises(DataError, match="no vectors"):
        read_embeddings(tmp_path / "bad.npz")
    np.save(tmp_path / "bad.npy", np.ones((2, 3)))
    with pytest.raises(DataError, match="one array without a name") as refused:
        read_embeddings(tmp_path / "bad.npy")
    assert "`vectors` and `studies`" in refused.value.advice


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_that_was_damaged_on_its_way(tmp_path: Path, save: Callable[..., None]) -> None:
    path = tmp_path / "bad.npz"
    vectors = np.random.default_rng(0).normal(size=(50, 8))
    save(path, vectors=vectors, studies=np.array([f"s{n}" for n in range(50)]))
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:600] + bytes(1000) + whole[1600:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"bad\.npz holds no vectors"):
            read_embeddings(path)
