"""`medseg train plan`: the fingerprint is the data's, the plan is a config that trains."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from medseg.cli import main
from medseg.errors import ConfigError, DataError
from medseg.imaging.nifti import write_label_map
from medseg.imaging.volume import Geometry
from medseg.labels import LabelTable
from medseg.models.store import load_model
from medseg.networks.catalogue import build_network
from medseg.training.cases import read_index
from medseg.training.config import load_config, parse_settings
from medseg.training.fit import CPU_RUNGS, Room
from medseg.training.plan import VOXELS, Fingerprint, fingerprint, plan, plan_and_write
from medseg.training.run import train_model
from tests.phantoms import BOX_ML, SPHERE_ML
from tests.training.conftest import LABELS
from tests.training.test_foreign import NNUNET, write

ROOM = Room("cpu", 8192)
ONE_STEP = {"loop.max_steps": 1, "loop.workers": 0, "small_batch": None}


def seen(spacing: tuple[float, ...], size: tuple[float, ...], **volumes: float) -> Fingerprint:
    return Fingerprint(spacing, size, (-80.0, 640.0), volumes or {"a": 10.0}, 20)


def test_the_fingerprint_is_that_of_the_data(dataset: Path) -> None:
    found = fingerprint(read_index(dataset))
    assert found.cases == 5
    assert found.spacing_mm == pytest.approx((3.5, 3.5, 4.0))
    assert found.size_mm == pytest.approx((48 * 3.5, 40 * 3.5, 36 * 4.0))
    assert found.volumes_ml["parotid_gland_left"] == pytest.approx(SPHERE_ML, rel=0.1)
    assert found.volumes_ml["parotid_gland_right"] == pytest.approx(BOX_ML, rel=0.2)
    assert found.organ_hu[0] == pytest.approx(-90, abs=30)
    assert found.organ_hu[1] == pytest.approx(700, abs=30)


@pytest.mark.parametrize(
    ("spacing", "size"),
    [
        ((0.8, 0.8, 1.0), (400.0, 400.0, 600.0)),
        ((0.98, 0.98, 5.0), (500.0, 500.0, 200.0)),
        ((4.0, 4.0, 4.0), (160.0, 140.0, 140.0)),
        ((1.0, 1.0, 3.0), (60.0, 60.0, 60.0)),
    ],
)
def test_plans_fit_the_machine_and_the_network(spacing: tuple[float, ...], size: tuple[float, ...]) -> None:
    values, _ = plan("mine", Path("index.json"), seen(spacing, size), LabelTable.from_names({"a": 1}), ROOM)
    shape = [mm / step for mm, step in zip(size, values["spacing_mm"], strict=True)]
    assert shape[0] * shape[1] * shape[2] <= VOXELS * 1.01
    assert all(planned >= own - 1e-3 for planned, own in zip(values["spacing_mm"], spacing, strict=True))
    network = build_network("Optimized3DUNet", values["network"]["options"])
    i, j, k = values["patch_size"]
    assert not any(n % network.stride for n in (i, j, k))
    assert min(i, j, k) / network.stride >= 2
    assert i * j * k <= 2 * CPU_RUNGS[0].patch_voxels


def test_small_organs_are_drawn_more_often_and_the_window_holds_all_organs() -> None:
    small = seen((3, 3, 3), (200, 200, 200), a=1.0, b=8.0, c=1e6)
    values, _ = plan("mine", Path("i.json"), small, LabelTable.from_names({}), ROOM)
    assert values["organ_weights"] == {"a": 2.0, "b": 1.0, "c": 0.5}
    assert values["window_hu"] == [-200, 750]


@pytest.mark.parametrize(
    ("names", "share"),
    [(("a_left", "a_right"), 0.5), (("a_left", "b"), 0.0), (("left_a", "right_a"), 0.0), (("b",), 0.5)],
)
def test_patches_are_mirrored_where_every_side_has_its_partner(names: tuple[str, ...], share: float) -> None:
    labels = LabelTable.from_names({name: value for value, name in enumerate(names, 1)})
    values, _ = plan("mine", Path("i.json"), seen((3, 3, 3), (200, 200, 200)), labels, ROOM)
    assert values["augment"]["mirror_left_right"] == share


def test_patches_are_not_mirrored_where_sides_have_no_name(dataset: Path, tmp_path: Path) -> None:
    content = json.loads(dataset.read_text())
    shutil.copytree(dataset.parent, tmp_path / "data")
    names = dict(zip(LABELS, ("parotis_li", "parotis_re", "cord"), strict=True))
    content["labels"] = {names[organ]: value for organ, value in content["labels"].items()}
    for case in content["cases"]:
        case["contoured"] = [names[organ] for organ in case["contoured"]]
    (tmp_path / "data/index.json").write_text(json.dumps(content))
    out = plan_and_write(tmp_path / "data", tmp_path / "c.yaml", None, ROOM)
    assert load_config(out).augment.mirror_left_right == 0
    assert "# mirror_left_right: parotis_li and parotis_re lie like" in out.read_text()


def test_the_command_writes_a_config_that_trains(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "neck.yaml"
    with pytest.raises(SystemExit) as end:
        main(["train", "plan", str(dataset), "-o", str(out), "--memory", "3GB"])  # a small network: seconds
    assert end.value.code in (0, None)
    assert "neck.yaml" in capsys.readouterr().out
    assert out.read_text().startswith("# Planned from 5 training cases.")
    config = load_config(out)
    assert config.name == "neck"
    assert set(config.organ_weights) == set(LABELS)
    package = train_model(out, tmp_path / "run", overrides=ONE_STEP, report=len)
    assert package is not None
    assert load_model(package).card.name == "neck"
    out.write_text(out.read_text() + "learning_rte: 1\n")
    with pytest.raises(ConfigError, match="unknown key learning_rte"):
        load_config(out)


def test_an_edited_config_is_overwritten_on_request_alone(dataset: Path, tmp_path: Path) -> None:
    out = plan_and_write(dataset, tmp_path / "neck.yaml", None, ROOM)
    planned = out.read_text()
    plan_and_write(dataset, out, None, ROOM)  # the same again
    out.write_text(planned + "# mine\n")
    with pytest.raises(ConfigError, match=r"neck\.yaml is there already, .*--force"):
        plan_and_write(dataset, out, None, ROOM)
    assert out.read_text() == planned + "# mine\n"
    with pytest.raises(SystemExit) as end:
        main(["train", "plan", str(dataset), "-o", str(out), "--memory", "8GB", "--force"])
    assert end.value.code in (0, None)
    assert "# mine" not in out.read_text()


def test_flags_win_over_the_file() -> None:
    assert parse_settings(["loop.max_steps=7", "window_hu=[-100, 300]", "version=2.0.0"]) == {
        "loop.max_steps": 7,
        "window_hu": [-100, 300],
        "version": "2.0.0",
    }
    for fault in ("loop.max_steps", "=3", "a=[1"):
        with pytest.raises(ConfigError, match="--set"):
            parse_settings([fault])


def test_a_data_set_that_cannot_be_planned_for_says_why(dataset: Path, tmp_path: Path) -> None:
    content = json.loads(dataset.read_text())
    shutil.copytree(dataset.parent, tmp_path / "data")
    write_label_map(tmp_path / "data/train/p1_label.nii.gz", np.ones((4, 4, 4)), Geometry((4, 4, 4), np.eye(4)))
    with pytest.raises(DataError, match="Case p1: scan and labels lie on different grids"):
        plan_and_write(tmp_path / "data", tmp_path / "c.yaml", None, ROOM)
    content["cases"] = [case for case in content["cases"] if case["split"] != "train"]
    (tmp_path / "data/index.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="There are no training cases"):
        plan_and_write(tmp_path / "data", tmp_path / "c.yaml", None, ROOM)


def test_the_index_of_a_foreign_data_set_never_lands_in_it(tmp_path: Path) -> None:
    description = write(tmp_path / "neck", NNUNET)
    config = load_config(plan_and_write(description, tmp_path / "neck.yaml", None, ROOM))
    assert config.index == tmp_path / "neck-data" / "index.json"
    assert {path.name for path in (tmp_path / "neck").iterdir()} == {"dataset.json", "imagesTr", "labelsTr"}
    for out, reason in ((tmp_path / "neck", "is a folder"), (tmp_path / "x.yaml", "is the data set itself")):
        with pytest.raises(ConfigError, match=reason):
            plan_and_write(write(tmp_path / "x-data", NNUNET), out, None, ROOM)


def test_a_plan_for_other_data_touches_nothing_unasked(tmp_path: Path) -> None:
    out = plan_and_write(write(tmp_path / "a", NNUNET), tmp_path / "mine.yaml", None, ROOM)
    before = out.read_text(), (tmp_path / "mine-data/index.json").read_text()
    other = write(tmp_path / "b", NNUNET, count=6)
    with pytest.raises(ConfigError, match=r"mine-data was made from another data set, .*a/dataset\.json.*--force"):
        plan_and_write(other, out, None, ROOM)
    assert (out.read_text(), (tmp_path / "mine-data/index.json").read_text()) == before
    plan_and_write(other, out, None, ROOM, force=True)
    assert len(read_index(tmp_path / "mine-data/index.json").cases) == 6


@pytest.mark.slow
def test_a_network_for_a_gpu_says_what_it_costs_without_one(dataset: Path, tmp_path: Path) -> None:
    for room, said in ((Room("cuda", 81920), "about 16 times as long on a CPU"), (ROOM, "")):
        text = plan_and_write(dataset, tmp_path / f"{room.device}.yaml", None, room).read_text()
        assert said in text
        assert ("on a CPU" in text) == bool(said)
