"""Build the example CT that ships with the project: the average of many registered head-and-neck CTs.

    python scripts/build_example.py DATASET -o medseg/examples

DATASET is a folder with `index.json` (see `medseg.training.cases`); only its train split is read. Every
patient is brought into one frame (landmarks, affine, then demons), the frame is moved to the mean shape,
everything is registered again to the median of the first round, and the voxel-wise median of all patients
becomes the scan. docs/decisions/0004-example-ct.md says why. Seeded, one thread: the same data give the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name that its documentation uses
from example_template import Subject, grid, in_one_frame, read_subjects, registered, say, warped
from scipy import ndimage

from medseg.errors import MedsegError
from medseg.imaging.emit import emit_bytes
from medseg.imaging.nifti import write_label_map
from medseg.imaging.volume import Array, Geometry
from medseg.training.cases import read_index

SEED = 20240419
SPACING_MM = (1.6, 1.6, 2.5)
# These sources look 24 HU too low (brainstem at 0 to 8 HU instead of about 30, fat near -124, air inside the body
# down to -1020), as if their -1000 had been stored as -1024. The example has the values that a scanner sends.
OFFSET_HU = 24.0


# Fusion: many registered patients -> one scan and one label map, arrays [k, j, i]


def fused_ct(subjects: list[Subject], fields: list[sitk.Image], fine: sitk.Image) -> tuple[Array, Array]:
    """Voxel-wise median in HU, and sorted samples of all patients' HU for `with_contrast_of`."""
    stack = np.empty((len(subjects), *reversed(fine.GetSize())), dtype=np.int16)
    for number, (subject, field) in enumerate(zip(subjects, fields, strict=True)):
        hu = sitk.GetArrayFromImage(warped(subject.ct, subject, field, fine, sitk.sitkBSpline))
        stack[number] = np.clip(np.round(hu), -1024, 2048)
    median = np.stack([np.median(stack[:, k], axis=0) for k in range(stack.shape[1])])
    return median.astype(np.float32), np.sort(stack[:, ::3, ::4, ::4].ravel())[::7]


def sharpened(hu: Array, spacing_mm: tuple[float, float, float]) -> Array:
    """Take back part of the blur of coarse source voxels and averaging, after smoothing the median's grain."""
    smooth = ndimage.gaussian_filter(hu, [0.9 / step for step in reversed(spacing_mm)])
    blurred = ndimage.gaussian_filter(smooth, [2.4 / step for step in reversed(spacing_mm)])
    detail = 0.8 * (smooth - blurred)
    # Bone beside soft tissue must not darken it: the cord would look like fat.
    soft = (smooth > -200) & (smooth < 200)
    detail[soft] = np.clip(detail[soft], -12, 12)
    return np.clip(smooth + detail, ndimage.minimum_filter(hu, 5), ndimage.maximum_filter(hu, 5))


def with_contrast_of(hu: Array, samples: Array) -> Array:
    """Bend the HU scale so that each tissue has the share of voxels it has in the patients' own scans."""
    share = np.linspace(0, 1, 4001)
    own = np.quantile(hu[::3, ::4, ::4], share)
    wanted = np.quantile(samples, share)
    own, first = np.unique(own, return_index=True)
    return np.interp(hu, own, wanted[first]).astype(np.float32)


def fused_labels(
    subjects: list[Subject], fields: list[sitk.Image], onto: sitk.Image, fine: sitk.Image, table: dict[str, int]
) -> Array:
    """Vote per organ among the patients in whom it was contoured; uint8 on the fine grid."""
    votes = [ballot(s, f, onto, table) for s, f in zip(subjects, fields, strict=True)]
    best = np.zeros(tuple(reversed(fine.GetSize())), dtype=np.float32)
    labels = np.zeros(best.shape, dtype=np.uint8)
    for number, (name, value) in enumerate(table.items()):
        given = [vote[..., number] for vote, s in zip(votes, subjects, strict=True) if name in s.contoured]
        share = on_grid(np.mean(given, axis=0), onto, fine)
        volume_mm3 = np.median([vote.sum() for vote in given]) * np.prod(onto.GetSpacing())
        count = int(volume_mm3 / np.prod(fine.GetSpacing()))
        chosen = (share > np.partition(share.ravel(), -count)[-count]) & (share > best)
        labels[chosen], best[chosen] = value, share[chosen]
        say(f"{name}: {len(given)} patients, {volume_mm3 / 1000:.1f} ml, share at the border {share[chosen].min():.2f}")
    return labels


