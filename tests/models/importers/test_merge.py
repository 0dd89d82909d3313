"""Several folders as one model: every part decides as it did alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from medseg.errors import ModelImportError
from medseg.models.importers.run import import_models
from medseg.models.store import WEIGHTS, load_model
from medseg.networks.catalogue import build_network
from medseg.preprocess.intensity import normalise
from tests.models.importers.foreign_folders import fold_weights, plans, write_nnunet

ORGANS = ({"background": 0, "aorta": 1, "liver": 2}, {"background": 0, "rib": 1, "skull": 2})


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """Two models of one grid whose HU statistics differ."""
    own = plans()
    own["foreground_intensity_properties_per_channel"]["0"] = {
        "mean": 200.0, "std": 400.0, "percentile_00_5": -500.0, "percentile_99_5": 1500.0,
    }  # fmt: skip
    weights = fold_weights("plain_conv_unet", 3)
    return [
        write_nnunet(tmp_path / "organs", dataset={"labels": ORGANS[0]}),
        write_nnunet(tmp_path / "bones", dataset={"labels": ORGANS[1]}, content=own, weights=weights),
    ]


def logits(folder: Path, hu: torch.Tensor) -> torch.Tensor:
    package = load_model(folder)
    assert package.card.network is not None
    assert package.card.input is not None
    network = build_network(package.card.network.name, package.card.network.options)
    network.load_state_dict(load_file(package.file(WEIGHTS)), strict=True)
    with torch.inference_mode():
        out: torch.Tensor = network.eval()(normalise(hu, package.card.input.window_hu))
    return out


def test_each_part_decides_alone_where_the_other_sees_background(parts: list[Path], tmp_path: Path) -> None:
    hu = torch.randn(1, 1, 12, 16, 8, generator=torch.Generator().manual_seed(4)) * 700
    alone = [logits(import_models([path], tmp_path / "shelf", path.name), hu) for path in parts]
    order = tmp_path / "labels.json"
    order.write_text(json.dumps({"1": "skull", "2": "aorta", "3": "liver", "4": "rib"}))
    merged = import_models(parts, tmp_path / "shelf", "all", labels=order)
    assert load_model(merged).card.label_table.names == {"skull": 1, "aorta": 2, "liver": 3, "rib": 4}
    labels = logits(merged, hu).argmax(1)
    first, second = (part.argmax(1) for part in alone)
    to_merged = torch.tensor([0, 2, 3]), torch.tensor([0, 4, 1])
    assert torch.equal(labels[second == 0], to_merged[0][first[second == 0]])
    assert torch.equal(labels[first == 0], to_merged[1][second[first == 0]])
    both = (first > 0) & (second > 0)
    assert both.any()
    surer = [(part.max(1).values - part[:, 0])[both] for part in alone]
    expected = torch.where(surer[0] > surer[1], to_merged[0][first[both]], to_merged[1][second[both]])
    assert torch.equal(labels[both], expected)


def test_organs_follow_each_other_without_a_label_map(parts: list[Path], tmp_path: Path) -> None:
    card = load_model(import_models(parts, tmp_path / "shelf", "all")).card
    assert card.label_table.names == {"aorta": 1, "liver": 2, "rib": 3, "skull": 4}
    assert card.input is not None
    assert card.input.window_hu == (-900.0, 1500.0)
    assert [part["model_folder"] for part in card.training["parts"]] == ["organs", "bones"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ('{"aorta": 1, "spine": 2}', "the label map names spine that do not fit: 4 organs are there"),
        ('{"aorta": 2, "liver": 3}', "the label map names values that do not fit"),
        ("[1]", "labels.json: is no label map"),
        ("{", "labels.json: is no label map"),
    ],
)
def test_label_maps_that_do_not_fit(content: str, text: str, parts: list[Path], tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(ModelImportError, match=text):
        import_models(parts, tmp_path, "all", labels=tmp_path / "labels.json")


def test_an_organ_that_two_know_and_grids_that_differ(parts: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ModelImportError, match="several models know aorta, liver"):
        import_models([parts[0], parts[0]], tmp_path, "twice")
    other = write_nnunet(tmp_path / "fine", spacing=[1.5, 1.5, 1.5], dataset={"labels": ORGANS[1]})
    with pytest.raises(ModelImportError, match=r"fine: .* differs from organs"):
        import_models([parts[0], other], tmp_path, "grids")
