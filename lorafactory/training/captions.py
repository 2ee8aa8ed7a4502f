"""What becomes of a caption each time its picture is trained on.

Order and meaning are kohya's (sd-scripts `library/train_util.py: process_caption`), restated. Where it differs: a line
of several is chosen before prefix and suffix are put on, so that every line has them; separators never reach the
model, whether or not anything is shuffled; and the part with the trigger is kept where nobody says what is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import torch

from lorafactory.training.randomness import uniform
from lorafactory.training.settings import TrainSettings

Source = Callable[[str], torch.Generator]
"""A generator by the name of what is drawn from it, so that one setting never shifts the draws of another."""
_CHOICE = re.compile(r"\{([^{}]+)\}")
_OPEN, _CLOSE = "\x02", "\x03"
"""Stand for `{{` and `}}`, which mean the braces themselves."""


def vary(
    caption: str,
    s: TrainSettings,
    source: Source,
    *,
    trigger: str = "",
    epoch: int = 1,
    step: int = 0,
    steps: int = 0,
) -> str:
    """One draw of a caption in an `epoch` (from 1), after `step` of `steps`; empty where it is dropped whole."""
    draw = source("caption")
    if uniform(draw) < s.caption_dropout or (s.caption_dropout_every and epoch % s.caption_dropout_every == 0):
        return ""
    text = _worded(caption, s, source("wildcard") if s.wildcards else None)
    if not (s.shuffle_captions or s.tag_dropout or s.token_warmup):
        return plain(text, s)
    head, loose, tail = _parts(text, s, trigger)
    loose = loose[: warm(len(loose), s, step, steps)]
    order = torch.randperm(len(loose), generator=draw).tolist()
    if s.shuffle_captions:
        loose = [loose[i] for i in order]
    loose = [part for part in loose if uniform(draw) >= s.tag_dropout]
    return _second(", ".join([*head, *loose, *tail]), s)


def steady(caption: str, s: TrainSettings) -> str:
    """The caption without anything that is drawn: the first line, the first of each choice, all of its parts."""
    return plain(_worded(caption, s, None), s)


def warm(loose: int, s: TrainSettings, step: int, steps: int) -> int:
    """How many of the loose parts are shown after `step` of `steps`: `token_warmup_min` at first, then all."""
    over = math.floor(s.token_warmup * steps) if s.token_warmup < 1 else s.token_warmup
    if step >= over:
        return loose
    return max(0, math.floor(step * (loose - s.token_warmup_min) / over) + s.token_warmup_min)


def _worded(caption: str, s: TrainSettings, draw: torch.Generator | None) -> str:
    """Choose the line, put prefix and suffix on, choose among `{a|b}`; without a generator always the first."""
    lines = caption.split("\n")
    line = _one(lines, draw) if s.wildcards else lines[0]
    text = " ".join(part for part in (s.caption_prefix, line, s.caption_suffix) if part)
    if not s.wildcards:
        return text
    text = text.replace("{{", _OPEN).replace("}}", _CLOSE)
    text = _CHOICE.sub(lambda match: _one(match[1].split("|"), draw), text)
    return text.replace(_OPEN, "{").replace(_CLOSE, "}")


def _one(among: list[str], draw: torch.Generator | None) -> str:
    return among[0] if draw is None else among[int(torch.randint(len(among), (), generator=draw))]


def plain(text: str, s: TrainSettings) -> str:
    """Take the separators out of a caption that is otherwise left as it is."""
    if s.keep_separator and s.keep_separator in text:
        text = ", ".join(part for piece in text.split(s.keep_separator) for part in _split(piece, s))
    return _second(text, s)


def _second(text: str, s: TrainSettings) -> str:
    return text.replace(s.secondary_separator, s.caption_separator) if s.secondary_separator else text


def _split(text: str, s: TrainSettings) -> list[str]:
    return [part for piece in text.split(s.caption_separator) if (part := piece.strip())]


def _parts(text: str, s: TrainSettings, trigger: str) -> tuple[list[str], list[str], list[str]]:
    """What is kept at the head, what is loose, and what is kept at the end."""
    if s.keep_separator and s.keep_separator in text:
        head, loose, tail = [*text.split(s.keep_separator, 2), ""][:3]
        return _split(head, s), _split(loose, s), _split(tail.replace(s.keep_separator, s.caption_separator), s)
    parts = _split(text, s)
    if s.keep_tokens:
        return parts[: s.keep_tokens], parts[s.keep_tokens :], []
    word = re.compile(rf"(?<!\w){re.escape(trigger)}(?!\w)", re.IGNORECASE)
    at = next((i for i, part in enumerate(parts) if trigger and word.search(part)), None)
    return ([], parts, []) if at is None else ([parts[at]], parts[:at] + parts[at + 1 :], [])
