"""Describe every picture in a text file beside it: the trigger, then what BLIP sees, or one text for all.

Captions that a person wrote or changed are left alone.

\b
For example:
  lora caption anna
  lora caption ./photos --trigger 4nna --apply
  lora caption anna --text "{trigger}, a photo of a {class}"
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from lorafactory import captioners, images
from lorafactory.dataset import Picture
from lorafactory.errors import FailedError, LoraError, Problem, SettingsError
from lorafactory.files import write_whole
from lorafactory.past import BY_HAND
from lorafactory.step import Result, StepSettings, Work
from lorafactory.steps._judging import strangers

VERSION = 1
MODELS = ("blip",)
HEADER = ("trigger", "class")
TEXT = "text"
PLACEHOLDERS = ("{trigger}", "{class}")


class Settings(StepSettings):
    captioner: str = "blip"
    """Which captioner: a file of lorafactory/captioners."""
    text: str = ""
    """One caption for all pictures, and no model: `{trigger}` and `{class}` stand for the LoRA's."""
    prefix: str = "{trigger}, "
    """What every caption begins with, once; `{trigger}` and `{class}` as in `text`. Empty for none."""
    prompt: str = "a picture of"
    """What the captioner's sentence begins with; it is taken off again."""
    beams: int = Field(9, ge=1, le=32)
    """Sentences followed at once, 1 to 32; more finds better ones, in as much more time and memory."""
    min_length: int = Field(15, ge=1, le=200)
    """Fewest tokens of a sentence, the prompt's counted, 1 to 200; too many make the captioner invent."""
    max_length: int = Field(75, ge=5, le=200)
    """Most tokens of a sentence, the prompt's counted, 5 to 200. Training reads 75."""
    batch: int = Field(4, ge=1, le=64, json_schema_extra={"neutral": True})
    """Pictures described at once, 1 to 64; halved by itself where a GPU's memory does not hold them."""
    overwrite: bool = False
    """Write over captions of a person too. The record keeps the old texts."""


@dataclass
class Plan:
    """What is to happen to each picture's caption."""

    write: list[Picture] = field(default_factory=list)
    by_hand: list[Picture] = field(default_factory=list)
    fresh: list[Picture] = field(default_factory=list)
    """Captioned by us for this very picture with these very settings."""


def check(work: Work, s: Settings) -> list[Problem]:
    problems = []
    for key, text in (("prefix", s.prefix), ("text", s.text)):
        unknown = [p for p in re.findall(r"\{[^{}]*\}", text) if p not in PLACEHOLDERS]
        if unknown:
            said = f"caption.{key}: {', '.join(unknown)} means nothing; known are {', '.join(PLACEHOLDERS)}"
            problems.append(Problem(said, f'as in --{key} "{{trigger}}, a photo of a {{class}}"', error=SettingsError))
    if s.min_length > s.max_length:
        said = f"caption.min_length = {s.min_length} is above max_length = {s.max_length}"
        problems.append(Problem(said, "--min-length 15 --max-length 75", error=SettingsError))
    try:
        kind = captioners.get(s.captioner)
    except SettingsError as error:
        return [*problems, Problem(str(error), "--captioner blip", error=SettingsError)]
    if s.text:
        for word, value in (("{trigger}", work.trigger), ("{class}", work.recipe.header.class_)):
            if word in s.text and not value:
                fix = f"--{word.strip('{}')} WORD"
                problems.append(Problem(f"caption.text: there is nothing to put for {word}", fix, error=SettingsError))
        return problems
    if lacking := kind.missing(work.judges.blip):
        fix = 'or one caption for all: --text "{trigger}, a photo"'
        problems.append(Problem(lacking, fix))
    return [*problems, *strangers(work)]


def run(work: Work, s: Settings) -> Result:
    about = key(work, s)
    plan = planned(work, s, about)
    for picture in plan.by_hand:
        work.note(picture, "kept", BY_HAND)
    for picture in plan.fresh:
        work.note(picture, "kept", "up to date")
    said, failed = texts(work, s, plan.write)
    lines = [write(work, s, about, picture, text) for picture, text in said]
    if failed:
        listed = "\n".join(f"    {name}: {why}" for name, why in failed.items())
        raise FailedError(f"{len(failed)} pictures have no caption, {len(said)} have:\n{listed}")
    done = f"{len(said)} captioned" if work.apply else f"{len(said)} would be captioned (--apply does it)"
    parts = [done, f"{len(plan.by_hand)} by hand", f"{len(plan.fresh)} up to date"]
    lines += [f"{p.name}: by hand, left as it is" for p in plan.by_hand]
    data = {
        "captioned": [p.name for p, _ in said],
        "by_hand": [p.name for p in plan.by_hand],
        "up_to_date": [p.name for p in plan.fresh],
    }
    return Result("caption: " + ", ".join(parts), data, lines)


# ---------------------------------------------------------------- which pictures


