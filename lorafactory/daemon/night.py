"""The night as it stands: what is at work and how far, what is queued, what waits, what needs somebody."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lorafactory import heartbeat, index
from lorafactory.daemon.limits import FOLDER, limits, short_of_disk
from lorafactory.daemon.queue import Job, Queue
from lorafactory.daemon.watch import is_watched, told
from lorafactory.store import Store
from lorafactory.workspace import Workspace


def status(space: Workspace) -> dict[str, Any]:
    """All there is to say of the workspace, ready for JSON."""
    if not space.record.is_file():
        return {"workspace": str(space.root), "watching": False, "loras": [], "queue": [], "inbox": [], "needs_you": 0}
    with Store(space.record, readonly=True) as store:
        jobs, cards = Queue(store).jobs(), index.cards(space, store)
    state, watching = told(space), is_watched(space)
    beats = [b for path in (space.root / FOLDER).glob("[0-9]*.json") if (b := heartbeat.read(path))]
    return {
        "workspace": str(space.root),
        "watching": watching,
        "scanned_at": state.get("at"),
        "paused": short_of_disk(space, limits(space)),
        "running": [running(job, beats) for job in jobs if job.state == "running"],
        "queue": [asdict(job) for job in jobs if job.state == "queued"],
        "inbox": state.get("sights", []) if watching else [],
        "loras": [asdict(card) for card in cards],
        "needs_you": sum(card.news in index.NEEDS for card in cards),
    }


def running(job: Job, beats: list[heartbeat.Beat]) -> dict[str, Any]:
    """A job at work, with how far it is."""
    beat = next((b for b in beats if b.lora == job.lora), None)
    at = {"what": beat.what, "done": beat.done, "of": beat.of, "left_s": beat.left_s} if beat else {}
    return {"lora": job.lora, "started_at": job.started_at, "tries": job.tries, **at}
