"""tissue-hu: body, lungs, bone and fat by Hounsfield units and morphology. Nothing learned.

Thresholds are the field's: fat -190 ... -30 HU (Kvist et al., 1988), lungs below -400 HU
(Hu et al., IEEE TMI 2001), bone from 200 HU grown from seeds above 350 HU, so that contrast
in vessels and kidneys, which holds no such seeds, is not called bone.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from medseg.imaging.volume import Array, Finding, Geometry, Volume, reorient, restore_orientation
from medseg.labels import LabelTable
from medseg.preprocess.prepare import AIR_HU
from medseg.preprocess.resample import grid_like, resample
from medseg.preprocess.restore import LabelMap
from medseg.runtime.progress import Progress, ProgressCallback, ignore

COARSE_MM = (3.0, 3.0, 3.0)
BODY_HU, LUNG_HU, GAS_HU = -300.0, -400.0, -940.0
FAT_HU = (-190.0, -30.0)
BONE_HU, BONE_SEED_HU = 200.0, 350.0
MIN_LUNG_ML, SURELY_LUNG_ML, MIN_BONE_ML = 40.0, 500.0, 0.5
MAX_MARROW_MM2 = 1000.0
SMOOTH_MM = 0.7
_COUCH_STEPS = 2  # 3 mm voxels: plates and shells thinner than some 12 mm come off
_CROSS_2D = ndimage.generate_binary_structure(2, 1)[..., None]


def segment_tissue(
    volume: Volume, labels: LabelTable, progress: ProgressCallback = ignore
) -> tuple[LabelMap, list[Finding]]:
    """Label a volume with tissues; every voxel has at most one label.

    Body and lungs are found on a 3 mm grid, bone and fat on the scan's own voxels.
    """
    source = volume.geometry.canonical()
    hu = np.maximum(reorient(volume.hu, volume.geometry.to_canonical), AIR_HU)
    progress(Progress("segment", 0.15, "Finding the body"))
    grid = grid_like(source, COARSE_MM)
    coarse = resample(hu, source, grid)
    coarse_body = find_body(coarse)
    body = _sharpen(coarse_body, hu, grid, source)
    progress(Progress("segment", 0.35, "Finding the lungs"))
    lungs = (resample(find_lungs(coarse, coarse_body, grid.voxel_ml), grid, source) > 0.5) & body
    progress(Progress("segment", 0.5, "Finding bone"))
    hu = ndimage.gaussian_filter(hu, [SMOOTH_MM / step for step in source.spacing_mm], truncate=2.0)
    area_mm2 = source.spacing_mm[0] * source.spacing_mm[1]
    bone = find_bone(hu, body & ~lungs, source.voxel_ml, area_mm2)
    progress(Progress("segment", 0.75, "Finding fat"))
    mask = body.astype(np.uint8) * np.uint8(labels["body"].value)
    mask[find_fat(hu, body)] = labels["fat"].value
    mask[lungs] = labels["lungs"].value
    mask[bone] = labels["bone"].value
    mask = np.ascontiguousarray(restore_orientation(mask, volume.geometry.to_canonical))
    return LabelMap(mask, np.zeros_like(mask), volume.geometry), _describe(mask, volume.geometry.voxel_ml)


def find_body(hu: Array) -> Array:
    """The patient without couch, mask shell and blanket, holes filled; bool.

    Args:
        hu: on the 3 mm grid, RAS order.
    """
    tissue = hu > BODY_HU
    # Slices repeat beyond both ends: a patient goes on where the scan stops.
    solid = ndimage.binary_opening(np.pad(tissue, 3, mode="edge"), iterations=_COUCH_STEPS)[3:-3, 3:-3, 3:-3]
    parts, count = ndimage.label(solid)
    if not count:
        return np.zeros(hu.shape, dtype=bool)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    kept = (sizes >= 0.1 * sizes.max())[parts]  # two legs are two parts
    kept = ndimage.binary_dilation(kept, iterations=_COUCH_STEPS, mask=tissue)
    for k in range(kept.shape[2]):
        kept[:, :, k] = ndimage.binary_fill_holes(kept[:, :, k])
    return np.asarray(kept)


def _sharpen(coarse: Array, hu: Array, grid: Geometry, source: Geometry) -> Array:
    """The body's skin on the scan's own voxels: inside for certain, or tissue within one coarse voxel."""
    core = resample(ndimage.binary_erosion(coarse, iterations=2, border_value=1), grid, source) > 0.5
    reach = resample(ndimage.binary_dilation(coarse), grid, source) > 0.5
    return np.asarray(core | (reach & (hu > BODY_HU)))


def find_lungs(hu: Array, body: Array, voxel_ml: float) -> Array:
    """Large parts of the body that hold air and tissue; gas alone (bowel, airway) is no lung; bool."""
    parts, count = ndimage.label((hu < LUNG_HU) & body)
    lungs = np.zeros(hu.shape, dtype=bool)
    sizes_ml = np.bincount(parts.ravel(), minlength=count + 1) * voxel_ml
    for number in np.flatnonzero(sizes_ml[1:] >= MIN_LUNG_ML) + 1:  # bubbles come by the thousand
        part = parts == number
        # Gas is near -1000 HU at its core; lung holds blood, save in emphysema, which is large.
        if sizes_ml[number] >= SURELY_LUNG_ML or np.percentile(hu[part], 10) > GAS_HU:
            lungs |= part
    return np.asarray(ndimage.binary_closing(np.pad(lungs, 3), iterations=2)[3:-3, 3:-3, 3:-3] & body)


def find_bone(hu: Array, body: Array, voxel_ml: float, pixel_mm2: float) -> Array:
    """Bone with its marrow; bool on the scan's own grid."""
    dense = (hu > BONE_HU) & body
    parts, count = ndimage.label(dense)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    seeds = np.bincount(parts[hu > BONE_SEED_HU], minlength=count + 1)
    keep = (sizes * voxel_ml >= MIN_BONE_ML) & (seeds > 0.05 * sizes)
    keep[0] = False
    bone = keep[parts]
    for k in range(bone.shape[2]):
        bone[:, :, k] |= _marrow(bone[:, :, k], hu[:, :, k], pixel_mm2)
    return np.asarray(bone)


