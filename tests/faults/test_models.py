"""Altered models and corrupt caches: refused, or found out again; never used."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from medseg import errors
from medseg.jobs.batch import run_batch
from medseg.models.notes import cache_folder, recall, recall_bytes, remember, remember_bytes
from medseg.models.store import SHIPPED, load_model
from tests.phantoms import phantom_volume, write_nifti

FACTS = {"model": "x", "threads": 2}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED / "head-neck-oar", tmp_path / "model"))


@pytest.mark.parametrize("where", [0.1, 0.5, 0.99])
def test_one_flipped_bit_of_the_weights_stops_the_batch_before_it_begins(
    where: float, package: Path, tmp_path: Path
) -> None:
    weights = package / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[int(where * len(content))] ^= 1
    weights.write_bytes(content)
    scan = write_nifti(tmp_path / "a.nii.gz", phantom_volume((24, 20, 18), (7.0, 7.0, 7.5)))
    with pytest.raises(errors.ModelIntegrityError, match=r"weights\.safetensors is not the file"):
        run_batch([scan], tmp_path / "out", model=str(package))
    assert not (tmp_path / "out").exists()


def test_a_truncated_model_is_named(package: Path) -> None:
    weights = package / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(errors.ModelIntegrityError, match=r"weights\.safetensors"):
        load_model(package)


def test_a_link_in_place_of_the_weights_is_judged_by_its_content(package: Path, tmp_path: Path) -> None:
    weights = package / "weights.safetensors"
    other = tmp_path / "other"
    other.write_bytes(b"other weights")
    weights.unlink()
    weights.symlink_to(other)
    with pytest.raises(errors.ModelIntegrityError):
        load_model(package)


@pytest.mark.parametrize("damage", [b"", b"{", b'{"facts": 1}', bytes(100)])
def test_a_damaged_note_is_found_out_again(damage: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDSEG_CACHE", str(tmp_path))
    remember("kind", FACTS, {"fastest": "torch"})
    assert recall("kind", FACTS) == {"fastest": "torch"}
    for path in cache_folder().rglob("*.json"):
        path.write_bytes(damage)
    assert recall("kind", FACTS) is None


def test_an_altered_compiled_network_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDSEG_CACHE", str(tmp_path))
    remember_bytes("compiled", FACTS, b"network" * 100)
    assert recall_bytes("compiled", FACTS) == b"network" * 100
    for path in cache_folder().rglob("*.bin"):
        path.write_bytes(b"networK" * 100)
    assert recall_bytes("compiled", FACTS) is None


def test_a_cache_that_cannot_be_written_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDSEG_CACHE", "/proc/self/nowhere")
    remember("kind", FACTS, {"fastest": "torch"})
    remember_bytes("compiled", FACTS, b"x")
    assert recall("kind", FACTS) is None
    assert recall_bytes("compiled", FACTS) is None
