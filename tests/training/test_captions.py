"""Captions vary as kohya varies them, and the same draw gives the same caption."""

from __future__ import annotations

from lorafactory.training.captions import vary
from lorafactory.training.randomness import generator

TAGS = "zqx, red, big, round"


def draws(count: int = 200, **options: object) -> list[str]:
    return [vary(TAGS, generator(0, "caption", i), **options) for i in range(count)]  # type: ignore[arg-type]


def test_without_options_a_caption_is_left_as_it_is() -> None:
    assert vary("a  dog ,sitting", generator(0)) == "a  dog ,sitting"
    assert vary("a dog", generator(0), prefix="zqx,") == "zqx, a dog"


def test_shuffling_keeps_the_first_tags_and_every_tag() -> None:
    found = draws(shuffle=True, keep_tokens=1)
    assert {text.split(", ")[0] for text in found} == {"zqx"}
    assert {tuple(sorted(text.split(", "))) for text in found} == {("big", "red", "round", "zqx")}
    assert len(set(found)) == 6


def test_dropping_tags_keeps_the_first_ones_and_the_order() -> None:
    found = draws(400, tag_dropout=0.5, keep_tokens=1)
    assert all(text.startswith("zqx") for text in found)
    assert set(found) == {
        ", ".join(["zqx", *(t for t, kept in zip(("red", "big", "round"), (a, b, c), strict=True) if kept)])
        for a in (0, 1)
        for b in (0, 1)
        for c in (0, 1)
    }
    assert draws(5, tag_dropout=1.0, keep_tokens=2) == ["zqx, red"] * 5


def test_dropping_whole_captions() -> None:
    found = draws(1000, caption_dropout=0.25)
    assert set(found) == {"", TAGS}
    assert 200 < found.count("") < 300


def test_the_draw_decides_and_nothing_else() -> None:
    options = {"shuffle": True, "tag_dropout": 0.3, "caption_dropout": 0.1}
    assert draws(50, **options) == draws(50, **options)
    # one option does not shift the draws of another
    kept = [text for text in draws(50, shuffle=True, caption_dropout=0.5) if text]
    assert kept and set(kept) <= set(draws(50, shuffle=True))
