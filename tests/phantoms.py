"""Analytic phantoms: an asymmetric body whose organs' places and volumes are known by formula.

In RAS millimetres: an ellipsoid body in air, a sphere on the patient's left, a box on the
right and further back, and a rod of bone at the back. No axis, flip or swap leaves it as it is.
"""

from __future__ import annotations

import gzip
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

from medseg.imaging.volume import Array, Geometry, Volume, reorient

AIR_HU, BODY_HU, SPHERE_HU, BOX_HU, BONE_HU = -1000.0, 40.0, 120.0, -90.0, 700.0
BODY_AXES_MM = (70.0, 50.0, 62.0)
SPHERE_CENTRE_MM, SPHERE_RADIUS_MM = (-32.0, 8.0, 14.0), 15.0
BOX_CENTRE_MM, BOX_SIZE_MM = (30.0, -6.0, -12.0), (20.0, 26.0, 30.0)
ROD_CENTRE_MM, ROD_RADIUS_MM = (0.0, -34.0), 7.0
SPHERE_ML = 4 / 3 * math.pi * SPHERE_RADIUS_MM**3 / 1000
BOX_ML = math.prod(BOX_SIZE_MM) / 1000
BODY_ML = 4 / 3 * math.pi * math.prod(BODY_AXES_MM) / 1000
SMALL, LARGE = (30, 26, 24), (36, 32, 30)
PLANTED_NAME = "DOE^PLANTED"
"""Stands in every DICOM phantom and must be found in no output, log or error."""

ORIENTATIONS = tuple(
    "".join(letters[axis][flip] for axis, flip in zip(order, flips, strict=True))
    for order in itertools.permutations(range(3))
    for flips in itertools.product((0, 1), repeat=3)
    for letters in [(("L", "R"), ("P", "A"), ("I", "S"))]
)
"""The 48 axis orientations as nibabel codes ('RAS', 'LPS', 'SPR' ...)."""


def phantom_volume(
    shape: Sequence[int] = (48, 40, 36),
    spacing_mm: Sequence[float] = (3.5, 3.5, 4.0),
    *,
    orientation: str = "RAS",
    origin_mm: Sequence[float] = (7.0, -11.0, 23.0),
    noise_hu: float = 8.0,
    seed: int = 1,
    name: str = "phantom",
) -> Volume:
    """A CT of the phantom.

    Args:
        shape, spacing_mm: of the RAS grid, before it is reoriented.
        orientation: one of `ORIENTATIONS`: the directions of growing i, j, k.
        origin_mm: RAS place of the middle of the phantom (and of the grid).
        noise_hu: standard deviation of the noise; the values are whole numbers.
        seed: of the noise.
        name: of the volume.
    """
    i, j, k = (int(n) for n in shape)
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = np.array(origin_mm) - affine[:3, :3] @ ((np.array([i, j, k]) - 1) / 2)
    hu = _paint(_millimetres((i, j, k), affine, origin_mm))
    hu += np.random.default_rng(seed).normal(0, noise_hu, hu.shape)
    hu = np.clip(np.round(hu), -1024, 3071).astype(np.float32)
    return orient(Volume(hu, Geometry((i, j, k), affine), name=name), orientation)


def _millimetres(shape: tuple[int, int, int], affine: Array, origin_mm: Sequence[float]) -> Array:
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"))
    place = np.tensordot(affine[:3, :3], index, 1) + affine[:3, 3][:, None, None, None]
    return place - np.array(origin_mm)[:, None, None, None]


def phantom_at(mm: Array) -> Array:
    """HU of the phantom at RAS places relative to its middle, (3, ...)."""
    return _paint(mm)


def _paint(mm: Array) -> Array:
    hu = np.full(mm.shape[1:], AIR_HU)
    hu[inside_body(mm)] = BODY_HU
    hu[inside_sphere(mm)] = SPHERE_HU
    hu[inside_box(mm)] = BOX_HU
    hu[inside_body(mm) & inside_rod(mm)] = BONE_HU
    return hu


def inside_body(mm: Array) -> Array:
    """Body mask for RAS places relative to the middle, (3, ...)."""
    return np.asarray(sum((mm[a] / BODY_AXES_MM[a]) ** 2 for a in range(3)) <= 1)


def inside_sphere(mm: Array) -> Array:
    """Mask of the sphere on the patient's left."""
    return np.asarray(sum((mm[a] - SPHERE_CENTRE_MM[a]) ** 2 for a in range(3)) <= SPHERE_RADIUS_MM**2)


