"""The store with planted vectors: what is found, what is refused, and what is gone when it is deleted."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lancedb")
from medseg.errors import ConfigError, DataError, ModelError, NoScanError, OutputError
from vlretrieval.archive import writing
from vlretrieval.store import Store, StoreInfo, reading
from vlretrieval.study import Entry, Study, Vectors

DIM = 16
INFO = StoreInfo("toy@1", "organs@1", DIM, organs=("spleen", "parotid_gland_right"))


def tag(number: int) -> str:
    """A word of its own for each study: numbers are words by themselves."""
    return "tag" + "".join(chr(ord("a") + int(digit)) for digit in str(number))


def entry(number: int, vector: np.ndarray, patient: str = "", **study: object) -> Entry:
    values = {"text": f"Study {tag(number)}x.", "measures": {"spleen_ml": 100.0 + number}} | study
    made = Study(f"id{number}", patient or f"patient{number}", f"name{number}", f"/scans/{number}", **values)  # type: ignore[arg-type]
    return Entry(made, Vectors(vector, {"spleen": -vector}), words=f"hidden{tag(number)}", facts=f"metal=v{number % 3}")


def planted(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, DIM))
    return list((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store.create(tmp_path / "archive", INFO)
    made.add([entry(n, v) for n, v in enumerate(planted(12), 1)])
    return made


def test_the_nearest_are_found_with_and_without_a_filter(store: Store) -> None:
    vectors = planted(12)
    found = store.nearest(vectors[4], 3)
    assert found.keys[0] == 5
    assert found.scores[0] == pytest.approx(1, abs=1e-6)
    assert (np.diff(found.scores) <= 0).all()
    truth = np.argsort([-vectors[4] @ v for v in vectors])[:3] + 1
    assert found.keys.tolist() == truth.tolist()
    allowed = store.nearest(vectors[4], 12, "spleen_ml > 108")
    assert set(allowed.keys.tolist()) == {9, 10, 11, 12}
    assert store.nearest(vectors[4], 1, organ="spleen").scores[0] < 1
    assert store.nearest(-vectors[4], 1, organ="spleen").keys[0] == 5
    assert len(store.nearest(vectors[4], 3, "spleen_ml > 999")) == 0


@pytest.mark.parametrize("limit", [200_000, 0])
def test_vectors_of_studies_come_in_the_order_of_their_keys(
    store: Store, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "EXACT_UP_TO", limit)  # 0: as where an index was made and nothing lies in memory
    monkeypatch.setattr(reading, "has_index", lambda *_: True)
    vectors = planted(12)
    found = store.wholes(np.array([9, 2, 12]))
    assert np.allclose(found, np.stack([vectors[8], vectors[1], vectors[11]]), atol=1e-6)


def test_studies_come_back_as_they_were(store: Store) -> None:
    study = store.studies([7])[0]
    assert (study.id, study.patient, study.name, study.path, study.key) == ("id7", "patient7", "name7", "/scans/7", 7)
    assert study.measures == {"spleen_ml": 107}
    assert store.studies([3, 99, 1])[0].key == 3
    assert store.studies([]) == []
    assert np.allclose(store.vectors(7).organs["spleen"], -planted(12)[6], atol=1e-6)
    with pytest.raises(DataError, match="no study 99"):
        store.vectors(99)


def test_words_facts_and_measures(store: Store) -> None:
    store.tidy()
    assert store.by_words(f"{tag(7)}x", 5).keys.tolist() == [7]
    assert store.by_words(f"hidden{tag(3)}", 5).keys.tolist() == [3]
    assert store.by_words(f"{tag(7)}x", 5, "spleen_ml > 108").keys.tolist() == []
    assert len(store.by_words("the of", 5)) == 0
    assert set(store.by_facts("metal=v1", 20).keys.tolist()) == {1, 4, 7, 10}
    assert store.by_measure("spleen_ml", 2).keys.tolist() == [12, 11]
    assert store.by_measure("spleen_ml", 2, "spleen_ml > 103", largest=False).keys.tolist() == [4, 5]


def test_a_new_process_finds_the_same(store: Store) -> None:
    again = Store.open(store.uri)
    assert len(again) == 12
    assert again.info == store.info
    assert again.pseudonym("Doe") == store.pseudonym("Doe")
    assert again.nearest(planted(12)[4], 1).keys[0] == 5
    Store.create(store.uri, INFO)  # the same models: no complaint, nothing lost
    assert len(Store.open(store.uri)) == 12


def test_a_reader_sees_what_was_added_since(store: Store) -> None:
    new = planted(1, 99)[0]
    assert store.nearest(new, 1).keys[0] != 13
    store.add([entry(13, new)])
    assert store.nearest(new, 1).keys[0] == 13
    assert store.by_words(f"{tag(13)}x", 5).keys.tolist() == [13]


def test_the_same_scan_again_replaces_the_first(store: Store) -> None:
    store.add([entry(5, planted(1, 99)[0], text="Other words.")])
    assert len(store) == 12
    (key,) = store.keys("id = 'id5'")
    assert store.studies([key])[0].text == "Other words."
    assert len(store.nearest(-planted(1, 99)[0], 99, organ="spleen")) == 12


@pytest.mark.parametrize("change", [{"encoder": "toy@2"}, {"segmenter": "organs@2"}, {"dim": 8}])
def test_vectors_of_two_models_are_never_mixed(store: Store, change: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="cannot be mixed"):
        Store.create(store.uri, replace(INFO, **change))  # type: ignore[arg-type]
    assert len(store) == 12


@pytest.mark.parametrize("vector", [np.zeros(DIM), np.full(DIM, np.nan), np.ones(DIM - 1)])
def test_a_vector_that_is_none_is_refused(store: Store, vector: np.ndarray) -> None:
    with pytest.raises(DataError, match="are wanted"):
        store.add([entry(20, vector)])
    assert len(store) == 12


def bytes_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_a_deleted_patient_leaves_no_bytes(tmp_path: Path) -> None:
    """Names, words, picture and vectors of the patient are in no file: not in data, indices, versions or logs."""
    store = Store.create(tmp_path / "archive", INFO)
    vectors = planted(9)
    picture = b"PNG" + np.random.default_rng(5).bytes(400)
    for n, v in enumerate(vectors, 1):  # several files, each with neighbours
        more = {"thumbnail": picture, "report": "Zebrafinchsyndrome."} if n in (4, 8) else {}
        store.add([entry(n, v, "zaphod" if n in (4, 8) else "", **more)])
    store.tidy()
    store.build_index()
    store.by_words(f"{tag(4)}x", 3)
    words = [f"{tag(4)}x".encode(), f"hidden{tag(4)}".encode()]
    traces = [b"zaphod", b"name4", *words, b"ebrafinchsyndrom", picture, vectors[3].tobytes()]
    before = bytes_of(tmp_path)
    assert all(trace in before for trace in traces), [t[:20] for t in traces if t not in before]
    removed = store.delete_patient("zaphod")
    assert (removed.studies, removed.organs) == (2, 2)
    after = bytes_of(tmp_path)
    traces += [(-vectors[3]).tobytes(), vectors[7].tobytes(), b"name8"]
    assert not [trace[:20] for trace in traces if trace in after]
    assert len(store) == len(Store.open(store.uri)) == 7
    assert store.by_words(f"{tag(5)}x", 3).keys.tolist() == [5]
    assert store.by_words(f"{tag(4)}x", 3).keys.tolist() == []
    assert store.nearest(vectors[3], 9).scores[0] < 0.999
    assert store.delete_patient("zaphod").studies == 0


def test_organs_without_a_study_are_nobodys(store: Store) -> None:
    """A writer that was killed between its two tables left organs of a study that never came."""
    from vlretrieval.store.schema import organ_rows

    lost = entry(13, planted(1, 99)[0])
    store._organs.add(organ_rows(INFO, [lost], 13))
    store.add([entry(14, planted(1, 98)[0])])
    found = store.nearest(-planted(1, 99)[0], 99, organ="spleen")
    assert found.scores[0] < 0.999
    assert len(found) == 13


@contextmanager
def disk_full(largest: int) -> Iterator[None]:
    """Files that grow beyond this many bytes fail, as on a disk that is nearly full."""
    limit, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))


@pytest.fixture
def illustrated(tmp_path: Path) -> Store:
    """Studies with pictures, the fourth Zaphod's; one gone of twelve in a file is too few for the file to be packed."""
    made = Store.create(tmp_path / "archive", INFO)
    picture = np.random.default_rng(5).bytes
    entries = [entry(n, v, "zaphod" if n == 4 else "", thumbnail=picture(50_000)) for n, v in enumerate(planted(12), 1)]
    made.add(entries)
    made.tidy()
    return made


