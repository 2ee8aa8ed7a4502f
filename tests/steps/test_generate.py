"""Originals from a base: named by what makes them, told by a .json, drawn once. The sampler is a stand-in here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from judged_sets import FakeRun, fake_clip
from PIL import Image

from lorafactory import chain, errors, images
from lorafactory.encoders import clip
from lorafactory.past import Past
from lorafactory.recipe import Header, Recipe
from lorafactory.step import Note, Work
from lorafactory.steps import generate
from lorafactory.steps._import import synthetic_prompt
from lorafactory.store import Store
from lorafactory.workspace import LoraDir, ModelSet, Workspace, model_set

ANGLES = {"angle": ("left", "right"), "scene": ("forest", "street", "café")}


class Sampler:
    """Draws a plain picture whose colour tells prompt and seed."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.sizes: set[tuple[int, int]] = set()
        self.loaded: list[Path] = []
        self.fail_after = 99
        self.colour: Callable[[str, int], tuple[int, int, int]] = lambda prompt, seed: (len(prompt), seed, 0)

    def load(self, models: ModelSet) -> Any:
        assert models.base is not None
        self.loaded.append(models.base)
        unet = SimpleNamespace(config=SimpleNamespace(sample_size=12))
        return SimpleNamespace(parts={"unet": unet}, latent_factor=8)

    def sample(self, base: Any, prompts: list[str], seeds: list[int], **told: Any) -> list[Image.Image]:
        if len(self.asked) >= self.fail_after:
            raise RuntimeError("out of memory")
        self.asked += zip(prompts, seeds, strict=True)
        self.sizes.add(told["size"])
        return [Image.new("RGB", told["size"], self.colour(p, s)) for p, s in zip(prompts, seeds, strict=True)]


@pytest.fixture
def sampler(monkeypatch: pytest.MonkeyPatch) -> Sampler:
    made = Sampler()
    monkeypatch.setattr(generate, "load", made.load)
    monkeypatch.setitem(sys.modules, "lorafactory.training.sample", made)  # type: ignore[arg-type]
    return made


@pytest.fixture
def work(tmp_path: Path) -> Work:
    space = Workspace(tmp_path, "test")
    header = Header(trigger="4nna", base="pocket", **{"class": "star"})
    return Work(space, space.lora("anna"), Recipe(header, {}, {}))


def settings(*prompts: str, **values: Any) -> generate.Settings:
    return generate.Settings(prompts=prompts, **{"count": 2, **values})


def drawn(work: Work) -> dict[str, list[int]]:
    """Prompt to the seeds whose pictures are in source/."""
    found: dict[str, list[int]] = {}
    for path in images.find(work.place.source):
        told = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        found.setdefault(told["prompt"], []).append(told["seed"])
    return {prompt: sorted(seeds) for prompt, seeds in found.items()}


# ---------------------------------------------------------------- what is drawn


def test_draws_every_prompt_with_every_seed(work: Work, sampler: Sampler):
    found = generate.run(work, settings("a red {class}", "sky", seed=5))
    assert sampler.asked == [("a red star", 5), ("a red star", 6), ("sky", 5), ("sky", 6)]
    assert sampler.sizes == {(96, 96)}
    assert len(found.data["drawn"]) == 4
    for path in images.find(work.place.source):
        told = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        assert (told["base"], told["steps"], len(told["base_sha256"])) == ("pocket", 30, 64)
        assert told["sha256"] == images.sha256(path)
        assert images.load(path).getpixel((0, 0)) == (len(told["prompt"]), told["seed"], 0)
        assert synthetic_prompt(path) == told["prompt"]


def test_the_grid_has_every_combination_of_the_axes_a_prompt_names(work: Work):
    found = generate.grid(work, settings("{class}, {angle}, {scene}", "{trigger} {angle}", "plain", axes=ANGLES))
    first = [f"star, {angle}, {scene}" for angle in ("left", "right") for scene in ("forest", "street", "café")]
    assert found == [*first, "4nna left", "4nna right", "plain"]
    turned = {"scene": ("a {class} shop",)}
    assert generate.grid(work, settings("in {scene}", axes=turned)) == ["in a star shop"]


