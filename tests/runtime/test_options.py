"""What a command line may wish of the engine."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from medseg.errors import ConfigError
from medseg.runtime.options import Options, parse_memory_mb


@pytest.mark.parametrize(
    ("text", "wanted_mb"),
    [("4GB", 4096), ("1.5 GiB", 1536), ("900MB", 900), ("900", 900), ("2g", 2048), (" 512 mib ", 512)],
)
def test_memory_is_read_as_people_write_it(text: str, wanted_mb: float) -> None:
    assert parse_memory_mb(text) == wanted_mb


@pytest.mark.parametrize("text", ["", "lots", "-4GB", "0", "4TBB", "1e3MB", "4 GB 2"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no amount of memory"):
        parse_memory_mb(text)


def test_the_environment_chooses_where_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDSEG_BACKEND", "openvino")
    assert Options().backend == Options.asked(None, "auto", None).backend == "openvino"
    assert Options.asked("torch", "fp32", "2GB") == Options("torch", "fp32", 2048)
    monkeypatch.delenv("MEDSEG_BACKEND")
    assert Options().backend == "auto"
    assert Options().way == ""
    assert Options("torch").way == "torch auto"
    assert Options(localiser="quick", probabilities=("b", "a")).way == "localiser quick probabilities a,b"
    assert Options("torch", accept="phantom, by hand").way == "torch auto accept phantom, by hand"


def test_options_survive_the_way_to_another_process() -> None:
    asked = Options.asked(None, "fp32", "2GB", "quick", "phantom", "mandible, brainstem mandible")
    assert asked.probabilities == ("mandible", "brainstem")
    assert Options.from_json(json.loads(json.dumps(asdict(asked)))) == asked
    assert hash(asked.engine) == hash(Options(asked.backend, "fp32"))
