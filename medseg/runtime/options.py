"""How to compute, as the user may wish it. Passed from the door to the engine; knows nothing itself."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Any

from medseg.errors import ConfigError

AUTO = "auto"
_UNITS_MB = {"": 1.0, "M": 1.0, "MB": 1.0, "MIB": 1.0, "G": 1024.0, "GB": 1024.0, "GIB": 1024.0}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


@dataclass(frozen=True)
class Options:
    """How a study is computed.

    Attributes:
        backend: 'torch', 'onnxruntime', 'tensorrt', 'openvino', or 'auto'; $MEDSEG_BACKEND where nothing is asked.
        precision: 'fp32', 'bf16', 'fp16', 'int8', or 'auto'.
        max_memory_mb: what the process may take at most, in MiB; None keeps to what is free, as far as that goes.
        localiser: name or folder of a quick model that finds where the organs are, so that the other one works only
            there; None works on the whole body.
        accept: the user's reason to go on with what is no CT or holds no Hounsfield units; '' refuses it.
        neighbours: processes that compute at the same time and share what is free, this one included.
        probabilities: organs whose probability is wanted at every voxel, not the label alone; 'all' is every organ.
    """

    backend: str = field(default_factory=lambda: os.environ.get("MEDSEG_BACKEND", AUTO))
    precision: str = AUTO
    max_memory_mb: float | None = None
    localiser: str | None = None
    accept: str = ""
    neighbours: int = 1
    probabilities: tuple[str, ...] = ()

    @property
    def way(self) -> str:
        """What a result depends on, as asked for: backend, precision, localiser, probabilities, what was accepted."""
        how = [] if (self.backend, self.precision) == (AUTO, AUTO) else [self.backend, self.precision]
        how += [] if self.localiser is None else ["localiser", self.localiser]
        how += ["probabilities", ",".join(sorted(self.probabilities))] if self.probabilities else []
        how += ["accept", self.accept] if self.accept else []
        return " ".join(how)

    @property
    def engine(self) -> Options:
        """Only what a loaded network depends on: backend and precision."""
        return Options(self.backend, self.precision)

    @classmethod
    def asked(
        cls,
        backend: str | None,
        precision: str,
        max_memory: str | None,
        localiser: str | None = None,
        accept: str | None = None,
        probabilities: str = "",
    ) -> Options:
        """The options of a command line.

        Raises:
            ConfigError: `max_memory` is no size, or `accept` says nothing.
        """
        limit = None if max_memory is None else parse_memory_mb(max_memory)
        if accept is not None and not accept.strip():
            raise ConfigError("--accept needs a reason.", advice='Write it as --accept "phantom, HU checked by hand".')
        organs = tuple(dict.fromkeys(part for part in re.split(r"[,\s]+", probabilities) if part))
        return cls(backend or cls().backend, precision, limit, localiser, accept or "", probabilities=organs)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Options:
        """What `dataclasses.asdict` made of options, after a way through JSON."""
        return cls(**values | {"probabilities": tuple(values["probabilities"])})


def parse_memory_mb(text: str) -> float:
    """'4GB', '1.5 GiB' or '900MB' -> MiB (memory is counted in powers of two); a bare number is MiB.

    Raises:
        ConfigError: no size, or none that a program could run in.
    """
    match = _SIZE.fullmatch(text)
    unit = None if match is None else _UNITS_MB.get(match[2].upper())
    if match is None or unit is None or float(match[1]) <= 0:
        raise ConfigError(f"{text!r} is no amount of memory.", advice="Write it as 4GB or 900MB.")
    return float(match[1]) * unit
