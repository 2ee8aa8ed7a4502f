"""Describe every picture in a text file beside it: the trigger, then what BLIP sees, or one text for all.

Captions that a person wrote or changed are left alone. `--captioner files` is for those that are there, whoever wrote
them: it asks no captioner and only edits, and what it edited counts as yours.

\b
For example:
  lora caption anna
  lora caption ./photos --trigger 4nna --apply
  lora caption anna --text "{trigger}, a photo of a {class}"
  lora caption anna --captioner files --replace "a man => anna" --suffix ", outdoors"
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from lorafactory import captioners, wording
from lorafactory.dataset import Picture
from lorafactory.errors import Problem, SettingsError
from lorafactory.past import BY_HAND, text_hash
from lorafactory.step import Result, StepSettings, Work
from lorafactory.steps import _opinions
from lorafactory.steps._judging import clip_problems, strangers
from lorafactory.steps._opinions import Told, alarm, flags, left_alone
from lorafactory.steps._seen import Eye
from lorafactory.steps._sentences import Teller, promise, promised
from lorafactory.steps._synthetic import drawn_from, same_words
from lorafactory.wording import Edits

VERSION = 2
MODELS = ("blip", "clip")
HEADER = ("trigger", "class")
TEXT, FILES, NONE = "text", "files", "none"
PLACEHOLDERS = ("{trigger}", "{class}")


class Settings(StepSettings):
    captioner: str = "blip"
    """Who describes the pictures: `blip` in a sentence, `wd` in tags; `files` keeps the captions that are there, a
    person's too, and only edits them; `none` leaves every caption empty, for a LoRA without a trigger."""
    model: str = ""
    """Folder or hub id of the captioner's weights, instead of its usual ones."""
    text: str = ""
    """One caption for all pictures, and no model: `{trigger}` and `{class}` stand for the LoRA's."""
    prefix: str = "{trigger}, "
    """What every caption begins with, once; `{trigger}` and `{class}` as in `text`. Empty for none."""
    suffix: str = ""
    """What every caption ends with, once, as in `, white background`."""
    replace: tuple[str, ...] = ()
    """Find-replace, as in `a man => anna`: a regular expression, and what takes its place; repeatable. It is applied
    until it changes nothing more, and not where the result is there already. Prefix and suffix are left out."""
    add: tuple[str, ...] = ()
    """A tag to append after a comma, once; repeatable."""
    remove: tuple[str, ...] = ()
    """A tag to take out, wherever it stands between commas; repeatable."""
    words: dict[str, list[str]] = Field(default_factory=dict)
    """Words by dimension, as in `light = ["soft lighting", "studio lighting"]`: CLIP appends the best of each, unless
    the caption says one of them already."""
    word_margin: float = Field(0.01, ge=0, le=1)
    """How far the best word must be ahead of the next in CLIP cosines, 0 to 1; else none of the dimension is said."""
    strip_unsupported: bool = False
    """Take out phrases that CLIP does not see (`holding a remote control`) instead of only flagging them."""
    no_clip: bool = False
    """Leave out CLIP: phrases are not judged."""
    prompt: str = "a picture of"
    """What BLIP's sentence begins with; it is taken off again."""
    beams: int = Field(9, ge=1, le=32)
    """Sentences that BLIP follows at once, 1 to 32; more finds better ones, in as much more time and memory."""
    min_length: int = Field(15, ge=1, le=200)
    """Fewest tokens of a sentence, the prompt's counted, 1 to 200; too many make the captioner invent."""
    max_length: int = Field(75, ge=5, le=200)
    """Most tokens of a sentence, the prompt's counted, 5 to 200. Training reads 75."""
    threshold: float = Field(0.35, gt=0, lt=1)
    """Probability from which the WD tagger says a tag, 0 to 1."""
    batch: int = Field(4, ge=1, le=64, json_schema_extra={"neutral": True})
    """Pictures described at once, 1 to 64; halved by itself where a GPU's memory does not hold them."""
    overwrite: bool = False
    """Write over captions of a person too. The record keeps the old texts."""

    @property
    def mode(self) -> str:
        """Where captions come from: FILES, NONE, TEXT or a captioner's name."""
        return self.captioner if self.captioner in (FILES, NONE) else TEXT if self.text else self.captioner

    @property
    def judged(self) -> bool:
        """True if phrases are put before CLIP: a captioner's sentences always, a person's on demand."""
        if self.no_clip or self.mode in (NONE, TEXT):
            return False
        return self.strip_unsupported if self.mode == FILES else captioners.get(self.mode).PROSE


