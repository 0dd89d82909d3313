"""Archives behind the page: indexed, asked in words and by a scan, for who has asked and for nobody else."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

pytest.importorskip("lancedb")
pytest.importorskip("sklearn")
from app import archives as room
from app import desk as house
from app.archives import AnswerView, Archives, is_archive
from app.desk import desk as shared_desk
from app.quotas import Limits
from app.services import Desk
from app.studies import Refused
from app.text import say
from app.widgets.problems import plain
from app.widgets.question import Filters, Question
from tests.app.conftest import OTHER, VISITOR, run, until
from tests.app.test_paths import NOBODYS, TOO_LONG
from tests.phantoms import LARGE, phantom_volume, write_nifti, write_two_and_a_damaged
from vlretrieval.query import parse_query
from vlretrieval.store import StoreInfo

MAIN = str(Path(room.__file__).with_name("main.py"))


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_two_and_a_damaged(tmp_path_factory.mktemp("scans"))


@pytest.fixture(scope="module")
def archives(desk: Desk) -> Iterator[Archives]:
    made = Archives(desk)
    yield made
    made.close()


@pytest.fixture(scope="module")
def archive(archives: Archives, scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive") / "archive"
    done = answered(archives, archives.index(VISITOR, scans, folder, "tissue-hu"))
    assert done.problem is None
    assert is_archive(folder)
    return folder


def answered(archives: Archives, number: str, visitor: str = VISITOR) -> AnswerView:
    until(lambda: archives.view(visitor, number).state not in ("queued", "running"))
    return archives.view(visitor, number)


def found(view: AnswerView) -> list[dict[str, Any]]:
    assert view.facts is not None, view.problem
    return list(view.facts["hits"])


def test_a_folder_is_indexed_and_what_failed_is_named(archives: Archives, archive: Path) -> None:
    done = archives.indexing(archive)
    assert done is not None
    assert done.facts is not None
    assert (done.facts["indexed"], done.facts["failed"], done.facts["interrupted"]) == (2, 1, False)
    assert done.facts["failures"][0][0] == "broken.nii.gz"
    about = answered(archives, archives.about(VISITOR, archive)).facts
    assert about is not None
    assert about["studies"] == 2
    assert about["segmenter"].startswith("tissue-hu@")
    assert "body" in about["organs"]


def test_words_find_with_reasons_and_a_picture(archives: Archives, archive: Path) -> None:
    number = archives.search(VISITOR, archive, "body > 100 ml, scan length > 15 cm", 10)
    (hit,) = found(answered(archives, number))
    assert hit["name"] == "large"
    assert {"kind": "organ", "text": hit["reasons"][-2]["text"], "names": ["body"]} in hit["reasons"]
    assert any(reason["kind"] == "filter" and "length_mm" in reason["names"] for reason in hit["reasons"])
    picture = archives.thumbnail(VISITOR, number, 1)
    assert picture is not None
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_an_answer_belongs_to_who_has_asked(archives: Archives, archive: Path) -> None:
    number = archives.search(VISITOR, archive, "bone", 10)
    answered(archives, number)
    assert archives.view(OTHER, number).state == "gone"
    assert archives.view("", number).state == "gone"
    assert archives.thumbnail(OTHER, number, 1) is None
    assert archives.thumbnail(VISITOR, number, 99) is None


def test_a_question_that_cannot_be_answered_says_why(archives: Archives, archive: Path, tmp_path: Path) -> None:
    unknown = answered(archives, archives.search(VISITOR, archive, "spleen > 300 ml", 10))
    assert unknown.problem is not None
    assert "has not measured" in unknown.problem.message
    nothing = answered(archives, archives.search(VISITOR, tmp_path / "nothing", "bone", 10))
    assert nothing.problem is not None
    assert nothing.problem.code == "NoScanError"
    with pytest.raises(Refused):
        archives.index(VISITOR, tmp_path / "not there", tmp_path / "archive", "tissue-hu")
    empty = tmp_path / "empty"
    empty.mkdir()
    done = answered(archives, archives.index(VISITOR, empty, tmp_path / "archive", "tissue-hu"))
    assert done.problem is not None
    assert "no studies" in done.problem.message
    (empty / "elsewhere.nii.gz").symlink_to(archive / "studies.lance")
    done = answered(archives, archives.index(VISITOR, empty, tmp_path / "archive", "tissue-hu"))
    assert done.problem is not None
    assert "elsewhere.nii.gz" in done.problem.message


def like(archives: Archives, archive: Path, study: str, words: str = "", organ: str = "") -> list[dict[str, Any]]:
    return found(answered(archives, archives.search_like(VISITOR, archive, study, words=words, organ=organ, hits=10)))


@pytest.mark.slow
def test_a_scan_finds_its_like_with_and_without_a_result(
    archives: Archives, archive: Path, scans: Path, desk: Desk, tmp_path: Path
) -> None:
    new = write_nifti(tmp_path / "new.nii.gz", phantom_volume(LARGE, (5.0, 5.0, 5.5), seed=9))
    study = desk.take_path(new, VISITOR)
    segmented_for_it = like(archives, archive, study)
    assert [hit["name"] for hit in segmented_for_it] == ["large", "small"]
    run(desk, study)
    assert [(hit["name"], hit["score"]) for hit in like(archives, archive, study)] == [
        (hit["name"], pytest.approx(hit["score"], abs=1e-4)) for hit in segmented_for_it
    ]
    assert next(hit["name"] for hit in like(archives, archive, study, organ="bone")) == "large"
    assert [hit["name"] for hit in like(archives, archive, study, words="scan length < 15 cm")] == ["small"]
    known = desk.take_path(scans / "small.nii.gz", VISITOR)
    assert [hit["name"] for hit in like(archives, archive, known)] == ["large"]  # not the study itself
    with pytest.raises(Refused):
        archives.search_like(OTHER, archive, study, words="", organ="", hits=10)


def test_indexing_is_stopped_and_goes_on(archives: Archives, scans: Path, tmp_path: Path) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(6):
        write_nifti(many / f"scan{number}.nii.gz", phantom_volume((60, 60, 60), (3.0, 3.0, 3.0), seed=number))
    target = tmp_path / "archive"
    archives.index(VISITOR, many, target, "tissue-hu")

    def now() -> AnswerView:
        view = archives.indexing(target)
        assert view is not None
        return view

    until(lambda: now().fraction > 0.2 or now().state not in ("queued", "running"))
    archives.stop_indexing(target)
    until(lambda: now().state not in ("queued", "running"))
    stopped = now()
    assert stopped.facts is None or stopped.facts["interrupted"]
    done = answered(archives, archives.index(VISITOR, many, target, "tissue-hu"))
    assert done.facts is not None
    assert done.facts["unchanged"] >= 1
    assert done.facts["indexed"] + done.facts["unchanged"] == 6


def test_only_the_last_answers_are_kept(archives: Archives, archive: Path) -> None:
    numbers = [archives.search(VISITOR, archive, "bone", 1) for _ in range(12)]
    for number in numbers:
        until(lambda number=number: archives.view(VISITOR, number).state not in ("queued", "running"))  # type: ignore[misc]
    last = archives.search(VISITOR, archive, "bone", 1)
    answered(archives, last)
    assert archives.view(VISITOR, numbers[0]).state == "gone"
    assert archives.view(VISITOR, last).state == "done"


def test_too_many_questions_are_refused(
    archives: Archives, archive: Path, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk.quota, "limits", Limits(max_waiting=0))
    with pytest.raises(Refused) as refused:
        archives.search(VISITOR, archive, "bone", 1)
    assert refused.value.problem.message == say("problem.busy.queue")


def test_filters_become_words_that_the_archive_reads() -> None:
    info = StoreInfo("measured@1", "x@1", 8, organs=("parotid_gland_right", "parotid_gland_left", "mandible"))
    filters = Filters(("head_neck", "thorax"), "parotid_gland_right", 20, 40.5, 3)
    question = Question("enlarged mandible", "", "", filters)
    query = parse_query(question.sentence(), info)
    assert {(condition.measures, condition.comparison, condition.limit) for condition in query.filters} == {
        (("parotid_gland_right_ml",), ">=", 20),
        (("parotid_gland_right_ml",), "<=", 40.5),
        (("slice_mm",), "<=", 3),
    }
    assert [set(parts) for parts in query.parts] == [{"head_neck", "thorax"}]  # any of them
    assert query.sizes == ((("mandible",), "large"),)
    assert Question("", "", "", Filters()).sentence() == ""
    shown = parse_query(Question("", "", "", Filters(organ="mandible")).sentence(), info)
    assert shown.organs == (("mandible",),)


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AppTest]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(house, "visitor_in", lambda cookies: "")
    monkeypatch.setenv("VLRETRIEVAL_ARCHIVE", str(tmp_path / "archive"))
    house.close()
    shared_desk()
    yield AppTest.from_file(MAIN, default_timeout=60).switch_page("views/search.py")
    house.close()


def test_without_an_archive_the_page_says_how_to_make_one(page: AppTest, tmp_path: Path) -> None:
    page.run()
    assert not page.exception
    assert page.title[0].value == say("search.title")
    assert any(say("archive.none") in text.value for text in page.markdown)
    page.text_input(key="index-source").set_value(str(tmp_path / "not there"))
    page.button(key="index-start").click().run()
    assert say("problem.path.advice").split(".")[0] in page.error[0].value


def test_a_folder_that_cannot_be_asked_is_said_and_the_tab_lives_on(page: AppTest, tmp_path: Path) -> None:
    page.run()
    for text in (TOO_LONG, NOBODYS):
        page.text_input(key="archive-name").set_value(text)
        page.button(key="archive-open").click().run()
        assert not page.exception
        assert plain(text) in page.error[0].value
        page.text_input(key="archive-name").set_value("")
        page.text_input(key="index-source").set_value(text)
        page.button(key="index-start").click().run()
        assert not page.exception
        assert plain(text) in page.error[0].value
    assert page.session_state["archive"] == str(tmp_path / "archive")
    assert not page.run().error


def test_the_own_archive_where_nobody_may_look_leaves_the_way_to_another(
    page: AppTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLRETRIEVAL_ARCHIVE", TOO_LONG)
    page.run()
    assert not page.exception
    assert say("problem.path.advice").split(".")[0] in page.error[0].value
    page.text_input(key="archive-name").set_value(str(tmp_path / "archive"))
    page.button(key="archive-open").click().run()
    assert not page.error
    assert any(say("archive.none") in text.value for text in page.markdown)


def test_archives_are_for_visitors_at_this_computer(page: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house, "may_name_paths", lambda address, headers: False)
    page.run()
    assert page.info[0].value == say("search.shared")
    assert not page.text_input


def test_a_missing_library_is_named(page: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "find_spec", lambda name: None)
    page.run()
    assert say("search.missing") in page.error[0].value


def test_the_page_searches_and_shows_the_hits(page: AppTest, scans: Path, tmp_path: Path) -> None:
    page.run()
    page.text_input(key="index-source").set_value(str(scans))
    page.selectbox(key="index-segmenter").set_value("tissue-hu")
    page.button(key="index-start").click().run()
    until(lambda: house.archives().indexing(tmp_path / "archive").state == "done")  # type: ignore[union-attr]
    until(lambda: bool([box for box in page.run().text_input if box.key == "search-words"]))
    page.text_input(key="search-words").set_value("bone")
    page.button(key="search-go").click().run()
    until(lambda: 'class="hit"' in "".join(block.proto.body for block in page.run().get("html")))
    assert not page.exception
    html = "".join(block.proto.body for block in page.get("html"))
    assert 'data-study="large"' in html
    assert say("search.why.organ") in html
    page.text_input(key="search-words").set_value("")
    page.button(key="search-go").click().run()
    assert any(say("search.empty") == info.value for info in page.info)
