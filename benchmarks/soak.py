"""Soak: sixteen visitors who speak the page's protocol and two browsers, each study with a planted body of its own.

    PYTHONPATH=. python benchmarks/soak.py --minutes 30 --out benchmarks/results/soak.json

Starts the page on a free port. Then every visitor hands in a scan, waits, reads the result, tries a stranger's study by
its true address, deletes, and begins anew, with scans of 24³ to 144³ voxels. No two bodies have the same volume, which
is known from how they were planted: another volume, another's name or another's study is a crossing. An upload that
becomes no result is lost, whatever the reason. The end is orderly: who has begun may finish for five minutes more.

The exit code is 0 where nothing crossed, nothing was lost, nothing failed and memory is bounded (its median over the
last fifth is at most a quarter above that after the warm-up, the first quarter of the time). Beside the result lies
a picture of memory and queue over time (`soak.png`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests

from benchmarks.soaking.visits import Guests, Visit, visit_by_browser, visit_by_protocol
from benchmarks.soaking.watch import Sample, draw, memory, over_time, watch
from medseg.imaging.emit import emit_json
from medseg.runtime.provenance import machine, now, versions

ROOT = Path(__file__).resolve().parents[1]
PAGE = [sys.executable, "-m", "streamlit", "run", "app/server.py", "--server.headless", "true", "--server.port"]
# One person at one address is sixteen here: the limit on starts within a minute would turn most of them away.
LIMITS = {"MEDSEG_MAX_STARTS_PER_MINUTE": "100000"}
START_S = 120


@contextlib.contextmanager
def page(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The page on a free port, its words in `server.log`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    work = folder / "work"
    work.mkdir()
    environment = os.environ | LIMITS | {"TMPDIR": str(work)}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen([*PAGE, str(port)], cwd=ROOT, env=environment, stdout=log, stderr=log)
    base, end = f"http://127.0.0.1:{port}", time.monotonic() + START_S
    try:
        while time.monotonic() < end:
            with contextlib.suppress(requests.ConnectionError):
                if requests.get(f"{base}/_stcore/health", timeout=5).ok:
                    break
            time.sleep(0.5)
        yield base, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(60)


def run(asked: argparse.Namespace) -> dict[str, Any]:
    """Let everybody work, and count."""
    with tempfile.TemporaryDirectory() as name, page(Path(name)) as (base, server):
        opened = time.monotonic()
        guests = Guests(base, opened + 60 * asked.minutes)
        names = [(visit_by_protocol, f"client {n}") for n in range(asked.clients)]
        names += [(visit_by_browser, f"browser {n}") for n in range(asked.browsers)]
        threads = [threading.Thread(target=visit, args=(guests, who), name=who) for visit, who in names]
        for thread in threads:
            thread.start()
        samples = watch(server, Path(name) / "work", guests, threads)
        log = (Path(name) / "server.log").read_text(errors="replace")
    found = report(asked, guests.visits, samples, log)
    if asked.out:
        title = f"{found['handed in']} studies of {asked.clients} clients and {asked.browsers} browsers"
        draw(asked.out.with_suffix(".png"), samples, guests.visits, opened, title)
    return found


def report(asked: argparse.Namespace, visits: list[Visit], samples: list[Sample], log: str) -> dict[str, Any]:
    """All that the soak has to answer."""
    fates = Counter(visit.fate for visit in visits)
    taken = [visit for visit in visits if visit.fate != "busy"]
    held = memory(samples)
    found = {
        "command": f"PYTHONPATH=. python benchmarks/soak.py --minutes {asked.minutes:g}",
        "date": now(),
        "minutes": asked.minutes,
        "clients": asked.clients,
        "browsers": asked.browsers,
        "handed in": len(visits),
        "handed in by browsers": sum(visit.visitor.startswith("browser") for visit in visits),
        "sizes": dict(sorted(Counter(f"{visit.side}^3" for visit in taken).items())),
        "right": fates["right"],
        "crossed": fates["crossed"],
        "lost": sum(visit.done_s is None for visit in taken),
        "busy": fates["busy"],
        "errors": {kind: count for kind, count in fates.items() if kind not in ("right", "crossed", "busy")},
        "error words": sorted(
            {f"{one.visitor}, {one.scan}: {one.fate}: {one.words}" for one in visits if one.fate != "right"}
        )[:20],
        "tracebacks in the log": log.count("Traceback (most recent call last)"),
        "last words of the log": log.splitlines()[-15:] if "Traceback" in log else [],
        "queue_s": _spread([v.began_s - v.asked_s for v in visits if v.began_s is not None and v.asked_s is not None]),
        "reading_s": _spread([visit.read_s for visit in visits if visit.read_s is not None]),
        "until_result_s": _spread([visit.done_s for visit in visits if visit.done_s is not None]),
        "memory": held,
        "over time": over_time(samples, asked.minutes),
        "versions": versions(),
        "machine": machine(),
    }
    return found | {"passed": _passed(found)}


def _passed(found: dict[str, Any]) -> bool:
    clean = not (found["crossed"] or found["lost"] or found["errors"] or found["tracebacks in the log"])
    return bool(clean and found["right"] and found["memory"]["is_bounded"])


def _spread(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    p50, p95 = np.percentile(values, (50, 95))
    return {"p50": round(float(p50), 1), "p95": round(float(p95), 1), "most": round(max(values), 1)}


def main() -> int:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--browsers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="where the result goes; the picture lies beside it")
    asked = parser.parse_args()
    found = run(asked)
    if asked.out:
        emit_json(asked.out, found)
    print(json.dumps({key: value for key, value in found.items() if key not in ("versions", "machine")}, indent=1))
    return 0 if found["passed"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
