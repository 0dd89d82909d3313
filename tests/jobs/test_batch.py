"""Batches of small studies, some broken, with real processes that are also killed."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from rich.console import Console

from medseg.errors import Cancelled, ConfigError, NoScanError, OutputError
from medseg.imaging.emit import sha256_file
from medseg.jobs.batch import run_batch
from medseg.jobs.console import BatchDisplay
from medseg.jobs.lock import LOCK, folder_lock
from medseg.jobs.report import BatchProgress, BatchReport
from medseg.jobs.studies import find_studies
from medseg.runtime.options import Options

from . import works


def scan(path: Path, value: float = 40.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    hu = np.full((6, 5, 4), -1000, np.int16)
    hu[2:4, 1:4, 1:3] = value
    nib.save(nib.Nifti1Image(hu, np.diag([2.0, 2.0, 3.0, 1.0])), path)
    return path


def orders(root: Path, **texts: str) -> list[Path]:
    root.mkdir(exist_ok=True)
    for name, text in texts.items():
        (root / f"{name}.nii.gz").write_text(text)
    return [root / f"{name}.nii.gz" for name in texts]


def act(studies: list[Path], out: Path, **options: object) -> BatchReport:
    return run_batch(studies, out, model="m", work=works.ACT, **options)  # type: ignore[arg-type]


def statuses(report: BatchReport) -> dict[str, str]:
    return {row.study: row.status for row in report.rows}


def manifest(out: Path) -> dict[str, dict[str, object]]:
    return {row["study"]: row for row in json.loads((out / "manifest.json").read_text())["studies"]}


def times(out: Path) -> dict[str, int]:
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in out.glob("[!.]*/*")}


def unfinished(out: Path) -> list[str]:
    return [path.name for path in out.iterdir() if path.name.startswith(".") and path.name != LOCK]


def test_a_bad_study_is_named_and_stops_no_other(tmp_path: Path) -> None:
    inputs, out = tmp_path / "in", tmp_path / "out"
    for number in range(3):
        scan(inputs / f"good{number}.nii.gz")
    (inputs / "cut.nii.gz").write_bytes((inputs / "good0.nii.gz").read_bytes()[:60])
    (inputs / "text.nii").write_text("no scan at all")
    report = run_batch(find_studies(inputs), out, model="m", work=works.THRESHOLD)
    assert (len(report.done), len(report.failed), report.exit_code) == (3, 2, 3)
    assert [row.study for row in report.failed] == ["cut", "text"]
    mask = nib.load(out / "good1" / "mask.nii.gz")
    assert int(np.asarray(mask.dataobj).sum()) == 12
    row = manifest(out)["good1"]
    assert row["mask_sha256"] == sha256_file(out / "good1" / "mask.nii.gz")
    assert (row["status"], row["model"], row["model_sha256"]) == ("done", "m", "sha-of-m")
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["good0", "good1", "good2"]
    assert unfinished(out) == []


def test_the_csv_says_what_the_json_says(tmp_path: Path) -> None:
    act(orders(tmp_path / "in", gap="gap", write="write"), tmp_path / "out")
    with (tmp_path / "out" / "manifest.csv").open() as file:
        gap, write = csv.DictReader(file)
    assert (gap["study"], gap["status"], gap["error"]) == ("gap", "failed", "MissingSlicesError")
    assert gap["message"] == "gap.nii.gz: slices 3 to 5 are missing."
    assert gap["advice"].startswith("Export the complete series again")
    assert write["path"] == str(tmp_path / "in" / "write.nii.gz")
    assert write["findings"].startswith("write by ")


def test_a_rerun_computes_only_what_failed(tmp_path: Path) -> None:
    studies, out = orders(tmp_path / "in", a="write", b="gap", c="write"), tmp_path / "out"
    act(studies, out)
    before = times(out)
    orders(tmp_path / "in", b="write")
    report = act(studies, out)
    assert statuses(report) == {"a": "skipped-unchanged", "b": "done", "c": "skipped-unchanged"}
    assert report.exit_code == 0
    assert {name: time_ns for name, time_ns in times(out).items() if name[0] != "b"} == before
    third = act(studies, out)
    assert len(third.unchanged) == 3


@pytest.mark.parametrize("damage", ["changed mask", "lost mask", "lost file", "lost folder"])
def test_what_was_damaged_is_computed_again(tmp_path: Path, damage: str) -> None:
    studies, out = orders(tmp_path / "in", a="write", b="write"), tmp_path / "out"
    act(studies, out)
    match damage:
        case "changed mask":
            (out / "a" / "mask.nii.gz").write_text("2")
        case "lost mask":
            (out / "a" / "mask.nii.gz").unlink()
        case "lost file":
            (out / "a" / "run.json").unlink()
        case _:
            (out / "a").rename(tmp_path / "moved")
    assert statuses(act(studies, out)) == {"a": "done", "b": "skipped-unchanged"}
    assert (out / "a" / "mask.nii.gz").read_text() == "1"
    kept = ["a.previous-1"] if damage == "changed mask" else []
    assert sorted(path.name for path in out.glob("[!.]*")) == ["a", *kept, "b", "manifest.csv", "manifest.json"]


@pytest.mark.parametrize("name", ["mask.nii.gz", "run.json"])
def test_what_was_corrected_in_place_is_kept_and_said(tmp_path: Path, name: str) -> None:
    """The mask is known by its digest, whatever its size; of other files the size is on record."""
    studies, out = orders(tmp_path / "in", a="write 17", b="write"), tmp_path / "out"
    act(studies, out)
    corrected = {"mask.nii.gz": "19", "run.json": "by hand"}[name]
    (out / "a" / name).write_text(corrected)
    with BatchDisplay(Console(file=io.StringIO(), width=200)) as show:
        report = act(studies, out, progress=show)
    assert statuses(report) == {"a": "done", "b": "skipped-unchanged"}
    assert (out / "a.previous-1" / name).read_text() == corrected
    assert (out / "a" / "mask.nii.gz").read_text() == "17"
    assert manifest(out)["a"]["kept"] == "a.previous-1"
    assert "the earlier result, which had been changed, is kept as a.previous-1" in show.console.file.getvalue()
    assert statuses(act(studies, out, force=True)) == {"a": "done", "b": "done"}
    assert not (out / "a.previous-2").exists()


def test_a_correction_survives_a_run_that_fails(tmp_path: Path) -> None:
    studies, out = orders(tmp_path / "in", a="write"), tmp_path / "out"
    act(studies, out)
    (out / "a" / "mask.nii.gz").write_text("corrected")
    (out / "a" / "run.json").unlink()
    orders(tmp_path / "in", a="gap")
    act(studies, out)
    assert [path.read_text() for path in out.glob("a*/mask.nii.gz")] == ["corrected"]


def test_changed_input_series_model_or_force_computes_again(tmp_path: Path) -> None:
    studies, out = orders(tmp_path / "in", a="write"), tmp_path / "out"
    act(studies, out)
    assert statuses(act(studies, out)) == {"a": "skipped-unchanged"}
    orders(tmp_path / "in", a="write 5")
    assert statuses(act(studies, out)) == {"a": "done"}
    assert (out / "a" / "mask.nii.gz").read_text() == "5"
    assert statuses(act(studies, out, series="2")) == {"a": "done"}
    assert statuses(act(studies, out, series="2", force=True)) == {"a": "done"}
    other = run_batch(studies, out, model="other", series="2", work=works.ACT)
    assert statuses(other) == {"a": "done"}


def test_what_was_accepted_is_part_of_the_task(tmp_path: Path) -> None:
    studies, out = orders(tmp_path / "in", a="write"), tmp_path / "out"
    for reason in ("phantom", "phantom, HU checked by hand", ""):
        assert statuses(act(studies, out, options=Options(accept=reason))) == {"a": "done"}
        assert statuses(act(studies, out, options=Options(accept=reason))) == {"a": "skipped-unchanged"}


def test_a_changed_study_that_fails_now_does_not_show_its_old_result(tmp_path: Path) -> None:
    studies, out = orders(tmp_path / "in", a="write"), tmp_path / "out"
    act(studies, out)
    orders(tmp_path / "in", a="gap")
    assert act(studies, out).exit_code == 1
    assert not (out / "a").exists()
    assert (out / "a.previous-1" / "mask.nii.gz").read_text() == "1"


def test_what_a_user_added_to_a_result_is_kept(tmp_path: Path) -> None:
    studies, out = orders(tmp_path / "in", a="write"), tmp_path / "out"
    act(studies, out)
    (out / "a" / "corrected.nii.gz").write_text("by hand")
    act(studies, out, force=True)
    assert (out / "a.previous-1" / "corrected.nii.gz").read_text() == "by hand"
    assert sorted(os.listdir(out / "a")) == ["mask.nii.gz", "run.json"]


def test_a_foreign_folder_is_not_touched(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "a").mkdir(parents=True)
    (out / "a" / "letters.txt").write_text("private")
    report = act(orders(tmp_path / "in", a="write", b="write"), out)
    assert statuses(report) == {"a": "failed", "b": "done"}
    assert report.failed[0].error == "OutputError"
    assert os.listdir(out / "a") == ["letters.txt"]


def test_equal_names_get_their_parents_and_keep_them_in_later_batches(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = scan(tmp_path / "day1" / "ct.nii.gz")
    assert statuses(run_batch([first], out, model="m", work=works.THRESHOLD)) == {"ct": "done"}
    second = scan(tmp_path / "day2" / "ct.nii.gz", 50)
    both = run_batch([second, first, second], out, model="m", work=works.THRESHOLD)
    assert statuses(both) == {"ct": "skipped-unchanged", "day2__ct": "done"}
    assert both.total == 2
    assert set(manifest(out)) == {"ct", "day2__ct"}


def test_studies_that_were_moved_keep_their_results(tmp_path: Path) -> None:
    studies, out = orders(tmp_path / "in", a="write", b="write"), tmp_path / "out"
    act(studies, out)
    (tmp_path / "in").rename(tmp_path / "moved")
    report = act(find_studies(tmp_path / "moved"), out)
    assert statuses(report) == {"a": "skipped-unchanged", "b": "skipped-unchanged"}
    assert manifest(out)["a"]["path"] == str(tmp_path / "moved" / "a.nii.gz")


def test_a_batch_of_other_studies_keeps_the_rows_of_the_first(tmp_path: Path) -> None:
    out = tmp_path / "out"
    act(orders(tmp_path / "one", a="write"), out)
    act(orders(tmp_path / "two", b="gap"), out)
    assert {name: row["status"] for name, row in manifest(out).items()} == {"a": "done", "b": "failed"}


def test_a_worker_that_is_killed_costs_its_study_alone(tmp_path: Path) -> None:
    report = act(orders(tmp_path / "in", a="write", b=f"die {works.SIGKILL}", c="write"), tmp_path / "out")
    assert statuses(report) == {"a": "done", "b": "failed", "c": "done"}
    assert report.failed[0].error == "ResourceError"
    assert report.failed[0].message.startswith("b.nii.gz: the process was killed")
    assert unfinished(tmp_path / "out") == []


def test_a_work_without_a_mask_is_a_failure(tmp_path: Path) -> None:
    report = act(orders(tmp_path / "in", a="empty"), tmp_path / "out")
    assert report.failed[0].message == "The result holds no mask.nii.gz."
    assert not (tmp_path / "out" / "a").exists()


def test_two_workers_share_the_studies(tmp_path: Path) -> None:
    texts = {f"s{number}": "slow 0.3" for number in range(4)}
    report = act(orders(tmp_path / "in", **texts), tmp_path / "out", workers=2)
    assert len(report.done) == 4
    assert len({row.findings[0] for row in report.rows}) == 2


def test_progress_counts_studies_and_estimates_the_time_left(tmp_path: Path) -> None:
    moments: list[BatchProgress] = []
    studies, out = orders(tmp_path / "in", a="write", b="gap"), tmp_path / "out"
    act(studies, out, progress=moments.append)
    assert moments[0] == BatchProgress(2, (), (), None)
    assert [(study, event.stage) for study, event in moments[1].running] == [("a", "start")]
    assert [(study, event.stage) for study, event in moments[2].running] == [("a", "read")]
    assert moments[2].seconds_left is not None
    assert moments[2].seconds_left > 0
    assert [row.study for row in moments[-1].rows] == ["a", "b"]
    assert (moments[-1].running, moments[-1].seconds_left) == ((), 0.0)


def test_a_progress_that_raises_cancelled_stops_the_batch(tmp_path: Path) -> None:
    def stop(moment: BatchProgress) -> None:
        if moment.rows:
            raise Cancelled

    report = act(orders(tmp_path / "in", a="write", b="slow 30"), tmp_path / "out", progress=stop)
    assert statuses(report) == {"a": "done"}
    assert (report.interrupted, report.exit_code) == (True, 130)
    assert unfinished(tmp_path / "out") == []


def test_two_batches_in_one_folder_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with folder_lock(out), pytest.raises(OutputError, match=f"in use by another batch .process {os.getpid()} on"):
        act(orders(tmp_path / "in", a="write"), out)
    assert len(act(orders(tmp_path / "in", a="write"), out).done) == 1


def test_impossible_batches_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    study = tmp_path / "study"
    study.mkdir()
    with pytest.raises(ConfigError, match="lies inside the study"):
        act([study], study / "out")
    with pytest.raises(NoScanError, match="no studies"):
        act([], tmp_path / "out")
    with pytest.raises(ConfigError, match="workers is 0"):
        act([study], tmp_path / "out", workers=0)
    with pytest.raises(OutputError, match=r"out\\xe9 is no UTF-8"):
        act([study], Path(os.fsdecode(os.fsencode(tmp_path) + b"/out\xe9")))
    assert list(tmp_path.iterdir()) == [study]


def test_a_damaged_manifest_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text('{"studies": [{"')
    with pytest.raises(OutputError, match=r"manifest\.json is damaged"):
        act(orders(tmp_path / "in", a="write"), tmp_path / "out")


def start_batch(inputs: Path, out: Path) -> subprocess.Popen[str]:
    call = f"run_and_report([Path({str(inputs)!r})], Path({str(out)!r}), model='m', work=works.ACT)"
    # A shell that starts the tests in the background has Ctrl-C ignored, and children inherit it.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += f"import sys; from pathlib import Path; from {works.HERE.rpartition('.')[0]} import works; "
    code += f"from medseg.jobs.console import run_and_report; sys.exit({call})"
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **path},
        start_new_session=True,
    )


def until(condition: object, timeout: float = 20.0) -> None:
    end = time.monotonic() + timeout
    while not condition() and time.monotonic() < end:  # type: ignore[operator]
        time.sleep(0.01)
    assert condition()  # type: ignore[operator]


def test_kill_and_rerun_computes_nothing_twice_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    inputs, out = tmp_path / "in", tmp_path / "out"
    studies = orders(inputs, **{f"s{number}": "slow 0.15" for number in range(8)})
    computed: dict[str, int] = {}
    for wanted in (2, 5):
        batch = start_batch(inputs, out)
        until(lambda wanted=wanted: len(list(out.glob("s*/mask.nii.gz"))) >= wanted)
        batch.send_signal(signal.SIGKILL)
        batch.communicate()
        assert all(sorted(os.listdir(folder)) == ["mask.nii.gz", "run.json"] for folder in out.glob("s*"))
        assert computed.items() <= times(out).items()
        computed = times(out)
    report = act(studies, out)
    assert {row.study for row in report.unchanged} == {Path(name).parts[0] for name in computed}
    assert len(report.unchanged) + len(report.done) == 8
    assert computed.items() <= times(out).items()
    assert unfinished(out) == []
    assert {row["part"] for row in manifest(out).values()} == {""}


def test_a_result_on_record_but_not_yet_renamed_is_finished_by_the_rerun(tmp_path: Path) -> None:
    studies, out = orders(tmp_path / "in", a="write"), tmp_path / "out"
    act(studies, out)
    (out / "a").rename(out / ".medseg-part-x")
    text = (out / "manifest.json").read_text().replace('"part": ""', '"part": ".medseg-part-x"')
    (out / "manifest.json").write_text(text)
    before = (out / ".medseg-part-x" / "mask.nii.gz").stat().st_mtime_ns
    assert statuses(act(studies, out)) == {"a": "skipped-unchanged"}
    assert (out / "a" / "mask.nii.gz").stat().st_mtime_ns == before


def test_ctrl_c_leaves_a_valid_manifest_and_says_how_to_go_on(tmp_path: Path) -> None:
    inputs, out = tmp_path / "in", tmp_path / "out"
    orders(inputs, a="write", b="slow 30", c="write")
    batch = start_batch(inputs, out)
    until(lambda: (out / "a").exists() and list(out.glob(".medseg-part-*/half.txt")))
    os.killpg(batch.pid, signal.SIGINT)
    shown, errors = batch.communicate(timeout=60)
    assert batch.returncode == 130
    assert "1 done, 0 unchanged, 0 failed, 2 not reached." in shown
    assert "The same command goes on where it stopped." in shown
    assert "Traceback" not in errors
    assert list(manifest(out)) == ["a"]
    assert unfinished(out) == []


def test_the_terminal_gets_a_line_for_each_study_and_a_summary(tmp_path: Path) -> None:
    inputs, out = tmp_path / "in", tmp_path / "out"
    orders(inputs, a="write", b="gap")
    (inputs / "notes.txt").write_text("not a scan")
    batch = start_batch(inputs, out)
    shown, told = batch.communicate(timeout=20)
    assert batch.returncode == 3
    assert f"skipped    {inputs}/notes.txt is not a scan." in told
    assert re.search(r"^done       a \(\d+ s\)$", told, re.MULTILINE)
    assert "failed     b: b.nii.gz: slices 3 to 5 are missing. Export the complete series again" in told
    assert shown.startswith("1 done, 0 unchanged, 1 failed.\n")
    assert f"  {inputs}/b.nii.gz\n    MissingSlicesError: b.nii.gz: slices 3 to 5 are missing." in shown
    assert shown.endswith(f"Results and manifest: {out}\n")


def test_a_name_that_is_no_utf8_goes_through(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/in/caf\xe9.nii.gz"))
    odd.write_text("write")
    assert len(act(find_studies(tmp_path / "in"), tmp_path / "out").done) == 1
    assert statuses(act([odd], tmp_path / "out")) == {"caf_xe9": "skipped-unchanged"}


def test_copies_whose_names_are_no_utf8_have_a_result_each(tmp_path: Path) -> None:
    """Same name, size and time: the first one's escaped path is not there, which must not count as moved."""
    for number in (1, 2):
        (tmp_path / f"day{number}").mkdir()
    first, second = (Path(os.fsdecode(os.fsencode(tmp_path) + b"/day%d/caf\xe9.nii" % n)) for n in (1, 2))
    first.write_text("write")
    act([first], tmp_path / "out")
    shutil.copy2(first, second)
    both = act([first, second], tmp_path / "out")
    assert statuses(both) == {"caf_xe9": "skipped-unchanged", "day2__caf_xe9": "done"}


def test_a_link_gives_its_own_name_and_the_same_file_counts_once(tmp_path: Path) -> None:
    out, (study,) = tmp_path / "out", orders(tmp_path / "in", deadbeef="write")
    (tmp_path / "in" / "case.nii.gz").symlink_to(study)
    assert statuses(act([tmp_path / "in" / "case.nii.gz", study], out)) == {"case": "done"}
    assert statuses(act([study], out)) == {"case": "skipped-unchanged"}
