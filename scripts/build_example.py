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
import time
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from medseg.errors import DataError, MedsegError
from medseg.imaging.emit import emit_bytes
from medseg.imaging.nifti import read_label_map, read_nifti, write_label_map
from medseg.imaging.volume import Array, Geometry
from medseg.training.cases import CaseFiles, Dataset, read_index

SEED = 20240419
FEWEST_PATIENTS = 12
LANDMARKS = ("brainstem", "parotid_gland_right", "parotid_gland_left", "larynx", "mandible")
WORK_SPACING_MM = (3.0, 3.0, 3.0)
SPACING_MM = (1.6, 1.6, 2.5)
ABOVE_MM, BELOW_MM = 138.0, 190.0  # scan needed above and below the mandible's centre
TOP_MM, BOTTOM_MM = 142.0, 172.0  # what the example shows of it
SIDE_MM, FRONT_MM, BACK_MM = 264.0, 150.0, 170.0
# HU -> what the registration compares: soft tissue gets half of the range, metal and cortical bone do not lead.
FEATURE_HU = (-1000.0, -300.0, -120.0, 150.0, 400.0, 1300.0)
FEATURE_VALUE = (0.0, 150.0, 250.0, 650.0, 800.0, 1000.0)
FIRST_ROUND = ((4, 60), (2, 40), (1, 8))  # (shrink factor of the working grid, iterations)
SECOND_ROUND = ((2, 30), (1, 20))


@dataclass(frozen=True)
class Subject:
    """One patient: CT and labels in LPS, the organs that were contoured, and its landmarks.

    Attributes:
        landmarks: [5, 3], centres of LANDMARKS in LPS mm.
        rigid: frame of the template -> this patient's LPS mm.
    """

    ct: sitk.Image
    labels: sitk.Image
    contoured: frozenset[str]
    landmarks: Array
    rigid: sitk.Transform

    def moved(self, rigid: sitk.Transform) -> Subject:
        return Subject(self.ct, self.labels, self.contoured, self.landmarks, rigid)


def say(message: str, started: float = time.monotonic()) -> None:
    print(f"{time.monotonic() - started:6.0f} s  {message}", flush=True)


# Reading: files -> subjects