def inside_box(mm: Array) -> Array:
    """Mask of the box on the patient's right."""
    return np.all([np.abs(mm[a] - BOX_CENTRE_MM[a]) <= BOX_SIZE_MM[a] / 2 for a in range(3)], axis=0)


def inside_rod(mm: Array) -> Array:
    """Mask of the rod along the back (cut by the body)."""
    return np.asarray(sum((mm[a] - ROD_CENTRE_MM[a]) ** 2 for a in range(2)) <= ROD_RADIUS_MM**2)


def phantom_labels(volume: Volume, origin_mm: Sequence[float] = (7.0, -11.0, 23.0)) -> Array:
    """uint8 on the grid of `volume`: 1 sphere (left), 2 box (right), 3 rod of bone, 0 elsewhere."""
    mm = _millimetres(volume.geometry.shape, volume.affine, origin_mm)
    labels = np.zeros(volume.geometry.shape, np.uint8)
    labels[inside_sphere(mm)] = 1
    labels[inside_box(mm)] = 2
    labels[inside_body(mm) & inside_rod(mm)] = 3
    return labels


def orient(volume: Volume, orientation: str) -> Volume:
    """The same body with the array's axes permuted and flipped."""
    start = volume.geometry.to_canonical
    ornt = nib.orientations.ornt_transform(start, nib.orientations.axcodes2ornt(tuple(orientation)))
    affine = volume.affine @ nib.orientations.inv_ornt_aff(ornt, volume.geometry.shape)
    hu = np.ascontiguousarray(reorient(volume.hu, ornt))
    return Volume(hu, Geometry(hu.shape, affine), name=volume.name)  # type: ignore[arg-type]


