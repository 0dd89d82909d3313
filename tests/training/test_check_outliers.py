"""Sizes and densities of one organ over many cases: what stands apart, and what does not."""

from __future__ import annotations

import pytest

from medseg.training.check_outliers import strange_densities, strange_sizes

PAROTIDS_ML = (16.2, 19.8, 21.1, 23.0, 24.4, 26.7, 28.9, 31.5, 38.0)


def cases(*sizes: float) -> list[dict[str, float]]:
    return [{"parotid_gland_left": ml, "mandible": 60.0} for ml in sizes]


def test_patients_differ_and_that_is_no_fault() -> None:
    assert strange_sizes(cases(*PAROTIDS_ML)) == []


def test_a_stump_and_a_giant_are_named_with_the_median() -> None:
    assert strange_sizes(cases(*PAROTIDS_ML, 2.0)) == [(9, "parotid_gland_left", 2.0, 23.7)]
    assert strange_sizes(cases(*PAROTIDS_ML, 28.9, 400.0)) == [(10, "parotid_gland_left", 400.0, 26.7)]


def test_where_all_are_alike_less_than_twice_is_no_fault() -> None:
    alike = cases(*[20.0] * 8)
    assert strange_sizes([*alike, *cases(11.0)]) == []
    assert strange_sizes([*alike, *cases(9.0)]) == [(8, "parotid_gland_left", 9.0, 20.0)]


def test_an_organ_that_sizes_differ_in_by_nature_is_let_be() -> None:
    """A cord's volume goes with the scan's length."""
    assert strange_sizes([{"spinal_cord": ml} for ml in (5.0, 8.0, 12.0, 20.0, 30.0, 45.0, 60.0, 80.0)]) == []


def test_few_cases_tell_nothing() -> None:
    assert strange_sizes(cases(20.0, 20.0, 20.0, 1.0)) == []


CORDS_HU = (-24.0, -16.0, 4.0, 8.0, 12.0, 12.0, 16.0, 20.0, 36.0)


@pytest.mark.parametrize("hu", [252.0, -448.0], ids=["bone", "air"])
def test_a_contour_beside_its_organ_is_named_by_what_it_holds(hu: float) -> None:
    scans = [{"spinal_cord": one} for one in (*CORDS_HU, hu)]
    assert [(case, found) for case, _, found, _ in strange_densities(scans)] == [(9, hu)]


def test_contrast_agent_is_no_fault() -> None:
    assert strange_densities([{"parotid_gland_left": hu} for hu in (*[-30.0] * 8, 60.0)]) == []


def test_an_organ_of_all_densities_is_let_be() -> None:
    """A larynx holds now more and now less air."""
    assert strange_densities([{"larynx": hu} for hu in (-300.0, -200, -150, -60, -20, 0, 20, 40, 60)]) == []
