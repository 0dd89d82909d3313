"""NIfTI: the reading door for .nii and .nii.gz."""
from __future__ import annotations
from pathlib import Path
import nibabel as nib
import numpy as np
from medseg.imaging.volume import Array, Geometry, Volume


def read_nifti(path: Path) -> Volume:
    image = nib.load(path)
    return Volume(np.asarray(image.dataobj, dtype=np.float32), Geometry(image.shape, image.affine), name=path.name)


def read_label_map(path: Path) -> tuple[Array, Geometry]:
    image = nib.load(path)
    return np.asarray(image.dataobj).astype(np.uint8), Geometry(image.shape, image.affine)
