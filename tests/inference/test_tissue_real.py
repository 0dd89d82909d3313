"""tissue-hu on real scans: amounts that anatomy allows, and nothing of the couch or the air around."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

import medseg
from medseg.imaging.volume import reorient

pytestmark = [pytest.mark.slow, pytest.mark.real]

# Of the body's volume: bone and fat that an adult abdomen or thigh can have.
SHARES = {"crlm_ct_1004.zip": ((0.02, 0.12), (0.05, 0.60)), "sts_001.zip": ((0.02, 0.20), (0.10, 0.70))}


@pytest.mark.parametrize("name", SHARES)
def test_body_bone_and_fat_are_what_anatomy_allows(real_data: Path, name: str) -> None:
    result = medseg.segment(real_data / "dicom" / name, model="tissue-hu")
    volumes = {row.organ: row.volume_ml for row in result.measurements}
    body_ml = sum(volumes.values())
    for organ, (low, high) in zip(("bone", "fat"), SHARES[name], strict=True):
        assert low <= volumes[organ] / body_ml <= high, (organ, volumes)
    body = reorient(result.mask, result.volume.geometry.to_canonical) > 0
    hu = reorient(result.volume.hu, result.volume.geometry.to_canonical)
    assert np.mean(hu[~body] < -300) > 0.95  # what is left out is air and couch
    parts, _ = ndimage.label(body)
    sizes = np.sort(np.bincount(parts.ravel())[1:])
    assert sizes[-2:].sum() > 0.995 * sizes.sum()  # one trunk or two legs, and crumbs of a blanket
    assert [finding.code for finding in result.findings if finding.severity == "warning"] == []
