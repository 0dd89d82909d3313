"""The way back, block by block and slab by slab, on small scans: the same labels as voxel by voxel."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medseg.imaging.volume import Array, Geometry
from medseg.preprocess import restore as way_back
from medseg.preprocess.blocks import LogitBlock, whole
from medseg.preprocess.restore import LabelMap, restore, restore_blocks

SHAPE = (7, 6, 8)
REACH = 0.51


def _grid() -> Geometry:
    affine = np.diag([4.0, 3.0, 5.0, 1.0])
    affine[:3, 3] = (-11, 6, 40)
    return Geometry(SHAPE, affine)


def _source(turned: float) -> Geometry:
    """Finer than the grid and a little larger at every end; turned by some degrees or not."""
    angle = np.radians(25 * turned)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = np.diag([1.7, 1.3, 2.1, 1.0])
    shape = (20, 19, 24)
    middle = _grid().affine @ [*((np.array(SHAPE) - 1) / 2), 1]
    affine = turn @ affine
    affine[:3, 3] = middle[:3] - affine[:3, :3] @ ((np.array(shape) - 1) / 2) + (0.31, 0.17, 0.23)
    return Geometry(shape, affine)


def _logits(seed: int = 1) -> Array:
    return np.random.default_rng(seed).normal(0, 1, (4, *SHAPE)).astype(np.float32)


def _blocks(logits: Array, cuts: tuple[int, int, int]) -> list[LogitBlock]:
    """The scan cut at one place along each axis; every cell has one owner, which holds both its voxels."""
    found = []
    ends = [((0, cut), (cut, size)) for cut, size in zip(cuts, SHAPE, strict=True)]
    for i in ends[0]:
        for j in ends[1]:
            for k in ends[2]:
                cells = tuple(slice(*side) for side in (i, j, k))
                voxels = tuple(slice(max(0, a - 1), min(b + 2, n)) for (a, b), n in zip((i, j, k), SHAPE, strict=True))
                start = tuple(side.start for side in voxels)
                found.append(LogitBlock(logits[(slice(None), *voxels)], start, cells))  # type: ignore[arg-type]
    return found


def _alone(logits: Array, source: Geometry) -> tuple[Array, Array, Array]:
    """Label, probability and clear lead of every voxel by itself, by another library."""
    sampled, inside = _sampled(logits, source)
    labels = np.where(inside, sampled.argmax(axis=0), 0)
    ordered = np.sort(sampled, axis=0)
    return labels, np.where(labels > 0, _chances(logits, source).max(axis=0), 0), ordered[-1] - ordered[-2] > 1e-4


def _sampled(logits: Array, source: Geometry) -> tuple[Array, Array]:
    """Logits at every voxel of the source, and whether it lies in the grid."""
    matrix = np.linalg.inv(_grid().affine) @ source.affine
    at = np.tensordot(matrix[:3, :3], np.indices(source.shape), 1) + matrix[:3, 3].reshape(3, 1, 1, 1)
    sampled = np.stack([ndimage.map_coordinates(c.astype(float), at, order=1, mode="nearest") for c in logits])
    ends = np.array(SHAPE).reshape(3, 1, 1, 1) - 1
    return sampled, ((at >= -REACH) & (at <= ends + REACH)).all(axis=0)


def _check(found: LabelMap, logits: Array, source: Geometry) -> None:
    labels, chance, clear = _alone(logits, source)
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(found.labels[clear], labels[clear])
    assert np.abs(found.confidence[clear] - 255 * chance[clear]).max() <= 1.01


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("values", [100, 1000, 2_000_000])
def test_slabs_of_any_size_lose_nothing(values: int, turned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(way_back, "SLAB_VALUES", values)
    source = _source(turned)
    _check(restore(_logits(), _grid(), source), _logits(), source)


@pytest.mark.parametrize("turned", [False, True, 0.02, -0.02])
@pytest.mark.parametrize("cuts", [(3, 3, 4), (1, 5, 2), (6, 1, 7)])
def test_blocks_decide_as_the_whole(cuts: tuple[int, int, int], turned: float) -> None:
    """In whatever order they come: each decides the voxels in its own cells and no others."""
    source, blocks = _source(turned), _blocks(_logits(2), cuts)
    _check(restore_blocks(blocks, _grid(), source), _logits(2), source)
    _check(restore_blocks(blocks[::-1], _grid(), source), _logits(2), source)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("sure", [1.0, 4.0])
def test_probabilities_are_those_of_every_voxel_alone(turned: float, sure: float) -> None:
    """Also where no organ wins; and the labels stay what they are."""
    source, logits = _source(turned), _logits(3) * np.float32(sure)
    logits[0] += 3
    plain = restore_blocks(_blocks(logits, (3, 3, 4)), _grid(), source)
    found = restore_blocks(_blocks(logits, (3, 3, 4)), _grid(), source, wanted=(1, 3))
    assert sorted(found.probabilities) == [1, 3]
    np.testing.assert_array_equal(found.labels, plain.labels)
    np.testing.assert_array_equal(found.confidence, plain.confidence)
    for value, percent in found.probabilities.items():
        chance = _chances(logits, source)[value]
        assert np.abs(percent - 100 * chance).max() <= 0.51
        assert (percent[found.labels == 0] > 5).any()


def _chances(logits: Array, source: Geometry) -> Array:
    """Softmax probabilities of every voxel of the source by itself; nothing beyond the grid."""
    sampled, inside = _sampled(logits, source)
    return np.asarray(inside * np.exp(sampled) / np.exp(sampled).sum(axis=0))


@pytest.mark.parametrize("at", [*range(8)])
def test_a_block_alone_decides_its_own_cells(at: int) -> None:
    """What the others would have decided stays background."""
    source, logits = _source(turned=False), _logits(5)
    block = _blocks(logits, (3, 3, 4))[at]
    everything, found = restore(logits, _grid(), source).labels, restore_blocks([block], _grid(), source).labels
    place = np.tensordot(np.linalg.inv(_grid().affine) @ source.affine, _homogeneous(source.shape), 1)[:3]
    place = np.clip(place, 0, np.array(SHAPE).reshape(3, 1, 1, 1) - 1)
    own = np.all([(p >= c.start) & (p < c.stop) for p, c in zip(place, block.cells, strict=True)], axis=0)
    np.testing.assert_array_equal(found, np.where(own, everything, 0))


def _homogeneous(shape: tuple[int, ...]) -> Array:
    return np.concatenate([np.indices(shape), np.ones((1, *shape))])


def test_slabs_fill_a_box_and_the_memory_that_they_may() -> None:
    slabs = list(way_back._slabs((1, 2, 3), (5, 9, 20), 100))
    assert [slab[:2] for slab in slabs] == [(slice(1, 5), slice(2, 9))] * 6
    assert [(k.start, k.stop) for _, _, k in slabs] == [(3, 6), (6, 9), (9, 12), (12, 15), (15, 18), (18, 20)]
    assert [k for _, _, k in way_back._slabs((0, 0, 0), (1, 1, 3), 2)] == [slice(0, 2), slice(2, 3)]
    cut = list(way_back._slabs((0, 0, 0), (9, 9, 3), 40))  # a slice is larger: cut along j, too
    assert [(j.start, j.stop, k.start) for _, j, k in cut] == [
        (a, min(a + 4, 9), k) for k in range(3) for a in (0, 4, 8)
    ]
    assert len(list(way_back._slabs((0, 0, 0), (9, 9, 3), 2))) == 27
    assert list(way_back._slabs((0, 4, 0), (9, 4, 3), 2)) == []


@pytest.mark.parametrize("way", [way_back._Parallel, way_back._Turned])
def test_no_slab_holds_more_logits_than_it_may(way: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(way_back, "SLAB_VALUES", 4000)
    source = _source(turned=False)
    block = whole(_logits())
    to_grid = np.linalg.inv(_grid().affine) @ source.affine
    sizes = [logits.size for _, logits, _ in way(to_grid, source.shape, SHAPE).sample(block, block.cells)]
    assert max(sizes) <= 4000
    assert sum(sizes) <= 4 * np.prod(source.shape)
    assert len(sizes) <= 12  # slices of 20 x 19 voxels and 4 classes: two at a time, and not one


@pytest.mark.parametrize("turned", [False, True, 0.02, -0.02])
def test_a_lonely_organ_fades_to_all_sides(turned: float) -> None:
    """One voxel of an organ in the middle of background, at every end of the grid once."""
    source = _source(turned)
    for place in [(0, 0, 0), (6, 5, 7), (0, 5, 3), (3, 2, 7), (6, 0, 4)]:
        logits = np.stack([np.zeros(SHAPE), np.full(SHAPE, -2.0)]).astype(np.float32)
        logits[(1, *place)] = 3
        found = restore(logits, _grid(), source)
        assert found.labels.any() or turned  # a turned scan does not reach every corner of its grid
        _check(found, logits, source)


def test_blocks_of_background_leave_others_alone() -> None:
    """What one block has decided is not wiped by the next."""
    logits = _logits(3)
    logits[1:, :, :, 4:] = -9
    source = _source(turned=False)
    _check(restore_blocks(_blocks(logits, (3, 3, 4)), _grid(), source), logits, source)


def test_a_single_class_is_background() -> None:
    assert not restore(np.ones((1, *SHAPE), np.float32), _grid(), _source(turned=False)).labels.any()


def test_a_grid_that_is_the_scan_s_own_is_taken_as_it_is() -> None:
    logits = _logits(4)
    found = restore(logits, _grid(), _grid())
    np.testing.assert_array_equal(found.labels, logits.argmax(axis=0))
    part = Geometry((3, 2, 4), _grid().affine @ np.array([[1, 0, 0, 2], [0, 1, 0, 1], [0, 0, 1, 3], [0, 0, 0, 1.0]]))
    np.testing.assert_array_equal(restore(logits, _grid(), part).labels, logits[:, 2:5, 1:3, 3:7].argmax(axis=0))


def test_an_organ_of_a_single_voxel_of_a_coarse_scan_is_not_lost() -> None:
    affine = np.diag([8.0, 6.0, 10.0, 1.0])
    affine[:3, 3] = _grid().affine[:3, 3]
    source = Geometry((4, 3, 4), affine)
    for place in np.ndindex(4, 3, 4):
        logits = np.stack([np.zeros(SHAPE), np.full(SHAPE, -2.0)]).astype(np.float32)
        logits[(1, *(2 * np.array(place)))] = 3
        expected = np.zeros(source.shape)
        expected[place] = 1
        np.testing.assert_array_equal(restore(logits, _grid(), source).labels, expected)
