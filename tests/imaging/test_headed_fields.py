"""Every line of an NRRD or MetaImage header that decides: what may stand there, what may not."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medseg import errors
from medseg.imaging import Volume, read_volume
from medseg.imaging.volume import LPS_TO_RAS
from tests.phantoms import phantom_volume

SMALL = phantom_volume((24, 20, 18), (7.0, 6.5, 7.5), orientation="SPL")
VOXELS = SMALL.hu.astype("<i2").tobytes(order="F")


def _mha(path: Path, content: bytes = VOXELS, drop: str = "", scale: float = 1.0, **lines: str) -> Path:
    """MetaImage by hand: these lines, some replaced or added, one dropped."""
    lps = LPS_TO_RAS @ SMALL.affine
    fields = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "TransformMatrix": " ".join(f"{v:g}" for v in (lps[:3, :3] / SMALL.spacing_mm).T.ravel()),
        "Offset": " ".join(f"{v * scale:.9g}" for v in lps[:3, 3]),
        "ElementSpacing": " ".join(f"{v * scale:.9g}" for v in SMALL.spacing_mm),
        "DimSize": " ".join(map(str, SMALL.hu.shape)),
        "ElementType": "MET_SHORT",
    }
    fields = {name: text for name, text in (fields | lines).items() if name != drop} | {"ElementDataFile": "LOCAL"}
    path.write_bytes("".join(f"{name} = {text}\n" for name, text in fields.items()).encode() + content)
    return path


def _nrrd(path: Path, content: bytes = VOXELS, drop: str = "", **lines: str) -> Path:
    """NRRD by hand; in names of lines `_` stands for a blank."""
    lps = LPS_TO_RAS @ SMALL.affine
    fields = {
        "type": "short",
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": " ".join(map(str, SMALL.hu.shape)),
        "space directions": " ".join(f"({','.join(f'{v:g}' for v in axis)})" for axis in lps[:3, :3].T),
        "kinds": "domain domain domain",
        "endian": "little",
        "encoding": "raw",
        "space origin": f"({','.join(f'{v:.9g}' for v in lps[:3, 3])})",
    }
    fields |= {name.replace("_", " "): text for name, text in lines.items()}
    head = "NRRD0004\n# by hand\n" + "".join(f"{n}: {text}\n" for n, text in fields.items() if n != drop)
    path.write_bytes(head.encode() + b"\n" + content)
    return path


def _same(volume: Volume) -> None:
    assert np.array_equal(volume.hu, SMALL.hu)
    np.testing.assert_allclose(volume.affine, SMALL.affine, atol=1e-4)
    assert volume.findings == ()


MHA_SOUND: dict[str, dict[str, str]] = {
    "as it is": {},
    "nothing said of binary": {"drop": "BinaryData"},
    "nothing said of the byte order": {"drop": "BinaryDataByteOrderMSB"},
    "both names of the byte order": {"ElementByteOrderMSB": "False"},
    "one channel": {"ElementNumberOfChannels": "1"},
    "no offset of the voxels": {"HeaderSize": "0"},
    "a rescale that changes nothing": {"ElementToIntensityFunctionSlope": "1", "ElementToIntensityFunctionOffset": "0"},
    "size instead of spacing": {"drop": "ElementSpacing", "ElementSize": "7.5 6.5 7"},
    "a fourth axis of length one": {
        "NDims": "4",
        "DimSize": "18 20 24 1",
        "TransformMatrix": "0 0 1 0 0 1 0 0 1 0 0 0 0 0 0 1",
        "ElementSpacing": "7.5 6.5 7 1",
        "Offset": "OFFSET 0",
    },
}


@pytest.mark.parametrize("case", MHA_SOUND)
def test_metaimage_headers_that_are_read(case: str, tmp_path: Path) -> None:
    lps = LPS_TO_RAS @ SMALL.affine
    lines = {k: v.replace("OFFSET", " ".join(f"{x:.9g}" for x in lps[:3, 3])) for k, v in MHA_SOUND[case].items()}
    _same(read_volume(_mha(tmp_path / "case.mha", **lines)))


def test_metaimage_of_submillimetre_voxels(tmp_path: Path) -> None:
    volume = read_volume(_mha(tmp_path / "case.mha", scale=0.1))
    assert volume.spacing_mm == pytest.approx((0.75, 0.65, 0.7))
    np.testing.assert_allclose(volume.affine[:3], 0.1 * SMALL.affine[:3], atol=1e-5)


MHA_REFUSED: dict[str, tuple[dict[str, str], type[errors.InputError], str]] = {
    "text": ({"BinaryData": "False"}, errors.NotVolumeError, "as text"),
    "offset of the voxels": ({"HeaderSize": "1"}, errors.NotVolumeError, "HeaderSize"),
    "offset to be guessed": ({"HeaderSize": "-1"}, errors.NotVolumeError, "HeaderSize"),
    "two channels": ({"ElementNumberOfChannels": "2"}, errors.NotVolumeError, "single values"),
    "a slope": ({"ElementToIntensityFunctionSlope": "2"}, errors.NotVolumeError, "rescaled"),
    "an intercept": ({"ElementToIntensityFunctionOffset": "1"}, errors.NotVolumeError, "rescaled"),
    "two byte orders": ({"ElementByteOrderMSB": "True"}, errors.CorruptFileError, "contradict"),
    "two origins": ({"Position": "1 2 3"}, errors.CorruptFileError, "contradict"),
    "one slice": ({"DimSize": "18 480 1"}, errors.NotVolumeError, "single slice"),
    "a length of 0": ({"DimSize": "18 0 24"}, errors.CorruptFileError, "size is not valid"),
    "two lengths": ({"DimSize": "18 480"}, errors.CorruptFileError, "size is not valid"),
    "two spacings": ({"ElementSpacing": "7 7"}, errors.GeometryError, "lacks spacing"),
    "a negative spacing": ({"ElementSpacing": "7 -7 7"}, errors.GeometryError, "spacing is 7 x -7"),
    "axes of another length": (
        {"TransformMatrix": "0 0 1.002 0 1.002 0 1.002 0 0"},
        errors.GeometryError,
        "1.002 instead of 1",
    ),
    "an axis of no length": ({"TransformMatrix": "0 0 1 0 1 0 0 0 0"}, errors.GeometryError, "length 1 x 1 x 0"),
    "an axis of no number": ({"TransformMatrix": "0 0 1 0 1 0 nan 0 0"}, errors.GeometryError, "NaN"),
}


@pytest.mark.parametrize("case", MHA_REFUSED)
def test_metaimage_headers_that_are_refused(case: str, tmp_path: Path) -> None:
    lines, kind, words = MHA_REFUSED[case]
    with pytest.raises(kind, match=r"case\.mha") as refused:
        read_volume(_mha(tmp_path / "case.mha", **lines))
    assert words in str(refused.value)


def test_a_bare_word_in_a_metaimage_header_is_refused(tmp_path: Path) -> None:
    path = _mha(tmp_path / "case.mha")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"ElementDataFile", b"CompressedData\nElementDataFile", 1))
    with pytest.raises(errors.CorruptFileError, match="CompressedData' without a value"):
        read_volume(path)


NRRD_SOUND: dict[str, dict[str, str]] = {
    "as it is": {},
    "space in short": {"space": "LPS"},
    "no kinds": {"drop": "kinds"},
    "kinds of space": {"kinds": "space space space"},
    "no skip": {"line_skip": "0", "byte_skip": "0"},
    "millimetres": {"space_units": '"mm" "mm" "mm"'},
    "another name of the type": {"type": "int16_t"},
}


@pytest.mark.parametrize("case", NRRD_SOUND)
def test_nrrd_headers_that_are_read(case: str, tmp_path: Path) -> None:
    _same(read_volume(_nrrd(tmp_path / "case.nrrd", **NRRD_SOUND[case])))


@pytest.mark.parametrize(("space", "flips"), [("ras", (1, 1, 1)), ("las", (-1, 1, 1)), ("lps", (-1, -1, 1))])
def test_nrrd_spaces_in_short(space: str, flips: tuple[int, int, int], tmp_path: Path) -> None:
    expected = np.diag([*flips, 1.0]) @ LPS_TO_RAS @ SMALL.affine
    np.testing.assert_allclose(read_volume(_nrrd(tmp_path / "case.nrrd", space=space)).affine, expected, atol=1e-4)


NRRD_REFUSED: dict[str, tuple[dict[str, str], type[errors.InputError], str]] = {
    "line skip": ({"line_skip": "1"}, errors.NotVolumeError, "offset"),
    "byte skip": ({"byteskip": "-1"}, errors.NotVolumeError, "offset"),
    "quantised": ({"old_min": "0"}, errors.NotVolumeError, "quantised"),
    "a kind that is no space": ({"kinds": "vector domain domain"}, errors.NotVolumeError, "vector"),
    "a type that is no number": ({"type": "block"}, errors.NotVolumeError, "'block'"),
    "no origin": ({"drop": "space origin"}, errors.GeometryError, "how the scan lies"),
    "no directions": ({"drop": "space directions"}, errors.GeometryError, "how the scan lies"),
    "an unknown space": ({"space": "scanner-xyz"}, errors.GeometryError, "how the scan lies"),
    "an origin of two numbers": ({"space_origin": "(1,2)"}, errors.CorruptFileError, "three numbers"),
    "no encoding": ({"drop": "encoding"}, errors.CorruptFileError, "encoding"),
    "said twice": ({"Type": "uint16"}, errors.CorruptFileError, "twice"),
    "one slice": ({"sizes": "18 480 1"}, errors.NotVolumeError, "single slice"),
}


@pytest.mark.parametrize("case", NRRD_REFUSED)
def test_nrrd_headers_that_are_refused(case: str, tmp_path: Path) -> None:
    lines, kind, words = NRRD_REFUSED[case]
    with pytest.raises(kind, match=r"case\.nrrd") as refused:
        read_volume(_nrrd(tmp_path / "case.nrrd", **lines))
    assert words in str(refused.value)


@pytest.mark.parametrize(("length", "fits"), [(260_000, True), (263_000, False)])
def test_a_header_of_a_quarter_of_a_megabyte(length: int, fits: bool, tmp_path: Path) -> None:
    path = _nrrd(tmp_path / "case.nrrd")
    path.write_bytes(path.read_bytes().replace(b"# by hand\n", (b"#" * 999 + b"\n") * (length // 1000)))
    if fits:
        _same(read_volume(path))
    else:
        with pytest.raises(errors.CorruptFileError, match="does not end"):
            read_volume(path)


PACKERS: dict[str, Callable[[bytes], bytes]] = {"gzip": lambda raw: gzip.compress(raw, 1), "gz": zlib.compress}


@pytest.mark.parametrize("encoding", PACKERS)
def test_what_lies_behind_packed_voxels(encoding: str, tmp_path: Path) -> None:
    packed = PACKERS[encoding](VOXELS)
    _same(read_volume(_nrrd(tmp_path / "zeros.nrrd", packed + bytes(64), encoding=encoding)))
    junk = read_volume(_nrrd(tmp_path / "junk.nrrd", packed + b"J" * 64, encoding=encoding))
    assert [finding.code for finding in junk.findings] == ["trailing_bytes"]
    assert "64 bytes longer" in str(junk.findings[0])
    more = read_volume(_nrrd(tmp_path / "more.nrrd", PACKERS[encoding](VOXELS + bytes(90)), encoding=encoding))
    assert "90 bytes longer" in str(more.findings[0])


@pytest.mark.parametrize(("extra", "words"), [(-2, "17,278 of 17,280"), (960, "960 bytes more")])
def test_packed_voxels_that_are_too_few_or_too_many(extra: int, words: str, tmp_path: Path) -> None:
    content = VOXELS[:extra] if extra < 0 else VOXELS + bytes(extra)
    with pytest.raises(errors.InputError, match=words):
        read_volume(_nrrd(tmp_path / "case.nrrd", gzip.compress(content), encoding="gzip"))


def test_packed_voxels_that_go_on_and_on(tmp_path: Path) -> None:
    bomb = gzip.compress(VOXELS + bytes(3 << 20))
    with pytest.raises(errors.CorruptFileError, match="far more data"):
        read_volume(_nrrd(tmp_path / "case.nrrd", bomb, encoding="gzip"))


def test_packed_metaimage_has_to_say_its_size(tmp_path: Path) -> None:
    packed = zlib.compress(VOXELS)
    says = {"CompressedData": "True", "CompressedDataSize": str(len(packed))}
    _same(read_volume(_mha(tmp_path / "case.mha", packed, **says)))
    for size, kind in ((len(packed) + 1, errors.TruncatedFileError), (len(packed) - 1, errors.CorruptFileError)):
        with pytest.raises(kind, match="bytes of packed voxels"):
            read_volume(_mha(tmp_path / "case.mha", packed, **says | {"CompressedDataSize": str(size)}))
    with pytest.raises(errors.CorruptFileError, match="CompressedDataSize"):
        read_volume(_mha(tmp_path / "case.mha", packed, CompressedData="True"))


@pytest.mark.parametrize("name", ["a%d.raw", "LIST2", ".", "sub/a.raw", "case.nhdr"])
def test_voxels_elsewhere_are_not_looked_for(name: str, tmp_path: Path) -> None:
    with pytest.raises(errors.InputError, match=r"case\.nhdr: (spreads|names itself)"):
        read_volume(_nrrd(tmp_path / "case.nhdr", b"", data_file=name))
