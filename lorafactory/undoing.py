"""Take back the last thing that was done to a LoRA: by a run to its set, by a person who chose or answered the queue.

`lora undo` and the page's `u` are this. What a run did to files is planned backwards on paper first (`journal`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from lorafactory import crops, journal, past, step, steps
from lorafactory.daemon import asking
from lorafactory.dataset import ASIDE, Picture
from lorafactory.errors import InputError
from lorafactory.journal import Act, WayBack
from lorafactory.note import Note
from lorafactory.past import BY_HAND
from lorafactory.step import Result, Work
from lorafactory.store import PART, Change, Run, RunRow, Store
from lorafactory.workspace import LoraDir

SHOWN = 10
REVIEW = "review"
"""Step of the runs in which a person acted on the local page."""


def undo(work: Work, store: Store, *, keep: bool = False) -> Result:
    """Take back the newest run that can be and stands; the caller holds the lock if `work.apply`."""
    rows = standing(work, store)
    if not rows:
        place = work.place
        raise InputError(
            f"nothing to take back in {place.name}: no recorded run moved or wrote anything in {place.images}\n"
            f"    lora why {place.recorded} shows what was run"
        )
    row = rows[0]
    way = {"pick": choose_again, asking.STEP: ask_back}.get(row.step, set_back)
    when = f"{said_of(row)} of {local(row.started_at)}"
    data, lines = way(work, store, row, keep)
    data |= {"undoes": row.ulid, "step": row.step}
    if not work.apply:
        return Result(f"undo: would take back {when} (--apply does it)", data, lines)
    after = f"; before it: {said_of(rows[1])} of {local(rows[1].started_at)}" if len(rows) > 1 else ""
    return Result(f"undo: took back {when}{after}", data, lines)


def standing(work: Work, store: Store) -> list[RunRow]:
    """What can be taken back, newest first; an answer to the queue only as long as nobody has begun with it."""
    rows = store.changing(work.place.recorded)
    return [r for r in rows if r.step != asking.STEP or not asking.in_the_way(work.workspace, store, r)]


def said_of(row: RunRow) -> str:
    """A run in words: what a person did, else its step."""
    return f"{row.step}, {row.settings['said']}" if row.step == REVIEW else row.step


def local(at: str) -> str:
    """The record's UTC time as the clock on the wall had it."""
    return datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M")


# ---------------------------------------------------------------- files of the set


def set_back(work: Work, store: Store, row: RunRow, keep: bool) -> tuple[dict[str, Any], list[str]]:
    """Take back what a run did to files; InputError if a person changed them since, unless these are to `keep` that."""
    changes = store.changes(row.id)
    looked = look(work, row, changes)
    plan = journal.way_back(work.place.root, changes, looked)
    if plan.conflicts and not keep:
        raise InputError(conflicted(work.place, row, plan))
    lines = broken_off(store, work.place, row)
    lines += [f"{conflict}, left as it is" for conflict in plan.conflicts] + [said(act) for act in plan.acts]
    if work.apply:
        take_back(work, store, row, plan, looked)
    return {"acts": len(plan.acts), "left": plan.conflicts}, lines


def look(work: Work, row: RunRow, changes: Sequence[Change]) -> journal.Standing:
    """How the files stand; of a run that tells all it changed, only those that it is about."""
    if row.settings.get(PART):
        return journal.look_near(work.place.root, changes)
    return journal.look(work.set)


def broken_off(store: Store, place: LoraDir, row: RunRow) -> list[str]:
    """Runs since then that were killed: nobody wrote down what they had done."""
    later = [r for r in store.runs(place.recorded) if r.status == "interrupted" and r.id > row.id]
    return [f"note: {r.step} of {local(r.started_at)} broke off; what it had done by then stays" for r in later]


def take_back(work: Work, store: Store, row: RunRow, plan: WayBack, looked: journal.Standing) -> None:
    """Do it, as a run of its own that tells what became of every picture, and what the step would now see."""
    in_part = {PART: True} if row.settings.get(PART) else {}
    about = {"undoes": row.ulid, "step": row.step, "left": plan.conflicts, **in_part}
    with store.run(work.place.recorded, "undo", version=1, key="", settings=about) as run:
        try:
            journal.apply(work.place.root, plan.acts)
        finally:
            now = look(work, row, store.changes(row.id))
            done = journal.differences(looked, now)
            if in_part:
                past.snapshot_in_part(work.set, done, run)
            else:
                past.snapshot(work.set, run)
            for change in done:
                run.changed(change)
            tell(run, work, row, done, looked, now)
        if row.step in steps.names():  # `check` changes a set too, and is not skipped when it is up to date
            module = steps.get(row.step)
            for name, sha in step.sees(module, work, module.Settings()).items():
                run.used("sees", name, sha)


