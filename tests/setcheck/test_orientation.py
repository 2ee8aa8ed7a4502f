"""Mirrored pictures are found where a face has two different sides, and nothing is said where it has not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from faces import faces, photographs
from PIL import Image

from lorafactory.dataset import Picture
from lorafactory.setcheck import orientation
from lorafactory.setcheck.looks import look, strip
from lorafactory.setcheck.orientation import GAP, sides

SETS = 20


def told_right(seed: int, asymmetry: float) -> tuple[int, int, orientation.Sides]:
    """Pictures on the right side and on the wrong one; the smaller group counts as flipped."""
    strips, flipped = faces(seed, asymmetry)
    found = sides(strips)
    wrong = sum(flipped[i] for i in found.most) + sum(not flipped[i] for i in found.fewer)
    return len(found.most) + len(found.fewer) - wrong, wrong, found


def test_an_asymmetry_of_three_tenths_is_told():
    told = [told_right(seed, 0.3) for seed in range(SETS)]
    right, wrong = sum(t[0] for t in told), sum(t[1] for t in told)
    assert right / (20 * SETS) >= 0.99
    assert wrong == 0
    assert not any(found.open for *_, found in told)


def test_without_asymmetry_nothing_is_said():
    found = [told_right(seed, 0.0)[2] for seed in range(SETS)]
    assert all(f.open for f in found)
    assert max(f.gap for f in found) < GAP


def test_faces_of_different_persons_are_left_open():
    """Real photographs: the LFW subset that ships with scikit-image."""
    skimage = pytest.importorskip("skimage")
    shown = np.load(Path(skimage.__file__).parent / "data" / "lfw_subset.npy")[:100]
    strips = [strip(Image.fromarray((face * 255).astype(np.uint8)).resize((200, 200))) for face in shown]
    for seed in range(SETS):
        some = np.random.default_rng(seed).choice(100, 20, replace=False)
        assert sides([strips[i] for i in some]).open


def test_symmetrical_or_few_pictures_are_left_open():
    disc = Image.radial_gradient("L").resize((120, 120))
    assert sides([strip(disc)] * 8).open
    assert sides(faces(0, 0.5, count=5)[0]).open


def looked(seed: int, asymmetry: float) -> tuple[list[orientation.Look], set[str]]:
    pictures, flipped = photographs(seed, asymmetry)
    looks = [look(Picture(Path(f"{i:04}.png")), p, p.size) for i, p in enumerate(pictures)]
    return looks, {one.name for one, turned in zip(looks, flipped, strict=True) if turned}


def test_the_finding_names_the_smaller_group_of_pictures_that_are_not_quite_centred():
    looks, flipped = looked(1, 0.4)
    found = sides([one.strip for one in looks])
    row = orientation.finding(looks, "person", found)
    assert row.verdict == "note"
    assert set(row.pictures) == flipped
    assert "--fix-mirrored" in row.value
    assert orientation.finding(looks, "style", found).verdict == "ok"
    assert orientation.finding(looks[:3], "person", found).verdict == "ok"


def test_why_nothing_is_said_is_said():
    looks, _ = looked(1, 0.4)
    few = orientation.Sides(2.6, most=(0, 1), fewer=(2,), unsure=tuple(range(3, 20)))
    assert few.open
    row = orientation.finding(looks, "person", few)
    assert row.value == "cannot be told: only 3 of 20 pictures lean clearly to a side (gap 2.6)"
    none = orientation.Sides(2.497, most=tuple(range(12)), fewer=tuple(range(12, 20)))
    assert orientation.finding(looks, "person", none).value.endswith("no one difference stands out (gap 2.50)")


def test_pictures_that_are_all_one_way_are_no_note():
    looks, flipped = looked(1, 0.4)
    same = [one for one in looks if one.name not in flipped]
    row = orientation.finding(same, "person", sides([one.strip for one in same]))
    assert row.verdict == "ok"
    assert row.value.startswith("all one way")
