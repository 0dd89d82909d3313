"""What people type, taken apart."""

from __future__ import annotations

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pyarrow")
from medseg.errors import ConfigError
from vlretrieval.query import Query, parse_query
from vlretrieval.store import StoreInfo

RIGHT, LEFT = "parotid_gland_right", "parotid_gland_left"
INFO = StoreInfo("toy@1", "organs@1", 4, organs=(RIGHT, LEFT, "spleen", "mandible"))


def parse(text: str) -> Query:
    return parse_query(text, INFO)


@pytest.mark.parametrize(
    ("text", "sql", "rest"),
    [
        ("spleen > 300 ml", "(spleen_ml > 300)", "spleen"),
        ("spleen > 0.3 l", "(spleen_ml > 300)", "spleen"),
        ("spleen of more than 300 cc", "(spleen_ml > 300)", "spleen of"),
        ("脾脏大于300毫升", "(spleen_ml > 300)", "脾脏"),
        ("right parotid >= 30 ml", f"({RIGHT}_ml >= 30)", "right parotid"),
        ("parotid > 30 ml", f"({RIGHT}_ml > 30 OR {LEFT}_ml > 30)", "parotid"),
        ("parotid on the left < 20 ml", f"({LEFT}_ml < 20)", "parotid on the left"),
        ("mandible ≥ 600 HU", "(mandible_hu >= 600)", "mandible"),
        ("slice thickness <= 3 mm", "(slice_mm <= 3)", ""),
        ("scan length over 30 cm", "(length_mm > 300)", ""),
    ],
)
def test_filters(text: str, sql: str, rest: str) -> None:
    found = parse(text)
    assert found.filters[0].sql().replace("≥", ">=") == sql
    assert found.text.startswith(rest)
    assert str(found.filters[0])


def test_two_filters_and_words() -> None:
    found = parse("spleen > 300 ml, slice thickness <= 3 mm, effusion")
    assert [str(condition) for condition in found.filters] == ["spleen > 300 ml", "slice <= 3 mm"]
    assert "effusion" in found.text
    assert "3 mm" not in found.text


def test_words_that_only_sound_like_a_filter_stay_words() -> None:
    found = parse("mass over 5 cm in the thigh")
    assert found.filters == ()
    assert "over 5 cm" in found.text
    assert found.regions == ("limb",)


def test_what_is_not_measured_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="'liver'") as refused:
        parse("liver > 2 l")
    assert "spleen" in refused.value.advice
    with pytest.raises(ConfigError, match="what is compared"):
        parse("> 30")


@pytest.mark.parametrize(
    ("text", "organs", "absent"),
    [
        ("parotid", ((RIGHT, LEFT),), ()),
        ("right parotid", ((RIGHT,),), ()),
        ("左侧腮腺", ((LEFT,),), ()),
        ("no spleen", (), (("spleen",),)),
        ("without the right parotid", (), ((RIGHT,),)),
        ("parotid without metal", ((RIGHT, LEFT),), ()),
        ("无脾", (), (("spleen",),)),
    ],
)
def test_organs_that_have_to_be_there_or_not(text: str, organs: tuple[object, ...], absent: tuple[object, ...]) -> None:
    found = parse(text)
    assert (found.organs, found.absent) == (organs, absent)


def test_what_has_to_be_there_as_sql() -> None:
    where = parse("head with right parotid, no spleen").where()
    assert where == (
        f"(array_has(organs, '{RIGHT}')) AND NOT (array_has(organs, 'spleen')) AND (array_has(regions, 'head_neck'))"
    )
    assert parse("hello").where() is None


def test_an_organ_that_the_segmenter_does_not_know_is_said() -> None:
    assert parse("liver and spleen").unknown == ("liver",)
    assert parse("liver and spleen").organs == (("spleen",),)


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("enlarged right parotid", (((RIGHT,), "large"),)),
        ("the spleen is small", ((("spleen",), "small"),)),
        ("spleen of normal size", ()),
        ("large head, spleen", ()),
        ("脾脏增大", ((("spleen",), "large"),)),
    ],
)
def test_sizes_belong_to_their_organ(text: str, sizes: tuple[object, ...]) -> None:
    assert parse(text).sizes == sizes


def test_facts_are_read_from_sentences() -> None:
    assert parse("heavy dental metal").facts == {"metal": "heavy"}
    assert parse("qwertz").facts == {}
