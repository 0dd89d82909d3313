"""ContrastiveTask: studies and words, for medseg's training loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from medseg.errors import DataError
from medseg.training.task import Loss, Task
from vlretrieval.facts.grammar import Language
from vlretrieval.facts.kinds import KINDS, Facts, read_facts
from vlretrieval.facts.texts import PLACE, Sentence, edit_fact, encode_facts, organ_of, pick_facts, write_sentences
from vlretrieval.inputs import StudyInput, collate
from vlretrieval.model import VLModel
from vlretrieval.numbers import Additive
from vlretrieval.profile import Profile
from vlretrieval.reports.edits import edit_one
from vlretrieval.reports.sentences import split_sentences
from vlretrieval.sampler import DynamicSampler
from vlretrieval.study_encoder import StudyEncoder
from vlretrieval.training.batch import PairBatch
from vlretrieval.training.config import RetrievalConfig
from vlretrieval.training.network import TrainingNetwork
from vlretrieval.training.studies import TrainingStudy, attributes, encode_labels, label_names

# What a resumed run may change, beside the loop's own: words and places.
FREE = {"name", "version", "index", "pairs", "title", "description", "licence", "limits", "sources", "loop"}
MIN_SLICES = 24
_CURVE_RATE = 8.0
_LOOKS = 4  # at every study, to learn what is usual
Rng = np.random.Generator
Validate = Callable[[VLModel], dict[str, float]]


@dataclass(frozen=True)
class _Row:
    """A sentence to be: its words, what it states [K], its organ (-1)."""

    words: str
    said: np.ndarray
    organ: int


@dataclass(frozen=True)
class _Said:
    """What is said of a study, and the same with one sentence made false; None where nothing could be."""

    own: list[_Row]
    edited: list[_Row] | None


class ContrastiveTask(Task[PairBatch]):
    """Trains a `VLModel` on studies and what is said of them.

    Args:
        studies: the training set.
        config: the run's settings.
        judge: figures of the model on studies that are not trained on, for the log.

    Raises:
        DataError: no studies, or too few patients for a batch.
    """

    def __init__(
        self, studies: Sequence[TrainingStudy], config: RetrievalConfig, judge: Validate | None = None
    ) -> None:
        if not studies:
            raise DataError("There are no studies to train on.", advice="Look at `splits` of the config.")
        self.studies, self.config, self.judge = list(studies), config, judge
        self.labels = label_names(studies)
        self.found = attributes(studies, self.labels)
        self.report_ids = _numbered([study.report for study in studies])
        patients = [study.patient for study in studies]
        self.sampler = DynamicSampler(self.found, patients, config.sampler, config.loop.seed)
        self.model: VLModel | None = None

    def build(self) -> nn.Module:
        """Model, temperatures and weights of the losses."""
        options, width = self.config.model, self.config.model.text_width
        shape = (width, options.text_layers, max(1, width // 32), 4 * width)
        # Only facts say of each sentence whether it is true; of reports the whole text is compared.
        judges = "statements" in self.config.losses.weights and any(study.reference for study in self.studies)
        self.model = VLModel.small(
            options.organs, volume=options.volume, slices=options.slices, judges=judges, shape=shape
        )
        self._fit_scales(self.model)
        return TrainingNetwork(self.model, self.config.losses, len(self.studies), self.found.shape[1])

    def groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """What reads filled bins learns faster: its weights have far to go, the others' lie near where they begin."""
        curves = {id(p) for module in network.modules() if isinstance(module, Additive) for p in module.parameters()}
        learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
        fast = [parameter for parameter in learning if id(parameter) in curves]
        return [
            {"params": [parameter for parameter in learning if id(parameter) not in curves]},
            {"params": fast, "scale": _CURVE_RATE},
        ]

    def _fit_scales(self, model: VLModel) -> None:
        """What is usual for every number, as training will see it: whole, cut and mirrored."""
        rng = np.random.default_rng([self.config.loop.seed, 3])
        looks = [self._look(study, rng)[0] for study in self.studies for _ in range(_LOOKS)]
        seen = collate(looks, self.config.model.organs, volume=False)
        assert isinstance(model.vision_encoder, StudyEncoder)
        model.vision_encoder.fit(seen.scan, seen.organs)

    def loss(self, network: nn.Module, batch: PairBatch) -> Loss:
        """All losses of one batch."""
        total, parts = network(batch)
        return Loss(total, parts)

    def validate(self, network: nn.Module, step: int) -> dict[str, float]:
        """Figures of `judge`."""
        return {} if self.judge is None else self.judge(network.model)  # type: ignore[arg-type]

    def identity(self) -> dict[str, Any]:
        """Everything that decides batches and network."""
        return {key: value for key, value in self.config.model_dump(mode="json").items() if key not in FREE}

    def batch(self, number: int) -> PairBatch:
        """Batch `number` of the run."""
        rng = np.random.default_rng([self.config.loop.seed, 2, number])
        chosen = self.sampler.batch(number)
        inputs, found, said = [], [], []
        for number_ in chosen:
            study = self.studies[number_]
            seen, facts = self._look(study, rng)
            inputs.append(seen)
            found.append(np.concatenate([encode_facts(facts), encode_labels(study.labels, self.labels)]))
            said.append(self._say(facts, rng) if facts else self._say_report(study, rng))
        return self._pack(chosen, inputs, np.stack(found), said)

    def _look(self, study: TrainingStudy, rng: Rng) -> tuple[StudyInput, Facts]:
        """The study as it is, cut short or mirrored, and the facts of just that."""
        seen, reference = study.seen, study.reference
        if reference is None:
            return seen, {}
        if rng.random() < self.config.mirror:
            seen, reference = seen.mirrored(), reference.mirrored()
        if rng.random() < self.config.cut:
            low, high = _cut(len(reference.body), rng)
            seen, reference = seen.cut(low, high), reference.cut(low, high)
        return StudyInput(seen.volume, _jittered(seen.profile, rng)), read_facts(reference)

    def _say(self, facts: Facts, rng: Rng) -> _Said:
        settings = self.config.texts
        language: Language = "zh" if rng.random() < settings.chinese else "en"
        every = rng.random() < settings.all_facts
        stated = facts if every else pick_facts(facts, int(rng.integers(1, settings.most_facts + 1)), rng)
        sentences = {s.kind: self._fact_row(s, rng) for s in write_sentences(stated, rng, "train", language)}
        wrong = edit_fact(stated, facts, rng)
        changed = {name: value for name, value in wrong.items() if stated.get(name) != value}
        edits = {s.kind: self._fact_row(s, rng) for s in write_sentences(changed, rng, "train", language)}
        kept = {name: row for name, row in sentences.items() if name in wrong and name not in edits}
        return _Said(list(sentences.values()), [*kept.values(), *edits.values()])

    def _fact_row(self, sentence: Sentence, rng: Rng) -> _Row:
        said = np.full(self.found.shape[1], -1, dtype=np.int64)
        place = PLACE[sentence.kind]
        said[place] = encode_facts({sentence.kind: sentence.value})[place]
        organ = organ_of(sentence.kind, self.config.model.organs, rng)
        return _Row(_forget(sentence.text, self.config.texts.forget_words, rng), said, organ)

    def _say_report(self, study: TrainingStudy, rng: Rng) -> _Said:
        nothing = np.full(self.found.shape[1], -1, dtype=np.int64)
        every = split_sentences(study.report)
        kept = [words for words in every if rng.random() >= self.config.texts.forget_words] or every or [""]
        own = [_Row(words, nothing, -1) for words in kept]
        edit = edit_one(kept, rng)
        if edit is None:
            return _Said(own, None)
        place, words = edit
        return _Said(own, [*own[:place], _Row(words, nothing, -1), *own[place + 1 :]])

    def _pack(self, chosen: list[int], inputs: list[StudyInput], found: np.ndarray, said: list[_Said]) -> PairBatch:
        assert self.model is not None, "build() comes before batch()"
        with_edits = self.config.sampler.edited_texts
        texts = [s.own for s in said] + ([s.edited or s.own for s in said] if with_edits else [])
        rows = list({id(row): row for text in texts for row in text}.values())
        place = {id(row): number for number, row in enumerate(rows)}
        stated = np.stack([np.max([row.said for row in text], axis=0) for text in texts])
        ids = np.full(len(texts), -1, dtype=np.int64)
        for number, study in enumerate(chosen):
            if self.studies[study].reference is None:
                stated[number, len(KINDS) :] = found[number, len(KINDS) :]
                ids[number] = self.report_ids[study]
                if with_edits:  # an edited report is true of nobody here
                    ids[len(chosen) + number] = ids[number] if said[number].edited is None else -2 - number
        return PairBatch(
            studies=collate(inputs, self.config.model.organs, volume=self.config.model.volume),
            numbers=torch.tensor(chosen),
            found=torch.from_numpy(found),
            tokens=self.model.text_encoder.tokenise_rows([row.words for row in rows]),
            members=torch.tensor([place[id(row)] for text in texts for row in text]),
            owner=torch.tensor([number for number, text in enumerate(texts) for _ in text]),
            said=torch.from_numpy(np.stack([row.said for row in rows])),
            organ=torch.tensor([row.organ for row in rows]),
            stated=torch.from_numpy(stated),
            text_ids=torch.from_numpy(ids),
            ids=tuple(self.studies[study].id for study in chosen),
        )


