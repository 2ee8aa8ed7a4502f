"""The inbox: what is dropped there is claimed when it is complete, and comes into a LoRA's source/ or into quarantine.

`scan` looks at everything and is the only way in: a start, a timer and an event of the file system all mean "scan". A
claim is a row in the record and a rename to inbox/.lorafactory/<ulid>/NAME, which no second daemon can repeat. From
then on the row says what is to be, and the disk follows: `claimed` settles, is read and copied; `ingested` is put away;
`quarantined` is moved there. So a scan after a crash goes on where the last one ended, and there is no other repair.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from lorafactory import images, mounts, settings, step
from lorafactory.daemon import opening, quarantine, request, rows, stability
from lorafactory.daemon.moving import move, remove, sync
from lorafactory.daemon.names import ARCHIVE, lora_name, stem
from lorafactory.daemon.quarantine import REASON, Refused
from lorafactory.daemon.rows import Drop
from lorafactory.daemon.stability import Settling
from lorafactory.errors import InputError, LoraError, SettingsError
from lorafactory.intake import copy_new
from lorafactory.recording import new_ulid
from lorafactory.store import Store
from lorafactory.workspace import LoraDir, Workspace

CLAIMS = ".lorafactory"
KEPT = ".dropped"
"""Folder of source/ for what came in a drop and is no new picture of the set: archives, texts of nothing."""
LOCK = ".inbox.lock"
PAUSE = 30.0
"""Seconds before something is tried again that heals by itself: a full disk, a LoRA in training."""
HEALS = (OSError, sqlite3.OperationalError, LoraError)
"""What never condemns a drop."""
LEFT_BESIDE = ("thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class Sight:
    """What a scan has to say of one thing in the inbox."""

    name: str
    state: Literal["settling", "waiting", "taken", "quarantined", "loose"]
    why: str
    left_s: float | None = None
    """Seconds until a further scan may find it complete."""


class Inbox:
    """The inbox of a workspace, with what was seen of its drops so far. Scan it at least every few seconds while
    something is settling."""

    def __init__(self, space: Workspace, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self.space = space
        self.store = store
        self.clock = clock
        self.claims = space.inbox / CLAIMS
        self._settling: dict[str, Settling] = {}
        """By name in the inbox, or by id of the claim, each with its folder's name before it."""
        self._paused: dict[str, tuple[float, Sight]] = {}
        self._unfinished: set[int] = set()
        """Inodes of what the last scan saw under a hidden or temporary name."""

    def scan(self) -> list[Sight]:
        """Bring everything on as far as it goes now, and say how far that is. What heals by itself raises nothing."""
        if not self.space.inbox.is_dir():
            return []
        try:
            with FileLock(self.space.root / LOCK).acquire(timeout=0):
                return [*self.reconcile(), *self.look_around()]
        except Timeout:
            return [Sight(str(self.space.inbox), "waiting", "another lorafactory is looking at it")]
        except HEALS as error:
            return [Sight(str(self.space.inbox), "waiting", said(error))]

    # ------------------------------------------------ what is not claimed yet

    def look_around(self) -> list[Sight]:
        """Look at every first-level folder and zip, and claim what is complete; tell of what is neither."""
        sights: list[Sight] = []
        unfinished, keys = set(), set()
        for path in sorted(self.space.inbox.iterdir()):
            try:
                top = stability.entry(path, "")
            except FileNotFoundError:
                continue
            if path.name.startswith(".") or stability.temporary(path.name):
                unfinished.add(top.inode)
            elif path.name in images.JUNK_FOLDERS or path.name.lower() in LEFT_BESIDE:
                continue
            elif why := no_drop(path.name, top.kind):
                sights.append(Sight(path.name, "loose", why))
            else:
                keys.add(key := f"{self.space.inbox.name}/{path.name}")
                sights += self.tried(key, path.name, partial(self.settle, key, path, top.inode))
        gone = [k for k in self._settling if k.startswith(f"{self.space.inbox.name}/") and k not in keys]
        for key in gone:
            del self._settling[key]
        self._unfinished = unfinished
        return sights

    def settle(self, key: str, path: Path, inode: int) -> list[Sight]:
        """Look at a drop; claim it if it is complete."""
        if key not in self._settling or inode in self._unfinished:
            self._settling[key] = Settling(mounts.settle(path), renamed_in=inode in self._unfinished)
        drop = self._settling[key]
        drop.see(stability.look(path), self.clock())
        if wait := drop.waits(path):
            return [Sight(path.name, "settling", *wait)]
        return self.claim(key, path)

    def claim(self, key: str, path: Path) -> list[Sight]:
        """Make a drop ours: the row first, then the rename, which succeeds for one daemon only."""
        home = self.claims / (ulid := new_ulid())
        self.claims.mkdir(mode=0o700, exist_ok=True)
        if stability.entry(self.claims, "").kind != "folder":
            raise InputError(f"{self.claims} is not a folder: move it away")
        home.mkdir()
        rows.claim(self.store, ulid, path.name)
        try:
            path.rename(home / path.name)
        except FileNotFoundError:  # taken away, or another daemon was faster
            rows.release(self.store, ulid)
            with suppress(FileNotFoundError):
                home.rmdir()
            return []
        sync(home)
        sync(path.parent)
        follows = self._settling.pop(key)
        follows.follow(stability.look(home / path.name))
        self._settling[f"{CLAIMS}/{ulid}"] = follows
        return self.tried(f"{CLAIMS}/{ulid}", path.name, partial(self.go_on, home))

    # ------------------------------------------------ what is claimed

    def reconcile(self) -> list[Sight]:
        """Bring every claim to its end, whoever began it and however far it came."""
        if not self.claims.is_dir():
            return []
        homes = sorted(self.claims.iterdir())
        there = {home.name for home in homes}
        claimed = rows.drops(self.store, "claimed")
        for drop in claimed:
            if drop.ulid not in there:
                rows.release(self.store, drop.ulid)
        for drop in rows.drops(self.store, "quarantined"):
            if drop.ulid not in there:
                quarantine.tidy_up(self.space, self.store, drop)
        sights: list[Sight] = []
        for home in homes:
            name = next((drop.name for drop in claimed if drop.ulid == home.name), home.name)
            sights += self.tried(f"{CLAIMS}/{home.name}", name, partial(self.go_on, home))
        return sights

    def go_on(self, home: Path) -> list[Sight]:
        """Do what a claim's row says is to be done."""
        drop, payload = rows.find(self.store, home.name), dropped_in(home)
        if drop is not None and drop.state == "ingested":
            with step.locked(place := self.space.lora(str(drop.lora))):
                put_away(home, place)
            self._settling.pop(f"{CLAIMS}/{home.name}", None)
            return []
        if drop is not None and drop.state == "quarantined":
            return [self.quarantined(drop, home)]
        if payload is None:
            if drop is not None:
                rows.release(self.store, drop.ulid)
            home.rmdir()
            return []
        if drop is None:
            why = f"claimed by another record's lorafactory; if there is none, move it from {home} into the inbox"
            return [Sight(payload.name, "waiting", why)]
        follows = self._settling.setdefault(f"{CLAIMS}/{home.name}", Settling(mounts.settle(home)))
        follows.see(stability.look(payload), self.clock())
        if wait := follows.waits(payload):
            return [Sight(payload.name, "settling", *wait)]
        return self.take(drop, home, payload, follows)

    def take(self, drop: Drop, home: Path, payload: Path, follows: Settling) -> list[Sight]:
        """Read a complete drop whole, then bring it into source/ or into quarantine; settle again if it changed."""
        refusal, told = None, ("", Path(), request.Request())
        try:
            told = opening.read(payload, home, follows.tree or (), settings.recipe_names(self.space))
        except Refused as error:
            refusal = error
        if changed(follows, payload, self.clock()):
            return [Sight(payload.name, "settling", "it changed while it was read", follows.settle)]
        if refusal is not None:
            rows.condemn(self.store, drop.ulid, refusal.code, str(refusal))
            return [self.quarantined(rows.find(self.store, drop.ulid) or drop, home)]
        sha256, folder, asked = told
        lora = drop.lora or self.lora_for(payload.name, new=asked.new)
        if drop.lora is None:
            rows.promise(self.store, drop.ulid, lora, sha256)
        with step.locked(place := self.space.lora(lora)):
            set_up(place, asked)
            new = copy_new(folder, place)
            if changed(follows, payload, self.clock()):
                return [Sight(payload.name, "settling", "it changed while it was copied", follows.settle)]
            rows.ingest(self.store, drop, lora)
            put_away(home, place)
        del self._settling[f"{CLAIMS}/{home.name}"]
        return [Sight(payload.name, "taken", f"{new} new pictures for {lora}")]

    def quarantined(self, drop: Drop, home: Path) -> Sight:
        """Move a drop whose row says so."""
        remove(home / opening.UNPACKED)
        there = quarantine.put(self.space, drop, home)
        self._settling.pop(f"{CLAIMS}/{home.name}", None)
        return Sight(drop.name, "quarantined", f"{(drop.reason or '').partition(chr(10))[0]} See {there / REASON}")

    def lora_for(self, name: str, *, new: bool) -> str:
        """The LoRA that a drop goes to: of its name; another where that is asked for, or the name had to be changed."""
        plain = lora_name(name)
        if not new and plain == stem(name):
            return plain
        if not new and (known := rows.lora_of(self.store, name)):
            return known
        number, found = 2, plain
        while self.space.lora(found).root.exists() or rows.promised(self.store, found):
            found, number = f"{plain}-{number}", number + 1
        return found

    def tried(self, key: str, name: str, act: Callable[[], list[Sight]]) -> list[Sight]:
        """Do something with one drop; what goes wrong there stops no other, and is tried again after a pause."""
        until, told = self._paused.get(key, (0.0, None))
        if told is not None and self.clock() < until:
            return [told]
        self._paused.pop(key, None)
        try:
            return act()
        except HEALS as error:
            told = Sight(name, "waiting", said(error), PAUSE)
            self._paused[key] = self.clock() + PAUSE, told
            return [told]


