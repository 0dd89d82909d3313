""".seg.nrrd: voxels and place by SimpleITK, names and colours as Slicer looks for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from medseg.exports.seg_nrrd import write_seg_nrrd
from medseg.labels import Label, LabelTable
from tests.exports.conftest import Scanned


def test_simpleitk_reads_the_mask_where_it_lies(scan: Scanned, tmp_path: Path) -> None:
    image = sitk.ReadImage(write_seg_nrrd(tmp_path / "mask.seg.nrrd", scan.result))
    assert (scan.result.mask == sitk.GetArrayFromImage(image).T).all()
    for index in [(0, 0, 0), (5, 9, 3), tuple(n - 1 for n in scan.result.mask.shape)]:
        place = np.array(image.TransformIndexToPhysicalPoint([int(n) for n in index])) * [-1, -1, 1]
        assert np.allclose(place, (scan.result.volume.affine @ [*index, 1])[:3], atol=1e-3)


def test_slicer_finds_names_values_colours_and_codes(scanned: Callable[[str], Scanned], tmp_path: Path) -> None:
    scan = scanned("axial")
    image = sitk.ReadImage(write_seg_nrrd(tmp_path / "mask.seg.nrrd", scan.result))
    said = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}
    assert said["Segment0_Name"] == "Parotid gland, left"
    assert said["Segment0_LabelValue"] == "1"
    assert said["Segment0_Color"] == f"0.000000 {158 / 255:.6f} {115 / 255:.6f}"
    assert "~SCT^45289007^Parotid gland~SCT^7771000^Left~" in said["Segment0_Tags"]
    box = np.nonzero(scan.mask("parotid_gland_left"))
    assert said["Segment0_Extent"] == " ".join(f"{side.min()} {side.max()}" for side in box)
    assert said["Segment3_Name"] == "Larynx"  # in the table, not in the scan
    assert said["Segment3_Extent"] == "0 -1 0 -1 0 -1"
    assert said["Segmentation_MasterRepresentation"] == "Binary labelmap"


def test_signs_that_part_slicer_s_fields_are_taken_out(scanned: Callable[[str], Scanned], tmp_path: Path) -> None:
    scan = scanned("axial")
    odd = LabelTable([Label("a~b|c^d\nSegment9_Name:=evil", 1)])
    image = sitk.ReadImage(write_seg_nrrd(tmp_path / "a.seg.nrrd", replace(scan.result, labels=odd)))
    assert image.GetMetaData("Segment0_Name") == "A b c d segment9 name:=evil"
    assert not image.HasMetaDataKey("Segment9_Name")
