"""Findings from reports: on planted reports whose answers are known, by the command as a process."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")
from medseg.errors import DataError
from vlretrieval.evaluation.reports import cross_validate, evaluate_reports
from vlretrieval.reports.classifier import FindingClassifier
from vlretrieval.reports.features import report_terms
from vlretrieval.reports.notes import match_notes, read_notes
from vlretrieval.reports.table import patient_in, read_reports

FILL = (
    "Trachea is open",
    "Heart size is normal",
    "No fracture is seen",
    "Bone structures are intact",
    "Liver is normal",
)
SAYINGS = {
    "Effusion": (
        ["Effusion is seen on the right", "There is pleural effusion"],
        ["No effusion", "Effusion was not observed"],
    ),
    "Nodule": (["A nodule of 5 mm is present", "Nodules in both lungs"], ["No nodule", "Nodules were not detected"]),
}


def write_reports(path: Path, count: int, seed: int, prefix: str = "p") -> Path:
    """Reports that state or deny two findings in two ways, among other sentences."""
    rng = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["AccessionNo", "report_text", *SAYINGS])
        for number in range(count):
            labels = [int(rng.random() < 0.4) for _ in SAYINGS]
            said = [str(rng.choice(ways[1 - label])) for label, ways in zip(labels, SAYINGS.values(), strict=True)]
            sentences = [*said, *rng.choice(FILL, 3), f"Slice {rng.integers(1000)}"]
            rng.shuffle(sentences)
            rows.writerow([f"{prefix}{number}", ". ".join(sentences) + ".", *labels])
    return path


def quick() -> FindingClassifier:
    return FindingClassifier(trees=30, jobs=1)


def test_the_command_prints_json_last(tmp_path: Path) -> None:
    train, test = write_reports(tmp_path / "train.csv", 60, 1), write_reports(tmp_path / "test.csv", 40, 2, "q")
    command = [sys.executable, "-m", "vlretrieval", "evaluate", "reports", str(test), "--train", str(train)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["mean_auroc"] > 0.95
    assert set(figures["auroc"]) == {"Effusion", "Nodule"}
    assert (figures["train"], figures["test"], figures["left_out"]) == (60, 40, 0)
    assert "learning Effusion" in done.stderr


def test_shuffled_labels_are_chance(tmp_path: Path) -> None:
    """What is scored is not what was learned by heart."""
    reports = read_reports(write_reports(tmp_path / "r.csv", 120, 3))
    rng = np.random.default_rng(0)
    reports.labels[:] = reports.labels[rng.permutation(len(reports))]
    found = cross_validate(reports, quick, folds=3)
    assert 0.3 < found.mean < 0.7
    assert found.low < found.mean < found.high


def test_a_patient_or_report_of_the_test_is_not_learned_from(tmp_path: Path) -> None:
    test = read_reports(write_reports(tmp_path / "test.csv", 20, 4))
    train = read_reports(write_reports(tmp_path / "train.csv", 40, 5, "q"))
    both = read_reports(_joined(tmp_path / "both.csv", tmp_path / "train.csv", tmp_path / "test.csv"))
    assert evaluate_reports(both, test, quick).left_out == 20
    assert evaluate_reports(train, test, quick).left_out == 0
    with pytest.raises(DataError, match="also in the test"):
        evaluate_reports(test, test, quick)


def test_a_row_number_is_nobody_of_another_table(tmp_path: Path) -> None:
    """Without a column of ids the first reports of two files are two reports of two patients."""
    test, train = (_nameless(write_reports(tmp_path / f"{n}.csv", 40, n)) for n in (11, 12))
    assert evaluate_reports(read_reports(train), read_reports(test), quick).left_out == 0
    assert len(set(read_reports(train).patients)) == 40
    with pytest.raises(DataError, match="also in the test"):  # the words are the same
        evaluate_reports(read_reports(train), read_reports(train), quick)


def _nameless(path: Path) -> Path:
    """The table without its column of ids."""
    rows = list(csv.reader(path.read_text().splitlines()))
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(row[1:] for row in rows)
    return path


def _joined(out: Path, first: Path, second: Path) -> Path:
    out.write_text(first.read_text() + "".join(second.read_text().splitlines(keepends=True)[1:]))
    return out


def test_a_finding_that_is_always_absent_has_no_area(tmp_path: Path) -> None:
    reports = read_reports(write_reports(tmp_path / "r.csv", 30, 6))
    reports.labels[:, 1] = 0
    found = cross_validate(reports, quick, folds=3)
    assert found.to_json()["auroc"]["Nodule"] is None
    assert found.mean == found.auroc[0]


def test_unknown_labels_teach_and_count_nothing(tmp_path: Path) -> None:
    path = write_reports(tmp_path / "r.csv", 60, 7)
    rows = list(csv.reader(path.read_text().splitlines()))
    for row in rows[1:20]:
        row[2] = ""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    reports = read_reports(path)
    assert (reports.labels[:19, 0] == -1).all()
    assert cross_validate(reports, quick, folds=3).auroc[0] > 0.9


def test_denied_words_are_other_words() -> None:
    assert "effus" in "".join(report_terms("There is effusion."))
    denied = report_terms("Effusion was not observed.")
    assert all(term.startswith("not_") for term in denied)
    assert "#" in report_terms("A nodule of 5 mm")


def test_a_classifier_that_has_not_learned_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not been trained"):
        quick().score(["words"])
    reports = read_reports(write_reports(tmp_path / "r.csv", 9, 8))
    with pytest.raises(DataError, match="too few"):
        quick().fit(reports)
    with pytest.raises(DataError, match="do not make 20 folds"):
        cross_validate(reports, quick, folds=20)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no reports"),
        ("id,words\n1,hello\n", "no column of words"),
        ("id,report\n1,hello\n", "no column of findings"),
    ],
)
def test_tables_that_hold_no_reports(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        read_reports(path)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("a,Goitre, large.,1,0\n", "line 2: the row has more cells"),
        ("a,None.,0,0\n\nb,Goitre, large.,1,0\n", "line 4: the row has more cells"),
        ('a,"Two\nlines.",0,0\nb,Goitre.,1\n', "line 4: the row has fewer cells"),
    ],
)
def test_a_row_that_does_not_fill_the_header_is_refused(tmp_path: Path, rows: str, said: str) -> None:
    """A comma in a text without quotes would move every label under another finding's name."""
    path = tmp_path / "rows.csv"
    path.write_text(f"id,report,Goitre,Effusion\n{rows}")
    with pytest.raises(DataError, match=f"rows.csv, {said}") as refused:
        read_reports(path)
    assert "double quotes" in refused.value.advice
    path.write_text('id,report,Goitre,Effusion\na,"Goitre, large.",1,0\n')
    assert read_reports(path).labels.tolist() == [[1, 0]]


