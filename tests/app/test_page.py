"""The page without a browser: what it shows at every step, with real jobs behind it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app import desk as house
from app.desk import desk, may_name_paths
from app.quotas import Limits
from app.studies import StudyView
from app.text import say, sentences
from app.widgets.problems import plain
from medseg.imaging.volume import Volume
from tests.app.conftest import until
from tests.app.test_paths import NOBODYS, TOO_LONG
from tests.phantoms import phantom_volume, write_dicom_series, write_nifti

APP = Path(__file__).parents[2] / "app"
MAIN = str(APP / "main.py")


@pytest.fixture(scope="module", autouse=True)
def own_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("page")))
        patch.setattr(house, "visitor_in", lambda cookies: "")  # AppTest is no browser: its session is the visitor
        house.close()
        yield
        house.close()


@pytest.fixture
def page() -> AppTest:
    return AppTest.from_file(MAIN, default_timeout=60).run()


def view_of(page: AppTest) -> StudyView:
    return desk().view(page.query_params["study"], page.session_state["visitor"])


def seen(page: AppTest) -> AppTest:
    """The page once the scan has been read."""
    until(lambda: view_of(page).phase != "reading")
    return page.run()


def opened(page: AppTest, path: Path) -> AppTest:
    page.segmented_control(key="way").set_value("path").run()
    page.text_input(key="path").set_value(str(path))
    return seen(page.button(key="open-path").click().run())


def segmented(page: AppTest, model: str = "tissue-hu", *, key: str = "first") -> AppTest:
    page.selectbox(key=f"model-{key}").set_value(model).run()
    page.button(key=f"run-{key}").click().run()
    until(lambda: view_of(page).runs[-1].state not in ("queued", "running"))
    return page.run()


def html(page: AppTest) -> str:
    return "\n".join(block.proto.body for block in page.get("html"))


def viewers(page: AppTest) -> list[dict[str, Any]]:
    """What the viewers on the page are told."""
    found = page.get("bidi_component")
    return [json.loads(one.proto.json) for one in found if one.proto.component_name.endswith("medseg_viewer")]


def test_the_first_page_asks_for_a_scan_and_says_what_it_is_for(page: AppTest) -> None:
    assert not page.exception
    assert page.title[0].value == say("intake.title")
    assert say("app.footer") in page.caption[-1].value


def test_a_scan_is_seen_then_segmented_and_becomes_a_table(page: AppTest, tmp_path: Path) -> None:
    page = opened(page, write_nifti(tmp_path / "scan A.nii.gz", phantom_volume()))
    assert not page.exception
    assert "<h2>scan A</h2>" in html(page)
    assert "organ-table" not in html(page)
    told = viewers(page)[0]
    assert (told["scan"]["shape"], told["run"], told["organs"]) == ([48, 40, 36], None, [])
    assert say("scan.size") in html(page)

    page = segmented(page)
    assert not page.exception
    result = desk().result(view_of(page).id, page.session_state["visitor"], 1)
    assert result is not None
    for row in result.organs:
        assert f'data-organ="{row.name}"' in html(page)
    assert say("table.absent") in html(page)  # a phantom has no lungs
    told = viewers(page)[0]
    assert told["run"]["path"] == "run/1/mask"
    assert {organ["name"]: organ["value"] for organ in told["organs"]} == {row.name: row.value for row in result.organs}
    assert any(say("result.limits", model="").strip() in text.value for text in page.markdown)
    assert "page" not in json.dumps(told["scan"])


def test_the_example_is_one_click_away(page: AppTest) -> None:
    page = seen(page.button(key="example").click().run())
    assert not page.exception
    assert f"<h2>{say('intake.example.name')}</h2>" in html(page)
    assert viewers(page)


def test_another_session_of_another_browser_finds_nothing(page: AppTest, tmp_path: Path) -> None:
    page = opened(page, write_nifti(tmp_path / "c.nii.gz", phantom_volume()))
    later = AppTest.from_file(MAIN, default_timeout=60)
    later.query_params["study"] = page.query_params["study"]
    assert later.run().info[0].value == say("end.gone")
    assert not viewers(later)


def test_deleting_leads_back_to_the_start(page: AppTest, tmp_path: Path) -> None:
    page = opened(page, write_nifti(tmp_path / "c.nii.gz", phantom_volume()))
    study = page.query_params["study"]
    page.button(key="delete").click().run()
    assert "study" not in page.query_params
    assert page.title[0].value == say("intake.title")
    page.query_params["study"] = study
    assert page.run().info[0].value == say("end.gone")


def test_two_models_on_one_scan_are_two_results_and_can_be_compared(page: AppTest, tmp_path: Path) -> None:
    page = segmented(opened(page, write_nifti(tmp_path / "d.nii.gz", phantom_volume())))
    page = segmented(page, key="again")
    assert page.selectbox(key="result-number").value == 2
    page.selectbox(key="result-number").set_value(1).run()
    assert viewers(page)[0]["run"]["number"] == 1
    other = page.selectbox(key="compare-with")
    other.set_value(other.options[1] if "/" in other.options[1] else f"{view_of(page).id}/2").run()
    until(lambda: bool(viewers(page.run())[0]["compare"]))
    assert 'id="comparison"' in html(page)
    assert any(say("compare.same") == caption.value for caption in page.caption)
    assert not page.exception


def test_a_broken_file_is_answered_with_advice(page: AppTest, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "broken.nii.gz", phantom_volume())
    path.write_bytes(path.read_bytes()[:3000])
    page = opened(page, path)
    assert page.subheader[0].value == say("end.unreadable")
    assert page.error[0].value.startswith(plain("broken.nii.gz: "))
    assert "Traceback" not in page.error[0].value
    page.button(key="again").click().run()
    assert page.title[0].value == say("intake.title")


def test_what_is_no_ct_goes_on_with_a_reason_alone(page: AppTest, tmp_path: Path) -> None:
    body = phantom_volume()
    shifted = Volume(body.hu + 1024, body.geometry, name="shifted")
    page = opened(page, write_nifti(tmp_path / "shifted.nii.gz", shifted, dtype=np.uint16))
    assert page.subheader[0].value == say("end.unreadable")
    page.text_input(key="accept-reason").set_value("  ")
    page.button(key="accept").click().run()
    assert any(plain(say("problem.reason")) in error.value for error in page.error)
    page.text_input(key="accept-reason").set_value("planted, shifted on purpose")
    page = segmented(seen(page.button(key="accept").click().run()))
    assert not page.exception
    assert any("planted, shifted on purpose" in warning.value for warning in page.warning)
    result = desk().result(view_of(page).id, page.session_state["visitor"], 1)
    assert result is not None
    run = json.loads((desk().run_folder(view_of(page).id, 1) / "run.json").read_text("utf-8"))
    assert run["accepted"] == "planted, shifted on purpose"


def test_damage_cannot_be_accepted(page: AppTest, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "cut.nii.gz", phantom_volume())
    path.write_bytes(path.read_bytes()[:3000])
    page = opened(page, path)
    assert "accept-reason" not in [field.key for field in page.text_input]


def test_a_server_that_is_busy_says_so(page: AppTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened(page, write_nifti(tmp_path / "g.nii.gz", phantom_volume()))
    monkeypatch.setattr(desk().quota, "limits", Limits(max_waiting=0))
    page.button(key="run-first").click().run()
    assert say("problem.busy.queue") in page.error[0].value
    assert "result" not in page.query_params
    page.button(key="new").click().run()
    page.button(key="example").click().run()
    assert say("problem.busy.queue") in page.error[0].value
    assert "study" not in page.query_params


def test_an_upload_goes_the_same_way(page: AppTest, tmp_path: Path) -> None:
    content = write_nifti(tmp_path / "up.nii.gz", phantom_volume()).read_bytes()
    page = seen(page.file_uploader(key="files-0").upload("my scan.nii.gz", content).run())
    assert "<h2>my scan</h2>" in html(page)


def test_several_series_are_shown_to_choose_from(page: AppTest, tmp_path: Path) -> None:
    write_dicom_series(tmp_path / "study", phantom_volume())
    write_dicom_series(tmp_path / "study", phantom_volume((30, 30, 20)), names=lambda k: f"B{k}.dcm")
    page = opened(page, tmp_path / "study")
    assert page.subheader[0].value == say("series.title")
    assert len(page.radio(key="series").options) == 2
    page.radio(key="series").set_value(1).run()
    page = seen(page.button(key="open-series").click().run())
    assert viewers(page)
    assert not page.exception


def test_a_path_that_is_not_there_is_said_at_once(page: AppTest, tmp_path: Path) -> None:
    page.segmented_control(key="way").set_value("path").run()
    page.text_input(key="path").set_value(str(tmp_path / "nothing"))
    page.button(key="open-path").click().run()
    assert say("problem.path.advice").split(".")[0] in page.error[0].value
    assert "study" not in page.query_params


@pytest.mark.parametrize("text", [TOO_LONG, NOBODYS])
def test_a_path_that_cannot_be_is_said_wherever_one_may_be_named(page: AppTest, tmp_path: Path, text: str) -> None:
    def said(page: AppTest) -> bool:
        return not page.exception and plain(text) in page.error[0].value

    page.segmented_control(key="way").set_value("path").run()
    page.text_input(key="path").set_value(text)
    assert said(page.button(key="open-path").click().run())
    page.switch_page("views/jobs.py").run()
    page.text_input(key="batch-source").set_value(str(tmp_path))
    page.text_input(key="batch-out").set_value(text)
    assert said(page.button(key="batch-start").click().run())
    page.switch_page("views/jobs.py").run()
    assert said(page.text_input(key="batch-earlier").set_value(text).run())
    page.switch_page("views/models.py").run()
    page.text_input(key="import-path").set_value(text)
    page.text_input(key="import-name").set_value("mine")
    assert said(page.button(key="import-go").click().run())


def test_a_cancelled_run_says_so_and_offers_another(page: AppTest, tmp_path: Path) -> None:
    page = opened(page, write_nifti(tmp_path / "e.nii.gz", phantom_volume((320, 320, 200), (0.9, 0.9, 1.2))))
    page.selectbox(key="model-first").set_value("tissue-hu").run()
    page.button(key="run-first").click().run()
    page.button(key="cancel").click().run()
    until(lambda: view_of(page).runs[-1].state == "cancelled")
    page.run()
    assert page.info[0].value == say("end.cancelled")
    assert page.button(key="run-first")


def test_an_unknown_address_says_so_and_leads_back() -> None:
    page = AppTest.from_file(MAIN, default_timeout=60)
    page.query_params["study"] = "../../etc"
    page.run()
    assert page.info[0].value == say("end.gone")
    page.button(key="again").click().run()
    assert page.title[0].value == say("intake.title")


def test_the_page_speaks_chinese_when_asked(tmp_path: Path) -> None:
    page = AppTest.from_file(MAIN, default_timeout=60)
    page.query_params["lang"] = "zh"
    page.run()
    assert page.title[0].value == sentences("zh")["intake.title"]
    content = write_nifti(tmp_path / "f.nii.gz", phantom_volume()).read_bytes()
    page = seen(page.file_uploader(key="files-0").upload("f.nii.gz", content).run())
    page.button(key="run-first").click().run()
    until(lambda: view_of(page).runs[-1].state == "done")
    page.run()
    assert not page.exception
    assert "下颌骨" in html(page)
    told = viewers(page)[0]
    assert told["lang"] == "zh"
    assert told["words"]["edit"] == sentences("zh")["viewer.edit"]


@pytest.mark.parametrize("name", ["jobs", "models"])
def test_the_other_pages_open(page: AppTest, name: str) -> None:
    page.switch_page(f"views/{name}.py").run()
    assert not page.exception
    assert page.title[0].value == say(f"{name}.title")


def test_a_batch_is_started_watched_and_opened(page: AppTest, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_nifti(tmp_path / "in" / "case.nii.gz", phantom_volume())
    page.switch_page("views/jobs.py").run()
    page.text_input(key="batch-source").set_value(str(tmp_path / "in"))
    page.text_input(key="batch-out").set_value(str(tmp_path / "out"))
    page.selectbox(key="batch-model").set_value("tissue-hu")
    page.button(key="batch-start").click().run()
    until(lambda: say("jobs.state.done") in str([text.value for text in page.run().markdown]))
    assert 'data-study="case"' in html(page)
    scan = (tmp_path / "in" / "case.nii.gz").rename(tmp_path / "moved away.nii.gz")
    page.button(key=f"open-{tmp_path / 'out'}-case").click().run()
    assert not page.exception
    assert plain(say("problem.path.advice")) in page.error[0].value
    scan.rename(tmp_path / "in" / "case.nii.gz")
    page.button(key=f"open-{tmp_path / 'out'}-case").click().run()
    assert not page.exception
    until(lambda: bool(page.query_params.get("study")))
    until(lambda: view_of(page).runs[-1].state == "done")
    page.switch_page("views/segment.py").run()  # AppTest itself stays where it was
    assert 'id="organ-table"' in html(page)


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
