"""One decode, one embedding, and pairs in blocks: how `dedupe` and `filter` look at pictures."""

from __future__ import annotations

import numpy as np
import pytest
from judged_sets import FakeRun, fake_clip, photographs, with_past, work_on
from PIL import Image

from lorafactory import images
from lorafactory.step import Work
from lorafactory.steps import _looks, _pairs, dedupe, filter
from lorafactory.steps._pairs import Pairs, Thresholds
from lorafactory.steps.dedupe import Settings


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return photographs()[0]


def test_blocks_find_what_all_pairs_have(monkeypatch):
    rng = np.random.default_rng(3)
    pictures = [Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)) for _ in range(30)]
    looks = [_looks.look(p, p.size) for p in pictures]
    vectors = rng.normal(size=(30, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = Pairs(looks, vectors, Thresholds(4, 10, 0.05))
    monkeypatch.setattr(_pairs, "BLOCK", 7)
    cosines = vectors @ vectors.T - 3 * np.eye(30)
    for i, (near, _, seen) in pairs.rows(range(30)):
        apart = [(looks[i].bits ^ one.bits).bit_count() + 99 * (j == i) for j, one in enumerate(looks)]
        assert near.nearest.distance == min(apart)
        assert seen.nearest.index == cosines[i].argmax()
        assert sorted(seen.same) == list(np.flatnonzero(cosines[i] >= 0.95))


def seen_by(work: Work) -> FakeRun:
    """Run both steps that judge pictures."""
    work, run = with_past(work)
    dedupe.run(work, Settings(act="facts"))
    filter.run(work, filter.Settings(min_side=1, act="facts"))
    return run


def test_one_new_picture_in_a_thousand_is_one_decode_and_one_embedding(tmp_path, monkeypatch):
    fake, decoded = fake_clip(monkeypatch), []
    decode = images.decode
    monkeypatch.setattr(images, "decode", lambda path, *a, **k: decoded.append(path.name) or decode(path, *a, **k))
    work, _ = work_on(tmp_path, [])
    folder = work.place.images / "1_4nna"
    values = np.random.default_rng(1).integers(0, 255, (1001, 16, 16, 3), dtype=np.uint8)
    for i in range(1000):
        Image.fromarray(values[i]).save(folder / f"{i + 1:04}.png", compress_level=0)
    run = seen_by(work)
    assert (len(decoded), fake.looks) == (1000, 1000)
    assert len(run.rows) == 1000 * (5 + 10)

    decoded.clear()
    Image.fromarray(values[1000]).save(folder / "1001.png")
    seen_by(work)
    assert (decoded, fake.looks) == (["1001.png"], 1001)


def test_a_large_jpeg_is_decoded_reduced_where_all_pixels_are_not_asked_for(tmp_path, photo):
    path = tmp_path / "large.jpg"
    photo.resize((2400, 2400), Image.Resampling.LANCZOS).save(path, quality=92)
    whole, small = images.load(path), images.load_reduced(path, 512)
    assert small.size == (600, 600)
    exact, quick = _looks.look(whole, whole.size), _looks.look(small, whole.size)
    assert exact.pixels and quick.pixels is None and quick.area_px == 2400**2
    assert quick.sharpness == pytest.approx(exact.sharpness, abs=0.02)
    assert quick.span == pytest.approx(exact.span, abs=0.02) and (quick.bits ^ exact.bits).bit_count() <= 2


def test_what_filter_saw_reduced_is_decoded_whole_for_dedupe(tmp_path, photo, monkeypatch):
    work, _ = work_on(tmp_path, [])
    photo.resize((1200, 1200)).save(work.place.images / "1_4nna" / "0001.jpg", quality=92)
    first = _looks.see(work, clip=False, exact=False)
    again = _looks.see(work, clip=False, exact=True)
    assert first.looks[0].pixels is None and again.looks[0].pixels
    monkeypatch.setattr(images, "decode", None)  # nothing is decoded any more
    assert _looks.see(work, clip=False, exact=False).looks == again.looks
