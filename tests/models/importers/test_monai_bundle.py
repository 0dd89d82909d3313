"""MONAI bundles: network, axes, scale and window as there, and every piece of code refused."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai import transforms
from monai.inferers.inferer import SlidingWindowInferer
from monai.networks import nets
from safetensors.torch import load_file

from medseg.api import segment
from medseg.errors import ModelImportError
from medseg.imaging.volume import Geometry, Volume
from medseg.models.importers.monai_bundle import read_bundle
from medseg.models.importers.run import import_models
from medseg.models.store import WEIGHTS, load_model
from medseg.networks.catalogue import build_network
from medseg.preprocess.intensity import normalise, standardise, statistics
from medseg.runtime.options import Options
from tests.models.importers.foreign_folders import UNET, bundle_config, metadata, planted_state, write_bundle

NETWORKS: dict[str, dict[str, Any]] = {
    "UNet": UNET,
    "DynUNet": {
        "_target_": "monai.networks.nets.DynUNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 3,
        "kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [4, 6, 8],
        "deep_supervision": True, "deep_supr_num": 1, "res_block": True,
    },
    "SegResNet": {
        "_target_": "SegResNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 3, "init_filters": 8,
        "blocks_down": [1, 1], "blocks_up": [1], "dropout_prob": 0.2,
    },
    "BasicUNet": {
        "_target_": "BasicUNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 3, "features": [2, 2, 4, 4, 4, 2],
    },
    "AttentionUnet": {
        "_target_": "AttentionUnet", "spatial_dims": 3, "in_channels": 1, "out_channels": 3, "channels": [4, 8],
        "strides": [2],
    },
    "SwinUNETR": {
        "_target_": "SwinUNETR", "in_channels": 1, "out_channels": 3, "feature_size": 12, "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 1, 1],
    },
}  # fmt: skip
SWIN = find_spec("einops") is not None


def theirs(definition: dict[str, Any]) -> torch.nn.Module:
    """The network as MONAI builds it, with planted weights."""
    options = {key: value for key, value in definition.items() if key != "_target_"}
    network: torch.nn.Module = getattr(nets, definition["_target_"].rpartition(".")[2])(**options).eval()
    network.load_state_dict(planted_state(network))
    return network


def bundle(folder: Path, definition: dict[str, Any] = UNET, *, yaml: bool = False, **changes: Any) -> Path:
    weights = theirs(definition).state_dict()
    return write_bundle(folder, bundle_config(definition, **changes), weights, yaml=yaml)


def _inferer(**changes: Any) -> dict[str, Any]:
    return {"inferer": bundle_config()["inferer"] | changes}


def ours(package_folder: Path) -> torch.nn.Module:
    package = load_model(package_folder)
    assert package.card.network is not None
    network = build_network(package.card.network.name, package.card.network.options)
    network.load_state_dict(load_file(package.file(WEIGHTS)), strict=True)
    return network.eval()


@pytest.mark.parametrize("name", [name for name in NETWORKS if SWIN or name != "SwinUNETR"])
def test_an_imported_bundle_gives_its_networks_logits(name: str, tmp_path: Path) -> None:
    definition = NETWORKS[name]
    folder = import_models([bundle(tmp_path / "bundle", definition)], tmp_path / "shelf", "planted")
    side = 64 if name == "SwinUNETR" else 32  # its norms want more than one voxel at the coarsest level
    hu = torch.from_numpy(np.random.default_rng(1).normal(40, 120, (1, 1, side, side, side)).astype(np.float32))
    scale = transforms.ScaleIntensityRange(-57, 164, 0.0, 1.0, clip=True)
    card = load_model(folder).card
    assert card.input is not None
    with torch.inference_mode():
        expected = theirs(definition)(torch.as_tensor(scale(hu)))
        logits = ours(folder)(normalise(hu, card.input.window_hu))
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


def test_older_bundles_tell_the_image_size(tmp_path: Path) -> None:
    folder = write_bundle(
        tmp_path / "b", bundle_config(NETWORKS["SwinUNETR"] | {"img_size": [96, 96, 96]}), {"a": torch.zeros(1)}
    )
    assert "img_size" not in read_bundle(folder).options
    if not SWIN:
        assert "SwinUNETR needs the package einops. pip install einops" in refused(folder)


def test_the_card_says_what_was_taken_over(tmp_path: Path) -> None:
    card = load_model(import_models([bundle(tmp_path / "spleen")], tmp_path, "spleen-liver")).card
    assert card.label_table.names == {"spleen": 1, "liver": 2}
    assert card.input is not None
    assert (card.input.spacing_mm, card.input.patch_size) == ((4.0, 3.0, 5.0), (16, 16, 16))
    assert (card.input.window_hu, card.input.overlap_ratio) == ((-57.0, 164.0), 0.5)
    assert card.input.beyond == pytest.approx(-1.0)  # their zero is the window's lower end
    assert card.training["bundle"] == "spleen"
    assert card.training["version"] == "0.1.2"
    assert len(card.training["checkpoints"]["models/model.pt"]) == 64


def test_yaml_and_other_axes(tmp_path: Path) -> None:
    config = bundle_config()
    config["preprocessing"]["transforms"][2]["axcodes"] = "SLP"
    model = read_bundle(bundle(tmp_path / "bundle", yaml=True, preprocessing=config["preprocessing"]))
    assert model.around["orientation"] == "SLP"
    assert model.spacing_mm == (3.0, 5.0, 4.0)


@pytest.mark.parametrize(("mode", "blend"), [({}, "constant"), ({"mode": "gaussian"}, "gaussian")])
def test_the_mask_is_monais(mode: dict[str, str], blend: str, tmp_path: Path) -> None:
    folder = import_models([bundle(tmp_path / "bundle", **_inferer(**mode))], tmp_path / "shelf", "planted")
    card = load_model(folder).card
    assert card.input is not None
    assert card.input.blend == blend
    hu = np.random.default_rng(1).normal(40, 120, (24, 20, 36)).astype(np.float32)
    volume = Volume(hu, Geometry((24, 20, 36), np.diag([4.0, 3.0, 5.0, 1.0])), name="noise")
    mask = segment(volume, model=str(folder), options=Options("torch", "fp32")).mask
    scaled = transforms.ScaleIntensityRange(-57, 164, 0.0, 1.0, clip=True)(torch.from_numpy(hu)[None, None])
    inferer = SlidingWindowInferer((16, 16, 16), 1, 0.5, **mode)
    with torch.inference_mode():
        expected = inferer(torch.as_tensor(scaled), theirs(UNET)).argmax(1)[0].numpy()
    assert len(np.unique(expected)) > 1
    assert (mask == expected).mean() > 0.9999


def test_axes_that_are_none_are_refused(tmp_path: Path) -> None:
    config = bundle_config()
    for codes in ("RAX", ["R", "A", "S"]):
        config["preprocessing"]["transforms"][2]["axcodes"] = codes
        folder = bundle(tmp_path / f"bundle{len(codes)}{codes[0]}{codes[-1]}", preprocessing=config["preprocessing"])
        with pytest.raises(ModelImportError, match=r"inference\.json"):
            read_bundle(folder)
    del config["preprocessing"]["transforms"][2]
    with pytest.raises(ModelImportError, match="RAX names no three axes"):
        read_bundle(bundle(tmp_path / "told", preprocessing=config["preprocessing"]), orientation="rax")


def test_axes_that_are_not_said_have_to_be_told(tmp_path: Path) -> None:
    config = bundle_config()
    del config["preprocessing"]["transforms"][2]
    folder = bundle(tmp_path / "bundle", preprocessing=config["preprocessing"])
    with pytest.raises(ModelImportError, match=r"has no Orientationd.*--orientation RAS"):
        read_bundle(folder)
    assert read_bundle(folder, orientation="lps").around["orientation"] == "LPS"


HU = np.random.default_rng(2).normal(0, 400, (1, 6, 7, 8)).astype(np.float32).clip(-1000, 2000)
SCALES: dict[str, tuple[list[dict[str, Any]], Callable[[Any], Any]]] = {
    "unclipped": (
        [{"_target_": "ScaleIntensityRanged", "a_min": -1000, "a_max": 1000, "b_min": -1, "b_max": 1}],
        transforms.ScaleIntensityRange(-1000, 1000, -1, 1),
    ),
    "fixed mean": (
        [{"_target_": "NormalizeIntensityd", "subtrahend": 40.0, "divisor": 300.0}],
        transforms.NormalizeIntensity(40.0, 300.0),
    ),
    "range, then fixed mean": (
        [
            {"_target_": "ScaleIntensityRanged", "a_min": -200, "a_max": 300, "b_min": 0, "b_max": 1, "clip": True},
            {"_target_": "NormalizeIntensityd", "subtrahend": [0.5], "divisor": [0.25]},
        ],
        transforms.Compose(
            [transforms.ScaleIntensityRange(-200, 300, 0, 1, clip=True), transforms.NormalizeIntensity(0.5, 0.25)]
        ),
    ),
    "two ranges": (
        [
            {"_target_": "ScaleIntensityRanged", "a_min": -500, "a_max": 500, "b_min": 0, "b_max": 1, "clip": True},
            {"_target_": "ScaleIntensityRanged", "a_min": 0.2, "a_max": 0.9, "b_min": -1, "b_max": 1, "clip": True},
        ],
        transforms.Compose(
            [
                transforms.ScaleIntensityRange(-500, 500, 0, 1, clip=True),
                transforms.ScaleIntensityRange(0.2, 0.9, -1, 1, clip=True),
            ]
        ),
    ),
    "z-score": ([{"_target_": "NormalizeIntensityd"}], transforms.NormalizeIntensity()),
    "z-score, stretched": (
        [
            {"_target_": "NormalizeIntensityd", "channel_wise": True},
            {"_target_": "ScaleIntensityRanged", "a_min": -3, "a_max": 3, "b_min": 0, "b_max": 1},
        ],
        transforms.Compose([transforms.NormalizeIntensity(), transforms.ScaleIntensityRange(-3, 3, 0, 1)]),
    ),
}


@pytest.mark.parametrize("name", SCALES)
def test_intensities_are_those_of_monais_transforms(name: str, tmp_path: Path) -> None:
    steps, transform = SCALES[name]
    config = bundle_config()
    config["preprocessing"]["transforms"][4:5] = [step | {"keys": "image"} for step in steps]
    model = read_bundle(bundle(tmp_path / "bundle", preprocessing=config["preprocessing"]))
    window = model.scale.window_hu
    if model.scale.intensity == "z-score":
        prepared = standardise(HU, window, *statistics(HU, window))
    else:
        prepared = normalise(HU, window)
    scale, shift = model.scale.adapted()
    np.testing.assert_allclose(prepared * scale + shift, np.asarray(transform(HU.copy())), atol=2e-5)
    assert model.scale.beyond * scale + shift == pytest.approx(0, abs=1e-6)


def test_one_organ_by_sigmoid(tmp_path: Path) -> None:
    definition = UNET | {"out_channels": 1}
    config = bundle_config(definition)
    config["postprocessing"]["transforms"][0] = {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}
    config["postprocessing"]["transforms"][2] = {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}
    folder = write_bundle(tmp_path / "bundle", config, {"model": theirs(definition).state_dict()}, metadata("tumour"))
    out = ours(import_models([folder], tmp_path, "tumour"))(torch.zeros(1, 1, 16, 16, 16))
    assert out.shape[1] == 2
    torch.testing.assert_close(out[:, 0], -out[:, 1])


def test_a_step_that_is_passed_over_stands_in_the_card(tmp_path: Path) -> None:
    config = bundle_config()
    config["preprocessing"]["transforms"].insert(4, CROP)
    config["postprocessing"]["transforms"].append({"_target_": "KeepLargestConnectedComponentd", "keys": "pred"})
    sections = {key: config[key] for key in ("preprocessing", "postprocessing")}
    card = load_model(import_models([bundle(tmp_path / "b", **sections)], tmp_path, "n")).card
    assert any("CropForegroundd of the bundle is left out" in limit for limit in card.limits)
    assert card.keep_islands
    assert "KeepLargestConnectedComponentd of the bundle is left out: nothing is removed" in " ".join(card.limits)


CROP = {"_target_": "CropForegroundd", "keys": "image", "source_key": "image"}
PAD = {"_target_": "SpatialPadd", "keys": "image", "spatial_size": [16, 16, 16]}
Z_SCORE = {"_target_": "NormalizeIntensityd", "keys": "image"}


def _before_the_type(*steps: dict[str, Any]) -> dict[str, Any]:
    config = bundle_config()
    config["preprocessing"]["transforms"][4:5] = steps
    return {"preprocessing": config["preprocessing"]}


@pytest.mark.parametrize("step", [CROP, PAD])
def test_a_z_score_of_another_part_of_the_scan_is_refused(step: dict[str, Any], tmp_path: Path) -> None:
    answer = refused(bundle(tmp_path / "before", **_before_the_type(step, Z_SCORE)))
    assert f"mean and deviation are taken after {step['_target_']}, here of the whole scan" in answer
    assert read_bundle(bundle(tmp_path / "after", **_before_the_type(Z_SCORE, step))).scale.intensity == "z-score"
    fixed = Z_SCORE | {"subtrahend": 40.0, "divisor": 300.0}
    assert read_bundle(bundle(tmp_path / "fixed", **_before_the_type(step, fixed))).scale.intensity == "window"


def refused(folder: Path) -> str:
    with pytest.raises(ModelImportError) as caught:
        import_models([folder], folder.parent, "refused")
    assert caught.value.advice
    assert not (folder.parent / "refused").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"network_def": UNET | {"channels": "$[4, 8] if open('FILE', 'w') else 0"}}, "network_def::channels"),
        ({"network_def": {"_target_": "os.system", "command": "touch FILE"}}, "network_def: _target_ os.system"),
        ({"network_def": {"_target_": "scripts.net.Mine"}}, "network_def: _target_ scripts.net.Mine"),
        ({"network_def": UNET | {"act": {"_target_": "subprocess.run"}}}, "network_def::act: _target_ subprocess.run"),
        ({"network_def": UNET | {"_requires_": "@initialize"}}, "network_def: _requires_ @initialize"),
        ({"imports": ["$import subprocess"]}, "imports::0: $import subprocess"),
        ({"imports": ["$__import__('os').system('touch FILE')"]}, "imports::0"),
        ({"initialize": ["$exec('1')"]}, "initialize::0: $exec('1')"),
        ({"initialize": ["$os.remove('FILE')"]}, "initialize::0: $os.remove"),
        ({"initialize": ["$(lambda: 1)()"]}, "initialize::0"),
        ({"extra": {"deep": [{"_target_": "builtins.eval", "source": "1"}]}}, "extra::deep::0: _target_ builtins.eval"),
        ({"inferer": "%other.json::inferer"}, "inferer: %other.json"),
    ],
)
def test_code_is_listed_with_its_place_and_never_run(changes: dict[str, Any], place: str, tmp_path: Path) -> None:
    changes = {key: _aim(value, tmp_path / "touched") for key, value in changes.items()}
    answer = refused(bundle(tmp_path / "bundle", **changes))
    assert answer.startswith("inference.json: holds code, which was refused; nothing was run: ")
    assert place in answer
    assert not (tmp_path / "touched").exists()


def _aim(value: Any, file: Path) -> Any:
    if isinstance(value, dict):
        return {key: _aim(item, file) for key, item in value.items()}
    if isinstance(value, list):
        return [_aim(item, file) for item in value]
    return value.replace("FILE", str(file)) if isinstance(value, str) else value


def _step(**step: Any) -> dict[str, Any]:
    config = bundle_config()
    config["preprocessing"]["transforms"][4] = {"keys": "image"} | step
    return {"preprocessing": config["preprocessing"]}


def _post(**step: Any) -> dict[str, Any]:
    config = bundle_config()
    config["postprocessing"]["transforms"][2] = {"keys": "pred"} | step
    return {"postprocessing": config["postprocessing"]}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"network_def": UNET | {"out_channels": "$len(@spacing)"}}, "network_def.out_channels is an expression"),
        ({"network_def": "@nowhere"}, "refers to @nowhere, which is not there"),
        ({"network_def": "@network_def"}, "refers to itself"),
        ({"network_def": UNET | {"act": {"_target_": "Dataset"}}}, "is built by Dataset"),
        ({"network_def": UNET | {"in_channels": 4}}, "does not take one three-dimensional image"),
        ({"network_def": UNET | {"out_channels": 5}}, "5 output channels do not fit spleen, liver with softmax"),
        ({"network_def": UNET | {"channels": [4, 16]}}, "do not fit the network that its files describe"),
        ({"network_def": UNET | {"odd": 1}}, "its network cannot be built"),
        ({"network": "$@other.to(@device)"}, "in place of network_def"),
        ({"evaluator": {"_target_": "SupervisedEvaluator", "inferer": "@other"}}, "runs @other in place of inferer"),
        ({"preprocessing": {"_target_": "Compose", "transforms": "$list(@steps)"}}, "is an expression: $list(@steps)"),
        (_step(_target_="StatsHandler"), "preprocessing::4 is StatsHandler, which is not understood"),
        (_step(_target_="ScaleIntensityRanged", a_min=0, a_max=1, odd=2), "argument odd"),
        (_step(_target_="ScaleIntensityRanged", a_min=1, a_max=0, b_min=0, b_max=1), "upside down"),
        (_step(_target_="NormalizeIntensityd", subtrahend=1), "both subtrahend and divisor"),
        (_step(_target_="Spacingd", pixdim=[1, 1]), "preprocessing::4 (Spacingd) is not understood"),
        (_step(_target_="Orientationd", axcodes="RAS"), "axes must be ordered once"),
        (_post(_target_="AsDiscreted", threshold=0.3), "decides at 0.3, not at 0.5"),
        (_post(_target_="Spacingd"), "postprocessing::2 is Spacingd"),
        ({"inferer": {"_target_": "SimpleInferer"}}, "its inferer is SimpleInferer"),
        ({"inferer": {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, -1]}}, "takes a whole axis"),
        ({"inferer": {"_target_": "SlidingWindowInferer"}}, "its inferer is not understood"),
        (_inferer(mode="bells"), "its inferer has mode bells"),
        (_inferer(cval=-1.0), "its inferer has cval -1.0"),
        (_inferer(padding_mode="reflect", sigma_scale=0.2), "padding_mode reflect, sigma_scale 0.2"),
        (_step(_target_="ScaleIntensityRanged", a_min=1, a_max=1, b_min=0, b_max=1), "inference.json"),
        (_step(_target_="NormalizeIntensityd", subtrahend=0, divisor=0), "inference.json"),
        ({"network_def": ""}, "inference.json"),
        ({"network": ""}, "inference.json"),
    ],
)
def test_what_is_not_understood_is_named(changes: dict[str, Any], text: str, tmp_path: Path) -> None:
    answer = refused(bundle(tmp_path / "bundle", **changes))
    assert text in answer
    assert answer.startswith(("inference.json: ", "bundle: "))


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("configs/metadata.json", "neither an nnU-Net v2 model folder (plans.json) nor a MONAI bundle"),
        ("configs/inference.json", "inference.json: is missing"),
        ("models/model.pt", "model.pt: is missing"),
    ],
)
def test_missing_files(file: str, text: str, tmp_path: Path) -> None:
    folder = bundle(tmp_path / "bundle")
    (folder / file).unlink()
    assert text in refused(folder)


def test_damaged_configs(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "bundle")
    for content, text in (("{", "is not readable"), ("[1]", "holds no settings")):
        (folder / "configs/inference.json").write_text(content)
        assert text in refused(folder)


def test_yaml_that_unfolds_or_nests_without_end(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "bundle")
    (folder / "configs/inference.json").unlink()
    for text, answer in (
        ("a: &a [1, 1]\nb: [*a, *a]", "aliases are not taken"),
        ("a: " + "[" * 60 + "]" * 60, "nested too deep"),
        ("a: " + "[" * 5000, "is not readable"),
        ("a: !!python/object/apply:os.mkdir [x]", "is not readable"),
    ):
        (folder / "configs/inference.yaml").write_text(text)
        assert answer in refused(folder)


@pytest.mark.parametrize("channels", [{"0": "Spleen", "1": "liver", "2": "background"}, {"0": "Spleen", "1": "liver"}])
def test_background_has_to_be_the_first_of_softmax_channels(channels: dict[str, str], tmp_path: Path) -> None:
    meta = metadata()
    meta["network_data_format"]["outputs"]["pred"]["channel_def"] = channels
    folder = write_bundle(tmp_path / "bundle", bundle_config(), theirs(UNET).state_dict(), meta)
    answer = refused(folder)
    assert answer.startswith("metadata.json: channel_def begins with 0 Spleen, 1 liver")
    assert "background is channel 0 and organs follow from 1 on" in answer


def test_background_need_not_be_listed(tmp_path: Path) -> None:
    meta = metadata()
    meta["network_data_format"]["outputs"]["pred"]["channel_def"] = {"1": "Spleen", "2": "liver"}
    folder = write_bundle(tmp_path / "bundle", bundle_config(), theirs(UNET).state_dict(), meta)
    assert read_bundle(folder).labels == ("spleen", "liver")


def test_channels_without_names(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", bundle_config(), theirs(UNET).state_dict(), {"version": "1"})
    assert "metadata.json: does not name the output's channels" in refused(folder)
