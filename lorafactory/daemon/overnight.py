"""A night: what lies in a folder, or is asked for by a matrix, is brought into the inbox, and all of it is made.

Everything goes the way of a drop. It is copied under a hidden name and renamed, so that the inbox takes it at once.
"""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import tomlkit
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lorafactory import images, settings, step
from lorafactory.daemon import awake, moving, quarantine, rows, stability
from lorafactory.daemon.child import cards
from lorafactory.daemon.estimate import forecast, lengths
from lorafactory.daemon.inbox import Inbox, no_drop, set_up
from lorafactory.daemon.names import lora_name
from lorafactory.daemon.opening import fingerprint
from lorafactory.daemon.queue import Queue
from lorafactory.daemon.request import Request
from lorafactory.daemon.watch import is_watched, watch
from lorafactory.errors import DONE, STOPPED, FailedError, InputError, SettingsError
from lorafactory.files import write_whole
from lorafactory.store import Store
from lorafactory.workspace import Workspace

Say = Callable[[str], None]
PATIENCE = 30.0
"""Seconds that the start waits for drops to settle, to tell how long they take; what comes later is made all the
same."""
TICK = 0.5


class Matrix(BaseModel):
    """A file of sets x recipes: each pair is a LoRA."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sets: dict[str, Path] = Field(min_length=1)
    recipes: list[str] = Field(min_length=1)


@dataclass(frozen=True)
class Offer:
    """What is to be copied into the inbox, how it is called there, and the recipe that a matrix has for it."""

    path: Path
    name: str
    recipe: str = ""


def offers(space: Workspace, given: Path) -> list[Offer]:
    """The sub-folders and zips of a folder, or what a matrix asks for; all that is wrong with it at once."""
    given = given.expanduser().resolve()
    if given.is_file() and given.suffix == ".toml":
        return offers_of(space, given)
    if not given.is_dir():
        raise InputError(f"{given}: no such folder, and no .toml of sets and recipes")
    found = []
    for path in sorted(given.iterdir()):
        passed = path.name.startswith(".") or stability.temporary(path.name) or path.name in images.JUNK_FOLDERS
        if not passed and no_drop(path.name, stability.entry(path, "").kind) is None:
            found.append(Offer(path, path.name))
    if not found:
        raise InputError(
            f"{given}: no folder and no zip in it; each becomes a LoRA\n"
            f"    lora make NAME --from {given}      if its pictures are one set"
        )
    return found


def offers_of(space: Workspace, path: Path) -> list[Offer]:
    """Read a matrix. Its paths are relative to itself."""
    try:
        matrix = Matrix.model_validate(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not TOML: {error}") from error
    except ValidationError as error:
        told = [f"`{'.'.join(map(str, e['loc']))}`: {e['msg'].lower()}" for e in error.errors()]
        raise SettingsError("\n".join(f"{path}: {line}" for line in told)) from error
    places = {name: path.parent / place.expanduser() for name, place in matrix.sets.items()}
    files = {r: path.parent / Path(r).expanduser() for r in matrix.recipes if r.endswith(".toml")}
    known = settings.recipe_names(space)
    wrong = [f"sets.{name}: no folder {place}" for name, place in places.items() if not place.is_dir()]
    wrong += [f"recipes: no file {file}" for file in files.values() if not file.is_file()]
    named = [recipe for recipe in matrix.recipes if recipe not in files]
    wrong += [f"recipes: no {r!r}; there are {', '.join(known)}, or a .toml file" for r in named if r not in known]
    if wrong:
        raise SettingsError("\n".join(f"{path}: {line}" for line in wrong))
    recipes = {Path(r).stem: str(files[r].resolve()) if r in files else r for r in matrix.recipes}
    pairs = [(name, recipe) for name in places for recipe in recipes]
    return [Offer(places[name], lora_name(f"{name}-{recipe}"), recipes[recipe]) for name, recipe in pairs]


def bring(space: Workspace, store: Store, inbox: Inbox, found: list[Offer], say: Say) -> None:
    """Copy what is offered into the inbox, unless the same bytes came before."""
    hidden = {offer.name: space.inbox / f".{offer.name}" for offer in found}
    try:
        for offer in found:
            moving.remove(hidden[offer.name])  # of a start that was killed
            moving.copy(offer.path, hidden[offer.name])
            if offer.recipe:
                choose(space, hidden[offer.name], offer)
        inbox.scan()  # sees the hidden names, so that the rename tells it that they are complete
        for offer in found:
            if why := not_again(space, store, hidden[offer.name], offer.name):
                say(f"{offer.name}: left out, {why}")
            else:
                hidden[offer.name].rename(space.inbox / offer.name)
    finally:
        for path in hidden.values():
            moving.remove(path)


def choose(space: Workspace, copy: Path, offer: Offer) -> None:
    """Write the matrix's recipe into the LoRA's lora.toml; what the set's own says of a recipe does not count."""
    with step.locked(place := space.lora(offer.name)):
        set_up(place, Request({"recipe": offer.recipe}))
    own = copy / stability.SETTINGS
    if own.is_file():
        with suppress(ValueError):  # no TOML: the inbox says so
            document = tomlkit.parse(own.read_text(encoding="utf-8-sig"))
            document.pop("recipe", None)
            write_whole(own, tomlkit.dumps(document).encode())


