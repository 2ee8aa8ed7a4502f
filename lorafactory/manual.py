"""The README's generated parts: every command's help, every step's settings. `make docs` writes them."""

from __future__ import annotations

import click

from lorafactory import steps
from lorafactory.chain import CHAIN
from lorafactory.cli import SECTIONS, lora
from lorafactory.options import show


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


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
