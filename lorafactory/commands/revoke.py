"""Forbid a picture: take it out of every set, refuse it from now on, and say which LoRAs learned from it.

The record keeps its hashes and the reason, no pixels. All that came from it is marked too: its copies in other sets,
the saves of trainings that saw it, pictures drawn with them, LoRAs that went on from them. Pictures leave their sets
for set_aside/revoked/. Originals are yours: they stay where they are, and are named so that you can delete them.

\b
For example:
  lora revoke anna/0007.png --reason "asked to by the person in it"
  lora revoke photos/IMG_1.jpg --reason "licence withdrawn"
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click

from lorafactory import dataset, images, past, step
from lorafactory.commands._called import look_of, picture_called
from lorafactory.errors import SettingsError
from lorafactory.options import json_option, workspace_option
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
    files: list[str] = field(default_factory=list)
    """Where copies of the picture, and LoRAs that learned from it, still lie."""
    plan: list[str] = field(default_factory=list)
    """What to type, in order, to have LoRAs that never saw it."""


def family(store: Store, space: Workspace, thing: str) -> list[str]:
    """The picture first, then what it was converted from, the same pixels, and all that came from any of these."""
    path = Path(thing).expanduser()
    hashes = picture_called(store, space, thing)[2]
    look = look_of(store, path, hashes)
    hashes += [row["sha256"] for row in store.ask("pixels", pixels=look[0])] if look and look[0] else []
    if not hashes:
        raise SettingsError(f"no picture at {thing}, and the record knows none: NAME/0001.png, or a file")
    hashes += [one.sha256 for sha in hashes for one in store.parents(sha) if one.how == "png"]
    roots = list(dict.fromkeys(hashes))
    offspring = [row["sha256"] for sha in roots for row in store.ask("offspring", sha256=sha)]
    return list(dict.fromkeys([*roots, *offspring]))


def revoke(store: Store, space: Workspace, thing: str, reason: str) -> Revoked:
    """Mark it, take it out of the sets, and gather what is left to do."""
    marked = family(store, space, thing)
    trainings = {run.id: lora for sha in marked for lora, run in store.users_of(sha)}
    store.revoke(marked, reason)
    done = Revoked(marked[0], len(marked))
    forbidden = set(marked)
    for folder in sorted(space.loras.glob("*/")):
        place = space.lora(folder.name)
        done.set_aside += take_out(store, place, forbidden, reason)
        lies = (
            *images.find_sources(place.source),
            *place.root.glob("**/*.safetensors"),
            *place.root.glob("set_aside/**/*"),
        )
        done.files += [str(p) for p in lies if p.is_file() and images.sha256(p) in forbidden]
    done.plan = [f"lora make {lora}" for lora in dict.fromkeys(trainings[i] for i in sorted(trainings))]
    return done


def take_out(store: Store, place: LoraDir, forbidden: set[str], reason: str) -> list[str]:
    """Move what is revoked out of a set; return the places it had."""
    found = dataset.read_set(place.root, place.images)
    out = [p for subset in found.subsets for p in subset.pictures if dataset.hash_of(p.path) in forbidden]
    if not out:
        return []
    with step.locked(place), store.run(place.recorded, "revoke", version=1, key="", settings={"reason": reason}) as run:
        for picture in out:
            run.note(picture.name, picture.sha256, "set aside", RULE, note=reason)
            dataset.set_aside(place.root, picture, RULE)
        past.snapshot(dataset.read_set(place.root, place.images), run)
    return [f"{place.name}/{picture.name}" for picture in out]


def lines(done: Revoked) -> list[str]:
    told = [f"revoked {done.sha256}: {done.marked} files marked, and refused from now on"]
    told += [f"  {name}: set aside" for name in done.set_aside]
    told += [f"  still there, yours to delete: {path}" for path in done.files]
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
