"""The bytes of a NIfTI-1 file, for the viewer's small copy. 348 bytes of header are not worth a library here."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HEADER = 348
_INT16 = 4


def nifti_bytes(voxels: NDArray[np.int16], affine: NDArray[Any]) -> bytes:
    """A volume of int16 with its affine (index -> RAS mm) as sform."""
    header = bytearray(_HEADER)
    struct.pack_into("<i", header, 0, _HEADER)
    struct.pack_into("<8h", header, 40, 3, *voxels.shape, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, _INT16, 16)
    struct.pack_into("<8f", header, 76, 1, *np.linalg.norm(affine[:3, :3], axis=0), 1, 1, 1, 1)
    struct.pack_into("<f", header, 108, 352)
    struct.pack_into("<2f", header, 112, 1, 0)
    header[123] = 2  # millimetres
    struct.pack_into("<h", header, 254, 1)
    struct.pack_into("<12f", header, 280, *affine[:3].ravel())
    header[344:348] = b"n+1\0"
    return bytes(header) + b"\0\0\0\0" + voxels.astype("<i2").tobytes(order="F")
