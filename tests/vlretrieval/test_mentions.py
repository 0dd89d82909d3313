"""Organs and parts of the body: which are wanted, which are denied, and what only sounds like one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("lancedb")
from tests.vlretrieval.test_query import INFO, LEFT, RIGHT, parse
from vlretrieval.store import Store
from vlretrieval.study import Entry, Study, Vectors

HEAD, CHEST, ABDOMEN = "head_neck", "thorax", "abdomen"
BOTH = (RIGHT, LEFT)


@pytest.mark.parametrize(
    ("text", "parts", "absent"),
    [
        ("abdomen, no thorax", ((ABDOMEN,),), (CHEST,)),
        ("parotid without chest", (), (CHEST,)),
        ("head CT, not the chest", ((HEAD,),), (CHEST,)),
        ("no thorax or abdomen", (), (CHEST, ABDOMEN)),
        ("without chest and abdomen", (), (CHEST, ABDOMEN)),
        ("no head, chest or abdomen", (), (HEAD, CHEST, ABDOMEN)),
        ("头部，无胸部", ((HEAD,),), (CHEST,)),
        ("没有胸部或腹部", (), (CHEST, ABDOMEN)),
        ("不包括腹部的CT", (), (ABDOMEN,)),
        ("abdomen, no pelvis", ((ABDOMEN,),), ()),
    ],
)
def test_a_part_of_the_body_that_is_denied(text: str, parts: tuple[object, ...], absent: tuple[str, ...]) -> None:
    found = parse(text)
    assert (found.parts, found.absent_parts) == (parts, absent)


@pytest.mark.parametrize("text", ["no lung nodules", "no chest wall mass", "无胸腔积液", "no thoracic aortic aneurysm"])
def test_what_is_denied_within_a_part_leaves_the_part(text: str) -> None:
    assert (parse(text).parts, parse(text).absent_parts) == (((CHEST,),), ())
    assert parse("no chest or abdominal mass").absent_parts == ()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("thorax and abdomen", ((CHEST,), (ABDOMEN,))),
        ("thorax, abdomen", ((CHEST,), (ABDOMEN,))),
        ("胸部和腹部", ((CHEST,), (ABDOMEN,))),
        ("thorax or abdomen", ((CHEST, ABDOMEN),)),
        ("胸部或腹部", ((CHEST, ABDOMEN),)),
        ("head, chest or abdomen", ((HEAD, CHEST, ABDOMEN),)),
        ("head and neck", ((HEAD,),)),
        ("head_neck", ((HEAD,),)),
    ],
)
def test_all_that_is_named_has_to_be_there_unless_or_joins_it(text: str, parts: tuple[object, ...]) -> None:
    assert parse(text).parts == parts
    assert set(parse(text).regions) == {region for regions in parts for region in regions}  # type: ignore[attr-defined]


def test_parts_of_the_body_in_an_archive(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "archive", INFO)
    shown = {"head": (HEAD,), "both": (CHEST, ABDOMEN), "chest": (CHEST,), "nothing": ()}
    vectors = Vectors(np.eye(4, dtype=np.float32)[0])
    store.add(
        [
            Entry(Study(name, name, name, f"/{name}", regions=regions, text="."), vectors)
            for name, regions in shown.items()
        ]
    )

    def passing(text: str) -> set[str]:
        return {study.name for study in store.studies(store.keys(parse(text).where()).tolist())}

    assert passing("thorax and abdomen") == {"both"}
    assert passing("head or abdomen") == {"head", "both"}
    assert passing("chest, no abdomen") == {"chest"}
    assert passing("no thorax") == {"head", "nothing"}


@pytest.mark.parametrize(
    "text",
    [
        "mass in the head of the pancreas",
        "femoral neck fracture",
        "femoral head and neck",
        "head of the right femur",
        "bladder neck",
        "neck of the aneurysm",
        "胰头占位",
        "胰腺头部肿块",
        "股骨颈骨折",
        "右侧股骨头坏死",
        "宫颈癌",
        "股四头肌",
        "the lung apices are in view",
    ],
)
def test_heads_and_necks_of_organs_are_no_parts_of_the_body(text: str) -> None:
    assert parse(text).parts == ()
    assert parse(f"{text}, abdomen").parts == ((ABDOMEN,),)


@pytest.mark.parametrize("text", ["neck of the patient", "spleen, head and neck", "mandible, neck", "脾脏，颈部"])
def test_heads_and_necks_of_people_are(text: str) -> None:
    assert parse(text).parts == ((HEAD,),)


@pytest.mark.parametrize(
    ("text", "absent"),
    [
        ("no right parotid", ((RIGHT,),)),
        ("without the right parotid", ((RIGHT,),)),
        ("无右侧腮腺", ((RIGHT,),)),
        ("no spleen or mandible", (("spleen",), ("mandible",))),
        ("no parotid_gland_right", ((RIGHT,),)),
    ],
)
def test_a_denial_reaches_over_sides_and_joints(text: str, absent: tuple[object, ...]) -> None:
    found = parse(text)
    assert (found.organs, found.absent, found.sizes) == ((), absent, ())


def test_a_denial_ends_where_another_thing_begins() -> None:
    found = parse("no spleen and enlarged parotid")
    assert (found.organs, found.absent, found.sizes) == ((BOTH,), (("spleen",),), ((BOTH, "large"),))
    assert parse("no splenic lesion").absent == ()


@pytest.mark.parametrize(
    "text",
    [
        "not enlarged right parotid",
        "no enlarged right parotid",
        "without the right enlarged parotid",
        "right parotid is not enlarged",
        "不大的右侧腮腺",
        "无肿大的右侧腮腺",
    ],
)
def test_a_denied_size_is_no_size(text: str) -> None:
    found = parse(text)
    assert (found.organs, found.absent, found.sizes) == (((RIGHT,),), (), ())


@pytest.mark.parametrize(
    "text",
    [
        "right enlarged parotid",
        "enlarged right parotid",
        "右侧肿大的腮腺",
        "肿大的右侧腮腺",
        "enlarged parotid_gland_right",
        "parotid_gland_right is enlarged",
    ],
)
def test_sides_and_sizes_in_any_order(text: str) -> None:
    found = parse(text)
    assert (found.organs, found.sizes) == (((RIGHT,),), (((RIGHT,), "large"),))


def test_both_sides_and_the_next_organ() -> None:
    assert parse("right and left parotid").organs == (BOTH,)
    assert parse("parotid_gland_right parotid_gland_left").organs == ((RIGHT,), (LEFT,))
    assert parse("spleen or mandible").organs == (("spleen", "mandible"),)
    assert parse("enlarged spleen and right parotid").sizes == ((("spleen",), "large"),)
