"""Originals from the base: named by what makes them, told by a .json, drawn once. The sampler is a stand-in here."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from lorafactory import errors, images
from lorafactory.recipe import Header, Recipe
from lorafactory.step import Work
from lorafactory.steps import generate, rename
from lorafactory.workspace import LoraDir, Workspace


class Sampler:
    """Draws a plain picture whose colour tells prompt and seed."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.sizes: set[tuple[int, int]] = set()
        self.fail_after = 99

    def sample(self, base: Any, prompts: list[str], seeds: list[int], **told: Any) -> list[Image.Image]:
        if len(self.asked) >= self.fail_after:
            raise RuntimeError("out of memory")
        self.asked += zip(prompts, seeds, strict=True)
        self.sizes.add(told["size"])
        return [Image.new("RGB", told["size"], (len(p), s, 0)) for p, s in zip(prompts, seeds, strict=True)]


@pytest.fixture
def sampler(monkeypatch: pytest.MonkeyPatch) -> Sampler:
    made = Sampler()
    unet = SimpleNamespace(config=SimpleNamespace(sample_size=12))
    base = SimpleNamespace(parts={"unet": unet}, latent_factor=8)
    monkeypatch.setattr(generate, "load", lambda work: base)
    monkeypatch.setattr(generate, "model_identity", lambda work, kind: "the hash")
    monkeypatch.setitem(sys.modules, "lorafactory.training.sample", made)  # type: ignore[arg-type]
    return made


@pytest.fixture
def work(tmp_path: Path) -> Work:
    space = Workspace(tmp_path, "test")
    header = Header(trigger="4nna", base="pocket", **{"class": "star"})
    return Work(space, space.lora("anna"), Recipe(header, {}, {}))


def settings(*prompts: str, **values: Any) -> generate.Settings:
    return generate.Settings(prompts=prompts, **{"count": 2, **values})


def test_draws_every_prompt_with_every_seed(work: Work, sampler: Sampler):
    found = generate.run(work, settings("a red {class}", "sky", seed=5))
    assert sampler.asked == [("a red star", 5), ("a red star", 6), ("sky", 5), ("sky", 6)]
    assert sampler.sizes == {(96, 96)}
    assert len(found.data["drawn"]) == 4
    for path in images.find(work.place.source):
        told = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        assert (told["base"], told["base_sha256"], told["steps"]) == ("pocket", "the hash", 30)
        assert images.load(path).getpixel((0, 0)) == (len(told["prompt"]), told["seed"], 0)
        assert rename.synthetic_prompt(path) == told["prompt"]


def test_draws_nothing_twice_and_goes_on_after_an_interruption(work: Work, sampler: Sampler):
    sampler.fail_after = 2
    with pytest.raises(RuntimeError):
        generate.run(work, settings("a", "b", "c", batch=2))
    assert len(images.find(work.place.source)) == 2
    sampler.fail_after = 99
    assert len(generate.run(work, settings("a", "b", "c")).data["drawn"]) == 4
    assert generate.run(work, settings("c", "a", "b", "b")).summary == "generate: 0 drawn, 6 there already"
    assert len(generate.run(work, settings("a", cfg=3.0)).data["drawn"]) == 2
    assert len(images.find(work.place.source)) == 8


def test_another_folder_is_only_reported(work: Work, sampler: Sampler, tmp_path: Path):
    (tmp_path / "photos").mkdir()
    other = Work(work.workspace, LoraDir("photos", tmp_path / "photos", owned=False), work.recipe, apply=False)
    assert generate.run(other, settings("a")).summary == "generate: 2 would be drawn, 0 there already"
    assert sampler.asked == []
    assert list((tmp_path / "photos").iterdir()) == []


def test_check_lists_what_is_missing(work: Work):
    assert generate.check(work, settings("a {class}")) == []
    plain = Work(work.workspace, work.place, Recipe(Header(), {}, {}))
    assert [p.error for p in generate.check(plain, settings("a {class}"))] == [errors.SettingsError]
    assert [p.error for p in generate.check(plain, settings(" "))] == [errors.SettingsError]
