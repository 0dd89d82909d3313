"""Which of the files in a folder are one CT volume? Grouping, setting aside, choosing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from medseg.errors import CorruptFileError, GeometryError, NotCTError, NotVolumeError, SeriesChoiceError
from medseg.imaging.acceptance import NOTHING, Acceptance
from medseg.imaging.dicom_headers import SPLIT_TAGS, SliceHeader
from medseg.imaging.volume import Finding

MIN_PART_SLICES = 4
"""Fewer slices of another shape or direction within a series are a fault, more are a volume of their own."""
UID_TAIL = 10
_ACQUISITION = SPLIT_TAGS.index("AcquisitionNumber")
_NEVER_MIXED = tuple(
    SPLIT_TAGS.index(tag)
    for tag in ("TemporalPositionIdentifier", "NominalPercentageOfCardiacPhase", "ConvolutionKernel", "KVP")
)
"""What changes from slice to slice in no volume; an acquisition may, where odd and even slices were scanned in turn."""


@dataclass(frozen=True)
class Candidate:
    """The slices of one possible volume.

    Attributes:
        slices: in any order.
        set_aside: localizers of the same series.
        left_out: what else the series holds that is part of no volume.
        accepted: a word where the user has accepted another kind than CT.
    """

    slices: tuple[SliceHeader, ...]
    set_aside: tuple[SliceHeader, ...] = ()
    left_out: tuple[SliceHeader, ...] = ()
    accepted: tuple[Finding, ...] = ()

    @property
    def uid(self) -> str:
        return self.slices[0].series

    @property
    def is_volume(self) -> bool:
        if any(s.position is None for s in self.slices):
            return True
        return len({s.position for s in self.slices}) > 1

    def describe(self) -> str:
        """Facts by which to choose; no description text, which may hold names."""
        first = self.slices[0]
        spacing = " x ".join(f"{mm:.2f}" for mm in first.spacing or ()) or "unknown"
        return (
            f"{len(self.slices)} slices of {first.columns} x {first.rows}, pixels {spacing} mm, "
            f"every {_step(self.slices)} mm, UID ...{self.uid[-UID_TAIL:]}"
        )


def choose(source: Path, headers: Sequence[SliceHeader], series: str | None, accept: Acceptance = NOTHING) -> Candidate:
    """The one CT volume among `headers`.

    Args:
        source: what the user gave, for the text.
        headers: of all slices.
        series: the user's choice: a number of the list, or the end of a UID.
        accept: the user's reason to go on with what is no CT.

    Raises:
        NotCTError: no CT image at all.
        NotVolumeError: only localizers or single slices.
        SeriesChoiceError: several volumes, or a choice that is not there.
    """
    images = [h for h in headers if h.is_ct]
    findings: tuple[Finding, ...] = ()
    if not images:
        findings = accept.lift(NotCTError(source, f"holds no CT images but {_what(headers)}."))
        images = [h for h in headers if h.position is not None and h.rows and h.columns]
    candidates = _candidates(images)
    volumes = [c for c in candidates if c.is_volume]
    used = {h for c in volumes for h in (*c.slices, *c.set_aside)}
    if not volumes:
        raise NotVolumeError(source, _no_volume(candidates), advice="Give the folder with the whole series.")
    if series is not None:
        volumes = _matching(source, volumes, series)
    if len(volumes) > 1:
        raise _ask(source, volumes)
    left_out = tuple(h for h in headers if h.series == volumes[0].uid and h not in used)
    return replace(volumes[0], left_out=left_out, accepted=findings)


def _what(headers: Sequence[SliceHeader]) -> str:
    counts = Counter(h.modality if h.modality not in ("CT", "") else "captures or other objects" for h in headers)
    return ", ".join(f"{n} x {kind}" for kind, n in sorted(counts.items()))


def _no_volume(candidates: Sequence[Candidate]) -> str:
    if not candidates:
        return "holds only localizers (scouts)."
    return f"holds {sum(len(c.slices) for c in candidates)} CT image(s), but no two that make a volume: a single slice."


def _candidates(images: Sequence[SliceHeader]) -> list[Candidate]:
    found: list[Candidate] = []
    for uid in sorted({h.series for h in images}, key=lambda u: (_number(images, u), u)):
        own = [h for h in images if h.series == uid]
        slices = [h for h in own if not h.is_localizer]
        if slices:
            aside = tuple(h for h in own if h.is_localizer)
            found += [Candidate(tuple(part), aside) for part in _parts(slices)]
    return found


def _number(images: Sequence[SliceHeader], uid: str) -> int:
    return min(h.series_number for h in images if h.series == uid)


def _parts(slices: list[SliceHeader]) -> list[list[SliceHeader]]:
    """Volumes within one series: by shape and direction, then by phase where places repeat."""
    clusters: list[list[SliceHeader]] = []
    for header in slices:
        home = next((c for c in clusters if not difference(c[0], header)), None)
        if home is None:
            clusters.append([header])
        else:
            home.append(header)
    if min(map(len, clusters)) < MIN_PART_SLICES:
        clusters = [slices]
    return [part for cluster in clusters for part in _phases(cluster)]


def _phases(slices: list[SliceHeader]) -> list[list[SliceHeader]]:
    tags = range(len(SPLIT_TAGS)) if _repeats(slices) else [t for t in _NEVER_MIXED if _alternates(slices, t)]
    for tag in tags:
        keys = sorted({h.splits[tag] for h in slices})
        parts = [[h for h in slices if h.splits[tag] == key] for key in keys]
        if len(parts) > 1 and not any(_repeats(part) or len(part) < 2 for part in parts):
            return parts
    return [slices]


def _repeats(slices: Sequence[SliceHeader]) -> bool:
    places = [tuple(round(mm, 2) for mm in h.position) for h in slices if h.position is not None]
    return len(set(places)) < len(places)


def _alternates(slices: Sequence[SliceHeader], tag: int) -> bool:
    """Whether an attribute goes back and forth among few values from slice to slice.

    In blocks, or with a value of its own for each slice, it counts the rotations of a scanner that steps.
    """
    places = [h.position for h in slices if h.position is not None]
    if len(places) < len(slices):
        return False
    order = np.array(places)[:, np.ptp(places, axis=0).argmax()].argsort()
    values = [slices[k].splits[tag] for k in order]
    changes = sum(one != other for one, other in pairwise(values))
    return 2 * changes > len(values) >= 2 * len(set(values))


def difference(first: SliceHeader, other: SliceHeader) -> str:
    """In what `other` does not fit `first` into one volume; empty when it fits."""
    if (first.columns, first.rows) != (other.columns, other.rows):
        return f"has {other.columns} x {other.rows} pixels, others {first.columns} x {first.rows}"
    if _far(first.orientation, other.orientation, 1e-3):
        return "lies in another direction than the others"
    if _far(first.spacing, other.spacing, 1e-3):
        return "has another pixel spacing than the others"
    return ""


def _far(a: tuple[float, ...] | None, b: tuple[float, ...] | None, tolerance: float) -> bool:
    if a is None or b is None:
        return a is not b
    return bool(np.abs(np.subtract(a, b)).max() > tolerance)


def _matching(source: Path, volumes: list[Candidate], series: str) -> list[Candidate]:
    wanted = series.strip()
    if wanted.isdecimal() and 1 <= int(wanted) <= len(volumes):
        return [volumes[int(wanted) - 1]]
    found = [c for c in volumes if c.uid == wanted] or [c for c in volumes if wanted and c.uid.endswith(wanted)]
    if not found:
        reason = f"has no series {wanted[:70]!r}; there are: {'; '.join(_listed(volumes))}."
        raise SeriesChoiceError(source, _listed(volumes), reason)
    if len(found) > 1:
        raise _ask(source, volumes)
    return found


def _ask(source: Path, volumes: Sequence[Candidate]) -> SeriesChoiceError:
    lines = _listed(volumes)
    patients = len({h.patient for c in volumes for h in c.slices if h.patient})
    of = f" of {patients} different patients" if patients > 1 else ""
    return SeriesChoiceError(source, lines, f"holds {len(lines)} CT series{of}: {'; '.join(lines)}.")


def _listed(volumes: Sequence[Candidate]) -> list[str]:
    return [f"{number}: {c.describe()}" for number, c in enumerate(volumes, 1)]


def _step(slices: Sequence[SliceHeader]) -> str:
    places = [h.position for h in slices if h.position is not None]
    if len(places) < 2:
        return "?"
    spread = np.ptp(np.array(places), axis=0)
    return f"{np.linalg.norm(spread) / (len(places) - 1):.2f}"


def check_uniform(source: Path, candidate: Candidate) -> None:
    """Refuse slices that cannot make one volume, naming the file that does not fit.

    Raises:
        NotVolumeError: a multi-frame file that does not say where its frames lie.
        CorruptFileError: slices of several patients or studies under one series UID, or one that is called no CT.
        GeometryError: place, direction or spacing missing, or not the same in all slices.
    """
    slices = candidate.slices
    if loose := next((s for s in slices if s.frames > 1 and not s.is_enhanced), None):
        reason = f"{loose.file.label} is multi-frame without a place for each of its {loose.frames} frames."
        raise NotVolumeError(source, reason, advice="Export it as single-frame or enhanced CT images.")
    for what, values in (("patients", {s.patient for s in slices}), ("studies", {s.study for s in slices})):
        if len(values - {""}) > 1:
            raise CorruptFileError(source, f"slices of {len(values)} {what} are mixed under one series UID.")
    for header in candidate.left_out:
        _check_left_out(source, header, slices[0])
    for header in slices:
        _check_geometry(source, header)
    common = max(slices, key=lambda h: sum(not difference(h, other) for other in slices[:32]))
    for header in slices:
        if why := difference(common, header):
            raise GeometryError(source, f"{header.label} {why}.")


def _check_left_out(source: Path, header: SliceHeader, of_volume: SliceHeader) -> None:
    """One damaged word makes a slice something else, and the volume shorter: by place and size it is still a slice."""
    if header.is_ct or header.is_localizer or header.position is None:
        return
    if (header.columns, header.rows) == (of_volume.columns, of_volume.rows):
        reason = f"{header.label} is a slice of the series by its place and size, but no CT by Modality or SOPClassUID."
        advice = "Export the series again; what is no part of it has to lie in another folder."
        raise CorruptFileError(source, reason, advice=advice)


def _check_geometry(source: Path, header: SliceHeader) -> None:
    label = header.label
    if header.columns < 2 or header.rows < 2:
        raise CorruptFileError(source, f"{label} has no image size (Rows, Columns).")
    if header.position is None:
        raise GeometryError(source, f"{label} has no place (ImagePositionPatient).")
    if header.orientation is None:
        raise GeometryError(source, f"{label} has no direction (ImageOrientationPatient).")
    if header.spacing is None or min(header.spacing) <= 0:
        raise GeometryError(source, f"{label} has no valid pixel spacing (PixelSpacing).")
    axes = np.array(header.orientation).reshape(2, 3)
    if np.abs(axes @ axes.T - np.eye(2)).max() > 1e-3:
        raise GeometryError(source, f"{label}: its ImageOrientationPatient is no pair of right-angled axes.")


_PROJECTIONS = {"MIP", "MINIP", "MAXIMUM", "MINIMUM", "PROJECTION IMAGE", "VOLUME RENDERING", "CURVED"}
_COMPUTED = {
    "SUBTRACTION", "MULTIPLICATION", "DIVISION", "STD_DEVIATION", "QUANTITY", "IODINE", "ELECTRON_DENSITY",
    "EFF_ATOMIC_NUM", "MAT_SPECIFIC", "MAT_REMOVED", "MAT_FRACTIONAL", "MAT_VALUE_BASED",
}  # fmt: skip
"""Words of ImageType for maps that are no longer attenuation, two-energy scans' above all."""


