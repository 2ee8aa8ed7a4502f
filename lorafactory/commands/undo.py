"""Take back the last command on a set: moves, folders renamed, captions written. Each call goes one further back.

Everything comes to lie where it was, byte for byte. Pictures that were brought in leave for set_aside/undone/, as
nothing is deleted; their originals stay in source/, and only `lora rename anna --force` brings them in again, or you by
hand. What a person did since is never overwritten; a picture put back counts as put back by hand, so no later run takes
it out. `make` is taken back step by step. Trainings, saves, comparisons and masks stay, and so does what `rename --to`
wrote.

\b
For example:
  lora undo anna --list      what can be taken back, the next one first
  lora undo anna
  lora undo ./set --apply    on a folder that is not a LoRA's it reports until --apply
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import click

from lorafactory import journal, past, settings, step, steps
from lorafactory.commands._telling import local
from lorafactory.dataset import ASIDE, Picture
from lorafactory.errors import InputError
from lorafactory.journal import Act, WayBack
from lorafactory.options import json_option, shown, workspace_option
from lorafactory.past import BY_HAND
from lorafactory.step import Result, Work
from lorafactory.store import Change, Run, RunRow, Store
from lorafactory.workspace import LoraDir, Workspace, find_workspace, target

SHOWN = 10


def listed(store: Store, place: LoraDir) -> Result:
    """What can be taken back, newest first."""
    rows = store.changing(place.recorded)
    told = [(row, in_words(store.changes(row.id))) for row in rows]
    lines = [f"{local(row.started_at)}  {row.step:8}  {words}" for row, words in told]
    data = {"runs": [{"run": r.ulid, "step": r.step, "at": r.started_at, "changes": w} for r, w in told]}
    return Result(f"undo: {len(rows)} can be taken back, the first one next", data, lines)


def in_words(changes: Sequence[Change]) -> str:
    """What a run did, in one line; a picture's caption that moved with it goes without saying."""
    counted: Counter[str] = Counter()
    for change in changes:
        text = journal.is_text(change.after or change.before or "")
        was, now = (str(PurePosixPath(p).parent) if p else "" for p in (change.before, change.after))
        if text and was != now and change.before and change.after:
            continue
        what = "captions written" if text else "pictures brought in"
        if change.before and change.after and was != now:
            what = f"pictures from {was} to {now}"
        elif change.before and change.after:
            what = "captions changed" if text else "pictures changed"
        elif change.before:
            what = "captions taken away" if text else "pictures taken away"
        counted[what] += 1
    return ", ".join(f"{n} {what}" for what, n in counted.items())


def undo(work: Work, store: Store, *, keep: bool = False) -> Result:
    """Take back the newest run that changed the set and stands; the caller holds the lock if `work.apply`."""
    place = work.place
    rows = store.changing(place.recorded)
    if not rows:
        raise InputError(
            f"nothing to take back in {place.name}: no recorded run moved or wrote anything in {place.images}\n"
            f"    lora why {place.recorded} shows what was run"
        )
    standing = journal.look(work.set)
    plan = journal.way_back(place.root, store.changes(rows[0].id), standing)
    if plan.conflicts and not keep:
        raise InputError(conflicted(place, rows[0], plan))
    when = f"{rows[0].step} of {local(rows[0].started_at)}"
    lines = broken_off(store, place, rows[0])
    lines += [f"{conflict}, left as it is" for conflict in plan.conflicts] + [said(act) for act in plan.acts]
    data = {"undoes": rows[0].ulid, "step": rows[0].step, "acts": len(plan.acts), "left": plan.conflicts}
    if not work.apply:
        return Result(f"undo: would take back {when} (--apply does it)", data, lines)
    take_back(work, store, rows[0], plan, standing)
    after = f"; before it: {rows[1].step} of {local(rows[1].started_at)}" if len(rows) > 1 else ""
    return Result(f"undo: took back {when}{after}", data, lines)


