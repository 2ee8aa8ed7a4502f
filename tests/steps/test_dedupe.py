from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from judged_sets import (
    fake_clip,
    given_vectors,
    jpeg,
    photographs,
    portraits,
    scenes,
    with_past,
    work_on,
)
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from pydantic import ValidationError

from lorafactory import images
from lorafactory.encoders import clip
from lorafactory.pocket import world
from lorafactory.steps import _looks, _pairs, dedupe
from lorafactory.steps._pairs import Pairs, Thresholds
from lorafactory.steps.dedupe import Settings

NOTHING: dict[str, list[str]] = {"set_aside": [], "flagged": [], "findings": []}
NO_CLIP = Settings(no_clip=True)
STRICT = Settings(no_clip=True, act="strict")


def asymmetric(seed: int = 5) -> Image.Image:
    """A picture that is not its own mirror image."""
    rng = random.Random(seed)
    picture = world.draw(world.Scene("heart", "red", "small", ("yellow",), "and a blue ring"), rng)
    picture.paste((20, 20, 30), (4, 60, 24, 92))
    return picture


def test_equal_bytes_and_equal_pixels_are_set_aside_and_the_earliest_stays(tmp_path):
    first, *others = scenes(4)
    work, run = work_on(tmp_path, [first, *others, first, first])
    first.save(work.set.pictures[5].path, compress_level=9)
    result = dedupe.run(work, NO_CLIP)
    assert result.data["set_aside"] == ["0005.png", "0006.png"] and result.data["flagged"] == []
    assert [p.name for p in work.set.pictures] == ["0001.png", "0002.png", "0003.png", "0004.png"]
    assert work.set.aside["0005.png"].parent.name == work.set.aside["0006.png"].parent.name == "duplicate"
    assert run.verdicts("0005.png")["bytes"] == "set aside" and run.verdicts("0006.png")["pixels"] == "set aside"
    assert run.told("0005.png", "bytes")["rival"] == run.told("0006.png", "pixels")["rival"] == "0001.png"
    assert result.lines == [
        "0005.png: the same bytes as 0001.png (bytes: distance 0, threshold 0), set aside",
        "0006.png: the same pixels as 0001.png (pixels: distance 0, threshold 0), set aside",
    ]
    assert result.data["findings"] == [
        {"picture": "0005.png", "rule": "bytes", "distance": 0.0, "threshold": 0.0, "winner": "0001.png"},
        {"picture": "0006.png", "rule": "pixels", "distance": 0.0, "threshold": 0.0, "winner": "0001.png"},
    ]


def test_of_equal_pictures_the_one_with_a_caption_stays(tmp_path):
    first, *others = scenes(4)
    work, run = work_on(tmp_path, [first, *others, first, first])
    first.save(work.set.pictures[5].path, compress_level=9)
    work.set.pictures[4].write_caption("mine")
    work.set.pictures[5].write_caption("other words")
    result = dedupe.run(work, NO_CLIP)
    assert result.data["set_aside"] == ["0001.png", "0006.png"]
    assert work.set.captions() == {"0005.png": "mine"}
    assert result.lines == [
        "0001.png: the same bytes as 0005.png (bytes: distance 0, threshold 0), set aside",
        "0006.png: the same pixels as 0005.png (pixels: distance 0, threshold 0); "
        'its caption goes with it: "other words", set aside',
    ]
    assert "other words" in run.told("0006.png", "pixels")["note"]


def test_clip_is_a_number_or_auto():
    assert Settings.model_validate({"clip": "0.97"}).clip == 0.97
    assert Settings.model_validate({"clip": "auto"}).clip == "auto"
    for value in ("high", None, [0.9]):
        with pytest.raises(ValidationError) as told:
            Settings.model_validate({"clip": value})
        (only,) = told.value.errors()
        assert only["loc"] == ("clip",) and "should be a cosine from 0.5 to 1" in only["msg"]


