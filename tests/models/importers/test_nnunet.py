"""nnU-Net v2 folders: axes, scale, folds and regions as there, logits as there, in a package of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from medseg.errors import ConfigError, ModelImportError
from medseg.imaging.emit import sha256_file
from medseg.inference.segmenter import build_segmenter
from medseg.models.importers.nnunet import read_nnunet
from medseg.models.importers.run import import_models
from medseg.models.store import WEIGHTS, ModelPackage, load_model
from medseg.networks.catalogue import build_network
from medseg.preprocess.intensity import normalise
from medseg.runtime.provenance import StageClock
from tests.models.importers.facts import FACTS, ours, strip
from tests.models.importers.foreign_folders import (
    CT_FACTS,
    PREPARED,
    RESAMPLED,
    fold_weights,
    plans,
    write_nnunet,
)
from tests.models.importers.planted_weights import planted_input
from tests.phantoms import phantom_volume


def network_of(package: ModelPackage) -> torch.nn.Module:
    assert package.card.network is not None
    network = build_network(package.card.network.name, package.card.network.options)
    network.load_state_dict(load_file(package.file(WEIGHTS)), strict=True)
    return network.eval()


def in_our_axes(theirs: torch.Tensor) -> torch.Tensor:
    """[..., slice, row, column] of an LPS scan -> RAS order."""
    return theirs.permute(*range(theirs.ndim - 3), -1, -2, -3).flip(-3, -2)


def as_hu(theirs: torch.Tensor) -> torch.Tensor:
    """HU that nnU-Net's CTNormalization turns into `theirs`; all within its percentiles."""
    return theirs * CT_FACTS["std"] + CT_FACTS["mean"]


@pytest.mark.parametrize("kind", FACTS)
def test_an_imported_model_gives_nnunets_logits(kind: str, tmp_path: Path) -> None:
    folder = import_models([write_nnunet(tmp_path / "theirs", kind)], tmp_path / "shelf", "planted")
    package = load_model(folder)
    facts = FACTS[kind]
    hu = in_our_axes(as_hu(planted_input(facts["input_shape"])))
    assert package.card.input is not None
    with torch.inference_mode():
        logits = network_of(package)(normalise(hu, package.card.input.window_hu))
    back = logits.flip(-3, -2).permute(0, 1, -1, -2, -3)[0]
    np.testing.assert_allclose(back.reshape(-1)[:: facts["every"]], facts["logits"], atol=1e-4)


