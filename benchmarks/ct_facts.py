"""CT-Facts: do sentences about a scan find it among all given patients? Five folds, with controls.

Synthetic text from reference masks, not reports. Every patient's text is asked once, of a model that has not seen the
patient, in sentences that training never holds, over the pool of all patients. What the encoder sees is this project's
own segmentation, never the reference masks that the text was made of.

    python -m benchmarks.ct_facts --index ../shared/data/openkbp_hn/index.json --work WORK --out FILE.json

WORK keeps what was seen of the scans and each fold's model: a killed run goes on. An hour on two cores, most of it
segmenting 194 scans.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from medseg.imaging.emit import emit_json
from medseg.models.tensors import emit_tensors
from medseg.results.preview import plane
from medseg.training.trainer import Trainer
from vlretrieval.evaluation.ranking import auroc, score_queries
from vlretrieval.evaluation.statistics import bootstrap
from vlretrieval.facts.grammar import describe, every_sentence, say
from vlretrieval.facts.kinds import BY_NAME, KINDS, Facts, read_facts
from vlretrieval.facts.reader import read_words
from vlretrieval.inputs import collate
from vlretrieval.search import FUSION
from vlretrieval.training.config import RetrievalConfig, load_config
from vlretrieval.training.data import load_studies
from vlretrieval.training.studies import TrainingStudy
from vlretrieval.training.task import ContrastiveTask
from vlretrieval.view import StudyView

FOLDS = 5
Array = np.ndarray


def main() -> None:
    """Run everything that is not there yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    config = load_config("ct-facts", {"index": asked.index.resolve()})
    studies = load_studies(config, ("train", "validation"), asked.work / "views", lambda line: print(line, flush=True))
    part = np.random.default_rng(0).permutation(len(studies)) % FOLDS
    emit_json(asked.out, table(studies, part, config, asked.work))
    print(asked.out)


def table(studies: list[TrainingStudy], part: Array, config: RetrievalConfig, work: Path) -> dict[str, Any]:
    """Figures of every way to search, for whole descriptions and for short questions."""
    truth = [study.facts for study in studies]
    seen = [read_facts(study.seen.profile) for study in studies]
    found: dict[str, Any] = {"patients": len(studies), "folds": FOLDS}
    dense = Dense(studies, part, config, work)
    pictures = thumbnails(studies, config, work)
    for name, count in (("all facts", None), ("six facts", 6), ("three facts", 3)):
        queries = [pick(facts, count, number) for number, facts in enumerate(truth)]
        texts = [describe(query, np.random.default_rng([6, n]), "test") for n, query in enumerate(queries)]
        answers = np.array([[matches(query, facts) for facts in truth] for query in queries])
        ways = rankings(texts, queries, seen, dense, pictures, truth, part)
        # Short questions are true of patients that the models were trained on, too: those are taken out of the pool.
        ignore = np.zeros_like(answers) if count is None else part[:, None] != part[None]
        found[name] = {way: figures(scores, answers, ignore) for way, scores in ways.items()}
        print(name, {way: row["recall_5"] for way, row in found[name].items()}, flush=True)
    found["auroc"] = fact_areas(dense, seen, truth, part)
    return found


def rankings(
    texts: list[str],
    queries: list[Facts],
    seen: list[Facts],
    dense: Dense,
    pictures: Array,
    truth: list[Facts],
    part: Array,
) -> dict[str, Array]:
    """[queries, studies] scores of every way."""
    read = [read_words(text) for text in texts]
    header = [{k: v for k, v in facts.items() if BY_NAME[k].source == "header"} for facts in seen]
    legs = {"dense": dense.scores(texts), "facts": overlap(read, seen), "words": tfidf(texts, seen)}
    weights = {"dense": FUSION["whole"], "facts": FUSION["facts"], "words": FUSION["words"]}
    fused = sum(weights[name] * scaled(scores) for name, scores in legs.items())
    random = np.random.default_rng(0).random((len(texts), len(seen)))
    controls = {"header only": overlap(read, header), "thumbnail only": from_pictures(queries, pictures, truth, part)}
    return {"fused": fused, **legs, **controls, "random": random}  # type: ignore[dict-item]


def pick(facts: Facts, count: int | None, number: int) -> Facts:
    """Some of a study's facts."""
    names = list(np.random.default_rng([5, number]).permutation(list(facts)))[:count]
    return {str(name): facts[name] for name in names}


def matches(query: Facts, facts: Facts) -> bool:
    """Whether everything that is asked is so."""
    return all(facts.get(name) == value for name, value in query.items())


def overlap(queries: Sequence[Facts], held: Sequence[Facts]) -> Array:
    """Share of the stated facts that were seen: segment, then filter."""
    return np.array([[sum(h.get(k) == v for k, v in q.items()) / max(1, len(q)) for h in held] for q in queries])


