"""What is at work, what is queued, what waits and why, and what needs you; worst first.

\b
For example:
  lora status
  lora status --disk       how much each LoRA takes, and what of it may be deleted
  lora status --json

Ends with 3 if something needs you.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from lorafactory.daemon.night import status
from lorafactory.errors import DONE, NEEDS_YOU
from lorafactory.files import size
from lorafactory.options import json_option, workspace_option
from lorafactory.pages import minutes
from lorafactory.workspace import LoraDir, Workspace, find_workspace


def disk(space: Workspace) -> list[dict[str, Any]]:
    """Bytes per LoRA by what they are, the largest first; and the cache."""
    rows = [sizes(space.lora(p.name)) for p in sorted(space.loras.glob("*/"))]
    rows.sort(key=lambda row: -row["total"])
    return [*rows, {"name": "cache/", "total": (n := size(space.cache)), "safe_to_delete": n}]


def sizes(place: LoraDir) -> dict[str, Any]:
    parts = {
        "originals": size(place.source),
        "set": size(place.images) + size(place.masks) + size(place.root / "set_aside"),
        "training": size(place.result),
        "comparison": size(place.comparison),
        "earlier": size(place.earlier_results),
    }
    return {"name": place.name, **parts, "total": size(place.root), "safe_to_delete": parts["earlier"]}


# ---------------------------------------------------------------- as text


def show(found: dict[str, Any]) -> None:
    seen = f", inbox looked at {found['scanned_at']}" if found["watching"] else ""
    click.echo(
        f"workspace {found['workspace']}, {'watched' if found['watching'] else 'nobody watches: lora watch'}{seen}"
    )
    if found.get("paused"):
        click.echo(f"paused: {found['paused']}")
    for job in found.get("running", []):
        of = f" {job['done']}/{job['of']}" if job.get("of") else ""
        left = f", about {minutes(job['left_s'])} left of that" if job.get("left_s") else ""
        click.echo(f"running  {job['lora']}: {job.get('what', 'begins')}{of}{left}")
    for number, job in enumerate(found["queue"], 1):
        later = f", not before {job['not_before']}: {job['reason']}" if job["not_before"] else ""
        click.echo(f"queued   {number}. {job['lora']}{later}")
    for sight in found["inbox"]:
        left = f" ({sight['left_s']:.0f} s)" if sight["left_s"] else ""
        click.echo(f"inbox    {sight['name']}: {sight['state']}, {sight['why']}{left}")
    if found["loras"]:
        table(("", "news", "why", "next"), [row(card) for card in found["loras"]])
    click.echo(f"{n} need{'s' * (n == 1)} you" if (n := found["needs_you"]) else "nothing needs you")


def row(card: dict[str, Any]) -> tuple[str, ...]:
    next_line = "" if card["news"] in ("done", "running", "queued") else card["next"]
    return card["name"], card["news"], card["reason"].partition("\n")[0], next_line


def show_disk(rows: list[dict[str, Any]]) -> None:
    parts = ("total", "originals", "set", "training", "comparison", "earlier", "safe_to_delete")
    shown = [(r["name"], *(f"{r[p] / 1e6:.1f}" if p in r else "" for p in parts)) for r in rows]
    table(("MB", *(p.replace("_", " ") for p in parts)), shown)
    click.echo("safe to delete: results/ (earlier trainings, each with its saves) of a LoRA, and cache/")


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    made = Table(box=None, pad_edge=False)
    for head in heads:
        made.add_column(head, overflow="fold")
    for cells in rows:
        made.add_row(*map(plain, cells))
    Console(highlight=False).print(made)


def plain(text: str) -> str:
    """A text in which rich finds no markup."""
    return text.replace("[", "\\[")


@click.command(help=__doc__)
@click.option("--disk", "asks_disk", is_flag=True, help="What takes how much room.")
@json_option
@workspace_option
@click.pass_context
def command(context: click.Context, asks_disk: bool, as_json: bool, workspace: Path | None) -> None:
    space = find_workspace(workspace)
    if asks_disk:
        rows = disk(space)
        click.echo(json.dumps(rows)) if as_json else show_disk(rows)
        return
    found = status(space)
    click.echo(json.dumps(found)) if as_json else show(found)
    context.exit(NEEDS_YOU if found["needs_you"] else DONE)
