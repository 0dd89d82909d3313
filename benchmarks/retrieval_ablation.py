"""What the dynamic sampler and the moving weights of losses bring, on CT-Facts: five paired seeds.

    python -m benchmarks.retrieval_ablation --index INDEX --work WORK --out FILE.json [--only sampler 0,1]

Seed n holds out fold n, so that its runs differ in one thing only. Samplers are judged by matching accuracy: of a
study's own text, the same with one fact made false, and the text of another study that is false of it, the true one
has to be judged likelier (two questions a study; by the sentences' likelihood, and by the matching head). Weights are
judged by recall@5 of all facts and by how sure the model is of true sentences in place of false ones (AUROC over all
facts). What is done is kept: a killed run goes on, and `--only` shares the rows among processes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.ct_facts import FOLDS, matches, train
from medseg.imaging.emit import emit_json
from vlretrieval.evaluation.ranking import auroc, score_queries
from vlretrieval.evaluation.statistics import compare_paired
from vlretrieval.facts.grammar import describe, say
from vlretrieval.facts.kinds import KINDS, Facts
from vlretrieval.facts.texts import edit_fact
from vlretrieval.inputs import collate
from vlretrieval.training.config import RetrievalConfig, load_config
from vlretrieval.training.data import load_studies
from vlretrieval.training.studies import TrainingStudy

LOSSES = {"statements": 4.0, "attributes": 2.0, "pairs": 1.0, "matching": 1.0}
OFF = {"balance": False, "one_per_patient": False, "neighbours": 0.0, "edited_texts": False}
ON = {"balance": True, "one_per_patient": True, "neighbours": 0.5, "edited_texts": True}
# Row -> settings that it changes. Both samplers see as many studies a step and mask false negatives alike.
ROWS: dict[str, dict[str, dict[str, Any]]] = {
    "sampler": {
        "random": {"sampler": OFF, "losses": {"hard_negatives": 0}},
        "dynamic": {"sampler": ON, "losses": {"hard_negatives": 16, "hard_after": 100}},
    },
    "weights": {
        "unweighted": {"losses": {"weights": dict.fromkeys(LOSSES, 1.0)}},
        "fixed": {},
        "uncertainty": {"losses": {"weighting": "uncertainty"}},
        "dwa": {"losses": {"weighting": "dwa"}},
    },
}
STEPS = 400


def main() -> None:
    """Run what is not there yet; write the table where all is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--only", nargs=2, metavar=("WHAT", "SEEDS"), help="e.g. sampler 0,1; no table is written")
    asked = parser.parse_args()
    base = load_config("ct-facts", {"index": asked.index.resolve()})
    studies = load_studies(base, ("train", "validation"), asked.work / "views", lambda line: print(line, flush=True))
    what, seeds = (list(ROWS), range(FOLDS)) if asked.only is None else _chosen(*asked.only)
    rows = {
        name: {row: [_run(studies, base, name, row, seed, asked) for seed in seeds] for row in ROWS[name]}
        for name in what
    }
    if asked.only is None:
        emit_json(asked.out, {"steps": asked.steps, "seeds": FOLDS, "rows": rows, "comparisons": comparisons(rows)})
        print(asked.out)


def _chosen(what: str, seeds: str) -> tuple[list[str], Sequence[int]]:
    return [what], [int(seed) for seed in seeds.split(",")]


def _run(
    studies: list[TrainingStudy], base: RetrievalConfig, what: str, row: str, seed: int, asked: argparse.Namespace
) -> dict[str, float]:
    """One training and its figures, or what is left of them."""
    folder = asked.work / "ablation" / f"{what}-{row}-{seed}"
    done = folder / "figures.json"
    if not done.is_file():
        part = np.random.default_rng(0).permutation(len(studies)) % FOLDS
        model = train(studies, part, seed, _config(base, ROWS[what][row], seed, asked.steps), folder)
        emit_json(done, figures(model, studies, np.flatnonzero(part == seed), what))
        print(what, row, seed, done.read_text(), flush=True)
    return dict(json.loads(done.read_text()))


