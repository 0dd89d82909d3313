"""A server takes in what it can hold, and says when it cannot."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from app.quotas import Limits, Quota, size_of
from app.services import Desk, Refused


def _quota(root: Path, **limits: float) -> Quota:
    return Quota(root, Limits(**{"min_free_gigabytes": 0.0} | limits))  # type: ignore[arg-type]


def test_nothing_is_refused_in_the_ordinary_case(tmp_path: Path) -> None:
    assert _quota(tmp_path).refusal(0, 1 << 20) == ""


@pytest.mark.parametrize(
    ("limits", "waiting", "size", "why"),
    [
        ({"max_waiting": 3}, 3, 0, "queue"),
        ({"max_studies": 2}, 0, 0, "studies"),
        ({"max_gigabytes": 0.001}, 0, 2_000_000, "space"),
        ({"min_free_gigabytes": 1e9}, 0, 0, "space"),
        ({"max_starts_per_minute": 0}, 0, 0, "rate"),
    ],
)
def test_each_limit(limits: dict[str, float], waiting: int, size: int, why: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert _quota(tmp_path, **limits).refusal(waiting, size) == why


def test_what_is_held_counts(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "scan").write_bytes(bytes(700_000))
    assert size_of(tmp_path) == 700_000
    assert _quota(tmp_path, max_gigabytes=0.001).refusal(0, 500_000) == "space"
    assert _quota(tmp_path, max_gigabytes=0.001).refusal(0, 200_000) == ""


def test_starts_within_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("app.quotas.time.monotonic", lambda: clock[0])
    quota = _quota(tmp_path, max_starts_per_minute=2)
    assert [quota.refusal(0) for _ in range(3)] == ["", "", "rate"]
    clock[0] += 61
    assert quota.refusal(0) == ""


def test_limits_come_from_the_environment() -> None:
    limits = Limits.of({"MEDSEG_MAX_STUDIES": "7", "MEDSEG_MAX_GIGABYTES": "0.5", "MEDSEG_MAX_WAITING": "many"})
    assert (limits.max_studies, limits.max_gigabytes, limits.max_waiting) == (7, 0.5, 64)


def test_the_desk_says_that_it_is_busy(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    try:
        desk.quota = _quota(desk.folders.root, max_studies=0)
        upload = io.BytesIO(b"x" * 100)
        upload.name = "scan.nii"  # type: ignore[attr-defined]
        with pytest.raises(Refused, match="as many scans as it may"):
            desk.take_uploads([upload])  # type: ignore[list-item]
        assert [path for path in desk.folders.root.iterdir() if path.is_dir()] == []
    finally:
        desk.close()
