"""Training from scans on disk to a package that an archive is searched with."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("lancedb")
pytest.importorskip("transformers")
pytest.importorskip("sklearn")
from medseg.errors import ConfigError, DataError, ModelIntegrityError, UnknownModelError
from medseg.imaging.nifti import write_label_map
from tests.phantoms import phantom_labels, phantom_volume, write_nifti
from vlretrieval.archive import load_encoder
from vlretrieval.cli import main
from vlretrieval.facts.kinds import PAROTIDS
from vlretrieval.inputs import StudyInput
from vlretrieval.package import list_packages, load_package, read_card, write_card
from vlretrieval.profile import OrganProfile, Profile
from vlretrieval.training.batch import pair_truth
from vlretrieval.training.config import RetrievalConfig, load_config
from vlretrieval.training.data import load_studies
from vlretrieval.training.judge import judge
from vlretrieval.training.studies import TrainingStudy
from vlretrieval.training.task import ContrastiveTask

SMALL = (24, 22, 30)
MODEL: dict[str, Any] = {"organs": PAROTIDS, "text_layers": 1, "text_width": 32, "volume": False}
LOOP = {
    "max_steps": 150,
    "warmup_steps": 10,
    "learning_rate": 3e-3,
    "precision": "fp32",
    "workers": 0,
    "ema_decay": 0.9,
}


def config(**changes: Any) -> RetrievalConfig:
    values = {"name": "toy", "model": MODEL, "loop": LOOP, "sampler": {"batch_size": 8, "after": 5}} | changes
    return RetrievalConfig.model_validate(values)


def planted(number: int) -> TrainingStudy:
    """A neck whose parotids, metal and length are drawn; what the encoder sees says it all."""
    rng = np.random.default_rng(number)
    slices = int(rng.choice([40, 60, 90]))

    def organ(ml: float) -> OrganProfile:
        voxels = np.zeros(slices)
        voxels[20:30] = ml * 100 / 6.4
        return OrganProfile(voxels, voxels * -20, voxels * 400)

    organs = {name: organ(float(rng.choice([12, 25, 38]))) for name in PAROTIDS}
    body = np.full(slices, 900.0)
    metal = np.full(slices, float(rng.choice([0, 1, 5])) * 1000 / 64 / slices)
    profile = Profile(organs, frozenset(organs), body, 0.27 * body, metal, 0 * body, (1.0, 1.0, 2.5), 500.0)
    seen = StudyInput(np.zeros((5, 64, 40, (slices + 1) // 2), np.uint8), profile)
    return TrainingStudy(f"s{number}", f"p{number}", seen, profile)


def network_of(task: ContrastiveTask) -> Any:
    torch.manual_seed(0)
    return task.build()


@pytest.mark.parametrize("losses", [{}, {"pairs": "siglip", "weighting": "famo"}, {"mask_false_negatives": False}])
def test_every_loss_is_finite_and_reaches_both_towers(losses: dict[str, Any]) -> None:
    task = ContrastiveTask([planted(n) for n in range(12)], config(losses=losses | {"hard_after": 0}))
    network = network_of(task).train()
    assert network.model.judges
    for number in range(2):  # the second batch meets the memory of the first
        loss = task.loss(network, task.batch(number))
    loss.total.backward()
    assert set(loss.parts) == {"pairs", "statements", "attributes", "organs", "matching"}
    assert all(torch.isfinite(part) for part in loss.parts.values())
    for name, parameter in network.model.named_parameters():
        if "position_embeddings" not in name and "pooler" not in name:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name


def test_attributes_are_told_without_words_and_unknown_ones_are_not_asked() -> None:
    weights = {"weights": {"attributes": 1.0}}
    task = ContrastiveTask([planted(n) for n in range(12)], config(losses=weights))
    network = network_of(task).train()
    batch = task.batch(0)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = task.loss(network, batch).total
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    nothing = replace(batch, found=torch.full_like(batch.found, -1))
    assert task.loss(network, nothing).total.item() == 0


def test_a_batch_is_the_same_whenever_it_is_asked_for() -> None:
    tasks = [ContrastiveTask([planted(n) for n in range(12)], config()) for _ in range(2)]
    for task in tasks:
        network_of(task)
    first, second = (task.batch(3) for task in tasks)
    assert first.ids == second.ids
    assert torch.equal(first.tokens, second.tokens)
    assert torch.equal(first.stated, second.stated)


def test_edited_texts_are_true_of_their_study_no_more() -> None:
    task = ContrastiveTask([planted(n) for n in range(12)], config())
    network_of(task)
    batch = task.batch(0)
    truth = pair_truth(batch.stated, batch.text_ids, batch.found, batch.text_ids[:8])
    assert truth.shape == (16, 8)
    assert (truth[:8].diagonal() == 1).all()
    assert (truth[8:].diagonal() == 0).all()


def test_what_one_report_does_not_say_another_may() -> None:
    """Equal reports belong together; of studies with equal findings and other words nobody knows."""
    stated = torch.tensor([[1], [1], [0]])
    truth = pair_truth(stated, torch.tensor([0, 1, 2]), stated, torch.tensor([0, 0, 2]))
    assert truth.tolist() == [[1, 1, 0], [-1, 1, 0], [0, 0, 1]]
    plain = pair_truth(stated, torch.tensor([0, 1, 2]), stated, torch.tensor([0, 0, 2]), masked=False)
    assert plain.tolist() == torch.eye(3, dtype=torch.int8).tolist()


@pytest.mark.slow
def test_training_finds_studies_that_it_has_not_seen(tmp_path: Path) -> None:
    """Sentences that were held out find planted studies that were held out, far above chance."""
    from medseg.training.trainer import Trainer

    held = [planted(n) for n in range(1000, 1040)]
    model = MODEL | {"text_layers": 2, "text_width": 64}
    settings = config(model=model, sampler={"batch_size": 24}, loop=LOOP | {"max_steps": 240})
    task = ContrastiveTask([planted(n) for n in range(120)], settings)
    network: Any = Trainer(task, settings.loop, tmp_path).run()
    figures = judge(network.model, held)
    assert figures["recall_5"] > 2 * figures["chance_5"], figures


def write_pairs(folder: Path) -> Path:
    """Eight phantoms of two sizes, each with a report of its own that tells the size."""
    lines = ["image,report,patient,split,Large"]
    for number in range(8):
        size = ("small", "large")[number % 2]
        step = (5.0, 5.0, 5.5) if size == "large" else (4.0, 4.0, 4.5)
        write_nifti(folder / f"scan{number}.nii.gz", phantom_volume(SMALL, step, seed=number))
        split = "validation" if number >= 6 else "train"
        lines.append(f"scan{number}.nii.gz,A {size} body. Study {number}.,p{number},{split},{number % 2}")
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
    return folder / "pairs.csv"


def run(*arguments: str | Path) -> str:
    out = io.StringIO()
    with redirect_stdout(out), pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    assert left.value.code == 0, out.getvalue()
    return out.getvalue()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over pairs, its package in it; not to be changed."""
    folder = tmp_path_factory.mktemp("pairs")
    write_pairs(folder)
    model = {"organs": ["bone"], "text_layers": 1, "text_width": 32}
    values = {"name": "toy", "licence": "none", "segmenter": "tissue-hu", "pairs": "pairs.csv", "model": model}
    loop = LOOP | {"max_steps": 4}
    values |= {"loop": loop, "sampler": {"batch_size": 4}, "losses": {"weights": {"pairs": 1.0, "matching": 0.5}}}
    (folder / "toy.yaml").write_text(json.dumps(values))
    said = run("train", folder / "toy.yaml", "-o", folder / "run")
    assert "6 studies to learn from, 2 to judge by" in said
    assert "Model package:" in said
    return folder


