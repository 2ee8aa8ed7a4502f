"""What the caption step does with opinions of words: record all, say what is doubtful, act where it is told to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lorafactory import wording
from lorafactory.dataset import Picture
from lorafactory.errors import FailedError
from lorafactory.step import Work
from lorafactory.steps._seen import GAP, Eye, choose, judge
from lorafactory.wording import Edits

UNSUPPORTED, REPEATED = "unsupported phrase", "repeated phrase"


@dataclass
class Told:
    """What there is to say at the end."""

    lines: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    """Name of a picture to why it has no caption, or keeps the one it had."""

    def raise_failed(self, done: str) -> None:
        """Raise FailedError if something failed; `done` says what did not."""
        if self.failed:
            listed = "\n".join(f"    {name}: {why}" for name, why in self.failed.items())
            raise FailedError(f"{len(self.failed)} pictures {done}:\n{listed}")


def without_doubtful(
    eye: Eye, cores: Mapping[Picture, str], others: Sequence[Picture], strip: bool, told: Told
) -> dict[Picture, str]:
    """Record what CLIP thinks of every phrase; return the captions that lose some, if `strip`."""
    work, found = eye.work, judge(eye, cores, others)
    left: dict[Picture, str] = {}
    for picture, phrases in found.items():
        doubtful = [phrase for phrase in phrases if not phrase.supported]
        for phrase in phrases:
            why = f'"{phrase.text}": the caption is {phrase.drop:+.3f} nearer to the picture with it'
            why += ", taken out" if strip and work.apply and phrase in doubtful else ""
            verdict = "flagged" if phrase in doubtful else "kept"
            work.note(picture, verdict, UNSUPPORTED, score=phrase.gap, threshold=GAP, why=why)
        for phrase in doubtful:
            what = "flagged" if not strip else "taken out" if work.apply else "would be taken out"
            seen = f"(percentile {phrase.gap:.0f}, at least {GAP:.0f}; {phrase.drop:+.3f} nearer with it)"
            told.lines.append(f'{picture.name}: CLIP does not see "{phrase.text}" {seen}, {what}')
            told.data.setdefault("unsupported", {}).setdefault(picture.name, []).append(phrase.text)
        if strip and doubtful:
            left[picture] = wording.without(cores[picture], {phrase.index for phrase in doubtful})
    return left


def worded(
    eye: Eye, words: Mapping[str, Sequence[str]], margin: float, said: Mapping[Picture, str]
) -> dict[Picture, str]:
    """Append the best word of each dimension, where it is well ahead of the next and none is said yet."""
    longer: dict[Picture, str] = {}
    for picture, choices in (choose(eye, words, list(said)) if said else {}).items():
        text = said[picture]
        for choice in choices:
            if any(wording.says(said[picture], word) for word in words[choice.dimension]):
                continue
            clear = choice.lead >= margin
            scores = ", ".join(f"{word} {cosine:.3f}" for word, cosine in choice.ranking)
            verdict = "worded" if clear else "not worded"
            eye.work.note(picture, verdict, choice.dimension, score=choice.lead, threshold=margin, why=scores)
            text = wording.with_tags(text, [choice.ranking[0][0]]) if clear else text
        longer[picture] = text
    return longer


def alarm(work: Work, e: Edits, done: Mapping[Picture, str], told: Told) -> None:
    """Say and record which phrase is in most captions of the set: what always comes along is bound to the LoRA.

    `done` are captions of this run, which may only be proposed.
    """
    cores = {p: wording.core(text, e) for p in work.set.pictures if (text := done.get(p, p.caption))}
    for phrase, number in wording.repeated(list(cores.values())).items():
        words = f'"{phrase}" is in {number} of {len(cores)} captions'
        told.lines.append(f"{words}: it is learned like the trigger, unless it is taken out")
        told.data.setdefault("repeated", {})[phrase] = number
        for picture in (p for p, text in cores.items() if wording.says(text, phrase)):
            share = number / len(cores)
            work.note(picture, "flagged", REPEATED, score=share, threshold=wording.MOSTLY, why=words)


def left_alone(picture: Picture) -> str:
    """Why a person's caption stays as it is."""
    if picture.garbled:
        return f"{picture.name}: by hand, and cannot be read: {picture.caption_path} is not UTF-8 text; left as it is"
    return f"{picture.name}: by hand, left as it is; --captioner files edits it"


def flags(told: Told) -> list[str]:
    """What is doubtful, for the last line."""
    number = sum(map(len, told.data.get("unsupported", {}).values()))
    common = len(told.data.get("repeated", {}))
    parts = [f"{number} phrase{'s' * (number != 1)} unsupported"] if number else []
    return [*parts, f"{common} phrase{'s' * (common != 1)} in most captions"] if common else parts
