"""A step's settings as a command: options, help and defaults come from its `Settings`, so they are written once."""

from __future__ import annotations

import json
import shlex
import tomllib
import types
import typing
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import click
import tomlkit
from pydantic.fields import FieldInfo

from lorafactory import past, settings, step
from lorafactory.errors import SettingsError, raise_all
from lorafactory.index import write_index
from lorafactory.report import refresh
from lorafactory.step import Result, StepSettings, Work
from lorafactory.store import Store
from lorafactory.workspace import LoraDir, Workspace, find_workspace, target

HEADER = ("recipe", "base", "vae", "prediction", "trigger", "kind", "class")


def workspace_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--workspace",
        type=click.Path(path_type=Path, file_okay=False),
        help="Folder that holds the record and the LoRAs. [default: found as `lora --help` says]",
    )(function)


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(function)


def header_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a recipe says above its tables."""
    for flag, text in (
        ("class", "The plain word for what is learned, such as `woman`."),
        ("kind", "person, character, style or object."),
        ("trigger", "The token that calls the LoRA."),
        ("prediction", "What a base answers that does not say so: epsilon or v_prediction."),
        ("vae", "A VAE instead of the base's own: a .safetensors file or a folder."),
        ("base", "The model trained on: a path, part of a name under `models`, or `pocket`."),
        ("recipe", "A name from `lora recipe list`, or a .toml file."),
    ):
        function = click.option(f"--{flag}", flag if flag != "class" else "class_", help=text)(function)
    return function


def header_values(options: dict[str, Any]) -> dict[str, Any]:
    """Take the header's options out of `options`; those that were not given are left out."""
    taken = {key: options.pop(key if key != "class" else "class_", None) for key in HEADER}
    return {key: value for key, value in taken.items() if value is not None}


def assignments(pairs: tuple[str, ...]) -> dict[str, Any]:
    """`train.epochs=8` to {"train.epochs": 8}; a value that is no TOML is a string."""
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise SettingsError(f"--set {pair}: write it as table.key=value, as in --set train.epochs=8")
        try:
            values[key.strip()] = tomllib.loads(f"x = {value}")["x"]
        except tomllib.TOMLDecodeError:
            values[key.strip()] = value
    return values


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """{"train.epochs": 8} to {"train": {"epochs": 8}}."""
    out: dict[str, Any] = {}
    for dotted, value in values.items():
        *tables, key = dotted.split(".")
        table = out
        for name in tables:
            table = table.setdefault(name, {})
        table[key] = value
    return out


# ---------------------------------------------------------------- one command for one step


def command(module: ModuleType) -> click.Command:
    """Build `lora <step> NAME_OR_FOLDER` from the module's Settings and docstring."""
    name = step.name_of(module)

    @click.pass_context
    def body(context: click.Context, /, place: str | tuple[str, ...], **given: Any) -> None:
        result = run_on_files(module, place, given) if isinstance(place, tuple) else run_step(module, place, given)
        click.echo(json.dumps(dict(result.data), default=str) if given["as_json"] else shown(result))
        context.exit(0)

    made: Callable[..., Any] = body
    for key, field in reversed(module.Settings.model_fields.items()):
        made = made if key in HEADER or positional(field) else option(key, field)(made)
    for shared in (json_option, workspace_option, header_options):
        made = shared(made)
    made = click.option("--force", is_flag=True, help="Run even if everything is up to date.")(made)
    made = click.option("--apply", is_flag=True, help="On a folder that is not a LoRA's: act, not only report.")(made)
    if "loras" in module.Settings.model_fields:
        about: dict[str, Any] = {"metavar": "NAME_OR_FOLDER | FILE.safetensors ...", "nargs": -1, "required": True}
    else:
        about = {"metavar": "NAME_OR_FOLDER"}
    for key, field in module.Settings.model_fields.items():
        if metavar := positional(field):
            made = click.argument(key, metavar=metavar, nargs=-1)(made)
    made = click.argument("place", **about)(made)
    return click.command(name, help=module.__doc__)(made)


def option(key: str, field: FieldInfo) -> Callable[..., Any]:
    """One setting as one option; without it the recipe decides, so click knows no default."""
    flag = key.replace("_", "-")
    text = f"{' '.join((field.description or '').split())} [default: {show(field)}]"
    kind, multiple = click_type(field.annotation)
    if kind is bool:
        return click.option(f"--{flag}/--no-{flag}", key, default=None, help=text)
    return click.option(f"--{flag}", key, type=kind, multiple=multiple, default=None, help=text)