def traces_of_zaphod(store: Store) -> list[bytes]:
    folder = Path(store.uri)
    held = bytes_of(folder)
    traces = [b"zaphod", b"name4", f"{tag(4)}x".encode(), planted(12)[3].tobytes(), (-planted(12)[3]).tobytes()]
    return [trace for trace in traces if trace in held]


def test_a_deletion_that_the_disk_did_not_bear_is_finished_by_the_next_writer(illustrated: Store) -> None:
    assert len(traces_of_zaphod(illustrated)) == 5
    with disk_full(100_000), pytest.raises(OutputError, match="could not be written"):
        illustrated.delete_patient("zaphod")
    assert len(illustrated.keys("patient = 'zaphod'")) == 0
    assert traces_of_zaphod(illustrated)
    again = Store.open(illustrated.uri)
    assert again.finish() == 1
    assert traces_of_zaphod(again) == []
    assert again.finish() == 0
    assert len(again) == 11
    assert again.by_words(f"{tag(5)}x", 3).keys.tolist() == [5]


def test_a_deletion_that_was_killed_between_its_tables_is_finished(illustrated: Store) -> None:
    illustrated._owe(np.array([4]), purge=True)
    illustrated._studies.delete("key = 4")
    again = Store.create(illustrated.uri, INFO)
    assert traces_of_zaphod(again) == []
    assert len(again.nearest(-planted(12)[3], 99, organ="spleen")) == 11


