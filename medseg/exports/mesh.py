"""STL (one file an organ, for printing and planning) and GLB (all organs, named and coloured, for viewers)."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from medseg.exports.identity import found
from medseg.exports.surface import Surface, surface_of
from medseg.imaging.emit import emit_bytes
from medseg.imaging.volume import Array
from medseg.labels import Label
from medseg.results.segmentation import Segmentation

_STL_HEADER = b"medseg SPACE=LPS UNIT=mm, research use only"
_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_GLTF_MAGIC, _JSON_CHUNK, _BINARY_CHUNK = 0x46546C67, 0x4E4F534A, 0x004E4942
_FLOATS, _INDICES = 5126, 5125
_VERTEX_BUFFER, _INDEX_BUFFER = 34962, 34963


def surfaces(result: Segmentation) -> Iterator[tuple[Label, Surface]]:
    """The surface of every organ that was found.

    Raises:
        DataError: none was.
    """
    for label in found(result):
        yield label, surface_of(result.mask == label.value, result.volume.geometry)


def write_stl(folder: Path, result: Segmentation) -> list[Path]:
    """Write ORGAN.stl for every organ that was found: binary, mm, LPS as DICOM and Slicer have it.

    Raises:
        DataError: nothing was segmented.
        OutputError: a file could not be written.
    """
    return [emit_bytes(folder / stl_name(label), stl_bytes(surface)) for label, surface in surfaces(result)]


def stl_name(label: Label) -> str:
    """File name of an organ's surface."""
    return f"{label.stem}.stl"


def stl_bytes(surface: Surface) -> bytes:
    """A surface as binary STL."""
    points = surface.points * np.array([-1, -1, 1], np.float32)  # half a turn about z: the triangles keep their sense
    faces = points[surface.triangles]
    across = np.cross(faces[:, 1] - faces[:, 0], faces[:, 2] - faces[:, 0])
    records = np.zeros(len(faces), _TRIANGLE)
    records["normal"] = across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-20)
    records["corners"] = faces
    return _STL_HEADER.ljust(80, b" ") + struct.pack("<I", len(faces)) + records.tobytes()


def write_glb(path: Path, result: Segmentation) -> Path:
    """Write all organs into one binary glTF: metres, y towards the head, z to the front, as glTF has it.

    Raises:
        DataError: nothing was segmented.
        OutputError: it could not be written.
    """
    return emit_bytes(path, glb_bytes(surfaces(result)))


def glb_bytes(organs: Iterable[tuple[Label, Surface]]) -> bytes:
    """Named, coloured surfaces as binary glTF 2.0."""
    scene = _Scene()
    for label, surface in organs:
        scene.add(label, surface)
    text = json.dumps(scene.document(), separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), _JSON_CHUNK) + text
    chunks += struct.pack("<II", len(scene.data), _BINARY_CHUNK) + bytes(scene.data)
    return struct.pack("<III", _GLTF_MAGIC, 2, 12 + len(chunks)) + chunks


class _Scene:
    """A glTF document in the making."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, int]] = []
        self.accessors: list[dict[str, Any]] = []
        self.meshes: list[dict[str, Any]] = []
        self.materials: list[dict[str, Any]] = []

    def add(self, label: Label, surface: Surface) -> None:
        turn = np.array([[-1, 0, 0], [0, 0, 1], [0, 1, 0]], np.float32)  # right, front, head -> glTF's x, y, z
        points = self._put(surface.points @ turn.T / 1000, _FLOATS, "VEC3", _VERTEX_BUFFER, bounds=True)
        normals = self._put(surface.normals @ turn.T, _FLOATS, "VEC3", _VERTEX_BUFFER)
        indices = self._put(surface.triangles.astype(np.uint32).ravel(), _INDICES, "SCALAR", _INDEX_BUFFER)
        self.materials.append(_material(label))
        primitive = {
            "attributes": {"POSITION": points, "NORMAL": normals},
            "indices": indices,
            "material": len(self.materials) - 1,
        }
        self.meshes.append({"name": label.name, "primitives": [primitive]})

    def _put(self, array: Array, component: int, kind: str, target: int, *, bounds: bool = False) -> int:
        content = np.ascontiguousarray(array).astype("<f4" if component == _FLOATS else "<u4")
        self.views.append({"buffer": 0, "byteOffset": len(self.data), "byteLength": content.nbytes, "target": target})
        self.data += content.tobytes()
        accessor: dict[str, Any] = {
            "bufferView": len(self.views) - 1,
            "componentType": component,
            "count": len(content),
            "type": kind,
        }
        if bounds:
            accessor |= {"min": content.min(axis=0).tolist(), "max": content.max(axis=0).tolist()}
        self.accessors.append(accessor)
        return len(self.accessors) - 1

    def document(self) -> dict[str, Any]:
        count = len(self.meshes)
        return {
            "asset": {"version": "2.0", "generator": "medseg", "copyright": "Research use only"},
            "scene": 0,
            "scenes": [{"nodes": list(range(count))}],
            "nodes": [{"name": mesh["name"], "mesh": number} for number, mesh in enumerate(self.meshes)],
            "meshes": self.meshes,
            "materials": self.materials,
            "accessors": self.accessors,
            "bufferViews": self.views,
            "buffers": [{"byteLength": len(self.data)}],
        }


def _material(label: Label) -> dict[str, Any]:
    # glTF colours are linear, screens' are not.
    linear = [round((part / 255) ** 2.2, 4) for part in label.colour]
    return {
        "name": label.title,
        "pbrMetallicRoughness": {"baseColorFactor": [*linear, 1.0], "metallicFactor": 0.0, "roughnessFactor": 0.7},
    }
