"""Try a failed LoRA or a quarantined drop again, let one that waits go on; or give it up. `undo` takes it back.

\b
For example:
  lora retry anna
  lora retry anna-7k2m9q0x     one drop, by its folder's name in quarantine/
  lora retry anna --drop       give up what is queued; quarantined files stay where they are
"""

from __future__ import annotations

from pathlib import Path

import click

from lorafactory.daemon.asking import give_up, retry
from lorafactory.index import write_index
from lorafactory.options import workspace_option
from lorafactory.store import Store
from lorafactory.workspace import find_workspace

ENDS = "    lora watch      does what is queued, unless it is at it already"


@click.command(help=__doc__)
@click.argument("name")
@click.option("--drop", is_flag=True, help="Give it up instead.")
@workspace_option
def command(name: str, drop: bool, workspace: Path | None) -> None:
    space = find_workspace(workspace)
    with Store(space.record) as store:
        told = give_up(space, store, name) if drop else [*retry(space, store, name), ENDS]
    click.echo("\n".join(told))
    write_index(space)
