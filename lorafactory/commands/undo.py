"""Take back the last command on a set: moves, folders renamed, captions written. Each call goes one further back.

Everything comes to lie where it was, byte for byte. Pictures that were brought in leave for set_aside/undone/, as
nothing is deleted; their originals stay in source/, and only `lora rename anna --force` brings them in again, or you by
hand. What a person did since is never overwritten; a picture put back counts as put back by hand, so no later run takes
it out. `make` is taken back step by step. What you did in `review` counts too, and a save that you chose gives way to
the one chosen before. Trainings, saves, comparisons and masks stay, and so does what `rename --to` wrote.

\b
For example:
  lora undo anna --list      what can be taken back, the next one first
  lora undo anna
  lora undo ./set --apply    on a folder that is not a LoRA's it reports until --apply
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path, PurePosixPath
from typing import Any

import click

from lorafactory import journal, past, settings, step
from lorafactory.errors import SettingsError
from lorafactory.index import write_index
from lorafactory.options import json_option, shown, workspace_option
from lorafactory.report import refresh
from lorafactory.step import Result, Work
from lorafactory.store import Change, Store
from lorafactory.undoing import local, standing, undo
from lorafactory.workspace import LoraDir, Workspace, find_workspace, target


def listed(work: Work, store: Store) -> Result:
    """What can be taken back, newest first."""
    rows = standing(work, store)
    told = [(row, in_words(store.changes(row.id)) or said(row.settings)) for row in rows]
    lines = [f"{local(row.started_at)}  {row.step:8}  {words}" for row, words in told]
    data = {"runs": [{"run": r.ulid, "step": r.step, "at": r.started_at, "changes": w} for r, w in told]}
    return Result(f"undo: {len(rows)} can be taken back, the first one next", data, lines)


def said(told: Mapping[str, Any]) -> str:
    """What a run was about that changed no file of the set."""
    return str(told.get("said", told.get("act", "a save chosen by hand")))


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


def act_or_report(space: Workspace, work: Work, *, keep: bool) -> Result:
    """Take back under the lock, after what a person did has been recorded; only look where not told to act."""
    if not work.apply:
        with Store(space.record, readonly=True) as store:
            return undo(work, store, keep=keep)
    held = step.locked(work.place) if work.place.root.is_dir() else nullcontext()
    with held, Store(space.record) as store:
        store.interrupt(work.place.recorded)
        for line in past.see_hand(work.set, work.place.recorded, store):
            click.echo(line, err=True)
        result = undo(work, store, keep=keep)
    if work.place.owned:
        refresh(work, anew=result.data["step"] == "pick")
        write_index(space)
    return result


def meant(space: Workspace, given: str) -> LoraDir:
    """A LoRA or a folder; also a LoRA that is only of the record, such as one whose drop is in quarantine."""
    try:
        return target(space, given)
    except SettingsError:
        if not space.record.is_file():
            raise
        with Store(space.record, readonly=True) as store:
            if not store.runs(given, limit=1):
                raise
        return space.lora(given)


@click.command(help=__doc__)
@click.argument("place", metavar="NAME_OR_FOLDER")
@click.option("--list", "only_list", is_flag=True, help="Show what can be taken back, and do nothing.")
@click.option("--keep-by-hand", "keep", is_flag=True, help="Leave what a person changed since, take back the rest.")
@click.option("--apply", is_flag=True, help="On a folder that is not a LoRA's: act, not only report.")
@json_option
@workspace_option
def command(place: str, only_list: bool, keep: bool, apply: bool, as_json: bool, workspace: Path | None) -> None:
    space = find_workspace(workspace)
    found = meant(space, place)
    work = Work(space, found, settings.effective(space, found), found.owned or apply)
    if only_list:
        with Store(space.record, readonly=True) as store:
            result = listed(work, store)
    else:
        result = act_or_report(space, work, keep=keep)
    click.echo(json.dumps(dict(result.data)) if as_json else shown(result))