def test_tables_without_a_common_finding(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,report,Goitre\n1,goitre,1\n2,none,0\n")
    test = read_reports(write_reports(tmp_path / "b.csv", 20, 9))
    with pytest.raises(DataError, match="share no finding"):
        evaluate_reports(read_reports(tmp_path / "a.csv"), test, quick)
    with pytest.raises(DataError, match="cannot be read"):
        read_reports(tmp_path / "missing.csv")


def test_columns_of_ct_rate(tmp_path: Path) -> None:
    path = tmp_path / "rate.csv"
    path.write_text("VolumeName,Findings_EN,Impressions_EN,Goitre\nvalid_12_a_1.nii.gz,Big.,Goitre.,1\n")
    reports = read_reports(path)
    assert (reports.texts, reports.patients, reports.findings) == (("Big. Goitre.",), ("valid_12",), ("Goitre",))
    assert patient_in("valid_12_a_2.nii.gz") == "valid_12"
    assert patient_in("scan.nii.gz") == ""


def test_notes_of_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "notes.csv"
    path.write_text("id,patient,report\nct_1.nii.gz,P1,Goitre.\nct_2,P1,\n")
    notes = read_notes(path)
    assert (notes["ct_1"].patient, notes["ct_1"].report) == ("P1", "Goitre.")
    path.write_text("id,patient\nct_1.nii.gz,P1\nct_1,P2\n")
    with pytest.raises(DataError, match="twice"):
        read_notes(path)
    path.write_text("patient,report\nP1,Goitre.\n")
    with pytest.raises(DataError, match="which study"):
        read_notes(path)
    path.write_text("id,patient\n,P1\n")
    with pytest.raises(DataError, match="row 1 names no study"):
        read_notes(path)


def test_notes_find_their_studies_by_name_or_by_the_end_of_a_path(tmp_path: Path) -> None:
    studies = [Path(f"/scans/{name}") for name in ("P1/ct.nii.gz", "P2/ct.nii.gz", "P2/old.nii.gz", "x", "x.zip")]
    path = tmp_path / "notes.csv"
    path.write_text("id,report\nP1/ct.nii.gz,First.\nscans/P2/ct,Second.\nold,Third.\nx.zip,Fourth.\nP3/ct,.\nlost,.\n")
    found, lost = match_notes(read_notes(path), studies)
    reports = {str(study): note.report for study, note in found.items()}
    assert reports == {
        "/scans/P1/ct.nii.gz": "First.",
        "/scans/P2/ct.nii.gz": "Second.",
        "/scans/P2/old.nii.gz": "Third.",
        "/scans/x.zip": "Fourth.",
    }
    assert lost == ("P3/ct", "lost")
    assert match_notes(read_notes(path), [*studies, studies[0]])[0] == found  # a study that is given twice is one


@pytest.mark.parametrize(
    ("rows", "said"),
    [("ct,P1", r"note on ct could be about 2 studies: /scans/P1/ct.nii.gz"), ("P1/ct,P1\nscans/P1/ct,P1", "Two notes")],
)
def test_a_note_that_could_be_about_two_is_refused(tmp_path: Path, rows: str, said: str) -> None:
    path = tmp_path / "notes.csv"
    path.write_text(f"id,patient\n{rows}\n")
    with pytest.raises(DataError, match=said):
        match_notes(read_notes(path), [Path("/scans/P1/ct.nii.gz"), Path("/scans/P2/ct.nii.gz")])


@pytest.mark.real
@pytest.mark.slow
def test_given_reports_reach_the_mark(real_data: Path) -> None:
    """Held-out reports of the given ones; two folds, so that each learns from half."""
    found = cross_validate(read_reports(real_data / "reports" / "chest_ct_reports.csv"), folds=2)
    assert found.mean >= 0.95
