"""Building a segmenter from a package: what does not fit is refused, what fits is kept warm."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import medseg
from medseg.errors import Cancelled, ConfigError, ModelIntegrityError
from medseg.imaging.emit import sha256_file
from medseg.inference.backends.torch_backend import TorchPredictor
from medseg.inference.memory import fit
from medseg.inference.predict import Paced
from medseg.inference.segmenter import NetworkSegmenter, TissueSegmenter, build_segmenter
from medseg.inference.warm import warm_segmenter
from medseg.labels import LabelTable
from medseg.models.card import Anatomy, FieldLimits, NetworkSpec, OrganRange
from medseg.models.store import WEIGHTS, ModelPackage, load_model
from medseg.networks.catalogue import build_network
from medseg.runtime.options import Options
from medseg.runtime.progress import Progress
from medseg.runtime.provenance import StageClock
from tests.inference.planted import OPTIONS, planted_volume, threshold_card, threshold_weights, write_package


def package(folder: Path, **changes: Any) -> ModelPackage:
    return load_model(write_package(folder / "model", threshold_card(**changes)))


def network_of(segmenter: NetworkSegmenter) -> nn.Module:
    assert isinstance(segmenter.predictor, TorchPredictor)
    return segmenter.predictor._network


def test_weights_with_nan_are_refused(tmp_path: Path) -> None:
    weights = threshold_weights()
    weights["head.bias"][1] = float("nan")
    with pytest.raises(ModelIntegrityError, match=r"threshold@1\.2\.3: weights are not finite"):
        build_segmenter(load_model(write_package(tmp_path / "m", weights=weights)))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    other = build_network("Optimized3DUNet", {"out_channels": 3, "channels": [2, 4]}).state_dict()
    with pytest.raises(ModelIntegrityError, match="do not fit"):
        build_segmenter(load_model(write_package(tmp_path / "m", weights=other)))


def test_weights_that_are_no_safetensors_are_refused(tmp_path: Path) -> None:
    folder = write_package(tmp_path / "m")
    (folder / WEIGHTS).write_bytes(b"pickle me")
    card = threshold_card(files={WEIGHTS: sha256_file(folder / WEIGHTS)})
    (folder / "model.json").write_text(card.model_dump_json())
    with pytest.raises(ModelIntegrityError, match="no safetensors file"):
        build_segmenter(load_model(folder))


def test_weights_that_the_card_does_not_list_are_refused(tmp_path: Path) -> None:
    folder = write_package(tmp_path / "m")
    (folder / "model.json").write_text(threshold_card().model_dump_json())
    with pytest.raises(ModelIntegrityError, match=r"its card lists no weights\.safetensors"):
        build_segmenter(load_model(folder))


def test_a_network_card_names_network_and_input(tmp_path: Path) -> None:
    with pytest.raises(ModelIntegrityError, match="does not name its network"):
        build_segmenter(package(tmp_path / "a", network=None))
    with pytest.raises(ModelIntegrityError, match="what input"):
        build_segmenter(package(tmp_path / "b", input=None))
    with pytest.raises(ModelIntegrityError, match=r"threshold@1\.2\.3: Unknown network 'Nope'"):
        build_segmenter(package(tmp_path / "c", network=NetworkSpec(name="Nope", options={})))


def test_labels_have_to_be_the_networks_channels(tmp_path: Path) -> None:
    gap = LabelTable.from_names({"a": 1, "b": 3}).to_json()
    with pytest.raises(ModelIntegrityError, match="numbered 1, 2, 3"):
        build_segmenter(package(tmp_path / "a", labels=gap))
    one = LabelTable.from_names({"a": 1}).to_json()
    segmenter = build_segmenter(package(tmp_path / "b", labels=one))
    with pytest.raises(ModelIntegrityError, match="3 channels for 1 labels"):
        segmenter(planted_volume((6, 6, 6), (4.0, 4.0, 4.0)), StageClock())


def test_deep_supervision_heads_are_left_out(tmp_path: Path) -> None:
    options = OPTIONS | {"deep_supervision": 2}
    built = build_segmenter(package(tmp_path, network=NetworkSpec(name="Optimized3DUNet", options=options)))
    assert isinstance(built, NetworkSegmenter)
    assert not network_of(built).training


def test_half_precision_kernels_become_float(tmp_path: Path) -> None:
    weights = {k: v.half() if v.ndim > 1 else v for k, v in threshold_weights().items()}
    built = build_segmenter(load_model(write_package(tmp_path / "m", weights=weights)))
    assert isinstance(built, NetworkSegmenter)
    assert {p.dtype for p in network_of(built).parameters()} == {torch.float32}


def test_a_model_is_loaded_once_and_again_when_it_changes(tmp_path: Path) -> None:
    folder = write_package(tmp_path / "m")
    first, again = warm_segmenter(str(folder)), warm_segmenter(str(folder))
    assert first[1] is again[1]
    write_package(folder, threshold_card(version="2.0.0"))
    assert warm_segmenter(str(folder))[0].card.version == "2.0.0"
    (folder / WEIGHTS).write_bytes(b"changed behind the card's back")
    with pytest.raises(ModelIntegrityError, match="not the file"):
        warm_segmenter(str(folder))


def test_stages_are_timed_and_progress_goes_forward(tmp_path: Path) -> None:
    seen: list[Progress] = []
    clock = StageClock()
    volume = planted_volume((28, 26, 24), (4.0, 4.0, 4.0))
    build_segmenter(package(tmp_path))(volume, clock, seen.append)
    assert list(clock.seconds) == ["forecast", "prepare", "segment", "clean"]
    fractions = [event.fraction for event in seen]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.08, 0.85)
    assert list(dict.fromkeys(event.stage for event in seen)) == ["forecast", "prepare", "segment", "clean"]
    assert re.fullmatch(r"This will take about \d+ s and \d\.\d GB", seen[0].message)


def test_cancel_stops_between_windows(tmp_path: Path) -> None:
    def stop(event: Progress) -> None:
        if event.stage == "segment":
            raise Cancelled

    with pytest.raises(Cancelled):
        build_segmenter(package(tmp_path))(planted_volume((6, 6, 6), (4.0, 4.0, 4.0)), StageClock(), stop)


def test_a_card_with_anatomy_drops_what_cannot_be(tmp_path: Path) -> None:
    organs = {name: OrganRange(volume_ml=(5e3, 6e3, 7e3), mean_hu=(0, 1, 2)) for name in ("parotid_gland_left",)}
    field = {"parotid_gland_left": FieldLimits(below_mm=100, above_mm=100)}
    segmenter = build_segmenter(package(tmp_path, anatomy=Anatomy(organs=organs, offsets=[], field=field)))
    raw = segmenter(planted_volume((28, 26, 24), (4.0, 4.0, 4.0)), StageClock())
    assert not np.any(raw.label_map.labels)
    assert [finding.code for finding in raw.findings] == ["outside_field"]


def test_rules_need_no_weights() -> None:
    package, segmenter = warm_segmenter("tissue-hu")
    assert isinstance(segmenter, TissueSegmenter)
    assert package.card.kind == "rules"


def test_a_model_without_a_network_says_that_it_keeps_no_limit() -> None:
    segmenter = build_segmenter(load_model("tissue-hu"))
    volume = planted_volume((12, 12, 12), (4.0, 4.0, 4.0))
    wishes = [Options(max_memory_mb=mb) for mb in (None, 900)]
    codes = [[finding.code for finding in segmenter(volume, StageClock(), options=wish).findings] for wish in wishes]
    assert "no_limit" not in codes[0]
    assert "no_limit" in codes[1]


def test_what_is_free_is_shared_by_all_who_compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that was loaded for one serves several as well."""
    folder, seen = write_package(tmp_path / "m"), []
    monkeypatch.setattr("medseg.inference.segmenter.free_mb", lambda: 6000.0)
    monkeypatch.setattr("medseg.inference.segmenter.fit", lambda *args: seen.append(args[-1]) or fit(*args))
    volume = planted_volume((12, 12, 12), (4.0, 4.0, 4.0))
    for neighbours in (1, 3):
        options = Options("torch", "fp32", neighbours=neighbours)
        medseg.forecast(volume, model=str(folder), options=options)
    assert seen == [6000, 2000]


