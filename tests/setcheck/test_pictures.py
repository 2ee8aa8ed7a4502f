"""Number, size and buckets, with the advice of the seeds and the trainer's own bucketing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lorafactory.dataset import Picture
from lorafactory.setcheck import pictures
from lorafactory.setcheck.looks import Look, Seen
from lorafactory.training import buckets
from lorafactory.training.settings import TrainSettings

S = TrainSettings()


def looks(*sizes: tuple[int, int]) -> list[Look]:
    none = np.zeros((1, 1))
    return [Look(Picture(Path(f"{i}.png")), size, none, none, Image.new("RGB", (8, 8))) for i, size in enumerate(sizes)]


def rows(found: list[Look], s: TrainSettings = S) -> dict[str, pictures.Finding]:
    return {row.what: row for row in pictures.findings(Seen(found, {}), pictures.fit_all(found, s), s)}


@pytest.mark.parametrize(
    ("count", "named", "verdict"),
    [
        (0, "0", "problem"), (3, "1-4", "note"), (5, "5-10", "note"), (10, "5-10", "note"), (11, "11-20", "ok"),
        (20, "11-20", "ok"), (21, "21-50", "ok"), (50, "21-50", "ok"), (51, "51-100", "note"),
        (100, "51-100", "note"), (101, "over 100", "note"),
    ],
)  # fmt: skip
def test_the_size_class_is_that_of_seed_003(count: int, named: str, verdict: str):
    row = pictures.set_size(count)
    assert f"({named})" in row.value
    assert row.verdict == verdict


def test_three_quarters_must_have_the_resolution():
    enough = rows(looks((512, 512), (1024, 1024), (600, 500), (300, 300)))["resolution"]
    assert enough.verdict == "ok"
    assert enough.value.startswith("75% have 512, 25% have 1024")
    few = rows(looks((512, 512), (300, 300)))["resolution"]
    assert few.verdict == "note"
    assert few.pictures == ("1.png",)


def test_the_pocket_is_measured_by_its_own_size():
    s = TrainSettings(resolution=96, bucket_step=32, min_bucket=64, max_bucket=192)
    assert rows(looks((96, 96), (96, 96)), s)["resolution"].value.startswith("100% have 96, 0% have 192")
    assert rows(looks((1024, 1024)), TrainSettings(resolution=1024))["resolution"].value == "100% have 1024"


def test_a_bucket_with_one_picture_is_named():
    row = rows(looks((512, 512), (700, 700), (600, 900)))["buckets"]
    assert row.verdict == "note"
    assert row.pictures == ("2.png",)
    width, height = buckets.fit((600, 900), 512, 256, 1024, 64, upscale=False).bucket
    assert f"2.png ({width}x{height})" in row.value
    assert rows(looks((512, 512), (700, 700)))["buckets"].verdict == "ok"
    assert rows(looks((512, 512)))["buckets"].verdict == "ok", "a single picture has no other bucket to go to"


def test_a_strip_is_a_problem_and_a_small_picture_loses_much():
    found = rows(looks((3000, 40), (120, 120), (512, 512)))
    strip = found["too thin or small for a bucket"]
    assert (strip.verdict, strip.pictures) == ("problem", ("0.png",))
    lost = found["cropped away"]
    assert lost.pictures == ("1.png",)
    assert f"{1 - 64 * 64 / 120**2:.0%}" in lost.value


def test_what_cannot_be_read_is_a_problem_in_a_set_and_a_note_among_originals():
    broken = {"a.jpg": "truncated"}
    for originals, verdict in ((False, "problem"), (True, "note")):
        found = {row.what: row for row in pictures.findings(Seen([], broken, originals), {}, S)}
        assert found["unreadable"].verdict == verdict
        assert "a.jpg (truncated)" in found["unreadable"].value
