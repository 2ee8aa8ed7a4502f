"""Make many LoRAs while you sleep: the sub-folders and zips of a folder, what is dropped, what is queued.

\b
For example:
  lora overnight sets --until 07:30     each folder and zip in sets/ becomes a LoRA; they are copied, never moved
  lora overnight matrix.toml            sets x recipes, one LoRA each
  lora overnight                        what lies in the inbox, and what the last night left
\b
A matrix:
  recipes = ["default", "soft.toml"]    names, or files of your own
  [sets]
  anna = "photos/anna"                  makes anna-default and anna-soft
  berta = "photos/berta"

The shortest come first. At the time given, the job at work writes its checkpoint and the queue stops; the next night
goes on with both. What came before, byte for byte, is not made again. Ends with 3 if something needs you, with 75 if
something is left.
"""

from __future__ import annotations

from datetime import datetime, time, timedelta
from pathlib import Path

import click

from lorafactory.daemon.overnight import overnight
from lorafactory.errors import NEEDS_YOU, STOPPED
from lorafactory.index import PAGE
from lorafactory.options import workspace_option
from lorafactory.workspace import find_workspace

ENDS = {NEEDS_YOU: "something needs you: lora status", STOPPED: "stopped; `lora overnight` goes on"}


def next_at(clock: time, now: datetime) -> datetime:
    """When a clock on the wall shows this for the next time; `now` and the result are local, with their zone."""
    today = datetime.combine(now.date(), clock)
    days = 0 if today.astimezone(now.tzinfo) > now else 1
    return (today + timedelta(days=days)).astimezone()


@click.command(help=__doc__)
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--until", type=click.DateTime(["%H:%M"]), help="Local time at which the night ends, as in 07:30.")
@workspace_option
@click.pass_context
def command(context: click.Context, folder: Path | None, until: datetime | None, workspace: Path | None) -> None:
    space = find_workspace(workspace)
    click.echo(f"workspace {space.root} ({space.how})")
    end = next_at(until.time(), datetime.now().astimezone()) if until else None
    code = overnight(space, folder, until=end, say=click.echo)
    click.echo(f"{ENDS.get(code, 'all is done')}   {(space.root / PAGE).as_uri()}")
    context.exit(code)
