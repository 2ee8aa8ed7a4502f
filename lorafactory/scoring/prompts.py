"""The prompts of a comparison: a person's, or four that suit the kind of thing that was learned."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

MADE = {
    "person": ("portrait of a {class} in a snowy forest", "a {class} in a red coat in a café", "portrait of a {class}"),
    "character": ("a {class} on a beach at sunset", "a {class} riding a bicycle through a city", "a {class}"),
    "style": ("a lighthouse on a cliff, {class}", "a bowl of fruit on a table, {class}", "a lighthouse on a cliff"),
    "object": ("a {class} on a wooden table", "a {class} in the snow", "a {class}"),
}
"""By kind: two scenes that no caption says, and one that does not call the LoRA."""


@dataclass(frozen=True)
class Prompt:
    """One prompt of the comparison."""

    text: str
    """As it is drawn."""
    trigger: bool
    """False: it asks for something else, and shows whether the LoRA leaks."""
    plain: str
    """The prompt without the trigger, which prompt fit is measured by; empty if nothing is left."""


def prompts_for(templates: Sequence[str], kind: str, class_: str, trigger: str) -> list[Prompt]:
    """Fill `{trigger}` and `{class}` in; without templates take the trigger alone and what is made for the kind."""
    word = class_ or ("" if kind == "style" else kind)
    first, second, plain = MADE[kind]
    made = []
    for template in templates or ("{trigger}", "{trigger}, " + first, "{trigger}, " + second, plain):
        with_article = template.replace("a {class}", "an {class}") if word[:1].lower() in set("aeiou") else template
        filled = with_article.replace("{class}", word)
        text, rest = (tidy(filled.replace("{trigger}", t)) for t in (trigger, ""))
        made.append(Prompt(text, "{trigger}" in template, rest))
    return made


def tidy(text: str) -> str:
    """Take away the commas and spaces that a missing word leaves."""
    return re.sub(r"\s+", " ", re.sub(r"(\s*,\s*)+", ", ", text)).strip(" ,")