def not_again(space: Workspace, store: Store, copy: Path, name: str) -> str:
    """Why a drop is not wanted, in words; empty if it is."""
    if (space.inbox / name).exists():
        return "something of that name lies in the inbox already"
    sha256 = fingerprint(copy, stability.look(copy))
    sql = """SELECT lora FROM "drop" WHERE name = ? AND sha256 = ? AND state = 'ingested'"""
    for (lora,) in store.select(sql, name, sha256):
        if space.lora(lora).source.is_dir():
            return f"{lora} has all of it already; lora retry {lora} makes it again"
    for drop in rows.drops(store, "quarantined"):
        held = quarantine.held(space, drop)
        if held is not None and drop.name == name and fingerprint(held, stability.look(held)) == sha256:
            return f"the same was refused before; see {held.parent / quarantine.REASON}"
    return ""


def settle(inbox: Inbox, say: Say) -> None:
    """Let the inbox take what is complete, and wait a little for the rest."""
    begun = inbox.clock()
    while sights := inbox.scan():
        for sight in sights:
            if sight.state in ("taken", "quarantined"):
                say(f"{sight.name}: {sight.state}, {sight.why}")
        if not any(s.state == "settling" for s in sights) or inbox.clock() - begun > PATIENCE:
            return
        time.sleep(TICK)


def prepare(space: Workspace, store: Store, found: list[Offer], until: datetime | None, say: Say) -> None:
    """Fill the queue, put it into order, shortest first, and say how far the night will come."""
    inbox, queue = Inbox(space, store), Queue(store)
    bring(space, store, inbox, found, say)
    settle(inbox, say)
    queue.recover()
    order = lengths(space, store, [job for job in queue.jobs() if job.state == "queued"])
    queue.arrange([length.job for length in order])
    say(forecast(order, len(cards()), datetime.now(UTC), until))


def overnight(space: Workspace, given: Path | None, *, until: datetime | None, say: Say) -> int:
    """Make what is offered, dropped and queued until a time with its zone; return watch's exit code.

    STOPPED where something is left that the next night goes on with.
    """
    if is_watched(space):
        raise FailedError(f"another `lora watch` or `lora overnight` is at work in {space.root}")
    found = offers(space, given) if given is not None else []
    space.inbox.mkdir(parents=True, exist_ok=True)
    with Store(space.record) as store:
        prepare(space, store, found, until, say)
    with awake.awake() as told:
        say(told)
        code = watch(space, once=True, until=until, say=say)
    with Store(space.record, readonly=True) as store:
        left = sum(job.state == "queued" for job in Queue(store).jobs())
    if left:
        say(f"{left} left for the next night, which goes on where this one stopped")
    return STOPPED if left and code == DONE else code
