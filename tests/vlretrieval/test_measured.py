"""What is seen of a study: view, profile, parts of the body, vectors of measurements, picture."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("sklearn")
import medseg
from medseg.errors import DataError
from medseg.imaging.volume import Volume
from tests.phantoms import BOX_ML, SPHERE_ML, orient, phantom_labels, phantom_volume
from vlretrieval.describe import describe_study, index_words
from vlretrieval.inputs import build_input, collate
from vlretrieval.intake import Seen, look_at
from vlretrieval.measured import MeasuredEncoder
from vlretrieval.profile import build_profile
from vlretrieval.regions import find_regions
from vlretrieval.thumbnail import draw_thumbnail
from vlretrieval.view import StudyView, build_view

NAMES = {"parotid_gland_left": 1, "parotid_gland_right": 2}
ENCODER = MeasuredEncoder(tuple(NAMES))


def view_of(volume: Volume) -> StudyView:
    labels = phantom_labels(volume).astype(np.uint8)
    return build_view(volume, np.where(labels > 2, 0, labels), NAMES)


@pytest.fixture(scope="module")
def view() -> StudyView:
    return view_of(phantom_volume(orientation="LPS"))


def test_volumes_hold_on_the_common_grid(view: StudyView) -> None:
    organs = build_profile(view).organs
    found = sorted(organ.volume_ml for organ in organs.values())
    assert found == pytest.approx(sorted([SPHERE_ML, BOX_ML]), rel=0.08)
    assert view.extent_mm == pytest.approx((168, 140, 144))


@pytest.mark.parametrize("orientation", ["RAS", "SPR", "ILA"])
def test_the_order_of_axes_changes_nothing(view: StudyView, orientation: str) -> None:
    turned = view_of(orient(phantom_volume(orientation="LPS"), orientation))
    first, second = (ENCODER.studies([build_input(v)])[0] for v in (view, turned))
    assert first.whole @ second.whole > 0.999
    assert set(first.organs) == set(NAMES)


def test_vectors_are_of_unit_length_and_the_nearest_measures_alike() -> None:
    """Planted bodies of three sizes: the likest of each is the other one of its size, whatever noise and spacing."""
    scales = (3.0, 3.0, 4.0, 4.0, 5.0, 5.0)
    steps = [(scale, scale, scale * (1 + number % 2 * 0.3)) for number, scale in enumerate(scales)]
    shapes = [(48, 40, 36 if number % 2 == 0 else 28) for number in range(6)]
    volumes = [phantom_volume(shape, step, seed=n) for n, (shape, step) in enumerate(zip(shapes, steps, strict=True))]
    scaled = [Volume(v.hu, v.geometry, name=f"v{n}") for n, v in enumerate(volumes)]
    vectors = np.stack([v.whole for v in ENCODER.studies([build_input(view_of(volume)) for volume in scaled])])
    assert vectors.shape == (6, ENCODER.dim)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(6), abs=1e-5)
    assert ENCODER.dim % 8 == 0
    likeness = vectors @ vectors.T - 2 * np.eye(6)
    assert likeness.argmax(axis=1).tolist() == [1, 0, 3, 2, 5, 4]


def test_it_reads_no_words() -> None:
    assert ENCODER.words("parotid") is None
    assert ENCODER.match("parotid", np.zeros((1, 1))) is None


def test_a_view_is_stored_and_read_again(view: StudyView, tmp_path: Path) -> None:
    view.save(tmp_path / "v.npz")
    again = StudyView.load(tmp_path / "v.npz")
    assert np.array_equal(again.hu, view.hu)
    assert np.array_equal(again.organs, view.organs)
    assert (again.names, again.known, again.spacing_mm) == (view.names, view.known, view.spacing_mm)
    (tmp_path / "v.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match="no stored view"):
        StudyView.load(tmp_path / "v.npz")


def test_studies_of_different_lengths_are_one_batch(view: StudyView) -> None:
    entry = build_input(view)
    batch = collate([entry, entry.cut(0, 20), entry.mirrored()], tuple(NAMES))
    assert batch.volume.shape[0] == len(batch) == 3
    assert batch.slices.shape[0] == 3
    right, left = batch.organs[0, 0, 1], batch.organs[0, 1, 1]
    assert batch.organs[2, 1, 1] == right != left
    assert (batch.volume[1, ..., 10:] == 0).all()


def test_parts_of_the_body(view: StudyView) -> None:
    assert find_regions(view, ["parotid_gland_left", "mandible"]) == ("head_neck",)
    assert find_regions(view, ["liver"]) == ("abdomen",)
    assert find_regions(view, []) == ("limb",)  # a small body and nothing known
    air = build_view(
        Volume(np.full((20, 20, 20), -1000.0, np.float32), phantom_volume((20, 20, 20)).geometry),
        np.zeros((20, 20, 20), np.uint8),
        {},
    )
    assert find_regions(air, []) == ()


@pytest.fixture(scope="module")
def seen() -> Seen:
    return look_at(phantom_volume((36, 32, 30), (5.0, 5.0, 5.5), name="scan"), segmenter="tissue-hu")


def test_a_study_is_described_and_its_words_are_indexed(seen: Seen) -> None:
    text = describe_study(seen)
    assert text.startswith("CT of ")
    assert "body (" in text
    assert seen.measures["body_ml"] > 500
    assert "骨骼" in index_words(seen)
    assert len(seen.id) == 32


def test_the_same_scan_has_the_same_id(seen: Seen) -> None:
    again = look_at(phantom_volume((36, 32, 30), (5.0, 5.0, 5.5), name="other"), segmenter="tissue-hu")
    assert again.id == seen.id
    assert medseg.list_models()


def test_the_thumbnail_shows_three_planes(seen: Seen) -> None:
    picture = Image.open(io.BytesIO(draw_thumbnail(seen.view, seen.labels)))
    assert picture.height == 128
    assert picture.width > 200
    assert np.asarray(picture.convert("RGB")).std() > 10
