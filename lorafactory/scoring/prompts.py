"""The prompts of a comparison: a person's, or some that suit the kind of thing that was learned."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

Group = Literal["like", "unlike", "without", "words"]
UNLIKE = {
    "person": (
        "portrait of a {class} in a snowy forest",
        "a {class} in a red coat in a café",
        "an oil painting of a {class}",
    ),
    "character": (
        "a {class} on a beach at sunset",
        "a {class} in a suit and tie in an office",
        "a pencil sketch of a {class}",
    ),
    "style": (
        "a lighthouse on a cliff, {class}",
        "a bowl of fruit on a table, {class}",
        "an old man with a dog, {class}",
    ),
    "object": ("a {class} on a wooden table", "a {class} in the snow", "a pencil sketch of a {class}"),
}
"""By kind, what no caption says: another place, other clothes or surroundings, another style; or other subjects."""
WITHOUT = {
    "person": "portrait of a {class}",
    "character": "a {class}",
    "style": "a lighthouse on a cliff",
    "object": "a {class}",
}
"""By kind, what does not call the LoRA."""


@dataclass(frozen=True)
class Prompt:
    """One prompt of the comparison."""

    text: str
    """As it is drawn."""
    trigger: bool
    """False: it does not call the LoRA, and shows whether it leaks."""
    plain: str
    """The prompt without the trigger, which prompt fit is measured by; empty if nothing is left."""
    group: Group = "like"
    """As the captions are; unlike them; without the trigger; or a caption's words without the trigger."""
    caption: bool = False
    """Its words are those of a caption, and not for others to read."""


def prompts_for(
    templates: Sequence[str], kind: str, class_: str, trigger: str, captions: Sequence[str] = ()
) -> list[Prompt]:
    """Fill `{trigger}` and `{class}` in; without templates take what is made for the kind and of the set's captions."""
    if templates:
        known = [_words(without(caption, trigger)) for caption in captions]
        own = [_filled(text, _told(text), kind, class_, trigger) for text in templates]
        return [_as_said(p, any(_holds(caption, _words(p.plain)) for caption in known)) for p in own]
    said = typical(captions, trigger)
    like = ["{trigger}", *(["{trigger}, " + said] if said else [])]
    made: list[tuple[str, Group]] = [(text, "like") for text in like]
    made += [("{trigger}, " + text, "unlike") for text in UNLIKE[kind]]
    made += [(WITHOUT[kind], "without"), *([(said, "words")] if said else [])]  # type: ignore[list-item]
    own_words = {said, "{trigger}, " + said} if said else set()
    return [replace(_filled(text, g, kind, class_, trigger), caption=text in own_words) for text, g in made]


def asked_of_all(templates: Sequence[str]) -> list[Prompt]:
    """Prompts of LoRAs from anywhere, whose triggers nobody knows: every one calls them."""
    return [Prompt(text, True, text, "unlike") for text in templates]


def _as_said(prompt: Prompt, held: bool) -> Prompt:
    """A person's prompt, `held` by a caption of the set or not; one or two words are nobody's."""
    group: Group = "like" if held and prompt.trigger else prompt.group
    return replace(prompt, group=group, caption=held and len(_words(prompt.plain)) > 2)


def _told(template: str) -> Group:
    """The group of a person's own prompt: the trigger alone is like the captions, and so is what one of them holds."""
    if "{trigger}" not in template:
        return "without"
    return "unlike" if tidy(template.replace("{trigger}", "")) else "like"


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _holds(caption: Sequence[str], words: Sequence[str]) -> bool:
    """A caption has these words in this order, whatever else it has between them."""
    rest = iter(caption)
    return all(word in rest for word in words)


def _filled(template: str, group: Group, kind: str, class_: str, trigger: str) -> Prompt:
    word = class_ or ("" if kind == "style" else kind)
    with_article = template.replace("a {class}", "an {class}") if word[:1].lower() in set("aeiou") else template
    filled = with_article.replace("{class}", word)
    text, rest = (tidy(filled.replace("{trigger}", t)) for t in (trigger, ""))
    return Prompt(text, "{trigger}" in template, rest, group)


def typical(captions: Sequence[str], trigger: str) -> str:
    """The caption of middle length, as `without` leaves it; empty if no caption says more than the trigger."""
    ordered = sorted({without(caption, trigger) for caption in captions} - {""}, key=lambda text: (len(text), text))
    return ordered[len(ordered) // 2] if ordered else ""


def without(caption: str, trigger: str) -> str:
    """The first line of a caption, without the trigger."""
    line = caption.partition("\n")[0]
    return tidy(re.sub(rf"(?<!\w){re.escape(trigger)}(?!\w)", "", line, flags=re.I) if trigger else line)


def tidy(text: str) -> str:
    """Take away the commas and spaces that a missing word leaves."""
    return re.sub(r"\s+", " ", re.sub(r"(\s*,\s*)+", ", ", text)).strip(" ,")