def test_a_package_holds_what_was_measured_and_how(trained: Path) -> None:
    card = load_package(trained / "run" / "package").card
    assert card.metrics["pool"] == 2
    assert card.training["studies"] == 6
    assert card.segmenter == "tissue-hu"
    assert card.options["judges"] is False  # of reports no sentence is known to be true by itself
    assert card.training["losses"] == {"pairs": 1.0, "matching": 0.5}


@pytest.mark.parametrize("losses", [None, {"statements": 4.0, "attributes": 2.0}])
def test_a_matching_head_that_was_not_trained_judges_nothing(
    trained: Path, tmp_path: Path, losses: dict[str, float] | None
) -> None:
    """By what the card says; one of before losses stood on cards says nothing, and that is no yes."""
    import shutil

    features = np.random.default_rng(0).normal(size=(3, load_encoder(str(trained / "run" / "package"), ()).features))
    judged = load_encoder(str(trained / "run" / "package"), ()).match("a large body", features)
    assert judged is not None
    assert np.isfinite(judged).all()
    copy = shutil.copytree(trained / "run" / "package", tmp_path / "package")
    card = read_card(copy / "model.json")
    training = {name: value for name, value in card.training.items() if name != "losses"}
    training |= {} if losses is None else {"losses": losses}
    write_card(copy, card.model_copy(update={"training": training}))
    assert load_encoder(str(copy), ()).match("a large body", features) is None


def test_an_archive_is_searched_by_a_trained_models_vectors(trained: Path, tmp_path: Path) -> None:
    package = trained / "run" / "package"
    run(
        "index",
        trained / "scan0.nii.gz",
        trained / "scan1.nii.gz",
        "-a",
        tmp_path / "a",
        "--segmenter",
        "tissue-hu",
        "--model",
        package,
    )
    found = json.loads(run("search", "a large body", "-a", tmp_path / "a", "--model", package, "--json", "--rerank"))
    assert len(found["hits"]) == 2
    assert found["notes"] == []
    assert any("cosine" in reason for hit in found["hits"] for reason in hit["why"])
    like = json.loads(
        run("search", "--like", trained / "scan1.nii.gz", "-a", tmp_path / "a", "--model", package, "--json")
    )
    assert [hit["name"] for hit in like["hits"]] == ["scan0"]
    with pytest.raises(SystemExit) as left:  # vectors of another encoder say nothing here
        main(["search", "body", "-a", str(tmp_path / "a"), "--model", "measured"])
    assert left.value.code != 0


