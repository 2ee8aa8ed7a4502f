"""Everything wrong or risky about a set, its settings and the machine, before any work.

\b
For example:
  lora check anna
  lora check ./photos --base pocket
"""

from __future__ import annotations

from typing import Any

import click

from lorafactory import chain, settings
from lorafactory.errors import LoraError, Problem, raise_all
from lorafactory.options import header_options, header_values, workspace_option
from lorafactory.step import Work
from lorafactory.workspace import LoraDir, Workspace, find_workspace, target


def check(space: Workspace, place: LoraDir, header: dict[str, Any]) -> list[Problem]:
    """Every finding of every step of the chain, and of the base."""
    work = Work(space, place, settings.effective(space, place, header))
    links = [link for link in chain.links(work) if place.owned or link.name != "rename"]
    problems = []
    try:
        _ = work.models
    except LoraError as error:
        problems.append(Problem(str(error), error=type(error)))
        links = [link for link in links if not getattr(link.module, "MODELS", ())]
    return [*problems, *chain.check(work, links)]


@click.command(help=__doc__)
@click.argument("place", metavar="NAME_OR_FOLDER")
@header_options
@workspace_option
def command(place: str, **options: Any) -> None:
    space = find_workspace(options.pop("workspace"))
    problems = check(space, target(space, place), header_values(options))
    for problem in problems:
        if not problem.fatal:
            click.echo(f"note: {problem}")
    raise_all(problems)
    click.echo("nothing is in the way")
