"""Versions on a shelf: registering changes nothing that is in use; promoting and rolling back do, and only they."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from medseg.cli import main
from medseg.errors import ConfigError, MedsegError, ModelIntegrityError, OutputError, UnknownModelError
from medseg.models import versions
from medseg.models.store import CARD, PROMOTED, SHIPPED, WEIGHTS, list_models, load_model, promoted
from medseg.models.versions import LOCK, own_shelf, promote, register, roll_back, versions_of
from tests.inference.planted import planted_volume, threshold_card, write_package
from tests.phantoms import write_nifti


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDSEG_MODELS", str(tmp_path / "shelf"))
    return tmp_path / "shelf"


def package(tmp_path: Path, version: str, **changes: object) -> Path:
    return write_package(tmp_path / f"made-{version}", threshold_card(version=version, **changes))


def in_use() -> str:
    return load_model("threshold").card.version


def listed() -> str:
    return next(card.version for card in list_models() if card.name == "threshold")


def test_the_first_version_is_used_and_the_next_ones_only_when_promoted(tmp_path: Path, shelf: Path) -> None:
    first = register(package(tmp_path, "1.9.0"), shelf)
    assert (first.id, first.folder, first.current) == ("threshold@1.9.0", shelf / "threshold@1.9.0", True)
    for version in ("1.10.0", "2.0.0"):  # 1.10.0 sorts before 1.9.0 as text
        assert not register(package(tmp_path, version), shelf).current
        assert in_use() == listed() == "1.9.0"
    promote("threshold@2.0.0", shelf)
    assert in_use() == listed() == "2.0.0"
    promote("threshold@1.10.0", shelf)
    assert in_use() == listed() == "1.10.0"
    assert [version.id for version in versions_of("threshold", shelf) if version.current] == ["threshold@1.10.0"]
    assert load_model("threshold@1.9.0").card.version == "1.9.0"
    assert roll_back("threshold", shelf).id == "threshold@2.0.0"
    assert in_use() == "2.0.0"
    roll_back("threshold", shelf)
    assert in_use() == "1.9.0"
    with pytest.raises(UnknownModelError, match="never promoted"):
        roll_back("threshold", shelf)
    assert in_use() == "1.9.0"


def test_a_name_that_medseg_ships_means_the_shipped_one_until_another_is_promoted(
    tmp_path: Path, shelf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def meant() -> str:
        (listed,) = (card.id for card in list_models() if card.name == "tissue-hu")
        assert listed == load_model("tissue-hu").card.id
        return listed

    shipped = meant()
    made = package(tmp_path, "9.0.0", name="tissue-hu")
    with pytest.raises(SystemExit):
        main(["models", "register", str(made)])
    assert "`--model tissue-hu` means none of these, as before," in capsys.readouterr().out
    assert not register(made, shelf).current
    assert meant() == shipped
    with pytest.raises(UnknownModelError, match="never promoted"):
        roll_back("tissue-hu", shelf)
    promote("tissue-hu@9.0.0", shelf)
    assert meant() == "tissue-hu@9.0.0"
    back = roll_back("tissue-hu", shelf)
    assert (back.id, back.folder.parent) == (shipped, SHIPPED)
    assert meant() == shipped
    version = shipped.split("@")[1]
    with pytest.raises(ModelIntegrityError, match=f"Another {shipped} stands on .*`version:` of the config"):
        register(package(tmp_path, version, name="tissue-hu"), shelf)


def test_promoting_twice_is_one_step_back(tmp_path: Path, shelf: Path) -> None:
    register(package(tmp_path, "1.0.0"), shelf)
    register(package(tmp_path, "2.0.0"), shelf)
    promote("threshold@2.0.0", shelf)
    promote("threshold@2.0.0", shelf)
    roll_back("threshold", shelf)
    assert in_use() == "1.0.0"


def test_registering_again_changes_nothing_and_another_package_of_that_version_is_refused(
    tmp_path: Path, shelf: Path
) -> None:
    made = package(tmp_path, "1.0.0")
    register(made, shelf)
    before = (shelf / "threshold@1.0.0" / CARD).read_bytes()
    assert register(made, shelf).current
    other = write_package(tmp_path / "other", threshold_card(version="1.0.0", title="Another"))
    with pytest.raises(ModelIntegrityError, match=r"Another threshold@1\.0\.0 stands on"):
        register(other, shelf)
    assert (shelf / "threshold@1.0.0" / CARD).read_bytes() == before


def test_a_damaged_package_is_neither_registered_nor_promoted(tmp_path: Path, shelf: Path) -> None:
    register(package(tmp_path, "1.0.0"), shelf)
    broken = package(tmp_path, "2.0.0")
    (broken / WEIGHTS).write_bytes(b"x")
    with pytest.raises(ModelIntegrityError):
        register(broken, shelf)
    assert sorted(path.name for path in shelf.iterdir() if path.name != LOCK) == ["threshold@1.0.0"]
    register(package(tmp_path, "3.0.0"), shelf)
    (shelf / "threshold@3.0.0" / WEIGHTS).write_bytes(b"x")
    with pytest.raises(ModelIntegrityError):
        promote("threshold@3.0.0", shelf)
    assert in_use() == "1.0.0"


def test_a_version_that_is_gone_is_never_replaced_in_silence(tmp_path: Path, shelf: Path) -> None:
    register(package(tmp_path, "1.0.0"), shelf)
    register(package(tmp_path, "2.0.0"), shelf)
    promote("threshold@2.0.0", shelf)
    shutil.rmtree(shelf / "threshold@2.0.0")
    with pytest.raises(ModelIntegrityError, match=r"threshold@2\.0\.0, which threshold means on .* is gone"):
        load_model("threshold")
    roll_back("threshold", shelf)
    assert in_use() == "1.0.0"


def test_rolling_back_to_what_is_gone_is_refused(tmp_path: Path, shelf: Path) -> None:
    register(package(tmp_path, "1.0.0"), shelf)
    register(package(tmp_path, "2.0.0"), shelf)
    promote("threshold@2.0.0", shelf)
    shutil.rmtree(shelf / "threshold@1.0.0")
    with pytest.raises(UnknownModelError, match=r"threshold@1\.0\.0, which was in use before, is no longer"):
        roll_back("threshold", shelf)
    assert in_use() == "2.0.0"


@pytest.mark.parametrize("content", ["{", "[]", '{"threshold": 3}'])
def test_a_damaged_list_of_promotions_is_named(tmp_path: Path, shelf: Path, content: str) -> None:
    register(package(tmp_path, "1.0.0"), shelf)
    (shelf / PROMOTED).write_text(content)
    with pytest.raises(ModelIntegrityError, match=r"promoted\.json is damaged"):
        load_model("threshold")


def test_what_is_not_on_the_shelf_is_not_promoted(tmp_path: Path, shelf: Path) -> None:
    register(package(tmp_path, "1.0.0"), shelf)
    with pytest.raises(UnknownModelError, match=r"threshold@9 is not on .*; there is threshold@1\.0\.0"):
        promote("threshold@9", shelf)
    with pytest.raises(UnknownModelError, match="no version of it"):
        promote("nobody@1", shelf)


def test_names_that_leave_the_shelf_are_refused(tmp_path: Path, shelf: Path) -> None:
    made = write_package(tmp_path / "made", threshold_card(version="../../1"))
    with pytest.raises(ModelIntegrityError, match="cannot be the name of a folder"):
        register(made, shelf)


def test_without_a_shelf_one_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MEDSEG_MODELS", raising=False)
    with pytest.raises(ConfigError, match=r"MEDSEG_MODELS"):
        own_shelf(None)
    assert own_shelf(tmp_path) == tmp_path


@pytest.mark.parametrize(
    ("act", "history"),
    [
        (lambda made, shelf: promote("threshold@3.0.0", shelf), ["1.0.0", "2.0.0", "3.0.0"]),
        (lambda made, shelf: roll_back("threshold", shelf), ["1.0.0"]),
        (lambda made, shelf: register(made, shelf), ["1.0.0", "2.0.0"]),
    ],
    ids=["promote", "roll back", "register"],
)
def test_a_neighbour_who_promotes_another_model_meanwhile_loses_nothing(
    tmp_path: Path,
    shelf: Path,
    monkeypatch: pytest.MonkeyPatch,
    act: Callable[[Path, Path], object],
    history: list[str],
) -> None:
    for version in ("1.0.0", "2.0.0", "3.0.0"):
        register(package(tmp_path, version), shelf)
    promote("threshold@2.0.0", shelf)
    for version in ("1.0.0", "2.0.0"):
        register(write_package(tmp_path / f"other-{version}", threshold_card(name="other", version=version)), shelf)
    neighbour = threading.Thread(target=promote, args=("other@2.0.0", shelf))
    emit_json = versions.emit_json

    def write_late(path: Path, value: object) -> Path:
        """Between reading and writing there is time for the neighbour, who writes as usual."""
        monkeypatch.setattr(versions, "emit_json", emit_json)
        neighbour.start()
        neighbour.join(0.5)
        return emit_json(path, value)

    monkeypatch.setattr(versions, "emit_json", write_late)
    act(package(tmp_path, "4.0.0"), shelf)
    neighbour.join()
    assert promoted(shelf)["other"] == ["other@1.0.0", "other@2.0.0"]
    assert promoted(shelf)["threshold"] == [f"threshold@{version}" for version in history]


def test_a_shelf_that_cannot_be_locked_is_read_and_not_changed(tmp_path: Path, shelf: Path) -> None:
    register(package(tmp_path, "1.0.0"), shelf)
    register(package(tmp_path, "2.0.0"), shelf)
    promote("threshold@2.0.0", shelf)
    (shelf / LOCK).unlink()
    (shelf / LOCK).mkdir()
    for act in (
        lambda: promote("threshold@1.0.0", shelf),
        lambda: roll_back("threshold", shelf),
        lambda: register(package(tmp_path, "3.0.0"), shelf),
    ):
        with pytest.raises(OutputError, match=r"\.lock could not be locked: .* Use a local folder"):
            act()
    assert in_use() == listed() == "2.0.0"
    assert [version.id for version in versions_of("threshold", shelf) if version.current] == ["threshold@2.0.0"]


def test_a_shelf_that_is_not_there_is_not_made_by_rolling_back(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file"):
        roll_back("threshold", tmp_path / "mistyped")
    assert not (tmp_path / "mistyped").exists()


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return int(end.value.code or 0)


def test_promote_and_roll_back_change_what_segment_uses(
    tmp_path: Path, shelf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = write_nifti(tmp_path / "scan.nii.gz", planted_volume((30, 30, 30), (4.0, 4.0, 4.0)))

    def used(out: str) -> str:
        assert run("segment", scan, "-o", tmp_path / out, "--model", "threshold") == 0
        return str(json.loads((tmp_path / out / "scan" / "run.json").read_text())["model"])

    assert run("models", "register", package(tmp_path, "1.0.0")) == 0
    assert run("models", "register", package(tmp_path, "2.0.0")) == 0
    assert "1.0.0" in used("a")
    assert run("models", "promote", "threshold@2.0.0") == 0
    assert "* threshold@2.0.0" in capsys.readouterr().out
    assert "2.0.0" in used("b")
    assert run("models", "rollback", "threshold") == 0
    assert "1.0.0" in used("c")
    with pytest.raises(MedsegError):
        promote("threshold@3", shelf)