def test_the_card_says_what_was_taken_over(tmp_path: Path) -> None:
    source = write_nnunet(tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres")
    card = load_model(import_models([source], tmp_path, "kidney", licence="CC-BY-4.0", version="2.0")).card
    assert (card.id, card.licence) == ("kidney@2.0", "CC-BY-4.0")
    assert card.label_table.names == {"kidney_left": 1, "spinal_cord": 2}
    assert card.input is not None
    assert card.input.spacing_mm == (4.0, 3.0, 5.0)
    assert card.input.patch_size == (12, 16, 8)
    assert card.input.window_hu == (-900.0, 1100.0)
    assert card.input.beyond == pytest.approx((60 + 900) / 500 - 1)  # their zero is the mean, 60 HU
    assert card.training["model_folder"] == source.name
    assert card.training["checkpoints"] == {
        "fold_0/checkpoint_final.pth": sha256_file(source / "fold_0/checkpoint_final.pth")
    }
    assert card.training["mirroring_in_training"] == [0, 1, 2]
    assert any("LPS" in limit for limit in card.limits)


def test_the_package_segments_a_scan(tmp_path: Path) -> None:
    package = load_model(import_models([write_nnunet(tmp_path / "theirs")], tmp_path, "planted"))
    volume = phantom_volume((24, 20, 12), (5.0, 5.0, 6.0), orientation="LPS")
    raw = build_segmenter(package)(volume, StageClock())
    assert raw.label_map.labels.shape == volume.hu.shape
    assert set(np.unique(raw.label_map.labels)) <= {0, 1, 2}


def test_folds_are_averaged_and_can_be_chosen(tmp_path: Path) -> None:
    source = write_nnunet(tmp_path / "theirs", folds=("0", "1", "all"))
    image = planted_input((8, 16, 12))
    single = []
    for number in range(2):
        network = build_network("PlainConvUNet", ours(FACTS["plain_conv_unet"])).eval()
        network.load_state_dict(strip(fold_weights("plain_conv_unet", number)))
        single.append(network(image))
    both = load_model(import_models([source], tmp_path, "both"))
    assert both.card.network is not None
    assert both.card.network.options["count"] == 2
    assert both.card.input is not None
    given = normalise(in_our_axes(as_hu(image)), both.card.input.window_hu)
    expected = in_our_axes((single[0] + single[1]) / 2)
    torch.testing.assert_close(network_of(both)(given), expected, atol=1e-4, rtol=0)
    one = load_model(import_models([source], tmp_path, "one", folds=["1"]))
    torch.testing.assert_close(network_of(one)(given), in_our_axes(single[1]), atol=1e-4, rtol=0)


def test_faithful_windows_and_mirror_images(tmp_path: Path) -> None:
    source = write_nnunet(tmp_path / "theirs")
    quick, faithful = read_nnunet(source), read_nnunet(source, faithful=True)
    assert (quick.overlap_ratio, quick.mirror_axes, quick.mirror_even) == (0.5, (0, 1, 2), True)
    assert (faithful.overlap_ratio, faithful.mirror_axes, faithful.mirror_even) == (0.5, (0, 1, 2), False)
    assert (quick.spread, faithful.spread) == (None, "LPS")
    assert (quick.fitted, faithful.fitted) == (True, False)
    assert len(quick.remarks) == len(faithful.remarks) + 1


@pytest.mark.parametrize(("axes", "half"), [([0, 1], True), ([0], False), (None, False)])
def test_half_of_the_mirror_images_where_there_are_two_axes(axes: list[int] | None, half: bool, tmp_path: Path) -> None:
    assert read_nnunet(write_nnunet(tmp_path / "theirs", mirror=axes)).mirror_even is half


@pytest.mark.parametrize(("theirs", "ours"), [([0], (2,)), ([1, 2], (0, 1)), ([2], (0,)), (None, ())])
def test_mirror_axes_are_those_of_the_body(theirs: list[int] | None, ours: tuple[int, ...], tmp_path: Path) -> None:
    source = write_nnunet(tmp_path / "theirs", mirror=theirs)
    assert read_nnunet(source, faithful=True).mirror_axes == ours  # their arrays are slices, rows, columns


@pytest.mark.parametrize(
    ("content", "told", "codes", "spacing"),
    [
        ({}, None, "SPL", (4.0, 3.0, 5.0)),
        ({}, "ras", "SAR", (4.0, 3.0, 5.0)),
        ({"image_reader_writer": "NibabelIOWithReorient"}, None, "SAR", (4.0, 3.0, 5.0)),
        ({"image_reader_writer": "SimpleITKIOWithReorient"}, None, "SAR", (4.0, 3.0, 5.0)),
        ({"image_reader_writer": "NibabelIO"}, None, "SPL", (4.0, 3.0, 5.0)),
        ({"transpose_forward": [2, 0, 1]}, None, "LSP", (5.0, 4.0, 3.0)),
    ],
)
def test_axes(
    content: dict[str, Any], told: str | None, codes: str, spacing: tuple[float, ...], tmp_path: Path
) -> None:
    model = read_nnunet(write_nnunet(tmp_path / "theirs", content=plans() | content), orientation=told)
    assert model.around["orientation"] == codes
    assert model.spacing_mm == spacing
    assert any("are taken to be in LPS order" in remark for remark in model.remarks) == (codes in ("SPL", "LSP"))


def test_arrays_of_an_unknown_reader_are_refused(tmp_path: Path) -> None:
    source = write_nnunet(tmp_path / "theirs", content=plans() | {"image_reader_writer": "MyReader"})
    assert "plans.json: its scans were read by MyReader" in refused(source, orientation="RAS")


@pytest.mark.parametrize("told", ["RRS", "RAX", "RA"])
def test_axes_that_are_none_are_blamed_on_who_told_them(told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"--orientation {told} names no three axes"):
        read_nnunet(write_nnunet(tmp_path / "theirs"), orientation=told)


def test_a_low_resolution_configuration_inherits(tmp_path: Path) -> None:
    model = read_nnunet(write_nnunet(tmp_path / "theirs", configuration="3d_lowres"))
    assert (model.spacing_mm, model.patch_size) == ((6.0, 6.0, 7.0), (12, 16, 8))
    assert model.facts["configuration"] == "3d_lowres"


def test_plans_of_the_first_versions_describe_the_same_network(tmp_path: Path) -> None:
    new = read_nnunet(write_nnunet(tmp_path / "new"))
    old = plans()
    conf = old["configurations"]["3d_fullres"]
    for key in PREPARED:
        del conf[key]
    del old["image_reader_writer"]
    kwargs = conf.pop("architecture")["arch_kwargs"]
    conf |= {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 7,
        "n_conv_per_stage_encoder": kwargs["n_conv_per_stage"],
        "n_conv_per_stage_decoder": kwargs["n_conv_per_stage_decoder"],
        "conv_kernel_sizes": kwargs["kernel_sizes"],
        "pool_op_kernel_sizes": kwargs["strides"],
    }
    model = read_nnunet(write_nnunet(tmp_path / "old", content=old))
    assert model.options == {**new.options, "features": [4, 7, 7]}


def test_a_z_score_of_each_scan(tmp_path: Path) -> None:
    source = write_nnunet(tmp_path / "theirs", normalization_schemes=["ZScoreNormalization"])
    card = load_model(import_models([source], tmp_path, "z")).card
    assert card.input is not None
    assert (card.input.intensity, card.input.beyond) == ("nnunet-z-score", 0.0)
    assert card.network is not None
    assert (card.network.options["scale"], card.network.options["shift"]) == (1.0, 0.0)


def test_regions_keep_the_values_of_nnunets_masks(tmp_path: Path) -> None:
    dataset = {
        "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "active": 3, "ignore": 4},
        "regions_class_order": [2, 1, 3],
    }
    model = read_nnunet(write_nnunet(tmp_path / "theirs", dataset=dataset))
    assert model.labels == ("core", "whole", "active")
    assert (model.around["head"], model.around["channels"]) == ("regions", [0, 2, 1, 3])
    assert model.options["out_channels"] == 3
    package = load_model(import_models([tmp_path / "theirs"], tmp_path, "regions"))
    network = network_of(package)
    with torch.inference_mode():
        assert network(torch.zeros(1, 1, 12, 16, 8)).shape == (1, 4, 12, 16, 8)


def test_an_ignored_label_is_no_organ(tmp_path: Path) -> None:
    dataset = {"labels": {"background": 0, "a": 1, "b": 2, "ignore": 3}}
    assert read_nnunet(write_nnunet(tmp_path / "theirs", dataset=dataset)).labels == ("a", "b")


def test_a_dataset_folder_with_one_model_in_it(tmp_path: Path) -> None:
    write_nnunet(tmp_path / "Dataset042" / "nnUNetTrainer__nnUNetPlans__3d_fullres")
    assert import_models([tmp_path / "Dataset042"], tmp_path, "inner").is_dir()
    write_nnunet(tmp_path / "Dataset042" / "other")
    with pytest.raises(ModelImportError, match="several models: nnUNetTrainer__nnUNetPlans__3d_fullres, other"):
        read_nnunet(tmp_path / "Dataset042")


def refused(folder: Path, **options: Any) -> str:
    with pytest.raises(ModelImportError) as caught:
        import_models([folder], folder.parent, "refused", **options)
    assert caught.value.advice
    assert not (folder.parent / "refused").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("file", "text"),
    [("plans.json", "neither an nnU-Net v2 model folder"), ("dataset.json", "dataset.json: is missing")],
)
def test_missing_descriptions(file: str, text: str, tmp_path: Path) -> None:
    folder = write_nnunet(tmp_path / "theirs")
    (folder / file).unlink()
    assert text in refused(folder)


