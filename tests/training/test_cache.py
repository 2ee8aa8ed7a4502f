"""Latents and texts are kept by content: shared where they are equal, made anew where anything differs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from lorafactory import families, images
from lorafactory.families import Base, Frame
from lorafactory.training import conditioning
from lorafactory.training.cache import Cache
from lorafactory.training.conditioning import Words
from lorafactory.training.latents import Pictures
from lorafactory.training.loop import Save, train
from lorafactory.training.plan import plan
from lorafactory.training.settings import TrainSettings
from tests.training.conftest import Draw, change

FRAME = Frame((32, 32), (0, 0), (32, 32))


class Counted:
    """A family that counts what it encodes."""

    def __init__(self) -> None:
        self.family = families.get("sd15")
        self.texts: list[str] = []
        self.pictures = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.family, name)

    def encode_captions(self, base: Base, captions: Sequence[str], *args: object, **more: object) -> dict[str, Tensor]:
        self.texts += captions
        return self.family.encode_captions(base, captions, *args, **more)  # type: ignore[arg-type]

    def encode_images(self, base: Base, pixels: Tensor) -> tuple[Tensor, Tensor]:
        self.pictures += len(pixels)
        return self.family.encode_images(base, pixels)


@pytest.fixture
def still(quick: TrainSettings) -> TrainSettings:
    """Captions that do not vary, encoded once for all."""
    return change(quick, shuffle_captions=False, tag_dropout=0, cache_text=True)


def test_an_entry_is_made_once(tmp_path: Path) -> None:
    made: list[int] = []

    def make(value: int) -> Callable[[], dict[str, Tensor]]:
        return lambda: made.append(value) or {"x": torch.tensor([value])}  # type: ignore[func-returns-value]

    on_disk = Cache(tmp_path)
    for what in ({"a": 1, "b": 2}, {"b": 2, "a": 1}):
        assert on_disk.get(what, make(1))["x"].tolist() == [1]
    assert Cache(tmp_path).get({"a": 1, "b": 2}, make(2))["x"].tolist() == [1]
    assert Cache(None).get({"a": 1, "b": 2}, make(3))["x"].tolist() == [3]
    next(tmp_path.iterdir()).write_bytes(b"torn")
    assert Cache(tmp_path).get({"a": 1, "b": 2}, make(4))["x"].tolist() == [4]
    assert made == [1, 3, 4]
    few = Cache(None, most=2)
    for value in (1, 2, 3, 1):
        few.get({"v": value}, make(value))
    assert made[3:] == [1, 2, 3, 1] and len(few.memory) == 2


def test_an_edited_picture_is_encoded_again(base: Base, draw: Draw, still: TrainSettings, tmp_path: Path) -> None:
    (example,) = draw(tmp_path / "set", 1)
    fit = plan([example], still).fits[example.name]
    family = Counted()
    first = Pictures(family, base, still, tmp_path)(example, fit)  # type: ignore[arg-type]
    again = Pictures(family, base, still, tmp_path)(example, fit)  # type: ignore[arg-type]
    assert family.pictures == 1 and torch.equal(first[0], again[0])
    Image.open(example.path).point(lambda value: 255 - value).save(example.path)
    edited = replace(example, sha256=images.sha256(example.path))
    other = Pictures(family, base, still, tmp_path)(edited, fit)  # type: ignore[arg-type]
    assert family.pictures == 2 and not torch.equal(first[0], other[0])
    Pictures(family, base, change(still, cache="memory"), tmp_path)(edited, fit)  # type: ignore[arg-type]
    assert family.pictures == 3 and len(list((tmp_path / "latents").iterdir())) == 2


def test_random_cuts_are_drawn_anew_and_kept_by_their_place(
    base: Base, draw: Draw, quick: TrainSettings, tmp_path: Path
) -> None:
    wide = [e for e in draw(tmp_path / "set", 2, repeats=6) if e.width == 48]
    s = change(quick, random_crop=True, flip=False, bucket_step=32, epochs=2)
    assert plan(wide, s).fits[wide[0].name].room == (16, 0)

    def run(seed: int) -> dict[str, Tensor]:
        saves: list[Save] = []
        train(base, wide, change(s, seed=seed), cache=tmp_path, on_save=saves.append)
        return saves[-1].tensors

    first = run(1)
    places = len(list((tmp_path / "latents").iterdir()))
    assert 1 < places <= 12  # draws, of 17 places
    again = run(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert len(list((tmp_path / "latents").iterdir())) == places


@pytest.mark.parametrize(
    ("edit", "encoded"),
    [
        ({}, []),
        ({"rank": 8}, []),
        ({"clip_skip": 2}, ["{}", ""]),
        ({"max_tokens": 150}, ["{}", ""]),
        ({"caption_prefix": "photo,"}, ["photo, {}"]),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else "",
)
def test_texts_on_disk_are_shared_by_runs_until_something_is_edited(
    base: Base, draw: Draw, still: TrainSettings, tmp_path: Path, edit: dict[str, object], encoded: list[str]
) -> None:
    examples = draw(tmp_path / "set", 1)
    fitted = [(e, plan(examples, still).fits[e.name]) for e in examples]
    first, second = Counted(), Counted()
    Words(first, base, still, cache=tmp_path).park(fitted)  # type: ignore[arg-type]
    assert set(first.texts) == {*(e.caption for e in examples), ""}  # captions may be dropped, so that one too
    Words(second, base, change(still, **edit), cache=tmp_path).park(fitted)  # type: ignore[arg-type]
    assert set(second.texts) == {text.format(examples[0].caption) for text in encoded}


def test_texts_of_another_precision_are_encoded_anew(
    base: Base, draw: Draw, still: TrainSettings, tmp_path: Path
) -> None:
    (example,) = draw(tmp_path / "set", 1)
    fitted = [(example, plan([example], still).fits[example.name])]
    for dtype, encoded in ((torch.float32, 2), (torch.float32, 0), (torch.bfloat16, 2)):
        told = Counted()
        Words(told, replace(base, dtype=dtype), still, cache=tmp_path).park(fitted)  # type: ignore[arg-type]
        assert len(told.texts) == encoded


def test_another_encoder_or_caption_never_meets_an_old_entry(
    base: Base, draw: Draw, still: TrainSettings, tmp_path: Path
) -> None:
    (example,) = draw(tmp_path / "set", 1)
    fitted = [(example, plan([example], still).fits[example.name])]
    edited = [(replace(example, caption="zqx, another"), fitted[0][1])]
    told = Counted()
    Words(told, base, still, cache=tmp_path).park(fitted)  # type: ignore[arg-type]
    known = len(told.texts)
    Words(told, base, still, cache=tmp_path).park(edited)  # type: ignore[arg-type]
    assert set(told.texts[known:]) == {"zqx, another"}
    known = len(told.texts)
    Words(told, families.get("sd15").tiny(seed=1), still, cache=tmp_path).park(fitted)  # type: ignore[arg-type]
    assert len(told.texts) > known


def test_the_text_cache_changes_no_number(base: Base, draw: Draw, still: TrainSettings, tmp_path: Path) -> None:
    examples = draw(tmp_path / "set", 2, repeats=3)

    def run(s: TrainSettings, cache: Path) -> dict[str, Tensor]:
        saves: list[Save] = []
        train(base, examples[:1], s, cache=cache, on_save=saves.append, held_out=examples[1:])
        return saves[-1].tensors

    plain = run(change(still, cache_text=False), tmp_path / "a")
    assert not (tmp_path / "a" / "text").exists()
    for s in (still, still, change(still, cache="memory")):
        found = run(s, tmp_path / "b")
        assert all(torch.equal(plain[name], found[name]) for name in plain)
    assert len(list((tmp_path / "b" / "text").iterdir())) > 0


def test_encoders_leave_when_all_is_encoded_and_come_back_when_needed(
    base: Base, draw: Draw, still: TrainSettings, tmp_path: Path
) -> None:
    (example,) = draw(tmp_path / "set", 1)
    words = Words(families.get("sd15"), base, still, cache=tmp_path)
    words.park([(example, plan([example], still).fits[example.name])])
    assert words.away
    words(["", example.caption], [FRAME, FRAME])
    assert words.away  # both were known
    words(["something else"], [FRAME])
    assert not words.away


def test_memory_of_varied_texts_is_bounded(base: Base, quick: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditioning, "REMEMBERED", 3)
    words = Words(families.get("sd15"), base, quick)
    for number in range(6):
        words([f"text {number}"], [FRAME])
    assert len(words.cache.memory) == 3


def test_a_trained_encoder_is_asked_every_time(base: Base, quick: TrainSettings) -> None:
    told = Counted()
    words = Words(told, base, change(quick, text_encoder_lr=1e-3))  # type: ignore[arg-type]
    for _ in range(2):
        words(["a", "b"], [FRAME, FRAME])
    assert told.texts == ["a", "b", "a", "b"]
    # the first family has no second encoder, so a rate for it alone trains nothing
    assert Words(told, base, change(quick, text_encoder_2_lr=1e-3)).frozen  # type: ignore[arg-type]
