"""Prepared cases on the disk: the same as fresh ones, never stale, made anew when damaged, shared by processes."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medseg.imaging.nifti import write_label_map
from medseg.training.cache import CaseCache
from medseg.training.cases import CaseFiles, TrainingCase, load_case, read_index
from tests.phantoms import phantom_labels, phantom_volume
from tests.training.conftest import LABELS, SPACING_MM
from tests.training.test_checkpoint import no_file_above


@pytest.fixture
def case(dataset: Path, tmp_path: Path) -> CaseFiles:
    """A case whose files may be changed."""
    found = read_index(dataset).cases[0]
    ct, label = (Path(shutil.copy(file, tmp_path / file.name)) for file in (found.ct, found.label))
    return replace(found, ct=ct, label=label)


def cache(folder: Path) -> CaseCache:
    return CaseCache(folder / "cache", LABELS, SPACING_MM)


def assert_same(a: TrainingCase, b: TrainingCase) -> None:
    assert a.id == b.id
    for name in ("hu", "labels", "known"):
        assert np.array_equal(getattr(a, name), getattr(b, name))
        assert getattr(a, name).dtype == getattr(b, name).dtype
    assert list(a.places) == list(b.places)
    assert all(np.array_equal(a.places[value], b.places[value]) for value in a.places)


def test_what_comes_back_is_what_was_prepared(case: CaseFiles, tmp_path: Path) -> None:
    first, second = cache(tmp_path), cache(tmp_path)
    (one,), (other,) = list(first.load([case])), list(second.load([case]))
    assert (first.computed, second.computed) == (1, 0)
    fresh = load_case(case, LABELS, SPACING_MM)
    assert_same(one, fresh)
    assert_same(other, fresh)
    mapped = Path("/proc/self/maps")  # one copy for all processes, and no descriptor kept for it
    if mapped.is_file():
        name = f"{first.key(case)}.safetensors"
        assert name in mapped.read_text()
        assert not any(name in os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())
    assert not other.hu.flags.writeable


def test_anything_that_decides_it_makes_another_entry(case: CaseFiles, tmp_path: Path) -> None:
    store = cache(tmp_path)
    keys = {store.key(case), CaseCache(tmp_path, LABELS, (6.0, 7.0, 8.0)).key(case)}
    keys.add(CaseCache(tmp_path, LABELS | {"larynx": 4}, SPACING_MM).key(case))
    keys.add(store.key(replace(case, contoured=case.contoured[:2])))
    assert len(keys) == 4
    assert store.key(replace(case, id="other", split="validation")) in keys


def test_a_changed_mask_is_never_answered_with_the_old_one(case: CaseFiles, tmp_path: Path) -> None:
    store = cache(tmp_path)
    store.fill([case])
    volume = phantom_volume(seed=0)
    write_label_map(case.label, np.roll(phantom_labels(volume), 3, axis=0), volume.geometry)
    (found,) = store.load([case])
    assert store.computed == 2
    assert_same(found, load_case(case, LABELS, SPACING_MM))


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_entry_is_made_anew(case: CaseFiles, tmp_path: Path, damage: str) -> None:
    cache(tmp_path).fill([case])
    (entry,) = (tmp_path / "cache").iterdir()
    whole = entry.read_bytes()
    spoiled = {"flip": whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:], "cut": whole[: len(whole) // 2], "empty": b""}
    entry.write_bytes(spoiled[damage])
    store = cache(tmp_path)
    assert_same(store.load_one(case), load_case(case, LABELS, SPACING_MM))
    assert store.computed == 1
    assert entry.read_bytes() == whole


def test_a_full_disk_costs_time_and_nothing_else(case: CaseFiles, tmp_path: Path) -> None:
    store = cache(tmp_path)
    with no_file_above(1000):
        found = store.load_one(case)
    assert_same(found, load_case(case, LABELS, SPACING_MM))
    assert list((tmp_path / "cache").iterdir()) == []


def _fill(folder: Path, case: CaseFiles) -> None:
    cache(folder).fill([case] * 3)


def test_processes_that_write_at_once_leave_one_whole_entry(case: CaseFiles, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_fill, args=(tmp_path, case)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    assert len(list((tmp_path / "cache").iterdir())) == 1
    store = cache(tmp_path)
    store.load_one(case)
    assert store.computed == 0