def write_nifti(
    path: Path,
    volume: Volume,
    *,
    dtype: Any = np.int16,
    slope: float = 1.0,
    inter: float = 0.0,
    version: int = 1,
    edit: Callable[[nib.Nifti1Header], object] | None = None,
) -> Path:
    """Write `volume` as .nii or .nii.gz (by the name); `edit` may spoil the header just before it is written."""
    stored = (volume.hu.astype(np.float64) - inter) / slope
    stored = np.round(stored) if np.dtype(dtype).kind in "iu" else stored
    kind = nib.Nifti1Image if version == 1 else nib.Nifti2Image
    image = kind(stored.astype(dtype), volume.affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(volume.affine, 1)
    image.set_sform(volume.affine, 1)
    image.header["scl_slope"], image.header["scl_inter"] = slope, inter
    image.header["vox_offset"] = {1: 352, 2: 544}[version]
    if edit is not None:
        edit(image.header)
    content = _nifti_bytes(image)
    path.write_bytes(gzip.compress(content, 1, mtime=0) if path.suffix == ".gz" else content)
    return path


def _nifti_bytes(image: nib.Nifti1Image) -> bytes:
    voxels = np.asarray(image.dataobj).astype(image.get_data_dtype().newbyteorder(image.header.endianness))
    return bytes(image.header.binaryblock) + b"\0\0\0\0" + voxels.tobytes(order="F")


Fault = Callable[[FileDataset, int], object]


def write_dicom_series(
    folder: Path,
    volume: Volume,
    *,
    fault: Fault | None = None,
    skip: Sequence[int] = (),
    names: Callable[[int], str] = lambda k: f"IM{k:04d}.dcm",
    slope: float = 1.0,
    inter: float = -1024.0,
    series_uid: str | None = None,
    study_uid: str | None = None,
    patient_id: str = "PLANTED-ID-7",
    modality: str = "CT",
    **tags: Any,
) -> Path:
    """Write `volume` as real CT Image Storage files, slice k of the array in file k.

    Args:
        folder: made where it is missing.
        volume: any of the 48 orientations; axes i and j become columns and rows.
        fault: called with the data set and k before each slice is written; may spoil or return False to skip it.
        skip: slices that are not written.
        names: file name of slice k.
        slope, inter: rescale; the stored values are int16.
        series_uid, study_uid, patient_id, modality: as named.
        tags: further attributes by keyword, for every slice.
    """
    folder.mkdir(parents=True, exist_ok=True)
    series = series_uid or generate_uid()
    study = study_uid or generate_uid()
    frame = generate_uid()
    for k in range(volume.geometry.shape[2]):
        if k in skip:
            continue
        dataset = _slice(volume, k, slope, inter)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = study, series, frame
        dataset.PatientID, dataset.Modality = patient_id, modality
        for keyword, value in tags.items():
            setattr(dataset, keyword, value)
        if fault is None or fault(dataset, k) is not False:
            dataset.save_as(folder / names(k), enforce_file_format=True)
    return folder


def _slice(volume: Volume, k: int, slope: float, inter: float) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.PatientName, dataset.SeriesDescription = PLANTED_NAME, f"for {PLANTED_NAME}"
    dataset.StudyDate, dataset.ImageType = "20010203", ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.InstanceNumber, dataset.AcquisitionNumber = k + 1, 1
    dataset.PatientPosition = "HFS"
    _place(dataset, volume, k)
    stored = np.round((volume.hu[:, :, k].T.astype(np.float64) - inter) / slope).astype(np.int16)
    _put_pixels(dataset, stored)
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = slope, inter, "HU"
    return dataset


def _place(dataset: FileDataset, volume: Volume, k: int) -> None:
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
    spacing = volume.spacing_mm
    dataset.ImagePositionPatient = [_decimal(v) for v in (lps @ [0, 0, k, 1])[:3]]
    columns, rows = lps[:3, 0] / spacing[0], lps[:3, 1] / spacing[1]
    dataset.ImageOrientationPatient = [_decimal(v) for v in (*columns, *rows)]
    dataset.PixelSpacing = [_decimal(spacing[1]), _decimal(spacing[0])]
    dataset.SliceThickness = _decimal(spacing[2])


def write_enhanced_ct(
    path: Path,
    volume: Volume,
    *,
    order: Sequence[int] | None = None,
    slope: Callable[[int], float] = lambda k: 1.0,
    series_uid: str | None = None,
    study_uid: str | None = None,
    phase: int = 1,
) -> Path:
    """Write `volume` as one Enhanced CT object; frame n shows slice `order[n]`, with a rescale of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    order = list(order if order is not None else range(volume.geometry.shape[2]))
    dataset = _slice(volume, 0, 1.0, -1024.0)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study_uid or generate_uid(), series_uid or generate_uid()
    dataset.PatientID, dataset.Modality, dataset.NumberOfFrames = "PLANTED-ID-7", "CT", len(order)
    one = {k: _slice(volume, k, slope(k), -1024.0) for k in order}
    dataset.SharedFunctionalGroupsSequence = [Dataset()]
    shared = dataset.SharedFunctionalGroupsSequence[0]
    shared.PixelMeasuresSequence = [_item(one[0], "PixelSpacing", "SliceThickness")]
    shared.PlaneOrientationSequence = [_item(one[0], "ImageOrientationPatient")]
    dataset.PerFrameFunctionalGroupsSequence = [_frame_groups(one[k], phase) for k in order]
    dataset.PixelData = b"".join(one[k].PixelData for k in order)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope"):
        delattr(dataset, keyword)
    del dataset.RescaleIntercept, dataset.RescaleType
    dataset.save_as(path, enforce_file_format=True)
    return path


def _item(source: Dataset, *keywords: str) -> Dataset:
    item = Dataset()
    for keyword in keywords:
        setattr(item, keyword, source[keyword].value)
    return item


def _frame_groups(one: Dataset, phase: int) -> Dataset:
    groups, content = Dataset(), Dataset()
    content.FrameAcquisitionNumber = phase
    groups.FrameContentSequence = [content]
    groups.PlanePositionSequence = [_item(one, "ImagePositionPatient")]
    groups.PixelValueTransformationSequence = [_item(one, "RescaleSlope", "RescaleIntercept", "RescaleType")]
    return groups


def _decimal(value: float) -> str:
    return f"{value:.10g}"[:16]


def _put_pixels(dataset: FileDataset, stored: Array) -> None:
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 1
    dataset.PixelData = stored.astype("<i2").tobytes()


def edit_dicom(path: Path, change: Callable[[pydicom.Dataset], object]) -> Path:
    """Read one written slice, change it, and write it in place."""
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)
    return path


def write_two_and_a_damaged(folder: Path) -> Path:
    """Two bodies of different size, small.nii.gz and large.nii.gz, and broken.nii.gz; returns the folder."""
    small = write_nifti(folder / "small.nii.gz", phantom_volume(SMALL, (5.0, 5.0, 5.5), orientation="LPS"))
    write_nifti(folder / "large.nii.gz", phantom_volume(LARGE, (5.0, 5.0, 5.5), seed=2))
    (folder / "broken.nii.gz").write_bytes(small.read_bytes()[:2000])
    return folder