def no_drop(name: str, kind: str) -> str | None:
    """Why something in the inbox is no drop; None if it is one."""
    if Path(name).suffix.lower() in images.SUFFIXES | images.FOREIGN and kind == "file":
        return "a loose picture: put it into a folder that is called like the LoRA"
    if name in (REASON, opening.UNPACKED):
        return "no name for a LoRA: rename it"
    if kind not in ("folder", "symlink") and not name.lower().endswith(ARCHIVE):
        return "neither a folder nor a .zip"
    return None


def dropped_in(home: Path) -> Path | None:
    """What a claim holds; None if nothing was moved there."""
    return next((p for p in sorted(home.iterdir()) if p.name not in (REASON, opening.UNPACKED)), None)


def changed(follows: Settling, payload: Path, now: float) -> bool:
    """True if a drop is not as it was at the last look; then it settles again."""
    before = follows.tree
    follows.see(stability.look(payload), now)
    return follows.tree != before


def set_up(place: LoraDir, asked: request.Request) -> None:
    """Write what the drop's lora.toml asks for into the LoRA's."""
    try:
        settings.write(place, asked.values)
    except ValueError as error:
        raise SettingsError(f"{place.settings} is not TOML: {error}; mend it") from error


def put_away(home: Path, place: LoraDir) -> None:
    """Empty a claim that was copied: what is in source/ byte for byte goes, all else moves to source/.dropped/."""
    remove(home / opening.UNPACKED)
    kept = place.source / KEPT
    have = {images.sha256(p) for p in place.source.rglob("*") if p.is_file() and not hidden(p, place.source)}
    for root, folders, names in os.walk(home, topdown=False):
        for path in (Path(root, name) for name in names):
            if stability.entry(path, "").kind == "file" and stability.sha256(path) in have:
                path.unlink()
            else:
                move(path, kept / path.relative_to(home.parent))
        for path in (Path(root, name) for name in folders):
            if path.is_symlink():
                move(path, kept / path.relative_to(home.parent))
            else:
                path.rmdir()
    home.rmdir()


def hidden(path: Path, below: Path) -> bool:
    """True for what a copy left that broke off, and for what was put away before."""
    return any(part.startswith(".") for part in path.relative_to(below).parts)


def said(error: BaseException) -> str:
    """An error in words, with what it is about."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error)
