"""Edits of captions: twice is as once, and nothing else is touched."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorafactory import wording
from lorafactory.errors import SettingsError
from lorafactory.pocket import world
from lorafactory.wording import Edits, core, dressed, mended, rule


def edited(text: str, e: Edits, own: bool = True) -> str:
    return dressed(mended(core(text, e), e), e, own=own)


@pytest.mark.parametrize(
    ("rules", "text", "after"),
    [
        (["a man => anna"], "a man and a mane", "anna and annae"),
        ([r"\ba man\b => anna"], "a man and a mane", "anna and a mane"),
        (["a woman => 4nna, a woman"], "a woman near a woman", "4nna, a woman near 4nna, a woman"),
        ([r"\ba (\w+) woman => 4nna, \1"], "a tall woman", "4nna, tall"),
        (["(, )?holding a cup =>"], "a man, holding a cup, outdoors", "a man, outdoors"),
        ([r"araf\w* =>"], "arafed woman , araffe", "woman"),
        ([r"\b(\w+) \1\b => \1"], "the the the cat", "the cat"),
        (["cat => dog", "dog => cow"], "a cat", "a cow"),
        (["x => y"], "  left   as it , is ", "  left   as it , is "),
    ],
)
def test_find_replace(rules, text, after):
    e = Edits(replace=tuple(map(rule, rules)))
    assert mended(text, e) == after
    assert mended(after, e) == after


def test_find_replace_that_never_ends_is_named():
    with pytest.raises(SettingsError, match=re.escape(r'"(\w+), (\w+) => \2, \1" changes "cat, dog"')):
        mended("cat, dog", Edits(replace=(rule(r"(\w+), (\w+) => \2, \1"),)))


@pytest.mark.parametrize("text", ["no arrow", "=> nothing", "( => open", r"a => \1"])
def test_a_rule_that_cannot_be_meant(text):
    with pytest.raises(SettingsError):
        rule(text)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a photo", "4nna, a photo, outdoors"),
        ("4nna, a photo", "4nna, a photo, outdoors"),
        ("4nna,a photo, outdoors", "4nna, a photo, outdoors"),
        ("a photo of 4nna", "a photo of 4nna, outdoors"),
        ("4nnabel, a photo", "4nna, 4nnabel, a photo, outdoors"),
        ("", ""),
    ],
)
def test_prefix_and_suffix_come_once(before, after):
    e = Edits(prefix="4nna, ", suffix=", outdoors", trigger="4nna")
    assert edited(before, e) == after
    assert edited(after, e) == after


def test_a_suffix_without_a_comma_is_a_word_of_its_own():
    e = Edits(suffix="at night")
    assert edited("a photo", e) == "a photo at night"
    assert edited("a photo that night", Edits(suffix="night")) == "a photo that night"
    assert edited("a photo of a midnight", Edits(suffix="night")) == "a photo of a midnight night"


def test_tags_are_added_and_taken_out_once():
    e = Edits(add=("Solo", "smile"), remove=("1girl", "Long Hair"))
    assert edited("1girl, solo, long hair, a hat, 1girls", e) == "solo, a hat, 1girls, smile"
    assert edited("1girl", e, own=False) == ""


WORDS = st.sampled_from(["a", "cat", "dog", "4nna", "smile", "with", "hat", ",", "and", "outdoors", "the"])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    text=st.lists(WORDS, max_size=12).map(" ".join),
    find=st.sampled_from(["cat", "a", r"\bthe\b", r"(\w+) hat", ", "]),
    put=st.sampled_from(["", "cat", "a cat", "the hat", r"\g<0>"]),
    prefix=st.sampled_from(["", "4nna, "]),
    suffix=st.sampled_from(["", ", outdoors", "at night"]),
    remove=st.sampled_from([(), ("cat",), ("smile", "a dog")]),
)
def test_twice_is_as_once(text, find, put, prefix, suffix, remove):
    e = Edits(prefix, suffix, (rule(f"{find} => {put}"),), (), remove, "4nna")
    try:
        once = edited(text, e)
    except SettingsError:
        return
    assert edited(once, e) == once


def test_edits_that_undo_each_other_are_named():
    e = Edits(replace=(rule("oil => ink"),), add=("oil",))
    assert wording.settled("a cat", Edits()) == "a cat"
    with pytest.raises(SettingsError, match='"a cat, oil" would become "a cat, ink, oil"'):
        wording.settled(edited("a cat", e), e)


# ---------------------------------------------------------------- phrases


@pytest.mark.parametrize(
    ("text", "phrases", "head"),
    [
        ("a woman with a hat holding a microphone", ["with a hat", "holding a microphone"], "a woman"),
        ("a woman, smiling, holding a cup, outdoors", ["holding a cup"], "a woman, smiling, outdoors"),
        ("a man in a suit and holding a cup", ["in a suit", "and holding a cup"], "a man"),
        ("a man with a microphone in his hand in a park", ["with a microphone in his hand", "in a park"], "a man"),
        ("a man with a hat on the head and glasses", ["with a hat on the head", "and glasses"], "a man"),
        ("a dog next to a tree", ["next to a tree"], "a dog"),
        ("holding a cup", [], "holding a cup"),
        ("an andalusian inn without wings", [], "an andalusian inn without wings"),
    ],
)
def test_a_sentence_is_cut_into_head_and_phrases(text, phrases, head):
    cut = wording.pieces(text)
    assert "".join(cut) == text
    assert [wording.bare(cut[i]) for i in wording.phrases(text)] == phrases
    assert wording.without(text, wording.phrases(text)) == head


def test_what_a_phrase_names():
    assert wording.noun(" in front of a plain red background") == "a plain red background"
    assert wording.noun(", and holding a remote control,") == "a remote control"


def test_an_accessory_of_a_drawn_scene_can_be_taken_out_alone():
    rng = random.Random(0)
    for _ in range(200):
        scene = world.random_scene(rng)
        text = scene.caption()
        extras = [
            i for i in wording.phrases(text) if wording.bare(wording.pieces(text)[i]) in (scene.extra, "with text")
        ]
        assert len(extras) == bool(scene.extra) + scene.text
        plain = f"a {scene.size} {scene.colour} {scene.shape} in front of {scene.backdrop()}"
        assert wording.without(text, extras) == plain


def test_phrases_of_most_captions():
    captions = [f"a {n} man holding a Remote Control" for n in "abcd"] + ["a man", "a man in a park"]
    assert wording.repeated(captions) == {"holding a remote control": 4}
    assert wording.repeated(captions[:4]) == {}
    assert wording.repeated([*captions, "a cat"]) == {}