def test_the_plan_is_said_before(work: Work, sampler: Sampler):
    s = settings("{angle} {scene}", axes=ANGLES, over=1.5, count=3)
    said = "generate: 6 prompts x 5 seeds = 30 pictures with pocket, 3 of each prompt stay, 30 to be drawn"
    assert generate.plan_line(work, s) == said
    generate.run(work, settings("left forest", count=3))
    assert generate.plan_line(work, s).endswith("27 to be drawn")


def test_another_base_draws(work: Work, sampler: Sampler, monkeypatch: pytest.MonkeyPatch):
    pocket = model_set(work.workspace, "pocket").base
    other = work.workspace.root / "models" / "bigBase_v2.safetensors"
    other.parent.mkdir()
    other.write_bytes(b"weights")
    (work.workspace.root / "lorafactory.toml").write_text(f'models = ["{other.parent.as_posix()}"]\n')
    work = replace(work, workspace=Workspace(work.workspace.root, "test"))
    generate.run(work, settings("a"))
    own = generate.sees(work, settings("a"))
    big = settings("a", base="bigbase")
    assert generate.run(work, big).data["there"] == 0
    assert sampler.loaded == [pocket, other]
    assert generate.sees(work, big) != own
    assert {json.loads(p.read_text())["base"] for p in work.place.source.glob("*.json")} == {"pocket", "bigbase"}
    (problem,) = generate.check(work, big)
    assert problem.error is errors.BaseError and "bigBase_v2.safetensors" in problem.message
    assert "nobase" in generate.check(work, settings("a", base="nobase"))[0].message


# ---------------------------------------------------------------- what is there already


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


def test_a_batch_that_breaks_off_keeps_its_first_pictures(
    work: Work, sampler: Sampler, monkeypatch: pytest.MonkeyPatch
):
    save, written = images.save_png, []

    def power_cut(image: Image.Image, path: Path) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        save(image, path)
        written.append(path)

    monkeypatch.setattr(images, "save_png", power_cut)
    with pytest.raises(KeyboardInterrupt):
        generate.run(work, settings("a", count=4))
    assert len(images.find(work.place.source)) == 2
    monkeypatch.setattr(images, "save_png", save)
    sampler.asked.clear()
    generate.run(work, settings("a", count=4))
    assert sampler.asked == [("a", 2), ("a", 3)]


def test_what_a_person_took_out_is_not_drawn_again(work: Work, sampler: Sampler):
    generate.run(work, settings("a"))
    gone = images.find(work.place.source)[0]
    gone.unlink()
    assert generate.run(work, settings("a", "b")).summary == "generate: 2 drawn, 1 there already, 1 taken out earlier"
    assert drawn(work)["b"] == [0, 1] and len(drawn(work)["a"]) == 1
    gone.with_suffix(".json").unlink()
    assert generate.run(work, settings("a", "b")).data["drawn"] == [gone.name]


def test_another_folder_is_only_reported(work: Work, sampler: Sampler, tmp_path: Path):
    (tmp_path / "photos").mkdir()
    other = Work(work.workspace, LoraDir("photos", tmp_path / "photos", owned=False), work.recipe, apply=False)
    assert generate.run(other, settings("a")).summary == "generate: 2 would be drawn, 0 there already"
    assert sampler.asked == []
    assert list((tmp_path / "photos").iterdir()) == []


# ---------------------------------------------------------------- the most cohesive stay


def angle(degrees: float) -> np.ndarray:
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], dtype=np.float32)


def test_the_centre_is_that_of_the_majority_not_of_twins():
    degrees = [60, 60.5, 61, 0, 3, 6, 9, 12, 15]
    scores = generate.nearness(np.stack([angle(d) for d in degrees]))
    assert scores.argmax() == degrees.index(6) or scores.argmax() == degrees.index(9)
    assert set(np.argsort(scores)[:3]) == {0, 1, 2}
    assert (np.abs(scores) <= 1 + 1e-6).all()


