"""Which parts of the body a scan shows, by organs that were found and by plain anatomy. Nothing learned.

Head and neck is said where the segmenter's landmarks were accepted (it asks for constellations, decision 5); the
rest by lungs and cross-section. A scan whose field cuts the body on all sides is called a limb where no lung, no
landmark and no trunk's width is seen: a small field on a trunk cannot be told from a thigh that way.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from medseg.inference.tissue import find_lungs
from vlretrieval.profile import SLICE_ML
from vlretrieval.view import STEP_MM, StudyView

# Organs that place a scan, by the names of label tables without their sides.
PLACES = {
    "head_neck": (
        "brainstem",
        "parotid_gland",
        "larynx",
        "mandible",
        "submandibular_gland",
        "thyroid_gland",
        "eye",
        "brain",
    ),
    "thorax": ("heart", "lung_upper_lobe", "lung_lower_lobe"),
    "abdomen": ("liver", "spleen", "kidney", "pancreas", "gallbladder", "urinary_bladder", "prostate", "stomach"),
    "limb": ("femur", "humerus"),
}
LEAST_SHARE = 0.25
_LUNG_SHARE = 0.2  # of a slice's body: a chest; less are apices or bases
_TRUNK_CM2, _TRUNK_MM = 380.0, 240.0


def find_regions(view: StudyView, organs: Iterable[str]) -> tuple[str, ...]:
    """Regions that fill a quarter of the scan at least, the largest first; empty where no body is.

    Args:
        view: the scan.
        organs: that were found in it.
    """
    body = view.body
    area = body.sum(axis=(0, 1)).astype(float)
    if not area.any():
        return ()
    lungs = find_lungs(view.hu.astype(np.float32), body, SLICE_ML).sum(axis=(0, 1)) / np.maximum(1, area)
    shares = {"thorax": float((lungs > _LUNG_SHARE).mean())}
    rest = 1 - shares["thorax"]
    shares[_by_organs(organs) or _by_shape(view)] = rest
    ranked = sorted(shares, key=lambda region: -shares[region])
    return tuple(region for region in ranked if shares[region] >= LEAST_SHARE)


def _by_organs(organs: Iterable[str]) -> str:
    """The region of which most landmarks were found, two at least; one will do outside head and neck."""
    bare = [organ.removesuffix("_right").removesuffix("_left") for organ in organs]
    counts = {region: sum(organ in names for organ in bare) for region, names in PLACES.items()}
    best = max(counts, key=lambda region: counts[region])
    return best if counts[best] >= (2 if best == "head_neck" else 1) else ""


def _by_shape(view: StudyView) -> str:
    """Trunk or limb, by the size of the largest single cross-section."""
    from scipy import ndimage

    middle = np.linspace(0, view.num_slices - 1, min(9, view.num_slices)).astype(int)
    largest, widest = [], []
    for k in middle:
        parts, count = ndimage.label(view.body[:, :, k])
        if count:
            sizes = np.bincount(parts.ravel())[1:]
            across = np.flatnonzero((parts == sizes.argmax() + 1).any(axis=1))
            largest.append(sizes.max() * STEP_MM**2 / 100)
            widest.append((across[-1] - across[0] + 1) * STEP_MM)
    is_trunk = bool(largest) and np.median(largest) >= _TRUNK_CM2 and np.median(widest) >= _TRUNK_MM
    return "abdomen" if is_trunk else "limb"
