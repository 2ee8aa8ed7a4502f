"""Why a picture was kept or set aside and which LoRAs saw it; a LoRA's runs and verdict; the recent runs.

\b
For example:
  lora why                      the latest runs
  lora why anna                 its runs, which save was chosen and why, and what is not in its set
  lora why anna/0007.png        every decision about a picture
  lora why "photos/IMG 1.jpg"   the same, by the file itself
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from lorafactory import images
from lorafactory.errors import SettingsError
from lorafactory.files import read_json
from lorafactory.options import json_option, workspace_option
from lorafactory.scoring.figures import apart
from lorafactory.setcheck import some
from lorafactory.store import Decision, RunRow, Store, tidy
from lorafactory.workspace import Workspace, find_workspace, target

OUT = ("set aside", "removed", "refused")
BACK = ("put back", "added")
BY_HAND = "by hand"
SLASHES = frozenset("/\\")
"""What a folder's place has, and a LoRA's name has not."""
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class RunStory:
    """A run, and how often it decided what."""

    run: RunRow
    verdicts: dict[str, int]


@dataclass(frozen=True)
class LoraStory:
    """What became of a LoRA; of all LoRAs if `lora` is None."""

    lora: str | None
    runs: list[RunStory]
    out: list[Decision]
    """For each picture that is not in the set, the decision that took it out."""
    verdict: dict[str, Any] = field(default_factory=dict)
    """verdict.json: the choice of a save and, beside it, the verdict; empty if nothing was picked."""
    chosen: int = 0
    """Of all LoRAs: how many a person chose a save of."""
    agreed: int = 0
    """How many of these are what the verdict says too."""


@dataclass(frozen=True)
class PictureStory:
    """What became of a picture."""

    picture: str
    lora: str | None
    sha256: list[str]
    """Every content the name has had; one, unless somebody changed the picture."""
    sources: list[str]
    """Names of what it was made from."""
    also: list[str]
    """Other names of the same bytes."""
    elsewhere: list[str]
    """Other LoRAs and folders that had these bytes; what they decided is told when they are asked about."""
    decisions: list[Decision]
    trainings: list[RunRow]


def why(store: Store, space: Workspace, thing: str | None) -> LoraStory | PictureStory:
    """Tell the story of a LoRA, a picture or the recent runs; SettingsError if the record does not know it."""
    agrees = choices(store)
    agreed = len(agrees), sum(agrees.values())
    if thing is None:
        return LoraStory(None, run_stories(store, None), [], {}, *agreed)
    lora = lora_called(store, space, thing)
    if lora is not None:
        place = target(space, thing) if SLASHES.intersection(lora) else space.lora(lora)
        out, verdict = out_of_set(store.decisions(lora=lora)), read_json(place.comparison / "verdict.json")
        return LoraStory(lora, run_stories(store, lora), out, verdict, *agreed)
    story = picture_story(store, space, thing)
    if not (story.decisions or story.trainings or story.sources or story.also):
        known = sorted({run.lora for run in store.runs(limit=1000)})
        raise SettingsError(
            f"nothing is recorded about {thing}.\n    lora why NAME, NAME/0001.png or the path of a picture;"
            f" recorded LoRAs: {', '.join(known) or 'none'}"
        )
    return story


def lora_called(store: Store, space: Workspace, thing: str) -> str | None:
    """The LoRA that is meant by a name, or by its folder."""
    plain = not SLASHES.intersection(thing)
    if plain and (store.runs(thing, limit=1) or (space.loras / thing).is_dir()):
        return thing
    return target(space, thing).recorded if Path(thing).expanduser().is_dir() else None


def run_stories(store: Store, lora: str | None) -> list[RunStory]:
    """The latest runs, newest first."""
    runs = store.runs(lora)
    return [RunStory(run, dict(Counter(d.verdict for d in store.decisions(run_id=run.id)))) for run in runs]


def choices(store: Store) -> dict[str, bool]:
    """Each LoRA of which a person chose a save, and whether the last choice is what the verdict says."""
    found: dict[str, bool] = {}
    for run in store.runs(limit=-1, step="pick"):
        if run.lora not in found and (said := store.metrics(run.id, "agrees")):
            found[run.lora] = bool(said[0][1])
    return found


def out_of_set(decisions: list[Decision]) -> list[Decision]:
    """For each picture that is out now, what took it out. It is in if put back, or if a later run saw it."""
    out: dict[str, Decision] = {}
    for d in decisions:
        last = out.get(d.image)
        if d.verdict in OUT:
            out[d.image] = d
        elif last and (d.verdict in BACK or (d.sha256 == last.sha256 and d.run_id != last.run_id)):
            del out[d.image]
    return [out[image] for image in sorted(out)]


def picture_story(store: Store, space: Workspace, thing: str) -> PictureStory:
    """All that the record says of a picture, whether it is given by path or as NAME/PICTURE."""
    lora, name, hashes = picture_called(store, space, thing)
    parents = [p.sha256 for sha in hashes for p in store.parents(sha)]
    made = [c.sha256 for sha in hashes for c in store.children(sha) if c.depth == 1]
    found = {d.id: d for sha in {*hashes, *parents, *made} for d in store.decisions(sha256=sha)}
    about = sorted(found.values(), key=lambda d: d.id)
    home = tidy(lora) or (about[-1].lora if about else None)
    others = {where for sha in hashes for where, _ in store.places(sha)} - {home}
    trainings = {run.id: run for sha in hashes for _, run in store.users_of(sha)}
    return PictureStory(
        picture=f"{lora}/{name}" if lora and not SLASHES.intersection(lora) else thing,
        lora=lora,
        sha256=hashes,
        sources=names(store, parents, home) or names(store, parents, None),
        also=[other for other in names(store, hashes, home) if other != name],
        elsewhere=sorted(others),
        decisions=[d for d in about if d.lora == home],
        trainings=[trainings[i] for i in sorted(trainings)],
    )


def names(store: Store, hashes: list[str], lora: str | None) -> list[str]:
    """The names under which contents are recorded, for this LoRA if one is given."""
    places = {place for sha256 in hashes for place in store.places(sha256)}
    return sorted({name for where, name in places if lora in (None, where)})


def picture_called(store: Store, space: Workspace, thing: str) -> tuple[str | None, str, list[str]]:
    """LoRA, name and contents of the picture that is meant.

    An original may bear the name of another picture of the set, so a name stands for the set's picture first, and
    a file in `source/` for its content only. The LoRA of a file elsewhere is the folder that commands were given.
    """
    path = Path(thing).expanduser()
    inside = _below(path.resolve(), space.loras.resolve())
    parts = inside if len(inside) > 1 else () if path.is_file() else Path(thing).parts
    lora = parts[0] if len(parts) > 1 else set_of(store, path) if path.is_file() else None
    hashes = [images.sha256(path)] if path.is_file() else []
    if lora is not None and not (hashes and "source" in parts):
        hashes += store.named(lora, path.name, "picture")
    if lora is not None and not hashes:
        hashes += store.named(lora, path.name)
    return lora, path.name, list(dict.fromkeys(hashes))


def set_of(store: Store, path: Path) -> str | None:
    """The nearest folder above a file that the record knows as a set."""
    above = (str(tidy(str(folder))) for folder in path.resolve().parents)
    return next((folder for folder in above if store.runs(folder, limit=1)), None)


def _below(path: Path, folder: Path) -> tuple[str, ...]:
    return path.relative_to(folder).parts if path.is_relative_to(folder) else ()


# ---------------------------------------------------------------- in words


def lines(story: LoraStory | PictureStory) -> list[str]:
    """The story as lines of text."""
    return picture_lines(story) if isinstance(story, PictureStory) else lora_lines(story)


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
    if story.chosen and (story.lora is None or story.verdict.get("by_hand")):
        told.append(f"a person's choice of a save is the verdict's too in {story.agreed} of {story.chosen} LoRAs")
    if story.out:
        told.append(f"not in the set: {len(story.out)}")
    told += [f"  {d.image:14}  {d.verdict}  {_where(d)}{detail(d)}" for d in story.out]
    return [line.rstrip() for line in told]


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
    return [line.rstrip() for line in told]


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


@click.command(help=__doc__)
@click.argument("thing", required=False)
@json_option
@workspace_option
def command(thing: str | None, as_json: bool, workspace: Path | None) -> None:
    space = find_workspace(workspace)
    with Store(space.record, readonly=True) as store:
        story = why(store, space, thing)
    click.echo(json.dumps(dataclasses.asdict(story)) if as_json else "\n".join(lines(story)))
