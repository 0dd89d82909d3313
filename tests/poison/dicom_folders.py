"""D: DICOM folders with other objects, odd names and odd tags among the slices."""

from __future__ import annotations

from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    MRImageStorage,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
)

from tests.dicom_edits import of_class, only, tags
from tests.phantoms import write_dicom_series
from tests.poison.base import FINE, base, case, refused, series, simple, slices, warned


@case("D31", "DICOMDIR, reports and system files beside the slices", FINE)
def _(folder: Path) -> Path:
    made = series(folder, names=lambda k: f"{k:08d}")
    for name in ("DICOMDIR", ".DS_Store", "Thumbs.db", "readme.txt", "._00000001"):
        (made / name).write_bytes(b"DICM junk" * 40)
    return made


@case("D33", "without preamble", FINE)
def _(folder: Path) -> Path:
    made = series(folder, names=lambda k: f"{k}")
    for path in made.iterdir():
        plain = Dataset(pydicom.dcmread(path))
        pydicom.dcmwrite(path, plain, implicit_vr=True, little_endian=True, enforce_file_format=False)
    return made


@case("D34", "RTSTRUCT, PET and a screenshot in the folder", FINE)
def _(folder: Path) -> Path:
    made = series(folder)
    for number, (uid, modality) in enumerate(
        (
            (RTStructureSetStorage, "RTSTRUCT"),
            ("1.2.840.10008.5.1.4.1.1.128", "PT"),
            (SecondaryCaptureImageStorage, "OT"),
        )
    ):
        names = {"names": lambda k, n=number: f"extra{n}_{k}"}
        write_dicom_series(made, base(2), skip=range(2, 22), fault=of_class(uid, modality), **names)
    return made


simple("D35", "secondary captures called CT", refused("NotCTError"), of_class(SecondaryCaptureImageStorage, "CT"))
simple("D35b", "maximum intensity projection", warned("derived"), tags(ImageType=["DERIVED", "SECONDARY", "MIP"]))
simple("D36", "burned-in text", warned("burned_in"), tags(BurnedInAnnotation="YES"))


def _nested(dataset: Dataset, k: int) -> None:
    inner = Dataset()
    for _ in range(40):
        outer = Dataset()
        outer.add_new(0x00091010, "SQ", [inner])
        inner = outer
    dataset.add_new(0x00091010, "SQ", [inner])
    dataset.add_new(0x00091011, "UT", "x" * 200_000)


simple("D37", "private sequences 40 deep, a long text", FINE, _nested)
simple("D38", "names in Japanese", FINE,
        tags(SpecificCharacterSet="ISO_IR 192", PatientName="山田^太郎", PatientID="患者"))  # fmt: skip


@case("D38b", "character set that does not exist", FINE)
def _(folder: Path) -> Path:
    made = series(folder, SpecificCharacterSet="ISO_IR 100")
    for path in slices(made):
        path.write_bytes(path.read_bytes().replace(b"ISO_IR 100", b"NO SUCH 10"))
    return made


simple("D42", "date in the future, no patient", FINE, tags(StudyDate="29990101", PatientID=""))
simple("D43", "MR", refused("NotCTError"), of_class(MRImageStorage, "MR"))
simple("D43b", "MR modality in CT objects", refused("NotCTError"), tags(Modality="MR"))


@case("D50", "zeros behind the data set", warned("trailing_bytes"))
def _(folder: Path) -> Path:
    made = series(folder)
    for path in slices(made):
        path.write_bytes(path.read_bytes() + bytes(400))
    return made


def _table(dataset: Dataset, k: int) -> None:
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [4096, 0, 16], "HU"
    table.add_new(0x00283006, "OW", bytes(2 * 4096))
    dataset.ModalityLUTSequence = [table]


simple(
    "D51",
    "slices in two frames of reference",
    warned("frames_of_reference"),
    only(4, tags(FrameOfReferenceUID="1.2.3.9")),
)
simple("D52", "table of values beside the rescale", refused("NotHUError"), _table)
simple("D53", "iodine map", warned("computed"), tags(ImageType=["DERIVED", "PRIMARY", "AXIAL", "IODINE"]))
