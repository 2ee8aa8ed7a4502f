"""One wall or one pose is noticed, different ones are not; CLIP is asked where it can be."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from lorafactory import encoders
from lorafactory.dataset import Picture
from lorafactory.recipe import Header, Recipe
from lorafactory.setcheck import looks, variety
from lorafactory.setcheck.looks import Look, lab
from lorafactory.step import Work
from lorafactory.workspace import Workspace


def portrait(rng: random.Random, wall: tuple[int, int, int], *, moved: bool) -> Image.Image:
    """A head before a wall, at its place or anywhere."""
    picture = Image.new("RGB", (200, 240), wall)
    x, y, r = (rng.randint(50, 150), rng.randint(60, 180), rng.randint(25, 60)) if moved else (100, 110, 45)
    pen = ImageDraw.Draw(picture)
    pen.ellipse((x - r, y - r, x + r, y + r), fill=(224, 180, 150))
    pen.rectangle((x - r, y + r // 4, x, y + r // 2), fill=(90, 30, 30))
    return ImageEnhance.Brightness(picture).enhance(rng.uniform(0.85, 1.15))


def seen(*, one_wall: bool, moved: bool) -> list[Look]:
    rng = random.Random(3)
    found = []
    for i in range(12):
        wall = (90, 120, 160) if one_wall else (rng.randrange(256), rng.randrange(256), rng.randrange(256))
        picture = portrait(rng, wall, moved=moved)
        found.append(looks.look(Picture(Path(f"{i}.png")), picture, picture.size))
    return found


def work(tmp_path: Path, base: str | None) -> Work:
    space = Workspace(tmp_path / "none", "test")
    return Work(space, space.lora("anna"), Recipe(Header(base=base), {}, {}))


def test_one_wall_is_noticed_whatever_its_light():
    assert variety.background(seen(one_wall=True, moved=True)).verdict == "note"
    assert variety.background(seen(one_wall=False, moved=True)).verdict == "ok"


def test_one_pose_is_noticed_whatever_is_behind():
    assert variety.pose(seen(one_wall=True, moved=False)).verdict == "note"
    assert variety.pose(seen(one_wall=True, moved=True)).verdict == "ok"


def test_lab_is_that_of_the_textbook():
    """Values of Lindbloom's calculator for sRGB, D65."""
    white, red = lab(np.array([[255.0, 255, 255], [255, 0, 0]]))
    assert white == pytest.approx([100, 0, 0], abs=0.05)
    assert red == pytest.approx([53.24, 80.09, 67.20], abs=0.1)


class Fake:
    """A CLIP for which all pictures lie at one angle to each other."""

    def __init__(self, cosine: float, lacking: str | None = None) -> None:
        self.cosine, self.lacking = cosine, lacking

    def missing(self, model: str) -> str | None:
        return self.lacking

    def embed(self, pictures: list[Picture], model: str, cache: Path, track: object) -> np.ndarray:
        shared = np.full((len(pictures), 1), np.sqrt(self.cosine))
        return np.hstack([shared, np.eye(len(pictures)) * np.sqrt(1 - self.cosine)]).astype(np.float32)


@pytest.mark.parametrize(("cosine", "verdict"), [(0.7, "ok"), (0.98, "note")])
def test_clip_notices_pictures_that_are_nearly_the_same(tmp_path, monkeypatch, cosine: float, verdict: str):
    monkeypatch.setattr(encoders, "get", lambda name: Fake(cosine))
    row = variety.content(work(tmp_path, None), seen(one_wall=True, moved=True))
    assert (row.verdict, f"{cosine:.2f}" in row.value) == (verdict, True)
    assert not (tmp_path / "none").exists(), "looking makes no workspace"


def test_clip_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(encoders, "get", lambda name: Fake(0.7, "CLIP is not on this machine"))
    row = variety.content(work(tmp_path, None), seen(one_wall=True, moved=True))
    assert row.verdict == "note"
    assert "not on this machine" in row.value


def test_the_pockets_clip_is_not_asked_about_photographs(tmp_path: Path):
    row = variety.content(work(tmp_path, "pocket"), seen(one_wall=True, moved=True))
    assert "knows only its drawings" in row.value


def test_no_clip_leaves_the_row_out(tmp_path: Path):
    found = seen(one_wall=True, moved=True)
    names = [row.what for row in variety.findings(work(tmp_path, None), found, no_clip=True)]
    assert names == ["variety of background", "variety of pose"]
    assert variety.findings(work(tmp_path, None), found[:2], no_clip=True) == []
