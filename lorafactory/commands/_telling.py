"""What `why` found, in words."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorafactory.scoring.figures import apart
from lorafactory.setcheck import some
from lorafactory.store import Decision

if TYPE_CHECKING:
    from lorafactory.commands._made import Made
    from lorafactory.commands.why import Difference, FileStory, LoraStory, PictureStory, Story

BY_HAND = "by hand"
_HASH = re.compile(r"[0-9a-f]{64}")


def lines(story: Story) -> list[str]:
    """The story as lines of text."""
    kind = type(story).__name__
    tell = {"PictureStory": picture_lines, "FileStory": file_lines, "Difference": difference_lines}
    told: list[str] = tell.get(kind, lora_lines)(story)  # type: ignore[operator]
    return [line.rstrip() for line in told]


def lora_lines(story: LoraStory) -> list[str]:
    told = [story.lora or "latest runs"]
    for run, verdicts in ((s.run, s.verdicts) for s in story.runs):
        took = f"{run.wall_s:.1f} s" if run.wall_s is not None else ""
        counts = ", ".join(f"{n} {verdict}" for verdict, n in verdicts.items())
        name = "" if story.lora else f"{run.lora:12}  "
        when = f"{local(run.started_at)}  {name}{run.step:8}  {run.status:11}"
        told.append(f"  {when}  {took:>9}  {run.error or counts}")
    if not story.runs:
        told.append("  nothing has been run yet")
    told += verdict_lines(story.verdict)
    told += [f"  {lora:12}  {hours:.2f} hours of training" for lora, hours in story.hours.items()]
    if story.chosen and (story.lora is None or story.verdict.get("by_hand")):
        told.append(f"a person's choice of a save is the verdict's too in {story.agreed} of {story.chosen} LoRAs")
    if story.out:
        told.append(f"not in the set: {len(story.out)}")
    told += [f"  {d.image:14}  {d.verdict}  {_where(d)}{detail(d)}" for d in story.out]
    return [*told, *made_lines(story.made)]


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
    if story.elsewhere:
        told.append(f"  other sets with the same picture: {some(story.elsewhere)}")
    name = Path(story.picture).name
    for d in story.decisions:
        other = f"{d.lora}/{d.image}: " if story.lora is None else f"{d.image}: " if d.image != name else ""
        told.append(f"  {local(d.at)}  {d.step:8}  {other}{d.verdict}  {detail(d)}")
    told += [f"  trained on it: {r.lora}, {local(r.started_at)}, {r.status}" for r in story.trainings]
    if not story.trainings:
        told.append("  no LoRA was trained on it")
    told += [f"  perhaps the same: {one}" for one in story.possible]
    return [*told, *([f"  revoked: {story.revoked}"] if story.revoked else [])]


def file_lines(story: FileStory) -> list[str]:
    told = [story.file, f"  sha256        {story.sha256}", f"  tensor hash   {story.tensors}"]
    told += [f"  {word:12}  {value}" for word, value in story.carries.items()]
    told += [f"  provenance    {story.provenance}"] if story.provenance else []
    return told + (made_lines(story.made) or ["not in this record: what it carries is all there is to tell"])


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
        told.append(f"  goes on from  {made.manifest['from']['sha256'][:12]}")
    packages = made.manifest["environment"]["packages"]
    told.append(f"  on            {device}, {', '.join(f'{name} {packages[name]}' for name in sorted(packages))}")
    told.append(f"  settings      {', '.join(f'{k}={v}' for k, v in made.manifest['settings'].items())}")
    told.append(f"  pictures      {len(made.manifest['pictures'])}, not in the set: {len(made.excluded)}")
    for p in made.manifest["pictures"]:
        told.append(
            f'    {p["name"]:14} x{p["repeats"]}  "{p["caption"]}" ({made.writers.get(p["name"], "as it came")})'
        )
    return told


def detail(d: Decision) -> str:
    """Rule, score against threshold, rival, and the texts or places before and after."""
    told = [] if d.rule == d.step else [d.rule]
    if d.score is not None and d.threshold is not None:
        told.append(" against ".join(apart(d.score, d.threshold, "g", 4)))
    elif d.score is not None:
        told.append(f"{d.score:.4g}")
    if d.rival:
        told.append(f"rival {d.rival}")
    change = [text for text in (d.before, d.after) if text and not _HASH.fullmatch(text)]
    if change:
        told.append(" -> ".join(f'"{text}"' for text in change))
    if d.note and not _HASH.fullmatch(d.note):
        told.append(d.note)
    return ", ".join(told)


def _where(d: Decision) -> str:
    return "by hand  " if d.step == BY_HAND else f"by {d.step}  "


def local(at: str) -> str:
    """The record's UTC time as the clock on the wall had it."""
    return datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M")
