"""Models that stay loaded: once per process, and again when a package has changed."""

from __future__ import annotations

from functools import lru_cache

from medseg.errors import ConfigError
from medseg.inference.localise import LocalisedSegmenter
from medseg.inference.segmenter import NetworkSegmenter, Segmenter, build_segmenter
from medseg.models.store import ModelPackage, load_model
from medseg.runtime.options import Options


def warm_segmenter(name: str, options: Options | None = None) -> tuple[ModelPackage, Segmenter]:
    """Package and segmenter of a model, behind its localiser where the options name one.

    Raises:
        ModelError: the model or the localiser is unknown, damaged or altered.
        ConfigError: a backend or precision that does not exist here, or a localiser that cannot be one.
    """
    options = options or Options()
    package, segmenter = _loaded(name, options)
    if options.localiser is None:
        return package, segmenter
    quick, full = _with_network(*_loaded(options.localiser, options)), _with_network(package, segmenter)
    return package, LocalisedSegmenter(quick, full)


def _with_network(package: ModelPackage, segmenter: Segmenter) -> NetworkSegmenter:
    if isinstance(segmenter, NetworkSegmenter):
        return segmenter
    raise ConfigError(f"Model {package.card.id} has no network: it is no localiser and needs none.", advice="")


def _loaded(name: str, options: Options) -> tuple[ModelPackage, Segmenter]:
    return _warm(name, load_model(name).sha256, options.engine)


@lru_cache(maxsize=4)
def _warm(name: str, sha256: str, engine: Options) -> tuple[ModelPackage, Segmenter]:
    package = load_model(name)
    return package, build_segmenter(package, engine)
