"""RT structure sets: contours with holes, in any orientation, as masks on the scan's grid."""

from __future__ import annotations

import math
import shutil
import subprocess
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg.errors import CorruptFileError, DataError, GeometryError, TruncatedFileError, UnknownFormatError
from medseg.imaging import read_volume
from medseg.imaging.rtstruct import fill, read_rtstruct
from medseg.imaging.volume import Array, Geometry, reorient
from tests.dicom_objects import Polygon, write_rtstruct
from tests.phantoms import ORIENTATIONS, edit_dicom, phantom_volume, write_dicom_series

SQUARE = [(4.5, 6.5), (20.5, 6.5), (20.5, 18.5), (4.5, 18.5)]
HOLE = [(9.5, 9.5), (13.5, 9.5), (13.5, 14.5), (9.5, 14.5)]


def oblique(angle_deg: float = 20.0) -> Geometry:
    """A grid turned about two axes, with three spacings."""
    a, b = math.radians(angle_deg), math.radians(-angle_deg / 2)
    about_z = np.array([[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, math.cos(b), -math.sin(b)], [0, math.sin(b), math.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag([-1.1, -0.9, 2.5])
    affine[:3, 3] = (40, 60, -90)
    return Geometry((30, 24, 12), affine)


def square_mask(shape: tuple[int, int, int], slices: list[int]) -> Array:
    mask = np.zeros(shape, bool)
    for k in slices:
        mask[5:21, 7:19, k] = True
        mask[10:14, 10:15, k] = False
    return mask


@pytest.mark.parametrize("orientation", ORIENTATIONS[::5])
def test_contours_with_a_hole_fill_the_voxels_between_them(tmp_path: Path, orientation: str) -> None:
    geometry = phantom_volume((30, 30, 30), (1.2, 0.8, 3.0), orientation=orientation).geometry
    polygons: list[Polygon] = [(k, points) for k in (3, 4, 9) for points in (SQUARE, HOLE)]
    found = read_rtstruct(write_rtstruct(tmp_path / "rs.dcm", geometry, {"organ": polygons}), geometry)
    assert (found["organ"].mask == square_mask(geometry.shape, [3, 4, 9])).all()
    assert found["organ"].colour == (10, 20, 30)
    assert [finding.code for finding in found.findings] == ["sparse_contours"]


def test_contours_of_the_xor_kind_are_closed_as_well(tmp_path: Path) -> None:
    geometry, contours = oblique(), [(5, SQUARE), (5, HOLE)]
    path = write_rtstruct(tmp_path / "rs.dcm", geometry, {"organ": contours}, kind="CLOSEDPLANAR_XOR")
    found = read_rtstruct(path, geometry)
    assert (found["organ"].mask == square_mask(geometry.shape, [5])).all()
    assert found.findings == ()


def test_an_oblique_scan_s_contours_land_in_their_voxels(tmp_path: Path) -> None:
    geometry = oblique()
    path = write_rtstruct(tmp_path / "rs.dcm", geometry, {"organ": [(5, SQUARE), (5, HOLE)]})
    assert (read_rtstruct(path, geometry)["organ"].mask == square_mask(geometry.shape, [5])).all()


def test_a_keyhole_contour_is_a_hole() -> None:
    bridge = [(4.5, 6.5), (20.5, 6.5), (20.5, 18.5), (4.5, 18.5), (4.5, 12), (9.5, 12), (9.5, 14.5), (13.5, 14.5)]
    keyhole = np.array([*bridge, (13.5, 9.5), (9.5, 9.5), (9.5, 12), (4.5, 12)])
    assert (fill([keyhole], (30, 24)) == square_mask((30, 24, 1), [0])[:, :, 0]).all()


def test_a_circle_has_its_area() -> None:
    angle = np.linspace(0, 2 * math.pi, 720, endpoint=False)
    circle = np.stack([100.3 + 60 * np.cos(angle), 90.7 + 60 * np.sin(angle)], axis=1)
    assert fill([circle], (200, 200)).sum() == pytest.approx(math.pi * 60**2, rel=1e-3)


def test_a_polygon_beyond_the_picture_is_cut_at_its_edge() -> None:
    assert fill([np.array([(-5.5, -5.5), (2.5, -5.5), (2.5, 40), (-5.5, 40)])], (10, 6)).sum() == 3 * 6


def test_contours_beyond_the_scan_are_counted(tmp_path: Path) -> None:
    geometry = oblique()
    path = write_rtstruct(tmp_path / "rs.dcm", geometry, {"organ": [(11, SQUARE), (12, SQUARE), (13, SQUARE)]})
    found = read_rtstruct(path, geometry)
    assert [finding.code for finding in found.findings] == ["beyond_scan"]
    assert "2 of 3 contours" in found.findings[0].message
    assert found["organ"].mask[:, :, 11].any()


def test_a_structure_wholly_outside_is_refused(tmp_path: Path) -> None:
    geometry = oblique()
    path = write_rtstruct(tmp_path / "rs.dcm", geometry, {"organ": [(40, SQUARE)]})
    with pytest.raises(GeometryError, match="outside this scan"):
        read_rtstruct(path, geometry)


def test_two_planes_in_one_slice_do_not_cancel_each_other(tmp_path: Path) -> None:
    geometry = oblique()
    path = write_rtstruct(tmp_path / "rs.dcm", geometry, {"organ": [(4.8, SQUARE), (5.2, SQUARE), (6, SQUARE)]})
    found = read_rtstruct(path, geometry)
    assert found["organ"].mask[10, 8, 5]
    assert [finding.code for finding in found.findings] == ["between_slices"]


@pytest.mark.parametrize(
    ("slices", "said"),
    [
        ((1, 4, 7, 10), "organ is contoured on one slice in 3 only"),
        ((0, 1, 4, 7, 10), "organ has no contour on 6 of its 11 slices (gaps of 2, 2, 2)"),
        ((1, 2, 7, 8), "organ has no contour on 4 of its 8 slices (gaps of 4)"),
    ],
)
def test_slices_without_a_contour_between_others_are_said(tmp_path: Path, slices: tuple[int, ...], said: str) -> None:
    geometry = oblique()
    path = write_rtstruct(tmp_path / "rs.dcm", geometry, {"organ": [(k, SQUARE) for k in slices]})
    found = read_rtstruct(path, geometry)
    assert np.flatnonzero(found["organ"].mask.any(axis=(0, 1))).tolist() == list(slices)
    (finding,) = found.findings
    assert said in finding.message


def test_a_contour_that_stands_there_twice_counts_once(tmp_path: Path) -> None:
    geometry = oblique()
    turned = [*SQUARE[2:], *SQUARE[:2]][::-1]  # begun elsewhere and drawn the other way round
    path = write_rtstruct(tmp_path / "rs.dcm", geometry, {"organ": [(5, SQUARE), (5, HOLE), (5, turned), (6, SQUARE)]})
    found = read_rtstruct(path, geometry)
    assert (found["organ"].mask[:, :, 5] == square_mask(geometry.shape, [5])[:, :, 5]).all()
    assert [finding.code for finding in found.findings] == ["repeated_contours"]
    assert "1 contour(s) repeat another" in found.findings[0].message


def test_contours_that_cross_are_said_and_those_within_others_are_not(tmp_path: Path) -> None:
    geometry = oblique()
    aside, apart = ([(i + shift, j + 2) for i, j in HOLE] for shift in (9, 12))
    path = write_rtstruct(tmp_path / "a.dcm", geometry, {"organ": [(5, SQUARE), (5, HOLE), (5, aside), (6, apart)]})
    found = read_rtstruct(path, geometry)
    assert [finding.code for finding in found.findings] == ["crossing_contours"]
    assert "on 1 slice(s); what two share (10 voxels) is left out" in found.findings[0].message
    island = [(11.5, 11.5), (12.5, 11.5), (12.5, 12.5), (11.5, 12.5)]
    nested = [(5, points) for points in (island, HOLE, SQUARE, apart)]
    assert read_rtstruct(write_rtstruct(tmp_path / "b.dcm", geometry, {"organ": nested}), geometry).findings == ()


@pytest.mark.parametrize("same", [True, False])
def test_contours_that_stand_there_twice_are_refused_where_they_differ(tmp_path: Path, same: bool) -> None:
    geometry = oblique()
    path = write_rtstruct(tmp_path / "rs.dcm", geometry, {"organ": [(5, SQUARE)]})
    edit_dicom(path, lambda dataset: setattr(dataset["ROIContourSequence"], "is_undefined_length", True))
    content = path.read_bytes()
    contours = content[content.rindex(b"\x06\x30\x39\x00SQ") :]
    path.write_bytes(content + (contours if same else contours.replace(b"CLOSED_PLANAR", b"OPEN_PLANAR  ")))
    if same:
        assert read_rtstruct(path, geometry)["organ"].mask.any()
        return
    with pytest.raises(CorruptFileError, match=r"rs\.dcm: says two different things: \(3006,0039\) stands there twice"):
        read_rtstruct(path, geometry)


def test_contours_across_the_slices_are_refused(tmp_path: Path) -> None:
    axial = phantom_volume((30, 30, 30), orientation="LPS").geometry
    sagittal = phantom_volume((30, 30, 30), orientation="PSL").geometry
    path = write_rtstruct(tmp_path / "rs.dcm", sagittal, {"organ": [(9, SQUARE)]})
    with pytest.raises(GeometryError, match=r"rs\.dcm: a contour of organ runs across"):
        read_rtstruct(path, axial)


def test_another_series_is_refused_and_an_unknown_one_is_not(tmp_path: Path) -> None:
    geometry = oblique()
    path = write_rtstruct(tmp_path / "rs.dcm", geometry, {"organ": [(5, SQUARE)]}, series="1.2.3")
    assert read_rtstruct(path, geometry, series="1.2.3")["organ"].mask.any()
    assert read_rtstruct(path, geometry)["organ"].mask.any()
    with pytest.raises(GeometryError, match="another series"):
        read_rtstruct(path, geometry, series="1.2.4")


def test_points_and_lines_are_left_out_and_said(tmp_path: Path) -> None:
    geometry = oblique()
    path = write_rtstruct(tmp_path / "rs.dcm", geometry, {"marker": [(5, [(3, 3)])]}, kind="POINT")
    found = read_rtstruct(path, geometry)
    assert not found["marker"].mask.any()
    assert [finding.code for finding in found.findings] == ["no_area"]


def test_a_ct_slice_and_a_text_are_no_structure_sets(tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "ct", phantom_volume((8, 8, 4)))
    with pytest.raises(UnknownFormatError):
        read_rtstruct(next(folder.iterdir()), oblique())
    (tmp_path / "text.dcm").write_text("no structures here")
    with pytest.raises(CorruptFileError):
        read_rtstruct(tmp_path / "text.dcm", oblique())


def test_points_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    geometry = oblique()
    path = write_rtstruct(tmp_path / "rs.dcm", geometry, {"organ": [(5, [])]})
    with pytest.raises(CorruptFileError, match="a contour of organ is no list"):
        read_rtstruct(path, geometry)


def test_overlaps_go_to_the_first_and_are_counted(tmp_path: Path) -> None:
    geometry = oblique()
    whole = [(5, SQUARE)]
    path = write_rtstruct(tmp_path / "rs.dcm", geometry, {"whole": whole, "part": [(5, HOLE)]})
    labels, findings = read_rtstruct(path, geometry).label_map({"part": 2, "whole": 1})
    assert np.bincount(labels.ravel())[1:].tolist() == [16 * 12 - 20, 20]
    assert findings[0].message.startswith("20 voxels")
    with pytest.raises(DataError, match="no structure is called 'kidney'; there are: whole, part"):
        read_rtstruct(path, geometry)["kidney"]


@pytest.mark.real
@pytest.mark.parametrize("case", ["001", "003", "005"])
def test_real_structures_are_those_that_plastimatch_finds(real_data: Path, tmp_path: Path, case: str) -> None:
    zipfile.ZipFile(real_data / "dicom" / f"sts_{case}.zip").extractall(tmp_path)
    folder = tmp_path / f"STS_{case}" / "CT"
    structures = next((folder / "mask").iterdir())
    scan = read_volume(folder / "image")
    ours = read_rtstruct(structures, scan.geometry, series=scan.series)
    assert [structure.name for structure in ours.structures] == ["GTV_Mass_CT"]
    theirs = plastimatch_masks(structures, folder / "image", tmp_path / "pm", scan.geometry)
    assert (ours["GTV_Mass_CT"].mask == theirs["GTV_Mass_CT"]).all()


def plastimatch_masks(structures: Path, ct: Path, out: Path, geometry: Geometry) -> dict[str, Array]:
    """Every structure of a set as plastimatch fills it, on our grid."""
    if shutil.which("plastimatch") is None:
        pytest.skip("no plastimatch: `apt-get install plastimatch`")
    command = ["plastimatch", "convert", "--input", structures, "--referenced-ct", ct, "--output-prefix", out]
    subprocess.run([*command, "--prefix-format", "nii.gz"], check=True, capture_output=True)
    masks = {}
    for path in out.glob("*.nii.gz"):
        image = nib.load(path)
        turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.io_orientation(geometry.affine))
        masks[path.name.removesuffix(".nii.gz")] = reorient(np.asarray(image.dataobj) > 0, turn)
    return masks


def test_a_file_that_is_cut_off_is_never_a_smaller_set_of_contours(tmp_path: Path) -> None:
    geometry = phantom_volume((30, 30, 30), (1.2, 0.8, 3.0)).geometry
    polygons: list[Polygon] = [(k, points) for k in (3, 4) for points in (SQUARE, HOLE)]
    path = write_rtstruct(tmp_path / "rs.dcm", geometry, {"a": polygons, "b": polygons})
    whole = path.read_bytes()
    for length in range(400, len(whole), 3):
        path.write_bytes(whole[:length])
        try:
            found = read_rtstruct(path, geometry)
        except (CorruptFileError, TruncatedFileError, UnknownFormatError):
            continue
        assert found.structures == ()  # between two elements: the sequence of contours is missing as a whole
