"""Everything wrong or risky about a set, its settings and the machine, before any work.

One row per finding: what was measured, what it should be, and which seed or rule says so. `note` is worth a look,
`problem` is in the way. Beside it loras/NAME/check.png shows what training will see of each picture: the crop, the
bucket, and whether it is enlarged.

Without a model, except that variety is asked of CLIP too, and from the cache for pictures it has seen; --no-clip
leaves that out. --fix-mirrored turns the pictures that seem to be mirrored, in the set only; they stay as they were
in set_aside/unturned, the record has both hashes, and `lora undo` takes it back.

\b
For example:
  lora check anna
  lora check ./photos --base pocket --sheet check.png
  lora check anna --strict --json          exit code 3 if there is any note or problem
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from lorafactory import chain, images, journal, past, settings, step
from lorafactory.dataset import ASIDE, hash_of
from lorafactory.errors import FailedError, InputError, LoraError, Problem, raise_all
from lorafactory.note import Note
from lorafactory.options import header_options, header_values, json_option, workspace_option
from lorafactory.setcheck import Finding, contact, looks, mirroring, orientation, pictures, table
from lorafactory.setcheck.checkup import findings, trained
from lorafactory.setcheck.looks import Seen
from lorafactory.step import Work
from lorafactory.store import Store
from lorafactory.workspace import find_workspace, target

VERSION = 1
SHEET = "check.png"


def in_the_way(work: Work) -> list[Problem]:
    """What every step of the chain finds, and what is wrong with the base."""
    links = [link for link in chain.links(work) if work.place.owned or link.name != "rename"]
    found = []
    try:
        _ = work.models
    except LoraError as error:
        found.append(Problem(str(error), error=type(error)))
        links = [link for link in links if not getattr(link.module, "MODELS", ())]
    return [*found, *stays_empty(work, links), *chain.check(work, links)]


def stays_empty(work: Work, links: Sequence[chain.Link]) -> list[Problem]:
    """A set without pictures whose originals were all brought in once, so that `make` brings none."""
    link = next((link for link in links if link.name == "rename"), None)
    originals = [sha for p in images.find_sources(work.originals) if (sha := hash_of(p))]
    if not link or work.set.pictures or not originals or not work.workspace.record.is_file():
        return []
    with Store(work.workspace.record, readonly=True) as store:
        known = past.remember(work.place.recorded, store).imported
        undone = past.remember(work.place.recorded, store, again=True).undone
        done = step.is_done(link.module, work, link.settings, store)
    if not done and not all(sha in known for sha in originals):
        return []
    message = f"{work.place.images}: no pictures in the set, and all {len(originals)} originals were brought in once"
    again = f"lora rename {work.place.name} --force     {link.module.AGAIN}"
    put = f"put some back from {work.place.root / ASIDE}, or: lora make {work.place.name} --from FOLDER"
    return [Problem(message, again if undone else put)]


def draw_sheet(work: Work, seen: Seen, path: Path) -> None:
    """Write the contact sheet: whole or not at all."""
    train = trained(work)
    fits = pictures.fit_all(seen.looks, train)
    path.parent.mkdir(parents=True, exist_ok=True)
    images.save_png(contact.sheet(seen.looks, fits, train, name=work.place.name), path)


def write_sheet(work: Work, seen: Seen, asked: Path | None) -> Path | None:
    """Draw to where it was asked for, else into a LoRA's own folder; a folder elsewhere gets nothing."""
    if not seen.looks or not (asked or work.place.owned):
        return None
    if asked:
        draw_sheet(work, seen, asked)
        return asked
    try:
        with step.locked(work.place):
            draw_sheet(work, seen, work.place.root / SHEET)
    except FailedError as error:
        click.echo(f"note: {SHEET} is not drawn: {error}", err=True)
        return None
    return work.place.root / SHEET


# ---------------------------------------------------------------- mirrored pictures


def turn_mirrored(work: Work) -> list[str]:
    """Turn the smaller group round, in one recorded run; the lines say what was done."""
    if not work.apply:
        return turn(work)
    work.workspace.root.mkdir(parents=True, exist_ok=True)
    with step.locked(work.place), Store(work.workspace.record) as store:
        recorded = work.place.recorded
        store.interrupt(recorded)
        for line in past.see_hand(work.set, recorded, store):
            click.echo(line, err=True)
        with store.run(recorded, "check", version=VERSION, key="", settings={"fix_mirrored": True}) as run:
            before = journal.look(work.set)
            try:
                return turn(replace(work, note=Note(run)))
            finally:
                past.snapshot(work.set, run)
                journal.record(before, journal.look(work.set), run)


def turn(work: Work) -> list[str]:
    found = looks.seen(work).looks if work.set.pictures else []
    sides = orientation.sides([look.strip for look in found])
    row = orientation.finding(found, work.recipe.header.kind, sides)
    if row.verdict == "ok":
        return [f"no picture is turned: left and right: {row.value}"]
    return mirroring.turn(work, [found[i].picture for i in sides.fewer], sides.gap)


# ---------------------------------------------------------------- the command


@click.command(help=__doc__)
@click.argument("place", metavar="NAME_OR_FOLDER")
@click.option("--no-clip", is_flag=True, help="Leave CLIP out; no model is needed then.")
@click.option("--strict", is_flag=True, help="Exit code 3 if there is any note or problem.")
@click.option("--sheet", type=click.Path(path_type=Path, dir_okay=False), help="Where to draw the contact sheet.")
@click.option("--fix-mirrored", is_flag=True, help="Turn the pictures that are mirrored against the others.")
@click.option("--apply", is_flag=True, help="On a folder that is not a LoRA's: turn, not only report.")
@json_option
@header_options
@workspace_option
def command(
    place: str,
    no_clip: bool,
    strict: bool,
    sheet: Path | None,
    fix_mirrored: bool,
    apply: bool,
    as_json: bool,
    **options: Any,
) -> None:
    space = find_workspace(options.pop("workspace"))
    where, told = target(space, place), header_values(options)
    if no_clip:
        told |= {name: {"no_clip": True} for name in ("dedupe", "filter")}
    work = Work(space, where, settings.effective(space, where, told), where.owned or apply)
    problems = in_the_way(work)
    turned = turn_mirrored(work) if fix_mirrored else []
    seen = looks.seen(work)
    rows = findings(work, seen, no_clip=no_clip)
    drawn = write_sheet(work, seen, sheet)
    if as_json:
        click.echo(json.dumps(table.as_data(rows, problems, drawn, turned)))
    else:
        say(rows, problems, drawn, turned)
    end(rows, problems, strict=strict)
    if not as_json:
        click.echo(table.conclusion(rows, problems))


def say(rows: Sequence[Finding], problems: Sequence[Problem], drawn: Path | None, turned: Sequence[str]) -> None:
    """Print the table and what stands beside it; what is in the way is said at the end, all at once."""
    for line in turned:
        click.echo(line)
    table.show(rows)
    for problem in problems:
        if not problem.fatal:
            click.echo(f"note: {problem}")
    if drawn:
        click.echo(f"what training sees: {drawn}")


def end(rows: Sequence[Finding], problems: Sequence[Problem], *, strict: bool) -> None:
    """Raise what is in the way: fatal problems, rows that are one, and with `strict` every note."""
    raise_all(problems)
    raise_all(Problem(f"{row.what}: {row.value}") for row in rows if row.verdict == "problem")
    if strict and (any(row.verdict != "ok" for row in rows) or problems):
        raise InputError(f"{table.conclusion(rows, problems)}, and --strict wants none")