def odd_ones(prompt: str, seed: int) -> tuple[int, int, int]:
    """Reddish under `warm`, blueish under `cold`; seeds 1 and 4 are green."""
    strong = 200 + seed
    return (0, 255, 0) if seed in (1, 4) else (strong, 9, 9) if prompt == "warm" else (9, 9, strong)


def test_the_odd_ones_of_each_prompt_are_set_aside_and_recorded(
    work: Work, sampler: Sampler, monkeypatch: pytest.MonkeyPatch
):
    fake_clip(monkeypatch)
    sampler.colour = odd_ones
    run = FakeRun()
    run.made = lambda *told: None  # type: ignore[attr-defined]
    work = replace(work, note=Note(run))  # type: ignore[arg-type]
    s = settings("warm", "cold", count=4, over=1.5)
    found = generate.run(work, s)
    assert drawn(work) == {"warm": [0, 2, 3, 5], "cold": [0, 2, 3, 5]}
    assert found.summary == "generate: 12 drawn, 0 there already, 4 set aside as less alike"
    aside = sorted((work.place.root / "set_aside" / "less_alike").iterdir())
    assert sorted(found.data["set_aside"]) == [p.name for p in aside]
    for path in aside:
        told = run.told(path.name, "less alike")
        assert told["score"] < told["threshold"]
        recorded = json.loads((work.place.source / path.name).with_suffix(".json").read_text(encoding="utf-8"))
        assert recorded["set_aside"] == "less alike" and recorded["seed"] in (1, 4)
    kept = [told for _, verdict, rule, told in run.rows if (verdict, rule) == ("kept", "less alike")]
    assert len(kept) == 8 and all(told["score"] >= told["threshold"] for told in kept)
    assert (
        generate.run(work, s).summary
        == "generate: 0 drawn, 8 there already, 4 taken out earlier, 0 set aside as less alike"
    )


def test_who_was_put_back_or_imported_stays(work: Work, sampler: Sampler, monkeypatch: pytest.MonkeyPatch):
    fake_clip(monkeypatch)
    sampler.colour = odd_ones
    s = settings("warm", count=4, over=1.5)
    first, second = generate.run(work, s).data["set_aside"]
    aside = work.place.root / "set_aside" / "less_alike"
    (aside / first).rename(work.place.source / first)
    assert generate.run(work, s).data["set_aside"] == []
    assert drawn(work) == {"warm": [0, 1, 2, 3, 5]} and (aside / second).exists()
    used = {images.sha256(p): "0001.png" for p in images.find(work.place.source)}
    more = generate.run(replace(work, past=Past(imported=used)), settings("warm", count=4, over=2.0))
    assert len(more.data["drawn"]) == 2 and sorted(more.data["set_aside"]) == sorted(more.data["drawn"])
    assert drawn(work) == {"warm": [0, 1, 2, 3, 5]}


def test_of_two_pictures_all_prompts_tell_which_is_odd(work: Work, sampler: Sampler, monkeypatch: pytest.MonkeyPatch):
    fake_clip(monkeypatch)
    sampler.colour = lambda prompt, seed: (0, 255, 0) if (prompt, seed) in (("b", 0), ("d", 1)) else (200, 9, seed)
    generate.run(work, settings("a", "b", "c", "d", count=1, over=2))
    assert drawn(work)["b"] == [1] and drawn(work)["d"] == [0]