@dataclass
class Plan:
    """What is to happen to each picture's caption."""

    write: list[Picture] = field(default_factory=list)
    by_hand: list[Picture] = field(default_factory=list)
    fresh: list[Picture] = field(default_factory=list)
    """Captioned by us for this very picture with these very settings."""


def asks(s: Settings) -> set[str]:
    """BLIP where it describes the pictures, and CLIP where it judges or chooses words."""
    by_clip = s.judged or (s.words and s.mode != NONE and not s.no_clip)
    return ({"blip"} if s.mode == "blip" else set()) | ({"clip"} if by_clip else set())


# ---------------------------------------------------------------- checks


def check(work: Work, s: Settings) -> list[Problem]:
    problems = [*wrong_words(s), *wrong_rules(s)]
    if s.mode not in (FILES, NONE, TEXT) and s.captioner not in captioners.names():
        known = ", ".join(sorted([*captioners.names(), FILES, NONE]))
        said = f"there is no captioner {s.captioner!r}; known are: {known}"
        return [*problems, Problem(said, "--captioner blip", error=SettingsError)]
    if s.text and s.mode != TEXT:
        problems.append(Problem(f"caption.text is not used: captioner = {s.mode}", "--captioner blip", fatal=False))
    if s.mode == TEXT:
        problems += nothing_for(work, s.text)
    elif s.mode not in (FILES, NONE) and (lacking := captioners.get(s.mode).missing(model_of(work, s))):
        fix = 'or one caption for all: --text "{trigger}, a photo"; or those that are there: --captioner files'
        problems.append(Problem(lacking, fix))
    if "clip" in asks(s):
        problems += clip_problems(work, no_clip=False)
    elif s.mode not in (FILES, NONE, TEXT):
        problems += strangers(work)
    problems += same_words(work, drawn_from(work))
    return list(dict.fromkeys(problems))


def wrong_words(s: Settings) -> list[Problem]:
    """What is wrong with texts and lengths."""
    problems = []
    texts = [("prefix", s.prefix), ("suffix", s.suffix), ("text", s.text), *(("add", tag) for tag in s.add)]
    for key, text in texts:
        unknown = [p for p in re.findall(r"\{[^{}]*\}", text) if p not in PLACEHOLDERS]
        if unknown:
            said = f"caption.{key}: {', '.join(unknown)} means nothing; known are {', '.join(PLACEHOLDERS)}"
            problems.append(Problem(said, f'as in --{key} "{{trigger}}, a photo of a {{class}}"', error=SettingsError))
    if s.min_length > s.max_length:
        said = f"caption.min_length = {s.min_length} is above max_length = {s.max_length}"
        problems.append(Problem(said, "--min-length 15 --max-length 75", error=SettingsError))
    return problems


def wrong_rules(s: Settings) -> list[Problem]:
    """What is wrong with find-replace, lists of words, and what needs CLIP."""
    problems = []
    for text in s.replace:
        try:
            wording.rule(text)
        except SettingsError as error:
            problems.append(Problem(f"caption.replace: {error}", error=SettingsError))
    for dimension, words in s.words.items():
        if len(set(words)) < 2:
            said = f"caption.words: {dimension} has {len(set(words))} word; CLIP chooses between two or more"
            problems.append(Problem(said, f'as in {dimension} = ["one", "another"]', error=SettingsError))
    for key, given in (("words", s.words), ("strip_unsupported", s.strip_unsupported)):
        if given and s.no_clip:
            problems.append(Problem(f"caption.{key} needs CLIP", "leave out --no-clip", error=SettingsError))
    return problems


def nothing_for(work: Work, text: str) -> list[Problem]:
    """Placeholders for which the recipe has no word."""
    values = (("{trigger}", work.trigger), ("{class}", work.recipe.header.class_))
    return [
        Problem(f"caption.text: there is nothing to put for {w}", f"--{w.strip('{}')} WORD", error=SettingsError)
        for w, value in values
        if w in text and not value
    ]


