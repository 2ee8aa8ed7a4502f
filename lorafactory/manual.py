"""The README's generated parts: every command's help, every step's settings. `make docs` writes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import click

from lorafactory import families, networks, recipe, settings, step, steps
from lorafactory.chain import CHAIN
from lorafactory.cli import SECTIONS, lora
from lorafactory.options import show
from lorafactory.training import optimizers


def reference() -> str:
    """Every command's help, in the order of `lora --help`, as Markdown."""
    parts = []
    with lora.make_context("lora", [], resilient_parsing=True) as context:
        names = lora.list_commands(context)
        for title, section in SECTIONS.items():
            shown = [n for n in section if n in names]
            parts += [f"\n### {title.capitalize()}\n"] if shown else []
            parts += [block(context, name) for name in shown]
    return "\n".join(parts) + "\n"


def block(context: click.Context, name: str) -> str:
    """One command's help text; of a group, that of its commands too."""
    command = lora.get_command(context, name)
    assert command is not None
    inner = click.Context(command, info_name=name, parent=context, terminal_width=100, max_content_width=100)
    text = command.get_help(inner)
    return f"<details><summary><code>lora {name}</code></summary>\n\n```text\n{text}\n```\n\n</details>\n"


def tables() -> str:
    """Every step's settings with defaults and meaning, as Markdown tables."""
    parts = []
    for name in CHAIN:
        fields = steps.get(name).Settings.model_fields
        rows = [f"| `{key}` | {cell(show(f))} | {cell(f.description or '')} |" for key, f in fields.items()]
        parts.append("\n".join([f"\n**[{name}]**\n", "| key | default | meaning |", "| --- | --- | --- |", *rows]))
    return "\n".join(parts) + "\n\n"


def seeds() -> str:
    """The guides' recipes side by side, as a Markdown table; what differs for a family stands beside it."""
    head = ["recipe", "seed", "repeats", "epochs x batch", "rank/alpha", "optimizer", "rate", "text encoder", "also"]
    rows = [head, ["---"] * len(head)]
    for name in settings.recipe_names():
        guide = re.search(r"seed (\d{3})", settings.recipe_path(name).read_text(encoding="utf-8"))
        if guide:
            rows.append([f"`{name}`", guide[1], *(compared(name, column) for column in COLUMNS), also(name)])
    return "\n" + "\n".join(f"| {' | '.join(map(cell, row))} |" for row in rows) + "\n\n"


FAMILIES = {"": ("sd15",), "SDXL": ("sdxl",), "Pony": ("sdxl", "pony")}
"""Whose tables hold, by how a value of it is introduced; that of SD 1.5 is not."""
COLUMNS = (
    ("repeats.policy",),
    ("train.epochs", "train.batch"),
    ("train.rank", "train.alpha"),
    ("train.optimizer",),
    ("train.lr",),
    ("train.text_encoder_lr",),
)


def valued(name: str, tables: tuple[str, ...]) -> dict[str, Any]:
    """What a recipe sets of repeats and training, for bases of a family."""
    known = (steps.names(), [*families.names(), *settings.VARIANTS])
    layers = [recipe.read(settings.recipe_path(n), *known) for n in (settings.UNDERLYING, name)]
    found = recipe.combine(layers, tables)
    held = {key: step.settings_of(steps.get(key), found) for key in ("repeats", "train")}
    return {f"{key}.{field}": value for key, one in held.items() for field, value in one.model_dump().items()}


def compared(name: str, keys: tuple[str, ...]) -> str:
    """One value, or two with a sign between, for SD 1.5; and where they are others for SDXL and Pony, those."""
    told: dict[str, str] = {}
    for family, tables in FAMILIES.items():
        values = valued(name, tables)
        shown = " / ".join(show_value(values[key]) for key in keys)
        if shown not in told.values():
            told[family] = shown
    return "; ".join(f"{family} {shown}".strip() for family, shown in told.items())


def also(name: str) -> str:
    """What else a recipe sets of training, for a base of any family."""
    listed = {key for keys in COLUMNS for key in keys}
    told = [(valued(settings.UNDERLYING, tables), valued(name, tables)) for tables in FAMILIES.values()]
    others = dict.fromkeys(
        key for usual, own in told for key, value in own.items() if value != usual[key] and key not in listed
    )
    return ", ".join(f"`{key.removeprefix('train.')}` {compared(name, (key,))}" for key in others)


def show_value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {show_value(held)}" for key, held in value.items())
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def kinds() -> str:
    """Every adapter kind and optimizer, as Markdown tables."""
    rows = ["\n| network | | tensors of a layer in the file, beside alpha | dropouts |", "| --- | --- | --- | --- |"]
    for name in networks.names():
        kind = networks.get(name)
        about = (kind.__doc__ or "").partition("\n")[0]
        tensors, dropouts = (" ".join(f"`{x}`" for x in found) for found in (sorted(kind.TENSORS), kind.DROPOUTS))
        rows.append(f"| `{name}` | {cell(about)} | {tensors} | {dropouts or 'none'} |")
    return "\n".join(rows) + f"\n\n{optimizers.table()}\n"


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