def _numbered(texts: Sequence[str]) -> list[int]:
    numbers: dict[str, int] = {}
    return [numbers.setdefault(text.strip(), len(numbers)) for text in texts]


def _cut(slices: int, rng: Rng) -> tuple[int, int]:
    """A part of the scan that is long enough to show something."""
    low = int(rng.integers(0, slices // 3 + 1)) if rng.random() < 0.6 else 0
    high = slices - (int(rng.integers(0, slices // 4 + 1)) if rng.random() < 0.5 else 0)
    low -= low % 2  # whole coarse voxels
    return (low, high) if high - low >= MIN_SLICES else (0, slices)


def _jittered(profile: Profile, rng: Rng) -> Profile:
    """Organs a little larger or denser: no segmentation is exact, and those of training scans are too good."""
    from dataclasses import replace

    def shaken(organ: Any) -> Any:
        size, shift = np.exp(rng.normal(0, 0.04)), rng.normal(0, 5)
        voxels = organ.voxels * size
        return replace(organ, voxels=voxels, hu=organ.hu * size + shift * voxels, hu_squared=organ.hu_squared * size)

    return replace(profile, organs={name: shaken(organ) for name, organ in profile.organs.items()})


def _forget(words: str, share: float, rng: Rng) -> str:
    """Some words left out; a sentence keeps one at least."""
    if not share or " " not in words:
        return words
    kept = [word for word in words.split(" ") if rng.random() >= share]
    return " ".join(kept) or words
