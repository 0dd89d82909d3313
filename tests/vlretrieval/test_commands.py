"""The commands as processes, on phantoms: index, search, kill and go on, delete."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

pytest.importorskip("lancedb")
pytest.importorskip("sklearn")
from tests.phantoms import PLANTED_NAME, edit_dicom, phantom_volume, write_dicom_series, write_nifti
from vlretrieval.archive import create_archive
from vlretrieval.cli import main
from vlretrieval.index import Step, index_studies
from vlretrieval.store import Store

SMALL, LARGE = (30, 26, 24), (36, 32, 30)


def process(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vlretrieval", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=250)


def vlretrieval(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The same without the seconds that a process takes to begin."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return subprocess.CompletedProcess(arguments, int(left.value.code or 0), out.getvalue(), err.getvalue())


def hits(*arguments: str | Path) -> list[dict[str, object]]:
    done = vlretrieval("search", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, object]] = json.loads(done.stdout)["hits"]
    return found


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two NIfTI, one DICOM with a patient's name and number, and a damaged file."""
    folder = tmp_path_factory.mktemp("scans")
    write_nifti(folder / "small.nii.gz", phantom_volume(SMALL, (5.0, 5.0, 5.5), orientation="LPS"))
    write_nifti(folder / "large.nii.gz", phantom_volume(LARGE, (5.0, 5.0, 5.5), seed=2))
    write_dicom_series(folder / "dicom", phantom_volume(SMALL, (5.0, 5.0, 5.5), orientation="LPS", seed=3))
    for path in (folder / "dicom").iterdir():
        edit_dicom(path, lambda header: setattr(header, "PatientID", "PLANTED-4711"))
    (folder / "broken.nii.gz").write_bytes((folder / "small.nii.gz").read_bytes()[:2000])
    return folder