def test_missing_weights_and_folds(tmp_path: Path) -> None:
    folder = write_nnunet(tmp_path / "theirs", folds=("0", "2"))
    assert "has no fold 1; it has 0, 2" in refused(folder, folds=["1"])
    (folder / "fold_0/checkpoint_final.pth").unlink()
    assert "checkpoint_final.pth: is missing. Copy fold_0" in refused(folder)


@pytest.mark.parametrize(
    ("configuration", "text"),
    [
        ("2d", "2d is not three-dimensional. Only 3d_fullres and 3d_lowres"),
        ("3d_cascade_fullres", "is a cascade: it needs 3d_lowres first"),
        ("3d_midres", "has no configuration '3d_midres'; it has 2d, 3d_fullres"),
    ],
)
def test_configurations_that_cannot_be_run(configuration: str, text: str, tmp_path: Path) -> None:
    answer = refused(write_nnunet(tmp_path / "theirs", configuration=configuration))
    assert answer.startswith("plans.json: ")
    assert text in answer


@pytest.mark.parametrize(
    ("dataset", "text"),
    [
        ({"channel_names": {"0": "CT", "1": "PET"}}, "takes 2 images (CT, PET)"),
        ({"labels": {"background": 0, "a": 1, "b": 3}}, "label values are [0, 1, 3]"),
        ({"labels": {"background": 0, "a": [1, 2], "b": 2}}, "regions_class_order does not fit"),
        ({"labels": {"background": 0, "Lung L": 1, "lung-l": 2}}, "empty or alike: lung_l, lung_l"),
        ({"labels": {"background": 0, "a": 1}}, "decoder.head.weight is (3, 4, 1, 1, 1), not (2, 4, 1, 1, 1)"),
    ],
)
def test_datasets_that_do_not_fit(dataset: dict[str, Any], text: str, tmp_path: Path) -> None:
    assert text in refused(write_nnunet(tmp_path / "theirs", dataset=dataset))


