"""Samples while training: they change nothing of it, and the page that shows them."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lorafactory import images
from lorafactory.families import Base
from lorafactory.training import gallery
from lorafactory.training.gallery import Gallery
from lorafactory.training.loop import Save, train
from lorafactory.training.plan import Example
from lorafactory.training.prompts import Prompt
from lorafactory.training.sample import decode
from lorafactory.training.settings import TrainSettings
from tests.training.conftest import change, same

ASKED = (
    Prompt("zqx, a dot <b>&\"'", "blurry", (32, 24), 5, 2, 3.0),
    Prompt("a dot", "", (16, 16), 6, 1, 1.0),
)


@pytest.fixture(scope="module")
def pictures(pictures: list[Example]) -> list[Example]:
    return pictures[:4]


@pytest.fixture(scope="module")
def short(quick: TrainSettings) -> TrainSettings:
    """Four steps an epoch, both encoders trained, samples every three steps."""
    return change(quick, text_encoder_lr=1e-3, sample_every_steps=3, save_at=(3,))


def run(base: Base, examples: list[Example], s: TrainSettings, where: Path, **more: Any) -> list[Save]:
    saves: list[Save] = []
    train(base, examples, s, cache=where / "cache", on_save=saves.append, **more)
    return saves


def test_training_is_the_same_with_and_without_samples(
    base: Base, pictures: list[Example], short: TrainSettings, tmp_path: Path
) -> None:
    shown = Gallery(tmp_path / "sample", "anna", ASKED, short, last=8)
    asked: list[tuple[int, int]] = []

    def on_sample(step: int, epoch: int) -> None:
        before = torch.get_rng_state()
        asked.append((step, epoch))
        shown.draw(base, step, epoch)
        assert torch.equal(before, torch.get_rng_state())

    drawn = run(base, pictures, short, tmp_path, on_sample=on_sample)
    plain = run(base, pictures, change(short, sample_every_steps=0), tmp_path)
    assert asked == [(0, 0), (3, 1), (6, 2), (8, 2)]
    assert [(s.epoch, s.step) for s in drawn] == [(1, 3), (2, 8)]
    assert all(same(one.tensors, other.tensors) for one, other in zip(drawn, plain, strict=True))
    # the adapter is in the pictures: the same noise becomes another picture as it learns
    first, later = (images.load(tmp_path / "sample" / f"anna-01-step{step:08}.png") for step in (0, 8))
    assert first.size == (32, 24) and first.tobytes() != later.tobytes()


def test_with_parked_text_encoders_too(
    base: Base, pictures: list[Example], short: TrainSettings, tmp_path: Path
) -> None:
    parked = change(short, text_encoder_lr=0, cache_text=True, shuffle_captions=False, tag_dropout=0)
    shown = Gallery(tmp_path / "sample", "anna", ASKED, parked, last=8)
    drawn = run(base, pictures, parked, tmp_path, on_sample=lambda step, epoch: shown.draw(base, step, epoch))
    plain = run(base, pictures, change(parked, sample_every_steps=0), tmp_path)
    assert same(drawn[-1].tensors, plain[-1].tensors)


@pytest.fixture
def painted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is drawn but a colour that tells the seed."""
    monkeypatch.setattr(
        gallery,
        "sample",
        lambda base, texts, seeds, size, **more: [Image.new("RGB", size, (seed, 0, 0)) for seed in seeds],
    )


@pytest.fixture
def album(painted: None, short: TrainSettings, tmp_path: Path) -> Callable[..., Gallery]:
    def make(asked: tuple[Prompt, ...] = ASKED) -> Gallery:
        return Gallery(tmp_path / "sample", "anna é", asked, short, last=8)

    return make


def page(shown: Gallery) -> str:
    return (shown.folder / "index.html").read_text(encoding="utf-8")


