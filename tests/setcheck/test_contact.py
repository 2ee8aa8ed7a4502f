"""The contact sheet shows each picture with the trainer's own crop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from lorafactory.dataset import Picture
from lorafactory.setcheck import contact, pictures
from lorafactory.setcheck.looks import THUMB, Look, look
from lorafactory.training import buckets
from lorafactory.training.settings import TrainSettings

S = TrainSettings(resolution=96, bucket_step=32, min_bucket=64, max_bucket=192)
BLUE = (0, 0, 255)


def looked(*sizes: tuple[int, int]) -> list[Look]:
    found = []
    for i, size in enumerate(sizes):
        picture = Image.new("RGB", size, BLUE)
        found.append(look(Picture(Path(f"{i}.png")), picture, size))
    return found


def drawn(*sizes: tuple[int, int]) -> np.ndarray:
    looks = looked(*sizes)
    return np.asarray(contact.sheet(looks, pictures.fit_all(looks, S), S, name="test"), dtype=int)


def blue_columns(page: np.ndarray) -> int:
    """How many columns of the sheet hold the untouched colour."""
    return int((page == BLUE).all(-1).any(0).sum())


def test_only_what_the_crop_keeps_has_its_colour():
    """120 x 100 becomes 77 x 64, of which a bucket in steps of 32 takes 64."""
    fit = buckets.fit((120, 100), 96, 64, 192, 32, upscale=False)
    kept = fit.bucket[0] / fit.resized[0]
    assert kept < 0.95, "the case needs a crop"
    assert abs(blue_columns(drawn((120, 100))) - kept * THUMB) <= 2 * 2 + 2  # less the line's two pixels a side


def test_the_box_is_the_crop_in_the_pixels_shown():
    fit = buckets.Fit((64, 64), (100, 64), (18, 0))
    seen = looked((200, 128))[0]  # shown with its longer side at 192
    assert contact.crop_box(seen, fit) == (35, 0, 157, 123)
    by_hand = look(seen.picture, Image.new("RGB", (400, 128), BLUE), (400, 128), (200, 0, 400, 128))
    assert contact.crop_box(by_hand, fit) == (113, 0, 175, 61)


def test_what_is_cut_out_by_hand_is_what_counts():
    """An overlarge white border is cut away; what stays has a bucket, a border and a middle of its own."""
    whole = Image.new("RGB", (400, 200), "white")
    whole.paste(BLUE, (150, 50, 250, 150))
    seen = look(Picture(Path("0.png")), whole, whole.size, (150, 50, 250, 150))
    assert seen.trained == (100, 100)
    assert (seen.border == look(Picture(Path("1.png")), Image.new("RGB", (100, 100), BLUE), (100, 100)).border).all()
    fit = pictures.fit_all([seen], S)["0.png"]
    assert fit is not None and fit.bucket == (96, 96)
    assert contact.said(seen, fit)[1][0] == "whole, cut by hand"
    assert look(Picture(Path("2.png")), whole, whole.size, (0, 0, 401, 10)).crop is None


def test_pictures_are_grouped_by_bucket_and_a_lone_one_is_warned_of():
    looks = looked((96, 96), (96, 96), (64, 128), (500, 20))
    groups = contact.grouped(looks, pictures.fit_all(looks, S))
    assert [(g.title, [one.name for one in g.looks]) for g in groups] == [
        ("no bucket", ["3.png"]),
        ("64 x 128: 1", ["2.png"]),
        ("96 x 96: 2", ["0.png", "1.png"]),
    ]
    assert [bool(g.warning) for g in groups] == [True, True, False]


def test_no_bucket_is_not_counted_as_one(monkeypatch):
    written: list[str] = []
    text = contact.ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        contact.ImageDraw.ImageDraw, "text", lambda pen, at, said, *a: [written.append(said), text(pen, at, said, *a)]
    )
    drawn((96, 96), (96, 96), (64, 128), (500, 20))
    assert [line.partition(";")[0] for line in written if "inside the red line" in line] == ["4 pictures, 2 buckets"]


def test_what_is_said_tells_enlarged_from_shrunk():
    large, small, strip = looked((960, 960), (48, 48), (500, 20))
    up = S.model_copy(update={"bucket_upscale": True})
    fits = pictures.fit_all([large, small, strip], up)
    assert "shrunk to 10%" in contact.said(large, fits["0.png"])[0][0]
    line, colour = contact.said(small, fits["1.png"])[0]
    assert (line, colour) == ("48 x 48, enlarged 2.00", contact.WARN)
    assert contact.said(strip, None)[1][0] == "no bucket takes it"


def test_many_pictures_make_rows_of_eight():
    one, nine = drawn(*[(96, 96)] * 8), drawn(*[(96, 96)] * 9)
    assert nine.shape[1] == one.shape[1]
    assert nine.shape[0] > one.shape[0] + THUMB
