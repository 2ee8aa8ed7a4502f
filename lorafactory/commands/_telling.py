"""What `why` found, in words."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorafactory.scoring.figures import apart
from lorafactory.setcheck import some
from lorafactory.store import Decision
from lorafactory.undoing import local

if TYPE_CHECKING:
    from lorafactory.commands._made import Made
    from lorafactory.commands.why import Difference, FileStory, LoraStory, PictureStory, Story

BY_HAND = "by hand"
SAME = "all pixels equal"
_HASH = re.compile(r"[0-9a-f]{64}")


def lines(story: Story) -> list[str]:
    """The story as lines of text."""
    kind = type(story).__name__
    tell = {"PictureStory": picture_lines, "FileStory": file_lines, "Difference": difference_lines}
    told: list[str] = tell.get(kind, lora_lines)(story)  # type: ignore[operator]
    return [line.rstrip() for line in told]


def lora_lines(story: LoraStory) -> list[str]:
    told = [story.lora or "latest runs"]
    for told_of in story.runs:
        run = told_of.run
        took = f"{run.wall_s:.1f} s" if run.wall_s is not None else ""
        took = took if told_of.acts == 1 else f"{told_of.acts} acts"
        counts = ", ".join([*(f"{n} {verdict}" for verdict, n in told_of.verdicts.items()), *told_of.said])
        name = "" if story.lora else f"{run.lora:12}  "
        when = f"{local(run.started_at)}  {name}{run.step:8}  {run.status:11}"
        told.append(f"  {when}  {took:>9}  {run.error or counts}")
    if not story.runs:
        told.append("  nothing has been run yet")
    told += verdict_lines(story.verdict)
    told += [f"  {lora:12}  {hours:.2f} hours of training" for lora, hours in story.hours.items()]
    if story.chosen and (story.lora is None or story.verdict.get("by_hand")):
        told.append(f"a person's choice of a save is the verdict's too in {story.agreed} of {story.chosen} LoRAs")
    return [*told, *out_lines(story.out), *made_lines(story.made)]


def out_lines(out: list[Decision]) -> list[str]:
    """What is not in a set, and what took it out."""
    told = [f"not in the set: {len(out)}"] if out else []
    return told + [f"  {d.image:14}  {d.verdict}  {_where(d)}{detail(d)}" for d in out]


def verdict_lines(verdict: dict[str, Any]) -> list[str]:
    """Which save was chosen and why, what the others failed, and what to type if none passes."""
    if not verdict:
        return []
    own = verdict["verdict"]
    told = [f"save: {verdict['reason']}", *(f"  rejected {save}: {why}" for save, why in own["rejected"].items())]
    return told + ([f"  next: {own['next']}"] if own["next"] else [])


def picture_lines(story: PictureStory) -> list[str]:
    told = [story.picture]
    if story.sources:
        told.append(f"  made from {', '.join(story.sources)}")
    if story.also:
        told.append(f"  the same bytes as {', '.join(story.also)}")
    name = Path(story.picture).name
    told += [f"  in the set{f' as {one}' if one != name else ''}" for one in story.in_set]
    if not story.in_set:
        told += [f"  not in the set: {d.verdict} {_where(d).rstrip()}, {detail(d) or d.rule}" for d in story.out]
    told += [f"  written by {w['step']} of {w['lora']}, {local(w['started_at'])}" for w in story.written]
    if story.elsewhere:
        told.append(f"  other sets with the same picture: {some(story.elsewhere)}")
    told += decision_lines(story)
    told += [f"  trained on it: {r.lora}, {local(r.started_at)}, {r.status}" for r in story.trainings]
    if not story.trainings and not story.written:
        told.append("  no LoRA was trained on it")
    told += [f"  {'' if SAME in one else 'perhaps '}the same: {one}" for one in story.possible]
    return [*told, *([f"  revoked: {story.revoked}"] if story.revoked else [])]


def decision_lines(story: PictureStory) -> list[str]:
    """What was decided, in order; all that a run found in order about a picture in one line, and whom it asked."""
    told, name, models = [], Path(story.picture).name, dict(story.models)
    for (run, verdict, image), group in groupby(story.decisions, lambda d: (d.run, d.verdict, d.image)):
        found = list(group)
        d, asked = found[0], ", ".join(f"{model} {sha[:12]}" for model, sha in models.pop(run, {}).items())
        other = f"{d.lora}/{image}: " if story.lora is None else f"{image}: " if image != name else ""
        details = "; ".join(detail(one) for one in found)
        told.append(f"  {local(d.at)}  {d.step:8}  {other}{verdict}  {details}{f' [{asked}]' if asked else ''}")
    return told


def file_lines(story: FileStory) -> list[str]:
    told = [story.file, f"  sha256             {story.sha256}", f"  tensor hash        {story.tensors}"]
    told += [f"  {word:17}  {value}" for word, value in story.carries.items()]
    told += [f"  provenance         {story.provenance}"] if story.provenance else []
    if story.made is None:
        return [*told, "not in this record: what it carries is all there is to tell"]
    return [*told, *made_lines(story.made), *out_lines(story.made.excluded)]


def difference_lines(story: Difference) -> list[str]:
    if not story.what:
        return [f"{story.one} and {story.other} do not differ in anything that went into them"]
    return [f"first difference: {story.what}", f"  {story.one}: {story.here}", f"  {story.other}: {story.there}"]


def made_lines(made: Made | None) -> list[str]:
    """What a training was made of; nothing of one that left no manifest."""
    if made is None or not made.manifest:
        return []
    took = "" if made.hours is None else f", {made.hours:.2f} hours"
    again = f", tried again {made.retries} times" if made.retries else ""
    base, device = made.manifest["base"], made.manifest["device"]["name"]
    told = [f"trained: {made.lora}, {local(made.started_at)}, {made.status}{took}{again}{' REVOKED' * made.revoked}"]
    told.append(f"  base          {base['asked']}, {base['sha256'][:12]}")
    if made.manifest["from"]["sha256"]:
        told.append(f"  goes on from  {made.begins or 'a LoRA'}, {made.manifest['from']['sha256'][:12]}")
    machine = made.manifest["environment"]
    told.append(f"  on            {device}, {machine['platform']}, python {machine['python']}")
    told.append(f"  with          {', '.join(f'{name} {v}' for name, v in sorted(machine['packages'].items()))}")
    told.append(f"  settings      {', '.join(f'{k}={v}' for k, v in chosen(made.manifest['settings']).items()) or '-'}")
    told.append(f"  pictures      {len(made.manifest['pictures'])}")
    for p in made.manifest["pictures"]:
        told.append(
            f'    {p["name"]:14} x{p["repeats"]}  "{p["caption"]}" ({made.writers.get(p["name"], "as it came")})'
        )
    return told


def chosen(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a training that are not the defaults of today."""
    from lorafactory.steps.train import Settings

    usual = Settings.model_validate({}).model_dump(mode="json")
    return {key: value for key, value in settings.items() if value != usual.get(key)}


def detail(d: Decision) -> str:
    """Rule, score against threshold, rival, and the texts or places before and after."""
    told = [] if d.rule == d.step else [d.rule]
    in_words = "(" in (d.note or "")  # as in `less sharp than the set (-9.2 spreads, at least -3)`
    if d.score is not None and d.threshold is not None and not in_words:
        told.append(" against ".join(apart(d.score, d.threshold, "g", 4)))
    elif d.score is not None and not in_words:
        told.append(f"{d.score:.4g}")
    if d.rival and d.rival not in (d.note or ""):
        told.append(f"rival {d.rival}")
    change = [text for text in (d.before, d.after) if text and not _HASH.fullmatch(text)]
    if change:
        words = " -> ".join(f'"{text}"' if "caption" in d.verdict else text for text in change)
        told.append(f"as {words}" if d.verdict == "imported" else words)
    if d.note and not _HASH.fullmatch(d.note):
        told.append(d.note)
    return ", ".join(told)


def _where(d: Decision) -> str:
    return "by hand  " if d.step == BY_HAND else f"by {d.step}  "