def test_a_second_run_segments_nothing_again(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlretrieval.training.data.look_at", lambda *args, **kwargs: pytest.fail("segmented again"))
    settings = load_config(trained / "toy.yaml")
    studies = load_studies(settings, ("train",), trained / "run" / "views", print)
    assert len(studies) == 6
    assert studies[1].labels == {"Large": 1}
    with pytest.raises(SystemExit):
        main(["train", str(trained / "toy.yaml"), "-o", str(trained / "run")])


def test_a_damaged_package_is_refused(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    copy = shutil.copytree(trained / "run" / "package", tmp_path / "shelf" / "toy")
    monkeypatch.setenv("VLRETRIEVAL_MODELS", str(tmp_path / "shelf"))
    assert [card.name for card in list_packages()] == ["toy"]
    assert load_encoder("toy", ()).dim == 256
    weights = bytearray((copy / "weights.safetensors").read_bytes())
    weights[-3] ^= 1
    (copy / "weights.safetensors").write_bytes(bytes(weights))
    card = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps(card | {"title": "other"}))
    with pytest.raises(ModelIntegrityError, match=r"weights\.safetensors"):
        load_package("toy")
    (copy / "model.json").write_text("{}")
    with pytest.raises(ModelIntegrityError, match="not the card"):
        load_package(copy)
    (copy / "model.json").unlink()
    with pytest.raises(UnknownModelError, match="No retrieval model"):
        load_package("toy@9")


def test_facts_come_from_reference_masks(tmp_path: Path) -> None:
    """A dataset like OpenKBP's: contours on the scan's grid; organs that were not contoured stay unknown."""
    volume = phantom_volume()
    folder = tmp_path / "train"
    folder.mkdir()
    write_nifti(folder / "pt_1_ct.nii.gz", volume)
    labels = phantom_labels(volume).astype(np.uint8)
    labels[labels > 2] = 0
    write_label_map(folder / "pt_1_label.nii.gz", labels, volume.geometry)
    names = {"parotid_gland_left": 1, "parotid_gland_right": 2}
    cases = [{"id": "pt_1", "split": "train", "contoured": ["parotid_gland_left"]}]
    (tmp_path / "index.json").write_text(json.dumps({"labels": names, "cases": cases}))
    settings = config(index=tmp_path / "index.json", segmenter="tissue-hu")
    (study,) = load_studies(settings, ("train",), tmp_path / "views", print)
    assert study.facts["left_parotid"] == "small"
    assert "right_parotid" not in study.facts
    write_label_map(folder / "pt_1_label.nii.gz", labels[:-1], replace(volume.geometry, shape=labels[:-1].shape))
    with pytest.raises(DataError, match="not on the grid"):
        load_studies(settings, ("train",), tmp_path / "views", print)


def test_a_patient_in_two_splits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("image,report,patient,split\na.nii,x,p,train\nb.nii,y,p,validation\n")
    with pytest.raises(DataError, match="two splits"):
        load_studies(config(pairs=tmp_path / "pairs.csv"), ("test",), tmp_path, print)
    (tmp_path / "pairs.csv").write_text("report,split\nx,train\n")
    with pytest.raises(DataError, match="no columns"):
        load_studies(config(pairs=tmp_path / "pairs.csv"), ("train",), tmp_path, print)
    with pytest.raises(ConfigError, match="either"):
        load_studies(config(), ("train",), tmp_path, print)
    with pytest.raises(DataError, match="no studies"):
        ContrastiveTask([], config())


@pytest.mark.parametrize(
    ("text", "said"),
    [("name: x\ncolour: red\n", "colour"), ("- x\n", "not a mapping"), ("a: [", "no YAML"), ("version: '1'\n", "name")],
)
def test_configs_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_config(tmp_path / "c.yaml")


def test_paths_of_a_file_and_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("file", "here"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "pairs.csv").write_text("x")
    (tmp_path / "file" / "c.yaml").write_text("name: x\npairs: pairs.csv\nloop: 3\n")
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ConfigError, match="no group"):
        load_config(tmp_path / "file" / "c.yaml", {"loop.seed": 1})
    (tmp_path / "file" / "c.yaml").write_text("name: x\npairs: pairs.csv\n")
    assert load_config(tmp_path / "file" / "c.yaml").pairs == tmp_path / "file" / "pairs.csv"
    given = load_config(tmp_path / "file" / "c.yaml", {"pairs": Path("pairs.csv")})
    assert given.pairs == tmp_path / "here" / "pairs.csv"


def test_presets_are_read_and_overrides_win() -> None:
    for preset in ("pairs", "ct-facts"):
        assert load_config(preset, {"loop.seed": 7, "loop.ema_decay": None}).loop.seed == 7
    with pytest.raises(ConfigError, match="presets: ct-facts, pairs"):
        load_config("none")
