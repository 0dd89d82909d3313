"""Do vectors of images and texts find each other? For data of CT-RATE's kind.

There are several reconstructions of a study and one report for all of them, reports that are equal word for word, and
patients who come again.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import DataError
from vlretrieval.evaluation.ranking import Array, Mask, QueryScores, score_queries
from vlretrieval.evaluation.statistics import bootstrap

KS = (1, 5, 10, 50, 100)
Names = NDArray[Any]


@dataclass(frozen=True)
class Embeddings:
    """Vectors and what they are of.

    Attributes:
        vectors: [N, D] of unit length.
        studies, patients: [N] names; reconstructions of one study share its name.
        texts: [N] words, for vectors of texts; empty strings else.
        labels: [N, F] findings 0 or 1, for image to image; None where there are none.
    """

    vectors: Array
    studies: Names
    patients: Names
    texts: Names
    labels: NDArray[np.int64] | None = None


def read_embeddings(path: Path) -> Embeddings:
    """Read .npz (no pickles): `vectors`, `studies`, and `patients`, `texts`, `labels` where there are such.

    Raises:
        DataError: not there, damaged, of different lengths, or a vector that is nothing or not finite.
    """
    try:
        found = _arrays(path)
        vectors, studies = found["vectors"].astype(np.float64), found["studies"].astype(str)
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        advice = "`vectors` and `studies` are wanted."
        raise DataError(f"{path.name} holds no vectors ({error}).", advice=advice) from error
    patients = found.get("patients", studies).astype(str)
    texts = found.get("texts", np.full(len(studies), "")).astype(str)
    lengths = np.linalg.norm(vectors, axis=1) if vectors.ndim == 2 else np.zeros(0)
    if vectors.ndim != 2 or not (len(vectors) == len(studies) == len(patients) == len(texts)):
        raise DataError(f"{path.name}: vectors, studies, patients and texts are of different lengths.")
    if not len(vectors) or not np.isfinite(lengths).all() or not (lengths > 0).all():
        raise DataError(f"{path.name}: a vector is nothing or not finite.")
    labels = found.get("labels")
    return Embeddings(vectors / lengths[:, None], studies, patients, texts, labels)


def _arrays(path: Path) -> dict[str, Names]:
    with path.open("rb") as opened:  # numpy leaves a damaged file open
        file = np.load(opened, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise ValueError("it is one array without a name, as in .npy")
        return {name: file[name] for name in file.files}


def evaluate_embeddings(images: Embeddings, texts: Embeddings) -> dict[str, Any]:
    """All figures, for a program.

    A text is answered by every image of its study, and of studies with the same words. `text_to_study` ranks studies
    by their best image. `image_to_image` (where images have findings) is answered by images of other patients with the
    same findings.

    Raises:
        DataError: vectors of two sizes, or no text with an image.
    """
    if images.vectors.shape[1] != texts.vectors.shape[1]:
        raise DataError(f"Vectors of {images.vectors.shape[1]} and {texts.vectors.shape[1]} numbers are of two spaces.")
    answers = right_answers(images.studies, texts)
    if not answers.any():
        raise DataError("No text belongs to the study of any image.")
    scores = texts.vectors @ images.vectors.T
    studies, by_study = best_of_studies(scores, images.studies)
    figures = {
        "text_to_image": summary(score_queries(scores, answers, ks=KS), texts.patients),
        "text_to_study": summary(score_queries(by_study, right_answers(studies, texts), ks=KS), texts.patients),
        "image_to_text": summary(score_queries(scores.T, answers.T, ks=KS), images.patients),
    }
    if images.labels is not None:
        figures["image_to_image"] = _images(images)
    return figures


def right_answers(studies: Names, texts: Embeddings) -> Mask:
    """[T, N]: whether a study's text is this one, word for word."""
    _, number = np.unique([" ".join(text.split()).lower() for text in texts.texts], return_inverse=True)
    same_words = (number[:, None] == number[None]) & np.array([bool(text) for text in texts.texts])[:, None]
    own = texts.studies[:, None] == studies[None]
    # Texts with the same words answer for each other's studies.
    return own | ((same_words.astype(np.int64) @ own.astype(np.int64)) > 0)


def best_of_studies(scores: Array, studies: Names) -> tuple[Names, Array]:
    """Names of the studies, and [T, S]: the best score of each study's images."""
    names, of = np.unique(studies, return_inverse=True)
    best = np.full((len(scores), len(names)), -np.inf)
    np.maximum.at(best.T, of, scores.T)
    return names, best


def _images(images: Embeddings) -> dict[str, Any]:
    labels = np.asarray(images.labels).astype(bool)
    both = labels.astype(np.int64) @ labels.T.astype(np.int64)
    either = labels.sum(axis=1)[:, None] + labels.sum(axis=1)[None] - both
    alike = np.where(either == 0, 1.0, both / np.maximum(1, either))
    own = images.patients[:, None] == images.patients[None]
    scores = images.vectors @ images.vectors.T
    return summary(score_queries(scores, alike == 1, ignore=own, gains=alike, ks=KS), images.patients)


def summary(scores: QueryScores, patients: Names) -> dict[str, Any]:
    """Recall@k beside its chance, median rank, MAP and nDCG, with intervals over patients."""
    known = scores.answerable
    whose = patients[known].tolist()
    if not known.any():
        return {"queries": 0, "unanswerable": len(known)}
    recall = {str(k): bootstrap(scores.hits[known, n], whose).to_json() for n, k in enumerate(scores.ks)}
    return {
        "queries": int(known.sum()),
        "unanswerable": int((~known).sum()),
        "pool": float(np.median(scores.pool[known])),
        "recall": recall,
        "chance": {str(k): round(float(scores.chance[known, n].mean()), 4) for n, k in enumerate(scores.ks)},
        "median_rank": bootstrap(scores.first_rank[known], whose, np.nanmedian).to_json(),
        "map": bootstrap(scores.average_precision[known], whose).to_json(),
        "ndcg": bootstrap(scores.ndcg[known], whose).to_json(),
    }
