"""Names of organs: words of any script, and sides in all the ways that people write them."""

from __future__ import annotations

import pytest

from medseg.labels import LabelTable
from medseg.sides import tidy


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("Left Kidney", "kidney_left"),
        ("kidney_right", "kidney_right"),
        ("Parotid_L", "parotid_left"),
        ("R-Femur head", "femur_head_right"),
        ("Parotid Lt", "parotid_left"),
        ("LtParotid", "parotid_left"),
        ("RightLung", "lung_right"),
        ("lungL", "lung_left"),
        ("parotide droite", "parotide_right"),
        ("Niere links", "niere_left"),
        ("L-Spine", "l_spine"),
        ("liver", "liver"),
        ("left", "left"),
        ("GTVn", "gtvn"),
        ("SpinalCord", "spinalcord"),
        ("lung upper lobe left", "lung_upper_lobe_left"),
        ("Rückenmark", "ruckenmark"),
        ("Lèvre inf", "levre_inf"),
        ("脊髓", "脊髓"),
        ("뇌 R", "뇌_right"),
        ("ガン", "ガン"),
        ("--- ", ""),
    ],
)
def test_organs_are_named_so_that_pairs_are_found(name: str, ours: str) -> None:
    assert tidy(name) == ours


@pytest.mark.parametrize("name", ["parotid_lt", "LungL", "lung_left_upper", "rein gauche"])
def test_a_side_without_its_partner_is_seen(name: str) -> None:
    assert LabelTable.from_names({name: 1, "l_spine": 2, "droplet": 3}).unpaired() == [name]