def tfidf(texts: list[str], seen: list[Facts]) -> Array:
    """Words of the question against all training sentences of the facts that were seen."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    documents = [" ".join(s for kind, value in facts.items() for s in every_sentence(kind, value)) for facts in seen]
    vectoriser = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit(documents)
    return (vectoriser.transform(texts) @ vectoriser.transform(documents).T).toarray()


def scaled(scores: Array) -> Array:
    """Each row as 0 ... 1."""
    low, high = scores.min(axis=1, keepdims=True), scores.max(axis=1, keepdims=True)
    return (scores - low) / np.maximum(1e-9, high - low)


class Dense:
    """Models of the folds; a query is asked of the model that has not seen its patient."""

    def __init__(self, studies: list[TrainingStudy], part: Array, config: RetrievalConfig, work: Path) -> None:
        self.part, self.models, self.images = part, [], []
        for fold in range(FOLDS):
            model = train(studies, part, fold, config, work / f"fold{fold}")
            with torch.inference_mode():
                batches = [studies[at : at + 32] for at in range(0, len(studies), 32)]
                seen = [model.encode_images(collate([s.seen for s in batch], model.organs)) for batch in batches]
            self.models.append(model)
            self.images.append(torch.cat(seen))

    def scores(self, texts: list[str]) -> Array:
        """[texts, studies]; text n belongs to study n."""
        return np.stack([self.ask(int(fold), text) for fold, text in zip(self.part, texts, strict=True)])

    def ask(self, fold: int, text: str) -> Array:
        """[studies] of a fold's model, as the search does it."""
        with torch.inference_mode():
            return np.asarray(self.models[fold].likelihood(text, self.images[fold]).numpy(), np.float64)


def train(studies: list[TrainingStudy], part: Array, fold: int, config: RetrievalConfig, folder: Path) -> Any:
    """The model of a fold, from its file where it is there."""
    others = [study for study, number in zip(studies, part, strict=True) if number != fold]
    task = ContrastiveTask(others, config)
    done = folder / "done.safetensors"
    if done.is_file():
        task.build()
        assert task.model is not None
        task.model.load_state_dict(load_file(done))
        return task.model.eval()
    trainer = Trainer(task, config.loop, folder, progress=lambda event: print(fold, event.message, flush=True))
    trainer.resume()
    model: Any = trainer.run().model
    emit_tensors(done, model.state_dict())
    return model.eval()


def thumbnails(studies: list[TrainingStudy], config: RetrievalConfig, work: Path) -> Array:
    """[N, pixels] three small grey planes of each scan."""
    by_id = {}
    for path in sorted((work / "views").glob("*.npz")):
        view = StudyView.load(path)
        planes = [
            plane(np.clip(view.hu, -200, 300).astype(np.float32), axis, view.hu.shape[axis] // 2) for axis in range(3)
        ]
        small = [np.asarray(Image.fromarray(p).resize((24, 24), Image.Resampling.BOX)) for p in planes]
        by_id[path.name] = np.concatenate([p.ravel() for p in small])
    from medseg.training.cases import read_index
    from vlretrieval.training.data import view_name

    assert config.index is not None
    files = {case.id: view_name(case.ct, config.segmenter) for case in read_index(config.index, gaps=True).cases}
    return np.stack([by_id[files[study.id]] for study in studies])


def from_pictures(queries: list[Facts], pictures: Array, truth: list[Facts], part: Array) -> Array:
    """Facts guessed from the thumbnail alone (ridge, trained on the other folds), then as `facts`."""
    from sklearn.linear_model import Ridge

    values = [(kind.name, value) for kind in KINDS for value in kind.values]
    target = np.array([[float(facts.get(kind) == value) for kind, value in values] for facts in truth])
    guess, scale = np.zeros(target.shape), pictures.std(axis=0) + 1
    for fold in range(FOLDS):
        rows = part != fold
        ridge = Ridge(alpha=1000).fit(pictures[rows] / scale, target[rows])
        guess[~rows] = ridge.predict(pictures[~rows] / scale)
    asked = np.array([[float(query.get(kind) == value) for kind, value in values] for query in queries])
    return asked @ guess.T


def figures(scores: Array, answers: Array, ignore: Array) -> dict[str, Any]:
    """Recall@k with intervals over patients, chance, median rank, MAP."""
    found = score_queries(scores.astype(np.float64), answers, ignore=ignore, ks=(1, 5, 10))
    patients = range(len(scores))
    recall = {f"recall_{k}": bootstrap(found.hits[:, n], patients).to_json() for n, k in enumerate((1, 5, 10))}
    return recall | {
        "pool": float(np.median(found.pool)),
        "chance_5": round(float(found.chance[:, 1].mean()), 4),
        "median_rank": round(float(np.median(found.first_rank)), 1),
        "map": bootstrap(found.average_precision, patients).to_json(),
    }


def fact_areas(dense: Dense, seen: list[Facts], truth: list[Facts], part: Array) -> dict[str, Any]:
    """AUROC of each fact over the studies of which it is known; each study judged by the model that has not seen it."""
    areas: dict[str, Any] = {}
    for kind in KINDS:
        for value in kind.values:
            text = say(kind.name, value, np.random.default_rng(9), "test")
            scores = np.zeros(len(truth))
            for fold in range(FOLDS):
                scores[part == fold] = dense.ask(fold, text)[part == fold]
            known = np.array([kind.name in facts for facts in truth])
            right = np.array([facts.get(kind.name) == value for facts in truth])
            filtered = np.array([float(facts.get(kind.name) == value) for facts in seen])
            pair = auroc(scores[known], right[known]), auroc(filtered[known], right[known])
            areas[f"{kind.name}={value}"] = {
                "dense": round(pair[0], 3),
                "facts": round(pair[1], 3),
                "n": int(right.sum()),
            }
    means = {way: round(float(np.nanmean([area[way] for area in areas.values()])), 4) for way in ("dense", "facts")}
    return {"mean": means, "each": areas}


if __name__ == "__main__":
    main()