@pytest.mark.parametrize("way", [{"force_separate_z": False}, {"order_z": 1}, {"separate_z_anisotropy_threshold": 3}])
def test_a_way_back_that_is_linear_is_ours(way: dict[str, Any], tmp_path: Path) -> None:
    changes = {"resampling_fn_probabilities_kwargs": RESAMPLED | {"order": 1} | way}
    assert read_nnunet(write_nnunet(tmp_path / "theirs", **changes)).spacing_mm == (4.0, 3.0, 5.0)


def _architecture(**changes: Any) -> dict[str, Any]:
    block = dict(FACTS["plain_conv_unet"]["architecture"])
    kwargs = {"arch_kwargs": block["arch_kwargs"] | changes.pop("arch_kwargs", {})}
    return {"architecture": block | kwargs | changes}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (_architecture(network_class_name="os.system"), "its network is os.system"),
        (_architecture(network_class_name="evil.PlainConvUNet"), "its network is evil.PlainConvUNet"),
        (_architecture(arch_kwargs={"squeeze_excitation": True}), "squeeze_excitation is not understood"),
        (_architecture(arch_kwargs={"norm_op": "os.system"}), "os.system"),
        (
            _architecture(arch_kwargs={"features_per_stage": [4, 6, 9]}),
            "do not fit the network that its files describe",
        ),
        (
            _architecture(arch_kwargs={"features_per_stage": [10**6] * 3}),
            "do not fit the network that its files describe",
        ),
        (_architecture(arch_kwargs={"n_stages": 10**9}), "its network has 1000000000 stages"),
        ({"architecture": None}, "does not describe its network"),
        ({"preprocessor_name": "Mine"}, "preprocessor_name Mine cannot be reproduced"),
        ({"resampling_fn_data": "no_resampling_hack"}, "resampling_fn_data no_resampling_hack cannot be reproduced"),
        (
            {"resampling_fn_probabilities": "resample_torch_fornnunet"},
            "resampling_fn_probabilities resample_torch_fornnunet cannot",
        ),
        (
            {"resampling_fn_data_kwargs": RESAMPLED | {"order": 1, "force_separate_z": False}},
            "resampling_fn_data with order 1, resampling_fn_data with force_separate_z False cannot",
        ),
        ({"resampling_fn_data_kwargs": {"order": 3}}, "resampling_fn_data with force_separate_z False cannot"),
        ({"resampling_fn_probabilities_kwargs": RESAMPLED}, "resampling_fn_probabilities with order 3 cannot"),
        ({"resampling_fn_data_kwargs": RESAMPLED | {"mode": "linear"}}, "resampling_fn_data with mode linear cannot"),
        ({"normalization_schemes": ["RescaleTo01Normalization"]}, "RescaleTo01Normalization cannot be reproduced"),
        ({"spacing": [5.0, 3.0]}, "does not describe configuration 3d_fullres"),
        ({"spacing": [5.0, -3.0, 4.0]}, "gives no valid model card"),
    ],
)
def test_plans_that_are_not_understood(changes: dict[str, Any], text: str, tmp_path: Path) -> None:
    assert text in refused(write_nnunet(tmp_path / "theirs", **changes))


@pytest.mark.parametrize("mean", [float("nan"), float("inf")])
def test_statistics_that_are_no_numbers(mean: float, tmp_path: Path) -> None:
    content = plans()
    content["foreground_intensity_properties_per_channel"]["0"] = CT_FACTS | {"mean": mean}
    assert "does not describe configuration 3d_fullres" in refused(write_nnunet(tmp_path / "theirs", content=content))


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    weights = fold_weights("plain_conv_unet", 0)
    name = "decoder.seg_layers.1.bias"
    weights[name] = weights[name] * float("nan")
    assert "its weights are not finite" in refused(write_nnunet(tmp_path / "theirs", weights=weights))
