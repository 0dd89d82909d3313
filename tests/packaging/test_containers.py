"""What the container recipes promise: versions, rights, order of the layers, health, loopback."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from medseg import __version__
from tests.packaging.checkout import ROOT
from tests.packaging.recipe import Step, environment, health_command, named, read_recipe

RECIPES = sorted((ROOT / "containers").glob("Dockerfile.*"))


@pytest.fixture(params=RECIPES, ids=lambda path: path.name)
def steps(request: pytest.FixtureRequest) -> list[Step]:
    return read_recipe(request.param)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "containers/compose.yaml").read_text())


def position(steps: list[Step], name: str, text: str) -> int:
    (found,) = [i for i, step in enumerate(steps) if step.name == name and text in step.text]
    return found


def test_there_is_a_recipe_for_either_kind_of_machine() -> None:
    assert [path.name for path in RECIPES] == ["Dockerfile.cpu", "Dockerfile.gpu"]


def test_the_base_image_is_a_build_argument_with_a_fixed_tag(steps: list[Step]) -> None:
    assert [step.name for step in steps[:2]] == ["ARG", "FROM"]
    assert steps[1].text == "${BASE_IMAGE}"
    image, tag = steps[0].text.removeprefix("BASE_IMAGE=").split(":")
    assert image in {"python", "nvidia/cuda"}
    assert re.match(r"\d+\.\d+", tag), "a tag that moves, such as latest, builds something else tomorrow"


def test_nothing_is_fetched_but_by_the_package_managers(steps: list[Step]) -> None:
    assert not named(steps, "ADD")
    assert not any(re.search(r"https?://|\bcurl\b|\bwget\b", step.text) for step in named(steps, "RUN"))


def test_the_locked_versions_are_installed_before_the_sources_come(steps: list[Step]) -> None:
    lock = position(steps, "COPY", "requirements.lock")
    install = position(steps, "RUN", "-r requirements.lock")
    project = position(steps, "RUN", "--no-deps")
    assert lock < install < position(steps, "COPY", "medseg") < position(steps, "COPY", "app") < project


def test_pip_keeps_no_cache_and_apt_no_lists(steps: list[Step]) -> None:
    for step in named(steps, "RUN"):
        assert step.text.count("pip install") == step.text.count("--no-cache-dir")
        if "apt-get install" in step.text:
            assert "--no-install-recommends" in step.text
            assert step.text.endswith("rm -rf /var/lib/apt/lists/*")


def test_it_runs_as_a_user_without_rights(steps: list[Step]) -> None:
    (user,) = named(steps, "USER")
    uid, gid = map(int, user.text.split(":"))
    assert uid >= 10000
    assert gid >= 10000
    assert f"--uid {uid}" in " ".join(step.text for step in named(steps, "RUN"))
    assert not [step for step in steps[steps.index(user) :] if step.name in {"RUN", "COPY"}]
    assert not any("sudo" in step.text for step in named(steps, "RUN"))


def test_everything_written_goes_to_the_volume(steps: list[Step]) -> None:
    assert [step.words() for step in named(steps, "VOLUME")] == [["/data"]]
    places = environment(steps)
    assert {places[name].split("/")[1] for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "MPLCONFIGDIR")} == {"data"}


def test_the_page_is_the_command_and_its_health_is_asked(steps: list[Step]) -> None:
    (command,) = named(steps, "CMD")
    (port,) = named(steps, "EXPOSE")
    assert command.words() == ["python", "-m", "streamlit", "run", "app/server.py"]
    assert environment(steps)["STREAMLIT_SERVER_PORT"] == port.text == "8501"
    assert "/_stcore/health" in health_command(steps)[-1]


def test_mpi_is_there_and_its_libraries_are_found(steps: list[Step]) -> None:
    assert any("openmpi-bin" in step.text for step in named(steps, "RUN"))
    assert "/usr/lib/x86_64-linux-gnu/openmpi/lib" in environment(steps)["LD_LIBRARY_PATH"].split(":")


def test_the_gpu_recipe_finds_cuda_and_the_driver() -> None:
    variables = environment(read_recipe(ROOT / "containers/Dockerfile.gpu"))
    assert "/usr/local/cuda/lib64" in variables["LD_LIBRARY_PATH"].split(":")
    assert variables["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"


def test_no_secret_and_no_address_is_baked_in(steps: list[Step]) -> None:
    assert not [step for step in steps if re.search(r"password|token|secret|://(?!127)", step.text, re.IGNORECASE)]


def test_the_builder_is_sent_what_the_recipes_copy_and_nothing_else(steps: list[Step]) -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    sent = {line[1:] for line in lines if line.startswith("!")}
    copied = {word for step in named(steps, "COPY") for word in step.words()[:-1]}
    assert copied == sent


@pytest.mark.parametrize("name", ["page", "page-gpu"])
def test_a_service_is_published_on_loopback_with_few_rights(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert service["ports"] == ["127.0.0.1:${PORT:-8501}:8501"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["shm_size"] == "8gb"
    assert "privileged" not in service
    assert "network_mode" not in service


@pytest.mark.parametrize(("name", "kind"), [("page", "cpu"), ("page-gpu", "gpu")])
def test_a_service_is_built_from_its_recipe(compose: dict[str, Any], name: str, kind: str) -> None:
    service = compose["services"][name]
    assert service["image"] == f"medseg:{__version__}-{kind}"
    folder = ROOT / "containers" / service["build"]["context"]
    assert folder.resolve() == ROOT
    recipe = read_recipe(folder / service["build"]["dockerfile"])
    declared = {step.text.split("=")[0] for step in named(recipe, "ARG")}
    assert set(service["build"]["args"]) <= declared


def test_scans_are_mounted_read_only_and_results_go_to_a_declared_volume(compose: dict[str, Any]) -> None:
    mounts = compose["services"]["page"]["volumes"]
    assert mounts[0] == "data:/data"
    assert "data" in compose["volumes"]
    assert all(mount.endswith(":ro") for mount in mounts[1:])


def test_the_gpu_service_asks_for_a_gpu_only_where_it_is_wanted(compose: dict[str, Any]) -> None:
    service = compose["services"]["page-gpu"]
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert service["profiles"] == ["gpu"]
    assert "deploy" not in compose["services"]["page"]
