"""The routes beside Streamlit's own: what they hand out, to whom, and what they refuse."""

from __future__ import annotations

import gzip
import http.client
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from app import routes
from app.results import Result
from app.routes import ASSETS, ROUTES, asset_version
from app.scans import Scan
from app.services import Desk
from app.visitors import COOKIE, Visitors, visitor_in
from tests.app.conftest import OTHER, VISITOR, run, until
from tests.phantoms import phantom_volume, write_dicom_series, write_nifti

NOT_THERE = 404


async def front(_: Request) -> Response:
    return HTMLResponse("<p>the page</p>")


@pytest.fixture(scope="module")
def study(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("routes")
    volume = phantom_volume(orientation="LPS", noise_hu=0)
    study = desk.take_path(write_dicom_series(folder / "series", volume), VISITOR)
    run(desk, study)
    return study


@dataclass(frozen=True)
class Answer:
    """What came back, unpacked."""

    status: int
    headers: http.client.HTTPMessage
    content: bytes

    def json(self) -> Any:
        return json.loads(self.content)


@dataclass(frozen=True)
class Client:
    """A browser with a cookie, or none, at an address of this computer."""

    port: int
    cookie: str = ""
    address: str = "127.0.0.1"

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, 60, source_address=(self.address, 0))
        sent = {"accept-encoding": "gzip", "cookie": f"{COOKIE}={self.cookie}"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        connection.request(method, path, body, sent if self.cookie else {**sent, "cookie": "other=1"})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        is_packed = answer.headers.get("content-encoding") == "gzip"
        return Answer(answer.status, answer.headers, gzip.decompress(content) if is_packed else content)

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, path: str, order: object, **headers: str) -> Answer:
        body = order if isinstance(order, bytes) else json.dumps(order).encode()
        return self.ask("POST", path, body, **{"content_type": "application/json"} | headers)


