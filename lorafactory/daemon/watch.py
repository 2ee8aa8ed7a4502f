"""The daemon: looks at the inbox every few seconds, starts the workers and watches over them. It loads no model.

Events of the file system are not used: a scan every few seconds sees the same, also on network drives.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any

from filelock import FileLock, Timeout

from lorafactory.daemon.child import Child, cards, spawn
from lorafactory.daemon.inbox import HEALS, Inbox, Sight
from lorafactory.daemon.limits import FOLDER, limits, own, short_of_disk
from lorafactory.daemon.queue import Queue, needing_you
from lorafactory.daemon.rows import drops
from lorafactory.errors import DONE, FAILED, NEEDS_YOU, STOPPED, FailedError, LoraError
from lorafactory.files import read_json, write_whole
from lorafactory.index import write_index
from lorafactory.recording import now
from lorafactory.store import Store
from lorafactory.training.stopping import stopping
from lorafactory.workspace import Workspace

TICK = 0.5
SCAN = 5.0
"""Seconds between two looks at the inbox."""
REST = 30.0
"""Seconds before a worker is started again that ended as none should."""
LOCK = "watch.lock"
STATE = "state.json"

Say = Callable[[str], None]


def watch(space: Workspace, *, once: bool = False, until: datetime | None = None, say: Say) -> int:
    """Make what is dropped and queued; return an exit code: needs you, stopped or done.

    `once`: end when inbox and queue are empty. `until`: a time with its zone; then the job at work stops with a
    checkpoint, and the queue stops; the next call goes on with both. So do SIGTERM and Ctrl-C; a second Ctrl-C ends
    at once.
    """
    space.inbox.mkdir(parents=True, exist_ok=True)
    limits(space)  # what is wrong there is said before anything begins
    try:
        lock = FileLock(own(space, LOCK)).acquire(timeout=0)
    except Timeout as error:
        raise FailedError(f"another `lora watch` or `lora overnight` is at work in {space.root}") from error
    with lock, Store(space.record) as store:
        children = [Child(space, str(n), partial(spawn, space, str(n), card)) for n, card in enumerate(cards())]
        daemon = Daemon(space, store, children, Inbox(space, store).scan, say)
        try:
            with stopping() as asked:
                while daemon.turn(stop=asked() or (until is not None and datetime.now(UTC) >= until)):
                    if once and daemon.idle():
                        break
                    time.sleep(TICK)
        finally:
            for child in children:
                child.kill()
            own(space, STATE).unlink(missing_ok=True)
            daemon.tidy()
        return NEEDS_YOU if daemon.needs_you() else STOPPED if asked() else DONE


def is_watched(space: Workspace) -> bool:
    """True if a daemon is at work in the workspace."""
    lock = space.root / FOLDER / LOCK
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


def told(space: Workspace) -> dict[str, Any]:
    """What the daemon said last: `at`, `paused`, `sights`; empty if there is none."""
    return read_json(space.root / FOLDER / STATE)


class Daemon:
    """What a turn of the loop needs to know of the turns before."""

    def __init__(
        self,
        space: Workspace,
        store: Store,
        children: list[Child],
        scan: Callable[[], list[Sight]],
        say: Say,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.space, self.store, self.children, self.scan, self.say, self.clock = (
            space, store, children, scan, say, clock
        )  # fmt: skip
        self.queue, self.limits = Queue(store), limits(space)
        self.sights: list[Sight] = []
        self.paused = ""
        """Why no job begins."""
        self._scanned = -1e9
        self._told: dict[str, str] = {}
        self._jobs = {job.id: (job.state, job.tries) for job in self.queue.newest()}

    def turn(self, *, stop: bool = False) -> bool:
        """Look once at everything; False once it was asked to stop and all workers have."""
        if stop:
            self.ask()
        try:
            self.act(begin=not stop)
        except HEALS as error:  # a full disk, a record that cannot be written: it goes on when that is over
            self.pause(str(error))
        return not stop or any(child.alive for child in self.children)

    def act(self, *, begin: bool) -> None:
        """See to the workers, and unless it is the end, to the inbox and the queue."""
        for child in self.children:
            if told := child.watch(self.limits.silence_minutes * 60):
                self.say(told)
        changed = [self.ended(child) for child in self.children]  # at once: the queue would take one killed for dead
        if not begin:
            return
        if self.clock() - self._scanned >= SCAN:
            changed.append(self.look())
            self._scanned = self.clock()
        if any(changed):
            self.page()
        self.employ()

    def ask(self) -> None:
        """Ask the workers to stop; say so once."""
        for child in self.children:
            if child.alive and child.asked_at is None:
                self.say("stopping: the job at work writes its checkpoint; again: at once")
                child.ask()

    def look(self) -> bool:
        """Scan the inbox, bring on the queue; True if anything came of it."""
        self.sights = self.scan()
        for sight in self.sights:
            told = sight.why if sight.state != "settling" else ""
            if self._told.get(sight.name) != (key := f"{sight.state} {told}"):
                self._told[sight.name] = key
                self.say(f"{sight.name}: {sight.state}, {sight.why}")
        self._told = {name: key for name, key in self._told.items() if name in {s.name for s in self.sights}}
        self.queue.recover()
        changed = self.follow()
        self.pause(short_of_disk(self.space, self.limits))
        self.tell()
        return changed or any(sight.state in ("taken", "quarantined") for sight in self.sights)

    def follow(self) -> bool:
        """Say what became of the jobs since the last look; True if anything did."""
        changed = [job for job in self.queue.newest() if self._jobs.get(job.id) != (job.state, job.tries)]
        for job in changed:
            told = "" if job.state == "running" else (job.reason or job.failure or "").partition("\n")[0]
            self.say(f"{job.lora}: {job.state}{', ' if told else ''}{told}")
        self._jobs |= {job.id: (job.state, job.tries) for job in changed}
        return bool(changed)

    def pause(self, why: str) -> None:
        if bool(why) != bool(self.paused):
            self.say(f"no job begins: {why}" if why else "there is room again; the queue goes on")
        self.paused = why

    def tell(self) -> None:
        """Leave word for `lora status`."""
        told = {"pid": os.getpid(), "at": now(), "paused": self.paused, "sights": [asdict(s) for s in self.sights]}
        with suppress(OSError):  # a full disk; the next look tries again
            write_whole(own(self.space, STATE), json.dumps(told).encode(), synced=False)

    def ended(self, child: Child) -> bool:
        """See to a worker that has ended; True if one has."""
        code, hung = child.ended(), child.hung
        if code is None:
            return False
        if hung and (job := self.queue.active(hung)):
            self.queue.bury(hung)
            self.queue.finish(job, "failed", failure="hang", reason=f"it hung; where: {self.log_of(hung)}")
        self._scanned = -1e9  # what it left is seen to at once
        if code not in (DONE, FAILED, STOPPED) and not hung:
            self.say(f"worker {child.name} ended with {code}; see {own(self.space, child.name + '.log')}")
            child.ended_at += REST
        return True

    def log_of(self, lora: str) -> str:
        return str(self.space.lora(lora).root / "job.log")

    def employ(self) -> None:
        """Start a worker if there is more to do than there are workers."""
        if self.paused:
            return
        alive = sum(child.alive for child in self.children)
        running = sum(job.state == "running" for job in self.queue.jobs())
        free = [c for c in self.children if not c.alive and self.clock() >= c.ended_at]
        if free and self.queue.due(datetime.now(UTC)) > alive - min(alive, running):
            free[0].start()

    def idle(self) -> bool:
        """Nothing is left to be done that a wait would bring on."""
        active = any(job.state in ("queued", "running") for job in self.queue.jobs())
        coming = any(sight.left_s is not None for sight in self.sights)
        return not active and not coming and not any(child.alive for child in self.children)

    def needs_you(self) -> bool:
        """A person has to bring or decide something."""
        return bool(needing_you(self.queue.newest()) or drops(self.store, "quarantined"))

    def tidy(self) -> None:
        """After the last worker: what was stopped at once is queued again, and that is no failure of the job."""
        with suppress(*HEALS):
            self.queue.recover(failed=False)
        self.page()

    def page(self) -> None:
        """Write the morning page; what it cannot say now it says the next time."""
        with suppress(OSError, LoraError):
            write_index(self.space)
