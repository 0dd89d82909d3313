"""The routes beside Streamlit's own: the viewer's program, volumes, values, strokes and files.

Every study's route asks for the visitor's cookie and answers "not there" to anybody else. Nothing is kept by
browsers, nothing is reached from other sites, and what changes something is asked for by POST from this page alone.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from app.desk import archives, desk
from app.edits import edit
from app.results import FILES
from app.scans import Scan
from app.slices import slice_png
from app.studies import TaskView
from app.visitors import cookie_of, visitor_in

ASSETS = Path(__file__).parent / "viewer" / "static"
FONT = Path(__file__).parents[1] / "medseg" / "exports" / "fonts" / "NotoSansSC-Regular-subset.ttf"
PREFIX = "/medseg"
_PRIVATE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_FOREVER = {"Cache-Control": "public, max-age=31536000, immutable"}
_TYPES = {".js": "text/javascript", ".css": "text/css", ".txt": "text/plain; charset=utf-8", ".ttf": "font/ttf"}
_NOT_THERE = 404
_WAIT_S, _STEP_S = 25.0, 0.1
_MAX_BODY = 1 << 20
SIDES = (48, 64, 96, 128, 160)

Handler = Callable[[Request, str, str], Awaitable[Response]]


@lru_cache
def asset_version() -> str:
    """Changes when the bundle changes: browsers may keep a version for ever."""
    digest = hashlib.sha256()
    for path in (ASSETS / "viewer.js", ASSETS / "viewer.css"):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


async def _asset(request: Request) -> Response:
    name = request.path_params["name"]
    path = {"font.ttf": FONT}.get(name, ASSETS / name)
    if name not in ("viewer.js", "viewer.css", "THIRD_PARTY_LICENSES.txt", "font.ttf") or not path.is_file():
        return Response(status_code=_NOT_THERE)
    return FileResponse(path, media_type=_TYPES[path.suffix], headers=_FOREVER)


def _owned(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """Only for the visitor whose study it is; the cookie then lives on with the study (`Desk.view` touches it)."""

    async def guarded(request: Request) -> Response:
        study, visitor = request.path_params["study"], visitor_in(request.cookies)
        if not visitor or (await run_in_threadpool(desk().view, study, visitor)).phase == "gone":
            return Response(status_code=_NOT_THERE, headers=_PRIVATE)
        if request.method == "POST" and not _from_here(request):
            return Response(status_code=403, headers=_PRIVATE)
        answer = await handler(request, study, visitor)
        answer.headers.append("set-cookie", cookie_of(visitor, request.url.scheme))
        return answer

    return guarded


def _from_here(request: Request) -> bool:
    """A page of another site may make a browser send a POST; it cannot make it say that it came from here."""
    return request.headers.get("sec-fetch-site", "same-origin") == "same-origin" and request.headers.get(
        "content-type", ""
    ).startswith("application/json")


def _is_near(request: Request) -> bool:
    return request.client is not None and request.client.host in ("127.0.0.1", "::1")


def _scan(study: str, visitor: str) -> Scan | None:
    return desk().scan(study, visitor)


async def _volume(request: Request, study: str, visitor: str) -> Response:
    """HU as half floats, slice by slice; packed for those who are far away."""
    scan = await run_in_threadpool(_scan, study, visitor)
    if scan is None:
        return Response(status_code=_NOT_THERE, headers=_PRIVATE)
    slices, headers = scan.half_floats(), dict(_PRIVATE)
    if not _is_near(request) and "gzip" in request.headers.get("accept-encoding", ""):
        slices, headers["Content-Encoding"] = _packed(slices), "gzip"
    else:
        headers["Content-Length"] = str(2 * scan.shape[0] * scan.shape[1] * scan.shape[2])
    return StreamingResponse(_stream(slices), media_type="application/octet-stream", headers=headers)


def _packed(parts: Iterator[bytes]) -> Iterator[bytes]:
    engine = zlib.compressobj(1, wbits=31)
    for part in parts:
        yield engine.compress(part)
    yield engine.flush()


async def _stream(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    async for part in iterate_in_threadpool(parts):
        yield part


async def _small(request: Request, study: str, visitor: str) -> Response:
    scan = await run_in_threadpool(_scan, study, visitor)
    side = min(SIDES, key=lambda known: abs(known - _integer(request, "side", 64)))
    if scan is None:
        return Response(status_code=_NOT_THERE, headers=_PRIVATE)
    content = await run_in_threadpool(scan.small_copy, side)
    return Response(content, media_type="application/octet-stream", headers=_PRIVATE)


async def _first(request: Request, study: str, visitor: str) -> Response:
    path = await run_in_threadpool(desk().first_picture, study, visitor)
    if path is None:
        return Response(status_code=_NOT_THERE, headers=_PRIVATE)
    return FileResponse(path, media_type="image/png", headers=_PRIVATE)


async def _slice(request: Request, study: str, visitor: str) -> Response:
    """A slice drawn here, for browsers without WebGL."""
    scan, number = await run_in_threadpool(_scan, study, visitor), _integer(request, "run", 0)
    if scan is None:
        return Response(status_code=_NOT_THERE, headers=_PRIVATE)
    result = await run_in_threadpool(desk().result, study, visitor, number) if number else None
    try:
        content = await run_in_threadpool(slice_png, scan, result, dict(request.query_params))
    except (KeyError, ValueError):
        return Response(status_code=400, headers=_PRIVATE)
    return Response(content, media_type="image/png", headers=_PRIVATE)


async def _at(request: Request, study: str, visitor: str) -> Response:
    """HU and organ of the voxel at a place in mm, asked of the full-resolution volume and mask."""
    scan = await run_in_threadpool(_scan, study, visitor)
    try:
        x, y, z = (float(request.query_params[axis]) for axis in "xyz")
        number, is_draft = _integer(request, "run", 0), request.query_params.get("draft") == "1"
        voxel = None if scan is None else scan.voxel_at((x, y, z))
    except (KeyError, ValueError, OverflowError):
        return Response(status_code=400, headers=_PRIVATE)
    if scan is None or voxel is None:
        return JSONResponse({"inside": False}, headers=_PRIVATE)
    answer: dict[str, Any] = {"inside": True, "voxel": voxel, "hu": int(scan.hu()[voxel])}
    mask = await run_in_threadpool(_mask_of, study, visitor, number, is_draft)
    if mask is not None:
        answer["organ"] = int(mask[voxel])
    return JSONResponse(answer, headers=_PRIVATE)


def _mask_of(study: str, visitor: str, number: int, is_draft: bool) -> Any:
    if is_draft and (draft := desk().corrections.draft(study, visitor, number)) is not None:
        return draft.mask()
    result = desk().result(study, visitor, number) if number else None
    return None if result is None else result.mask()


async def _mask(request: Request, study: str, visitor: str) -> Response:
    """The mask as bytes, first axis fastest; of a draft where there is one to be gone on with."""
    number, is_draft = int(request.path_params["run"]), request.query_params.get("draft") == "1"
    mask = await run_in_threadpool(_mask_of, study, visitor, number, is_draft)
    return await _bytes_of(mask)


async def _preview(request: Request, study: str, visitor: str) -> Response:
    """The mask of the coarse result that is shown while the full one is made."""
    result = await run_in_threadpool(desk().preview, study, visitor, int(request.path_params["run"]))
    return await _bytes_of(None if result is None else result.mask())


async def _bytes_of(mask: Any) -> Response:
    if mask is None:
        return Response(status_code=_NOT_THERE, headers=_PRIVATE)
    # Masks are nearly constant: level 1 leaves a hundredth.
    content = await run_in_threadpool(lambda: gzip.compress(mask.tobytes(order="F"), 1, mtime=0))
    headers = _PRIVATE | {"Content-Encoding": "gzip"}
    return Response(content, media_type="application/octet-stream", headers=headers)


async def _settled(ask: Callable[[], TaskView]) -> TaskView:
    """An errand's end, or how it stands when patience is over."""
    task = await run_in_threadpool(ask)
    for _ in range(int(_WAIT_S / _STEP_S)):
        if task.state not in ("queued", "running"):
            break
        await asyncio.sleep(_STEP_S)
        task = await run_in_threadpool(ask)
    return task