def sees(work: Work, s: Settings) -> dict[str, str]:
    """The pictures; where captions are only edited these too, and of a captioner that is not the set's the weights."""
    found = work.set.hashes()
    if s.mode == FILES:
        found |= {f"{name} caption": text_hash(text) for name, text in work.set.captions().items()}
    elif s.mode not in (NONE, TEXT) and model_of(work, s) != work.judges.blip:
        found["captioner"] = text_hash(captioners.get(s.mode).identity(model_of(work, s)))
    return found


# ---------------------------------------------------------------- run


def run(work: Work, s: Settings) -> Result:
    return edit(work, s) if s.mode == FILES else describe(work, s)


def describe(work: Work, s: Settings) -> Result:
    """Write the captions that are missing or ours and out of date."""
    about, told = key(work, s), Told()
    plan = planned(work, about, s.overwrite)
    for picture in plan.by_hand:
        work.note(picture, "kept", BY_HAND)
    for picture in plan.fresh:
        work.note(picture, "kept", "up to date")
    done = finished(work, s, sentences(work, s, plan.write, told), told, others=plan.fresh)
    for picture, after in done.items():
        told.lines.append(write(work, s, about, picture, after))
    if s.mode not in (NONE, TEXT):
        alarm(work, edits(work, s), done, told)
    told.raise_failed(f"have no caption, {len(done)} have")
    parts = [f"{len(done)} captioned" if work.apply else f"{len(done)} would be captioned (--apply does it)"]
    parts += [f"{len(plan.by_hand)} by hand", f"{len(plan.fresh)} up to date", *flags(told)]
    told.lines += [left_alone(p) for p in plan.by_hand]
    data = {"captioned": list(done), "by_hand": plan.by_hand, "up_to_date": plan.fresh}
    return Result(
        "caption: " + ", ".join(parts), {k: [p.name for p in v] for k, v in data.items()} | told.data, told.lines
    )


def edit(work: Work, s: Settings) -> Result:
    """Edit the captions that are there, whoever wrote them, as a person would by hand; none is made."""
    e, told = edits(work, s), Told()
    there = {p: text for p in work.set.pictures if (text := p.caption) is not None and not p.garbled}
    garbled = [p for p in work.set.pictures if p.garbled]
    told.lines += [left_alone(p) for p in garbled]
    done = finished(work, s, {p: wording.core(text, e) for p, text in there.items()}, told)
    changed = {p: wording.settled(after, e) for p, after in done.items() if after != there[p]}
    for picture, before in there.items():
        if picture not in changed:
            work.note(picture, "kept", FILES)
            continue
        after = changed[picture]
        if work.apply:
            picture.write_caption(after)
        work.note(picture, "caption changed" if work.apply else "would be changed", FILES, before=before, after=after)
        told.lines.append(f"{picture.name}: {after}" if work.apply else f"{picture.name}: would say: {after}")
    alarm(work, e, done, told)
    told.raise_failed(f"keep the caption they had, {len(changed)} have an edited one")
    bare = [p.name for p in work.set.pictures if p not in there and p not in garbled]
    parts = [f"{len(changed)} edited" if work.apply else f"{len(changed)} would be edited (--apply does it)"]
    parts += [f"{len(there) - len(changed)} as they were", *([f"{len(bare)} without a caption"] if bare else [])]
    parts += [f"{len(garbled)} not UTF-8"] if garbled else []
    data = {"edited": [p.name for p in changed], "without": bare}
    return Result("caption: " + ", ".join([*parts, *flags(told)]), data | told.data, told.lines)


# ---------------------------------------------------------------- which pictures


def planned(work: Work, about: str, overwrite: bool) -> Plan:
    """Sort the pictures: to be captioned, captioned by a person, captioned already.

    A caption that is word for word what we were to write is ours: a run that was killed wrote it without recording it.
    """
    plan = Plan()
    for picture in work.set.pictures:
        ours = work.past.captions.get(picture.name)
        text = picture.caption
        by_hand = picture.name in work.past.hand_captions or (ours is None and text is not None)
        by_hand = by_hand and (text is None or text != promised(work, about, picture))
        if by_hand and not overwrite:
            plan.by_hand.append(picture)
        elif not by_hand and text is not None and ours == (picture.sha256, about):
            plan.fresh.append(picture)
        else:
            plan.write.append(picture)
    return plan