def _config(base: RetrievalConfig, changes: dict[str, dict[str, Any]], seed: int, steps: int) -> RetrievalConfig:
    values = base.model_dump()
    values["losses"] |= {"weights": LOSSES} | changes.get("losses", {})
    values["sampler"] |= {"batch_size": 48} | changes.get("sampler", {})
    values["loop"] |= {"max_steps": steps, "seed": seed}
    return RetrievalConfig.model_validate(values)


def figures(model: Any, studies: list[TrainingStudy], held: np.ndarray, what: str) -> dict[str, float]:
    """Of one model, on the studies that it has not seen."""
    with torch.inference_mode():
        inputs = collate([study.seen for study in studies], model.organs)
        features = model.see(inputs)
        whole = model.embed(features)[0]
        truth = [study.facts for study in studies]
        found = {"recall_5": recall(model, whole, truth, held)}
        if what == "sampler":
            return found | matching(model, features.whole, whole, truth, held)
        return found | {"auroc": mean_area(model, whole, truth, held)}


def matching(
    model: Any, seen: torch.Tensor, whole: torch.Tensor, truth: list[Facts], held: np.ndarray
) -> dict[str, float]:
    """Share of questions in which a study's own text is preferred, by both judges."""
    right: dict[str, list[float]] = {"matching": [], "matching_head": []}
    for number in held.tolist():
        rng = np.random.default_rng([8, number])
        others = [n for n in held.tolist() if not matches(truth[n], truth[number])]
        wrong = [edit_fact(truth[number], truth[number], rng), truth[int(rng.choice(others))]]
        texts = [describe(facts, rng, "test") for facts in (truth[number], *wrong)]
        likely = torch.cat([model.likelihood(text, whole[[number]]) for text in texts])
        head = model.match(model.fuse(seen[[number]].expand(len(texts), -1), model.text_encoder(texts)))
        for name, scores in (("matching", likely), ("matching_head", head)):
            right[name] += [float(scores[0] > score) for score in scores[1:]]
    return {name: float(np.mean(answers)) for name, answers in right.items()}


def recall(model: Any, whole: torch.Tensor, truth: list[Facts], held: np.ndarray) -> float:
    """Recall@5 of all facts of held-out studies over all studies."""
    texts = [describe(truth[n], np.random.default_rng([6, n]), "test") for n in held.tolist()]
    scores = np.stack([model.likelihood(text, whole).numpy() for text in texts]).astype(np.float64)
    answers = np.array([[matches(truth[n], facts) for facts in truth] for n in held.tolist()])
    return float(score_queries(scores, answers, ks=(5,)).hits.mean())


def mean_area(model: Any, whole: torch.Tensor, truth: list[Facts], held: np.ndarray) -> float:
    """Mean AUROC of single facts over held-out studies."""
    areas = []
    for kind in KINDS:
        known = np.array([n for n in held.tolist() if kind.name in truth[n]])
        for value in kind.values:
            scores = model.likelihood(say(kind.name, value, np.random.default_rng(9), "test"), whole[known]).numpy()
            right = np.array([truth[n][kind.name] == value for n in known])
            if right.any() and not right.all():
                areas.append(auroc(scores.astype(np.float64), right))
    return float(np.mean(areas))


def comparisons(rows: dict[str, dict[str, list[dict[str, float]]]]) -> dict[str, Any]:
    """Every row against the first of its kind, and the moving weights against the fixed ones."""
    pairs = [("sampler", "random", "dynamic")]
    pairs += [("weights", "unweighted", row) for row in rows["weights"] if row != "unweighted"]
    pairs += [("weights", "fixed", row) for row in ("uncertainty", "dwa")]
    found = {}
    for what, first, row in pairs:
        for figure in rows[what][row][0]:
            before, after = ([run[figure] for run in rows[what][name]] for name in (first, row))
            found[f"{what}: {row} against {first}, {figure}"] = compare_paired(before, after).to_json()
    return found


if __name__ == "__main__":
    main()
