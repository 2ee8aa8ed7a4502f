"""List recipes, show where every value comes from, read other tools' settings, or write them for sd-scripts.

\b
For example:
  lora recipe list
  lora recipe show portrait
  lora recipe show anna
  lora recipe read old.json                what it says, and what becomes of it here
  lora recipe read old.json --as soft      and keep it, for lora make anna --recipe soft
  lora recipe write anna --as kohya        as a file for sd-scripts' --config_file
"""

from __future__ import annotations

from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import click
import tomlkit
from pydantic import BaseModel, ValidationError

from lorafactory import recipe_formats, settings, step, steps
from lorafactory.errors import InputError, SettingsError
from lorafactory.files import write_whole
from lorafactory.options import workspace_option
from lorafactory.recipe import Header, Recipe
from lorafactory.recipe_formats import Line, Reading, kohya
from lorafactory.training import optimizers
from lorafactory.workspace import LoraDir, Workspace, find_workspace, safe_name


def listing(space: Workspace | None = None) -> list[tuple[str, str]]:
    """Every recipe with the first line of its header comment."""
    rows = []
    for name in settings.recipe_names(space):
        text = settings.recipe_path(name, space).read_text(encoding="utf-8")
        rows.append((name, text.partition("\n")[0].lstrip("# ")))
    return rows


def found(space: Workspace, name: str) -> Recipe:
    """The settings of a LoRA, or of a recipe on its own."""
    place = space.lora(name)
    given = {} if place.settings.is_file() else {"recipe": name}
    place = place if place.settings.is_file() else LoraDir(name, space.loras / name, owned=True)
    return settings.effective(space, place, given)


def effective(space: Workspace, name: str) -> list[tuple[str, Any, str]]:
    """Every setting of a LoRA (or of a recipe on its own) as key, value, origin."""
    recipe = found(space, name)
    head = recipe.header.model_dump(by_alias=True).items()
    rows = [(key, value, recipe.origins.get(key, "default")) for key, value in head]
    for step_name in steps.names():
        if step_name == "generate" and not recipe.table(step_name):
            continue
        values = step.settings_of(steps.get(step_name), recipe).model_dump()
        rows += [(f"{step_name}.{k}", v, recipe.origins.get(f"{step_name}.{k}", "default")) for k, v in values.items()]
    return rows


# ---------------------------------------------------------------- other tools' settings


@cache
def model_of(table: str) -> type[BaseModel] | None:
    """The settings of a table, or those above all tables; None if there is no such table."""
    if not table:
        return Header
    return steps.get(table).Settings if table in steps.names() else None


def accept(key: str, value: Any) -> Any:
    """The value as the setting holds it; ValueError says why it cannot."""
    table, _, name = key.rpartition(".")
    model = model_of(table)
    if model is None or name not in model.model_fields:
        raise ValueError("there is no such setting here")
    try:
        result = model.model_validate({name: value}).model_dump(mode="json")[name]
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ").lower()) from error
    problems = optimizers.check(result, {}, "constant") if key == "train.optimizer" else []
    if problems:
        raise ValueError(problems[0])
    return result


def receipt(reading: Reading) -> list[str]:
    """Every field, in the order of the verdicts: a line each, or one for all that are inert for the same reason."""
    by_verdict: dict[str, list[Line]] = {verdict: [] for verdict in recipe_formats.VERDICTS}
    for line in reading.lines.values():
        by_verdict[line.verdict].append(line)
    told: list[str] = []
    for verdict, lines in by_verdict.items():
        if verdict != "inert":
            told += map(str, lines)
            continue
        for why, alike in groupby(sorted(lines, key=lambda line: line.why), lambda line: line.why):
            names = (line.field.name if why in ("not set", "off") else line.said for line in alike)
            told.append(recipe_formats.printable(f"{verdict:10} {why}: {', '.join(names)}"))
    counts = ", ".join(f"{len(lines)} {verdict}" for verdict, lines in by_verdict.items())
    return [*told, f"{reading.source}: {counts}"]


def text_of(reading: Reading, file: Path) -> str:
    """The recipe as TOML; what the file says and was not taken over stands at its end."""
    document = tomlkit.document()
    document.add(tomlkit.comment(recipe_formats.printable(f"Read from {file.name} ({reading.source}).")))
    document.add(tomlkit.nl())
    for key, value in reading.header.items():
        document.add(key, value)
    for name, values in reading.tables.items():
        document.add(name, values)
    refused = [line for line in reading.lines.values() if line.verdict == "refused"]
    if refused:
        document.add(tomlkit.nl())
        document.add(tomlkit.comment("Not taken over:"))
    for line in refused:
        document.add(tomlkit.comment(" ".join(str(line).split())))
    return tomlkit.dumps(document)