def ballot(subject: Subject, field: sitk.Image, onto: sitk.Image, table: dict[str, int]) -> Array:
    """Where one patient's organs lie on the working grid: shares 0..1, [k, j, i, organ]."""
    organs = sitk.Compose([sitk.Cast(subject.labels == value, sitk.sitkFloat32) for value in table.values()])
    return sitk.GetArrayFromImage(warped(organs, subject, field, onto, sitk.sitkLinear))


def on_grid(array: Array, onto: sitk.Image, fine: sitk.Image) -> Array:
    """A smooth array of the working grid on the fine one."""
    image = sitk.GetImageFromArray(array.astype(np.float32))
    image.CopyInformation(onto)
    return sitk.GetArrayFromImage(sitk.Resample(image, fine, sitk.Transform(), sitk.sitkLinear))


# Scanner: what the average lacks


def with_couch(hu: Array, fine: sitk.Image) -> Array:
    """A carbon couch top with a foam core below the patient, through all slices."""
    dx, dy, _ = fine.GetSpacing()
    body = ndimage.binary_opening(hu > -300, iterations=2)
    back = np.flatnonzero(body.any(axis=(0, 2)))[-1]
    y = (np.arange(hu.shape[1])[:, None] - back) * dy
    x = (np.arange(hu.shape[2])[None, :] - hu.shape[2] / 2) * dx
    depth = y - 4.0
    inside = (depth > 0) & (depth < 45.0 - 20.0 * (x / 265.0) ** 2) & (abs(x) < 255.0)
    core = ndimage.binary_erosion(inside, iterations=2)
    couch = np.where(core, -940.0, np.where(inside, -220.0, -1000.0))
    couch = ndimage.gaussian_filter(couch, 0.6)
    return np.maximum(hu, couch[None].astype(np.float32))


def with_noise(hu: Array, spacing_mm: tuple[float, float, float]) -> Array:
    """Noise as a scanner's: grainy in plane, stronger where the slice holds more body."""
    random = np.random.default_rng(SEED)
    noise = ndimage.gaussian_filter(random.standard_normal(hu.shape, dtype=np.float32), (0.3, 0.6, 0.6))
    area_cm2 = (hu > -300).sum(axis=(1, 2)) * spacing_mm[0] * spacing_mm[1] / 100
    deviation = 5.0 + 9.0 * np.clip(area_cm2 / 900.0, 0.1, 1.2)
    return hu + noise / noise.std() * deviation[:, None, None].astype(np.float32)


def as_scanned(hu: Array) -> Array:
    """Whole HU in steps of 4, like the sources, and nothing below -1024; int16."""
    return (np.round(np.clip(hu, -1024, 3071) / 4) * 4).astype(np.int16)


# Writing


def geometry_of(fine: sitk.Image) -> Geometry:
    """ITK grid (LPS) -> array (i, j, k) with RAS affine."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.diag([*fine.GetSpacing(), 1.0])
    affine[:3, 3] = np.array(fine.GetOrigin()) * (-1.0, -1.0, 1.0)
    return Geometry(fine.GetSize(), affine)


def write_ct(path: Path, hu: Array, geometry: Geometry) -> Path:
    """int16 .nii.gz without date, name or description; the same bytes for the same scan."""
    image = nib.Nifti1Image(hu, geometry.affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(geometry.affine, 1)
    image.set_qform(geometry.affine, 1)
    return emit_bytes(path, gzip.compress(image.to_bytes(), 9, mtime=0))


def finish(target: Path, median: Array, samples: Array, labels: Array, fine: sitk.Image) -> None:
    """Turn the fused arrays into a scan and write both files."""
    hu = with_contrast_of(sharpened(median, SPACING_MM), samples) + OFFSET_HU
    scan = as_scanned(with_noise(with_couch(hu, fine), SPACING_MM))
    geometry = geometry_of(fine)
    ct = write_ct(target / "head_neck_ct.nii.gz", scan.T, geometry)
    write_label_map(target / "head_neck_labels.nii.gz", labels.T, geometry)
    say(f"{ct}: {ct.stat().st_size / 1e6:.1f} MB")


def build(source: Path, target: Path) -> None:
    """Patients in, two files out."""
    dataset = read_index(source / "index.json")
    subjects, middle = in_one_frame(read_subjects(dataset))
    say(f"{len(subjects)} patients")
    fine = grid(subjects[middle], SPACING_MM)
    onto, fields = registered(subjects, middle)
    median, samples = fused_ct(subjects, fields, fine)
    labels = fused_labels(subjects, fields, onto, fine, dataset.labels)
    finish(target, median, samples, labels, fine)


def main() -> int:
    """Parse, build, exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="folder with index.json")
    parser.add_argument("-o", "--out", type=Path, default=Path("medseg/examples"), help="where the two files go")
    arguments = parser.parse_args()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        build(arguments.dataset, arguments.out)
    except MedsegError as error:
        print(error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