def _marrow(bone: Array, hu: Array, pixel_mm2: float) -> Array:
    """Holes of a slice's bone that hold marrow: fatty or trabecular, not brain, cord or airway."""
    holes, count = ndimage.label(ndimage.binary_fill_holes(bone) & ~bone)
    if not count:
        return np.zeros_like(bone)
    index = np.arange(count + 1)
    mean = ndimage.mean(hu, holes, index)
    area = np.bincount(holes.ravel(), minlength=count + 1) * pixel_mm2
    marrow = (area <= MAX_MARROW_MM2) & (mean > -200) & ((mean < -10) | (mean > 80) | (area < 20))
    marrow[0] = False
    return np.asarray(marrow[holes])


def find_fat(hu: Array, body: Array) -> Array:
    """Fat, without the blurred rims of skin, lungs and gas, which only look like it; bool."""
    rim = ndimage.binary_dilation(hu < LUNG_HU, _CROSS_2D)
    return np.asarray(body & (hu >= FAT_HU[0]) & (hu <= FAT_HU[1]) & ~rim)


def _describe(mask: Array, voxel_ml: float) -> list[Finding]:
    total = np.count_nonzero(mask) * voxel_ml
    if total == 0:
        return [Finding("empty", "No body was found in this scan; nothing was segmented.")]
    text = (
        f"Thresholds and morphology, no trained model. The whole body in the scan measures {total:.0f} ml; "
        "'body' counts what is left of it outside lungs, bone and fat."
    )
    return [Finding("rules_only", text, "info")]
