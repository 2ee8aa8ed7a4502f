"""What a person asks of the night: try again, go on, give up. Each is a recorded run that `undo` takes back.

The run is of step `retry`; its settings say which jobs and drops it was about and how they were, so the way back is to
make them so again, as long as nobody has begun with them.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from lorafactory.daemon import quarantine
from lorafactory.daemon.names import lora_name
from lorafactory.daemon.queue import Job, Queue
from lorafactory.daemon.rows import Drop, clear, condemn_again, drops, find
from lorafactory.errors import InputError, PassingError
from lorafactory.store import PART, RunRow, Store
from lorafactory.workspace import Workspace

STEP = "retry"
AGAIN, GO_ON, GIVEN_UP = "try again", "go on", "give up"


@dataclass
class Asked:
    """What was asked, as the run keeps it."""

    act: str
    lora: str = ""
    job: int | None = None
    was: dict[str, Any] | None = None
    """The job before; None: there was none that had not ended."""
    drops: list[str] = field(default_factory=list)
    """Public ids of the quarantined drops that it is about."""
    said: list[str] = field(default_factory=list)


def retry(space: Workspace, store: Store, name: str) -> list[str]:
    """Queue a LoRA again, let one that waits go on, move quarantined drops of the name back; say what was done."""
    queue, asked = Queue(store), Asked(AGAIN)
    if any(job.lora == name for job in queue.jobs()) or space.lora(name).root.is_dir():
        asked.lora = space.lora(name).name
        before = queue.active(asked.lora)
        asked.act = GO_ON if before and before.state == "waiting" else AGAIN
        job = queue.add(asked.lora)
        asked.job, asked.was = job.id, queue.as_it_is(before) if before else None
        asked.said.append(f"{job.lora}: {job.state}")
    of_name = [drop for drop in drops(store, "quarantined") if name in called(space, drop)]
    if of_name or not asked.said:
        paths = quarantine.retry(space, store, name)
        asked.said += [f"{path}: back in the inbox" for path in paths]
        asked.drops = [drop.ulid for drop in of_name]
        asked.lora = asked.lora or lora_name(of_name[0].name if of_name else name)
    record(store, asked)
    return asked.said


def give_up(space: Workspace, store: Store, name: str) -> list[str]:
    """End a LoRA's job, and close the books on quarantined drops of the name; files stay."""
    queue, asked = Queue(store), Asked(GIVEN_UP)
    job = queue.active(name) or next((j for j in queue.newest() if j.lora == name and j.state == "failed"), None)
    if job and job.state == "running":
        raise PassingError(f"{name} is being made: stop `lora watch` first, with Ctrl-C")
    if job:
        asked.lora, asked.job, asked.was = job.lora, job.id, queue.as_it_is(job)
        queue.give_up(job)
        asked.said.append(f"{name}: given up")
    for drop in drops(store, "quarantined"):
        if name in called(space, drop):
            clear(store, drop.ulid)
            asked.drops.append(drop.ulid)
            asked.lora = asked.lora or lora_name(drop.name)
            asked.said.append(f"{quarantine.place(space, drop)}: given up; delete it when you like")
    if not asked.said:
        raise InputError(f"nothing called {name} is queued, failed or quarantined\n    lora status")
    record(store, asked)
    return asked.said


def looked_at(store: Store, job: Job) -> bool:
    """A person let this job go on after it had waited for them, so it does not wait again."""
    rows = store.runs(job.lora, -1, step=STEP)
    undone = store.undone(job.lora)
    return any((r.settings["act"], r.settings["job"]) == (GO_ON, job.id) and r.ulid not in undone for r in rows)


def called(space: Workspace, drop: Drop) -> tuple[str, str, str]:
    """The names by which a person may mean a drop."""
    return drop.name, lora_name(drop.name), quarantine.place(space, drop).name


def record(store: Store, asked: Asked) -> None:
    told = {**vars(asked), "said": f"{asked.act}: {'; '.join(asked.said)}", PART: True}
    with store.run(asked.lora, STEP, version=1, key="", settings=told):
        pass


# ---------------------------------------------------------------- the way back


def in_the_way(space: Workspace, store: Store, row: RunRow) -> str:
    """Why what was asked cannot be taken back any more; empty if it can."""
    queue, told = Queue(store), row.settings
    if told["job"] is not None:
        job = queue.job(told["job"])
        left = "failed" if told["act"] == GIVEN_UP else "queued"
        if job.state != left or (job.started_at or "") > row.started_at:
            return f"the job of {row.lora} is {job.state} since"
        if left == "failed" and queue.active(row.lora):
            return f"another job of {row.lora} is asked for since"
    for ulid in told["drops"]:
        drop = find(store, ulid)
        away = drop is None or drop.state != "cleared"
        gone = told["act"] != GIVEN_UP and drop is not None and not (space.inbox / drop.name).exists()
        if away or gone:
            return "the drop was taken since"
    return ""


def take_back(space: Workspace, store: Store, row: RunRow) -> list[str]:
    """Make jobs and drops as they were; the caller has asked what is in the way."""
    queue, told, said = Queue(store), row.settings, []
    if told["job"] is not None:
        earlier = [queue.as_it_is(job) for job in queue.jobs() if job.lora == row.lora and job.id < told["job"]]
        new = {"state": "failed", "failure": "given up", "reason": "taken back"}
        job: Job = queue.put_back(told["job"], told["was"] or (earlier[-1] if earlier else new))
        said.append(f"{row.lora}: {job.state}")
    for ulid in told["drops"]:
        if drop := find(store, ulid):
            with suppress(FileNotFoundError):  # given up: it never left
                quarantine.back(space, drop)
            condemn_again(store, ulid)
            said.append(f"{quarantine.place(space, drop)}: in quarantine again")
    return said
