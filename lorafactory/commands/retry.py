"""Try a failed LoRA or a quarantined drop again; or give it up.

\b
For example:
  lora retry anna
  lora retry anna-7k2m9q0x     one drop, by its folder's name in quarantine/
  lora retry anna --drop       give up what is queued; quarantined files stay where they are
"""

from __future__ import annotations

from pathlib import Path

import click

from lorafactory.daemon import quarantine
from lorafactory.daemon.queue import Queue
from lorafactory.daemon.rows import Drop, clear, drops
from lorafactory.errors import InputError, PassingError
from lorafactory.index import write_index
from lorafactory.options import workspace_option
from lorafactory.store import Store
from lorafactory.workspace import Workspace, find_workspace


def retry(space: Workspace, name: str) -> str:
    """Queue a LoRA again, and move quarantined drops of the name back into the inbox; say what was done."""
    with Store(space.record) as store:
        queue, told = Queue(store), []
        if any(job.lora == name for job in queue.jobs()) or space.lora(name).root.is_dir():
            job = queue.add(space.lora(name).name)
            told.append(f"{job.lora}: {job.state}")
        if not told or any(name in called(space, drop) for drop in drops(store, "quarantined")):
            told += [f"{path}: back in the inbox" for path in quarantine.retry(space, store, name)]
    return "\n".join(told) + "\n    lora watch      does what is queued, unless it is at it already"


def called(space: Workspace, drop: Drop) -> tuple[str, str]:
    return drop.name, quarantine.place(space, drop).name


def give_up(space: Workspace, name: str) -> str:
    """End a LoRA's job, and close the books on quarantined drops of the name; files stay."""
    with Store(space.record) as store:
        queue, told = Queue(store), []
        job = queue.active(name) or next((j for j in queue.newest() if j.lora == name and j.state == "failed"), None)
        if job and job.state == "running":
            raise PassingError(f"{name} is being made: stop `lora watch` first, with Ctrl-C")
        if job:
            queue.give_up(job)
            told.append(f"{name}: given up")
        for drop in drops(store, "quarantined"):
            if name in called(space, drop):
                clear(store, drop.ulid)
                told.append(f"{quarantine.place(space, drop)}: given up; delete it when you like")
    if not told:
        raise InputError(f"nothing called {name} is queued, failed or quarantined\n    lora status")
    return "\n".join(told)


@click.command(help=__doc__)
@click.argument("name")
@click.option("--drop", is_flag=True, help="Give it up instead.")
@workspace_option
def command(name: str, drop: bool, workspace: Path | None) -> None:
    space = find_workspace(workspace)
    click.echo(give_up(space, name) if drop else retry(space, name))
    write_index(space)
