"""List the recipes, or show every effective value of a LoRA's settings and where it comes from.

\b
For example:
  lora recipe list
  lora recipe show demo
  lora recipe show anna
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lorafactory import settings, step, steps
from lorafactory.options import workspace_option
from lorafactory.workspace import LoraDir, Workspace, find_workspace


def listing() -> list[tuple[str, str]]:
    """Every recipe with the first line of its header comment."""
    rows = []
    for name in settings.recipe_names():
        text = settings.recipe_path(name).read_text(encoding="utf-8")
        rows.append((name, text.partition("\n")[0].lstrip("# ")))
    return rows


def effective(space: Workspace, name: str) -> list[tuple[str, Any, str]]:
    """Every setting of a LoRA (or of a recipe on its own) as key, value, origin."""
    place = space.lora(name)
    given = {} if place.settings.is_file() else {"recipe": name}
    place = place if place.settings.is_file() else LoraDir(name, space.loras / name, owned=True)
    recipe = settings.effective(space, place, given)
    head = recipe.header.model_dump(by_alias=True).items()
    rows = [(key, value, recipe.origins.get(key, "default")) for key, value in head]
    for step_name in steps.names():
        if step_name == "generate" and not recipe.table(step_name):
            continue
        values = step.settings_of(steps.get(step_name), recipe).model_dump()
        rows += [(f"{step_name}.{k}", v, recipe.origins.get(f"{step_name}.{k}", "default")) for k, v in values.items()]
    return rows


@click.group(help=__doc__)
def command() -> None:
    pass


@command.command("list", help="The recipes that ship with lorafactory.")
def list_command() -> None:
    for name, line in listing():
        click.echo(f"{name:14} {line}")


@command.command("show", help="Every effective value of a LoRA or a recipe, with its origin.")
@click.argument("name")
@workspace_option
def show_command(name: str, workspace: Path | None) -> None:
    for key, value, origin in effective(find_workspace(workspace), name):
        click.echo(f"{key} = {value!r}".ljust(48) + f"  # {origin}")
