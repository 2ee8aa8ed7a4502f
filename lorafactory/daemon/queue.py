"""The queue: jobs in the record, one per LoRA that is not ended, and how often each kind of failure is tried again.

Owning a job is holding the lock of its LoRA, which the system frees when the owner dies: so a row that says `running`
while that lock is free is of a worker that is no more, and the job is queued again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from lorafactory import step
from lorafactory.errors import PassingError
from lorafactory.index import is_locked
from lorafactory.recording import clean, new_ulid, now, tidy
from lorafactory.store import Store
from lorafactory.workspace import Workspace

State = Literal["queued", "running", "waiting", "done", "failed"]
ENDED = ("done", "failed")
CAPS = {"needs you": 0, "given up": 0, "transient": 5, "died": 3, "hang": 2, "out of memory": 1, "failed": 1}
"""How often a job is tried again after each class of failure; all its tries count."""
PAUSES = (30.0, 120.0, 600.0, 1800.0, 3600.0)
"""Seconds before a try after the first, second, ... failure that goes by itself."""
_COLUMNS = """id, ulid, lora, state, priority, tries, not_before, failure, reason, asked_at, started_at, ended_at,
  wall_s, drop_id"""
_ANSWERED = ("state", "priority", "tries", "not_before", "failure", "reason", "ended_at")
_ORDER = "ORDER BY priority DESC, asked_at, id"


@dataclass(frozen=True)
class Job:
    """A LoRA to be made. `waiting`: for a person; times are ISO 8601 in UTC."""

    id: int
    ulid: str
    lora: str
    state: str
    priority: int
    tries: int
    """Tries that went wrong."""
    not_before: str | None
    failure: str | None
    """The class of the last failure, one of CAPS, or `no save passes`."""
    reason: str | None
    asked_at: str
    started_at: str | None
    ended_at: str | None
    """When the last try ended."""
    wall_s: float | None
    """Seconds of all tries together."""
    drop_id: int | None


class Queue:
    """The jobs of a workspace's record."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.space = Workspace(store.path.parent, "of the record")
        self._began: dict[int, float] = {}

    # ------------------------------------------------------------ looking

    def jobs(self) -> list[Job]:
        """Every job, in the order in which they run; ended ones too."""
        return self._where("1")

    def job(self, job_id: int) -> Job:
        return self._where("id = ?", job_id)[0]

    def active(self, lora: str) -> Job | None:
        """The LoRA's job that is not ended."""
        return next(iter(self._where("lora = ? AND state NOT IN ('done', 'failed')", tidy(lora))), None)

    def newest(self) -> list[Job]:
        """The latest job of every LoRA."""
        return list({job.lora: job for job in sorted(self.jobs(), key=lambda job: job.id)}.values())

    def next(self, now: datetime) -> Job | None:
        """The job to do now: the highest priority first, then the one asked for first."""
        return next(iter(self._due(now)), None)

    def due(self, now: datetime) -> int:
        """How many jobs could begin now."""
        return len(self._due(now))

    def _due(self, now: datetime) -> list[Job]:
        return self._where("state = 'queued' AND (not_before IS NULL OR not_before <= ?)", iso(now))

    def _where(self, condition: str, *values: object) -> list[Job]:
        sql = f"SELECT {_COLUMNS} FROM job WHERE {condition} {_ORDER}"
        return [Job(*row) for row in self.store.select(sql, *values)]

    # ------------------------------------------------------------ changing

    def add(self, lora: str, *, priority: int = 0, drop_id: int | None = None) -> Job:
        """Ask for a LoRA. Its job that is not ended is kept, at the higher priority, and one that waits goes on."""
        with self.store.transaction() as db:
            sql = """INSERT INTO job (ulid, lora, state, priority, asked_at, drop_id) VALUES (?, ?, 'queued', ?, ?, ?)
              ON CONFLICT (lora) WHERE state NOT IN ('done', 'failed') DO UPDATE SET
                priority = max(priority, excluded.priority), not_before = NULL,
                state = CASE state WHEN 'running' THEN 'running' ELSE 'queued' END"""
            db.execute(sql, (new_ulid(), tidy(lora), priority, now(), drop_id))
        job = self.active(lora)
        assert job is not None
        return job

    def arrange(self, jobs: Sequence[Job]) -> None:
        """Let queued jobs run in this order, before what is asked for later."""
        with self.store.transaction() as db:
            ranks = [(len(jobs) - place, job.id) for place, job in enumerate(jobs)]
            db.executemany("UPDATE job SET priority = ? WHERE id = ? AND state = 'queued'", ranks)

    def begin(self, job: Job) -> Job | None:
        """Take a queued job; None if it is not queued any more. The caller holds its LoRA's lock, until `finish`."""
        with self.store.transaction() as db:
            sql = (
                "UPDATE job SET state = 'running', started_at = ?, not_before = NULL WHERE id = ? AND state = 'queued'"
            )
            taken = db.execute(sql, (now(), job.id)).rowcount
        self._began[job.id] = time.monotonic()
        return self.job(job.id) if taken else None

    def finish(self, job: Job, state: State, *, failure: str = "", reason: str = "", pause: float = 0.0) -> Job:
        """End a try. `failed` counts as one, and the job is queued again as long as its class of failure allows.

        With `queued` it goes on later, after `pause` seconds: it was stopped, or somebody else has the LoRA.
        """
        tries, seconds = job.tries, time.monotonic() - self._began.pop(job.id, time.monotonic())
        if state == "failed":
            tries += 1
            if tries <= CAPS[failure]:
                state, pause = "queued", PAUSES[min(tries, len(PAUSES)) - 1] if failure == "transient" else pause
        after = iso(datetime.now(UTC) + timedelta(seconds=pause)) if pause else None
        values = (state, tries, after, failure or None, clean(reason) or None, now(), seconds, job.id)
        with self.store.transaction() as db:
            sql = """UPDATE job SET state = ?, tries = ?, not_before = ?, failure = ?, reason = ?, ended_at = ?,
              wall_s = coalesce(wall_s, 0) + ? WHERE id = ?"""
            db.execute(sql, values)
        return self.job(job.id)

    def give_up(self, job: Job) -> Job:
        """End a job by hand."""
        return self.finish(job, "failed", failure="given up", reason="given up by hand")

    def as_it_is(self, job: Job) -> dict[str, Any]:
        """What of a job an answer to it changes."""
        return {column: getattr(job, column) for column in _ANSWERED}

    def put_back(self, job_id: int, was: Mapping[str, Any]) -> Job:
        """Make a job, with which nobody has begun, as it was before it was answered."""
        columns = [column for column in _ANSWERED if column in was]
        with self.store.transaction() as db:
            sql = f"UPDATE job SET {', '.join(f'{column} = ?' for column in columns)} WHERE id = ?"
            db.execute(sql, (*(was[column] for column in columns), job_id))
        return self.job(job_id)

    def recover(self, *, failed: bool = True) -> list[Job]:
        """Queue again what died while it ran, its try counted if it `failed`, and bring on what a person has seen to.

        Returns the jobs that changed.
        """
        changed = []
        for job in self._where("state = 'running'"):
            if not self._held(job.lora):
                self.bury(job.lora)
                why = "the worker died, or the machine stopped" if failed else "stopped; goes on where it was"
                state: State = "failed" if failed else "queued"
                changed.append(self.finish(job, state, failure="died" if failed else "", reason=why))
        return changed + self._seen_to()

    def bury(self, lora: str) -> None:
        """Write into the record that what a dead worker left running was interrupted."""
        place = self.space.lora(lora)
        if place.lock.exists():
            with suppress(PassingError), step.locked(place):
                self.store.interrupt(lora)

    def _seen_to(self) -> list[Job]:
        """Jobs that needed a person, who has seen to them: trained since, or brought more pictures."""
        changed = []
        for job in needing_you(self.newest()):
            asked = (job.lora, job.ended_at or "")
            # begun, not ended since: a worker parks a job right after its own training
            made = "SELECT 1 FROM run WHERE step IN ('train', 'pick') AND status = 'done'"
            made += " AND lora = ? AND started_at >= ?"
            brought = """SELECT 1 FROM "drop" WHERE state = 'ingested' AND lora = ? AND coalesce(ended_at, '') >= ?"""
            if self.store.select(made, *asked):
                changed.append(self.finish(job, "done", reason="made by hand"))
            elif job.state == "waiting" and self.store.select(brought, *asked):
                changed.append(self.add(job.lora))
        return changed

    def _held(self, lora: str) -> bool:
        place = self.space.lora(lora)
        return place.lock.exists() and is_locked(place)


def iso(moment: datetime) -> str:
    """As the record writes times, so that they compare as texts."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def needing_you(jobs: Iterable[Job]) -> list[Job]:
    """Those that nothing but a person brings on."""
    return [job for job in jobs if job.state == "waiting" or (job.state == "failed" and job.failure != "given up")]


def as_dict(job: Job) -> dict[str, Any]:
    return dict(vars(job))
