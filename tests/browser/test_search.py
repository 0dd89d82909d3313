"""The search page: a folder is indexed from the page, and words and scans find what they should."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from app.text import name_of, say, sentences
from tests.browser.conftest import Server
from tests.browser.hands import JOB_MS, TISSUE, View, choose, upload
from tests.phantoms import LARGE, phantom_volume, write_nifti, write_two_and_a_damaged

pytest.importorskip("lancedb")
pytest.importorskip("sklearn")

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]
INDEX_MS = 600_000
HEAD_NECK = "Head and neck, organs at risk"
HEADS = {"pt_100_ct", "pt_210_ct"}


def search_page(page: Page, server: Server, archive: Path | None = None) -> None:
    """The search page, with an archive of its own where one is named."""
    page.goto(f"{server.url}/search")
    page.get_by_role("heading", name=say("search.title"), exact=True).wait_for()
    if archive is None:
        return
    none, open_one = (
        page.get_by_text(say("archive.none")),
        page.locator("summary").filter(has_text=say("archive.by", segmenter="")),
    )
    none.or_(open_one).first.wait_for()
    if not none.is_visible():
        open_one.click()
    page.locator(".st-key-archive-name input").fill(str(archive))
    page.locator(".st-key-archive-open button").click()
    expect(page.get_by_text(str(archive)).first).to_be_visible()


def index(page: Page, folder: Path, title: str) -> None:
    page.locator(".st-key-index-source input").fill(str(folder))
    choose(page, page.locator(".st-key-index-segmenter input"), title)
    page.locator(".st-key-index-start button").click()
    page.locator(".st-key-search-go").wait_for(timeout=INDEX_MS)


def ask(page: Page, words: str) -> list[str]:
    """Names of what is found, the best first, once the page shows the answer to these words."""
    page.locator(".st-key-search-words input").fill(words)
    page.locator(".st-key-search-go button").click()
    page.get_by_text(say("search.asked", words="")).filter(has_text=words).wait_for(timeout=JOB_MS)
    found = page.get_by_text(say("search.found", count="")).or_(page.get_by_text(say("search.nothing")))
    found.first.wait_for(timeout=JOB_MS)
    # Until the script has ended, cards of the answer before may be going and those of this one coming.
    page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]').wait_for(timeout=JOB_MS)
    return names(page)


def names(page: Page) -> list[str]:
    return list(page.locator("article.hit").evaluate_all("all => all.map(one => one.dataset.study)"))


def reasons(page: Page, study: str) -> list[str]:
    return list(page.locator(f'article.hit[data-study="{study}"] ul.why li').all_inner_texts())


def thumbnail(page: Page, study: str) -> np.ndarray:
    """Pixels of the picture that the page shows for a hit."""
    picture = page.locator(f'article.hit[data-study="{study}"] img')
    picture.scroll_into_view_if_needed()
    expect(picture).to_have_js_property("complete", True)
    code = (
        "image => { const canvas = document.createElement('canvas'); canvas.width = image.naturalWidth;"
        " canvas.height = image.naturalHeight; const context = canvas.getContext('2d'); context.drawImage(image, 0, 0);"
        " return [...context.getImageData(0, 0, canvas.width, canvas.height).data] }"
    )
    return np.array(picture.evaluate(code)).reshape(-1, 4)[:, :3]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_two_and_a_damaged(tmp_path_factory.mktemp("scans"))


def test_a_folder_is_indexed_and_searched(page: Page, server: Server, browser: Browser, scans: Path) -> None:
    search_page(page, server, server.work / "computed")
    expect(page.get_by_text(say("archive.none"))).to_be_visible()
    index(page, scans, TISSUE)
    expect(page.get_by_text(say("archive.done", indexed=2, unchanged=0, failed=1))).to_be_visible()
    expect(page.get_by_text("broken.nii.gz").first).to_be_visible()
    assert set(ask(page, "body > 0.1 l")) == {"small", "large"}
    assert ask(page, "scan length > 15 cm") == ["large"]
    assert any(say("search.why.filter") in reason and "165 mm" in reason for reason in reasons(page, "large"))
    assert ask(page, "body > 900 l") == []
    assert set(ask(page, "bone")) == {"small", "large"}
    assert any(reason.startswith(say("search.why.organ")) and " ml" in reason for reason in reasons(page, "small"))
    assert thumbnail(page, "large").std() > 10
    strangers_see_no_thumbnail(page, browser)
    page.locator(".st-key-search-words input").fill("spleen > 300 ml")
    page.locator(".st-key-search-go button").click()
    alert = page.get_by_role("alert").filter(has_text="spleen")
    alert.wait_for(timeout=JOB_MS)
    assert "Traceback" not in page.content()


def strangers_see_no_thumbnail(page: Page, browser: Browser) -> None:
    address = page.locator("article.hit img").first.evaluate("image => image.src")
    assert page.request.get(address).status == 200
    context = browser.new_context()
    try:
        assert context.request.get(address).status == 404
    finally:
        context.close()


def ready(page: Page, scans: Path) -> None:
    """An archive of the computed scans, whichever test comes first."""
    none, go = page.get_by_text(say("archive.none")), page.locator(".st-key-search-go")
    none.or_(go).first.wait_for()
    if none.is_visible():
        index(page, scans, TISSUE)


def test_a_filter_says_what_it_asks_and_a_hit_opens_in_the_viewer(page: Page, server: Server, scans: Path) -> None:
    search_page(page, server, server.work / "computed")
    ready(page, scans)
    page.get_by_text(say("search.filters"), exact=True).click()
    choose(page, page.locator(".st-key-search-shows input"), name_of("organ", "body"))
    page.locator(".st-key-search-least input").fill("100")
    page.locator(".st-key-search-go button").click()
    page.get_by_text("body ≥ 100 ml").wait_for(timeout=JOB_MS)
    expect(page.locator("article.hit")).to_have_count(2)
    page.locator(f".st-key-open-{names(page).index('large') + 1} button").first.click()
    view = View(page)
    expect(page.locator(".study-head h2")).to_have_text("large")
    assert view.pixels("axial").std() > 10
    page.get_by_role("link", name=say("nav.search"), exact=True).click()
    expect(page.locator("article.hit")).to_have_count(2)  # the answer is still there


def test_a_scan_that_is_handed_in_finds_its_like(page: Page, server: Server, scans: Path, tmp_path: Path) -> None:
    search_page(page, server, server.work / "computed")
    ready(page, scans)
    page.get_by_text(say("search.upload"), exact=True).click()
    new = phantom_volume(LARGE, (5.0, 5.0, 5.5), seed=9)
    upload(page, [write_nifti(tmp_path / "new one.nii.gz", new)])
    page.get_by_text(say("search.upload.done", name="new one")).wait_for(timeout=JOB_MS)
    page.locator(".st-key-search-go button").click()
    expect(page.locator("article.hit")).to_have_count(2, timeout=JOB_MS)
    assert names(page)[0] == "large"
    about = page.locator("article.hit .about").first.inner_text()
    assert float(about.rsplit(" ", 1)[1]) > 0.9


@pytest.mark.real
def test_words_of_heads_find_heads_and_no_abdomen(page: Page, server: Server, real_data: Path, tmp_path: Path) -> None:
    """Issue 8: an archive of the real CTs at hand, indexed and searched from the page."""
    studies = tmp_path / "studies"
    studies.mkdir()  # of copies: links to elsewhere are not followed
    for name in ("train/pt_100_ct.nii.gz", "validation/pt_210_ct.nii.gz"):
        shutil.copyfile(real_data / "openkbp_hn" / name, studies / Path(name).name)
    for name in ("crlm_ct_1004.zip", "sts_001.zip", "sts_003.zip"):
        shutil.copyfile(real_data / "dicom" / name, studies / name)
    search_page(page, server, tmp_path / "archive")
    index(page, studies, HEAD_NECK)
    assert set(ask(page, "parotid")) == HEADS
    assert any(name_of("organ", "parotid_gland_right") in reason for reason in reasons(page, "pt_100_ct"))
    assert thumbnail(page, "pt_100_ct").std() > 20
    assert set(ask(page, "腮腺")) == HEADS
    assert "crlm_ct_1004" in ask(page, "abdomen")
    assert not HEADS & set(names(page))
    assert set(ask(page, "thigh")) == {"sts_001", "sts_003"}
    assert ask(page, "slice thickness ≥ 5 mm") == ["crlm_ct_1004"]
    assert ask(page, "parotid > 1 l") == []


def test_the_search_page_speaks_chinese(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/search?lang=zh")
    page.get_by_role("heading", name=sentences("zh")["search.title"], exact=True).wait_for()
    expect(page.get_by_text(sentences("zh")["archive.none"])).to_be_visible()