async def _surface(request: Request, study: str, visitor: str) -> Response:
    run, name = request.path_params["run"], request.path_params["name"]
    number = None if run == "scan" else int(run)
    if not (name == "bone" if number is None else name.isdecimal()):
        return Response(status_code=_NOT_THERE, headers=_PRIVATE)
    task = await _settled(partial(desk().errands.surfaces, study, visitor, number))
    if task.state in ("queued", "running"):
        return Response(status_code=202, headers=_PRIVATE)
    path = task.folder / f"{name}.mz3"
    if task.state != "done" or not path.is_file():
        return Response(status_code=_NOT_THERE, headers=_PRIVATE)
    return FileResponse(path, media_type="application/octet-stream", headers=_PRIVATE)


async def _difference(request: Request, study: str, visitor: str) -> Response:
    """The map of what differs from another result."""
    params = request.path_params
    number, other, other_number = int(params["run"]), params["other"], int(params["other_run"])
    view = await run_in_threadpool(desk().view, other, visitor)
    if view.phase == "gone":
        return Response(status_code=_NOT_THERE, headers=_PRIVATE)
    task = await _settled(partial(desk().errands.compare, study, visitor, number, other, other_number))
    if task.state != "done":
        return Response(status_code=202 if task.state in ("queued", "running") else _NOT_THERE, headers=_PRIVATE)
    mask = await run_in_threadpool(_load, task.folder / "difference.npy")
    return await _bytes_of(mask)


