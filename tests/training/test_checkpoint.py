"""Checkpoints: bit for bit, refused by name, and never half written."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from medseg.errors import DataError, OutputError
from medseg.models.tensors import emit_tensors
from medseg.networks.optimized_unet import Optimized3DUNet
from medseg.training.checkpoint import (
    LAST,
    PREVIOUS,
    Learner,
    find_checkpoint,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
)

STATE = {"step": 7, "log": [{"step": 5, "loss": 0.5}], "config": {"seed": 1}}


def trained(seed: int, channels: tuple[int, ...] = (4, 8)) -> Learner:
    """Network, average and optimiser after two steps."""
    torch.manual_seed(seed)
    network = Optimized3DUNet(channels=channels, deep_supervision=1).to(memory_format=torch.channels_last_3d)
    average = deepcopy(network)
    optimiser = torch.optim.AdamW(network.parameters())
    for _ in range(2):
        optimiser.zero_grad()
        network(torch.randn(1, 1, 8, 8, 8))[0].square().mean().backward()
        optimiser.step()
    return Learner(network, average, optimiser)


def everything(learner: Learner) -> list[torch.Tensor]:
    slots = sorted(learner.optimiser.state_dict()["state"].items())
    values = [value for _, slot in slots for _, value in sorted(slot.items())]
    assert learner.average is not None
    return [*learner.network.state_dict().values(), *learner.average.state_dict().values(), *values]


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """A disk that is full after `size` bytes of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_was_saved_comes_back_bit_for_bit(tmp_path: Path) -> None:
    path, saved, fresh = tmp_path / "c.safetensors", trained(1), trained(2)
    save_checkpoint(path, saved, STATE)
    assert load_checkpoint(path, fresh) == STATE
    for ours, theirs in zip(everything(fresh), everything(saved), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.dtype == theirs.dtype


def test_an_optimiser_that_never_stepped_comes_back(tmp_path: Path) -> None:
    network = trained(1).network
    save_checkpoint(tmp_path / "c", Learner(network, None, torch.optim.AdamW(network.parameters())), STATE)
    fresh = torch.optim.AdamW(network.parameters())
    load_checkpoint(tmp_path / "c", Learner(network, None, fresh))
    assert fresh.state_dict()["state"] == {}


def test_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, trained(1), STATE)
    with pytest.raises(DataError, match=r"c\.safetensors belongs to another network.*another run folder"):
        load_checkpoint(path, trained(1, channels=(4, 6)))


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, trained(1), STATE)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"c\.safetensors is damaged or no checkpoint"):
        load_checkpoint(path, trained(1))


def test_weights_alone_are_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(DataError, match="damaged or no checkpoint"):
        load_checkpoint(path, trained(1))


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    path, saved = tmp_path / "c.safetensors", trained(1)
    save_checkpoint(path, saved, STATE)
    before = path.read_bytes()
    with no_file_above(len(before) // 2), pytest.raises(OutputError, match=r"c\.safetensors could not be written"):
        save_checkpoint(path, trained(2), STATE | {"step": 8})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    assert load_checkpoint(path, trained(3)) == STATE


def test_tensors_of_every_kind_are_verified(tmp_path: Path) -> None:
    tensors = {
        "half": torch.tensor([[1.0, float("nan")]], dtype=torch.float16),
        "count": torch.tensor(3),
        "flags": torch.tensor([True, False]),
        "none": torch.zeros(0),
    }
    assert emit_tensors(tmp_path / "t.safetensors", tensors).is_file()


def test_the_checkpoint_before_stays_and_is_found_where_the_last_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / LAST
    save_checkpoint(path, trained(1), STATE)
    save_checkpoint(path, trained(2), STATE | {"step": 8})
    assert find_checkpoint(tmp_path) == path
    damaged = bytearray(path.read_bytes())
    damaged[-20] ^= 1  # one bit of one weight
    path.write_bytes(damaged)
    with pytest.raises(DataError, match="damaged"):
        read_checkpoint(path)
    assert find_checkpoint(tmp_path) == tmp_path / PREVIOUS
    assert read_checkpoint(tmp_path / PREVIOUS)[1] == STATE
    (tmp_path / PREVIOUS).write_bytes(b"")
    with pytest.raises(DataError, match=r"last\.safetensors is damaged"):
        find_checkpoint(tmp_path)


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_checkpoint(tmp_path / name / LAST, trained(1), STATE)
    assert (tmp_path / "a" / LAST).read_bytes() == (tmp_path / "b" / LAST).read_bytes()
