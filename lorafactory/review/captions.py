"""Captions on the page: the prefix apart, flagged phrases, what of a text is read, find and replace, earlier texts."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from lorafactory import step, steps, wording
from lorafactory.setcheck.machine import base_of
from lorafactory.setcheck.texts import cut_words, dressed
from lorafactory.step import Work
from lorafactory.store import Decision, Store
from lorafactory.wording import Edits
from lorafactory.workspace import LoraDir, Workspace

Json = dict[str, Any]
RULES = ("unsupported phrase", "repeated phrase")
"""What `caption` flags in words."""
WRITTEN = ("captioned", "caption changed", "caption restored")
_QUOTED = re.compile(r'"(.*)"(?:: the caption| is in )', re.DOTALL)
_loading = threading.Lock()


def edits(work: Work) -> Edits:
    """Prefix and suffix of the recipe, filled in."""
    module = steps.get("caption")
    found: Edits = module.edits(work, step.settings_of(module, work.recipe))
    return found


# ---------------------------------------------------------------- flagged phrases


def flagged(space: Workspace, place: LoraDir) -> dict[str, list[Json]]:
    """Picture to the phrases that the latest word about them flags."""
    if not space.record.is_file():
        return {}
    latest: dict[tuple[str, str, str], Decision] = {}
    with Store(space.record, readonly=True) as store:
        for rule in RULES:
            for d in store.decisions(lora=place.recorded, rule=rule):
                if quoted := _QUOTED.match(d.note or ""):
                    latest[d.image, rule, quoted[1]] = d
    found: dict[str, list[Json]] = {}
    for (image, rule, phrase), d in latest.items():
        if d.verdict == "flagged":
            told = {"phrase": phrase, "rule": rule, "score": d.score, "threshold": d.threshold, "why": d.note}
            found.setdefault(image, []).append(told)
    return found


def shown(text: str | None, e: Edits, phrases: Sequence[Mapping[str, Any]]) -> Json:
    """A caption's prefix, and where in the rest the flagged phrases are that are still in it."""
    head = wording.opening(text or "", e)
    return {"prefix": head, "phrases": placed((text or "")[len(head) :], phrases)}


def placed(text: str, phrases: Sequence[Mapping[str, Any]]) -> list[Json]:
    """Each flagged phrase with its beginning and end in the text; one per place, the surest rule first."""
    found: list[Json] = []
    start = 0
    for line in text.split("\n"):
        for piece in wording.pieces(line):
            told = next((p for p in phrases if is_phrase(piece, p["phrase"])), None)
            if told is not None:
                lead = len(piece) - len(piece.lstrip(" ,"))
                found.append({**told, "start": start + lead, "end": start + len(piece.rstrip(" ,."))})
            start += len(piece)
        start += 1
    return found


def is_phrase(piece: str, phrase: str) -> bool:
    return wording.bare(piece).casefold() == phrase.casefold()


def without(text: str, phrase: str, e: Edits) -> str:
    """The caption without a phrase, wherever it stands; the prefix stays."""
    head = wording.opening(text, e)
    lines = text[len(head) :].split("\n")
    for number, line in enumerate(lines):
        if out := {i for i, piece in enumerate(wording.pieces(line)) if is_phrase(piece, phrase)}:
            lines[number] = wording.without(line, out)
    return (head + "\n".join(lines)).strip()


# ---------------------------------------------------------------- what is read


def counted(work: Work, texts: Sequence[str]) -> list[Json]:
    """How many tokens of its base's tokenizer each caption has as training reads it, and the words beyond the limit."""
    reader, s = _tokenizer(base_of(work)), step.settings_of(steps.get("train"), work.recipe)
    lines = [dressed(text, s).decode() for text in texts]
    numbers = [len(ids) for ids in reader(lines, add_special_tokens=False, verbose=False)["input_ids"]] if lines else []
    return [
        {"tokens": n, "beyond": cut_words(line, reader, s.max_tokens) if n > s.max_tokens else ""}
        for n, line in zip(numbers, lines, strict=True)
    ]


def _tokenizer(base: Path | None) -> Any:
    with _loading:  # whoever asks while it is loaded waits for it
        return _loaded(base)


@cache
def _loaded(base: Path | None) -> Any:
    from lorafactory.families._vocabulary import tokenizer_of

    return tokenizer_of(base)


# ---------------------------------------------------------------- find and replace


def replaced(text: str, find: str, put: str, e: Edits, *, words: bool, case: bool) -> str:
    """The caption with `find` replaced as it stands, in whole words only if asked for; the prefix stays."""
    head = wording.opening(text, e)
    rest = text[len(head) :]
    start = r"(?<!\w)" if words and find[0].isalnum() else ""
    end = r"(?!\w)" if words and find[-1].isalnum() else ""
    pattern = re.compile(f"{start}{re.escape(find)}{end}", 0 if case else re.IGNORECASE)
    after = pattern.sub(lambda _: put, rest)
    return text if after == rest else (head + tidied(after)).strip()


def tidied(text: str) -> str:
    """The text without the gaps that were left where something was taken out, line by line."""
    return "\n".join(wording.tidy(line) for line in text.split("\n"))


def history(space: Workspace, place: LoraDir, name: str) -> list[Json]:
    """Every text that the record has of a picture's caption, the newest first, each once."""
    if not space.record.is_file():
        return []
    with Store(space.record, readonly=True) as store:
        told = store.decisions(lora=place.recorded, image=name)
    found: dict[str, Json] = {}
    for d in reversed(told):
        for text, words in ((d.after, d.rule), (d.before, "before")):
            if d.verdict in WRITTEN and text and text not in found:
                found[text] = {"text": text, "at": d.at, "by": words, "step": d.step}
    return list(found.values())
