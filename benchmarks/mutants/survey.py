"""Run the tests once under a tracer: which test reaches which line of which module. Written as JSON."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import coverage
import pytest

from benchmarks.mutants.watch import HOME, Watch


def main(out: Path, modules: list[str], tests: list[str]) -> None:
    """Trace, run, write."""
    watch = Watch()
    paths = [str(HOME / module) for module in modules]
    watch.tracer = coverage.Coverage(data_file=None, include=paths, config_file=False)
    watch.tracer.start()
    for module in modules:  # so that what runs at import counts for no test, and is tried by all of its module
        importlib.import_module(module.removesuffix(".py").replace("/", "."))
    pytest.main([*OPTIONS, *tests], plugins=[watch])
    watch.tracer.stop()
    data, failed = watch.tracer.get_data(), set(watch.failed)
    reached = {
        module: {
            str(line): [test for test in found if test in watch.passed and test not in failed]
            for line, found in data.contexts_by_lineno(path).items()
        }
        for module, path in zip(modules, paths, strict=True)
    }
    seconds = {test: round(s, 3) for test, s in watch.passed.items() if test not in failed}
    out.write_text(json.dumps({"seconds": seconds, "left_out": sorted(failed), "reached": reached}))


OPTIONS = [
    "-q",
    "--assert=plain",
    "-n0",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:randomly",
    "-m",
    "not slow and not real and not browser",
]

if __name__ == "__main__":
    asked = json.loads(sys.argv[2])
    main(Path(sys.argv[1]), asked["modules"], asked["tests"])
