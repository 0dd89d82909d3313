"""Fingerprints, rows and places: the parts that decide what is computed again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medseg.errors import OutputError
from medseg.jobs.folders import check_place
from medseg.jobs.manifest import ManifestRow, fingerprint, read_manifest, shown_path
from tests.phantoms import phantom_volume, write_dicom_series


def test_the_fingerprint_of_a_file_follows_its_size_and_time(tmp_path: Path) -> None:
    source = tmp_path / "a.nii"
    source.write_text("one")
    first = fingerprint(source)
    assert fingerprint(source) == first
    os.utime(source, ns=(1, 1))
    assert fingerprint(source) != first
    os.utime(source, ns=(1, 1))
    touched = fingerprint(source)
    source.write_text("longer")
    os.utime(source, ns=(1, 1))
    assert fingerprint(source) != touched


def test_the_fingerprint_of_a_folder_follows_every_file_in_it(tmp_path: Path) -> None:
    (tmp_path / "s" / "deep").mkdir(parents=True)
    (tmp_path / "s" / "1.dcm").write_text("1")
    first = fingerprint(tmp_path / "s")
    (tmp_path / "s" / "deep" / "2.dcm").write_text("2")
    second = fingerprint(tmp_path / "s")
    (tmp_path / "s" / "1.dcm").rename(tmp_path / "s" / "0.dcm")
    assert len({first, second, fingerprint(tmp_path / "s")}) == 3


def test_a_detached_header_counts_with_its_voxels(tmp_path: Path) -> None:
    """Whatever the two are called."""
    (tmp_path / "a.mhd").write_text("ObjectType = Image\nElementDataFile = a.raw\n")
    (tmp_path / "c.nhdr").write_text("NRRD0004\ntype: short\ndata file: c.raw.gz\n")
    (tmp_path / "d.nrrd").write_text("NRRD0004\nDATAFILE: voxels\n")
    for header, voxels in {"a.mhd": "a.raw", "c.nhdr": "c.raw.gz", "d.nrrd": "voxels"}.items():
        (tmp_path / voxels).write_text("voxels")
        first = fingerprint(tmp_path / header)
        (tmp_path / "b.raw").write_text(f"others than {voxels}")
        assert fingerprint(tmp_path / header) == first
        (tmp_path / voxels).write_text("other voxels")
        assert fingerprint(tmp_path / header) != first


def test_a_slice_counts_with_the_slices_beside_it(tmp_path: Path) -> None:
    """A transfer that goes on after one slice was given makes another study of it."""
    study = write_dicom_series(tmp_path / "study", phantom_volume((24, 20, 18), (7.0, 7.0, 7.5)))
    one, last = study / "IM0001.dcm", study / "IM0017.dcm"
    whole = fingerprint(one)
    assert fingerprint(study / "IM0002.dcm") != whole  # which may be of another series
    (study / "manifest.json").write_text("{}")
    assert fingerprint(one) == whole
    last.rename(tmp_path / "last")
    half = fingerprint(one)
    assert half != whole
    (study / "bare").write_bytes((tmp_path / "last").read_bytes())
    assert fingerprint(one) not in (half, whole)


def test_what_is_missing_or_a_dead_link_has_a_fingerprint_too(tmp_path: Path) -> None:
    assert fingerprint(tmp_path / "nothing.nii") == ""
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "dead.dcm").symlink_to(tmp_path / "nothing")
    assert len(fingerprint(tmp_path / "s")) == 64


def test_a_manifest_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").mkdir()
    for out in (tmp_path, tmp_path / ("n" * 300)):
        with pytest.raises(OutputError, match=r"manifest\.json cannot be read"):
            read_manifest(out)
    assert read_manifest(tmp_path / "nothing") == []


def test_a_path_that_is_no_utf8_is_shown_escaped(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.nii"))
    assert shown_path(path) == f"{tmp_path}/caf\\xe9.nii"


def test_a_row_of_another_version_is_another_task() -> None:
    row = ManifestRow("a", "/a", "done", version="1")
    assert row.same_task(ManifestRow("b", "/b", "failed", version="1"))
    assert not row.same_task(ManifestRow("a", "/a", "done", version="2"))


def test_a_file_or_link_is_no_place_for_a_result(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("file", "link"):
        with pytest.raises(OutputError, match="is no result of medseg"):
            check_place(tmp_path / name)