@pytest.fixture(scope="module")
def port(desk: Desk) -> Iterator[int]:
    """The routes behind a real server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routes, "desk", lambda: desk)
        app = Starlette(routes=[*ROUTES, Route("/", front)], middleware=[Middleware(Visitors)])
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
        thread = threading.Thread(target=server.run)
        thread.start()
        until(lambda: server.started)
        yield server.servers[0].sockets[0].getsockname()[1]
        server.should_exit = True
        thread.join()


@pytest.fixture
def owner(port: int) -> Client:
    return Client(port, VISITOR)


@pytest.fixture
def stranger(port: int) -> Client:
    return Client(port, OTHER)


@pytest.fixture
def far(port: int) -> Client:
    """The owner at another computer, as far as the server can tell."""
    return Client(port, VISITOR, "127.0.0.9")


def scan_of(desk: Desk, study: str) -> Scan:
    scan = desk.scan(study, VISITOR)
    assert scan is not None
    return scan


def result_of(desk: Desk, study: str) -> Result:
    result = desk.result(study, VISITOR, 1)
    assert result is not None
    return result


def addresses(study: str) -> list[str]:
    """Every address of a study that answers something."""
    base = f"/medseg/study/{study}"
    return [
        f"{base}/volume",
        f"{base}/small.nii",
        f"{base}/first.png",
        f"{base}/slice.png?plane=axial&index=3&low=0&high=80&run=1",
        f"{base}/at?x=7&y=-11&z=23&run=1",
        f"{base}/surface/scan/bone.mz3",
        f"{base}/run/1/mask",
        f"{base}/run/1/file/mask.nii.gz",
        f"{base}/run/1/file/all.zip",
    ]


def test_a_browser_is_told_apart_by_a_cookie_that_no_script_reads(port: int) -> None:
    cookie = Client(port).get("/", accept="text/html").headers["set-cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=Lax", "Path=/"))
    assert "Secure" not in cookie
    given = cookie.partition(";")[0].partition("=")[2]
    assert visitor_in({COOKIE: given}) == given
    assert Client(port, given).get("/", accept="text/html").headers["set-cookie"].startswith(f"{COOKIE}={given};")
    assert given not in Client(port).get("/", accept="text/html").headers["set-cookie"]
    assert "set-cookie" not in Client(port).get(f"/medseg/viewer/{asset_version()}/viewer.css").headers


def test_who_looks_at_a_study_in_one_tab_all_day_keeps_the_cookie(
    port: int, owner: Client, stranger: Client, study: str
) -> None:
    answers = [owner.get(address) for address in addresses(study)]
    answers.append(owner.post(f"/medseg/study/{study}/run/1/edit", {"op": "open"}))
    page = Client(port, VISITOR).get("/", accept="text/html")
    assert {answer.headers["set-cookie"] for answer in answers} == {page.headers["set-cookie"]}
    for client in (stranger, Client(port)):
        assert "set-cookie" not in client.get(addresses(study)[0]).headers


@pytest.mark.parametrize("value", ["", "short", "x" * 31, "x" * 33, "ä" * 32, "../" * 11])
def test_a_cookie_that_is_not_ours_names_nobody(value: str) -> None:
    assert visitor_in({COOKIE: value}) == ""


def test_everything_of_a_study_is_its_owners_alone(port: int, owner: Client, stranger: Client, study: str) -> None:
    for address in addresses(study):
        answer = owner.get(address)
        assert answer.status == 200, address
        assert answer.headers["cache-control"] == "no-store"
        assert stranger.get(address).status == NOT_THERE, address
        assert Client(port).get(address).status == NOT_THERE, address
        assert owner.get(address.replace(study, "x" * 22)).status == NOT_THERE, address


def test_the_volume_and_the_mask_are_those_of_the_scan(owner: Client, far: Client, desk: Desk, study: str) -> None:
    scan, base = scan_of(desk, study), f"/medseg/study/{study}"
    for client, packing in ((owner, None), (far, "gzip")):
        answer = client.get(f"{base}/volume")
        sent = np.frombuffer(answer.content, "<f2")
        assert (sent.reshape(scan.shape, order="F") == scan.hu()).all()
        assert answer.headers.get("content-encoding") == packing
    mask = np.frombuffer(owner.get(f"{base}/run/1/mask").content, np.uint8)
    assert (mask.reshape(scan.shape, order="F") == result_of(desk, study).mask()).all()


def test_hu_and_organ_are_those_of_the_full_volume(owner: Client, desk: Desk, study: str) -> None:
    scan, mask = scan_of(desk, study), result_of(desk, study).mask()
    rng = np.random.default_rng(3)
    for voxel in rng.integers(0, scan.shape, (20, 3)):
        x, y, z = (scan.affine @ [*voxel, 1])[:3]
        answer = owner.get(f"/medseg/study/{study}/at?x={x}&y={y}&z={z}&run=1").json()
        assert answer["voxel"] == voxel.tolist()
        assert answer["hu"] == scan.hu()[tuple(voxel)]
        assert answer["organ"] == mask[tuple(voxel)]
    assert owner.get(f"/medseg/study/{study}/at?x=1e6&y=0&z=0").json() == {"inside": False}


@pytest.mark.parametrize(
    "tail",
    [
        "at?x=1&y=2",
        "at?x=a&y=2&z=3",
        "slice.png?plane=up&index=1&low=0&high=1",
        "slice.png?plane=axial",
        "slice.png?plane=axial&index=1&low=nan&high=80",
    ],
)
def test_nonsense_is_refused(owner: Client, study: str, tail: str) -> None:
    assert owner.get(f"/medseg/study/{study}/{tail}").status == 400


@pytest.mark.parametrize(
    "tail",
    ["run/2/mask", "run/1/file/scan.json", "run/1/file/..%2Fscan.json", "run/1/file/page", "surface/1/x.mz3",
     "surface/scan/2.mz3", "run/1/preview", "run/1/export/exe", f"run/1/difference/{'y' * 22}/1"],
)  # fmt: skip
def test_what_is_not_offered_is_not_there(owner: Client, study: str, tail: str) -> None:
    assert owner.get(f"/medseg/study/{study}/{tail}").status == NOT_THERE


def test_downloads_are_the_files_of_the_result_under_names_of_their_own(owner: Client, desk: Desk, study: str) -> None:
    result = result_of(desk, study)
    for name in ("mask.nii.gz", "measurements.csv", "run.json", "preview.png"):
        answer = owner.get(f"/medseg/study/{study}/run/1/file/{name}")
        assert answer.content == (result.folder / name).read_bytes()
        assert f'filename="tissue-hu_{study[:8]}_1_{name}"' in answer.headers["content-disposition"]
    packed = zipfile.ZipFile(io.BytesIO(owner.get(f"/medseg/study/{study}/run/1/file/all.zip").content))
    assert packed.read("measurements.csv") == (result.folder / "measurements.csv").read_bytes()


def test_an_export_is_asked_for_and_fetched(owner: Client, stranger: Client, study: str) -> None:
    address = f"/medseg/study/{study}/run/1/export/seg.nrrd?lang=en"
    assert owner.get(address).status == NOT_THERE
    assert stranger.post(address, {}).status == NOT_THERE
    until(lambda: owner.post(address, {}).json()["state"] == "done")
    answer = owner.get(address)
    assert answer.content.startswith(b"NRRD")
    assert f"tissue-hu_{study[:8]}_1_seg-nrrd.seg.nrrd" in answer.headers["content-disposition"]


def test_what_changes_something_is_asked_for_by_this_page_alone(owner: Client, study: str) -> None:
    address, order = f"/medseg/study/{study}/run/1/edit", {"op": "open"}
    assert owner.get(address).status == 405
    assert owner.post(address, order, content_type="text/plain").status == 403
    assert owner.post(address, order, sec_fetch_site="cross-site").status == 403
    assert owner.post(address, order, sec_fetch_site="same-origin").status == 200
    assert owner.post(address, b" " * (1 << 21)).status == 413


def test_a_draft_is_shown_to_who_draws_it(owner: Client, desk: Desk, study: str) -> None:
    base = f"/medseg/study/{study}"
    result, scan = result_of(desk, study), scan_of(desk, study)
    bone = next(row.value for row in result.organs if row.name == "bone")
    order = {"op": "paint", "value": bone, "points": [[24, 30, 18]], "radius_mm": 6, "protect": False}
    assert owner.post(f"{base}/run/1/edit", order).json()["voxels"] > 0
    drafted = np.frombuffer(owner.get(f"{base}/run/1/mask?draft=1").content, np.uint8)
    assert drafted.reshape(scan.shape, order="F")[24, 30, 18] == bone
    x, y, z = (scan.affine @ [24, 30, 18, 1])[:3]
    at = f"{base}/at?x={x}&y={y}&z={z}&run=1"
    assert owner.get(f"{at}&draft=1").json()["organ"] == bone
    assert owner.get(at).json()["organ"] == result.mask()[24, 30, 18] != bone
    owner.post(f"{base}/run/1/edit", {"op": "discard"})


def test_a_difference_is_made_between_ones_own_results_alone(
    owner: Client, desk: Desk, study: str, tmp_path: Path
) -> None:
    run(desk, study)
    answer = owner.get(f"/medseg/study/{study}/run/1/difference/{study}/2")
    assert answer.status == 200
    assert not any(answer.content)
    theirs = desk.take_path(write_nifti(tmp_path / "theirs.nii.gz", phantom_volume()), OTHER)
    run(desk, theirs, visitor=OTHER)
    assert owner.get(f"/medseg/study/{study}/run/1/difference/{theirs}/1").status == NOT_THERE


def test_the_program_is_kept_by_browsers_under_a_name_that_changes_with_it(owner: Client) -> None:
    for name in ("viewer.js", "viewer.css", "THIRD_PARTY_LICENSES.txt", "font.ttf"):
        answer = owner.get(f"/medseg/viewer/{asset_version()}/{name}")
        assert answer.status == 200
        assert "immutable" in answer.headers["cache-control"]
    assert owner.get(f"/medseg/viewer/{asset_version()}/viewer.js").content == (ASSETS / "viewer.js").read_bytes()
    assert owner.get(f"/medseg/viewer/{asset_version()}/routes.py").status == NOT_THERE
