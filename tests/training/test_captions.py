"""Captions vary as kohya varies them, and the same draw gives the same caption."""

from __future__ import annotations

import itertools

import pytest
import torch

from lorafactory.training.captions import Source, steady, vary
from lorafactory.training.randomness import generator
from lorafactory.training.settings import TrainSettings

TAGS = "zqx, red, big, round"


def source(number: int) -> Source:
    def draw(stream: str) -> torch.Generator:
        return generator(0, stream, number)

    return draw


def draws(count: int = 200, caption: str = TAGS, trigger: str = "", **options: object) -> list[str]:
    s = TrainSettings.model_validate(options)
    return [vary(caption, s, source(i), trigger=trigger) for i in range(count)]


def one(caption: str, **options: object) -> str:
    return draws(1, caption, **options)[0]


def test_without_options_a_caption_is_left_as_it_is() -> None:
    assert one("a  dog ,sitting") == "a  dog ,sitting"


def test_prefix_and_suffix_stand_a_blank_away() -> None:
    assert one("a dog", caption_prefix="zqx,", caption_suffix=", photo") == "zqx, a dog , photo"
    assert one("a dog", caption_prefix="zqx,", shuffle_captions=True, keep_tokens=2) == "zqx, a dog"


def test_shuffling_keeps_the_first_tags_and_every_tag() -> None:
    found = draws(shuffle_captions=True, keep_tokens=1)
    assert {text.split(", ")[0] for text in found} == {"zqx"}
    assert {tuple(sorted(text.split(", "))) for text in found} == {("big", "red", "round", "zqx")}
    assert len(set(found)) == 6


def test_shuffling_keeps_the_trigger_first_where_nobody_says_what_is_kept() -> None:
    assert {t.split(", ")[0] for t in draws(trigger="zqx", shuffle_captions=True)} == {"zqx"}
    # wherever it stands, in any case, as a word of its own
    for caption in ("red, photo of ZQX, big, round", "zqxy, big, a zqx dog, red"):
        found = draws(caption=caption, trigger="zqx", shuffle_captions=True)
        assert {t.split(", ")[0] for t in found} == {next(p for p in caption.split(", ") if " " in p)}
        assert len(set(found)) == 6
    assert len({t.split(", ")[0] for t in draws(trigger="other", shuffle_captions=True)}) == 4
    assert draws(5, trigger="zqx", tag_dropout=1.0) == ["zqx"] * 5


def test_the_separator_keeps_what_is_before_it_and_after_a_second_one() -> None:
    caption = "zqx, a dog ||| red, big, round ||| photo, grainy"
    found = draws(caption=caption, shuffle_captions=True)
    assert {(*t.split(", ")[:2], *t.split(", ")[-2:]) for t in found} == {("zqx", "a dog", "photo", "grainy")}
    assert len(set(found)) == 6
    assert draws(3, caption, tag_dropout=1.0) == ["zqx, a dog, photo, grainy"] * 3
    assert one("a|||b|||c|||d", shuffle_captions=True) == "a, b, c, d"
    # the model never reads it, though nothing be shuffled
    assert one(caption) == "zqx, a dog, red, big, round, photo, grainy"
    assert one("a ||| b", keep_separator="") == "a ||| b"


def test_the_second_separator_keeps_tags_together() -> None:
    found = draws(caption="zqx, red;;; blue, big", shuffle_captions=True, keep_tokens=1)
    assert set(found) == {"zqx, red, blue, big", "zqx, big, red, blue"}
    assert one("red;;;blue") == "red,blue"
    assert one("red;;;blue", secondary_separator="") == "red;;;blue"


def test_another_separator_of_tags() -> None:
    found = draws(caption="zqx; red, dark; big", caption_separator=";", shuffle_captions=True, keep_tokens=1)
    assert set(found) == {"zqx, red, dark, big", "zqx, big, red, dark"}


def test_dropping_tags_keeps_the_first_ones_and_the_order() -> None:
    found = draws(400, tag_dropout=0.5, keep_tokens=1)
    assert set(found) == {
        ", ".join(["zqx", *(t for t, kept in zip(("red", "big", "round"), which, strict=True) if kept)])
        for which in itertools.product((0, 1), repeat=3)
    }
    assert draws(5, tag_dropout=1.0, keep_tokens=2) == ["zqx, red"] * 5


def test_dropping_whole_captions() -> None:
    found = draws(1000, caption_dropout=0.25)
    assert set(found) == {"", TAGS}
    assert 200 < found.count("") < 300
    s = TrainSettings(caption_dropout_every=3)
    assert [vary("a", s, source(0), epoch=epoch) for epoch in range(1, 8)] == ["a", "a", "", "a", "a", "", "a"]


def test_wildcards_and_lines() -> None:
    caption = "a {red|blue} dog, {{x}}\na cat"
    assert set(draws(caption=caption, wildcards=True)) == {"a red dog, {x}", "a blue dog, {x}", "a cat"}
    assert set(draws(caption=caption)) == {"a {red|blue} dog, {{x}}"}
    # every line has the prefix
    assert set(draws(caption="a\nb", wildcards=True, caption_prefix="zqx,")) == {"zqx, a", "zqx, b"}
    assert steady(caption, TrainSettings(wildcards=True)) == "a red dog, {x}"


def test_captions_grow_while_warming_up() -> None:
    def at(step: int, **options: object) -> str:
        s = TrainSettings.model_validate({"token_warmup": 10, "keep_tokens": 1, **options})
        return vary("zqx, a, b, c, d, e", s, source(0), step=step, steps=40)

    # floor(step * (5 loose parts - 1) / 10) + 1
    assert [len(at(step).split(", ")) - 1 for step in range(12)] == [1, 1, 1, 2, 2, 3, 3, 3, 4, 4, 5, 5]
    assert at(0, token_warmup_min=0) == "zqx"
    assert at(4) == "zqx, a, b"
    assert at(9, token_warmup=0.25) == at(9) and at(10, token_warmup=0.25) == "zqx, a, b, c, d, e"


def test_the_draw_decides_and_nothing_else() -> None:
    options = {"shuffle_captions": True, "tag_dropout": 0.3, "caption_dropout": 0.1}
    assert draws(50, **options) == draws(50, **options)
    # one option does not shift the draws of another
    plain = draws(50, shuffle_captions=True)
    dropped = draws(50, shuffle_captions=True, caption_dropout=0.5)
    assert [a for a, b in zip(plain, dropped, strict=True) if b] == [b for b in dropped if b] != []
    assert draws(50, shuffle_captions=True, wildcards=True) == plain


@pytest.mark.parametrize("caption", ["", " , ,", "zqx"])
def test_little_to_vary(caption: str) -> None:
    options = {"shuffle_captions": True, "tag_dropout": 0.5, "keep_tokens": 3, "token_warmup": 5}
    assert draws(3, caption, trigger="zqx", **options) == [caption.strip(" ,")] * 3
