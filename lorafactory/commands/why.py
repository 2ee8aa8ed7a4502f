"""Why a picture was kept or set aside and which LoRAs saw it; what a LoRA was made of; in what two of them differ.

\b
For example:
  lora why                      the latest runs, and the hours that each LoRA took
  lora why anna                 its runs, its verdict, what it was trained on, and what is not in its set
  lora why anna/0007.png        every decision about a picture
  lora why "photos/IMG 1.jpg"   the same, by the file itself, also renamed or saved again
  lora why anna.safetensors     what a file carries, and what the record knows of it
  lora why anna bert            the first input in which two LoRAs, or their files, differ
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from lorafactory import images, manifest
from lorafactory.commands import _statement, _telling
from lorafactory.commands._called import SLASHES, file_called, look_of, lora_called, picture_called, seen
from lorafactory.commands._made import Made, excluded, inputs, made, training_of
from lorafactory.commands._statement import papers
from lorafactory.errors import SettingsError
from lorafactory.files import read_json
from lorafactory.options import json_option, workspace_option
from lorafactory.recording import signed
from lorafactory.store import Decision, RunRow, Store, tidy
from lorafactory.training.lora_header import tensor_hash
from lorafactory.undoing import REVIEW
from lorafactory.workspace import LoraDir, Workspace, find_workspace

SHOWN, LOOKED = 20, 1000
"""Runs that are told, and how many are looked at for it: many acts on the local page in a row are told as one."""
NEAR = 4
"""Bits of the perceptual hash that saving again and resizing cost (see `dedupe`)."""
_BITS = (1 << 64) - 1


@dataclass(frozen=True)
class RunStory:
    """A run, and how often it decided what; of a person's acts on the local page several in a row are one story."""

    run: RunRow
    """The newest of them."""
    verdicts: dict[str, int]
    acts: int = 1
    said: tuple[str, ...] = ()
    """What was done that decided nothing about a picture."""


@dataclass(frozen=True)
class FileStory:
    """What a LoRA file says of itself and, where the record knows it, what it was made of."""

    file: str
    sha256: str
    tensors: str
    """Its tensor hash."""
    carries: dict[str, str]
    provenance: str
    """`whole`, or what is wrong with the statement beside it; empty if there is none."""
    made: Made | None


@dataclass(frozen=True)
class Difference:
    """The first input in which two things differ; `what` is empty if there is none."""

    one: str
    other: str
    what: str
    here: str
    there: str


@dataclass(frozen=True)
class LoraStory:
    """What became of a LoRA; of all LoRAs if `lora` is None."""

    lora: str | None
    runs: list[RunStory]
    out: list[Decision]
    """For each picture that is not in the set, the decision that took it out."""
    verdict: dict[str, Any] = field(default_factory=dict)
    """verdict.json: the choice of a save and, beside it, the verdict; empty if nothing was picked."""
    made: Made | None = None
    """What its newest training was made of."""
    hours: dict[str, float] = field(default_factory=dict)
    """Of all LoRAs: hours of training."""
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
    in_set: list[str]
    """Under which names it was in the set as the latest run left it."""
    out: list[Decision]
    """What took it out of the set, under any name."""
    elsewhere: list[str]
    """Other LoRAs and folders that had these bytes; what they decided is told when they are asked about."""
    decisions: list[Decision]
    models: dict[str, dict[str, str]]
    """Of the runs that decided, by their public ids: the models that were asked, with their sha256."""
    written: list[dict[str, Any]]
    """The runs that wrote this file, if it is not a picture of a set."""
    trainings: list[RunRow]
    possible: list[str]
    """Pictures that look alike by the perceptual hash, and may be the same; where all pixels are equal they are."""
    revoked: str
    """Why it, or what it came from, may not be used; empty if it may."""


Story = LoraStory | PictureStory | FileStory | Difference


def why(store: Store, space: Workspace, thing: str | None) -> LoraStory | PictureStory:
    """Tell the story of a LoRA, a picture or the recent runs; SettingsError if the record does not know it."""
    agrees = {row["lora"]: bool(row["agrees"]) for row in store.ask("agreement")}
    agreed: dict[str, Any] = {"chosen": len(agrees), "agreed": sum(agrees.values())}
    if thing is None:
        hours = {row["lora"]: row["hours"] for row in store.ask("hours")}
        return LoraStory(None, run_stories(store, None), [], hours=hours, **agreed)
    lora = lora_called(store, space, thing)
    if lora is not None:
        folder = LoraDir(lora, Path(lora).expanduser(), owned=False) if SLASHES.intersection(lora) else space.lora(lora)
        verdict = read_json(folder.comparison / "verdict.json")
        return LoraStory(lora, run_stories(store, lora), excluded(store, lora), verdict, made(store, lora), **agreed)
    story = picture_story(store, space, thing)
    if not (story.decisions or story.trainings or story.sources or story.also or story.possible or story.revoked
            or story.written):  # fmt: skip
        known = sorted({run.lora for run in store.runs(limit=1000)})
        raise SettingsError(
            f"nothing is recorded about {thing}.\n    lora why NAME, NAME/0001.png or the path of a picture;"
            f" recorded LoRAs: {', '.join(known) or 'none'}"
        )
    return story


