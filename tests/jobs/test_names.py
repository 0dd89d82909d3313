"""Names of result folders."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.jobs.names import safe_name, study_names


def names(*paths: str) -> list[str]:
    return study_names([Path("/data") / path for path in paths])


def test_the_extension_goes_and_a_double_one_goes_whole() -> None:
    assert names("a.nii.gz", "b.nii", "c.NRRD", "d.zip", "e.v2.mha") == ["a", "b", "c", "d", "e.v2"]


def test_a_folder_keeps_its_dots(tmp_path: Path) -> None:
    (tmp_path / "1.2.840.zip").mkdir()
    assert study_names([tmp_path / "1.2.840.zip"]) == ["1.2.840.zip"]


def test_collisions_get_their_parents_and_only_they() -> None:
    assert names("p1/ct.nii.gz", "p2/ct.nii.gz", "p3/mr.nii.gz") == ["p1__ct", "p2__ct", "mr"]


def test_collisions_of_parents_get_grandparents() -> None:
    assert names("a/x/ct.nii", "b/x/ct.nii", "b/y/ct.nii") == ["a__x__ct", "b__x__ct", "y__ct"]


def test_names_that_differ_in_case_extension_or_odd_letters_alone_are_told_apart() -> None:
    assert names("p1/CT.nii", "p2/ct.nii") == ["p1__CT", "p2__ct"]
    assert names("p/ct.nii", "p/ct.zip") == ["ct.nii", "ct.zip"]
    assert names("p/a b.nii", "p/a?b.nii") == ["data__p__a_b", "data__p__a_b-2"]


def test_letters_of_all_scripts_stay_and_the_rest_is_replaced() -> None:
    assert names("张三 CT.nii.gz", "Müller's scan?.nii") == ["张三_CT", "Müller_s_scan_"]


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("..", "study"),
        ("../../etc/passwd", "_.._etc_passwd"),
        (".hidden", "hidden"),
        ("=1+1", "_1+1"),
        ("-rf", "rf"),
        ("CON", "CON_"),
        ("manifest.csv", "manifest.csv_"),
        ("a\nb\x00c", "a_b_c"),
    ],
)
def test_odd_names_are_made_safe(text: str, safe: str) -> None:
    assert safe_name(text) == safe


def test_long_names_are_cut_and_stay_different() -> None:
    first, second = names("x" * 300 + "1.nii", "x" * 300 + "2.nii")
    assert first != second
    assert max(len(first), len(second)) <= 160


def test_known_names_are_kept_and_given_to_no_other() -> None:
    old, new = Path("/day1/ct.nii"), Path("/day2/ct.nii")
    assert study_names([old, new], known={old: "ct"}) == ["ct", "day2__ct"]
    assert study_names([new], taken=["CT"]) == ["day2__ct"]


@given(st.lists(st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=3), min_size=1, max_size=8))
def test_names_are_unique_and_stay_in_the_folder(parts: list[list[str]]) -> None:
    clean = [[part.replace("\x00", "").replace("/", "") or "x" for part in path] for path in parts]
    paths = list({Path("/data", *path).resolve(): None for path in clean if ".." not in path})
    given_names = study_names(paths)
    assert len({name.casefold() for name in given_names}) == len(paths)
    assert all(Path(name).name == name and not name.startswith(".") for name in given_names)
    assert all(len(name.encode()) <= 255 for name in given_names)
