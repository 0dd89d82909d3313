"""The example CT that ships: a real-looking scan, a consistent label map, and nobody's data in the header."""

from __future__ import annotations

import gzip
from functools import cache

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from medseg.examples import example_labels_path, example_path
from medseg.imaging.nifti import read_label_map, read_nifti
from medseg.imaging.volume import Array, Volume

MEBI = 1 << 20
# Adult volumes in ml; the last three are as long as clinics contour them.
VOLUMES_ML = {
    1: ("brainstem", 18, 40),
    2: ("spinal_cord", 12, 50),
    3: ("parotid_gland_right", 14, 45),
    4: ("parotid_gland_left", 14, 45),
    5: ("esophagus", 4, 25),
    6: ("larynx", 10, 50),
    7: ("mandible", 35, 95),
}
BRAINSTEM, CORD, RIGHT_PAROTID, LEFT_PAROTID, ESOPHAGUS, LARYNX, MANDIBLE = VOLUMES_ML


@cache
def scan() -> Volume:
    return read_nifti(example_path())


@cache
def labels() -> Array:
    array, geometry = read_label_map(example_labels_path())
    assert geometry.matches(scan().geometry)
    return array


def centre_mm(value: int) -> Array:
    """Centre of an organ in RAS mm."""
    return nib.affines.apply_affine(scan().affine, np.argwhere(labels() == value).mean(axis=0))


def test_files_are_small_enough_to_ship() -> None:
    assert 1 * MEBI < example_path().stat().st_size <= 6 * MEBI
    assert example_labels_path().stat().st_size <= MEBI // 4


def test_geometry_is_a_scanners() -> None:
    geometry = scan().geometry
    assert geometry.orientation == "LPS"
    assert geometry.spacing_mm == pytest.approx((1.6, 1.6, 2.5), rel=1e-5)
    extent = np.array(geometry.shape) * geometry.spacing_mm
    assert (extent > (450, 250, 280)).all()
    assert (extent < (600, 400, 400)).all()
    assert scan().findings == ()


@pytest.mark.parametrize(("path", "kind"), [(example_path(), "int16"), (example_labels_path(), "uint8")])
def test_header_says_nothing_but_geometry(path: object, kind: str) -> None:
    header = nib.load(path).header
    assert header.get_data_dtype() == np.dtype(kind)
    for text in ("descrip", "aux_file", "intent_name", "db_name", "data_type"):
        assert bytes(header[text].tobytes()).strip(b"\0") == b""
    assert len(header.extensions) == 0


def test_gzip_carries_no_name_and_no_date() -> None:
    for path in (example_path(), example_labels_path()):
        start = path.read_bytes()[:10]
        assert start[3] == 0
        assert start[4:8] == b"\0\0\0\0"
        assert gzip.decompress(path.read_bytes())[344:348] == b"n+1\0"


def test_air_soft_tissue_and_bone_lie_where_a_ct_has_them() -> None:
    hu = scan().hu
    counts, edges = np.histogram(hu, bins=np.arange(-1030, 1600, 10))
    centres = edges[:-1] + 5
    air, soft = centres < -900, (centres > -60) & (centres < 120)
    assert centres[air][counts[air].argmax()] == pytest.approx(-1000, abs=30)
    assert centres[soft][counts[soft].argmax()] == pytest.approx(40, abs=40)
    fat = counts[(centres > -130) & (centres < -80)].mean()
    between = counts[(centres > -700) & (centres < -450)].mean()
    assert fat > 5 * between
    assert 0.01 < (hu > 300).sum() / (hu > -200).sum() < 0.15
    assert np.percentile(hu[hu > 300], 99) > 900


def test_noise_is_a_scanners_and_not_a_painting() -> None:
    tissue = scan().hu[ndimage.binary_erosion(labels() == BRAINSTEM, iterations=3)]
    assert 3 < tissue.std() < 30


@pytest.mark.parametrize("value", VOLUMES_ML)
def test_organs_have_human_volumes_and_are_in_one_piece(value: int) -> None:
    name, least, most = VOLUMES_ML[value]
    mask = labels() == value
    assert least < mask.sum() * scan().geometry.voxel_ml < most, name
    pieces, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    assert np.bincount(pieces.ravel())[1:].max() > 0.97 * mask.sum(), name


def test_no_other_labels() -> None:
    assert set(np.unique(labels())) == {0, *VOLUMES_ML}


def test_left_parotid_lies_on_the_patients_left() -> None:
    # In RAS, x grows from the patient's left to the patient's right.
    left, middle, right = (centre_mm(value)[0] for value in (LEFT_PAROTID, BRAINSTEM, RIGHT_PAROTID))
    assert middle - 70 < left < middle - 35
    assert middle + 35 < right < middle + 70


def test_organs_lie_in_order_from_head_to_chest_and_front_to_back() -> None:
    heights = [centre_mm(value)[2] for value in (BRAINSTEM, MANDIBLE, LARYNX, ESOPHAGUS)]
    assert heights == sorted(heights, reverse=True)
    assert centre_mm(MANDIBLE)[1] > centre_mm(LARYNX)[1] > centre_mm(CORD)[1]


def test_organs_hold_their_own_tissue() -> None:
    hu = scan().hu
    means = {value: float(hu[labels() == value].mean()) for value in VOLUMES_ML}
    assert means[MANDIBLE] > 350
    assert -60 < means[LEFT_PAROTID] < 60
    assert -60 < means[RIGHT_PAROTID] < 60
    assert 10 < means[BRAINSTEM] < 50
    assert 5 < means[CORD] < 60
    assert means[LARYNX] < 60  # its air way


def test_a_couch_lies_below_the_back() -> None:
    hu = scan().hu
    below = hu[:, int(np.argwhere(labels() == CORD)[:, 1].max()) + 20 :]
    everywhere = ((below > -980) & (below < -880)).mean(axis=(0, 1))
    assert (everywhere > 0.05).all()
