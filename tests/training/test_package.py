"""Model packages: small, complete, hashed, and without a trace of the machine."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from medseg.errors import ModelIntegrityError
from medseg.labels import LabelTable
from medseg.models.card import ModelCard
from medseg.models.store import CARD, WEIGHTS, load_model, read_card
from medseg.networks.catalogue import build_network
from medseg.training.cases import TrainingCase
from medseg.training.package import add_metrics, write_package
from tests.training.conftest import TINY, config

WORDS = {"title": "Tiny", "description": "A test.", "limits": ["None."], "sources": ["Phantoms"]}


@pytest.fixture
def network() -> torch.nn.Module:
    torch.manual_seed(5)
    return build_network("Optimized3DUNet", TINY | {"out_channels": 4}).eval()


@pytest.fixture
def folder(tmp_path: Path, network: torch.nn.Module, cases: list[TrainingCase], table: LabelTable) -> Path:
    settings = config(tmp_path / "secret-place" / "index.json", card=WORDS, version="1.2.3")
    write_package(tmp_path / "package", network, settings, table, cases)
    return tmp_path / "package"


def test_the_card_says_what_was_trained_on_what(folder: Path) -> None:
    card = read_card(folder / CARD)
    assert isinstance(card, ModelCard)
    assert (card.id, card.title, card.limits) == ("tiny@1.2.3", "Tiny", ["None."])
    assert card.label_table.names == {"parotid_gland_left": 1, "parotid_gland_right": 2, "spinal_cord": 3}
    assert card.input.spacing_mm == (7, 7, 8)
    assert card.input.patch_size == (16, 16, 16)
    assert card.network.options == TINY | {"out_channels": 4}
    assert card.training["cases"] == 5
    assert card.training["sources"] == ["Phantoms"]
    assert card.training["config"]["loop"]["learning_rate"] == config().loop.learning_rate
    assert card.training["versions"]["torch"] == torch.__version__
    assert set(card.anatomy.field) == {"parotid_gland_left", "parotid_gland_right"}
    assert card.metrics == {}


def test_the_hash_is_that_of_the_weights(folder: Path) -> None:
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    assert read_card(folder / CARD).files == {WEIGHTS: digest}
    assert load_model(folder).card.files[WEIGHTS] == digest


def test_altered_weights_are_refused(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(ModelIntegrityError, match=WEIGHTS):
        load_model(folder)


def test_the_folder_of_the_data_is_not_told(folder: Path) -> None:
    text = (folder / CARD).read_text()
    assert "secret-place" not in text
    assert '"index": "index.json"' in text


def test_kernels_are_halved_and_everything_else_is_exact(folder: Path, network: torch.nn.Module) -> None:
    weights = load_file(folder / WEIGHTS)
    wanted = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("deep_heads")}
    assert set(weights) == set(wanted)
    for name, tensor in weights.items():
        if tensor.ndim > 1:
            assert tensor.dtype == torch.float16
            torch.testing.assert_close(tensor.float(), wanted[name], rtol=1e-3, atol=1e-6)
        else:
            assert torch.equal(tensor, wanted[name])


def test_a_network_that_knows_a_tensor_by_two_names_is_packed(
    tmp_path: Path, cases: list[TrainingCase], table: LabelTable
) -> None:
    options = {"spatial_dims": 3, "in_channels": 1, "kernel_size": [3, 3, 3], "strides": [1, 2, 2]}
    options |= {"upsample_kernel_size": [2, 2], "filters": [4, 8, 8]}
    network = build_network("DynUNet", options | {"out_channels": 4}).eval()
    settings = config(network={"name": "DynUNet", "options": options})
    write_package(tmp_path / "package", network, settings, table, cases)
    load_model(tmp_path / "package")
    assert set(load_file(tmp_path / "package" / WEIGHTS)) == set(network.state_dict())


def test_few_cases_make_a_package_without_anatomy(
    tmp_path: Path, network: torch.nn.Module, cases: list[TrainingCase], table: LabelTable
) -> None:
    assert write_package(tmp_path, network, config(), table, cases[:2]).anatomy is None
    assert write_package(tmp_path, network, config(anatomy_check=False), table, cases).anatomy is None


def test_without_a_title_the_name_stands(
    tmp_path: Path, network: torch.nn.Module, cases: list[TrainingCase], table: LabelTable
) -> None:
    bare = [replace(case, places={}) for case in cases]
    assert write_package(tmp_path, network, config(), table, bare).title == "tiny"


def test_scores_are_added_and_nothing_else_changes(folder: Path) -> None:
    before = read_card(folder / CARD)
    add_metrics(folder, before, {"mean_dice": 0.5})
    after = read_card(folder / CARD)
    assert after.metrics == {"mean_dice": 0.5}
    assert after.model_copy(update={"metrics": {}}) == before
    load_model(folder)
