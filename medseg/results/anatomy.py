"""Is what was found where it can be? The check that keeps organs out of legs.

A network that has only seen heads and necks sees mandibles in femurs. Organs are accepted
only in constellations that the training references allow: each pair of compact organs
must lie apart as in the references. What is accepted tells where the model's field lies in
the scan, so that the result can say what lies outside it. A constellation check is a plain
form of a point distribution model (Cootes et al., 1995), with pairwise offsets.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import ndimage

from medseg.imaging.volume import Array, Finding, Geometry, Volume
from medseg.labels import LabelTable
from medseg.models.card import Anatomy, Offset
from medseg.preprocess.restore import LabelMap

NUM_SDS = 4.0
SLACK_MM = 20.0  # bent necks and children move further than the references' spread
MIN_SHARE = 0.25  # of the smallest reference volume: less is a fragment
SURE = 0.7  # mean probability that each of two organs needs to be believed


@dataclass(frozen=True)
class Candidate:
    """A compact organ that may be one; a `fragment` is too small for that, but cut off by the end of the scan."""

    name: str
    centre_mm: Array
    volume_ml: float
    confidence: float
    mean_hu: float
    fragment: bool = False


def check_anatomy(
    label_map: LabelMap, volume: Volume, labels: LabelTable, anatomy: Anatomy
) -> tuple[LabelMap, list[Finding]]:
    """Drop organs that cannot be there and say what lies outside the model's field."""
    candidates = find_candidates(label_map, volume, labels, anatomy)
    whole = [candidate for candidate in candidates if not candidate.fragment]
    accepted = choose_constellation(whole, anatomy, label_map.geometry)
    if not accepted:
        return _nothing(label_map, anatomy)
    low, high = field_limits(accepted, anatomy)
    accepted += _fragments_in_place(candidates, accepted, anatomy)
    mask, confidence = label_map.labels.copy(), label_map.confidence.copy()
    names = {candidate.name for candidate in accepted}
    dropped = [label for label in labels if label.name in anatomy.field and label.name not in names]
    remove = np.isin(mask, [label.value for label in dropped])
    for i, plane in enumerate(mask):  # plane by plane: the heights of an oblique scan are a volume in double precision
        heights = height_of_plane(label_map.geometry, i)
        remove[i] |= (plane > 0) & ((heights < low) | (heights > high))
    mask[remove] = 0
    confidence[remove] = 0
    findings = _outside(label_map.geometry, low, high, anatomy)
    findings += _missing(mask, labels, accepted, anatomy, label_map.geometry)
    return LabelMap(mask, confidence, label_map.geometry), findings


def find_candidates(label_map: LabelMap, volume: Volume, labels: LabelTable, anatomy: Anatomy) -> list[Candidate]:
    """The landmark organs in the mask that are no mere fragments, unless the end of the scan explains it."""
    boxes = ndimage.find_objects(label_map.labels, max_label=max(labels.names.values()))
    found = []
    for label in labels:
        box = boxes[label.value - 1]
        if box is None or label.name not in anatomy.field:
            continue
        inside = label_map.labels[box] == label.value
        index = np.argwhere(inside).mean(axis=0) + [side.start for side in box]
        volume_ml = float(inside.sum()) * label_map.geometry.voxel_ml
        fragment = volume_ml < MIN_SHARE * anatomy.organs[label.name].volume_ml[0]
        if fragment and not _ends_with_scan(box, label_map.geometry):
            continue
        place = (label_map.geometry.affine @ [*index, 1])[:3]
        sure = float(label_map.confidence[box][inside].mean()) / 255
        found.append(Candidate(label.name, place, volume_ml, sure, float(volume.hu[box][inside].mean()), fragment))
    return found


def _ends_with_scan(box: tuple[slice, ...], geometry: Geometry) -> bool:
    """Whether an organ reaches the first or last slice, along the axis nearest to superior."""
    axis = int(np.argsort(geometry.to_canonical[:, 0])[2])
    return box[axis].start == 0 or box[axis].stop == geometry.shape[axis]


def _fragments_in_place(candidates: list[Candidate], accepted: list[Candidate], anatomy: Anatomy) -> list[Candidate]:
    """What is left of organs at the end of the scan, where whole organs agree that it can be there."""
    offsets = {(offset.start, offset.end): offset for offset in anatomy.offsets}
    fragments = [candidate for candidate in candidates if candidate.fragment]
    return [one for one in fragments if all(_agree(one, other, offsets) for other in accepted)]


def choose_constellation(candidates: list[Candidate], anatomy: Anatomy, geometry: Geometry) -> list[Candidate]:
    """The largest set of candidates that all agree pairwise.

    Two alone have to be sure, and fewer than two others may be missing where the scan would
    show them; one alone is never believed: gas and wall of a bowel make a larynx.
    """
    offsets = {(offset.start, offset.end): offset for offset in anatomy.offsets}
    for size in range(len(candidates), 1, -1):
        agreeing = [
            group
            for group in combinations(candidates, size)
            if all(_agree(a, b, offsets) for a, b in combinations(group, 2))
        ]
        if agreeing:
            best = max(agreeing, key=lambda group: sum(c.confidence * c.volume_ml for c in group))
            return list(best) if size > 2 or _two_suffice(list(best), anatomy, geometry) else []
    return []