def test_organs_that_an_older_version_left_of_a_deleted_study_go(illustrated: Store) -> None:
    illustrated._studies.delete("key = 4")  # and killed, without a note of it
    again = Store.create(illustrated.uri, INFO)
    assert traces_of_zaphod(again) == []
    assert len(again.nearest(-planted(12)[3], 99, organ="spleen")) == 11


def test_a_number_that_is_to_go_is_not_given_again(illustrated: Store) -> None:
    illustrated._owe(np.array([12]), purge=True)
    illustrated._studies.delete("key = 12")
    assert illustrated.add([entry(13, planted(1, 99)[0])]) == [13]
    illustrated.finish()
    assert illustrated.keys().tolist() == [*range(1, 12), 13]


def test_a_note_that_nobody_can_read_costs_no_study(illustrated: Store) -> None:
    illustrated._studies.delete("key = 4")
    (Path(illustrated.uri) / "unfinished.json").write_text("{")
    again = Store.create(illustrated.uri, INFO)
    assert traces_of_zaphod(again) == []
    assert len(again) == 11
    assert not (Path(illustrated.uri) / "unfinished.json").exists()


def test_another_scan_under_the_same_path_replaces_the_first(illustrated: Store) -> None:
    """And no byte of the first is left when the patient is deleted."""
    new = entry(40, planted(1, 99)[0], "zaphod")
    illustrated.add([replace(new, study=replace(new.study, path="/scans/4"))])
    assert sorted(illustrated.rows("path")).count(("/scans/4",)) == 1
    assert len(illustrated.keys("id = 'id4'")) == 0
    illustrated.delete_patient("zaphod")
    assert traces_of_zaphod(illustrated) == []
    assert len(illustrated) == 11


def test_another_report_and_patient_are_stored_and_found(illustrated: Store) -> None:
    illustrated.amend({4: {"report": "It's a zebrafinch sign.", "patient": "ford"}, 99: {"report": "Nobody."}})
    (study,) = illustrated.studies([4])
    assert (study.report, study.patient, study.name) == ("It's a zebrafinch sign.", "ford", "name4")
    assert illustrated.by_words("zebrafinch", 5).keys.tolist() == [4]
    assert illustrated.by_words(f"hidden{tag(4)}", 5).keys.tolist() == [4]
    illustrated.amend({4: {"report": "Goitre."}})
    assert illustrated.by_words("zebrafinch", 5).keys.tolist() == []
    assert np.allclose(illustrated.vectors(4).organs["spleen"], -planted(12)[3], atol=1e-6)
    illustrated.delete_patient("ford")
    assert traces_of_zaphod(illustrated) == []
    assert b"ebrafinch" not in bytes_of(Path(illustrated.uri))


def test_nothing_else_is_taken_for_an_archive(tmp_path: Path) -> None:
    with pytest.raises(NoScanError, match="holds no archive"):
        Store.open(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    (tmp_path / "file").write_text("words")
    with pytest.raises(DataError, match="is a file"):
        Store.open(tmp_path / "file")
    with pytest.raises(NoScanError, match="holds no archive"):
        Store.open(tmp_path / "file" / "typo")
    with pytest.raises(OutputError, match="could not be written"):
        Store.create(tmp_path / "file" / "typo", INFO)
    import lancedb
    import pyarrow as pa

    lancedb.connect(str(tmp_path / "other")).create_table("studies", pa.table({"key": [1]}))
    with pytest.raises(DataError, match="no archive of this program"):
        Store.open(tmp_path / "other")


def test_one_writer_at_a_time(store: Store) -> None:
    with writing(store.uri), pytest.raises(OutputError, match="in use"), writing(store.uri):
        pass
    with writing("s3://bucket/archive"):
        pass


def test_everything_can_be_taken_elsewhere(store: Store, tmp_path: Path) -> None:
    from pyarrow import parquet

    studies, organs = (parquet.read_table(path) for path in store.export_parquet(tmp_path / "out"))
    assert studies.num_rows == organs.num_rows == 12
    assert np.allclose(studies["vector"][2].as_py(), planted(12)[2], atol=1e-6)


def test_the_index_finds_nearly_what_exact_search_finds(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "archive", INFO)
    vectors = planted(2000)
    store.add([entry(n, v) for n, v in enumerate(vectors, 1)])
    store.build_index()
    queries = planted(20, 7)
    exact = [set(store.nearest(q, 10, exact=True).keys.tolist()) for q in queries]
    quick = [set(store.nearest(q, 10, exact=False).keys.tolist()) for q in queries]
    assert np.mean([len(a & b) / 10 for a, b in zip(exact, quick, strict=True)]) >= 0.95
    passed = store.nearest(queries[0], 10, "spleen_ml > 1000", exact=False)
    assert passed.keys.min() > 900
    assert store.nearest(-queries[0], 5, "spleen_ml > 1000", organ="spleen", exact=False).keys.min() > 900


def test_a_missing_library_is_named_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(ConfigError, match="needs lancedb") as refused:
        Store.open(tmp_path)
    assert "medseg[retrieval]" in refused.value.advice
