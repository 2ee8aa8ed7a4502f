from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from judged_sets import fake_clip, scenes, with_past, work_on
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from lorafactory import images
from lorafactory.encoders import clip
from lorafactory.pocket import world
from lorafactory.steps import dedupe
from lorafactory.steps.dedupe import Settings

NO_CLIP = Settings(no_clip=True)
STRICT = Settings(no_clip=True, act="strict")


def asymmetric(seed: int = 5) -> Image.Image:
    """A picture that is not its own mirror image."""
    rng = random.Random(seed)
    picture = world.draw(world.Scene("heart", "red", "small", ("yellow",), "and a blue ring"), rng)
    picture.paste((20, 20, 30), (4, 60, 24, 92))
    return picture


def test_equal_pixels_are_set_aside_and_the_earliest_stays(tmp_path):
    first, *others = scenes(4)
    work, run = work_on(tmp_path, [first, *others, first, first])
    result = dedupe.run(work, NO_CLIP)
    assert result.data == {"set_aside": ["0005.png", "0006.png"], "flagged": []}
    assert [p.name for p in work.set.pictures] == ["0001.png", "0002.png", "0003.png", "0004.png"]
    assert work.set.aside["0005.png"].parent.name == "duplicate"
    assert run.verdicts("0005.png")["equal pixels"] == "set aside"
    assert run.told("0005.png", "equal pixels")["rival"] == "0001.png"
    assert result.lines[0] == "0005.png: the same pixels as 0001.png, set aside"


def test_every_picture_is_decided_on_by_every_rule(tmp_path):
    work, run = work_on(tmp_path, scenes(5))
    assert dedupe.run(work, NO_CLIP).data == {"set_aside": [], "flagged": []}
    assert {rule for _, _, rule, _ in run.rows} == {"equal pixels", "phash", "mirrored"}
    assert len(run.rows) == 5 * 3
    assert all(verdict == "kept" for _, verdict, _, _ in run.rows)
    near = run.told("0001.png", "phash")
    assert near["rival"] != "0001.png" and near["score"] > near["threshold"] == 4


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.resize((72, 72), Image.Resampling.BICUBIC),
        lambda p: p.filter(ImageFilter.GaussianBlur(0.7)),
        lambda p: ImageEnhance.Brightness(p).enhance(1.1),
    ],
    ids=["smaller", "softer", "brighter"],
)
def test_near_duplicates_are_flagged(tmp_path, change):
    picture = asymmetric()
    work, run = work_on(tmp_path, [picture, change(picture), *scenes(3)])
    result = dedupe.run(work, NO_CLIP)
    assert result.data["set_aside"] == [] and len(work.set.pictures) == 5
    (name,) = result.data["flagged"]
    assert name in ("0001.png", "0002.png") and run.told(name, "phash")["score"] <= 4


def test_the_smaller_and_the_softer_copy_is_the_worse(tmp_path):
    picture = asymmetric()
    soft, small = picture.filter(ImageFilter.GaussianBlur(1)), picture.resize((80, 80), Image.Resampling.BICUBIC)
    work, run = work_on(tmp_path, [small, soft, picture, *scenes(2)])
    result = dedupe.run(work, NO_CLIP)
    assert sorted(result.data["flagged"]) == ["0001.png", "0002.png"]
    assert run.told("0001.png", "phash")["rival"] == run.told("0002.png", "phash")["rival"] == "0003.png"


def test_other_colours_of_one_shape_are_other_pictures(tmp_path):
    """The hash sees brightness alone: without a look at colours these would be one picture."""
    rng = random.Random(2)
    pair = [Image.new("RGB", (96, 96), c) for c in ("yellow", "pink")]
    for picture, colour in zip(pair, ("blue", "green"), strict=True):
        picture.paste(colour, (30, 20, 60, 80))
    assert (dedupe.bits_of(pair[0]) != dedupe.bits_of(pair[1])).sum() <= 4
    work, _ = work_on(tmp_path, [*pair, *scenes(3, rng.randint(0, 9))])
    assert dedupe.run(work, NO_CLIP).data == {"set_aside": [], "flagged": []}


def test_mirrored_pictures_are_named_so(tmp_path):
    picture = asymmetric()
    work, run = work_on(tmp_path, [*scenes(2), picture, ImageOps.mirror(picture)])
    result = dedupe.run(work, NO_CLIP)
    assert result.data["flagged"] == ["0004.png"]
    assert result.lines[0].startswith("0004.png: mirrored of 0003.png")
    assert run.verdicts("0004.png") == {"equal pixels": "kept", "phash": "kept", "mirrored": "flagged"}


def test_strict_sets_near_duplicates_aside(tmp_path):
    picture = asymmetric()
    copies = [picture.resize((80, 80), Image.Resampling.BICUBIC), ImageOps.mirror(picture)]
    work, _ = work_on(tmp_path, [picture, *scenes(11), *copies])
    result = dedupe.run(work, STRICT)
    assert sorted(result.data["set_aside"]) == ["0013.png", "0014.png"]
    assert {n: p.parent.name for n, p in work.set.aside.items()} == {"0013.png": "similar", "0014.png": "mirrored"}


def test_strict_leaves_ten_pictures_and_two_thirds(tmp_path):
    copies = [asymmetric().resize((80 + i, 80 + i), Image.Resampling.BICUBIC) for i in range(12)]
    work, _ = work_on(tmp_path, copies)
    first = dedupe.run(work, STRICT)
    assert (len(first.data["set_aside"]), len(first.data["flagged"])) == (2, 9)
    again = dedupe.run(with_past(work)[0], STRICT)
    assert (len(again.data["set_aside"]), len(again.data["flagged"])) == (0, 9)