def key(work: Work, s: Settings) -> str:
    """Hash of all that a caption comes from, except the picture."""
    e = edits(work, s)
    told: dict[str, Any] = {"captioner": s.mode} if s.mode in (NONE, TEXT) else teller(work, s).key
    rules = [f"{pattern.pattern} => {put}" for pattern, put in e.replace]
    told |= {"version": VERSION, "text": filled(s.text, work), "prefix": e.prefix, "suffix": e.suffix}
    told |= {"replace": rules, "add": e.add, "remove": e.remove, "words": s.words, "strip": s.strip_unsupported}
    told |= {"margin": s.word_margin} if s.words else {}
    return text_hash(json.dumps(told, sort_keys=True, ensure_ascii=False))


# ---------------------------------------------------------------- what they say


def filled(text: str, work: Work) -> str:
    return text.replace("{trigger}", work.trigger).replace("{class}", work.recipe.header.class_)


def edits(work: Work, s: Settings) -> Edits:
    """What is done to every caption; a prefix or suffix falls away if it stands on a trigger that there is not."""
    prefix, suffix = (
        "" if "{trigger}" in text and not work.trigger else filled(text, work) for text in (s.prefix, s.suffix)
    )
    rules = tuple((pattern, filled(put, work)) for pattern, put in map(wording.rule, s.replace))
    return Edits(prefix, suffix, rules, tuple(filled(tag, work) for tag in s.add), s.remove, work.trigger)


def model_of(work: Work, s: Settings) -> str:
    """Folder or hub id of the captioner's weights: those named, the model set's, or the usual ones."""
    own = getattr(work.judges, s.captioner, "")
    return s.model or str(own) or captioners.get(s.captioner).MODEL


def teller(work: Work, s: Settings) -> Teller:
    asked = {key: getattr(s, key) for key in captioners.get(s.captioner).ASKED}
    return Teller(work, s.captioner, model_of(work, s), asked, s.batch)


def sentences(work: Work, s: Settings, pictures: Sequence[Picture], told: Told) -> dict[Picture, str]:
    """What there is to say of each picture, before any edit."""
    if s.mode in (NONE, TEXT):
        return dict.fromkeys(pictures, filled(s.text, work) if s.mode == TEXT else "")
    asked = teller(work, s)
    said = asked.tell(pictures) if pictures else {}
    told.failed.update(asked.failed)
    return said


def finished(
    work: Work, s: Settings, cores: Mapping[Picture, str], told: Told, others: Sequence[Picture] = ()
) -> dict[Picture, str]:
    """The whole captions: phrases judged, then find-replace and tags, CLIP's words, prefix and suffix."""
    e, eye = edits(work, s), Eye(work)
    said = {p: text for p, text in cores.items() if text}
    if s.judged:
        said |= _opinions.without_doubtful(eye, said, others, s.strip_unsupported, told)
    said = {p: wording.mended(text, e) for p, text in said.items()}
    if s.words:
        said |= _opinions.worded(eye, s.words, s.word_margin, {p: text for p, text in said.items() if text})
    told.failed.update({p.name: "the edits leave nothing of it" for p, text in said.items() if not text})
    whole = {p: wording.dressed(text, e, own=s.mode in (FILES, TEXT)) for p, text in said.items() if text}
    return {p: whole.get(p, "") for p in cores if p.name not in told.failed}


# ---------------------------------------------------------------- writing


def write(work: Work, s: Settings, about: str, picture: Picture, after: str) -> str:
    """Write one caption and record it; on a set that is not ours only say what would be written."""
    before = picture.caption
    verdict = "captioned" if work.apply else "would be captioned"
    if work.apply:
        promise(work, about, picture, after)
        picture.write_caption(after)
    work.note(picture, verdict, s.mode, before=before, after=after, why=about)
    return f"{picture.name}: {after}" if work.apply else f"{picture.name}: would say: {after}"