def planned(work: Work, s: Settings, about: str) -> Plan:
    """Sort the pictures: to be captioned, captioned by a person, captioned already.

    A caption that is word for word what we would write is ours: a run that was killed wrote it and did not record it.
    """
    plan = Plan()
    for picture in work.set.pictures:
        ours = work.past.captions.get(picture.name)
        text = picture.caption
        by_hand = picture.name in work.past.hand_captions or (ours is None and text is not None)
        by_hand = by_hand and (text is None or text != expected(work, s, picture))
        if by_hand and not s.overwrite:
            plan.by_hand.append(picture)
        elif not by_hand and text is not None and ours == (picture.sha256, about):
            plan.fresh.append(picture)
        else:
            plan.write.append(picture)
    return plan


def key(work: Work, s: Settings) -> str:
    """Hash of all that a caption comes from, except the picture."""
    told = {"captioner": TEXT} if s.text else sentence_key(work, s)
    whole = {**told, "version": VERSION, "text": filled(s.text, work), "prefix": prefix(work, s)}
    return hashlib.sha256(json.dumps(whole, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def sentence_key(work: Work, s: Settings) -> dict[str, str | int]:
    """All that the captioner's sentence comes from, except the picture."""
    return {
        "captioner": s.captioner,
        "model": captioners.get(s.captioner).identity(work.judges.blip),
        "prompt": s.prompt,
        "beams": s.beams,
        "min_length": s.min_length,
        "max_length": s.max_length,
    }


# ---------------------------------------------------------------- what they say


def filled(text: str, work: Work) -> str:
    return text.replace("{trigger}", work.trigger).replace("{class}", work.recipe.header.class_)


def prefix(work: Work, s: Settings) -> str:
    """The prefix with its words put in; nothing where it stands on a trigger that there is not."""
    return "" if "{trigger}" in s.prefix and not work.trigger else filled(s.prefix, work)


def with_prefix(work: Work, s: Settings, text: str) -> str:
    """Put the prefix in front, unless it is there, or the text for all names the trigger in a place of its own."""
    start = prefix(work, s)
    own = bool(s.text) and "{trigger}" in s.text
    return text if own or text.startswith(start.strip()) else start + text


def sentence_file(work: Work, s: Settings, picture: Picture) -> Path:
    """Where the captioner's sentence for these bytes and settings is kept."""
    whole = json.dumps({**sentence_key(work, s), "picture": picture.sha256}, sort_keys=True)
    return work.workspace.cache / "captions" / f"{hashlib.sha256(whole.encode()).hexdigest()}.txt"


def expected(work: Work, s: Settings, picture: Picture) -> str | None:
    """The caption this picture would get, as far as that is known without a model."""
    file = None if s.text else sentence_file(work, s, picture)
    if file is not None and not file.is_file():
        return None
    return with_prefix(work, s, file.read_text(encoding="utf-8") if file else filled(s.text, work))


def texts(work: Work, s: Settings, pictures: Sequence[Picture]) -> tuple[list[tuple[Picture, str]], dict[str, str]]:
    """Return the pictures' sentences, and by name why there is none; a captioner is loaded only for unseen bytes."""
    if s.text or not pictures:
        return [(p, filled(s.text, work)) for p in pictures], {}
    files = {p: sentence_file(work, s, p) for p in pictures}
    said = {p: file.read_text(encoding="utf-8") for p, file in files.items() if file.is_file()}
    unseen = [p for p in pictures if p not in said]
    failed: dict[str, str] = {}
    if unseen:
        files[unseen[0]].parent.mkdir(parents=True, exist_ok=True)
        captioner = captioners.get(s.captioner).load(work.judges.blip)
        chunks = [unseen[i : i + s.batch] for i in range(0, len(unseen), s.batch)]
        for some in work.track(chunks, "captioning"):
            for picture, text in describe(captioner, s, some, failed).items():
                write_whole(files[picture], text.encode())
                said[picture] = text
    return [(p, said[p]) for p in pictures if p in said], failed


def describe(
    captioner: captioners.Captioner, s: Settings, pictures: Sequence[Picture], failed: dict[str, str]
) -> dict[Picture, str]:
    """Caption some pictures at once; if that fails, one by one, to find whose fault it is."""
    how = {"beams": s.beams, "min_length": s.min_length, "max_length": s.max_length, "batch": s.batch}
    try:
        loaded = [images.load(p.path) for p in pictures]
        found = captioner.caption(loaded, prompt=s.prompt, **how)
    except (LoraError, RuntimeError, ValueError) as error:
        if len(pictures) > 1:
            return {p: t for one in pictures for p, t in describe(captioner, s, [one], failed).items()}
        failed[pictures[0].name] = str(error).partition("\n")[0] or type(error).__name__
        return {}
    failed |= {p.name: f"{s.captioner} said nothing" for p, text in zip(pictures, found, strict=True) if not text}
    return {p: text for p, text in zip(pictures, found, strict=True) if text}


# ---------------------------------------------------------------- writing


def write(work: Work, s: Settings, about: str, picture: Picture, text: str) -> str:
    """Write one caption and record it; on a set that is not ours only say what would be written."""
    before, after = picture.caption, with_prefix(work, s, text)
    rule = TEXT if s.text else s.captioner
    verdict = "captioned" if work.apply else "would be captioned"
    if work.apply:
        picture.write_caption(after)
    work.note(picture, verdict, rule, before=before, after=after, why=about)
    return f"{picture.name}: {after}" if work.apply else f"{picture.name}: would say: {after}"
