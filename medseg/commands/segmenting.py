"""Commands about scans: segment them, take the patient out of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from medseg.commands.arguments import Out

Backend = Literal["auto", "torch", "onnxruntime", "openvino", "tensorrt"]
Precision = Literal["auto", "fp32", "bf16", "fp16", "int8"]


def segment(
    paths: Positional[tuple[Path, ...]],
    /,
    out: Out,
    model: str = "head-neck-oar",
    series: str | None = None,
    force: bool = False,
    workers: int = 1,
    backend: Backend | None = None,
    precision: Precision = "auto",
    max_memory: str | None = None,
    localiser: str | None = None,
    accept: str | None = None,
    probabilities: str = "",
    formats: Annotated[str, arg(name="format", metavar="NAME,NAME")] = "nifti,csv",
) -> int:
    """Segment CT scans: named organs, their volumes, a mask on the scan's own grid.

    Writes one folder per study under OUT with mask.nii.gz, labels.json, measurements.csv
    and .json, preview.png and run.json, and a manifest of all studies beside them.
    Finished and unchanged studies are not computed again.

    Exit codes: 0 all fine, 3 some studies failed, 1 all failed, 130 interrupted. Where nothing could be started:
    64 a setting, 65 no study found, 66 the model, 74 OUT.

    Args:
        paths: NIfTI, NRRD or MHA files, DICOM folders, zips of one, or folders of studies.
        out: Folder for the results.
        model: Name of an installed model (see `medseg models`) or folder of a package.
        series: Number or UID of the CT series, where a folder holds several.
        force: Compute again what is already finished.
        workers: Studies at the same time; each takes memory of its own.
        backend: What runs the network. `auto` ($MEDSEG_BACKEND, if set, instead) measures what is installed once
            per machine and model, and takes the fastest.
        precision: Of the network's arithmetic; `auto` takes what is fastest here.
        max_memory: What a process may take, e.g. 4GB: the work is cut to keep it, or refused by name. If not
            given, it is cut to what is free, as far as that goes.
        localiser: A quick model that names some of the same organs: it looks where they are, and MODEL works only
            there (a coarse model before a fine one of a long scan).
        accept: A reason to go on with scans that are no CT or hold no Hounsfield units. It stands in the findings and
            the run report. Damaged files and contradicting geometry stay refused.
        probabilities: Organs whose probability is written as well, e.g. brainstem,mandible or all:
            probability_ORGAN.nii.gz, 0 to 100 per cent at every voxel, as the network gives it.
        formats: Further files beside these: dicom-seg, dicom-seg-labelmap, rtstruct (of DICOM scans), stl, glb,
            seg.nrrd (3D Slicer), report-html, report-pdf. Needs medseg[exports].
    """
    from medseg.exports import parse_formats
    from medseg.jobs.console import run_and_report
    from medseg.runtime.options import Options

    return run_and_report(
        paths,
        out,
        model=model,
        series=series,
        force=force,
        workers=workers,
        options=Options.asked(backend, precision, max_memory, localiser, accept, probabilities),
        formats=parse_formats(formats),
    )


def deidentify(study: Positional[Path], /, out: Out) -> int:
    """Write a de-identified copy of a DICOM folder (PS3.15 basic profile); pixels are left as they are.

    Args:
        study: DICOM folder.
        out: Folder for the copies, which are numbered.
    """
    from medseg.imaging.deidentify import deidentify_folder

    for finding in deidentify_folder(study, out):
        print(f"Note: {finding}")
    print(f"De-identified copy: {out}")
    return 0
