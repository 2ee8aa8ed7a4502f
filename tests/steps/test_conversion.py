"""One original to one picture: crop, size, mask, several at a time; and again when the settings changed."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from imported_sets import SMALL, Factory, digest, drawn, foreign, made
from PIL import Image

from lorafactory import errors, images
from lorafactory.steps import _conversion, rename
from lorafactory.steps._conversion import Conversion, Converted, convert, converted
from lorafactory.steps._import import masks_among

PLAIN = Conversion("white", full_size=False, crop=False, upscale_to=0)


@pytest.fixture
def anna(tmp_path: Path) -> Factory:
    return made(tmp_path)


def how(full_size: bool = False, crop: bool = False, upscale_to: int = 0) -> Conversion:
    return Conversion("white", full_size, crop, upscale_to)


def faded(size: tuple[int, int] = (24, 20)) -> Image.Image:
    """Opaque on the left, transparent on the right."""
    picture = drawn(1, size).convert("RGBA")
    picture.putalpha(Image.fromarray(np.tile(np.linspace(255, 0, size[0]).astype(np.uint8), (size[1], 1))))
    return picture


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("conversion", "size", "box", "scaled"),
    [
        (how(), (2048, 1000), (0, 0, 2048, 1000), (2048, 1000)),
        (how(), (4096, 1000), (0, 0, 4096, 1000), (2048, 500)),
        (how(), (1000, 3001), (0, 0, 1000, 3001), (682, 2048)),
        (how(full_size=True), (4096, 1000), (0, 0, 4096, 1000), (4096, 1000)),
        (how(crop=True), (31, 20), (5, 0, 25, 20), (20, 20)),
        (how(crop=True), (20, 31), (0, 5, 20, 25), (20, 20)),
        (how(crop=True), (5000, 3000), (1000, 0, 4000, 3000), (2048, 2048)),
        (how(upscale_to=512), (300, 400), (0, 0, 300, 400), (512, 683)),
        (how(upscale_to=512), (600, 800), (0, 0, 600, 800), (600, 800)),
        (how(upscale_to=1024), (300, 1500), (0, 0, 300, 1500), (410, 2048)),
        (how(upscale_to=1024, full_size=True), (300, 30000), (0, 0, 300, 30000), (300, 30000)),
        (how(upscale_to=512, crop=True), (300, 1500), (0, 600, 300, 900), (512, 512)),
        (how(), (9000, 1), (0, 0, 9000, 1), (2048, 1)),
    ],
)
def test_frames(conversion: Conversion, size: tuple[int, int], box: tuple[int, int, int, int], scaled: tuple[int, int]):
    assert conversion.frame(size) == (box, scaled)


def test_settings_that_change_pixels_change_the_conversions_name():
    several = [PLAIN, how(True), how(crop=True), how(upscale_to=512), Conversion("black", False, False, 0)]
    assert len({str(one) for one in several}) == len(several)


def test_no_larger_than_2048_and_else_untouched(anna: Factory):
    drawn(1, (2600, 300)).save(anna.source_folder() / "large.bmp")
    drawn(2, (40, 30)).save(anna.source / "small.bmp")
    assert anna.go() == ["0001.png", "0002.png"]
    large, small = (images.load(anna.folder / name) for name in ("0001.png", "0002.png"))
    assert large.size == (2048, 236)
    assert large.tobytes() == drawn(1, (2600, 300)).resize((2048, 236), Image.Resampling.LANCZOS).tobytes()
    assert small.tobytes() == drawn(2, (40, 30)).tobytes()
    noted = {n["name"]: (n["before"], n["after"], n["note"]) for n in anna.run.told("converted")}
    assert noted == {
        "0001.png": ("2600 x 300", "2048 x 236", "at most 2048 px, on white"),
        "0002.png": ("40 x 30", "40 x 30", "at most 2048 px, on white"),
    }


def test_a_strip_too_thin_once_it_fits_is_set_aside(anna: Factory):
    drawn(1, (4096, 30)).save(anna.source_folder() / "strip.bmp")
    anna.put("a.png", 2)
    anna.go()
    (noted,) = anna.run.told("set aside")
    assert (noted["name"], noted["rule"], noted["score"]) == ("strip.bmp", "too small", 15)
    assert "--full-size" in noted["note"]
    assert anna.go(SMALL.model_copy(update={"full_size": True})) == ["0002.png"]


def test_crop_and_enlarge_on_request(anna: Factory):
    drawn(3, (40, 20)).save(anna.source_folder() / "a.png")
    anna.go(rename.Settings(min_side=16, crop="center", upscale_to=64))
    expected = drawn(3, (40, 20)).resize((128, 64), Image.Resampling.LANCZOS).crop((32, 0, 96, 64))
    assert images.load(anna.folder / "0001.png").tobytes() == expected.tobytes()


# ---------------------------------------------------------------- masks


def test_transparency_is_kept_as_a_mask(anna: Factory):
    faded().save(anna.source_folder() / "a.png")
    drawn(2).convert("RGBA").save(anna.source / "opaque.png")
    anna.go()
    masks = anna.root / "masks"
    assert [p.name for p in masks.iterdir()] == ["0001.png"]
    with Image.open(masks / "0001.png") as mask:
        assert mask.mode == "L"
        assert mask.tobytes() == faded().getchannel("A").tobytes()
    assert images.load(anna.folder / "0001.png").getpixel((23, 0)) == (255, 255, 255)
    assert images.load(anna.folder / "0001.png").getpixel((0, 0)) == drawn(1).getpixel((0, 0))


def test_the_mask_is_framed_as_the_picture_is(tmp_path: Path):
    faded((40, 20)).save(tmp_path / "a.png")
    made = convert(tmp_path / "a.png", how(crop=True, upscale_to=64))
    assert made.mask is not None
    (tmp_path / "mask.png").write_bytes(made.mask)
    values = np.asarray(images.load(tmp_path / "mask.png"), dtype=int)[..., 0]
    wide = np.asarray(faded((40, 20)).getchannel("A"), dtype=int)[0, 10:30]
    assert values.shape == (64, 64)
    assert np.abs(values[0] - np.interp((np.arange(64) + 0.5) / 3.2 - 0.5, np.arange(20), wide)).max() < 4


def test_another_background_repaints_and_keeps_name_and_mask(anna: Factory):
    faded().save(anna.source_folder() / "a.png")
    anna.put("b.png", 2)
    anna.go()
    before = anna.files()
    result = anna.result(rename.Settings(min_side=16, background="#336699"))
    assert (result.data["imported"], result.data["converted_again"]) == ([], ["0001.png"])
    changed = {name for name, sha in anna.files().items() if before.get(name) != sha}
    kept = f"set_aside/replaced/0001~{before['training_images/1_4nna/0001.png'][:8]}.png"
    assert changed == {"training_images/1_4nna/0001.png", kept}
    assert anna.files()[kept] == before["training_images/1_4nna/0001.png"]
    assert images.load(anna.folder / "0001.png").getpixel((23, 0)) == (0x33, 0x66, 0x99)
    assert anna.result(rename.Settings(min_side=16, background="#336699")).data["converted_again"] == []


def test_a_crop_without_the_transparent_part_leaves_no_stale_mask(anna: Factory):
    picture = drawn(1, (60, 20)).convert("RGBA")
    picture.putpixel((0, 0), (0, 0, 0, 0))
    picture.save(anna.source_folder() / "a.png")
    anna.go()
    anna.go(rename.Settings(min_side=16, crop="center"))
    with Image.open(anna.root / "masks" / "0001.png") as mask:
        assert (mask.size, mask.getextrema()) == ((20, 20), (255, 255))


def test_a_colour_that_is_none_is_said_first(anna: Factory):
    anna.put("a.png", 1)
    with pytest.raises(errors.SettingsError, match=r"background = 'wite': no such colour\n    background = \"white\""):
        anna.go(rename.Settings(background="wite"))
    assert not anna.folder.exists()


def test_masks_beside_pictures_are_no_pictures(anna: Factory, tmp_path: Path):
    assert masks_among([Path("a/masks/1.png"), Path("a/10_x/1.png"), Path("a/masks/venice.jpg")]) == {
        Path("a/masks/1.png")
    }
    faded().save(anna.source_folder() / "a.png")
    anna.go()
    other = foreign(anna, anna.root, trigger="x")
    (anna.root / "source").rename(tmp_path / "elsewhere")
    assert other.go(rename.Settings(min_side=16, to=tmp_path / "set")) == ["0001.png"]
    assert not (tmp_path / "set" / "masks").exists()


# ---------------------------------------------------------------- again


def test_other_settings_rename_nothing_and_spare_what_a_person_changed(anna: Factory):
    for seed, name in enumerate(("a.bmp", "b.bmp", "c.bmp")):
        drawn(seed, (2600, 100)).save(anna.source_folder() / name)
    anna.go()
    images.save_png(drawn(9, (50, 50)), anna.folder / "0002.png")
    (anna.folder / "0003.png").unlink()
    mended = digest(anna.folder / "0002.png")
    result = anna.result(rename.Settings(min_side=16, full_size=True))
    assert (result.data["imported"], result.data["converted_again"]) == ([], ["0001.png"])
    assert sorted(p.name for p in anna.folder.iterdir()) == ["0001.png", "0002.png"]
    assert images.size(anna.folder / "0001.png") == (2600, 100)
    assert digest(anna.folder / "0002.png") == mended
    assert "1 imported" not in result.summary
    assert "(1 converted again)" in result.summary


def test_another_folders_set_is_converted_again_in_place(anna: Factory, tmp_path: Path):
    photos = tmp_path / "photos"
    photos.mkdir()
    drawn(1, (2600, 100)).save(photos / "a.bmp")
    other = foreign(anna, photos)
    assert other.go(rename.Settings(min_side=16, to=tmp_path / "set")) == ["0001.png"]
    assert other.go(rename.Settings(min_side=16, to=tmp_path / "set", full_size=True)) == []
    assert images.size(tmp_path / "set" / "0001.png") == (2600, 100)
    assert other.go(rename.Settings(min_side=16, to=tmp_path / "other")) == ["0001.png"]


def test_one_more_original_is_one_decode(anna: Factory, monkeypatch: pytest.MonkeyPatch):
    for seed in range(12):
        anna.put(f"{seed}.png", seed)
    anna.put("twin.bmp", 3)
    anna.go()
    seen: list[str] = []
    real = images.decode
    monkeypatch.setattr(images, "decode", lambda path, *args: seen.append(path.name) or real(path, *args))
    anna.put("new.png", 99)
    assert anna.go() == ["0013.png"]
    assert seen == ["new.png"]


# ---------------------------------------------------------------- several at a time


def test_results_come_in_order_and_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    paths = [tmp_path / f"{i}.png" for i in range(30)]
    for i, path in enumerate(paths):
        images.save_png(drawn(i, (100, 100)), path)
    paths[7].write_bytes(b"words")
    monkeypatch.setattr(_conversion, "IN_FLIGHT_MPX", 0.035)  # three of these pictures
    lock, begun, taken, most = threading.Lock(), [0], [0], [0]
    real = _conversion.convert

    def counted(path: Path, conversion: Conversion) -> Converted:
        with lock:
            begun[0] += 1
            most[0] = max(most[0], begun[0] - taken[0])
        return real(path, conversion)

    monkeypatch.setattr(_conversion, "convert", counted)

    def results() -> Iterator[Converted | images.Unreadable]:
        for one in converted(paths, PLAIN):
            with lock:
                taken[0] += 1
            yield one

    found = list(results())
    assert isinstance(found[7], images.Unreadable)
    for i, one in enumerate(found):
        if i != 7:
            assert isinstance(one, Converted)
            assert one.png == images.png(drawn(i, (100, 100)))
    assert most[0] <= 5  # those in work, the one just taken, and one that costs nothing


def test_a_picture_larger_than_the_limit_goes_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for i in range(3):
        images.save_png(drawn(i, (100, 100)), tmp_path / f"{i}.png")
    monkeypatch.setattr(_conversion, "IN_FLIGHT_MPX", 0.001)
    assert len(list(converted(sorted(tmp_path.glob("*.png")), PLAIN))) == 3


# ---------------------------------------------------------------- refused


@pytest.mark.skipif(os.name == "nt", reason="needs pipes, and the right to make links")
def test_links_and_pipes_are_named_and_the_rest_goes_on(anna: Factory, tmp_path: Path):
    drawn(5).save(tmp_path / "private.png")
    (anna.source_folder() / "link.png").symlink_to(tmp_path / "private.png")
    os.mkfifo(anna.source / "pipe.png")
    with pytest.raises(errors.InputError, match=r"no pictures there(.|\n)*link\.png: a link"):
        anna.go()
    anna.put("a.png", 1)
    problems = {p.message: p.fatal for p in rename.check(anna.work, SMALL)}
    assert problems == {
        f"{anna.source / 'link.png'}: not taken: a link, which is not followed: put the file itself there": False,
        f"{anna.source / 'pipe.png'}: not taken: not a file but a pipe": False,
    }
    result = anna.result()
    assert result.data["imported"] == ["0001.png"]
    assert set(result.data["refused"]) == {"link.png", "pipe.png"}
    assert result.summary.endswith("2 refused")
    assert images.load(anna.folder / "0001.png").tobytes() == drawn(1).tobytes()
