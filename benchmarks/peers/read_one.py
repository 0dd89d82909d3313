"""Read cases with one peer's reader, each in a forked process under limits. Runs in the peer's own environment.

    python read_one.py READER JOBS.json OUT

JOBS: `[{"name", "path"}]`. For each case OUT gets NAME.npz (array, affine to RAS mm) where the reader returned a
volume, and NAME.json (what it said). Knows nothing of this project: numpy and the peer are all that it imports.
"""

import contextlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

LIMIT_S, MEMORY = 60, 8 << 30
FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_nibabel(path):
    """Any file, by nibabel."""
    import nibabel

    image = nibabel.load(path)
    return np.asarray(image.get_fdata(dtype=np.float32)), image.affine


def _itk(image):
    import SimpleITK as sitk  # noqa: N813

    n = image.GetDimension()
    affine = np.eye(4)
    scaled = np.array(image.GetDirection()).reshape(n, n) * np.array(image.GetSpacing())
    affine[: min(n, 3), : min(n, 3)] = scaled[:3, :3]
    affine[: min(n, 3), 3] = image.GetOrigin()[:3]
    return sitk.GetArrayFromImage(image).T.astype(np.float32), FLIP @ affine


def read_simpleitk(path):
    """A file, or the first series of a folder, by SimpleITK."""
    import SimpleITK as sitk  # noqa: N813

    if not path.is_dir():
        return _itk(sitk.ReadImage(str(path)))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(path)))
    return _itk(reader.Execute())


def read_dicom2nifti(path):
    """A folder, by dicom2nifti."""
    import dicom2nifti
    import nibabel

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.nii.gz"
        dicom2nifti.dicom_series_to_nifti(str(path), str(out), reorient_nifti=False)
        image = nibabel.load(out)
        return np.asarray(image.get_fdata(dtype=np.float32)), image.affine


def read_dcm2niix(path):
    """A folder, by dcm2niix's command."""
    import nibabel

    tool = Path(sys.executable).with_name("dcm2niix")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([tool, "-z", "n", "-o", folder, path], capture_output=True, text=True, check=False)
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("Warning", "Error"))]
        print("\n".join(said), file=sys.stderr)
        made = sorted(Path(folder).glob("*.nii"))
        if done.returncode or not made:
            raise RuntimeError(f"exit code {done.returncode}, {len(made)} volumes: {' '.join(said)[:200]}")
        image = nibabel.load(made[-1])
        if len(made) > 1:
            print(f"{len(made)} volumes were written", file=sys.stderr)
        return np.asarray(image.get_fdata(dtype=np.float32)), image.affine


def read_monai(path):
    """A file or folder, by MONAI's LoadImage."""
    from monai.transforms import LoadImage

    image = LoadImage(reader="PydicomReader" if path.is_dir() or path.suffix == ".dcm" else None)(path)
    return np.asarray(image, dtype=np.float32), np.asarray(image.affine, dtype=float)


def _nnunet(reader, path):
    voxels, properties = reader.read_images([str(path)])
    if "nibabel_stuff" in properties:
        affine = properties["nibabel_stuff"]["original_affine"]
        return np.asarray(voxels[0]).transpose(2, 1, 0), affine
    facts = properties["sitk_stuff"]
    affine = np.eye(4)
    affine[:3, :3] = np.array(facts["direction"]).reshape(3, 3) * np.array(facts["spacing"])
    affine[:3, 3] = facts["origin"]
    return np.asarray(voxels[0]).transpose(2, 1, 0), FLIP @ affine


def read_nnunet_sitk(path):
    """A file, by nnU-Net's default reader."""
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    return _nnunet(SimpleITKIO(), path)


def read_nnunet_nibabel(path):
    """A file, by nnU-Net's nibabel reader."""
    from nnunetv2.imageio.nibabel_reader_writer import NibabelIO

    return _nnunet(NibabelIO(), path)


def warm_up(reader):
    """Import once, so that every fork has it."""
    module = {
        "nibabel": "nibabel",
        "simpleitk": "SimpleITK",
        "dicom2nifti": "dicom2nifti",
        "dcm2niix": "nibabel",
        "monai": "monai.transforms",
        "nnunet_sitk": "nnunetv2.imageio.simpleitk_reader_writer",
        "nnunet_nibabel": "nnunetv2.imageio.nibabel_reader_writer",
    }[reader]
    __import__(module)


def in_child(read, job, out):
    """Read one case in this (forked) process and leave."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    stderr = os.open(out / f"{job['name']}.stderr", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(stderr, 2)
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", closefd=False), write_through=True)
    answer = {"status": "read"}
    try:
        with warnings.catch_warnings(record=True) as said, contextlib.redirect_stdout(sys.stderr):
            warnings.simplefilter("always")
            array, affine = read(Path(job["path"]))
        answer["warnings"] = [
            str(one.message)[:200] for one in said if one.category not in (DeprecationWarning, FutureWarning)
        ]
        np.savez(out / f"{job['name']}.npz", array=array, affine=affine)
    except BaseException as error:
        answer = {"status": "refused", "error": f"{type(error).__name__}: {error}"[:300]}
    (out / f"{job['name']}.json").write_text(json.dumps(answer))
    os._exit(0)


def watch(child):
    """How the forked process ended: '' by itself, else what befell it."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return f"killed by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else ""
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return f"still running after {LIMIT_S} s"


def main():
    """Read all jobs with one reader."""
    reader, jobs, out = sys.argv[1], json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3])
    out.mkdir(parents=True, exist_ok=True)
    warm_up(reader)
    for job in jobs:
        child = os.fork()
        if child == 0:
            in_child(globals()[f"read_{reader}"], job, out)
        if fate := watch(child):
            (out / f"{job['name']}.json").write_text(json.dumps({"status": "crashed", "error": fate}))


if __name__ == "__main__":
    main()