def test_probabilities_of_organs_that_are_asked_for(tmp_path: Path) -> None:
    volume = planted_volume((28, 26, 24), (4.0, 4.0, 4.0), orientation="PIR")
    segmenter = build_segmenter(package(tmp_path), Options("torch", "fp32"))
    left = Options(probabilities=("parotid_gland_left",))
    raw = segmenter(volume, StageClock(), options=left)
    assert list(raw.probabilities) == ["parotid_gland_left"]
    assert [finding.code for finding in raw.findings] == ["raw_probabilities"]
    inside = raw.label_map.labels == segmenter.labels["parotid_gland_left"].value
    assert inside.any()
    np.testing.assert_array_equal(raw.probabilities["parotid_gland_left"] > 50, inside)
    everything = segmenter(volume, StageClock(), options=Options(probabilities=("all",)))
    assert list(everything.probabilities) == list(segmenter.labels.names)
    assert segmenter(volume, StageClock()).probabilities == {}
    plain, more = segmenter.forecast(volume), segmenter.forecast(volume, left)
    assert plain is not None
    assert more is not None
    assert more.memory_mb >= plain.memory_mb


def test_probabilities_that_there_are_not(tmp_path: Path) -> None:
    volume = planted_volume((12, 12, 12), (4.0, 4.0, 4.0))
    with pytest.raises(ConfigError, match=r"'liver' is no organ of model threshold@1.2.3.*parotid_gland_left"):
        build_segmenter(package(tmp_path))(volume, StageClock(), options=Options(probabilities=("liver",)))
    with pytest.raises(ConfigError, match="works by rules"):
        build_segmenter(load_model("tissue-hu"))(volume, StageClock(), options=Options(probabilities=("all",)))


def test_what_a_run_took_corrects_what_is_remembered_of_its_windows(tmp_path: Path) -> None:
    """A first measurement on a busy machine would otherwise be believed for ever."""
    one = package(tmp_path)
    segmenter = build_segmenter(one, Options("torch", "fp32"))
    assert isinstance(segmenter, NetworkSegmenter)
    (measured,) = segmenter.costs()
    segmenter.learn(1, 10 * measured.seconds)
    (slower,) = segmenter.costs()
    assert slower.seconds == pytest.approx(5.5 * measured.seconds)
    assert slower.memory_mb == measured.memory_mb
    segmenter.learn(1, 1.05 * slower.seconds)  # steady: nothing is written
    segmenter.learn(64, 1.0)  # never measured
    assert segmenter.costs() == (slower,)
    volume = planted_volume((60, 60, 60), (3.0, 3.0, 3.0))
    for _ in range(3):
        segmenter(volume, StageClock())
    assert segmenter.costs()[0].seconds < slower.seconds


def test_a_few_windows_say_nothing_of_the_pace() -> None:
    network = Paced(lambda tiles: tiles)
    network(torch.zeros(3, 1, 2, 2, 2))
    assert network.pace() is None
    network(torch.zeros(4, 1, 2, 2, 2))
    pace = network.pace()
    assert pace is not None
    assert pace >= 0
    assert network.pace() is None