def test_without_clip_no_more_than_the_count_is_drawn(work: Work, sampler: Sampler, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(clip, "missing", lambda model: "CLIP is not on this machine: x, about 600 MB")
    s = settings("a", over=3)
    (problem,) = generate.check(work, s)
    assert problem.fatal and "600 MB" in problem.message and "--no-clip" in problem.fix
    assert generate.check(work, settings("a")) == generate.check(work, settings("a", over=3, no_clip=True)) == []
    generate.run(work, settings("a", over=3, no_clip=True))
    assert drawn(work) == {"a": [0, 1]}


# ---------------------------------------------------------------- checks


def test_check_lists_what_is_missing(work: Work):
    assert generate.check(work, settings("a {class}, {trigger}")) == []
    plain = Work(work.workspace, work.place, Recipe(Header(), {}, {}))
    assert [p.error for p in generate.check(plain, settings("a {class}"))] == [errors.SettingsError]
    assert [p.error for p in generate.check(plain, settings(" "))] == [errors.SettingsError]
    axes = {"angle": (), "class": ("x",), "mood": ("sad",)}
    found = generate.check(work, settings("{angle} {scene} {class}", axes=axes))
    assert [p.message for p in found] == [
        "generate: no axis says what {scene} is",
        "generate.axes: angle has no words",
        "generate.axes: class is the LoRA's own word",
        "generate.axes: no prompt has {mood}",
    ]
    assert [p.fatal for p in found] == [True, True, True, False]


def test_words_that_pictures_were_drawn_from_are_no_captions(work: Work, sampler: Sampler):
    s = settings("a {angle} {class}", axes={"angle": ("large", "small")})
    recipe = Recipe(work.recipe.header, {"caption": {"text": "{trigger}, A large {class}."}}, {})
    (problem,) = generate.check(replace(work, recipe=recipe), s)
    assert not problem.fatal and "word for word" in problem.message and "seed 001" in problem.fix
    other = Recipe(work.recipe.header, {"caption": {"text": "{trigger}, a huge {class}"}}, {})
    assert generate.check(replace(work, recipe=other), s) == []
    folder = work.place.images / "1_4nna"
    folder.mkdir(parents=True)
    images.save_png(Image.new("RGB", (8, 8)), folder / "0001.png")
    (folder / "0001.txt").write_text("4nna, a small star\n")
    (problem,) = generate.check(work, s)
    assert problem.message.startswith("0001.png: 1 captions are word for word")


# ---------------------------------------------------------------- in the chain


def test_the_chain_draws_imports_and_marks_as_synthetic(work: Work, sampler: Sampler, tmp_path: Path):
    table = {"generate": {"prompts": ["a {class}"], "count": 2}, "rename": {"min_side": 8}}
    work = replace(work, recipe=Recipe(work.recipe.header, table, {}))
    links = chain.links(work, "rename")
    assert [link.name for link in links] == ["generate", "rename"]
    said: list[str] = []
    with Store(tmp_path / "lorafactory.db") as store:
        chain.run(work, links, store, say=lambda result: said.append(result.summary))
        assert said[0] == "generate: 1 prompts x 2 seeds = 2 pictures with pocket, 2 to be drawn"
        assert [p.name for p in work.set.pictures] == ["0001.png", "0002.png"]
        why = {d.image: d.note for d in store.decisions(lora="anna") if d.verdict == "imported"}
        assert why == dict.fromkeys(("0001.png", "0002.png"), "synthetic: a star")
        results = chain.run(work, links, store, say=lambda result: None)
        assert all(result.skipped for result in results.values()) and len(sampler.asked) == 2
    no_table = replace(work, recipe=Recipe(work.recipe.header, {}, {}))
    assert [link.name for link in chain.links(no_table, "rename")] == ["rename"]


def test_the_option_base_draws_and_axes_are_a_table(
    lora: Callable[..., Any], space: Path, sampler: Sampler, tmp_path: Path
):
    (tmp_path / "mine").mkdir()
    axes = '{angle = ["left", "right"]}'
    said = lora(
        "generate", "mine", "--prompts", "x {angle}", "--axes", axes, "--count", 1, "--base", "pocket", "--apply"
    )
    assert said.code == 0, said.err
    assert sampler.asked == [("x left", 0), ("x right", 0)]
    assert len(images.find(tmp_path / "mine")) == 2
