"""One body in 48 axis orientations, through every door: the organs stay where they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from medseg.imaging import Volume, read_volume
from medseg.imaging.nifti import read_label_map, write_label_map
from tests.phantoms import (
    BOX_CENTRE_MM,
    ORIENTATIONS,
    SPHERE_CENTRE_MM,
    SPHERE_HU,
    orient,
    phantom_labels,
    phantom_volume,
    write_dicom_series,
    write_nifti,
)

UPRIGHT = phantom_volume((24, 20, 18), (6.0, 7.0, 7.5))
ORIGIN_MM = np.array((7.0, -11.0, 23.0))


def _centre_mm(volume: Volume, mask: np.ndarray) -> np.ndarray:
    index = np.argwhere(mask).mean(axis=0)
    return volume.affine[:3, :3] @ index + volume.affine[:3, 3] - ORIGIN_MM


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_nifti_is_indexed_as_the_file(orientation: str, tmp_path: Path) -> None:
    turned = orient(UPRIGHT, orientation)
    volume = read_volume(write_nifti(tmp_path / "case.nii.gz", turned))
    assert volume.geometry.orientation == orientation
    assert np.array_equal(volume.hu, turned.hu)
    assert volume.geometry.matches(turned.geometry, 1e-3)
    organ = (volume.hu > SPHERE_HU - 35) & (volume.hu < SPHERE_HU + 35) & (phantom_labels(volume) == 1)
    assert np.abs(_centre_mm(volume, organ) - SPHERE_CENTRE_MM).max() < 3.0


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_dicom_places_every_voxel(orientation: str, tmp_path: Path) -> None:
    turned = orient(UPRIGHT, orientation)
    volume = read_volume(write_dicom_series(tmp_path / "case", turned))
    assert volume.findings == ()
    # Slices are sorted along the normal, which may turn the third axis round; nothing else may change.
    flipped = orient(volume, orientation)
    assert np.array_equal(flipped.hu, turned.hu)
    assert flipped.geometry.matches(turned.geometry, 1e-3)
    labels = phantom_labels(volume)
    assert np.abs(_centre_mm(volume, labels == 1) - SPHERE_CENTRE_MM).max() < 3.0
    assert np.abs(_centre_mm(volume, labels == 2) - BOX_CENTRE_MM).max() < 4.0


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "SPR", "PIR", "ASL"])
def test_dicom_agrees_with_an_independent_reader(orientation: str, tmp_path: Path) -> None:
    folder = write_dicom_series(tmp_path / "case", orient(UPRIGHT, orientation))
    volume = read_volume(folder)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    theirs = sitk.GetArrayFromImage(image).T
    for index in [(0, 0, 0), (3, 5, 7), tuple(n - 1 for n in volume.geometry.shape)]:
        lps = image.TransformIndexToPhysicalPoint(index)
        ras = volume.affine @ [*index, 1]
        assert np.abs(ras[:3] - np.array([-lps[0], -lps[1], lps[2]])).max() < 0.01
    assert np.array_equal(theirs, volume.hu)


def test_feet_first_prone(tmp_path: Path) -> None:
    """The axes of the picture follow the couch; the places of voxels are those of the body."""
    folder = write_dicom_series(tmp_path / "case", orient(UPRIGHT, "RAS"), PatientPosition="FFP")
    assert orient(read_volume(folder), "RAS").geometry.matches(UPRIGHT.geometry, 1e-3)


def _oblique(degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[:3, :3] = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    tip = np.eye(4)
    tip[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ tip @ UPRIGHT.affine


@pytest.mark.parametrize("degrees", [0.01, 0.05, 0.5, 3.0, 20.0, 44.0, 179.99])
def test_oblique_grids(degrees: float, tmp_path: Path) -> None:
    from medseg.imaging import Geometry

    turned = Volume(UPRIGHT.hu, Geometry(UPRIGHT.geometry.shape, _oblique(degrees)))
    nifti = read_volume(write_nifti(tmp_path / "case.nii.gz", turned))
    assert nifti.geometry.matches(turned.geometry, 1e-3)
    dicom = read_volume(write_dicom_series(tmp_path / "case", turned))
    assert dicom.geometry.matches(turned.geometry, 1e-3)
    labels = phantom_labels(turned)
    again, geometry = read_label_map(write_label_map(tmp_path / "mask.nii.gz", labels, nifti.geometry))
    assert np.array_equal(again, labels)
    assert geometry.matches(nifti.geometry, 1e-4)