def tell(
    run: Run, work: Work, row: RunRow, done: Sequence[Change], was: journal.Standing, now: journal.Standing
) -> None:
    """One decision per picture. Put back and set aside count as by hand, so that they stay.

    Not where what is taken back was itself a person's act: then all is as if it had not been.
    """
    known, why = {p.path: p for p in work.set.pictures}, f"undo of {said_of(row)}, {local(row.started_at)}"
    for change in done:
        path = work.place.root / (change.after or change.before or "")
        place = change.after or change.before
        before, after = (
            s.texts.get(sha or "", b"").decode(errors="replace").strip() or None
            for s, sha in ((was, change.sha256_before), (now, change.sha256_after))
        )
        if place == crops.NAME:
            tell_crops(run, work, before or "", after or "", why)
        elif not journal.is_text(path.name):
            name, sha = (known.get(path) or Picture(path)).name, change.sha256_after or change.sha256_before or ""
            out, back = (ASIDE in PurePosixPath(p or "").parts for p in (change.after, change.before))
            verdict = "set aside" if out and not back else "put back" if back and not out else "moved"
            rule = "undo" if verdict == "moved" or row.step == REVIEW else BY_HAND
            run.note(name, sha, verdict, rule, before=change.before, after=change.after, note=why)
        elif change.before in (None, change.after) or change.after is None:
            owner = next((p for p in known.values() if p.caption_path == path), None)
            verdict = "caption restored" if change.after else "caption taken away"
            if owner:
                run.note(owner.name, owner.sha256, verdict, "undo", before=before, after=after, note=why)


def tell_crops(run: Run, work: Work, before: str, after: str, why: str) -> None:
    """One decision per picture whose rectangle is another again."""
    was, now = crops.parse(before), crops.parse(after)
    for picture in work.set.pictures:
        boxes = [str(list(found[picture.name])) if picture.name in found else None for found in (was, now)]
        if boxes[0] != boxes[1]:
            verdict = past.CROPPED if boxes[1] else past.WHOLE
            run.note(picture.name, picture.sha256, verdict, "undo", before=boxes[0], after=boxes[1], note=why)


def said(act: Act) -> str:
    if act.kind == "write":
        return f"{act.place}: its earlier text"
    if act.kind == "remove":
        return f"{act.place}: what was written there is taken away"
    if act.kind == "aside":
        return f"{act.place} -> {ASIDE}/{journal.UNDONE}"
    return f"{act.place} -> {act.to}"


def conflicted(place: LoraDir, row: RunRow, plan: WayBack) -> str:
    """What is in the way of taking a run back, and how to go on."""
    told = [f"  - {conflict}" for conflict in plan.conflicts[:SHOWN]]
    if len(plan.conflicts) > SHOWN:
        told.append(f"  - and {len(plan.conflicts) - SHOWN} more")
    name = place.name if place.owned else place.root
    first = f"{said_of(row)} of {local(row.started_at)} cannot be taken back whole; by hand, since then:"
    last = [f"    lora undo {name} --keep-by-hand     leaves these as they are and takes back the rest"]
    return "\n".join([first, *told, *last])


# ---------------------------------------------------------------- a choice, an answer


def choose_again(work: Work, store: Store, row: RunRow, keep: bool) -> tuple[dict[str, Any], list[str]]:
    """Publish the save that was chosen before a person chose this one; where there was none, take the copy away."""
    module, undone = steps.get("pick"), store.undone(work.place.recorded)
    rows = store.runs(work.place.recorded, -1, step="pick")
    earlier = next((r for r in rows if r.id < row.id and r.status == "done" and r.ulid not in undone), None)
    if not work.apply:
        return {"acts": 1, "left": []}, []
    about = {"undoes": row.ulid, "step": row.step, "left": [], PART: True}
    with store.run(work.place.recorded, "undo", version=1, key="", settings=about) as run:
        if earlier is None:
            lines = module.take_away(work)
        else:
            settings = module.Settings.model_validate(earlier.settings)
            result = module.run(replace(work, note=Note(run)), settings)
            lines = [result.summary, *result.lines]
            for name, sha in step.sees(module, work, settings).items():
                run.used("sees", name, sha)
    return {"acts": 1, "left": []}, lines


def ask_back(work: Work, store: Store, row: RunRow, keep: bool) -> tuple[dict[str, Any], list[str]]:
    """Make the queue as it was before it was answered."""
    lines: list[str] = []
    if work.apply:
        about = {"undoes": row.ulid, "step": row.step, "left": [], PART: True}
        with store.run(work.place.recorded, "undo", version=1, key="", settings=about):
            lines = asking.take_back(work.workspace, store, row)
    return {"acts": 1, "left": []}, lines