def sdscripts(space: Workspace, name: str) -> dict[str, Any]:
    """A LoRA's or a recipe's settings as sd-scripts' arguments; of a LoRA also where everything lies."""
    recipe = found(space, name)
    trainer = steps.get("train").Settings
    values = step.settings_of(steps.get("train"), recipe).model_dump(mode="json")
    told = kohya.write(values, trainer().model_dump(mode="json"), accept)
    head = recipe.header.model_dump(by_alias=True, include=recipe.header.model_fields_set, exclude={"recipe"})
    own = told.pop("lorafactory", {})
    rest = {table: held for table, held in recipe.tables.items() if held and table != "train"}
    place = space.lora(name)
    if place.settings.is_file():
        places = {"train_data_dir": place.images, "output_dir": place.result, "output_name": place.name}
        told = {**{key: str(value) for key, value in places.items()}, **told}
    if recipe.header.prediction == "v_prediction":
        told |= {"v_parameterization": True, "scale_v_pred_loss_like_noise_pred": values["scale_v_pred_loss"]}
    return {**told, "lorafactory": {**head, **rest, **own}}


def keep(space: Workspace, name: str, text: str) -> Path:
    """Write a recipe of the workspace's own; SettingsError if the name is taken."""
    name = safe_name(name)
    if name in settings.recipe_names(space):
        raise SettingsError(f"there is a recipe {name!r} already; take another name")
    folder = settings.own_recipes(space)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / f"{name}.toml", text.encode())
    return folder / f"{name}.toml"


# ---------------------------------------------------------------- the commands


@click.group(help=__doc__)
def command() -> None:
    pass


@command.command("list", help="The recipes that ship with lorafactory, and the workspace's own.")
@workspace_option
def list_command(workspace: Path | None) -> None:
    for name, line in listing(find_workspace(workspace)):
        click.echo(f"{name:14} {line}")


@command.command("show", help="Every effective value of a LoRA or a recipe, with its origin.")
@click.argument("name")
@workspace_option
def show_command(name: str, workspace: Path | None) -> None:
    rows = effective(find_workspace(workspace), name)
    if ("base", None, "default") in rows:
        click.echo("no base is named: what the recipe says for a family of bases is not in it", err=True)
    for key, value, origin in rows:
        click.echo(f"{key} = {value!r}".ljust(48) + f"  # {origin}")


@command.command("read")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--as", "name", help="Keep it as a recipe of the workspace, recipes/NAME.toml.")
@workspace_option
def read_command(file: Path, name: str | None, workspace: Path | None) -> None:
    """Read other tools' settings: a receipt says what became of each field.

    Of kohya_ss, sd-scripts, the Civitai trainer, OneTrainer, LoRA_Easy_Training_Scripts, lora-scripts; or from within
    a LoRA file. Places, secrets and code are never taken over.
    """
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    reading = recipe_formats.read(recipe_formats.parse(file), accept)
    for line in receipt(reading):
        click.echo(line)
    if name:
        path = keep(find_workspace(workspace), name, text_of(reading, file))
        click.echo(f"{path} written: lora make NAME --recipe {path.stem}")


@command.command("write")
@click.argument("name")
@click.option("--as", "form", type=click.Choice(["kohya"]), default="kohya", show_default=True)
@workspace_option
def write_command(name: str, form: str, workspace: Path | None) -> None:
    """Write the settings of a LoRA or a recipe for sd-scripts, as TOML on stdout.

    For train_network.py or sdxl_train_network.py with --config_file. What sd-scripts has no word for stands under
    [lorafactory], which it passes over, and which `lora recipe read` takes back.
    """
    told = sdscripts(find_workspace(workspace), name)
    asked = [
        "pretrained_model_name_or_path CHECKPOINT",
        "train_data_dir FOLDER",
        "output_dir FOLDER",
        "output_name NAME",
    ]
    document = tomlkit.document()
    for line in (
        f"{name}, for sd-scripts: train_network.py, or sdxl_train_network.py for SDXL, --config_file FILE",
        " ".join(f"--{option}" for option in asked if option.partition(" ")[0] not in told),
    ):
        document.add(tomlkit.comment(line))
    document.update(told)
    click.echo(tomlkit.dumps(document), nl=False)