@pytest.fixture(scope="module")
def archive(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the scans, indexed by a process; not to be changed."""
    folder = tmp_path_factory.mktemp("archive") / "archive"
    (folder.parent / "notes.csv").write_text("id,report\nlarge,Zebrafinch sign in the liver.\n")
    done = process("index", scans, "-a", folder, "--segmenter", "tissue-hu", "--notes", folder.parent / "notes.csv")
    assert done.returncode == 3, done.stderr
    assert "3 indexed, 0 unchanged, 1 failed." in done.stdout
    assert "broken.nii.gz" in done.stderr
    assert "Traceback" not in done.stderr
    return folder


def test_help_names_the_commands_and_brings_no_torch() -> None:
    said = process("--help").stdout
    assert all(
        word in said for word in ("index", "search", "delete", "export", "train", "evaluate", "Research use only")
    )
    script = Path(__file__).parents[2] / "scripts" / "build_index.py"
    done = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, timeout=100)
    assert "--segmenter" in done.stdout
    code = "import sys, vlretrieval.cli; print([m for m in ('torch', 'lancedb', 'transformers') if m in sys.modules])"
    quick = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert quick.stdout.strip() == "[]"


def test_no_name_or_number_of_a_patient_is_kept(archive: Path) -> None:
    held = b"".join(path.read_bytes() for path in archive.rglob("*") if path.is_file())
    assert b"PLANTED-4711" not in held
    assert PLANTED_NAME.encode() not in held


def test_the_same_command_computes_nothing_again(archive: Path, scans: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(archive, tmp_path / "archive")
    done = vlretrieval("index", scans, "-a", copy, "--segmenter", "tissue-hu")
    assert "0 indexed, 3 unchanged, 1 failed." in done.stdout
    assert done.returncode == 3
    other = vlretrieval("index", scans, "-a", copy, "--segmenter", "head-neck-oar")
    assert other.returncode != 0
    assert "cannot be mixed" in other.stderr


def test_words_find_a_report_and_filters_hold(archive: Path) -> None:
    (found,) = hits("zebrafinch sign", "-a", archive)
    assert found["name"] == "large"
    assert any("words: " in reason for reason in found["why"])  # type: ignore[attr-defined]
    every = hits("body > 0.1 l", "-a", archive)
    volumes = {hit["name"]: hit["measures"]["body_ml"] for hit in every}  # type: ignore[index]
    assert set(volumes) == {"small", "large", "dicom"}
    limit = sorted(volumes.values())[1]
    assert {hit["name"] for hit in hits(f"body > {limit:.0f} ml", "-a", archive)} <= set(volumes)
    assert hits("body > 900 l", "-a", archive) == []
    assert [hit["name"] for hit in hits("scan length > 15 cm", "-a", archive)] == ["large"]


def test_a_question_that_the_archive_cannot_answer(archive: Path) -> None:
    done = vlretrieval("search", "spleen > 300 ml", "-a", archive)
    assert done.returncode != 0
    assert "has not measured 'spleen'" in done.stderr
    plain = vlretrieval("search", "spleen", "-a", archive)
    assert plain.returncode == 0
    assert "does not know: spleen" in plain.stdout


def test_a_scan_finds_its_like_and_not_itself(archive: Path, scans: Path, tmp_path: Path) -> None:
    known = hits("--like", scans / "small.nii.gz", "-a", archive)
    assert [hit["name"] for hit in known] == ["dicom", "large"]
    new = write_nifti(tmp_path / "new.nii.gz", phantom_volume(SMALL, (5.0, 5.0, 5.5), seed=9))
    assert {hit["name"] for hit in hits("--like", new, "-a", archive, "-k", "2")} == {"small", "dicom"}
    by_organ = hits("--like", scans / "small.nii.gz", "--organ", "body", "-a", archive)
    assert by_organ[0]["name"] == "dicom"
    done = vlretrieval("search", "--like", new, "--organ", "spleen", "-a", archive)
    assert "no organ 'spleen'" in done.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--like", "scan.nii.gz", "--rerank"), "--rerank judges words"),
        (("body", "--organ", "body"), "--organ belongs to --like"),
    ],
)
def test_options_that_would_be_left_out_unsaid_are_refused(archive: Path, options: tuple[str, ...], told: str) -> None:
    done = vlretrieval("search", *options, "-a", archive)
    assert done.returncode != 0
    assert told in done.stderr


def test_the_page_of_hits(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done = process("search", "zebrafinch", "-a", archive)
    assert "large" in done.stdout
    assert "zebrafinch" in done.stdout
    assert "Nothing was found." in vlretrieval("search", "qwertz", "-a", archive).stdout
    unjudged = vlretrieval("search", "zebrafinch", "-a", archive, "--rerank").stdout
    assert "Not re-ranked: measured@1 has no matching head" in unjudged
    assert "re-ranked" not in vlretrieval("search", "qwertz", "-a", archive, "--rerank").stdout


def test_a_patient_is_deleted_by_number_or_by_study(archive: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(archive, tmp_path / "archive")
    done = vlretrieval("delete", "PLANTED-4711", "-a", copy)
    assert "Deleted: 1 studies" in done.stdout, done.stderr
    done = vlretrieval("delete", "large", "-a", copy)
    assert "1 studies are left." in done.stdout
    held = b"".join(path.read_bytes() for path in copy.rglob("*") if path.is_file())
    assert b"ebrafinch" not in held
    assert b"large.nii.gz" not in held
    assert b"small.nii.gz" in held
    assert vlretrieval("delete", "nobody", "-a", copy).returncode != 0


def test_a_deletion_that_was_killed_is_finished_by_the_same_command(archive: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(archive, tmp_path / "archive")
    store = Store.open(copy)
    keys = store.keys("name = 'large'")
    store._owe(keys, purge=True)  # as `delete` does before the first row goes
    store._studies.delete(f"key = {keys[0]}")
    done = vlretrieval("delete", "large", "-a", copy)
    assert done.returncode == 0, done.stderr
    assert "a deletion of 1 studies that had been left halfway" in done.stdout
    assert "2 studies are left" in done.stdout
    held = b"".join(path.read_bytes() for path in copy.rglob("*") if path.is_file())
    assert b"ebrafinch" not in held
    assert b"large.nii.gz" not in held
    assert vlretrieval("delete", "large", "-a", copy).returncode != 0


def test_notes_that_come_later_are_stored_and_those_about_nothing_told(
    archive: Path, scans: Path, tmp_path: Path
) -> None:
    copy, notes = shutil.copytree(archive, tmp_path / "archive"), tmp_path / "notes.csv"
    notes.write_text(f"id,patient,report\n{scans.name}/small.nii.gz,P1,Quokka sign.\nlarge,P1,\nlost,P9,\n")
    done = vlretrieval("index", scans, "-a", copy, "--segmenter", "tissue-hu", "--notes", notes)
    assert "0 indexed, 2 updated, 1 unchanged, 1 failed." in done.stdout, done.stderr
    assert "1 of 3 are about none of the studies: lost" in done.stderr
    (found,) = hits("quokka", "-a", copy)
    assert found["name"] == "small"
    assert "Deleted: 2 studies" in vlretrieval("delete", "P1", "-a", copy).stdout
    notes.write_text("id,patient\nscan,P1\n")
    for folder in ("A", "B"):
        (tmp_path / folder).mkdir()
        write_nifti(tmp_path / folder / "scan.nii.gz", phantom_volume(SMALL, (5.0, 5.0, 5.5)))
    refused = vlretrieval("index", tmp_path / "A", tmp_path / "B", "-a", copy, "--notes", notes)
    assert refused.returncode != 0
    assert "The note on scan could be about 2 studies" in refused.stderr


def test_parquet(archive: Path, tmp_path: Path) -> None:
    done = vlretrieval("export", tmp_path / "out", "-a", archive)
    assert [Path(line).name for line in done.stdout.split()] == ["studies.parquet", "organs.parquet"]


def test_an_archive_has_to_be_named_and_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLRETRIEVAL_ARCHIVE", raising=False)
    assert "No archive is named" in vlretrieval("search", "head").stderr
    monkeypatch.setenv("VLRETRIEVAL_ARCHIVE", str(tmp_path / "none"))
    assert "holds no archive" in vlretrieval("search", "head").stderr
    for command in (("delete", "P1"), ("export", tmp_path / "out")):
        assert "holds no archive" in vlretrieval(*command).stderr
    assert not any(tmp_path.iterdir())  # nothing is left behind of an archive that is not there
    assert "Nothing is looked for" in vlretrieval("search").stderr
    assert "no studies" in vlretrieval("index", tmp_path).stderr


def test_killed_in_the_middle_it_goes_on(tmp_path: Path) -> None:
    """SIGKILL after the first study is in; the rerun passes over what is there and adds the rest once."""
    scans, archive = tmp_path / "scans", tmp_path / "archive"
    scans.mkdir()
    for number in range(4):
        write_nifti(scans / f"scan{number}.nii.gz", phantom_volume(SMALL, (5.0, 5.0, 5.5), seed=number))
    command = [sys.executable, "-m", "vlretrieval", "index", str(scans), "-a", str(archive), "--segmenter", "tissue-hu"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    deadline = time.monotonic() + 200
    while "indexed" not in running.stderr.readline():
        assert time.monotonic() < deadline
    running.send_signal(signal.SIGKILL)
    running.communicate(timeout=60)
    before = len(Store.open(archive))
    assert 1 <= before < 4
    done = vlretrieval("index", scans, "-a", archive, "--segmenter", "tissue-hu")
    assert f"{4 - before} indexed, {before} unchanged, 0 failed." in done.stdout, done.stderr
    store = Store.open(archive)
    assert sorted(store.rows("name")) == [(f"scan{number}",) for number in range(4)]


def test_interrupted_it_keeps_what_is_in(scans: Path, tmp_path: Path) -> None:
    """Ctrl-C after the first study: it stays, the exit code says so, and the archive is whole."""

    def stop(step: Step) -> None:
        raise KeyboardInterrupt

    store, encoder = create_archive(str(tmp_path / "archive"), segmenter="tissue-hu")
    done = index_studies([scans / "small.nii.gz", scans / "large.nii.gz"], store, encoder, "tissue-hu", tell=stop)
    assert (done.exit_code, done.count("indexed"), len(store)) == (130, 1, 1)
    assert store.by_words("bone", 5).keys.tolist() == [1]
