from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from judged_sets import fake_clip, scenes, with_past, work_on
from PIL import Image, ImageFilter

from lorafactory.encoders import clip
from lorafactory.pocket import world
from lorafactory.steps import filter as step
from lorafactory.steps._judging import robust_z, sharpness
from lorafactory.steps.filter import Settings

NO_CLIP = Settings(no_clip=True, min_side=64)
RULES = {"too small", "blur", "blur in the set", "dark", "light", "low contrast", "odd ratio"}


def stars(count: int, seed: int = 0) -> list[Image.Image]:
    """Flat drawings of one thing: the demo's set."""
    rng = random.Random(seed)
    plain = [world.random_scene(rng, plain=True) for _ in range(count)]
    return [world.draw(replace(scene, shape="star", size="large"), rng) for scene in plain]


def test_the_blurred_and_the_foreign_one_leave_and_no_other(tmp_path, monkeypatch):
    fake_clip(monkeypatch)
    rows = np.random.default_rng(1).normal([1, 0, 0, 0], 0.05, (20, 4))
    rows[11] = [0, 1, 0, 0]
    vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    monkeypatch.setattr(clip, "embed", lambda *a: vectors)
    pictures = stars(20)
    pictures[4] = pictures[4].filter(ImageFilter.GaussianBlur(3))
    work, run = work_on(tmp_path, pictures)
    result = step.run(work, Settings(min_side=64, act="strict"))
    assert sorted(result.data["set_aside"]) == ["0005.png", "0012.png"]
    assert result.data["flagged"] == []
    assert {n: p.parent.name for n, p in work.set.aside.items()} == {"0005.png": "blurred", "0012.png": "outlier"}
    assert run.told("0012.png", "outlier")["score"] < -3


def test_opinions_only_flag(tmp_path):
    pictures = stars(12)
    pictures[4] = pictures[4].filter(ImageFilter.GaussianBlur(3))
    work, run = work_on(tmp_path, pictures)
    result = step.run(work, NO_CLIP)
    assert result.data == {"set_aside": [], "flagged": ["0005.png"]}
    assert run.verdicts("0005.png")["blur"] == run.verdicts("0005.png")["blur in the set"] == "flagged"
    assert result.summary == "filter: 12 pictures, 1 flagged"


def test_every_picture_is_decided_on_by_every_rule(tmp_path):
    work, run = work_on(tmp_path, stars(6))
    step.run(work, NO_CLIP)
    assert Counter(rule for _, _, rule, _ in run.rows) == dict.fromkeys(RULES, 6)
    told = run.told("0001.png", "blur")
    assert told["score"] > told["threshold"] == 0.3


def test_too_small_is_a_fact(tmp_path):
    pictures = [*stars(3), Image.new("RGB", (300, 12), "red")]
    work, run = work_on(tmp_path, pictures)
    result = step.run(work, NO_CLIP)
    assert result.data["set_aside"] == ["0004.png"]
    assert work.set.aside["0004.png"].parent.name == "small"
    assert run.verdicts("0004.png")["too small"] == "set aside"
    assert result.lines == ["0004.png: too small (12 pixels, at least 64), set aside"]


@pytest.mark.parametrize(
    ("colours", "size", "rule"),
    [
        (((6, 6, 8), (40, 30, 30)), (96, 96), "dark"),
        (((255, 255, 255), (248, 250, 250)), (96, 96), "light"),
        (((200, 90, 90), (190, 99, 98)), (96, 96), "low contrast"),
        (((200, 10, 10), (10, 200, 10)), (400, 96), "odd ratio"),
    ],
)
def test_each_rule_finds_its_picture(tmp_path, colours, size, rule):
    odd = Image.new("RGB", size, colours[0])
    odd.paste(colours[1], (20, 20, 70, 70))
    work, run = work_on(tmp_path, [*stars(6), odd])
    assert step.run(work, NO_CLIP).data["flagged"] == ["0007.png"]
    assert run.verdicts("0007.png")[rule] == "flagged"