def broken_off(store: Store, place: LoraDir, row: RunRow) -> list[str]:
    """Runs since then that were killed: nobody wrote down what they had done."""
    later = [r for r in store.runs(place.recorded) if r.status == "interrupted" and r.id > row.id]
    return [f"note: {r.step} of {local(r.started_at)} broke off; what it had done by then stays" for r in later]


def take_back(work: Work, store: Store, row: RunRow, plan: WayBack, standing: journal.Standing) -> None:
    """Do it, as a run of its own that tells what became of every picture, and what the step would now see."""
    about = {"undoes": row.ulid, "step": row.step, "left": plan.conflicts}
    with store.run(work.place.recorded, "undo", version=1, key="", settings=about) as run:
        try:
            journal.apply(work.place.root, plan.acts)
        finally:
            past.snapshot(work.set, run)
            now = journal.look(work.set)
            done = journal.differences(standing, now)
            for change in done:
                run.changed(change)
            tell(run, work, done, standing, now, f"undo of {row.step}, {local(row.started_at)}")
        if row.step in steps.names():  # `check` changes a set too, and is not skipped when it is up to date
            module = steps.get(row.step)
            for name, sha in step.sees(module, work, module.Settings()).items():
                run.used("sees", name, sha)


def tell(run: Run, work: Work, done: Sequence[Change], was: journal.Standing, now: journal.Standing, why: str) -> None:
    """One decision per picture: put back and set aside count as by hand, so that they stay."""
    known = {p.path: p for p in work.set.pictures}
    for change in done:
        path = work.place.root / (change.after or change.before or "")
        if not journal.is_text(path.name):
            name, sha = (known.get(path) or Picture(path)).name, change.sha256_after or change.sha256_before or ""
            out, back = (ASIDE in PurePosixPath(p or "").parts for p in (change.after, change.before))
            verdict = "set aside" if out and not back else "put back" if back and not out else "moved"
            rule = "undo" if verdict == "moved" else BY_HAND
            run.note(name, sha, verdict, rule, before=change.before, after=change.after, note=why)
        elif change.before in (None, change.after) or change.after is None:
            owner = next((p for p in known.values() if p.caption_path == path), None)
            texts = [s.texts.get(sha or "", b"").decode(errors="replace").strip() or None for s, sha in
                     ((was, change.sha256_before), (now, change.sha256_after))]  # fmt: skip
            verdict = "caption restored" if change.after else "caption taken away"
            if owner:
                run.note(owner.name, owner.sha256, verdict, "undo", before=texts[0], after=texts[1], note=why)


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
    first = f"{row.step} of {local(row.started_at)} cannot be taken back whole; by hand, since then:"
    last = [f"    lora undo {name} --keep-by-hand     leaves these as they are and takes back the rest"]
    return "\n".join([first, *told, *last])


def act_or_report(space: Workspace, work: Work, *, keep: bool) -> Result:
    """Take back under the lock, after what a person did has been recorded; only look where not told to act."""
    if not work.apply:
        with Store(space.record, readonly=True) as store:
            return undo(work, store, keep=keep)
    with step.locked(work.place), Store(space.record) as store:
        store.interrupt(work.place.recorded)
        for line in past.see_hand(work.set, work.place.recorded, store):
            click.echo(line, err=True)
        return undo(work, store, keep=keep)


@click.command(help=__doc__)
@click.argument("place", metavar="NAME_OR_FOLDER")
@click.option("--list", "only_list", is_flag=True, help="Show what can be taken back, and do nothing.")
@click.option("--keep-by-hand", "keep", is_flag=True, help="Leave what a person changed since, take back the rest.")
@click.option("--apply", is_flag=True, help="On a folder that is not a LoRA's: act, not only report.")
@json_option
@workspace_option
def command(place: str, only_list: bool, keep: bool, apply: bool, as_json: bool, workspace: Path | None) -> None:
    space = find_workspace(workspace)
    found = target(space, place)
    if only_list:
        with Store(space.record, readonly=True) as store:
            result = listed(store, found)
    else:
        work = Work(space, found, settings.effective(space, found), found.owned or apply)
        result = act_or_report(space, work, keep=keep)
    click.echo(json.dumps(dict(result.data)) if as_json else shown(result))
