"""`medseg export`: a package like any other, with variants that are as good as what they replace."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg.cli import main
from medseg.deploy.calibration import find_scans, split, tiles_of
from medseg.deploy.package import Exported, Request, export_package
from medseg.deploy.parity import Gate
from medseg.errors import ConfigError, DataError, ModelError
from medseg.imaging import read_volume
from medseg.inference.backends import build_predictor
from medseg.inference.backends.build import candidates_of
from medseg.inference.segmenter import NetworkSegmenter
from medseg.models.store import CARD, WEIGHTS, ModelPackage, load_model
from medseg.runtime.provenance import StageClock
from tests.inference.planted import planted_volume


def test_the_copy_is_a_package_with_two_variants(exported: Exported, planted: ModelPackage) -> None:
    package = load_model(exported.folder)  # every hash is checked
    assert exported.refused == {}
    assert [variant.name for variant in package.card.variants] == ["fp32", "int8"]
    assert set(package.card.files) == {"weights.safetensors", "model.onnx", "model.int8.onnx"}
    assert package.card.model_copy(update={"files": planted.card.files, "variants": []}) == planted.card
    assert planted.card.variants == []


def test_the_figures_stand_in_the_card(exported: Exported) -> None:
    fp32, int8 = (variant.figures for variant in exported.card.variants)
    assert (fp32.scans, int8.scans) == (1, 1)  # of three, two calibrate
    assert fp32.logit_error < 1e-4
    assert fp32.size_ratio == 1
    assert min(value for value in int8.agreement.values() if value is not None) > 0.95
    assert set(int8.dice) == set(int8.dice_fp32) == set(int8.agreement)
    assert int8.latency_ratio > 0


def test_int8_is_now_a_candidate_and_gives_the_masks(exported: Exported, planted: ModelPackage, scans: Path) -> None:
    package = load_model(exported.folder)
    assert {"openvino int8", "onnxruntime fp32"} <= {str(one) for one in candidates_of(package)}
    volume = read_volume(find_scans(scans)[0])
    masks = [
        NetworkSegmenter(build_predictor(one, *way), one.card)(volume, StageClock()).label_map.labels
        for one, way in ((planted, ("torch", "fp32")), (package, ("openvino", "int8")))
    ]
    assert set(np.unique(masks[0])) == {0, 1, 2}
    assert (masks[0] != masks[1]).sum() < 0.02 * (masks[0] > 0).sum()


def test_auto_takes_int8_only_where_it_errs_no_more_than_at_the_gate(exported: Exported, tmp_path: Path) -> None:
    choice = build_predictor(load_model(exported.folder)).choice
    assert choice is not None
    assert "openvino int8" in choice.seconds
    shutil.copytree(exported.folder, tmp_path / "m")
    card = json.loads((tmp_path / "m" / CARD).read_text())
    card["variants"][1]["figures"]["logit_error"] = 1e-6
    (tmp_path / "m" / CARD).write_text(json.dumps(card))
    strict = build_predictor(load_model(tmp_path / "m")).choice
    assert strict is not None
    assert "differ from PyTorch's" in strict.refused["openvino int8"]


def test_a_variant_that_fails_the_gate_stays_outside(planted: ModelPackage, scans: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    request = Request(tmp_path / "out", int8=True, calibrate=scans, gate=Gate(min_organ_agreement=1.01))
    with pytest.raises(ModelError, match="not the model"):  # no file can agree better than by one
        export_package(planted, request, lines.append)
    assert not (tmp_path / "out" / CARD).exists()


def test_refused_int8_leaves_a_package_without_it(
    planted: ModelPackage, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Scans of water alone: no organ, nothing to compare."""
    from tests.phantoms import write_nifti

    folder = tmp_path_factory.mktemp("water")
    write_nifti(folder / "water.nii.gz", planted_volume((24, 24, 24), (4.0,) * 3, sphere_hu=40, box_hu=40))
    done = export_package(planted, Request(tmp_path / "out", int8=True, calibrate=folder))
    assert "nothing could be compared" in done.refused["int8"][0]
    package = load_model(done.folder)
    assert [variant.name for variant in package.card.variants] == ["fp32"]
    assert not (done.folder / "model.int8.onnx").exists()


def test_an_export_that_was_interrupted_is_begun_anew(planted: ModelPackage, tmp_path: Path) -> None:
    left = tmp_path / "left"
    left.mkdir()
    shutil.copy(planted.file(WEIGHTS), left / WEIGHTS)
    (left / "model.onnx").write_bytes(b"half")
    (left / ".part-x-model.onnx").write_bytes(b"")
    assert export_package(planted, Request(left)).folder == left
    for name, content in ((WEIGHTS, b"another model"), ("model.onnx", b"somebody else's")):
        other = tmp_path / f"other-{name}"
        other.mkdir()
        (other / name).write_bytes(content)
        with pytest.raises(ConfigError, match="in use"):
            export_package(planted, Request(other))


def test_wishes_that_contradict_themselves(planted: ModelPackage, scans: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--calibrate"):
        export_package(planted, Request(tmp_path / "a", int8=True))
    with pytest.raises(ConfigError, match="--calibrate"):
        export_package(planted, Request(tmp_path / "a", references=scans))
    with pytest.raises(ConfigError, match="--share"):
        export_package(planted, Request(tmp_path / "a", share=True))
    with pytest.raises(ConfigError, match="in use"):
        export_package(planted, Request(scans))
    with pytest.raises(DataError, match="nothing at"):
        export_package(planted, Request(tmp_path / "a", int8=True, calibrate=tmp_path / "none"))
    with pytest.raises(ModelError, match="no network"):
        export_package(load_model("tissue-hu"), Request(tmp_path / "a"))
    assert not (tmp_path / "a").exists()


def test_scans_are_told_from_contours_and_split(scans: Path, tmp_path: Path) -> None:
    found = find_scans(scans)
    assert [path.name for path in found] == ["p0_ct.nii.gz", "p1_ct.nii.gz", "p2_ct.nii.gz"]
    assert split(found) == ([found[0], found[2]], [found[1]])
    assert split(found[:1]) == (found[:1], found[:1])
    with pytest.raises(DataError, match="No CT scan"):
        find_scans(tmp_path)


def test_of_many_scans_a_few_that_are_spread_over_all_suffice() -> None:
    scans = [Path(f"{number:03}.nii.gz") for number in range(163)]
    calibrate, judge = split(scans)
    assert len(calibrate) == len(judge) == 12
    assert (calibrate[0], calibrate[-1]) == (scans[0], scans[162])
    assert not set(calibrate) & set(judge)


def test_tiles_are_what_inference_cuts(planted: ModelPackage) -> None:
    spec = planted.card.input
    assert spec is not None
    volume = planted_volume((40, 40, 30), (4.0, 4.0, 4.0))
    tiles = list(tiles_of(volume, spec, count=5))
    assert 1 < len(tiles) <= 5
    for tile in tiles:
        assert (tile.dtype, tuple(tile.shape)) == (torch.float32, (1, 1, *spec.patch_size))
        assert -1 <= tile.min() < tile.max() <= 3


def test_the_command(planted: ModelPackage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["export", str(planted.folder), "-o", str(tmp_path / "out")])
    assert caught.value.code == 0
    told = capsys.readouterr().out
    assert "what passed the parity gate" in told
    assert "100.0%" in told
    assert load_model(tmp_path / "out").card.variants[0].file == "model.onnx"
    with pytest.raises(SystemExit) as caught:
        main(["export", str(planted.folder), "-o", str(tmp_path / "out")])
    assert caught.value.code == 64
    assert "in use" in capsys.readouterr().err