def test_strict_leaves_ten_pictures_and_takes_the_worst_first(tmp_path):
    pictures = stars(12)
    for i, radius in ((2, 2.0), (5, 4.0), (8, 3.0)):
        pictures[i] = pictures[i].filter(ImageFilter.GaussianBlur(radius))
    work, _ = work_on(tmp_path, pictures)
    strict = NO_CLIP.model_copy(update={"act": "strict"})
    result = step.run(work, strict)
    assert sorted(result.data["set_aside"]) == ["0006.png", "0009.png"] and result.data["flagged"] == ["0003.png"]
    assert step.run(with_past(work)[0], strict).data == {"set_aside": [], "flagged": ["0003.png"]}


def test_what_a_person_put_back_stays(tmp_path):
    work, _ = work_on(tmp_path, [*stars(3), Image.new("RGB", (300, 12), "red")])
    work, run = with_past(work, hand={"0004.png": "put back"})
    result = step.run(work, NO_CLIP)
    assert result.data == {"set_aside": [], "flagged": []} and len(work.set.pictures) == 4
    assert run.verdicts("0004.png")["by hand"] == "kept"


def test_a_folder_that_is_not_ours_is_only_reported_on(tmp_path):
    work, run = work_on(tmp_path, [*stars(3), Image.new("RGB", (300, 12), "red")])
    assert step.run(replace(work, apply=False), NO_CLIP).data["set_aside"] == ["0004.png"]
    assert len(work.set.pictures) == 4 and run.verdicts("0004.png")["too small"] == "would be set aside"


def test_a_broken_picture_is_flagged_and_does_not_end_the_step(tmp_path):
    work, run = work_on(tmp_path, stars(3))
    work.set.pictures[0].path.write_bytes(b"no picture")
    assert step.run(work, NO_CLIP).data["flagged"] == ["0001.png"]
    assert run.verdicts("0001.png") == {"unreadable": "flagged"}


@pytest.mark.parametrize("count", [0, 1, 4])
def test_few_pictures_say_nothing_about_each_other(tmp_path, monkeypatch, count):
    fake = fake_clip(monkeypatch)
    work, run = work_on(tmp_path, scenes(count))
    assert step.run(work, Settings(min_side=64)).data == {"set_aside": [], "flagged": []}
    assert fake.looks == 0 and not {"outlier", "blur in the set"} & {rule for _, _, rule, _ in run.rows}


def test_check_names_what_is_missing_and_goes_on_without(tmp_path, monkeypatch):
    work, _ = work_on(tmp_path, scenes(1))
    monkeypatch.setattr(clip, "missing", lambda model: "CLIP is not on this machine: x, about 600 MB")
    (problem,) = step.check(work, Settings())
    assert problem.fatal and "--no-clip" in problem.fix
    assert step.check(work, NO_CLIP) == []


@pytest.mark.parametrize("scale", [1, 4])
def test_sharpness_is_of_edges_and_not_of_plains(scale):
    """Contrast, colours and what part of the picture is plain cancel out; blur does not."""
    for star in stars(8, seed=3):
        picture = star.resize((96 * scale, 96 * scale), Image.Resampling.NEAREST)
        blurred = picture.filter(ImageFilter.GaussianBlur(2.5 * scale))
        assert sharpness(picture) > 0.85 and sharpness(blurred) < 0.35
        faint = Image.blend(picture, Image.new("RGB", picture.size, "gray"), 0.6)
        assert sharpness(faint) == pytest.approx(sharpness(picture), abs=0.1)


def test_robust_z_is_not_moved_by_the_outlier():
    z = robust_z([1.0, 1.1, 0.9, 1.05, 0.95, -50.0], 0.1)
    assert z[-1] < -100 and abs(z[:5]).max() < 1.5
    assert robust_z([], 0.1).size == 0