def test_every_picture_is_decided_on_by_every_rule(tmp_path):
    work, run = work_on(tmp_path, scenes(5))
    assert dedupe.run(work, NO_CLIP).data == NOTHING
    assert {rule for _, _, rule, _ in run.rows} == {"bytes", "pixels", "phash", "mirrored"}
    assert len(run.rows) == 5 * 4
    assert all(verdict == "kept" for _, verdict, _, _ in run.rows)
    near = run.told("0001.png", "phash")
    assert near["rival"] != "0001.png" and near["score"] > near["threshold"] == 10


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
    bits = [_looks.look(picture, picture.size).bits for picture in pair]
    assert (bits[0] ^ bits[1]).bit_count() <= 4
    work, _ = work_on(tmp_path, [*pair, *scenes(3, rng.randint(0, 9))])
    assert dedupe.run(work, NO_CLIP).data == NOTHING


def test_mirrored_pictures_are_named_so(tmp_path):
    picture = asymmetric()
    work, run = work_on(tmp_path, [*scenes(2), picture, ImageOps.mirror(picture)])
    result = dedupe.run(work, NO_CLIP)
    assert result.data["flagged"] == ["0004.png"]
    assert result.lines[0].startswith("0004.png: mirrored of 0003.png")
    assert run.verdicts("0004.png") == dict.fromkeys(("bytes", "pixels", "phash"), "kept") | {"mirrored": "flagged"}


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
    given_vectors(monkeypatch, np.array([[np.cos(a), np.sin(a)] for a in angles]))
    work, run = work_on(tmp_path, [p.resize((99 - i, 99 - i)) for i, p in enumerate(scenes(3))])
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

    two_steps = 1 - np.cos(2 * np.arccos(1 - 0.02))
    assert _pairs.calibrated(ring(0.02)) == pytest.approx(two_steps / 4, abs=1e-4)
    assert _pairs.calibrated(ring(0.004)) < _pairs.calibrated(ring(0.02))
    assert _pairs.calibrated(np.repeat(ring(0.02), 2, axis=0)) > 0.004, "every picture has a copy"
    assert _pairs.calibrated(np.eye(5, dtype=np.float32)) == pytest.approx(0.05)
    assert _pairs.calibrated(np.ones((9, 1), np.float32)) == pytest.approx(0.001)
    assert Settings().clip == "auto"


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
    assert run.verdicts("0004.png")["bytes"] == "would be set aside"
    assert "--apply" in result.summary


def test_a_broken_picture_is_flagged_and_does_not_end_the_step(tmp_path):
    work, run = work_on(tmp_path, scenes(3))
    broken = work.set.pictures[1].path
    broken.write_bytes(broken.read_bytes()[:300])
    assert dedupe.run(work, NO_CLIP).data["flagged"] == ["0002.png"]
    assert run.verdicts("0002.png") == {"unreadable": "flagged"}


def test_none_or_one_picture(tmp_path):
    work, run = work_on(tmp_path, [])
    assert dedupe.run(work, Settings()).data == NOTHING
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


# ---------------------------------------------------------------- photographs, portraits, generated pictures


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    return photographs()


