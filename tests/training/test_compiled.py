"""A compiled run trains the same network; where nothing can be compiled it says why and goes on."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
import torch
from torch._inductor import config as inductor

from medseg.training import compiled as compiling
from medseg.training.compiled import CACHE_VARIABLE, compiled, first_steps, why_not
from medseg.training.journal import StepRecord
from tests.training.conftest import tensors_of
from tests.training.toys import LineTask, line_trainer

CPU = torch.device("cpu")


def test_without_a_compiler_it_says_so_and_goes_on(tmp_path: Path) -> None:
    said: list[str] = []
    with inductor.patch({"cpp.cxx": (str(tmp_path / "no-such-compiler"),)}):
        trainer = line_trainer(tmp_path, said=said, compile=True)
        trainer.run()
    assert trainer.step == 10
    assert any("there is no C++ compiler here" in line and "goes on uncompiled" in line for line in said)


def test_a_missing_module_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "triton", None)
    assert why_not(torch.device("cuda")).startswith("triton is missing")
    model = torch.nn.Linear(1, 1)
    assert compiled(model, torch.device("cuda"), Path(), lambda line: None) is model


@pytest.fixture
def variable(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """torch's variable, unset, and put back afterwards; looking for a compiler fills it, as the first import does."""
    monkeypatch.setenv(CACHE_VARIABLE, "")
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setattr(torch, "compile", lambda model: model)  # its imports warn
    own = f"{tempfile.gettempdir()}/torchinductor_somebody"
    monkeypatch.setattr(compiling, "why_not", lambda device: os.environ.setdefault(CACHE_VARIABLE, own) and "")
    return monkeypatch


@pytest.mark.usefixtures("variable")
def test_graphs_are_kept_beside_each_run_of_a_process(tmp_path: Path) -> None:
    for run in ("a", "b"):
        compiled(torch.nn.Linear(1, 1), CPU, tmp_path / run, print)
        assert os.environ[CACHE_VARIABLE] == str((tmp_path / run).resolve())


def test_graphs_are_kept_where_the_user_says(variable: pytest.MonkeyPatch, tmp_path: Path) -> None:
    variable.setenv(CACHE_VARIABLE, str(tmp_path / "mine"))
    compiled(torch.nn.Linear(1, 1), CPU, tmp_path / "run", print)
    assert os.environ[CACHE_VARIABLE] == str(tmp_path / "mine")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's own, about its own parts
@pytest.mark.skipif(bool(why_not(CPU)), reason="needs a C++ compiler")
def test_a_compiled_run_ends_with_the_same_weights_and_keeps_its_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, "")
    monkeypatch.delenv(CACHE_VARIABLE)
    why_not(CPU)
    plain = line_trainer(tmp_path / "a", LineTask(dropout=0.0))
    built = line_trainer(tmp_path / "b", LineTask(dropout=0.0), compile=True)
    expected, found = plain.run(), built.run()
    for name, tensor in tensors_of(expected).items():
        torch.testing.assert_close(tensors_of(found)[name], tensor)
    assert set(tensors_of(found)) == set(tensors_of(expected))
    assert any((tmp_path / "b" / "graphs").rglob("*.so"))


def test_the_time_of_the_graph_is_what_the_first_steps_took_more() -> None:
    seconds = [9.0, 3.0, 1.0, 1.0, 1.0, 1.2, 0.9]
    records = [StepRecord(n, 0.0, {}, 1.0, s + 0.5, 0.5) for n, s in enumerate(seconds, 1)]
    building, usual = first_steps(records)
    assert usual == pytest.approx(1.0)
    assert building == pytest.approx(10.0)


def test_a_gpu_without_a_c_compiler_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("medseg.training.compiled.find_spec", lambda name: object())
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "C compiler" in why_not(torch.device("cuda"))
    monkeypatch.setenv("CC", "cc")
    monkeypatch.setattr("medseg.training.compiled.get_paths", lambda: {"include": str(tmp_path)})
    assert "headers" in why_not(torch.device("cuda"))
