"""Ranks that train as one: exact sums, equal weights, no silence when one dies. Real processes over gloo."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from medseg.errors import ConfigError
from medseg.training.checkpoint import LAST
from medseg.training.distributed import Ranks, choose_device, joined, share_batch_norm
from medseg.training.journal import read_journal
from tests.phantoms import phantom_volume
from tests.training.conftest import LABELS, write_case, write_index
from tests.training.ranks import EXACT, Doubled, exact, exact_patches, kill, left_by, outcome, start, sums, wait_until
from tests.training.toys import line_trainer


@dataclass(frozen=True)
class Pair:
    """Two ranks that have run all functions of `pair`, and what they said."""

    folder: Path
    codes: list[int]
    said: list[str]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """One start for all that need no pair of their own."""
    folder = tmp_path_factory.mktemp("pair")
    write_partial_labels(folder / "exact_patches")
    processes = start(
        folder, "exact", "exact_patches", "sums", "begun", "refused_once", "apart", "late_start", "spoilt"
    )
    said = [process.communicate(timeout=280)[1] for process in processes]
    assert all((folder / "refused_once" / f"rank{rank}.json").is_file() for rank in range(2)), said
    return Pair(folder, [process.returncode for process in processes], said)


def write_partial_labels(root: Path) -> None:
    organs = list(LABELS)
    known = [organs, organs[:2], organs[2:], organs]  # sides stay together: patches are mirrored
    data = root / "data"
    write_index(
        data, [write_case(data, f"p{n}", "train", phantom_volume(seed=n), each) for n, each in enumerate(known)]
    )


def test_two_ranks_equal_one_after_twenty_steps(pair: Pair, tmp_path: Path) -> None:
    alone = exact(Ranks(), tmp_path)
    both = left_by("exact", pair.folder)
    assert both[0] == both[1]
    for name, values in alone.items():
        assert both[0][name] == pytest.approx(values, abs=1e-9), name


def test_two_ranks_with_partial_labels_equal_one(pair: Pair, tmp_path: Path) -> None:
    write_partial_labels(tmp_path)
    alone = exact_patches(Ranks(), tmp_path)
    both = left_by("exact_patches", pair.folder)
    assert both[0] == both[1]
    for name, values in alone.items():
        assert both[0][name] == pytest.approx(values, abs=1e-5), name


def test_one_rank_goes_on_with_the_batches_of_two(pair: Pair, tmp_path: Path) -> None:
    assert left_by("begun", pair.folder) == [7, 7]
    said: list[str] = []
    rest = line_trainer(pair.folder / "begun" / "run", Doubled(), said=said, **EXACT)
    assert rest.resume()
    assert said[1] == "ranks: 1, each takes 2 of a step's batches; a step has 2, as before"
    found = rest.run().state_dict()
    whole = line_trainer(tmp_path, Doubled(), gradient_aggregation_interval=2, **EXACT).run().state_dict()
    for name, values in whole.items():
        torch.testing.assert_close(found[name], values, rtol=1e-12, atol=1e-12)
    ours = [entry for entry in read_journal(rest.folder) if "ranks" in entry]
    assert [(entry["step"], entry["ranks"], entry["batches_per_step"]) for entry in ours] == [(7, 1, 2)]


def test_ranks_that_cannot_share_a_steps_batches_evenly_take_more_and_say_so(tmp_path: Path) -> None:
    """Until the number of ranks fits again."""
    line_trainer(tmp_path, gradient_aggregation_interval=3, max_steps=2).run()
    for world, taken in [(2, 4), (3, 3)]:
        said: list[str] = []
        trainer = line_trainer(tmp_path, said=said, ranks=Ranks(0, world), gradient_aggregation_interval=3)
        assert trainer.resume()
        assert trainer.interval * world == taken
        assert trainer._numbers() == range(2 * taken, 10 * taken, world)
        assert ("a step has 4, not 3 as before, which 2 ranks cannot share evenly" in said[1]) is (world == 2)


@pytest.mark.slow
def test_the_others_wait_for_the_first_one_to_prepare_the_data(tmp_path: Path) -> None:
    assert outcome("late", tmp_path) == [[0, 1], [0, 1]]


def test_sums_keep_their_gradient(pair: Pair) -> None:
    first, second = left_by("sums", pair.folder)
    assert first["rows"] == second["rows"] == [1, 2]
    assert first["sum"] == second["sum"] == 3
    assert (first["gradient"], second["gradient"]) == (2 * 1 + 1, 2 * 2 + 1)
    assert first["largest"] == [1, 0]
    assert first["values"] == [0, 1]
    assert (first["first"], second["first"]) == (0, 0)


def test_alone_they_are_the_identity(tmp_path: Path) -> None:
    found = sums(Ranks(), tmp_path)
    assert found["rows"] == [1]
    assert found["sum"] == 1
    assert found["largest"] == [0, 0]
    with joined("cpu") as ranks:
        assert ranks.first
        assert ranks.world == 1
    network = torch.nn.BatchNorm3d(2)
    assert type(share_batch_norm(network)) is torch.nn.BatchNorm3d


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)])
def test_a_rank_that_dies_or_hangs_ends_the_run_within_a_minute(tmp_path: Path, how: signal.Signals) -> None:
    first, second = start(tmp_path, "endless")
    try:
        wait_until((tmp_path / "endless" / LAST).is_file)
        kill(second.pid, how)
        began = time.monotonic()
        _, said = first.communicate(timeout=120)
        assert time.monotonic() - began < 60
        assert first.returncode not in (0, None)
        assert "Rank 1 is gone or hangs: no sign of life" in said
        assert "--resume" in said
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()


@pytest.mark.slow
def test_the_first_rank_dies_and_the_other_says_so(tmp_path: Path) -> None:
    first, second = start(tmp_path, "endless")
    try:
        wait_until((tmp_path / "endless" / LAST).is_file)
        first.kill()
        began = time.monotonic()
        _, said = second.communicate(timeout=120)
        assert time.monotonic() - began < 60
        assert "keeps the ranks together (rank 0, or torchrun) is gone" in said
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()


def test_a_checkpoint_that_cannot_be_written_holds_no_rank_up(pair: Pair) -> None:
    assert left_by("refused_once", pair.folder) == [60, 60]
    assert (pair.folder / "refused_once" / LAST).is_file()


def test_ranks_that_see_different_checkpoints_do_not_go_on(pair: Pair) -> None:
    said = left_by("apart", pair.folder)
    assert all("different checkpoints" in text and "rank 0 step 0, rank 1 none" in text for text in said), said


@pytest.mark.slow
def test_a_rank_that_ends_while_data_are_prepared_leaves_a_sentence_to_the_others(tmp_path: Path) -> None:
    said = [process.communicate(timeout=120)[1] for process in start(tmp_path, "unprepared")]
    assert "WorkerError: Another rank ended or hangs" in said[0]
    assert "DataError: Case c7: the mask is broken." in said[1]


def test_a_rank_that_comes_late_is_waited_for(pair: Pair) -> None:
    assert left_by("late_start", pair.folder) == [10, 10]


def test_an_error_on_one_rank_is_told_by_all(pair: Pair) -> None:
    assert all("Loss is not finite at step 3; cases p7.0, p7.1" in text for text in pair.said)
    assert "WorkerError: Rank 1 ended at step 3" in pair.said[0] or "Error: Rank 1 ended at step 3" in pair.said[0]
    assert all(pair.codes)


def test_a_device_that_is_not_there_is_refused() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="device: 'toaster' is not there"):
        choose_device("toaster")


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_every_rank_takes_its_own_gpu(name: str) -> None:
    assert [str(choose_device(name, rank, 2)) for rank in range(2)] == ["cuda:0", "cuda:1"]
    assert str(choose_device(name)) == "cuda:0"


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("name", ["auto", "cuda"])
@pytest.mark.parametrize(("rank", "ranks"), [(0, 3), (2, 3), (2, 1)])
def test_more_ranks_than_gpus_are_refused_by_all_of_them(name: str, rank: int, ranks: int) -> None:
    with pytest.raises(ConfigError, match=r"3 ranks want a GPU each; this computer has 2\. .*loop\.device: cpu"):
        choose_device(name, rank, ranks)


def test_one_gpu_for_several_ranks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "empty", lambda *size, device: None)
    assert str(choose_device("cuda:1", 0, 1)) == "cuda:1"
    with pytest.raises(ConfigError, match=r"'cuda:1' is one device for 2 ranks\. Take cuda or auto"):
        choose_device("cuda:1", 0, 2)


@pytest.mark.usefixtures("two_gpus")
def test_torchruns_own_words_choose_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """One rank here and another elsewhere: each computer counts its own."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(ConfigError, match="3 ranks want a GPU"), joined("auto"):
        pass
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with joined("cuda") as ranks:
        assert str(ranks.device) == "cuda:1"
