"""Which archive is meant, and whose vectors may go into it."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("lancedb")
from medseg.errors import ModelError
from vlretrieval.archive import archive_uri, create_archive, writing
from vlretrieval.model import VLModel
from vlretrieval.package import RetrievalCard, write_package
from vlretrieval.text_encoder import VOCABULARY


def test_a_home_is_the_same_for_data_and_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("VLRETRIEVAL_ARCHIVE", "~/a")
    monkeypatch.chdir(tmp_path)
    uri = archive_uri(None)
    assert uri == str(tmp_path / "a")
    with writing("~/a"):
        create_archive(uri, segmenter="tissue-hu")
    assert {path.name for path in (tmp_path / "a").iterdir()} == {".medseg-batch.lock", "organs.lance", "studies.lance"}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert archive_uri("s3://bucket/~a") == "s3://bucket/~a"


@pytest.mark.parametrize(("seen_by", "fits"), [("tissue-hu", True), ("head-neck-oar", False)])
def test_a_model_is_refused_that_was_trained_with_another_segmenter(tmp_path: Path, seen_by: str, fits: bool) -> None:
    card = RetrievalCard(
        name="toy", version="1", title="", description="", licence="", segmenter=seen_by, organs=["body"], embed_dim=256
    )
    write_package(tmp_path / "toy", VLModel.small(("body",), vocabulary=VOCABULARY), card, VOCABULARY)
    if fits:
        create_archive(str(tmp_path / "a"), segmenter="tissue-hu", model=str(tmp_path / "toy"))
        return
    with pytest.raises(ModelError, match="organs that head-neck-oar finds; here tissue-hu@") as refused:
        create_archive(str(tmp_path / "a"), segmenter="tissue-hu", model=str(tmp_path / "toy"))
    assert "--segmenter head-neck-oar" in refused.value.advice
    assert not (tmp_path / "a").exists()
