"""Small islands removed: each organ keeps its largest part and parts nearly as large."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from medseg.imaging.volume import Array
from medseg.labels import LabelTable
from medseg.preprocess.restore import LabelMap

KEEP_SHARE = 0.25  # of the organ's largest part: a cord cut in two by an artefact stays whole
_TOUCHING = np.ones((3, 3, 3), dtype=bool)


def remove_islands(label_map: LabelMap, labels: LabelTable, keep_share: float = KEEP_SHARE) -> LabelMap:
    """A copy without parts smaller than `keep_share` of the organ's largest part."""
    mask, confidence = label_map.labels.copy(), label_map.confidence.copy()
    boxes = ndimage.find_objects(mask, max_label=max(labels.names.values(), default=0))
    for label in labels:
        box = boxes[label.value - 1]
        if box is not None:
            island = _islands(mask[box] == label.value, keep_share)
            mask[box][island] = 0
            confidence[box][island] = 0
    return LabelMap(mask, confidence, label_map.geometry)


def _islands(organ: Array, keep_share: float) -> Array:
    parts, count = ndimage.label(organ, structure=_TOUCHING)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    small = sizes < keep_share * sizes.max()
    small[0] = False
    return small[parts]
