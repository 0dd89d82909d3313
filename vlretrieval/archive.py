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
from vlretrieval.store import Store, StoreInfo, folder_of

ARCHIVE = "VLRETRIEVAL_ARCHIVE"
MEASURED = "measured"


def archive_uri(given: str | None) -> str:
    """The archive that is named, or $VLRETRIEVAL_ARCHIVE; `~` is expanded.

    Raises:
        ConfigError: neither.
    """
    uri = given or os.environ.get(ARCHIVE)
    if not uri:
        raise ConfigError("No archive is named.", advice=f"Give --archive FOLDER, or set ${ARCHIVE}.")
    return str(folder_of(uri) or uri)


def load_encoder(model: str, organs: tuple[str, ...]) -> Encoder:
    """`measured`, or a trained model by name or folder.

    Raises:
        ModelError: no such model, or damaged.
    """
    if _is_measured(model):
        return MeasuredEncoder(organs)
    from vlretrieval.encode import LearnedEncoder  # torch and transformers take seconds
    from vlretrieval.package import load_package

    return LearnedEncoder(load_package(model))


def _is_measured(model: str) -> bool:
    return model.partition("@")[0] == MEASURED


@contextmanager
def writing(uri: str) -> Iterator[None]:
    """One writer at a time, where the archive is a folder.

    Raises:
        OutputError: another process is writing.
    """
    folder = folder_of(uri)
    if folder is None:
        yield
        return
    with folder_lock(folder):
        yield


def create_archive(uri: str, *, segmenter: str, model: str = MEASURED) -> tuple[Store, Encoder]:
    """A new archive, or the one that is there if the same models made it.

    Raises:
        ModelError: a model is unknown, was trained with another segmenter, or others made the archive.
        DataError: something else is there.
    """
    seen_by, labels = segmenter_id(segmenter)
    organs = tuple(labels.names)
    encoder = load_encoder(model, organs)
    _check_segmenter(model, encoder.id, seen_by)
    info = StoreInfo(encoder.id, seen_by, encoder.dim, encoder.features, organs)
    return Store.create(uri, info), encoder


def _check_segmenter(model: str, encoder: str, seen_by: str) -> None:
    """Refuse a trained model that learned to see another segmenter's organs: its vectors would mean nothing."""
    if _is_measured(model):
        return
    from vlretrieval.package import load_package

    wanted = load_package(model).card.segmenter
    if not _means(wanted, seen_by):
        raise ModelError(
            f"The model {encoder} was trained on organs that {wanted} finds; here {seen_by} is to find them.",
            advice=f"Index with --segmenter {wanted}, or with --model {MEASURED}, which takes any.",
        )


def _means(name: str, segmenter: str) -> bool:
    """Whether a name, name@version or folder is that of the segmenter `segmenter` (name@version:digest)."""
    if name in (segmenter.partition("@")[0], segmenter.partition(":")[0]):
        return True
    try:
        return segmenter_id(name)[0] == segmenter
    except ModelError:
        return False


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
