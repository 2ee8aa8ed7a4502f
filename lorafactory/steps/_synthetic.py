"""What the steps share about pictures that were generated: the words they were drawn from are none to train on."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lorafactory import images
from lorafactory.errors import Problem
from lorafactory.step import Work
from lorafactory.steps._import import synthetic_prompt

SHOWN = 3


def drawn_from(work: Work) -> list[str]:
    """The prompts of the generated originals, by the `.json` beside them."""
    return [told for p in images.find_sources(work.originals) if (told := synthetic_prompt(p)) is not None]


def same_words(work: Work, prompts: Iterable[str]) -> list[Problem]:
    """A warning where captions, or the one text for all, say what pictures were drawn from, word for word.

    Seed 001: the prompt to train with is similar to the generating one, but not the same. The trigger, case and
    punctuation do not count.
    """
    said = {plain(work, prompt) for prompt in prompts} - {""}
    if not said:
        return []
    found = []
    text = str(work.recipe.table("caption").get("text", ""))
    if plain(work, text.replace("{class}", work.recipe.header.class_)) in said:
        found.append(f"caption.text = {text!r} is")
    names = [name for name, caption in work.set.captions().items() if plain(work, caption) in said]
    if names:
        found.append(f"{', '.join(names[:SHOWN])}{' ...' if len(names) > SHOWN else ''}: {len(names)} captions are")
    fix = "say it in other words, or let BLIP: a LoRA learns little from what the base draws by itself (seed 001)"
    told = "word for word what the pictures were generated from"
    return [Problem(f"{start} {told}", fix, fatal=False) for start in found]


def plain(work: Work, text: str) -> str:
    """The words of a text, without the trigger."""
    words = re.findall(r"\w+", text.replace("{trigger}", " ").casefold())
    return " ".join(word for word in words if word != work.trigger.casefold())
