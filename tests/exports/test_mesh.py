"""Surfaces: closed, of the right volume, in the right place; read by trimesh."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trimesh

from medseg.errors import DataError
from medseg.exports.mesh import stl_name, write_glb, write_stl
from medseg.exports.surface import surface_of
from medseg.imaging.volume import Geometry
from medseg.labels import Label
from tests.exports.conftest import Scanned, result_of
from tests.phantoms import SPHERE_CENTRE_MM, SPHERE_ML, SPHERE_RADIUS_MM

MIDDLE = np.array([7.0, -11.0, 23.0])
LPS = np.array([-1, -1, 1])


def test_stl_surfaces_are_closed_and_lie_where_the_organs_lie(scan: Scanned, tmp_path: Path) -> None:
    paths = {path.stem: path for path in write_stl(tmp_path, scan.result)}
    assert set(paths) == {"parotid_gland_left", "spinal_cord", "mandible"}
    voxel_ml = scan.result.volume.geometry.voxel_ml
    for name, path in paths.items():
        mesh = trimesh.load(path)
        mesh.merge_vertices()
        assert mesh.is_watertight, name
        assert mesh.volume / 1000 == pytest.approx(scan.mask(name).sum() * voxel_ml, rel=0.06), name
    sphere = trimesh.load(paths["parotid_gland_left"])
    assert sphere.volume / 1000 == pytest.approx(SPHERE_ML, rel=0.06)
    assert sphere.center_mass * LPS == pytest.approx(MIDDLE + SPHERE_CENTRE_MM, abs=0.6)
    assert np.ptp(sphere.bounds, axis=0) == pytest.approx([2 * SPHERE_RADIUS_MM] * 3, abs=3.0)


def test_glb_has_names_colours_metres_and_the_head_up(scanned: Callable[[str], Scanned], tmp_path: Path) -> None:
    scan = scanned("sagittal")
    scene = trimesh.load(write_glb(tmp_path / "organs.glb", scan.result))
    assert set(scene.geometry) == {"parotid_gland_left", "spinal_cord", "mandible"}
    sphere = scene.geometry["parotid_gland_left"]
    right, front, head = (MIDDLE + SPHERE_CENTRE_MM) / 1000
    assert sphere.center_mass == pytest.approx([-right, head, front], abs=6e-4)
    assert sphere.is_watertight
    assert sphere.volume * 1e6 == pytest.approx(SPHERE_ML, rel=0.06)
    red, green, blue, _ = sphere.visual.material.baseColorFactor.tolist()
    assert (red, green, blue) == pytest.approx((0, 89, 43), abs=2)  # (0, 158, 115) of the screen, made linear


def test_normals_point_outwards_on_mirrored_grids_too() -> None:
    ball = np.linalg.norm(np.stack(np.meshgrid(*[np.arange(24)] * 3, indexing="ij")) - 11.5, axis=0) < 8
    for signs in ([1, 1, 1], [-1, 1, 1], [-1, -1, -1]):
        surface = surface_of(ball, Geometry((24, 24, 24), np.diag([*signs, 1.0])))
        centre = surface.points.mean(axis=0)
        assert (np.einsum("ij,ij->i", surface.normals, surface.points - centre) > 0).mean() > 0.99
        mesh = trimesh.Trimesh(surface.points, surface.triangles, process=False)
        assert mesh.volume == pytest.approx(ball.sum(), rel=0.05)


@pytest.mark.parametrize("thin", [(1, 9, 9), (1, 1, 12), (1, 1, 1)])
def test_the_thinnest_organ_keeps_a_surface(thin: tuple[int, int, int]) -> None:
    mask = np.zeros((20, 20, 20), bool)
    mask[4 : 4 + thin[0], 4 : 4 + thin[1], 4 : 4 + thin[2]] = True
    surface = surface_of(mask, Geometry((20, 20, 20), np.diag([1.0, 1.0, 3.0, 1.0])))
    mesh = trimesh.Trimesh(surface.points, surface.triangles)
    assert mesh.is_watertight
    assert mesh.volume > 0


def test_an_organ_at_the_end_of_the_scan_is_closed_there() -> None:
    mask = np.zeros((12, 12, 12), bool)
    mask[:6, 3:9, 3:9] = True
    surface = surface_of(mask, Geometry((12, 12, 12), np.eye(4)))
    assert trimesh.Trimesh(surface.points, surface.triangles).is_watertight


def test_a_name_never_leads_out_of_the_folder() -> None:
    assert stl_name(Label("../../etc/passwd", 1)) == "______etc_passwd.stl"
    assert stl_name(Label("parotid_gland_left", 1)) == "parotid_gland_left.stl"


def test_nothing_found_has_no_surface(scanned: Callable[[str], Scanned], tmp_path: Path) -> None:
    volume = scanned("axial").result.volume
    with pytest.raises(DataError):
        write_glb(tmp_path / "a.glb", result_of(volume, np.zeros(volume.geometry.shape, np.uint8)))
    assert not list(tmp_path.iterdir())