def _load(path: Path) -> Any:
    import numpy as np

    return np.load(path, mmap_mode="r")


async def _file(request: Request, study: str, visitor: str) -> Response:
    """A file of the result; `all.zip` is all of them."""
    number, name = int(request.path_params["run"]), request.path_params["name"]
    result = await run_in_threadpool(desk().result, study, visitor, number)
    if result is None or name not in (*FILES, "all.zip"):
        return Response(status_code=_NOT_THERE, headers=_PRIVATE)
    # No two studies share a name: a file on somebody's disk says where it came from.
    stem = f"{result.model}_{study[:8]}_{number}"
    if name == "all.zip":
        content = await run_in_threadpool(result.archive)
        return Response(content, media_type="application/zip", headers=_PRIVATE | _attached(f"{stem}.zip"))
    return FileResponse(result.folder / name, headers=_PRIVATE | _attached(f"{stem}_{name}"))


def _attached(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}


async def _export(request: Request, study: str, visitor: str) -> Response:
    """POST asks for a format, and how it stands; GET fetches the file."""
    from app.downloads import EXPORTS, file_name

    params = request.path_params
    number, name = int(params["run"]), params["format"]
    language = "zh" if request.query_params.get("lang") == "zh" else "en"
    result = await run_in_threadpool(desk().result, study, visitor, number)
    if result is None or name not in EXPORTS:
        return Response(status_code=_NOT_THERE, headers=_PRIVATE)
    again = request.query_params.get("again") == "1"
    task = await run_in_threadpool(partial(desk().errands.export, study, visitor, number, name, language, again=again))
    if request.method == "POST":
        return JSONResponse(_standing(task), headers=_PRIVATE)
    found = sorted(path for path in task.folder.iterdir() if path.is_file()) if task.state == "done" else []
    if not found:
        return Response(status_code=_NOT_THERE, headers=_PRIVATE)
    attached = _attached(file_name(result, study, number, name, found[0]))
    return FileResponse(found[0], media_type="application/octet-stream", headers=_PRIVATE | attached)


def _standing(task: TaskView) -> dict[str, Any]:
    problem = task.problem
    return {
        "state": task.state,
        "fraction": task.fraction,
        "message": problem.message if problem else "",
        "advice": problem.advice if problem else "",
        "code": problem.code if problem else "",
    }


async def _edit(request: Request, study: str, visitor: str) -> Response:
    body = await request.body()
    if len(body) > _MAX_BODY:
        return Response(status_code=413, headers=_PRIVATE)
    number = int(request.path_params["run"])
    answer, status = await run_in_threadpool(edit, desk(), study, visitor, number, body)
    return JSONResponse(answer, status_code=status, headers=_PRIVATE)


async def _thumbnail(request: Request) -> Response:
    """The picture of a study that a search has found, for who has searched."""
    number, rank = request.path_params["answer"], request.path_params["rank"]
    path = await run_in_threadpool(archives().thumbnail, visitor_in(request.cookies), number, rank)
    if path is None:
        return Response(status_code=_NOT_THERE, headers=_PRIVATE)
    return FileResponse(path, media_type="image/png", headers=_PRIVATE)


def _integer(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, "")
    return int(text) if text.isdecimal() and len(text) < 9 else default


_STUDY = f"{PREFIX}/study/{{study}}"
_RUN = f"{_STUDY}/run/{{run:int}}"
ROUTES = [
    Route(f"{PREFIX}/viewer/{{version}}/{{name}}", _asset),
    Route(f"{PREFIX}/found/{{answer}}/{{rank:int}}.png", _thumbnail),
    Route(f"{_STUDY}/volume", _owned(_volume)),
    Route(f"{_STUDY}/small.nii", _owned(_small)),
    Route(f"{_STUDY}/first.png", _owned(_first)),
    Route(f"{_STUDY}/slice.png", _owned(_slice)),
    Route(f"{_STUDY}/at", _owned(_at)),
    Route(f"{_STUDY}/surface/{{run}}/{{name}}.mz3", _owned(_surface)),
    Route(f"{_RUN}/mask", _owned(_mask)),
    Route(f"{_RUN}/preview", _owned(_preview)),
    Route(f"{_RUN}/difference/{{other}}/{{other_run:int}}", _owned(_difference)),
    Route(f"{_RUN}/file/{{name}}", _owned(_file)),
    Route(f"{_RUN}/export/{{format}}", _owned(_export), methods=["GET", "POST"]),
    Route(f"{_RUN}/edit", _owned(_edit), methods=["POST"]),
]
