"""Forbid a picture: take it out of every set, refuse it from now on, and say which LoRAs learned from it.

The record keeps its hashes and the reason, no pixels. All that came from it is marked too: its copies in other sets,
the saves of trainings that saw it, pictures drawn with them, LoRAs that went on from them. All of that is marked at
once; then pictures leave their sets for set_aside/revoked/. A set that another command is at work on keeps its picture,
and is refused, until the same line is typed again; so does whatever breaks off. Originals are yours: they stay where
they are, and are named so that you can delete them.

\b
For example:
  lora revoke anna/0007.png --reason "asked to by the person in it"
  lora revoke photos/IMG_1.jpg --reason "licence withdrawn"
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click

from lorafactory import dataset, images, past, settings, step
from lorafactory.commands._called import file_called, look_of, picture_called
from lorafactory.commands._forbidden import kin
from lorafactory.errors import InputError, PassingError, SettingsError
from lorafactory.options import json_option, workspace_option
from lorafactory.report import write_report
from lorafactory.setcheck import count
from lorafactory.step import Work
from lorafactory.store import Store
from lorafactory.workspace import LoraDir, Workspace, find_workspace

RULE = "revoked"


@dataclass
class Revoked:
    """What was done, and what is left to do."""

    sha256: str
    marked: int
    """Files marked: the picture and all that came from it."""
    set_aside: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)
    """LoRAs whose sets hold it still, as another command is at work on them."""
    files: list[str] = field(default_factory=list)
    """Where copies of the picture, and LoRAs that learned from it, still lie."""
    cache: str = ""
    """Where what was computed from pictures lies, by no name."""
    plan: list[str] = field(default_factory=list)
    """What to type, in order, to have LoRAs that never saw it."""


def forms(store: Store, space: Workspace, thing: str) -> list[str]:
    """The picture first, then all that it is and all that came from it."""
    hashes = picture_called(store, space, thing)[2]
    look = look_of(store, file_called(space, thing), hashes)
    hashes += [row["sha256"] for row in store.ask("pixels", pixels=look[0])] if look and look[0] else []
    if not hashes:
        raise SettingsError(f"no picture at {thing}, and the record knows none: NAME/0001.png, or a file")
    return kin(store, hashes)


def revoke(store: Store, space: Workspace, thing: str, reason: str) -> Revoked:
    """Mark all of it, take it out of the sets, and gather what is left to do."""
    marked = forms(store, space, thing)
    trainings = {run.id: run.lora for sha in marked for run in store.users_of(sha)}
    store.revoke(marked, reason)
    done, forbidden = Revoked(marked[0], len(marked)), set(marked)
    for folder in sorted(space.loras.glob("*/")):
        place = space.lora(folder.name)
        try:
            done.set_aside += take_out(store, space, place, forbidden, reason)
        except PassingError:
            done.busy.append(place.name)
    loras = list(dict.fromkeys(trainings[i] for i in sorted(trainings)))
    done.files = [str(path) for path in lying(space, loras) if images.sha256(path) in forbidden]
    done.cache = str(space.cache) if space.cache.is_dir() else ""
    done.plan = [f"lora make {lora}" for lora in loras]
    return done


def take_out(store: Store, space: Workspace, place: LoraDir, forbidden: set[str], reason: str) -> list[str]:
    """Move what is revoked out of a set, also in its report; return the places it had."""
    found = dataset.read_set(place.root, place.images)
    out = [p for subset in found.subsets for p in subset.pictures if dataset.hash_of(p.path) in forbidden]
    if not out:
        return []
    with step.locked(place):
        store.interrupt(place.recorded)
        for line in past.see_hand(found, place.recorded, store):
            click.echo(line, err=True)
        with store.run(place.recorded, "revoke", version=1, key="", settings={"reason": reason}) as run:
            for picture in out:
                run.note(picture.name, picture.sha256, "set aside", RULE, note=reason)
                dataset.set_aside(place.root, picture, RULE)
            past.snapshot(dataset.read_set(place.root, place.images), run)
        if place.report.is_file():
            with suppress(InputError):  # its comparison is gone
                write_report(Work(space, place, settings.effective(space, place)), store)
    return [f"{place.name}/{picture.name}" for picture in out]


def lying(space: Workspace, loras: list[str]) -> Iterator[Path]:
    """Where pictures and LoRAs lie, but for the sets: in the workspace, and copies of these LoRAs' picks."""
    for folder in (space.loras, space.inbox, space.root / "quarantine", space.compared):
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in (*images.SUFFIXES, *images.FOREIGN, ".safetensors") and path.is_file():
                yield path
    for folder in space.publish_to:
        yield from (path for lora in loras for path in sorted(folder.glob(f"{lora}*.safetensors")))


def lines(done: Revoked) -> list[str]:
    told = [f"revoked {done.sha256}: {count(done.marked, 'file')} marked, and refused from now on"]
    told += [f"  {name}: set aside" for name in done.set_aside]
    told += [f"  still there, yours to delete: {path}" for path in done.files]
    told += [f"  safe to delete, and may hold what was computed from it: {done.cache}"] if done.cache else []
    told += ["LoRAs that learned from it; to have them without it, in this order:"] if done.plan else []
    return told + ([f"    {line}" for line in done.plan] or ["no LoRA learned from it"])


@click.command(help=__doc__)
@click.argument("image")
@click.option("--reason", required=True, help="Why; it is kept, and told to whoever brings the picture again.")
@json_option
@workspace_option
def command(image: str, reason: str, as_json: bool, workspace: Path | None) -> None:
    space = find_workspace(workspace)
    with Store(space.record) as store:
        done = revoke(store, space, image, reason)
    click.echo(json.dumps(asdict(done)) if as_json else "\n".join(lines(done)))
    if done.busy:
        told = f"another command is at work on {', '.join(done.busy)}, and the picture is in the set still"
        raise PassingError(f"{told}, though refused\n    once that has ended, the same line again takes it out")
