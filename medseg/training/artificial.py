"""Artificial bodies and couches: what scanners send and head-and-neck archives lack.

The training scans hold heads, necks and chests on air. A page is also handed abdomens and
legs, lying on couches. Bodies are drawn from random ellipsoids (domain randomisation,
Tobin et al. 2017), so that no patient outside the training set is needed to teach what is
*not* a head. All HU.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from medseg.imaging.volume import Array


def _coordinates(shape: tuple[int, ...]) -> Array:
    return np.stack(np.meshgrid(*[np.arange(n, dtype=np.float32) for n in shape], indexing="ij"))


def _inside(grid: Array, centre: Array, radii: Array, power: float = 2.0) -> Array:
    shape = (3, 1, 1, 1)
    return (np.abs((grid - centre.reshape(shape)) / radii.reshape(shape)) ** power).sum(0) <= 1


def _tube(grid: Array, rng: np.random.Generator, centre: Array, radius: float) -> Array:
    """Distance from a slightly tilted axis along k, in units of `radius`."""
    slope = rng.normal(0, 0.15, 2)
    along = grid[2] - grid.shape[3] / 2
    di = grid[0] - centre[0] - slope[0] * along
    dj = grid[1] - centre[1] - slope[1] * along
    return np.sqrt(di**2 + (dj * rng.uniform(0.8, 1.25)) ** 2) / radius


def artificial_body(shape: tuple[int, int, int], rng: np.random.Generator) -> Array:
    """A limb or trunk that is no head: fat, muscle, shafts of bone, organs, gas; float32 HU.

    Args:
        shape: patch in voxels of about 4 x 4 x 2.5 mm.
        rng: decides everything.
    """
    grid = _coordinates(shape)
    middle = np.array(shape) / 2 + rng.normal(0, 4, 3)
    trunk = rng.random() < 0.6
    radii = np.array([rng.uniform(28, 50), rng.uniform(20, 32), 1e4] if trunk else [rng.uniform(12, 24)] * 2 + [1e4])
    fat = rng.uniform(1, 8)
    hu = np.full(shape, -1000, np.float32)
    hu[_inside(grid, middle, radii, 2.4)] = rng.normal(-100, 10)
    hu[_inside(grid, middle, np.maximum(radii - fat, 4), 2.4)] = rng.normal(50, 15)
    for _ in range(rng.integers(4, 16) if trunk else rng.integers(0, 4)):
        at = middle + rng.uniform(-0.7, 0.7, 3) * np.minimum(radii, shape)
        size = rng.uniform(2, 16, 3)
        hu[_inside(grid, at, size)] = rng.choice([-900, -80, 10, 40, 60, 110, 180, 250]) + rng.normal(0, 15)
    for _ in range(rng.integers(1, 4)):
        _add_bone(hu, grid, rng, middle + rng.uniform(-0.6, 0.6, 3) * np.minimum(radii, shape))
    return hu + rng.normal(0, rng.uniform(3, 20), shape).astype(np.float32)


def _add_bone(hu: Array, grid: Array, rng: np.random.Generator, centre: Array) -> None:
    radius = rng.uniform(2, 6)
    if rng.random() < 0.5:
        away = _tube(grid, rng, centre, radius)
    else:
        away = np.sqrt((((grid - centre.reshape(3, 1, 1, 1)) / rng.uniform(2, 9, 3).reshape(3, 1, 1, 1)) ** 2).sum(0))
    hu[away <= 1] = rng.uniform(500, 1400)
    hu[away <= rng.uniform(0.5, 0.85)] = rng.uniform(-60, 350)


def add_couch(hu: Array, rng: np.random.Generator) -> Array:
    """Put a table, a head rest or a mask shell into the air around the patient; a copy.

    Args:
        hu: patch in RAS order; j grows to anterior, so the couch lies at low j.
    """
    body = np.stack([ndimage.binary_fill_holes(plane > -400) for plane in np.moveaxis(hu, 2, 0)], axis=2)
    grid = _coordinates(hu.shape)
    rows = np.flatnonzero(body.any(axis=(0, 2)))
    back = rows[0] if len(rows) else hu.shape[1] // 3
    bend = rng.uniform(-0.004, 0.012)
    middle = hu.shape[0] / 2 + rng.normal(0, 5)
    top = back - rng.uniform(-3, 8) + bend * (grid[0] - middle) ** 2
    depth = top - grid[1]
    skin, thick = rng.uniform(0.5, 1.5), rng.uniform(3, 12)
    shell = ((depth >= 0) & (depth < skin)) | ((depth > thick) & (depth < thick + skin))
    foam = (depth >= skin) & (depth <= thick)
    wide = np.abs(grid[0] - middle) < rng.uniform(20, 60)
    out = hu.copy()
    out[foam & wide & ~body] = rng.uniform(-1000, -700)
    out[shell & wide & ~body] = rng.uniform(-600, 400)
    return out
