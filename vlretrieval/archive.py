"""An archive and what made it: opened for writing under a lock, or for searching with the same encoder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medseg.errors import ConfigError, ModelError
from medseg.jobs.lock import folder_lock
from medseg.runtime.options import Options
from medseg.runtime.progress import ProgressCallback
from vlretrieval.encoder import Encoder
from vlretrieval.intake import Seen, look_at, segmenter_id
from vlretrieval.measured import MeasuredEncoder
from vlretrieval.search import Searcher
from vlretrieval.store import Store, StoreInfo

ARCHIVE = "VLRETRIEVAL_ARCHIVE"
MEASURED = "measured"


def archive_uri(given: str | None) -> str:
    """The archive that is named, or $VLRETRIEVAL_ARCHIVE.

    Raises:
        ConfigError: neither.
    """
    uri = given or os.environ.get(ARCHIVE)
    if not uri:
        raise ConfigError("No archive is named.", advice=f"Give --archive FOLDER, or set ${ARCHIVE}.")
    return uri


def load_encoder(model: str, organs: tuple[str, ...]) -> Encoder:
    """`measured`, or a trained model by name or folder.

    Raises:
        ModelError: no such model, or damaged.
    """
    if model.partition("@")[0] == MEASURED:
        return MeasuredEncoder(organs)
    from vlretrieval.encode import LearnedEncoder  # torch and transformers take seconds
    from vlretrieval.package import load_package

    return LearnedEncoder(load_package(model))


@contextmanager
def writing(uri: str) -> Iterator[None]:
    """One writer at a time, where the archive is a folder.

    Raises:
        OutputError: another process is writing.
    """
    if "://" in uri:
        yield
        return
    with folder_lock(Path(uri)):
        yield


def create_archive(uri: str, *, segmenter: str, model: str = MEASURED) -> tuple[Store, Encoder]:
    """A new archive, or the one that is there if the same models made it.

    Raises:
        ModelError: a model is unknown, or others made the archive.
        DataError: something else is there.
    """
    seen_by, labels = segmenter_id(segmenter)
    organs = tuple(labels.names)
    encoder = load_encoder(model, organs)
    info = StoreInfo(encoder.id, seen_by, encoder.dim, encoder.features, organs)
    return Store.create(uri, info), encoder


def open_archive(uri: str, model: str = "") -> Searcher:
    """An archive to be searched.

    Args:
        uri: folder, or address on object storage.
        model: name or folder of the encoder; the one that the archive names if empty.

    Raises:
        NoScanError: there is no archive.
        ModelError: its encoder is not installed, or another one was given.
    """
    store = Store.open(uri)
    return Searcher(store, load_encoder(model or store.info.encoder.partition(":")[0], store.info.organs))


def segmenter_of(store: Store) -> str:
    """Name of the segmenter that the archive was made with.

    Raises:
        ModelError: it is not installed, or only in another version.
    """
    name = store.info.segmenter.partition("@")[0]
    here, _ = segmenter_id(name)
    if here != store.info.segmenter:
        raise ModelError(
            f"The archive's organs were found by {store.info.segmenter}; here is {here}.",
            advice="Install that version, or index anew into another folder.",
        )
    return name


def look_like_archive(
    path: Path,
    store: Store,
    *,
    series: str | int | None = None,
    options: Options | None = None,
    progress: ProgressCallback | None = None,
) -> Seen:
    """Look at a scan with the segmenter that the archive was made with.

    Raises:
        ModelError: that segmenter is not installed.
        InputError: the scan cannot be used.
    """
    return look_at(path, segmenter=segmenter_of(store), series=series, options=options, progress=progress)
