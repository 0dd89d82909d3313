"""`auto` measures once, remembers, says why, and takes no answer that differs from PyTorch's."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from medseg.errors import ModelError, ModelIntegrityError
from medseg.inference.backends import Candidate, Choice, build, build_predictor
from medseg.inference.backends.build import candidates_of, choose, machine_facts
from medseg.inference.backends.measure import compare, noise_tile, relative_error, seconds_per_tile
from medseg.models.notes import cache_folder
from medseg.models.store import WEIGHTS, ModelPackage, load_model
from tests.inference.backends.packages import tiny_package
from tests.inference.planted import write_package


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def package(tmp_path: Path) -> ModelPackage:
    return tiny_package(tmp_path / "model")


def notes(cache: Path) -> list[Path]:
    return sorted(cache.glob("backends/*.json"))


def chosen(package: ModelPackage) -> Choice:
    """Between two that need no compiler, so that tests are quick."""
    return choose(package, [Candidate("torch", "fp32"), Candidate("torch", "bf16")])


def test_the_fastest_is_taken_and_remembered(package: ModelPackage, cache: Path) -> None:
    first = build_predictor(package).choice
    assert first is not None
    assert not first.remembered
    assert set(first.seconds) == {str(candidate) for candidate in candidates_of(package)}
    assert {candidate.backend for candidate in candidates_of(package)} == {"openvino", "torch"}
    assert first.seconds[str(first.candidate)] <= 1.1 * min(first.seconds.values())
    (note,) = notes(cache)
    assert json.loads(note.read_text())["facts"]["threads"] == torch.get_num_threads()
    again = build_predictor(package).choice
    assert again is not None
    assert again.remembered
    assert (again.candidate, again.seconds) == (first.candidate, first.seconds)
    assert re.match(rf"{first.candidate}: (nearly )?the fastest per tile", first.reason)
    assert "measured now" in first.reason
    assert "measured earlier" in again.reason


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"facts": {}, "note": {}}'])
def test_a_damaged_note_is_measured_again(damage: str, package: ModelPackage, cache: Path) -> None:
    chosen(package)
    (note,) = notes(cache)
    note.write_text(damage)
    assert not chosen(package).remembered
    assert chosen(package).remembered


@pytest.mark.parametrize(
    "changes", [{"backend": "abacus"}, {"seconds": {}}, {"seconds": {"torch fp32": -1}}, {"unknown": 1}, {"seconds": 3}]
)
def test_a_note_that_makes_no_sense_is_measured_again(
    changes: dict[str, object], package: ModelPackage, cache: Path
) -> None:
    chosen(package)
    (note,) = notes(cache)
    content = json.loads(note.read_text())
    content["note"] |= changes
    note.write_text(json.dumps(content))
    assert not chosen(package).remembered


def test_another_model_or_number_of_threads_is_measured_anew(
    package: ModelPackage, cache: Path, tmp_path: Path
) -> None:
    chosen(package)
    other = load_model(_copy(package, tmp_path / "other", "2.0.0"))
    assert not chosen(other).remembered
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert not chosen(package).remembered
    finally:
        torch.set_num_threads(threads)
    assert len(notes(cache)) == 3


def _copy(package: ModelPackage, folder: Path, version: str) -> Path:
    card = package.card.model_copy(update={"version": version})
    return write_package(folder, card, load_file(package.file(WEIGHTS)))


def test_a_cache_that_cannot_be_written_is_no_error(package: ModelPackage, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    assert not chosen(package).remembered
    assert not chosen(package).remembered


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MEDSEG_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "medseg"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "medseg"


def test_a_processor_that_has_bf16_may_still_take_fp32(package: ModelPackage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "native_bf16", lambda: True)
    floats = {"torch bf16", "torch fp32", "openvino bf16", "openvino fp32"}
    assert set(map(str, candidates_of(package))) == floats


def test_where_one_way_is_left_nothing_is_measured(
    package: ModelPackage, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "native_bf16", lambda: False)
    choice = build_predictor(package, "torch").choice
    assert choice is not None
    assert choice.seconds == {}
    assert "the only way" in choice.reason
    assert notes(cache) == []


def test_precision_can_be_named_and_the_backend_left_open(package: ModelPackage) -> None:
    assert set(map(str, candidates_of(package, precision="fp32"))) == {"openvino fp32", "torch fp32"}
    assert set(map(str, candidates_of(package, backend="openvino"))) <= {"openvino fp32", "openvino bf16"}


def test_int8_is_no_candidate_without_the_gate(package: ModelPackage) -> None:
    assert "int8" not in {candidate.precision for candidate in candidates_of(package)}


def test_the_facts_name_the_machine() -> None:
    facts = machine_facts()
    assert facts["processor"]
    assert {"torch", "openvino"} <= set(facts["versions"])


class Fake:
    """A predictor that scales its input: arithmetic in place of a network, so that the answer is known."""

    backend, device, choice = "torch", "cpu", None

    def __init__(self, factor: float, precision: str = "fp32") -> None:
        self.factor, self.precision, self.calls = factor, precision, 0

    def __call__(self, tiles: Tensor) -> Tensor:
        self.calls += 1
        return tiles * self.factor


def test_a_wrong_answer_is_refused_however_fast() -> None:
    built = {Candidate("openvino", "fp32"): Fake(1.1), Candidate("torch", "fp32"): Fake(1.0)}
    seconds, refused = compare(list(built), built.__getitem__, noise_tile((8, 8, 8)), Fake(1.0))
    assert list(seconds) == ["torch fp32"]
    assert refused == {"openvino fp32": "its logits differ from PyTorch's by 10.0%"}


def test_a_backend_that_fails_is_passed_over_and_named() -> None:
    def build(candidate: Candidate) -> Fake:
        if candidate.backend == "openvino":
            raise ModelIntegrityError("no such operation")
        return Fake(float("nan") if candidate.precision == "int8" else 1.0)

    candidates = [Candidate("openvino", "fp32"), Candidate("torch", "int8"), Candidate("torch", "fp32")]
    seconds, refused = compare(candidates, build, noise_tile((8, 8, 8)), Fake(1.0))
    assert list(seconds) == ["torch fp32"]
    assert "no such operation" in refused["openvino fp32"]
    assert "not finite" in refused["torch int8"]


def test_what_is_hopeless_is_called_once() -> None:
    slow, quick = Fake(1.0), Fake(1.0)
    seconds_per_tile(slow, noise_tile((8, 8, 8)), best=0.0)
    seconds_per_tile(quick, noise_tile((8, 8, 8)))
    assert (slow.calls, quick.calls) == (1, 4)


def test_error_is_relative_and_infinite_for_other_shapes() -> None:
    tile = noise_tile((8, 8, 8))
    assert torch.equal(tile, noise_tile((8, 8, 8)))
    assert relative_error(tile, tile) == 0
    assert relative_error(tile * 1.25, tile) == pytest.approx(0.25, rel=1e-4)
    assert relative_error(tile[..., :4], tile) == float("inf")


def test_a_package_that_runs_nowhere_says_why(package: ModelPackage, cache: Path) -> None:
    (package.folder / WEIGHTS).write_bytes(b"")
    with pytest.raises(ModelError, match="no safetensors file"):
        chosen(package)


@pytest.mark.parametrize(("bf16", "taken"), [(0.95, "torch fp32"), (0.8, "torch bf16")])
def test_bf16_has_to_be_clearly_faster(
    package: ModelPackage, cache: Path, monkeypatch: pytest.MonkeyPatch, bf16: float, taken: str
) -> None:
    monkeypatch.setattr(build, "compare", lambda *_: ({"torch fp32": 1.0, "torch bf16": bf16}, {}))
    choice = chosen(package)
    assert str(choice.candidate) == taken
    assert ("more exact" in choice.reason) == (taken == "torch fp32")
