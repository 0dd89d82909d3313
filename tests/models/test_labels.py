"""Label tables: names, values, colours, titles, sides."""

from __future__ import annotations

import pytest

from medseg.errors import ConfigError
from medseg.labels import KNOWN, Label, LabelTable

NAMES = {"brainstem": 1, "parotid_gland_right": 3, "parotid_gland_left": 4, "kidney_right": 7}


def test_a_table_from_names_knows_colours_and_codes() -> None:
    table = LabelTable.from_names(NAMES)
    assert table.names == NAMES
    assert len(table) == 4
    assert [label.value for label in table] == [1, 3, 4, 7]
    assert (table["brainstem"].colour, table["brainstem"].snomed) == KNOWN["brainstem"]
    assert (table["kidney_right"].colour, table["kidney_right"].snomed) == ((200, 200, 200), "")


def test_titles_are_what_people_read() -> None:
    titles = [label.title for label in LabelTable.from_names(NAMES)]
    assert titles == ["Brainstem", "Parotid gland, right", "Parotid gland, left", "Kidney, right"]
    assert Label("spinal_cord", 2).title == "Spinal cord"


def test_pairs_trade_places_only_where_both_are_there() -> None:
    assert LabelTable.from_names(NAMES).mirror_pairs() == [(3, 4)]


def test_labels_come_in_order_of_their_values_and_survive_json() -> None:
    table = LabelTable([Label("b", 9, (1, 2, 3), "77"), Label("a", 2)])
    again = LabelTable.from_json(table.to_json())
    assert again.labels == table.labels
    assert [label.name for label in again] == ["a", "b"]


@pytest.mark.parametrize("names", [{"a": 0}, {"a": 256}, {"a": -1}])
def test_values_fit_a_byte_and_leave_zero_free(names: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"1 \.\.\. 255"):
        LabelTable.from_names(names)


@pytest.mark.parametrize("rows", [[Label("a", 1), Label("a", 2)], [Label("a", 1), Label("b", 1)]])
def test_nothing_stands_twice(rows: list[Label]) -> None:
    with pytest.raises(ConfigError, match="twice"):
        LabelTable(rows)


def test_an_organ_that_is_not_there_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="liver"):
        LabelTable.from_names(NAMES)["liver"]


def test_known_colours_can_be_told_apart() -> None:
    organs = [
        "brainstem",
        "spinal_cord",
        "parotid_gland_right",
        "parotid_gland_left",
        "esophagus",
        "larynx",
        "mandible",
    ]
    assert len({KNOWN[organ][0] for organ in organs}) == 7