def to_itk(array: Array, geometry: Geometry) -> sitk.Image:
    """Array (i, j, k) with RAS affine -> ITK image (LPS)."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ geometry.affine
    image.SetSpacing(geometry.spacing_mm)
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / geometry.spacing_mm).ravel().tolist())
    return image


def centre_of(labels: Array, geometry: Geometry, value: int) -> Array:
    """Centre of an organ in LPS mm."""
    index = np.argwhere(labels == value).mean(axis=0)
    return np.array([-1.0, -1.0, 1.0]) * nib.affines.apply_affine(geometry.affine, index)


def read_subject(case: CaseFiles, table: dict[str, int]) -> Subject | None:
    """The patient, or None when the scan is too short to show head and shoulders."""
    labels, geometry = read_label_map(case.label)
    points = np.stack([centre_of(labels, geometry, table[name]) for name in LANDMARKS])
    ends = np.array([nib.affines.apply_affine(geometry.affine, (0, 0, k))[2] for k in (0, geometry.shape[2] - 1)])
    jaw = points[LANDMARKS.index("mandible"), 2]
    if jaw - ends.min() < BELOW_MM or ends.max() - jaw < ABOVE_MM:
        return None
    volume = read_nifti(case.ct)
    ct = extended(to_itk(volume.hu.astype(np.float32), geometry))
    return Subject(
        ct, to_itk(labels, geometry), frozenset(case.contoured), points, sitk.Transform(3, sitk.sitkIdentity)
    )


def extended(ct: sitk.Image) -> sitk.Image:
    """Repeat the end slices, so that the end of a scan is no edge that the registration would follow."""
    return sitk.ZeroFluxNeumannPad(ct, (0, 0, 30), (0, 0, 30))


def read_subjects(dataset: Dataset) -> list[Subject]:
    complete = [case for case in dataset.of("train") if {*LANDMARKS, "spinal_cord"} <= set(case.contoured)]
    read = (read_subject(case, dataset.labels) for case in complete)
    subjects = [subject for subject in read if subject is not None]
    if len(subjects) < FEWEST_PATIENTS:
        raise DataError(f"Only {len(subjects)} complete patients; fewer than {FEWEST_PATIENTS} could be recognised.")
    return subjects


# Frame: landmarks -> one rigid frame and its grids


def rigid_between(source: Array, target: Array) -> tuple[sitk.Transform, float]:
    """Least-squares rotation and shift (Kabsch) from `source` to `target` points, and what is left in mm RMS."""
    from_mean, to_mean = source.mean(axis=0), target.mean(axis=0)
    u, _, vt = np.linalg.svd((source - from_mean).T @ (target - to_mean))
    flip = np.diag([1.0, 1.0, np.sign(np.linalg.det(vt.T @ u.T))])
    rotation = vt.T @ flip @ u.T
    left = (source - from_mean) @ rotation.T - (target - to_mean)
    transform = sitk.AffineTransform(rotation.ravel().tolist(), (to_mean - from_mean).tolist(), from_mean.tolist())
    return transform, float(np.sqrt((left**2).sum(axis=1).mean()))


def in_one_frame(subjects: list[Subject]) -> tuple[list[Subject], int]:
    """All patients in the frame of the most average one; its number."""
    points = [subject.landmarks for subject in subjects]
    spread = [sum(rigid_between(mine, other)[1] for other in points) for mine in points]
    middle = int(np.argmin(spread))
    return [s.moved(rigid_between(points[middle], s.landmarks)[0]) for s in subjects], middle


def grid(subject: Subject, spacing_mm: tuple[float, float, float]) -> sitk.Image:
    """An empty axial grid in LPS order around the patient's jaw."""
    jaw = subject.landmarks[LANDMARKS.index("mandible")]
    body = sitk.GetArrayViewFromImage(subject.ct) > -300
    columns = np.flatnonzero(body.any(axis=(0, 1)))[[0, -1]]
    middle_x = subject.ct.TransformIndexToPhysicalPoint((int(columns.mean()), 0, 0))[0]
    low = np.array([middle_x - SIDE_MM, jaw[1] - FRONT_MM + 60.0, jaw[2] - BOTTOM_MM])
    extent = np.array([2 * SIDE_MM, FRONT_MM + BACK_MM, TOP_MM + BOTTOM_MM])
    size = np.ceil(extent / spacing_mm).astype(int)
    image = sitk.Image(size.tolist(), sitk.sitkUInt8)
    image.SetSpacing(spacing_mm)
    image.SetOrigin(low.tolist())
    return image


# Registration: every result is one displacement field, template grid -> rigid frame


def feature(ct: sitk.Image) -> sitk.Image:
    """HU -> the values that are compared."""
    values = np.interp(sitk.GetArrayViewFromImage(ct), FEATURE_HU, FEATURE_VALUE).astype(np.float32)
    image = sitk.GetImageFromArray(values)
    image.CopyInformation(ct)
    return image


def shrunk(image: sitk.Image, factor: int) -> sitk.Image:
    if factor == 1:
        return image
    smooth = sitk.SmoothingRecursiveGaussian(image, 0.4 * factor * image.GetSpacing()[0])
    return sitk.Shrink(smooth, [factor] * 3)


def affine_field(fixed: sitk.Image, moving: sitk.Image, onto: sitk.Image) -> sitk.Image:
    """Best affine map by squared differences on a coarse grid, as a displacement field on `onto`."""
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMeanSquares()
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 0.05, 60, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    middle = fixed.TransformContinuousIndexToPhysicalPoint([n / 2 for n in fixed.GetSize()])
    start = sitk.AffineTransform(3)
    start.SetCenter(middle)
    method.SetInitialTransform(start, inPlace=True)
    method.Execute(shrunk(fixed, 3), shrunk(moving, 3))
    return sitk.TransformToDisplacementField(
        start, sitk.sitkVectorFloat64, onto.GetSize(), onto.GetOrigin(), onto.GetSpacing(), onto.GetDirection()
    )


def demons(fixed: sitk.Image, moving: sitk.Image, field: sitk.Image, levels: tuple[tuple[int, int], ...]) -> sitk.Image:
    """Refine `field` from coarse to fine by symmetric demons."""
    for factor, iterations in levels:
        coarse = shrunk(fixed, factor)
        method = sitk.FastSymmetricForcesDemonsRegistrationFilter()
        method.SetNumberOfIterations(iterations)
        method.SetStandardDeviations(1.3)
        method.SetSmoothUpdateField(True)
        method.SetUpdateFieldStandardDeviations(0.8)
        field = method.Execute(coarse, shrunk(moving, factor), resampled(field, coarse))
    return resampled(field, fixed)