def run_stories(store: Store, lora: str | None) -> list[RunStory]:
    """The latest runs, newest first."""
    found: list[RunStory] = []
    for run in store.runs(lora, limit=LOOKED):
        verdicts = {row["verdict"]: row["n"] for row in store.ask("verdicts", run_id=run.id)}
        said = () if verdicts or "said" not in run.settings else (run.settings["said"],)
        last = found[-1] if found else None
        if last and run.step == last.run.step == REVIEW and run.lora == last.run.lora:
            both = Counter(last.verdicts) + Counter(verdicts)
            found[-1] = RunStory(last.run, dict(both), last.acts + 1, (*said, *last.said))
        elif len(found) == SHOWN:
            break
        else:
            found.append(RunStory(run, verdicts, 1, said))
    return found


# ---------------------------------------------------------------- a training


CARRIED = {
    "made of": manifest.KEY,
    "name": "ss_output_name",
    "title": "modelspec.title",
    "trigger": "modelspec.trigger_phrase",
    "base": "ss_sd_model_name",
    "base sha256": "ss_new_sd_model_hash",
    "family": "ss_base_model_version",
    "rank": "ss_network_dim",
    "alpha": "ss_network_alpha",
    "epoch": "ss_epoch",
    "steps": "ss_steps",
    "pictures an epoch": "ss_num_train_images",
    "learning rate": "ss_learning_rate",
    "optimizer": "ss_optimizer",
    "resolution": "ss_resolution",
    "date": "modelspec.date",
    "written by": "ss_training_comment",
    "verdict": "lorafactory.verdict",
    "reason": "lorafactory.reason",
    "chosen": "lorafactory.chosen",
}
"""What of a LoRA file's header is told, in which words."""


def file_story(store: Store | None, path: Path) -> FileStory:
    """What a LoRA file carries, and what went into it where the record knows."""
    said, beside = papers(path), path.with_suffix(manifest.SUFFIX)
    run = training_of(store, path, said) if store else None
    return FileStory(
        file=path.name,
        sha256=images.sha256(path),
        tensors=tensor_hash(path),
        carries={word: said[key] for word, key in CARRIED.items() if said.get(key, "None") != "None"},
        provenance=("; ".join(_statement.problems(path)) or "whole") if beside.is_file() else "",
        made=made(store, *run) if store and run else None,
    )


# ---------------------------------------------------------------- two things


def difference(store: Store | None, space: Workspace, one: str, other: str) -> Difference:
    """The first input in which two LoRAs differ, or in what two pictures do."""
    pair = [inputs(store, space, thing) for thing in (one, other)]
    paths = [file_called(space, thing) for thing in (one, other)]
    loras = [path.is_file() and path.suffix == ".safetensors" for path in paths]
    if not all(pair):
        if all(path.is_file() for path in paths) and not any(loras):
            return Difference(one, other, *pictures_apart(*paths))
        unknown = ", ".join(thing for thing, found in zip((one, other), pair, strict=True) if not found)
        raise SettingsError(f"nothing tells what went into {unknown}: no manifest in the record, no .prov.json beside")
    if any("resolvedDependencies" in found for found in pair):
        pair = [found if "resolvedDependencies" in found else manifest.definition(found) for found in pair]
    apart = manifest.difference(*pair) or (saves_apart(*paths) if all(loras) else None)
    return Difference(one, other, *(apart or ("", "", "")))


def saves_apart(one: Path, other: Path) -> tuple[str, str, str] | None:
    """How far the trainings of two files had come, where that differs; of one training all else is the same."""
    here, there = (papers(path).get("ss_steps", "-") for path in (one, other))
    return None if here == there else ("steps trained", here, there)


def pictures_apart(one: Path, other: Path) -> tuple[str, str, str]:
    """In what two pictures differ: in nothing, in their bytes alone, or in what they show."""
    if images.sha256(one) == images.sha256(other):
        return "", "", ""
    here, there = seen(one), seen(other)
    if here[0] == there[0]:
        return "bytes, and not a pixel", images.sha256(one), images.sha256(other)
    return f"pixels, and {(here[1] ^ there[1]).bit_count()} of 64 bits of the perceptual hash", here[0], there[0]