def show(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return str(value) if value not in (None, "") else "none"


def click_type(annotation: Any) -> tuple[Any, bool]:
    """click's type for an annotation, and whether the option may be repeated; pydantic does the fine checking."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (list, tuple):
        return click_type(inner[0])[0], True
    if origin is Literal:
        return click.Choice([str(value) for value in inner]), False
    if origin in (typing.Union, types.UnionType):
        plain = [a for a in inner if a is not type(None)]
        return click_type(plain[0]) if len(plain) == 1 else (str, False)
    return (annotation if annotation in (bool, int, float, str) else str), False


def run_on_files(module: ModuleType, places: tuple[str, ...], given: dict[str, Any]) -> Result:
    """Run a step that also takes LoRA files: of a LoRA or a folder if one is named, else of no LoRA at all."""
    files = tuple(str(Path(place).expanduser()) for place in places if place.endswith(".safetensors"))
    others = [place for place in places if not place.endswith(".safetensors")]
    if len(others) > 1:
        raise SettingsError(f"one LoRA or folder at a time: {', '.join(others)}")
    given = {**given, "loras": (*files, *given["loras"])}
    return run_step(module, others[0] if others else None, given)


def nowhere(workspace: Workspace, files: tuple[str, ...], to: str | None) -> LoraDir:
    """The folder for what comes of LoRA files that belong to no LoRA of the workspace; it need not exist."""
    name = Path(files[0]).stem
    return LoraDir(name, Path(to).expanduser().resolve() if to else workspace.compared / name, owned=True)


def run_step(module: ModuleType, given_place: str | None, given: dict[str, Any]) -> Result:
    """Run one step on a LoRA or a folder, as its command does."""
    workspace = find_workspace(given["workspace"])
    place = target(workspace, given_place) if given_place else nowhere(workspace, given["loras"], given["to"])
    given = given if given_place else {**given, "to": str(place.root)}
    header = header_values(given)
    # a setting named like an option of the header (generate's `base`) is told by that option
    told = {k: v for k in module.Settings.model_fields if (v := {**given, **header}.get(k)) not in (None, ())}
    told = {k: as_told(module.Settings.model_fields[k], k, v) for k, v in told.items()}
    recipe = settings.effective(workspace, place, {**header, **({step.name_of(module): told} if told else {})})
    work = Work(workspace, place, recipe, place.owned or given["apply"])
    if not given_place:  # nothing of the workspace changes, so nothing is recorded
        values = step.settings_of(module, recipe)
        raise_all(module.check(work, values))
        done: Result = module.run(work, values)
        return done
    with ExitStack() as pages:
        if place.owned:
            pages.callback(write_index, workspace)  # also of a step that fails
        # what is named is done, also where `undo` took it back
        named = any(given.get(key) for key, field in module.Settings.model_fields.items() if positional(field))
        result = in_lock(module, work, step.settings_of(module, recipe), given["force"] or named)
        if place.owned and not result.skipped:
            refresh(work)
    if place.owned and (options := to_keep(module, work, told, header)):
        line = shlex.join(["lora", "make", place.name, *options])
        click.echo(f"this once; to keep it: {line}", err=True)
    return result


def to_keep(module: ModuleType, work: Work, told: dict[str, Any], header: dict[str, Any]) -> list[str]:
    """The options of `lora make` that keep what was told here and what it would do otherwise; none if it would not."""
    kept = settings.effective(work.workspace, work.place)
    ours, its = step.settings_of(module, work.recipe), step.settings_of(module, kept)
    stands = getattr(module, "stands", None)
    if stands and stands(ours.model_dump(mode="json"), its):
        return []
    name, fields = step.name_of(module), module.Settings.model_fields
    keys = [k for k in told if getattr(ours, k) != getattr(its, k) and not step.is_neutral(fields[k])]
    keys = [k for k in keys if not positional(fields[k])]  # what it was about, not how
    if any(is_once(fields[k]) for k in keys):
        return []
    was = kept.header.model_dump(by_alias=True)
    first = [f"--{k}={v}" for k, v in header.items() if k not in fields and v != was[k]]
    return [*first, *(word for k in keys for word in ("--set", f"{name}.{k}={toml(told[k])}"))]


def positional(field: FieldInfo) -> str:
    """What stands behind the name instead of an option, `{"positional": "[SAVE ...]"}`; else nothing."""
    extra = field.json_schema_extra
    return str(extra.get("positional", "")) if isinstance(extra, dict) else ""


def is_once(field: FieldInfo) -> bool:
    """True if this setting, `{"once": True}`, is for the command line only."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("once"))


def toml(value: Any) -> str:
    """A value as TOML writes it, in one line."""
    if not isinstance(value, dict):
        return str(tomlkit.item(value).as_string())
    table = tomlkit.inline_table()
    table.update(value)
    return str(table.as_string())


def as_told(field: FieldInfo, key: str, value: Any) -> Any:
    """What an option means as a recipe would say it: a repeated one is a list, a table is TOML."""
    if typing.get_origin(field.annotation) is dict:
        try:
            return tomllib.loads(f"x = {value if value.startswith('{') else f'{{{value}}}'}")["x"]
        except tomllib.TOMLDecodeError as error:
            fix = f'as in --{key.replace("_", "-")} \'light = ["soft lighting", "studio lighting"]\''
            raise SettingsError(f"--{key} {value}: not words by name; {fix}") from error
    return list(value) if isinstance(value, tuple) else value


def in_lock(module: ModuleType, work: Work, values: StepSettings, force: bool) -> Result:
    for problem in module.check(work, values):
        if not problem.fatal:
            click.echo(f"note: {problem}", err=True)
    if not work.place.owned:
        click.echo(f"recorded in {work.workspace.record}", err=True)
    work.workspace.root.mkdir(parents=True, exist_ok=True)
    with Store(work.workspace.record) as store:
        if not work.apply:
            return step.perform(module, work, values, store, force=force)
        with step.locked(work.place):
            store.interrupt(work.place.recorded)
            for line in past.see_hand(work.set, work.place.recorded, store):
                click.echo(line, err=True)
            return step.perform(module, work, values, store, force=force)


def shown(result: Result) -> str:
    return "\n".join([*result.lines, result.summary])
