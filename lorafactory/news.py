"""What the queue and the quarantine have to say of a LoRA, for the workspace's page and `lora status`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from lorafactory.store import RunRow, Store
from lorafactory.workspace import Workspace


@dataclass(frozen=True)
class News:
    """What happened, why, and what to type next."""

    name: str
    kind: str
    reason: str
    next: str
    at: str = ""
    """When, in UTC."""


def of_job(store: Store, lora: str, last: RunRow | None) -> News | None:
    """What the LoRA's latest job tells beyond its runs; None where these tell all, or somebody went on by hand."""
    sql = "SELECT state, tries, failure, reason, not_before, ended_at FROM job WHERE lora = ? ORDER BY id DESC LIMIT 1"
    row = next(iter(store.select(sql, lora)), None)
    if row is None:
        return None
    state, tries, failure, reason, not_before, ended_at = row
    reason = f"{_retried(tries, state)}{reason or ''}"
    told = shlex.join(["lora", "retry", lora])
    if state == "queued":
        when = f" (not before {not_before[11:16]} UTC)" if not_before else ""
        return News(lora, "queued", f"{reason or 'its turn comes'}{when}", "lora watch")
    if state == "waiting":
        return News(lora, "waiting for you", reason, shlex.join(["lora", "make", lora]))
    if last is not None and (last.ended_at or last.started_at) > (ended_at or ""):
        return None
    if state == "failed" and failure != "given up":
        return News(lora, "needs you" if failure == "needs you" else "failed", reason, told)
    return None


def retries(store: Store, lora: str) -> str:
    """How often the latest job was tried before it was done, in words; empty if once."""
    sql = "SELECT tries, state FROM job WHERE lora = ? ORDER BY id DESC LIMIT 1"
    return next((_retried(tries, state) for tries, state in store.select(sql, lora) if state == "done"), "")


def _retried(tries: int, state: str) -> str:
    if not tries:
        return ""
    times = "once" if tries == 1 else f"{tries} times"
    return f"went wrong {times}{', then done' if state == 'done' else ''}: "


def quarantined(space: Workspace, store: Store) -> list[News]:
    """The drops that did not become a LoRA, each as its folder in quarantine is called."""
    sql = """SELECT name, ulid, code, reason, ended_at FROM "drop" WHERE state = 'quarantined' ORDER BY id DESC"""
    found = []
    for name, ulid, code, reason, at in store.select(sql):
        folder = next((space.root / "quarantine").glob(f"*-{ulid[-8:].lower()}"), None)
        called = folder.name if folder else name
        text = f"{code}: {_shortly((reason or '').splitlines())}"
        found.append(News(called, "quarantined", text, shlex.join(["lora", "retry", called]), _minute(at)))
    return found


def _shortly(lines: list[str]) -> str:
    """The sentence of a refusal, with the first of what it is about; REASON.md has them all."""
    return f"{lines[0]} ({lines[1]}{', ...' if len(lines) > 2 else ''})" if len(lines) > 1 else "".join(lines)


def _minute(at: str | None) -> str:
    return (at or "")[:16].replace("T", " ")