CHANGES = {
    "saved again": lambda p: jpeg(p, 50),
    "smaller": lambda p: p.resize((p.width // 2, p.height // 2), Image.Resampling.LANCZOS),
    "brighter": lambda p: ImageEnhance.Brightness(p).enhance(1.3),
    "darker": lambda p: ImageEnhance.Brightness(p).enhance(0.7),
    "paler": lambda p: ImageEnhance.Color(p).enhance(0.67),
    "softer": lambda p: p.filter(ImageFilter.GaussianBlur(1)),
    "mirrored": ImageOps.mirror,
    "mirrored and saved again": lambda p: jpeg(ImageOps.mirror(p), 60),
}


def compared(pictures: list[Image.Image], review: int = 10) -> dict[int, list[_pairs.Near]]:
    """What the stars take, by hashes alone; index to findings."""
    looks = [_looks.look(p, p.size) for p in pictures]
    pairs = Pairs(looks, None, Thresholds(4, review, 0.015))
    return _pairs.stars(pairs, dedupe.best_first(looks), set(), set(), lambda i, near: None)


@pytest.mark.parametrize("change", CHANGES)
def test_changed_photographs_are_found_and_no_others(photos, change):
    changed = compared([*photos, *map(CHANGES[change], photos)])
    n = len(photos)
    pairs = {tuple(sorted((i, why[0].index))) for i, why in changed.items()}
    assert pairs == {(i, i + n) for i in range(n)}
    assert {why[0].tier for why in changed.values()} == {"mirrored" if "mirrored" in change else "phash"}


def test_much_brighter_photographs_are_for_a_person_to_judge(photos):
    """A third brighter, one of nine differs by more than 4 bits: it is flagged, and never acted on."""
    found = compared([*photos, *map(CHANGES["brighter"], photos)])
    unsure = [why[0] for why in found.values() if not why[0].sure]
    assert unsure and all(4 < one.distance <= 10 for one in unsure)
    assert len(compared([*photos, *map(CHANGES["brighter"], photos)], review=4)) == len(found) - len(unsure)


@pytest.mark.parametrize("quality", [75, 50])
def test_of_two_that_are_equally_sharp_the_less_compressed_is_the_best(photos, quality):
    clean = [p for p in photos if _looks.blocks_of(p) < 0.06]
    assert len(clean) >= 7
    astride = 0
    for photo in clean:
        saved, original = (_looks.look(p, p.size) for p in (jpeg(photo, quality), photo))
        assert saved.blocks > original.blocks + 0.02
        astride += dedupe.worse(saved)[0] != dedupe.worse(original)[0]
        assert dedupe.best_first([saved, original]) == [1, 0] or astride
    assert astride <= 1  # sharpness is compared in steps, and one pair may lie astride of two


def test_the_best_is_larger_then_sharper_then_earlier(photos):
    photo = photos[0]
    soft, small = photo.filter(ImageFilter.GaussianBlur(1)), photo.resize((450, 450), Image.Resampling.LANCZOS)
    looks = [_looks.look(p, p.size) for p in (small, soft, photo, photo)]
    assert dedupe.best_first(looks) == [2, 3, 0, 1]


def test_crops_are_found_by_clip_and_mirrored_ones_named_so(tmp_path):
    def crop(p: Image.Image) -> Image.Image:
        return p.crop((3, 3, 93, 93))

    holding = world.draw(world.Scene("heart", "red", "large", ("yellow",), world.HOLDING), random.Random(0))
    pictures = [holding, *scenes(20, seed=6)]
    work, _ = work_on(tmp_path, [*pictures, ImageOps.mirror(crop(holding)), *map(crop, pictures[1:11])])
    result = dedupe.run(work, Settings())
    assert result.data["set_aside"] == []
    found = {one["picture"]: one["winner"] for one in result.data["findings"]}
    wanted = {f"{22 + i:04}.png": f"{1 + i:04}.png" for i in range(11)}
    assert found.items() <= wanted.items() and len(found) >= 10
    assert sum(one["rule"] == "clip" for one in result.data["findings"]) >= 8
    assert any(line.startswith("0022.png: to CLIP the same as 0001.png, mirrored (clip: ") for line in result.lines)


@pytest.mark.parametrize("seed", range(3))
def test_portraits_of_one_person_are_different_pictures(tmp_path, seed):
    work, _ = work_on(tmp_path, portraits(12, seed), **{"class": "face"})
    result = dedupe.run(work, Settings())
    assert result.data["set_aside"] == [] and len(result.data["flagged"]) <= 1
    constant = dedupe.run(with_past(work)[0], Settings(clip=0.9))
    assert len(constant.data["flagged"]) > 5


def test_generated_pictures_are_judged_strictly_unless_told_otherwise(tmp_path):
    picture = asymmetric()
    copy = picture.resize((80, 80), Image.Resampling.BICUBIC)
    work, _ = work_on(tmp_path, [picture, *scenes(11), copy, ImageOps.mirror(copy)])
    work, _ = with_past(work, synthetic={"0014.png": "a heart"})
    only_facts = dedupe.run(work, NO_CLIP.model_copy(update={"act": "facts"}))
    assert only_facts.data["set_aside"] == [] and only_facts.data["flagged"] == ["0013.png", "0014.png"]
    result = dedupe.run(work, NO_CLIP)
    assert result.data["set_aside"] == ["0014.png"] and result.data["flagged"] == ["0013.png"]
