"""The config: every key checked, every fault named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from medseg.cli import main
from medseg.errors import ConfigError
from medseg.networks.catalogue import build_network
from medseg.training.config import PRESETS, load_config
from tests.training.conftest import settings


@pytest.fixture
def index(tmp_path: Path) -> Path:
    path = tmp_path / "index.json"
    path.write_text("{}")
    return path


def write(path: Path, values: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_every_preset_parses_and_builds(preset: str) -> None:
    config = load_config(preset)
    assert config.name == preset
    network = build_network(config.network.name, config.network.options)
    assert not any(size % network.stride for size in config.patch_size)
    assert config.card.sources
    assert config.card.limits


def test_the_shipped_model_is_a_preset() -> None:
    config = load_config("head-neck-oar")
    assert config.open_ended == ("spinal_cord", "esophagus")
    assert config.spacing_mm == (3.906, 3.906, 2.5)
    assert config.loop.precision == "auto"


def test_a_preset_that_does_not_exist_lists_those_that_do() -> None:
    with pytest.raises(ConfigError, match=r"No config file or preset named 'head-nekc'; presets: .*head-neck-oar"):
        load_config("head-nekc")


def test_overrides_win_and_none_is_null(tmp_path: Path, index: Path) -> None:
    path = write(tmp_path / "c.yaml", settings(index, seed=3))
    config = load_config(path, {"loop.max_steps": 7, "loop.ema_decay": None, "network.options.width": 4})
    assert (config.loop.max_steps, config.loop.seed, config.loop.ema_decay) == (7, 3, None)
    assert config.network.options["width"] == 4
    assert load_config("smoke", {"small_batch": None}).small_batch is None


def test_settings_on_the_command_line_reach_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags that nobody gave once won over `--set`, and nulls were dropped."""
    seen: dict[str, Any] = {}
    monkeypatch.setattr("medseg.training.run.train_model", lambda *given, **named: seen.update(named))
    options = ["--set", "loop.max_steps=10", "loop.seed=4", "loop.ema_decay=null"]
    with pytest.raises(SystemExit):
        main(["train", "smoke", "-o", str(tmp_path / "run"), "--folds", "3", *options, "--set", "folds.number=1"])
    config = load_config("smoke", seen["overrides"])
    assert (config.loop.max_steps, config.loop.seed, config.loop.ema_decay) == (10, 4, None)
    assert config.folds is not None
    assert (config.folds.count, config.folds.number) == (3, 1)


def test_a_data_set_given_by_hand_wins_over_phantoms(index: Path) -> None:
    assert load_config("smoke").phantoms is not None
    config = load_config("smoke", {"index": index})
    assert config.phantoms is None
    assert config.index == index


def test_a_setting_inside_no_group_is_refused(tmp_path: Path, index: Path) -> None:
    with pytest.raises(ConfigError, match="name is no group of settings"):
        load_config(write(tmp_path / "c.yaml", settings(index)), {"name.first": 1})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"learning_rat": 1}, r"c\.yaml: unknown key learning_rat; did you mean loop\.learning_rate\?$"),
        ({"loop": {"learning_rat": 1}}, r"c\.yaml: unknown key loop\.learning_rat; did you mean loop\.learning_rate\?"),
        ({"network": {"nam": "x"}}, r"unknown key network\.nam; did you mean network\.name\?"),
        ({"folds": {"xyz": 1, "count": 1}}, r"unknown key folds\.xyz; there are: folds\.count, folds\.number\.$"),
        ({"batch_size": "many"}, r"batch_size: .*\(got 'many'\)"),
        ({"batch_size": 0}, r"batch_size: .*greater than or equal to 1"),
        ({"learning_rate": -1}, r"loop.learning_rate: .*greater than 0"),
        ({"learning_rate": float("nan")}, r"loop.learning_rate: .*finite"),
        ({"overlap_ratio": 0.95}, r"overlap_ratio: .*less than 0\.9"),
        ({"precision": "fp8"}, r"loop.precision: .*'fp32', 'bf16'"),
        ({"init_scale": 64}, r"loop: .*init_scale must not lie below"),
        ({"spacing_mm": [4, 0, 2]}, r"spacing_mm\.1: .*greater than 0"),
        ({"spacing_mm": [4, 4]}, r"spacing_mm"),
        ({"window_hu": [900, -300]}, r"window_hu: .*smaller"),
        ({"window_hu": [40, 40]}, r"window_hu: .*smaller"),
        ({"patch_size": [64, -64, 64]}, r"patch_size\.1: "),
        ({"augment": {"mirror_left_right": 1.5}}, r"augment\.mirror_left_right: "),
        ({"augment": {"scale": [1.2, 0.8]}}, r"augment\.scale: .*smaller one first"),
        ({"augment": {"scale": [0, 1]}}, r"augment\.scale: .*positive"),
        ({"phantoms": {}}, r"c\.yaml: Value error, name the data by index, or describe phantoms; one of the two\.$"),
        ({"small_batch": {"steps": 4}}, r"small_batch: .*steps 4 must be twice batches 4 or more"),
        ({"phantoms": {"train": 0}}, r"phantoms\.train: .*greater than or equal to 1"),
    ],
    ids=str,
)
def test_faults_are_named(tmp_path: Path, index: Path, change: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load_config(write(tmp_path / "c.yaml", settings(index, **change)))


def test_a_missing_key_is_named_without_the_whole_file(tmp_path: Path, index: Path) -> None:
    values = settings(index)
    del values["spacing_mm"]
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path / "c.yaml", values))
    assert str(caught.value) == "c.yaml: spacing_mm: Field required."


@pytest.mark.parametrize("text", ["- a\n- b\n", "", "only words"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"c\.yaml is not a mapping"):
        load_config(tmp_path / "c.yaml")


@pytest.mark.parametrize("content", [b"name: [1, 2\nseed: }", b"name: \xff\xfe\x00"], ids=["syntax", "encoding"])
def test_a_file_that_is_no_yaml_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"c\.yaml is no YAML"):
        load_config(tmp_path / "c.yaml")


def test_the_index_is_sought_from_the_file_and_then_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "configs" / "c.yaml", settings(Path("data/index.json")))
    here, beside = tmp_path / "here", tmp_path / "configs" / "data" / "index.json"
    here.mkdir()
    monkeypatch.chdir(here)
    assert load_config(path).index == here / "data/index.json"
    write(beside, {})
    assert load_config(path).index == beside


def test_an_index_given_by_hand_is_sought_from_here_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a flag could silently mean the dataset beside the config."""
    path = write(tmp_path / "configs" / "c.yaml", settings(Path("other.json")))
    write(tmp_path / "configs" / "index.json", {})
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert load_config(path, {"index": Path("index.json")}).index == here / "index.json"
    assert load_config(path, {"index": tmp_path / "a.json"}).index == tmp_path / "a.json"