def _two_suffice(pair: list[Candidate], anatomy: Anatomy, geometry: Geometry) -> bool:
    others = set(anatomy.field) - {candidate.name for candidate in pair}
    places = (expected_place(name, pair, anatomy) for name in others)
    missing = sum(place is not None and _inside(place, geometry, SLACK_MM) for place in places)
    return missing < len(pair) and all(_plausible(candidate, anatomy) for candidate in pair)


def _agree(a: Candidate, b: Candidate, offsets: dict[tuple[str, str], Offset]) -> bool:
    offset = offsets.get((a.name, b.name))
    way = b.centre_mm - a.centre_mm
    if offset is None:
        offset, way = offsets.get((b.name, a.name)), -way
    if offset is None:
        return False
    allowed = np.maximum(NUM_SDS * np.array(offset.sd_mm), SLACK_MM)
    return bool((np.abs(way - np.array(offset.mean_mm)) <= allowed).all())


def _plausible(candidate: Candidate, anatomy: Anatomy) -> bool:
    known = anatomy.organs[candidate.name]
    low, _, high = known.volume_ml
    coldest, middle, hottest = known.mean_hu
    spread = max(50.0, hottest - coldest)
    right_size = MIN_SHARE * low <= candidate.volume_ml <= 1.5 * high
    return right_size and abs(candidate.mean_hu - middle) <= spread and candidate.confidence >= SURE


def field_limits(accepted: list[Candidate], anatomy: Anatomy) -> tuple[float, float]:
    """Lowest and highest RAS z, mm, that the model's field reaches in this scan."""
    lows = [float(c.centre_mm[2]) - anatomy.field[c.name].below_mm for c in accepted]
    highs = [float(c.centre_mm[2]) + anatomy.field[c.name].above_mm for c in accepted]
    return float(np.median(lows)), float(np.median(highs))


def height_of_plane(geometry: Geometry, i: int) -> Array:
    """[j, k] RAS z, mm, of the voxels of plane `i`."""
    row, (_, num_j, num_k) = geometry.affine[2], geometry.shape
    heights: Array = row[3] + row[0] * i + row[1] * np.arange(num_j)[:, None] + row[2] * np.arange(num_k)
    return heights


def _nothing(label_map: LabelMap, anatomy: Anatomy) -> tuple[LabelMap, list[Finding]]:
    empty = LabelMap(np.zeros_like(label_map.labels), np.zeros_like(label_map.confidence), label_map.geometry)
    text = (
        f"The whole scan lies outside the model's field ({anatomy.upper_end} to {anatomy.lower_end}): none of its "
        "organs was recognised where it can be, and nothing was segmented."
    )
    return empty, [Finding("outside_field", text)]


def _outside(geometry: Geometry, low: float, high: float, anatomy: Anatomy) -> list[Finding]:
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in geometry.shape])).reshape(3, -1)
    heights = geometry.affine[2, :3] @ corners + geometry.affine[2, 3]
    below, above = f"below the {anatomy.lower_end}", f"above the {anatomy.upper_end}"
    findings = []
    for side, where, beyond in (("lowest", below, low - heights.min()), ("highest", above, heights.max() - high)):
        if beyond > 10:
            text = (
                f"The {side} {beyond:.0f} mm of the scan lie {where}, outside the model's field; "
                "nothing is segmented there."
            )
            findings.append(Finding("partly_outside_field", text, "info"))
    return findings


def _missing(
    mask: Array, labels: LabelTable, accepted: list[Candidate], anatomy: Anatomy, geometry: Geometry
) -> list[Finding]:
    findings = []
    for label in labels:
        if (mask == label.value).any():
            continue
        place = expected_place(label.name, accepted, anatomy)
        inside = place is not None and _inside(place, geometry)
        if place is None:
            text = f"{label.title}: not found."
        elif inside:
            text = f"{label.title}: not found, although its usual place lies inside the scan. Check the images."
        else:
            text = f"{label.title}: not found; its usual place lies outside the scan."
        findings.append(Finding("organ_not_found", text, "warning" if inside else "info"))
    return findings


def expected_place(name: str, accepted: list[Candidate], anatomy: Anatomy) -> Array | None:
    """Where the accepted organs say that organ `name` should lie, RAS mm."""
    votes = []
    for candidate in accepted:
        for offset in anatomy.offsets:
            if (offset.start, offset.end) == (candidate.name, name):
                votes.append(candidate.centre_mm + offset.mean_mm)
            elif (offset.end, offset.start) == (candidate.name, name):
                votes.append(candidate.centre_mm - offset.mean_mm)
    return np.mean(votes, axis=0) if votes else None


def _inside(point_mm: Array, geometry: Geometry, margin_mm: float = 0.0) -> bool:
    index = (np.linalg.inv(geometry.affine) @ [*point_mm, 1])[:3]
    margin = margin_mm / np.array(geometry.spacing_mm)
    return bool(((index >= margin) & (index <= np.array(geometry.shape) - 1 - margin)).all())
