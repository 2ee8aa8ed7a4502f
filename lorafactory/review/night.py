"""The night on the page: the queue and its jobs as they stand, loss and samples of what trains, what was refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lorafactory import index, settings, undoing
from lorafactory.daemon import asking, night, quarantine, rows
from lorafactory.daemon.limits import FOLDER
from lorafactory.daemon.queue import Queue, needing_you
from lorafactory.errors import InputError, LoraError
from lorafactory.recording import tidy
from lorafactory.review.saves import samples
from lorafactory.scoring.charts import smoothed, thinned
from lorafactory.step import Work
from lorafactory.steps._begin import read_losses
from lorafactory.store import Store
from lorafactory.workspace import Workspace

Json = dict[str, Any]
MOST = 100
"""Answers that are looked back over for one that stands."""
NEWEST = 8
"""Samples that are shown of a training."""


def told(space: Workspace) -> Json:
    """All there is to say of the workspace's queue and quarantine."""
    found = night.status(space) | {"quarantine": [], "waiting": [], "failed": []}
    if space.record.is_file():
        with Store(space.record, readonly=True) as store:
            newest = needing_you(Queue(store).newest())
            found["quarantine"] = [refused(space, drop) for drop in rows.drops(store, "quarantined")]
        for job in newest:
            told = {"lora": job.lora, "reason": job.reason or "", "failure": job.failure, "at": job.ended_at}
            found["waiting" if job.state == "waiting" else "failed"].append(told)
    found["running"] = [job | progress(space, job["lora"]) for job in found.get("running", [])]
    return found


def refused(space: Workspace, drop: rows.Drop) -> Json:
    """A drop in quarantine, with the sentence and the files of its reason."""
    sentence, *files = (drop.reason or "").splitlines() or [""]
    called = quarantine.place(space, drop).name
    return {"name": drop.name, "called": called, "code": drop.code, "reason": sentence, "files": files}


def progress(space: Workspace, lora: str) -> Json:
    """Loss and newest samples of a LoRA's training; nothing where there is none."""
    work = of(space, lora)
    steps = [(step, loss) for step, loss, _ in read_losses(work)] if work else []
    points = thinned(steps)
    curve = list(zip([s for s, _ in points], [v for _, v in points], smoothed([v for _, v in points]), strict=True))
    shown = samples(work)[-NEWEST:] if work else []
    told = [{"file": e["file"], "step": e["step"], "text": e["prompt"].get("text", "")} for e in shown]
    return {"loss": [[round(x, 5) for x in row] for row in curve], "samples": told}


def of(space: Workspace, lora: str) -> Work | None:
    """The LoRA's work; None where its settings cannot be read."""
    try:
        return Work(space, space.lora(lora), settings.effective(space, space.lora(lora)))
    except LoraError:
        return None


def signs(space: Workspace) -> tuple[object, ...]:
    """What is cheap to look at and differs when there is something new to tell."""
    folder = space.root / FOLDER
    beats = [(p.name, p.stat().st_mtime_ns) for p in sorted(folder.glob("*.json"))] if folder.is_dir() else []
    return (*beats, *(_sign(space.record.with_name(space.record.name + ending)) for ending in ("", "-wal")))


def _sign(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_mtime_ns, stat.st_size


# ---------------------------------------------------------------- answers


def retry(space: Workspace, name: str) -> str:
    return answered(space, asking.retry, name)


def give_up(space: Workspace, name: str) -> str:
    return answered(space, asking.give_up, name)


def answered(space: Workspace, ask: Any, name: str) -> str:
    with Store(space.record) as store:
        said: list[str] = ask(space, store, name)
    index.write_index(space)
    return "; ".join(said)


def undo(space: Workspace, _: str = "") -> str:
    """Take back the last answer to the queue, whatever LoRA it was about, as long as nobody has begun with it."""
    with Store(space.record) as store:
        for row in store.runs(step=asking.STEP, limit=MOST):
            if row.ulid in store.undone(row.lora):
                continue
            work = Work(space, space.lora(row.lora), settings.effective(space, space.lora(row.lora)))
            first = undoing.standing(work, store)[:1]
            if [r.ulid for r in first] == [row.ulid]:
                undoing.undo(work, store)
                index.write_index(space)
                return f"took back {row.settings['said']}"
            why = asking.in_the_way(space, store, row) or f"lora undo {tidy(row.lora)} takes back what came after it"
            raise InputError(why)
    raise InputError("nothing was answered that could be taken back")