def test_a_third_is_a_third_of_the_set_as_it_was(tmp_path):
    copies = [asymmetric().resize((70 + i, 70 + i), Image.Resampling.BICUBIC) for i in range(30)]
    work, _ = work_on(tmp_path, copies)
    assert len(dedupe.run(work, STRICT).data["set_aside"]) == 10
    assert len(dedupe.run(with_past(work)[0], STRICT).data["set_aside"]) == 0


def test_groups_are_stars(tmp_path, monkeypatch):
    """A is like B and B like C, but not A like C: C stays for itself once B is out."""
    fake_clip(monkeypatch)
    angles = [0.0, 0.15, 0.30]
    vectors = np.array([[np.cos(a), np.sin(a)] for a in angles], dtype=np.float32)
    monkeypatch.setattr(clip, "embed", lambda *a: vectors)
    work, run = work_on(tmp_path, scenes(3))
    result = dedupe.run(work, Settings(clip=0.985))
    assert result.data["flagged"] == ["0002.png"]
    assert run.told("0002.png", "clip")["rival"] == "0001.png"
    assert run.verdicts("0003.png")["clip"] == "kept"


def test_clip_looks_once_at_each_picture(tmp_path, monkeypatch):
    fake = fake_clip(monkeypatch)
    work, run = work_on(tmp_path, scenes(5))
    dedupe.run(work, Settings())
    assert fake.looks == 5
    dedupe.run(with_past(work)[0], Settings())
    assert fake.looks == 5
    assert {rule for _, _, rule, _ in run.rows} >= {"clip"}


def test_auto_asks_for_more_where_all_are_near():
    def ring(distance: float) -> np.ndarray:
        turns = np.arange(12) * np.arccos(1 - distance)
        return np.stack([np.cos(turns), np.sin(turns)], 1).astype(np.float32)

    assert dedupe.calibrated(ring(0.02)) == pytest.approx(0.995, abs=1e-4)
    assert dedupe.calibrated(ring(0.08)) == pytest.approx(0.98, abs=1e-4)
    assert dedupe.calibrated(np.eye(5, dtype=np.float32)) == 0.97
    assert dedupe.calibrated(np.ones((9, 1), np.float32)) == 0.999


def test_what_a_person_put_back_stays(tmp_path):
    picture, *others = scenes(3)
    work, _ = work_on(tmp_path, [picture, *others, picture])
    work, run = with_past(work, hand={"0004.png": "put back"})
    result = dedupe.run(work, NO_CLIP)
    assert result.data["set_aside"] == [] and len(work.set.pictures) == 4
    assert run.verdicts("0004.png")["by hand"] == "kept"


def test_a_folder_that_is_not_ours_is_only_reported_on(tmp_path):
    picture, *others = scenes(3)
    work, run = work_on(tmp_path, [picture, *others, picture])
    result = dedupe.run(replace(work, apply=False), NO_CLIP)
    assert result.data["set_aside"] == ["0004.png"] and len(work.set.pictures) == 4
    assert run.verdicts("0004.png")["equal pixels"] == "would be set aside"
    assert "--apply" in result.summary


def test_a_broken_picture_is_flagged_and_does_not_end_the_step(tmp_path):
    work, run = work_on(tmp_path, scenes(3))
    broken = work.set.pictures[1].path
    broken.write_bytes(broken.read_bytes()[:300])
    assert dedupe.run(work, NO_CLIP).data["flagged"] == ["0002.png"]
    assert run.verdicts("0002.png") == {"unreadable": "flagged"}


def test_none_or_one_picture(tmp_path):
    work, run = work_on(tmp_path, [])
    assert dedupe.run(work, Settings()).data == {"set_aside": [], "flagged": []}
    assert run.rows == []


def test_check_names_what_is_missing_and_goes_on_without(tmp_path, monkeypatch):
    work, _ = work_on(tmp_path, scenes(1))
    monkeypatch.setattr(clip, "missing", lambda model: "CLIP is not on this machine: x, about 600 MB")
    (problem,) = dedupe.check(work, Settings())
    assert problem.fatal and "600 MB" in problem.message and "--no-clip" in problem.fix
    assert dedupe.check(work, NO_CLIP) == []
    assert [p.message for p in dedupe.check(work, Settings(no_clip=True, clip=7))] == [
        "dedupe.clip = 7.0: a cosine from 0.5 to 1 is needed"
    ]


def test_check_warns_that_the_pocket_knows_only_drawings(tmp_path, monkeypatch):
    monkeypatch.setattr(clip, "missing", lambda model: None)
    work, _ = work_on(tmp_path, scenes(2))
    assert dedupe.check(work, Settings()) == []
    work.place.source.mkdir()
    images.save_png(Image.new("RGB", (640, 480)), work.place.source / "holiday.png")
    (problem,) = dedupe.check(work, Settings())
    assert not problem.fatal and "know only drawings" in problem.message
    assert dedupe.check(work, NO_CLIP) == []


def test_a_folder_without_a_base_is_judged_by_the_real_clip(tmp_path, monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(clip, "missing", asked.append)
    work, _ = work_on(tmp_path, scenes(1), base=None)
    assert dedupe.check(work, Settings()) == []
    assert asked == ["ViT-B-32-quickgelu/openai"]
