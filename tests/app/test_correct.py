"""A corrected result says what is true of the corrected mask."""

from __future__ import annotations

import numpy as np
import pytest

from app.work.correct import corrected
from medseg.imaging.volume import Finding
from medseg.results.measure import measure
from medseg.results.segmentation import Segmentation
from medseg.results.verdict import verdict_of, why_empty
from tests.results.test_anatomy import LABELS, check, grid, plant

SEEN = (slice(2, 5), slice(2, 5), slice(2, 5))


def found(*names: str) -> Segmentation:
    """What a model says of a scan that shows these organs."""
    planted = plant(grid(), names)
    label_map, findings = check(planted)
    mask = label_map.labels
    said = (*findings, *why_empty(mask, LABELS, tuple(findings)))
    rows = measure(label_map, planted[1], LABELS)
    return Segmentation(mask, LABELS, planted[1], rows, said, {"verdict": verdict_of(mask)})


def drawn(before: Segmentation, *names: str) -> Segmentation:
    mask = before.mask.copy()
    for shift, name in enumerate(names):
        mask[SEEN[0], SEEN[1], 2 + 4 * shift : 5 + 4 * shift] = LABELS[name].value
    return corrected(before, mask, 2, list(names))


def missing(result: Segmentation) -> list[str]:
    return [f.message.partition(":")[0] for f in result.findings if f.code == "organ_not_found"]


def test_an_organ_that_was_drawn_is_no_longer_said_to_be_missing() -> None:
    before = found("larynx", "mandible")
    assert missing(before) == ["Brainstem", "Spinal cord"]
    after = drawn(before, "brainstem")
    assert missing(after) == ["Spinal cord"]
    others = [finding for finding in before.findings if finding.code != "organ_not_found"]
    assert [finding for finding in after.findings if finding.code != "organ_not_found"] == others
    assert after.run["verdict"] == "segmented"


@pytest.mark.parametrize("reason", ["outside_field", "empty"])
def test_drawing_into_an_empty_result_takes_its_verdict_back(reason: str) -> None:
    other = Finding("bed", "A bed.", "info")
    nothing = found("larynx")  # one organ alone is not believed
    assert (nothing.run["verdict"], nothing.mask.any()) == ("empty", False)
    before = Segmentation(
        nothing.mask, LABELS, nothing.volume, nothing.measurements, (Finding(reason, "Nothing."), other), nothing.run
    )
    after = drawn(before, "larynx", "mandible")
    assert (after.run["verdict"], after.findings) == ("segmented", (other,))


def test_a_result_that_was_wiped_out_says_that_it_is_empty() -> None:
    before = found("brainstem", "larynx", "mandible", "spinal_cord")
    after = corrected(before, np.zeros_like(before.mask), 2, list(LABELS.names))
    assert after.run["verdict"] == "empty"
    assert [finding.code for finding in after.findings if finding not in before.findings] == ["empty"]
    again = drawn(after, "larynx")
    assert (again.run["verdict"], again.findings) == ("segmented", before.findings)
