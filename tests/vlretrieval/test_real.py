"""Real CTs of four parts of the body: words find the right ones, a scan finds its like."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

pytest.importorskip("lancedb")
pytest.importorskip("sklearn")
from vlretrieval.cli import main

pytestmark = [pytest.mark.real, pytest.mark.slow]
HEADS = {"pt_100_ct", "pt_210_ct"}
THIGHS = {"sts_001", "sts_003", "sts_005"}


def run(*arguments: str | Path) -> str:
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(io.StringIO()), pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    assert left.value.code == 0
    return out.getvalue()


@pytest.fixture(scope="module")
def archive(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive") / "archive"
    heads = [real_data / "openkbp_hn" / place for place in ("train/pt_100_ct.nii.gz", "validation/pt_210_ct.nii.gz")]
    rest = real_data / "multi_organ" / "example_ct_sm.nii.gz"
    assert "7 indexed" in run("index", real_data / "dicom", rest, *heads, "-a", folder)
    return folder


def names(archive: Path, *question: str | Path) -> list[str]:
    return [hit["name"] for hit in json.loads(run("search", *question, "-a", archive, "--json"))["hits"]]


@pytest.mark.parametrize("words", ["parotid", "腮腺", "head and neck", "enlarged right parotid", "mandible"])
def test_words_of_heads_find_heads_alone(archive: Path, words: str) -> None:
    assert set(names(archive, words)) == HEADS


def test_other_parts_of_the_body(archive: Path) -> None:
    assert set(names(archive, "thigh")) == THIGHS
    assert "crlm_ct_1004" in names(archive, "abdomen")
    assert not HEADS & set(names(archive, "no parotid"))
    assert set(names(archive, "parotid > 1 l")) == set()
    assert names(archive, "slice thickness >= 5 mm") == ["crlm_ct_1004"]


def test_a_thigh_finds_thighs_and_a_head_heads_first(archive: Path, real_data: Path) -> None:
    assert set(names(archive, "--like", real_data / "dicom" / "sts_003.zip")[:2]) == THIGHS - {"sts_003"}
    head = real_data / "openkbp_hn" / "validation" / "pt_235_ct.nii.gz"  # not in the archive
    assert set(names(archive, "--like", head)[:2]) == HEADS


def test_a_deleted_patients_bytes_are_in_no_file(archive: Path) -> None:
    """Last: it changes the archive."""
    held = b"".join(path.read_bytes() for path in archive.rglob("*") if path.is_file())
    assert b"sts_003" in held
    run("delete", "sts_003", "-a", archive)
    left = b"".join(path.read_bytes() for path in archive.rglob("*") if path.is_file())
    assert b"sts_003" not in left
    assert set(names(archive, "thigh")) == THIGHS - {"sts_003"}
