"""Words drawn without the LoRA: what a base knows is told from what it does not. Base, sampler and CLIP are fakes."""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lorafactory import images, trigger
from lorafactory.commands import probe
from lorafactory.encoders import clip
from lorafactory.steps import generate

COLOURS = {"red": (250, 5, 5), "woman": (5, 250, 250)}
NOISE = ((200, 60, 10), (10, 200, 60), (60, 10, 200), (150, 150, 20))


class Sampler:
    """Draws the noise of the seed, a little changed by the word; a word of COLOURS in its colour instead."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def sample(self, base: Any, words: list[str], seeds: list[int], **told: Any) -> list[Image.Image]:
        self.asked += zip(words, seeds, strict=True)
        return [Image.new("RGB", told["size"], self.colour(w, s)) for w, s in zip(words, seeds, strict=True)]

    def colour(self, word: str, seed: int) -> tuple[int, int, int]:
        shift = zlib.crc32(f"{word} {seed}".encode()) % 40
        red, green, blue = COLOURS.get(word, NOISE[seed % 4])
        return red, min(green + shift, 255), blue


class FakeClip:
    """Sees a picture's colour."""

    def prepare(self, picture: Image.Image) -> tuple[int, ...]:
        return picture.getpixel((0, 0))  # type: ignore[return-value]

    def encode_prepared(self, pixels: list[tuple[int, ...]]) -> np.ndarray:
        rows = np.array(pixels, dtype=np.float32) + 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def sampler(monkeypatch: pytest.MonkeyPatch) -> Sampler:
    made = Sampler()
    base = SimpleNamespace(parts={"unet": SimpleNamespace(config=SimpleNamespace(sample_size=12))}, latent_factor=8)
    monkeypatch.setattr(generate, "load", lambda path: base)
    monkeypatch.setitem(sys.modules, "lorafactory.training.sample", made)  # type: ignore[arg-type]
    monkeypatch.setattr(clip.Clip, "load", lambda model: FakeClip())
    monkeypatch.setattr(clip, "missing", lambda model: None)
    monkeypatch.setattr(clip, "identity", lambda model: "fake")
    return made


@pytest.fixture
def anna(space: Path) -> Path:
    """A LoRA with captions."""
    folder = space / "loras" / "anna"
    (folder / "training_images" / "1_4nna").mkdir(parents=True)
    (folder / "lora.toml").write_text('base = "pocket"\ntrigger = "4nna"\nclass = "woman"\n')
    for i, text in enumerate(("4nna, a woman in red", "4nna, the woman sits, red, red", "4nna, qqzw")):
        images.save_png(Image.new("RGB", (96, 96), (i, 0, 0)), folder / "training_images" / "1_4nna" / f"{i:04}.png")
        (folder / "training_images" / "1_4nna" / f"{i:04}.txt").write_text(text)
    return folder


def means(said: Any) -> dict[str, bool]:
    return {told["word"]: told["means"] for told in json.loads(said.out)["words"]}


def test_words_the_base_knows_are_told_from_those_it_does_not(lora: Callable[..., Any], anna: Path, sampler: Sampler):
    said = lora("probe", "anna", "--json")
    assert said.code == 0, said.err
    assert means(said) == {"woman": True, "red": True, "4nna": False, "sits": False, "qqzw": False}
    with Image.open(anna / "probe.png") as drawn:
        assert drawn.width > 4 * 128 and drawn.height > 7 * 128
    asked = len(sampler.asked)
    assert asked == (5 + 8) * 4
    lora("probe", "anna", "--word", "red", "--word", "sofa")
    assert len(sampler.asked) == asked + 4


def test_a_trigger_that_means_something_is_said(lora: Callable[..., Any], anna: Path, sampler: Sampler):
    said = lora("probe", "anna", "--trigger", "red", "--word", "4nna")
    assert "the trigger red means something to the base: choose another" in said.out
    assert "means nothing" in next(line for line in said.out.splitlines() if "4nna (word)" in line)
    fine = lora("probe", "anna", "--word", "qqzw", "--class", "zzq")
    assert "none of the words means anything" in fine.out


def test_a_folder_gets_no_sheet_unless_it_is_asked_for(
    lora: Callable[..., Any], space: Path, sampler: Sampler, tmp_path: Path
):
    (tmp_path / "mine").mkdir()
    line = ("probe", "mine", "--base", "pocket", "--word", "red", "--seeds", 2, "--made-up", 4)
    assert lora(*line).code == 0 and list((tmp_path / "mine").iterdir()) == []
    assert lora(*line, "--sheet", tmp_path / "out" / "sheet.png").code == 0
    assert (tmp_path / "out" / "sheet.png").is_file()
    nothing = lora("probe", "mine", "--base", "pocket")
    assert nothing.code == 3 and "--word WORD" in nothing.err


def test_without_clip_nothing_is_drawn(
    lora: Callable[..., Any], anna: Path, sampler: Sampler, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(clip, "missing", lambda model: "CLIP is not on this machine: x, about 600 MB")
    said = lora("probe", "anna")
    assert said.code == 3 and "600 MB" in said.err and sampler.asked == []


def test_the_captions_common_words_without_the_little_ones():
    captions = ["A woman, the woman, in RED", "red and blue 1girl", "blue_sky red"]
    assert probe.common_words(captions, 3) == ["red", "blue", "woman"]
    assert probe.common_words(captions, 9, known={"Red": "trigger"}) == ["blue", "woman", "1girl", "sky"]


def test_made_up_words_are_no_words():
    words = probe.made_up(12)
    assert len(set(words)) == 12 and words[:4] == probe.made_up(4)
    assert all(2 <= len(trigger.tokens(word)) <= 4 for word in words)


def test_both_measures_count_in_spreads_of_the_made_up_words():
    def rows(*degrees: float) -> np.ndarray:
        return np.stack([[np.cos(np.radians(d)), np.sin(np.radians(d))] for d in degrees]).astype(np.float32)

    vectors = {"a": rows(0, 60), "b": rows(2, 63), "c": rows(1, 58), "d": rows(359, 61)}
    same_place, elsewhere, all_alike = rows(1, 60), rows(100, 160), rows(30, 30)
    found = probe.judge(
        {"same": "trigger", "else": "word", "one": "word"},
        {**vectors, "same": same_place, "else": elsewhere, "one": all_alike},
        list(vectors),
        3.0,
    )
    told = {t.word: t for t in found}
    assert not told["same"].means and abs(told["same"].alike) < 2
    assert told["else"].means and told["else"].moved > 3 and abs(told["else"].alike) < 2
    assert told["one"].means and told["one"].alike > 3
    assert found[-1].word == "same"