# ---------------------------------------------------------------- a picture


def picture_story(store: Store, space: Workspace, thing: str) -> PictureStory:
    """All that the record says of a picture, whether it is given by path or as NAME/PICTURE."""
    lora, name, hashes = picture_called(store, space, thing)
    path = file_called(space, thing)
    look = look_of(store, path, hashes)
    if path.is_file() and not any(store.places(sha) for sha in hashes) and look:
        hashes = [*hashes, *(row["sha256"] for row in store.ask("pixels", pixels=look[0]))]
    parents = [p.sha256 for sha in hashes for p in store.parents(sha)]
    made = [c.sha256 for sha in hashes for c in store.children(sha) if c.depth == 1]
    found = {d.id: d for sha in {*hashes, *parents, *made} for d in store.decisions(sha256=sha)}
    about = sorted(found.values(), key=lambda d: d.id)
    home = tidy(lora) or (about[-1].lora if about else None)
    others = {where for sha in hashes for where, _ in store.places(sha)} - {home}
    trainings = {run.id: run for sha in hashes for run in store.users_of(sha)}
    decisions = [d for d in about if d.lora == home]
    asked = {d.run: store.ask("models", run_id=d.run_id) for d in decisions}
    last, same = store.last_of(home or ""), {*hashes, *parents, *made}
    left = store.edges(last.id, "out", "picture") if last else {}
    return PictureStory(
        picture=f"{lora}/{name}" if lora and not SLASHES.intersection(lora) else thing,
        lora=lora,
        sha256=hashes,
        sources=files(store, parents, home) or files(store, parents, None),
        also=[other for other in files(store, hashes, home) if Path(other).name != name],
        in_set=[name for name, sha in left.items() if sha in same],
        out=[d for d in excluded(store, home or "") if d.sha256 in same],
        elsewhere=sorted(others),
        decisions=decisions,
        models={run: {row["name"]: row["sha256"] for row in rows} for run, rows in asked.items() if rows},
        written=[row for sha in hashes for row in store.ask("written", sha256=sha)],
        trainings=[trainings[i] for i in sorted(trainings)],
        possible=alike(store, look, same),
        revoked=next((row["reason"] for sha in [*hashes, *parents] for row in store.ask("revoked", sha256=sha)), ""),
    )


def alike(store: Store, look: tuple[str, int] | None, known: set[str]) -> list[str]:
    """Other recorded pictures whose perceptual hash is within `NEAR` bits, by any name, with the LoRAs they are in."""
    if look is None:
        return []
    found, same = [], {row["sha256"] for row in store.ask("pixels", pixels=look[0])}
    for row in store.ask("near", phash=signed(look[1] & _BITS)):
        apart = ((row["phash"] ^ look[1]) & _BITS).bit_count()
        if apart <= NEAR and row["sha256"] not in known:
            how = _telling.SAME if row["sha256"] in same else f"{apart} of 64 bits apart"
            where, name = min(store.places(row["sha256"]), default=("", ""))
            used = sorted({run.lora for run in store.users_of(row["sha256"])})
            trained = f", in {', '.join(used)}" if used else ""
            found.append(f"{where}/{name}, {how}{trained}")
    return sorted(found)


def files(store: Store, hashes: list[str], lora: str | None) -> list[str]:
    """The file names under which contents are recorded, for this LoRA if one is given."""
    places = {place for sha256 in hashes for place in store.places(sha256)}
    found = {name for where, name in places if lora in (None, where) and Path(name).suffix}
    return sorted(name for name in found if Path(name).name == name or Path(name).name not in found)


# ---------------------------------------------------------------- the command


def story(store: Store | None, space: Workspace, thing: str | None, other: str | None) -> Story:
    """Whatever is asked about. Of LoRA files alone something can be told without a record."""
    path = Path(thing or "").expanduser()
    if thing and other:
        return difference(store, space, thing, other)
    if path.suffix == ".safetensors" and path.is_file():
        return file_story(store, path)
    assert store is not None
    return why(store, space, thing)


@click.command(help=__doc__)
@click.argument("thing", required=False)
@click.argument("other", required=False)
@json_option
@workspace_option
def command(thing: str | None, other: str | None, as_json: bool, workspace: Path | None) -> None:
    space = find_workspace(workspace)
    alone = all(name.endswith(".safetensors") for name in (thing, other) if name) and bool(thing)
    with ExitStack() as opened:
        known = not alone or space.record.is_file()
        store = opened.enter_context(Store(space.record, readonly=True)) if known else None
        told = story(store, space, thing, other)
    click.echo(json.dumps(dataclasses.asdict(told)) if as_json else "\n".join(_telling.lines(told)))