def test_the_page_reloads_itself_until_the_training_has_ended(album: Callable[..., Gallery], base: Base) -> None:
    shown = album()
    for step, epoch in ((0, 0), (3, 1)):
        shown.draw(base, step, epoch)
        assert '<meta http-equiv="refresh" content="10">' in page(shown)
    assert "step 3 of 8; this page reloads itself" in page(shown)
    shown.close("8 steps, finished")
    assert 'http-equiv="refresh"' not in page(shown) and "8 steps, finished" in page(shown)


def test_a_row_per_prompt_over_time(album: Callable[..., Gallery], base: Base) -> None:
    shown = album()
    for step, epoch in ((0, 0), (3, 1), (8, 2)):
        shown.draw(base, step, epoch)
    wanted = [f"anna é-{row:02}-step{step:08}.png" for row in (1, 2) for step in (0, 3, 8)]
    assert sorted(p.name for p in shown.folder.glob("*.png")) == wanted
    text = page(shown)
    linked = [name.replace("%20", " ").replace("%C3%A9", "é") for name in re.findall(r'<img src="([^"]+)"', text)]
    assert linked == [*reversed(wanted[:3]), *reversed(wanted[3:])]  # from the right edge on
    assert re.findall(r"<th><b>(.*?)</b>(.*?)</th>", text)[:3] == [
        ("step 8", " epoch 2"),
        ("step 3", " epoch 1"),
        ("the base", ""),
    ]
    assert ASKED[0].text in html.unescape(text) and ASKED[0].text not in text
    assert "http://" not in text and "https://" not in text and "<script" not in text


def test_a_resumed_training_goes_on_with_its_page(album: Callable[..., Gallery], base: Base) -> None:
    shown = album()
    shown.draw(base, 0, 0)
    shown.draw(base, 3, 1)
    other = replace(ASKED[0], text="another prompt", seed=9)
    again = album((other, ASKED[1]))
    again.draw(base, 3, 1)  # once more, after the state before it
    again.draw(base, 6, 2)
    told = json.loads((again.folder / "samples.json").read_text(encoding="utf-8"))
    by_row = {
        text: [e["step"] for e in told if e["prompt"]["text"] == text]
        for text in (ASKED[0].text, "another prompt", "a dot")
    }
    assert by_row == {ASKED[0].text: [0, 3], "a dot": [0, 3, 6], "another prompt": [3, 6]}
    assert all((again.folder / e["file"]).is_file() for e in told)
    assert images.load(again.folder / "anna é-03-step00000006.png").getpixel((0, 0)) == (9, 0, 0)


def test_a_device_that_is_full_ends_the_samples_and_not_the_training(
    album: Callable[..., Gallery], base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = album()
    shown.draw(base, 0, 0)

    def full(*args: object, **more: object) -> None:
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(gallery, "sample", full)
    assert shown.draw(base, 3, 1) == []
    assert "No samples from step 3 on" in shown.remark and shown.remark in page(shown)
    monkeypatch.undo()
    assert shown.draw(base, 6, 2) == []


def test_what_is_not_finite_is_grey(base: Base) -> None:
    broken = torch.full((1, base.latent_channels, 4, 4), float("nan"))
    assert decode(base, broken)[0].getcolors() == [(256, (128, 128, 128))]


def test_large_pictures_are_decoded_one_after_another(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    latents = torch.randn(3, base.latent_channels, 4, 4, generator=torch.Generator().manual_seed(0))
    together, decoded = decode(base, latents), base.vae.decode
    seen: list[int] = []
    monkeypatch.setattr(base.vae, "decode", lambda some: seen.append(len(some)) or decoded(some))
    monkeypatch.setattr("lorafactory.training.sample.AT_ONCE", 2 * (4 * base.latent_factor) ** 2)
    for one, other in zip(decode(base, latents), together, strict=True):
        assert np.abs(np.asarray(one, int) - np.asarray(other, int)).max() <= 1
    assert seen == [2, 1]
