"""Triggers: meaningless to CLIP, two to four tokens, the same every time."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorafactory.trigger import make_trigger, tokens


@pytest.mark.parametrize(
    ("name", "trigger"), [("anna", "4nna"), ("demo", "d3mo"), ("photos", "ph0tos"), ("cat", "c4t")]
)
def test_letters_become_digits_one_at_a_time(name: str, trigger: str):
    assert make_trigger(name) == trigger


def test_the_vocabulary_is_clips():
    assert tokens("cat") == ["cat</w>"]
    assert tokens("4nna") == ["4</w>", "n", "na</w>"] or len(tokens("4nna")) == 3


def test_a_name_in_another_script_gets_letters():
    assert make_trigger("小明") == make_trigger("小明") != make_trigger("小红")
    assert make_trigger("小明").isascii()


@given(st.text(min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_any_name_has_a_trigger(name: str):
    trigger = make_trigger(name)
    assert trigger.isalnum()
    assert trigger.isascii()
    assert trigger == trigger.lower()
    assert len(tokens(trigger)) >= 1
