"""Measures with a limit: how comparisons are said, whose they are, and how numbers are written."""

from __future__ import annotations

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pyarrow")
from medseg.errors import ConfigError
from tests.vlretrieval.test_query import LEFT, RIGHT, parse

SPLEEN, SLICE = "spleen_ml", "slice_mm"


def limits(text: str) -> list[str]:
    return [condition.sql().strip("()") for condition in parse(text).filters]


@pytest.mark.parametrize(
    ("comparison", "sign"),
    [
        *((words, "<=") for words in ("不大于", "不多于", "不高于", "不超过", "至多", "小于等于", "小于或等于")),
        *((words, ">=") for words in ("不小于", "不低于", "不少于", "至少", "大于等于", "大于或等于")),
        *((words, ">") for words in ("大于", "超过", "高于")),
        *((words, "<") for words in ("小于", "不足", "低于")),
    ],
)
def test_comparisons_in_chinese(comparison: str, sign: str) -> None:
    assert limits(f"脾脏{comparison}300毫升") == [f"{SPLEEN} {sign} 300"]
    assert limits(f"层厚{comparison}3毫米") == [f"{SLICE} {sign} 3"]


@pytest.mark.parametrize(
    ("comparison", "sign"),
    [
        *((f"{no} {than}", "<=") for no in ("no", "not") for than in ("more than", "larger than", "greater than")),
        *((f"{no} {than}", ">=") for no in ("no", "not") for than in ("less than", "smaller than")),
        *((words, "<=") for words in ("not exceeding", "at most", "up to", "less than or equal to", "not over")),
        *((words, ">=") for words in ("at least", "greater than or equal to", "not below")),
        *((words, ">") for words in ("more than", "exceeding", "over")),
        ("less than", "<"),
    ],
)
def test_comparisons_in_english(comparison: str, sign: str) -> None:
    assert limits(f"spleen {comparison} 300 ml") == [f"{SPLEEN} {sign} 300"]
    assert limits(f"Slice Thickness {comparison.upper()} 3 mm, spleen") == [f"{SLICE} {sign} 3"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("层厚不得大于3毫米", "不得大于3毫米"),
        ("脾脏没有大于300毫升", "没有大于300毫升"),
        ("spleen not > 300 ml", "not > 300 ml"),
        ("spleen isn't over 300 ml", "n't over 300 ml"),
        ("spleen must not be over 300 ml", "not be over 300 ml"),
        ("no spleen over 300 ml", "no spleen over 300 ml"),
        ("无脾脏大于300毫升", "无脾脏大于300毫升"),
        ("no slice thickness > 3 mm", "no slice thickness > 3 mm"),
    ],
)
def test_a_denied_limit_is_refused_and_not_turned_round(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match="denied") as refused:
        parse(text)
    assert repr(named)[1:-1] in refused.value.message
    assert "at least" in refused.value.advice


@pytest.mark.parametrize("text", ["mass not over 5 cm in the thigh", "没有大于5厘米的肿块", "no more than 3 nodules"])
def test_a_denied_comparison_that_is_no_limit_stays_words(text: str) -> None:
    assert limits(text) == []
    assert parse(text).text == text


@pytest.mark.parametrize(
    ("text", "sql", "rest"),
    [
        ("scan length > 20 cm, slice thickness <= 3 mm", ["length_mm > 200", f"{SLICE} <= 3"], ""),
        ("slice thickness <= 1 mm, field of view > 40 cm", [f"{SLICE} <= 1", "field_mm > 400"], ""),
        ("扫描长度>30厘米，层厚≤1毫米，脾脏增大", ["length_mm > 300", f"{SLICE} <= 1"], "脾脏增大"),
        ("slice thickness <= 3, enlarged parotid", [f"{SLICE} <= 3"], "enlarged parotid"),
        ("slice thickness <= 3, > 1, mass in the thigh", [f"{SLICE} <= 3", f"{SLICE} > 1"], "mass in the thigh"),
        ("slice thickness > 1 mm and <= 3 mm in the thigh", [f"{SLICE} > 1", f"{SLICE} <= 3"], "in the thigh"),
        ("spleen > 300 ml and < 500 ml", [f"{SPLEEN} > 300", f"{SPLEEN} < 500"], "spleen and"),
        ("spleen > 300 ml and slice thickness <= 3 mm", [f"{SPLEEN} > 300", f"{SLICE} <= 3"], "spleen and"),
        ("slice thickness of the spleen <= 3 mm", [f"{SLICE} <= 3"], ""),
        ("more than 300 ml of enlarged spleen", [f"{SPLEEN} > 300"], "of enlarged spleen"),
        ("大于30毫升的右侧腮腺", [f"{RIGHT}_ml > 30"], "的右侧腮腺"),
        ("slice_mm <= 3, field_mm > 400", [f"{SLICE} <= 3", "field_mm > 400"], ""),
    ],
)
def test_a_limit_belongs_to_what_stands_nearest(text: str, sql: list[str], rest: str) -> None:
    assert limits(text) == sql
    assert parse(text).text == rest


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("slice thickness <= 3 mm, spleen > 12 cm", "spleen is not measured in cm"),
        ("slice thickness <= 3 ml", "slice is not measured in ml"),
        ("slice thickness <= 3 mm and mass > 5 cm", "what is compared"),
        ("mass > 30 ml in the spleen", "what is compared"),
        ("> 30, spleen", "what is compared"),
        ("spleen < 100 ml or > 500 ml", "what is compared"),
    ],
)
def test_a_limit_of_nothing_that_is_measured_so_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as refused:
        parse(text)
    assert refused.value.advice


@pytest.mark.parametrize(
    ("number", "limit"),
    [
        ("1,500 ml", "1500"),
        ("1,500.5 ml", "1500.5"),
        ("1,5 ml", "1.5"),
        ("1.5 ml", "1.5"),
        ("0,500 ml", "0.5"),
        ("1,500 l", "1.5e+06"),
        ("30 cm³", "30"),
        ("30 cm3", "30"),
        ("30cm³", "30"),
        ("30立方厘米", "30"),
    ],
)
def test_numbers_and_cubes(number: str, limit: str) -> None:
    assert limits(f"spleen > {number}") == [f"{SPLEEN} > {limit}"]
    assert limits(f"脾脏>{number}, effusion") == [f"{SPLEEN} > {limit}"]


def test_a_number_that_can_be_read_in_two_ways_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'1\.500,5' cannot be read"):
        parse("spleen > 1.500,5 ml")


def test_signs_need_no_blank() -> None:
    assert limits("spleen>300ml,mandible>=600HU") == [f"{SPLEEN} > 300", "mandible_hu >= 600"]


@pytest.mark.parametrize(
    ("text", "sql"),
    [
        ("parotid_gland_right > 30 ml", f"{RIGHT}_ml > 30"),
        ("parotid_gland_left_ml > 30", f"{LEFT}_ml > 30"),
        ("right_parotid > 30 ml", f"{RIGHT}_ml > 30"),
        ("mandible_hu >= 600", "mandible_hu >= 600"),
        ("right enlarged parotid > 30 ml", f"{RIGHT}_ml > 30"),
    ],
)
def test_limits_of_label_names_keep_their_side(text: str, sql: str) -> None:
    assert limits(text) == [sql]
