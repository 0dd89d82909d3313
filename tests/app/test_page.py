"""The page without a browser: what it shows at every step, with real jobs behind it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app.desk import desk, may_name_paths
from app.text import say
from app.widgets.problems import plain
from tests.phantoms import phantom_volume, write_dicom_series, write_nifti

MAIN = str(Path(__file__).parents[2] / "app" / "main.py")


@pytest.fixture(scope="module", autouse=True)
def own_desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("page")))
        desk.clear()
        yield
        desk().close()
        desk.clear()


@pytest.fixture
def page() -> AppTest:
    return AppTest.from_file(MAIN, default_timeout=30).run()


def finish(page: AppTest, timeout_s: float = 200) -> AppTest:
    """Let the page poll until the job has ended."""
    end = time.monotonic() + timeout_s
    while desk().status(page.query_params["study"]).state in ("queued", "running"):
        assert time.monotonic() < end
        time.sleep(0.1)
    return page.run()


def start_with_path(page: AppTest, path: Path) -> AppTest:
    page.segmented_control(key="way").set_value("path").run()
    page.text_input(key="path").set_value(str(path)).run()
    page.radio(key="model").set_value("tissue-hu").run()
    return page.button(key="run").click().run()


def test_the_first_page_asks_for_a_scan_and_says_what_it_is_for(page: AppTest) -> None:
    assert not page.exception
    assert page.title[0].value == say("intake.title")
    assert page.button(key="run").disabled
    assert not page.button(key="example").disabled
    assert say("app.footer") in page.caption[-1].value


def test_a_scan_becomes_a_table_pictures_and_downloads(page: AppTest, tmp_path: Path) -> None:
    page = finish(start_with_path(page, write_nifti(tmp_path / "scan A.nii.gz", phantom_volume())))
    assert not page.exception
    assert page.subheader[0].value == "scan A"
    study = page.query_params["study"]
    table = next(block.proto.body for block in page.get("html") if "organs" in block.proto.body)
    for row in desk().result(study).organs:
        assert f'data-organ="{row.name}"' in table
    assert say("table.absent") in table  # a phantom has no lungs
    assert len(page.get("image")) == 3
    assert [slider.max for slider in page.slider if "slice" in slider.label] == [36, 40, 48]
    assert len(page.get("download_button")) == 5


def test_the_example_is_one_click_away(page: AppTest) -> None:
    page.radio(key="model").set_value("tissue-hu").run()
    page = finish(page.button(key="example").click().run())
    assert not page.exception
    assert page.subheader[0].value == say("intake.example.name")
    assert len(page.get("image")) == 3


def test_moving_and_jumping_change_the_slices_and_survive_a_hidden_plane(page: AppTest, tmp_path: Path) -> None:
    page = finish(start_with_path(page, write_nifti(tmp_path / "b.nii.gz", phantom_volume())))
    study = page.query_params["study"]
    page.slider(key=f"viewer-{study}-coronal").set_value(7).run()
    page.segmented_control(key=f"viewer-{study}-planes").set_value("axial").run()
    assert len(page.get("image")) == 1
    page.segmented_control(key=f"viewer-{study}-planes").set_value("all").run()
    assert page.slider(key=f"viewer-{study}-coronal").value == 7
    page.selectbox(key=f"viewer-{study}-jump").set_value("bone").run()
    assert page.slider(key=f"viewer-{study}-coronal").value == pytest.approx(20 - 34 / 3.5 + 0.5, abs=1)
    page.pills(key=f"viewer-{study}-organs").set_value([]).run()
    assert not page.exception


def test_a_new_session_at_the_same_address_finds_the_result(page: AppTest, tmp_path: Path) -> None:
    page = finish(start_with_path(page, write_nifti(tmp_path / "c.nii.gz", phantom_volume())))
    later = AppTest.from_file(MAIN, default_timeout=30)
    later.query_params["study"] = page.query_params["study"]
    assert later.run().subheader[0].value == "c"
    later.button(key="delete").click().run()
    assert "study" not in later.query_params
    assert page.run().info[0].value == say("end.gone")


def test_a_broken_file_is_answered_with_advice(page: AppTest, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "broken.nii.gz", phantom_volume())
    path.write_bytes(path.read_bytes()[:3000])
    page = finish(start_with_path(page, path))
    assert page.subheader[0].value == say("end.failed")
    assert page.error[0].value.startswith(plain("broken.nii.gz: "))
    assert "Traceback" not in page.error[0].value
    page.button(key="again").click().run()
    assert page.title[0].value == say("intake.title")


def test_an_upload_goes_the_same_way(page: AppTest, tmp_path: Path) -> None:
    content = write_nifti(tmp_path / "up.nii.gz", phantom_volume()).read_bytes()
    page.file_uploader(key="files").upload("my scan.nii.gz", content).run()
    page.radio(key="model").set_value("tissue-hu").run()
    page = finish(page.button(key="run").click().run())
    assert page.subheader[0].value == "my scan"


def test_several_series_are_shown_to_choose_from(page: AppTest, tmp_path: Path) -> None:
    write_dicom_series(tmp_path / "study", phantom_volume())
    write_dicom_series(tmp_path / "study", phantom_volume((30, 30, 20)), names=lambda k: f"B{k}.dcm")
    page = finish(start_with_path(page, tmp_path / "study"))
    assert page.subheader[0].value == say("series.title")
    assert len(page.radio(key="series").options) == 2
    page.radio(key="series").set_value(1).run()
    page = finish(page.button(key="run-series").click().run())
    assert page.subheader[0].value == "study"
    assert not page.exception


def test_a_path_that_is_not_there_is_said_at_once(page: AppTest, tmp_path: Path) -> None:
    page = start_with_path(page, tmp_path / "nothing")
    assert say("problem.path.advice").split(".")[0] in page.error[0].value
    assert "study" not in page.query_params


def test_an_unknown_address_says_so_and_leads_back() -> None:
    page = AppTest.from_file(MAIN, default_timeout=30)
    page.query_params["study"] = "../../etc"
    page.run()
    assert page.info[0].value == say("end.gone")
    page.button(key="again").click().run()
    assert page.title[0].value == say("intake.title")


def test_text_from_names_is_not_read_as_markdown() -> None:
    assert plain("a_b*c [x](http://y) $z$ <b>") == r"a\_b\*c \[x\]\(http\://y\) \$z\$ \<b\>"


@pytest.mark.parametrize(
    ("address", "headers", "allowed"),
    [
        ("127.0.0.1", {"Host": "127.0.0.1:8501"}, True),
        ("localhost", {"Host": "localhost:8501"}, True),
        ("::1", {"Host": "[::1]:8501"}, True),
        (None, {"Host": "localhost:8501"}, False),
        ("0.0.0.0", {"Host": "localhost:8501"}, False),
        ("127.0.0.1", {"Host": "evil.example:8501"}, False),
        ("127.0.0.1", {"Host": "localhost", "X-Forwarded-For": "10.0.0.7"}, False),
    ],
)
def test_paths_may_be_named_only_from_this_computer(
    address: str | None, headers: dict[str, str], allowed: bool
) -> None:
    assert may_name_paths(address, headers) is allowed
