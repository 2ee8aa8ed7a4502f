"""Write a LoRA's report again, as it stands now; or one for others, without your pictures.

\b
For example:
  lora report anna
  lora report anna --share     no training pictures, captions or paths: report-shared.html
"""

from __future__ import annotations

from pathlib import Path

import click

from lorafactory import settings
from lorafactory.index import write_index
from lorafactory.options import workspace_option
from lorafactory.report import write_report
from lorafactory.step import Work
from lorafactory.store import Store
from lorafactory.workspace import find_workspace, target


def report(name: str, workspace: Path | None, *, shared: bool) -> Path:
    """Write the report and the workspace's page; return the report's path."""
    space = find_workspace(workspace)
    place = target(space, name)
    work = Work(space, place, settings.effective(space, place))
    with Store(space.record, readonly=True) as store:
        path = write_report(work, store, shared=shared)
    write_index(space)
    return path


@click.command(help=__doc__)
@click.argument("name")
@click.option("--share", is_flag=True, help="For others: without training pictures, captions and paths.")
@workspace_option
def command(name: str, share: bool, workspace: Path | None) -> None:
    path = report(name, workspace, shared=share)
    click.echo(f"{path.as_uri()}   {path.stat().st_size / 1e6:.1f} MB")
