"""What changed between two looks is told as moves, texts rewritten, files gone and made; and the way back fits it."""

from __future__ import annotations

from lorafactory.journal import Standing, differences
from lorafactory.recording import Change


def stood(**files: str) -> Standing:
    """Files by place, `_` for `/` and `__` for the dot; the value is the content, and its own hash."""
    named = {place.replace("__", ".").replace("_", "/"): text for place, text in files.items()}
    return Standing(named, {text: text.encode() for place, text in named.items() if place.endswith(".txt")})


def test_a_picture_is_followed_to_its_new_place_and_its_text_too():
    before = stood(a_1__png="P", a_1__txt="T", a_2__png="Q", a_2__txt="T")
    after = stood(b_1__png="P", b_1__txt="T", a_2__png="Q", a_2__txt="T")
    assert differences(before, after) == [
        Change("a/1.png", "b/1.png", "P", "P"),
        Change("a/1.txt", "b/1.txt", "T", "T"),
    ]


def test_texts_rewritten_in_place_are_no_moves_though_they_changed_places():
    before, after = stood(a_1__txt="T", a_2__txt="U"), stood(a_1__txt="U", a_2__txt="T")
    assert differences(before, after) == [
        Change("a/1.txt", "a/1.txt", "T", "U", b"T"),
        Change("a/2.txt", "a/2.txt", "U", "T", b"U"),
    ]


def test_a_picture_that_gave_way_to_another_has_moved():
    before, after = stood(a_1__png="P"), stood(a_1__png="Q", aside_1__png="P")
    assert differences(before, after) == [
        Change("a/1.png", "aside/1.png", "P", "P"),
        Change(None, "a/1.png", None, "Q"),
    ]


def test_what_is_gone_keeps_its_text_and_what_is_new_has_none():
    assert differences(stood(a_1__txt="T", a_1__png="P"), stood(a_2__txt="U")) == [
        Change("a/1.txt", None, "T", None, b"T"),
        Change("a/1.png", None, "P", None),
        Change(None, "a/2.txt", None, "U"),
    ]
    assert differences(stood(a_1__png="P"), stood(a_1__png="P")) == []
