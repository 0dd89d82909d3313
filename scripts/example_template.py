"""Many patients in one frame: the registration behind `build_example.py`.

Landmarks give a rigid frame, an affine map and symmetric demons one displacement field per patient; the
frame then moves to the mean shape, so that the patient whose frame it was at first is not recognised.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name that its documentation uses

from medseg.errors import DataError
from medseg.imaging.nifti import read_label_map, read_nifti
from medseg.imaging.volume import Array, Geometry
from medseg.training.cases import CaseFiles, Dataset

FEWEST_PATIENTS = 12
LANDMARKS = ("brainstem", "parotid_gland_right", "parotid_gland_left", "larynx", "mandible")
WORK_SPACING_MM = (3.0, 3.0, 3.0)
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
    """A line of progress, with the seconds since the start."""
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
    """The patients of the train split that show head and shoulders and have the landmarks contoured."""
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
    """A coarser image, smoothed first."""
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