def resampled(field: sitk.Image, onto: sitk.Image, by: sitk.Transform | None = None) -> sitk.Image:
    """A field on another grid, going on outside as at its border."""
    move = by or sitk.Transform()
    return sitk.Resample(field, onto, move, sitk.sitkLinear, 0.0, sitk.sitkUnknown, True)


def mean_shape(fields: list[sitk.Image]) -> list[sitk.Image]:
    """The same maps seen from the mean shape: the template stops looking like the first patient."""
    total = sum(sitk.GetArrayFromImage(field) for field in fields)
    mean = sitk.GetImageFromArray(total / len(fields), isVector=True)
    mean.CopyInformation(fields[0])
    back = sitk.InvertDisplacementField(mean, 30)
    move = sitk.DisplacementFieldTransform(sitk.Image(back))
    return [sitk.Add(back, resampled(field, field, move)) for field in fields]


def warped(image: sitk.Image, subject: Subject, field: sitk.Image | None, onto: sitk.Image, how: int) -> sitk.Image:
    """A patient's image on the template's grid, interpolated once."""
    maps = [subject.rigid]
    if field is not None:
        maps.append(sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64)))
    return sitk.Resample(image, onto, sitk.CompositeTransform(maps), how, 0.0 if how == sitk.sitkLinear else -1000.0)


def registered(subjects: list[Subject], middle: int) -> tuple[sitk.Image, list[sitk.Image]]:
    """The working grid and a field per patient, after two rounds."""
    onto = sitk.ConstantPad(grid(subjects[middle], WORK_SPACING_MM), (0, 0, 6), (0, 0, 6))
    moving = [feature(warped(subject.ct, subject, None, onto, sitk.sitkBSpline)) for subject in subjects]
    fixed, fields = moving[middle], []
    for number, image in enumerate(moving):
        fields.append(demons(fixed, image, affine_field(fixed, image, onto), FIRST_ROUND))
        say(f"round 1: {number + 1} of {len(moving)}")
    fields = mean_shape(fields)
    fixed = median_feature(moving, fields, onto)
    for number, image in enumerate(moving):
        fields[number] = demons(fixed, image, fields[number], SECOND_ROUND)
        say(f"round 2: {number + 1} of {len(moving)}")
    # Single precision halves the memory and is a thousand times finer than needed.
    return onto, [sitk.Cast(field, sitk.sitkVectorFloat32) for field in mean_shape(fields)]


def median_feature(moving: list[sitk.Image], fields: list[sitk.Image], onto: sitk.Image) -> sitk.Image:
    """What the second round aims at: the median of all patients in the mean shape."""
    maps = [sitk.DisplacementFieldTransform(sitk.Image(field)) for field in fields]
    stack = [sitk.GetArrayFromImage(sitk.Resample(m, onto, t)) for m, t in zip(moving, maps, strict=True)]
    image = sitk.GetImageFromArray(np.median(np.stack(stack), axis=0))
    image.CopyInformation(onto)
    return image


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
    hu = with_contrast_of(sharpened(median, SPACING_MM), samples)
    scan = as_scanned(with_noise(with_couch(hu, fine), SPACING_MM))
    geometry = geometry_of(fine)
    ct = write_ct(target / "head_neck_ct.nii.gz", scan.T, geometry)
    write_label_map(target / "head_neck_labels.nii.gz", labels.T, geometry)
    say(f"{ct}: {ct.stat().st_size / 1e6:.1f} MB")


def build(source: Path, target: Path) -> None:
    dataset = read_index(source / "index.json")
    subjects, middle = in_one_frame(read_subjects(dataset))
    say(f"{len(subjects)} patients")
    fine = grid(subjects[middle], SPACING_MM)
    onto, fields = registered(subjects, middle)
    median, samples = fused_ct(subjects, fields, fine)
    labels = fused_labels(subjects, fields, onto, fine, dataset.labels)
    finish(target, median, samples, labels, fine)


def main() -> int:
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