def series_findings(candidate: Candidate) -> tuple[Finding, ...]:
    """What the headers of the chosen series say that a reader should know."""
    found = []
    if candidate.set_aside:
        text = f"{len(candidate.set_aside)} localizer image(s) within the series were set aside."
        found.append(Finding("localizer", text, "info"))
    if candidate.left_out:
        text = f"Of the series, {_what(candidate.left_out)} became no part of the volume."
        found.append(Finding("left_out", text))
    if _alternates(candidate.slices, _ACQUISITION):
        text = "AcquisitionNumber goes back and forth from slice to slice: acquisitions may be mixed in this volume."
        found.append(Finding("interleaved", text))
    words = {part for s in candidate.slices for part in s.image_type}
    if kinds := sorted(words & _PROJECTIONS):
        text = f"The series is a projection or rendering ({', '.join(kinds)}): sizes and densities are not those of CT."
        found.append(Finding("derived", text))
    if kinds := sorted(words & _COMPUTED):
        text = f"The series is computed from others ({', '.join(kinds)}): its values may be no Hounsfield units."
        found.append(Finding("computed", text))
    if (frames := len({s.reference for s in candidate.slices} - {""})) > 1:
        text = (
            f"The slices count their places in {frames} frames of reference: the patient may have moved between them."
        )
        found.append(Finding("frames_of_reference", text))
    if any(s.burned_in for s in candidate.slices):
        text = "The header says that text is burned into the pixels: pictures of this scan may show a name."
        found.append(Finding("burned_in", text))
    return tuple(found)
