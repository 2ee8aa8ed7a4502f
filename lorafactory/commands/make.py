"""Pictures in, chosen LoRA and a report out; does only what is not up to date.

\b
For example:
  lora make demo
  lora make anna --from photos --base ponyDiffusionV6XL --class woman
  lora make anna --from set.zip        a zip, or a folder that another tool made, with its captions and repeats
  lora make anna --to caption          stop to let you look; `lora make anna` goes on
  lora make anna --set train.epochs=8  kept in loras/anna/lora.toml
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lorafactory import chain
from lorafactory.making import make
from lorafactory.options import assignments, header_options, header_values, workspace_option
from lorafactory.workspace import find_workspace


@click.command(help=__doc__)
@click.argument("name")
@click.option(
    "--from", "given", type=click.Path(path_type=Path), help="Folder or zip of pictures to copy into source/."
)
@click.option("--to", help="Stop after this step: " + ", ".join(chain.CHAIN) + ".")
@click.option("--set", "pairs", multiple=True, metavar="TABLE.KEY=VALUE", help="A setting, kept in lora.toml.")
@click.option("--text", help='One caption for all pictures, as in "{trigger}, a photo"; BLIP is not needed then.')
@click.option(
    "--no-clip",
    is_flag=True,
    help="Go on without CLIP; the chain ends with the training.",
)
@click.option("--force", is_flag=True, help="Run every step again.")
@header_options
@workspace_option
def command(
    name: str,
    given: Path | None,
    to: str | None,
    pairs: tuple[str, ...],
    text: str | None,
    no_clip: bool,
    force: bool,
    **options: Any,
) -> None:
    space = find_workspace(options.pop("workspace"))
    told = header_values(options) | assignments(pairs)
    if text is not None:
        told["caption.text"] = text
    if no_clip:
        told |= dict.fromkeys(("dedupe.no_clip", "filter.no_clip", "caption.no_clip"), True)
        to = to or "train"
    make(space, name, given=given, told=told, to=to, force=force)
