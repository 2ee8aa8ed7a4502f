"""The prompts of a comparison: a person's own, and those made from the kind and the captions."""

from __future__ import annotations

import random

import pytest

from lorafactory.scoring.prompts import asked_of_all, prompts_for, tidy, typical

CAPTIONS = [
    "4nna, a woman in a hat, red hair",
    "4nna, a woman",
    "a woman on a horse by the sea, 4nna, smiling, at dusk",
]


@pytest.mark.parametrize("kind", ["person", "character", "style", "object"])
def test_prompts_are_made_from_kind_class_trigger_and_a_caption(kind: str) -> None:
    made = prompts_for((), kind, "", "4nna", CAPTIONS)
    assert [p.group for p in made] == ["like", "like", "unlike", "unlike", "unlike", "without", "words"]
    assert [p.trigger for p in made] == [True] * 5 + [False] * 2
    assert (made[0].text, made[0].plain) == ("4nna", "")
    assert (made[1].text, made[1].plain) == ("4nna, a woman in a hat, red hair", "a woman in a hat, red hair")
    assert made[6].text == made[6].plain == made[1].plain
    assert [p.caption for p in made] == [False, True, *[False] * 4, True]  # not for others to read
    assert len({p.text for p in made}) == 7
    assert all("{" not in p.text and ", ," not in p.text and "  " not in p.text for p in made)
    assert all(p.text == f"4nna, {p.plain}" for p in made[1:5])
    assert all("4nna" not in p.text for p in made[5:])


def test_without_captions_that_say_more_than_the_trigger_none_is_asked_for() -> None:
    assert [p.group for p in prompts_for((), "person", "", "4nna", ["4nna", ""])] == [
        "like",
        *["unlike"] * 3,
        "without",
    ]


def test_the_caption_is_the_one_of_middle_length_whatever_the_order() -> None:
    shuffled = CAPTIONS * 3
    random.Random(1).shuffle(shuffled)
    assert typical(shuffled, "4nna") == typical(CAPTIONS, "4nna") == "a woman in a hat, red hair"
    assert typical(["4nna, first line\n4nna, second line"], "4nna") == "first line"
    assert typical(["4nnabelle, a dog"], "4nna") == "4nnabelle, a dog"
    assert typical(["4nna"], "4nna") == typical([], "4nna") == ""


def test_a_persons_own_prompts_replace_the_made_ones() -> None:
    own = ("{trigger}", "{trigger}, a dog", "a {class}")
    made = prompts_for(own, "person", "woman", "4nna", CAPTIONS)
    assert [(p.text, p.group) for p in made] == [("4nna", "like"), ("4nna, a dog", "unlike"), ("a woman", "without")]
    asked = ("{trigger}, a red star", "{trigger}, a red star on blue", "{trigger}, a blue star on red")
    found = prompts_for(asked, "object", "", "4nna", ["4nna, a large red star on plain blue"])
    assert [p.group for p in found] == ["like", "like", "unlike"]  # a caption holds these words, in this order
    assert [p.caption for p in found] == [True, True, False] and not any(p.caption for p in made)
    assert all(p.trigger for p in asked_of_all(["a dog", "a cat"]))


def test_articles_and_gaps() -> None:
    assert prompts_for(("{trigger}, a {class}",), "object", "apple", "zqx")[0].text == "zqx, an apple"
    assert tidy(" , a ,  , b, ") == "a, b"
