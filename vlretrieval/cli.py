"""The `vlretrieval` command: index, search, delete, export, train, evaluate. Thin: parse, call, exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from medseg.errors import ConfigError
from medseg.runtime.command import Commands, run_commands

Archive = Annotated[str | None, arg(aliases=["-a"])]


def index(
    paths: Positional[tuple[Path, ...]],
    /,
    archive: Archive = None,
    segmenter: str = "head-neck-oar",
    model: str = "measured",
    notes: Path | None = None,
) -> int:
    """Look at CT scans once, so that they can be searched: organs, measurements, facts, a thumbnail, vectors.

    A study that is in the archive and unchanged is passed over: the same command goes on where it stopped.
    Patients' numbers of DICOM are kept as pseudonyms that only this archive can make.

    Exit codes: 0 all fine, 3 some studies failed, 1 all failed or nothing to do.

    Args:
        paths: NIfTI, NRRD or MHA files, DICOM folders, zips of one, or folders of studies.
        archive: Folder of the archive, or an address on object storage; $VLRETRIEVAL_ARCHIVE if not given.
        segmenter: Model that finds the organs (see `medseg models`).
        model: What makes the vectors: `measured` (nothing learned), or the name or folder of a trained model.
        notes: CSV of studies' names (or the ends of their paths, where names repeat) with patients and reports
            (columns: id or VolumeName, patient, report or Findings_EN and Impressions_EN).
    """
    from vlretrieval.console import index_and_report

    return index_and_report(paths, archive, segmenter=segmenter, model=model, notes=notes)


def search(
    words: Positional[str] = "",
    /,
    archive: Archive = None,
    like: Path | None = None,
    organ: str = "",
    hits: Annotated[int, arg(aliases=["-k"])] = 10,
    model: str = "",
    rerank: bool = False,
    json: bool = False,
) -> int:
    """Find studies by words, or studies that look like one.

    Organs and parts of the body that are named have to be there ("no" before one: must not be there); a measure with a
    limit filters; sizes and everything else decide the order. English and Chinese.

    Examples:
        vlretrieval search "enlarged right parotid" --archive ARCHIVE
        vlretrieval search "parotid > 30 ml, slice thickness <= 3 mm" --archive ARCHIVE
        vlretrieval search --like study.nii.gz --organ parotid_gland_right --archive ARCHIVE

    Args:
        words: What is looked for.
        archive: Folder of the archive, or an address on object storage; $VLRETRIEVAL_ARCHIVE if not given.
        like: A scan (file or folder): find those that look like it. Words then only filter.
        organ: With --like, compare this organ alone.
        hits: How many.
        model: Name or folder of the encoder, where it is not the one that the archive names.
        rerank: Let the matching head of a trained model put the first hits in order; for words, not for --like.
        json: Print the hits as JSON, for programs.
    """
    from vlretrieval.console import search_and_report

    return search_and_report(
        words, archive, like=like, organ=organ, hits=hits, model=model, rerank=rerank, as_json=json
    )


def delete(who: Positional[str], /, archive: Archive = None) -> int:
    """Take a patient's studies out of an archive; afterwards no file of it holds a byte of them.

    Args:
        who: The patient's number (PatientID), the pseudonym, or the name of one of the patient's studies.
        archive: Folder of the archive; $VLRETRIEVAL_ARCHIVE if not given.
    """
    from vlretrieval.console import delete_and_report

    return delete_and_report(who, archive)


def export(out: Positional[Path], /, archive: Archive = None) -> int:
    """Write an archive as studies.parquet and organs.parquet, vectors included.

    Args:
        out: Folder for the files.
        archive: Folder of the archive; $VLRETRIEVAL_ARCHIVE if not given.
    """
    from vlretrieval.console import export_and_report

    return export_and_report(out, archive)


def train(
    config: Positional[str],
    /,
    out: Annotated[Path, arg(aliases=["-o"])],
    max_steps: int | None = None,
    seed: int | None = None,
    pairs: Path | None = None,
    index: Path | None = None,
    resume: bool = False,
) -> int:
    """Train a model on own pairs of scans and reports, and put the finished package into OUT/package.

    Then `vlretrieval index ... --model OUT/package` makes an archive that is searched by its vectors as well.

    Args:
        config: A YAML file or the name of a preset: `pairs`, `ct-facts`.
        out: Run folder: what was seen of the scans, checkpoint, log, package.
        max_steps: Optimiser steps, in place of the config's.
        seed: In place of the config's.
        pairs: CSV (image, report, split, and patient and findings where there are such), in place of the config's.
        index: A dataset's index.json with reference masks: texts are then made of facts, not of reports.
        resume: Go on from the run folder's checkpoint; start where there is none.
    """
    from medseg.training.settings import only_given
    from vlretrieval.training.run import train_model

    overrides = only_given({"loop.max_steps": max_steps, "loop.seed": seed, "pairs": pairs, "index": index})
    print(f"Model package: {train_model(config, out, resume=resume, overrides=overrides)}")
    return 0


def evaluate(
    what: Positional[Literal["reports", "embeddings"]],
    test: Positional[Path],
    /,
    train: Path | None = None,
    texts: Path | None = None,
) -> int:
    """Measure: the last line of the output is JSON.

    `reports`: how well findings are read from reports (AUROC). TEST and --train are CSVs with a column of words
    (report_text, report, text, or Findings_EN and Impressions_EN) and columns of findings (0 and 1). Training reports
    of a patient, or with the words, of the test are left out. Without --train, TEST is judged in five folds.

    `embeddings`: how well vectors of images and of texts find each other (recall@k with the pool's size and chance,
    median rank, MAP). TEST and --texts are .npz files: `vectors` [N, D], `studies` [N], `patients` [N], and for texts
    `texts` [N]; several reconstructions of a study, and equal texts, are right answers for each other.

    Args:
        what: reports or embeddings.
        test: CSV of reports, or .npz of images' vectors.
        train: CSV of reports to learn from.
        texts: .npz of texts' vectors.
    """
    if what == "reports":
        from vlretrieval.evaluation.console import report_findings

        return report_findings(test, train)
    if texts is None:
        raise ConfigError("Vectors of texts are missing.", advice="Give them by --texts TEXTS.npz.")
    from vlretrieval.evaluation.console import report_embeddings

    return report_embeddings(test, texts)


def main(argv: list[str] | None = None) -> None:
    """Entry point of the `vlretrieval` command."""
    commands: Commands = {
        "index": index,
        "search": search,
        "delete": delete,
        "export": export,
        "train": train,
        "evaluate": evaluate,
    }
    about = "Words find CTs, CTs find CTs. Research use only; not a medical device."
    run_commands(commands, sys.argv[1:] if argv is None else argv, "vlretrieval", about)
