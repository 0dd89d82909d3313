"""What a training takes of memory is known beforehand, and the plan stays within what there is."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from medseg.cli import main
from medseg.errors import ConfigError
from medseg.networks.catalogue import build_network
from medseg.training.config import load_config
from medseg.training.fit import CPU_RUNGS, GPU_RUNGS, USABLE, Room, fit
from medseg.training.footprint import footprint, weigh

NECK = (128.0, 128.0, 128.0)
SMALL = {"channels": [8, 16, 32], "deep_supervision": 1}


def test_a_larger_step_weighs_what_the_small_ones_foretell() -> None:
    found = footprint("Optimized3DUNet", SMALL, 6)
    network = build_network("Optimized3DUNet", SMALL | {"out_channels": 6}).train()
    weighed = weigh(network, 6, 64, 1, half=True)
    assert found.voxel * 64**3 == pytest.approx(weighed, rel=0.06)


def test_wider_networks_more_organs_and_full_precision_weigh_more() -> None:
    plain = footprint("Optimized3DUNet", SMALL, 6)
    wide = footprint("Optimized3DUNet", SMALL | {"channels": [16, 32, 64]}, 6)
    assert wide.fixed > 3 * plain.fixed
    assert 1.3 * plain.voxel < wide.voxel < 2 * plain.voxel
    assert footprint("Optimized3DUNet", SMALL, 60).voxel > 2 * plain.voxel
    assert footprint("Optimized3DUNet", SMALL, 6, "fp32").voxel > 1.3 * plain.voxel


STEP = """
import re, torch
from pathlib import Path
from medseg.networks.catalogue import build_network
from medseg.training.losses import deep_supervision_loss
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
network = build_network("Optimized3DUNet", {"channels": [16, 32, 64], "deep_supervision": 1, "out_channels": 6})
network = network.train().to(memory_format=torch.channels_last_3d)
def step(edge, batch):
    image = torch.randn(batch, 1, edge, edge, edge).to(memory_format=torch.channels_last_3d)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network(image)
        loss = deep_supervision_loss(
            outputs, torch.randint(6, image.shape[:1] + image.shape[2:]), torch.ones(batch, 6, dtype=torch.bool)
        )
    loss.backward()
step(16, 1)
before = peak()
step(96, 2)
print(peak() - before)
"""


@pytest.mark.slow
def test_a_real_process_grows_by_what_was_foretold() -> None:
    done = subprocess.run([sys.executable, "-c", STEP], capture_output=True, text=True, check=True)
    options = {"channels": [16, 32, 64], "deep_supervision": 1}
    foretold = footprint("Optimized3DUNet", options, 6).voxel * 2 * 96**3
    assert float(done.stdout) == pytest.approx(foretold, rel=0.3)


@pytest.mark.slow
def test_less_memory_never_gives_a_larger_step() -> None:
    needs = [fit(NECK, 8, Room("cuda", gb * 1024)) for gb in (80, 12, 8, 4, 1)]
    assert [found.memory_mb for found in needs] == sorted((found.memory_mb for found in needs), reverse=True)
    assert needs[0].channels == GPU_RUNGS[0].channels
    assert needs[0].patch == (128, 128, 128)
    assert needs[-1].channels == CPU_RUNGS[0].channels
    assert all(found.memory_mb <= USABLE * gb * 1024 for found, gb in zip(needs, (80, 12, 8, 4, 1), strict=True))


def test_a_small_computer_sees_the_same_patches_one_after_the_other() -> None:
    roomy, tight = fit(NECK, 8, Room("cpu", 8192)), fit(NECK, 8, Room("cpu", 2200))
    assert (roomy.batch, roomy.aggregated, tight.batch, tight.aggregated) == (2, 1, 1, 2)
    assert roomy.patch == tight.patch
    assert fit(NECK, 8, Room("cpu", 2200, workers=0)) == fit(NECK, 8, Room("cpu", 2200, workers=0))


@pytest.mark.slow
def test_every_rung_divides_into_its_levels() -> None:
    for memory_gb in (80, 4):
        for shape in (NECK, (40.0, 130.0, 70.0), (20.0, 20.0, 20.0), (300.0, 200.0, 60.0)):
            found = fit(shape, 8, Room("cuda", memory_gb * 1024))
            assert not any(edge % 2 ** (len(found.channels) - 1) for edge in found.patch)
            assert math.prod(found.patch) <= 2 * GPU_RUNGS[0].patch_voxels


def test_too_little_memory_is_said_with_both_figures() -> None:
    with pytest.raises(ConfigError, match=r"takes about 1,\d{3} MB; 80% of 900 MB"):
        fit(NECK, 8, Room("cpu", 900))


def test_the_command_plans_for_the_memory_that_it_is_given(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "neck.yaml"
    with pytest.raises(SystemExit) as end:
        main(["train", "plan", str(dataset), "-o", str(out), "--memory", "1900MB"])
    assert end.value.code in (0, None)
    assert "for 1.9 GB of this computer, of which 80% may be used" in out.read_text()
    assert load_config(out).batch_size * load_config(out).loop.gradient_aggregation_interval == 2


def test_the_command_refuses_a_memory_that_holds_no_training(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["train", "plan", str(dataset), "-o", str(tmp_path / "neck.yaml"), "--memory", "500MB"])
    assert end.value.code == 64
    assert "The smallest training takes about" in capsys.readouterr().err
    assert not (tmp_path / "neck.yaml").exists()
