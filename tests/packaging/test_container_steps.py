"""The steps of the CPU recipe that need no engine, run in a fresh folder: install, models, page, health."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.checkout import ROOT, tracked_files
from tests.packaging.recipe import Step, environment, health_command, named, read_recipe

RECIPE = ROOT / "containers/Dockerfile.cpu"
# These change the system; the rest only fills the recipe's own folder.
NEEDS_AN_ENGINE = ("apt-get", "useradd")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def copy(step: Step, source: Path, image: Path) -> None:
    *names, target = step.words()
    for name in names:
        here, there = source / name, image / target
        if here.is_dir():
            shutil.copytree(here, there)
        else:
            shutil.copy2(here, there / name if target.endswith("/") else there)


def run(command: list[str] | str, image: Path, variables: dict[str, str]) -> str:
    done = subprocess.run(
        command, shell=isinstance(command, str), cwd=image, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("context")
    for path in tracked_files():
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    return folder


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """This machine's settings for pip and its certificates, and a home and temporary folder that are new."""
    home = tmp_path_factory.mktemp("home")
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV", "PYTEST", "VIRTUAL"))
    }
    return {**kept, "PIP_ARGS": os.environ.get("PIP_ARGS", ""), "HOME": str(home), "TMPDIR": str(home)}


@pytest.fixture(scope="module")
def image(context: Path, variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image with a space")
    for step in read_recipe(RECIPE):
        if step.name == "COPY":
            copy(step, context, folder)
        elif step.name == "RUN" and not any(word in step.text for word in NEEDS_AN_ENGINE):
            run(step.text, folder, variables)
    return folder


@pytest.fixture(scope="module")
def page(image: Path, variables: dict[str, str]) -> Iterator[dict[str, str]]:
    """The recipe's own command, on a free port of loopback; gives its environment."""
    steps = read_recipe(RECIPE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    paths = {"PATH": f"{image}/.venv/bin:{os.environ['PATH']}"}
    place = {"STREAMLIT_SERVER_ADDRESS": "127.0.0.1", "STREAMLIT_SERVER_PORT": port}
    keep = {"HOME", "TMPDIR", "XDG_CACHE_HOME", "MPLCONFIGDIR", "LD_LIBRARY_PATH"}
    own = {name: value for name, value in environment(steps).items() if name not in keep}
    started = {**variables, **own, **paths, **place}
    with subprocess.Popen(named(steps, "CMD")[0].words(), cwd=image, env=started, stdout=subprocess.DEVNULL) as server:
        yield started
        server.terminate()


def test_only_the_recipe_s_own_files_are_in_the_image(image: Path) -> None:
    made = {".venv", "medseg.egg-info"}
    assert {path.name for path in image.iterdir()} - made == {
        "requirements.lock", "pyproject.toml", "README.md", "LICENSE", ".streamlit", "medseg", "app", "scripts",
        "vlretrieval",
    }  # fmt: skip


def test_the_locked_versions_are_what_is_installed(image: Path, variables: dict[str, str]) -> None:
    listing = run([".venv/bin/python", "-m", "pip", "freeze", "--all", "--exclude-editable"], image, variables)
    installed = {line.split("+")[0] for line in listing.splitlines()}
    assert set((ROOT / "requirements.lock").read_text().split()) <= installed
    assert not [line for line in installed if line.startswith(("pytest", "ruff", "playwright"))]


def test_the_shipped_models_are_listed(image: Path, variables: dict[str, str]) -> None:
    cards = json.loads(run([".venv/bin/medseg", "models", "--json"], image, variables))
    assert {card["name"] for card in cards} >= {"head-neck-oar", "tissue-hu"}


def test_the_page_answers_its_health_check(image: Path, page: dict[str, str]) -> None:
    command = health_command(read_recipe(RECIPE))
    for _ in range(60):
        done = subprocess.run(command, env=page, cwd=image, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        time.sleep(1)
    pytest.fail(f"no health after a minute: {done.stderr}")


def test_the_health_check_fails_where_no_page_answers(image: Path, page: dict[str, str]) -> None:
    nobody = {**page, "STREAMLIT_SERVER_PORT": "9"}
    done = subprocess.run(health_command(read_recipe(RECIPE)), env=nobody, cwd=image, capture_output=True, check=False)
    assert done.returncode == 1
