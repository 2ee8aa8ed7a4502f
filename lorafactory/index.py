"""The workspace's page: every LoRA as a card, worst news first. Links are relative, so the folder can be moved."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import FileLock, Timeout

from lorafactory import images, news, pages, settings, steps
from lorafactory.errors import LoraError
from lorafactory.files import read_json, write_whole
from lorafactory.news import News
from lorafactory.store import RunRow, Store
from lorafactory.workspace import LoraDir, Workspace

PAGE = "index.html"
NEWS = (
    "quarantined", "needs you", "failed", "interrupted", "stopped", "no save passes", "waiting for you", "waiting",
    "queued", "running", "done",
)  # fmt: skip
"""What there is to say of a LoRA, the worst first."""
NEEDS = ("quarantined", "needs you", "failed", "waiting for you")
"""News that nothing but a person brings on."""
ACTS = ("review", "retry")
"""Runs in which a person did or asked something, and nothing was made."""
ENDED_BADLY = ("failed", "interrupted", "stopped")


@dataclass(frozen=True)
class Card:
    """A LoRA in a few words. Links are relative to the workspace and quoted."""

    name: str
    news: str
    reason: str
    """The verdict's, or the record's where something went wrong."""
    next: str
    """What to type next; empty if nothing is to be done."""
    trigger: str
    base: str
    save: str
    """The chosen save in words; empty if there is none."""
    picture: str
    file: str
    report: str
    seconds: float
    """Of all its runs together."""
    at: str
    """When it last changed, in UTC; empty if nothing was run."""


def write_index(space: Workspace) -> None:
    """Write index.html anew. Without a record there is nothing to tell, and no workspace is made for it."""
    if not space.record.is_file():
        return
    with Store(space.record, readonly=True) as store:
        found = cards(space, store)
    page = pages.render("index.html", scripts=("pages.js",), pictures=pages.BESIDE, cards=found, news=counted(found))
    write_whole(space.root / PAGE, page.encode())


def cards(space: Workspace, store: Store) -> list[Card]:
    """Every LoRA of the workspace, and what is in quarantine: the worst news first, and of equal news the latest."""
    folders = sorted(p for p in space.loras.glob("*/") if not p.name.startswith("."))
    found = [card(space, space.lora(p.name), store) for p in folders]
    found += map(refused, news.quarantined(space, store))
    found.sort(key=lambda c: c.at, reverse=True)
    return sorted(found, key=lambda c: NEWS.index(c.news))


def card(space: Workspace, place: LoraDir, store: Store) -> Card:
    runs = store.runs(place.recorded, limit=1000)
    verdict = read_json(place.comparison / "verdict.json") if place.chosen.is_file() else {}
    again, last = shlex.join(["lora", "make", place.name]), next((run for run in runs if not beside(run)), None)
    queue = news.of_job(store, place.recorded, last) or News(place.name, *told(place, last, verdict), again)
    trigger, base = header(space, place)
    again = queue.next
    return Card(
        name=place.name,
        news=queue.kind,
        reason=f"{news.retries(store, place.recorded)}{queue.reason}",
        next=verdict.get("verdict", {}).get("next") or again if queue.kind == "no save passes" else again,
        trigger=trigger,
        base=base,
        save=verdict.get("label", ""),
        picture=link(space, portrait(place)),
        file=link(space, place.chosen),
        report=link(space, place.report),
        seconds=sum(run.wall_s or 0.0 for run in runs),
        at=(runs[0].ended_at or runs[0].started_at)[:16].replace("T", " ") if runs else "",
    )


def beside(run: RunRow) -> bool:
    """A run that is no news, whatever came of it: a person's act, or not about what its step does for `make`."""
    if run.step in ACTS:
        return True
    module = steps.get(run.step) if run.step in steps.names() else None
    return bool(getattr(module, "about", lambda told: "")(run.settings))


def refused(what: News) -> Card:
    """A drop in quarantine."""
    words = dict.fromkeys(("trigger", "base", "save", "picture", "file", "report"), "")
    return Card(what.name, what.kind, what.reason, what.next, seconds=0.0, at=what.at, **words)


def told(place: LoraDir, last: RunRow | None, verdict: dict[str, Any]) -> tuple[str, str]:
    """The news, and what is to be said of it."""
    if last is None:
        return "waiting", "nothing was run yet"
    status = last.status
    if status == "running":
        status = "running" if is_locked(place) else "interrupted"
    if status in ENDED_BADLY:
        return status, f"{last.step}: {last.error}" if status == "failed" else f"during {last.step}"
    if status == "running":
        return "running", last.step
    if verdict:
        return ("done" if verdict["passed"] else "no save passes"), verdict["reason"]
    return "waiting", f"after {last.step}"


def is_locked(place: LoraDir) -> bool:
    """Some command is at work in the LoRA's folder."""
    try:
        with FileLock(place.lock, timeout=0):
            return False
    except Timeout:
        return True


def header(space: Workspace, place: LoraDir) -> tuple[str, str]:
    """Trigger and base; a LoRA whose settings cannot be read keeps its card."""
    try:
        head = settings.effective(space, place).header
    except LoraError:
        return "", ""
    return head.trigger, Path(head.base).name if head.base else ""


def portrait(place: LoraDir) -> Path:
    """The preview of the chosen save, else the newest sample of the training, else a picture of the set."""
    samples = sorted((place.result / "sample").glob("*.png"), key=lambda p: p.stat().st_mtime, reverse=True)
    trained = (p for folder in sorted(place.images.glob("*/")) for p in images.find(folder))
    preview = place.chosen.with_suffix(".png")
    return next((p for p in (preview, *samples[:1]) if p.is_file()), None) or next(trained, preview)


def link(space: Workspace, path: Path) -> str:
    """The way from the page to a file, quoted; empty if there is no such file."""
    return quote(path.relative_to(space.root).as_posix()) if path.is_file() else ""


def counted(found: Sequence[Card]) -> list[tuple[str, int]]:
    """How many LoRAs have each kind of news, the worst first."""
    return [(news, n) for news in NEWS if (n := sum(c.news == news for c in found))]
