"""Hold what is there against what was written down: one LoRA file, or the whole record.

A file is held against its own header and the NAME.prov.json beside it; no record is needed. Without a file the record
is looked through: whether its database is whole, whether saves and chosen files are as they were written, whether any
file came from no run, and whether any run is said to be at work while nobody is.

\b
For example:
  lora verify anna.safetensors     a file that came from anywhere
  lora verify                      the record, saves and chosen files
  lora verify --deep               and every original, picture and text, read anew
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from lorafactory import dataset, images, manifest, step
from lorafactory.commands import _statement
from lorafactory.errors import InputError, LoraError, Problem, raise_all
from lorafactory.options import json_option, workspace_option
from lorafactory.store import RunRow, Store
from lorafactory.training.lora_header import tensor_hash
from lorafactory.workspace import LoraDir, Workspace, find_workspace, target

PUBLISHED = ("chosen", "preview", "sidecar", "provenance")


def verify_file(path: Path) -> list[str]:
    """What is wrong with a LoRA file, by its header and the statement beside it."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return _statement.problems(path)


def verify(space: Workspace, store: Store, *, deep: bool) -> list[str]:
    """Everything in the workspace that is not as the record says."""
    check = "integrity_check" if deep else "quick_check"
    found = [f"{space.record}: {row[0]}" for row in store.select(f"PRAGMA {check}") if row[0] != "ok"]
    found += idle(space, store)
    for place in places(space):
        found += [f"{place.root.name}: {what}" for what in published(place, store)]
        found += [f"{place.root.name}: {what}" for what in saves(place, store)]
        found += [f"{place.root.name}: {what}" for what in (read_anew(place, store) if deep else ())]
    if deep:
        rows = store.select("SELECT b.sha256, c.bytes FROM content c JOIN blob b ON b.id = c.blob_id")
        found += [f"the record: text {sha} is not whole" for sha, data in rows if hashed(data) != sha]
    return found


def places(space: Workspace) -> Iterator[LoraDir]:
    """The LoRAs that are in the workspace."""
    yield from (space.lora(folder.name) for folder in sorted(space.loras.glob("*/")) if folder.name[0] != ".")


def idle(space: Workspace, store: Store) -> list[str]:
    """Runs that are said to be at work, of LoRAs that nobody has locked."""
    found = []
    for lora, name, at in store.select("SELECT lora, step, started_at FROM run WHERE status = 'running' ORDER BY id"):
        with suppress(LoraError), step.locked(target(space, lora)):  # else somebody is at work, or the folder is gone
            found.append(f"{lora}: {name} of {at} says it is running, and nobody is: lora make {lora} goes on")
    return found


def published(place: LoraDir, store: Store) -> Iterator[str]:
    """Differences between the chosen file with what lies beside it, and what the last `pick` wrote."""
    undone = store.undone(place.recorded)
    pick = next((r for r in store.runs(place.recorded, -1, step="pick") if _stands(r, undone)), None)
    for role in PUBLISHED if pick else ():
        for name, sha in store.edges(pick.id if pick else 0, "out", role).items():
            yield from differs(place.root / name, sha)
    if place.chosen.is_file():
        yield from _statement.problems(place.chosen)


def _stands(row: RunRow, undone: Mapping[str, int]) -> bool:
    return row.status == "done" and row.ulid not in undone


def saves(place: LoraDir, store: Store) -> Iterator[str]:
    """Saves of the newest training that are gone or changed, and files that came from no run."""
    folders = [place.result, *sorted(place.earlier_results.glob("*/"))]
    there = {path.name: path for folder in reversed(folders) for path in sorted(folder.glob("*.safetensors"))}
    train = store.last(place.recorded, "train")
    rows = store.ask("kept", run_id=train.id, role="plan") if train else []
    for name, tensors in (json.loads(rows[0]["text"])["saves"] if rows else {}).items():
        if name not in there:
            yield f"{name} is gone"
        elif tensor_hash(there[name]) != tensors:
            yield f"{there[name]}: its tensors are not those that were trained"
    for path in there.values():
        if not store.places(images.sha256(path)):
            yield f"{path}: no run in this record made it"


def read_anew(place: LoraDir, store: Store) -> Iterator[str]:
    """Originals and pictures that are not as the newest runs saw them; a person may have meant it."""
    rename = store.last(place.recorded, "rename")
    for name, sha in store.edges(rename.id, "in", "sees").items() if rename else ():
        yield from differs(place.source / name, sha)
    there = {p.name: p.path for p in dataset.read_set(place.root, place.images).pictures}
    for name, sha in store.left(place.recorded, "picture").items():
        yield from differs(there.get(name, place.images / name), sha)


def differs(path: Path, sha: str) -> Iterator[str]:
    """Say that a file is gone, or has other bytes; it is read whole."""
    if not path.is_file():
        yield f"{path} is gone"
    elif hashed(path.read_bytes()) != sha:
        yield f"{path} was changed since"


def hashed(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@click.command(help=__doc__)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--deep", is_flag=True, help="Read every original, picture and text anew.")
@json_option
@workspace_option
def command(file: Path | None, deep: bool, as_json: bool, workspace: Path | None) -> None:
    if file is not None:
        problems, what = verify_file(file), f"{file.name}: as its header says"
        beside = file.with_suffix(manifest.SUFFIX)
        what += f", and {beside.name}" if beside.is_file() else f"; there is no {beside.name} to say what it is made of"
    else:
        space = find_workspace(workspace)
        with Store(space.record, readonly=True) as store:
            problems, what = verify(space, store, deep=deep), f"{space.record}: all is as it was written down"
    data: dict[str, Any] = {"problems": problems}
    if as_json:
        click.echo(json.dumps(data))
    raise_all(Problem(problem) for problem in problems)
    if not as_json:
        click.echo(what)
