"""Write a set in the form of another tool: kohya, civitai, huggingface, onetrainer or sdscripts.

The set itself stays as it is. `lora make NAME --from EXPORT` brings an export in again, with the same pictures and
captions.

\b
For example:
  lora export anna                        into ./anna-kohya
  lora export anna --format civitai       into ./anna-civitai.zip
  lora export ./set --format sdscripts --to D:/train/set
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import click

from lorafactory import crops, exports, settings, step, steps
from lorafactory.errors import InputError
from lorafactory.exports import Bundle
from lorafactory.options import json_option, shown, workspace_option
from lorafactory.step import Result, Work
from lorafactory.workspace import find_workspace, target

PACKED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
"""How a file is called that holds others: only of a form that writes it."""


def export(work: Work, form: str, to: Path | None) -> Result:
    """Write the set as `form`, whole or not at all; InputError if there is nothing to write, or something is there."""
    kind = exports.get(form)
    final = free_place(work, form, kind.SUFFIX, to)
    subsets = [s for s in work.set.subsets if s.pictures]
    if not any(not s.reg for s in subsets):
        raise InputError(f"{work.place.images}: no pictures to export; lora make {work.place.name} --from FOLDER")
    resolution = step.settings_of(steps.get("train"), work.recipe).resolution
    bundle = Bundle(work.place.name, subsets, resolution)
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=final.parent) as part:
        made = Path(part) / ("export" + kind.SUFFIX)
        lost = kind.write(bundle, made, final)
        if final.is_dir():
            final.rmdir()  # an empty folder that was made for it
        shutil.move(made, final)
    pictures = [p for s in subsets if not (lost and s.reg) for p in s.pictures]
    lines = [f"not in it: {line}" for line in [*lost, *unwritten(work)]]
    data = {"to": str(final), "format": form, "pictures": len(pictures), "left_out": lines}
    captions = sum(p.caption_path.is_file() for p in pictures)
    return Result(f"export: {len(pictures)} pictures, {captions} captions in {final}", data, lines)


def free_place(work: Work, form: str, suffix: str, to: Path | None) -> Path:
    """Where the export goes, with the form's suffix; InputError if it cannot go there."""
    final = (to.expanduser() if to else Path(f"{work.place.name}-{form}{suffix}")).absolute()
    ending = final.suffix.lower()
    if ending in PACKED and ending != suffix:
        line = f"--to {final.with_suffix(suffix)}"
        raise InputError(f"{final}: {form} is a {suffix or 'folder'}, not a {ending}.\n    {line}")
    if suffix and ending != suffix:
        final = final.with_name(final.name + suffix)
    root = work.place.root.resolve()
    if final.resolve().is_relative_to(root):
        outside = work.workspace.root if work.place.owned else root.parent
        line = f"--to {outside / f'{work.place.name}-{form}{suffix}'}"
        raise InputError(f"{final} lies inside {root}, and would become part of it.\n    {line}")
    if final.exists() and (final.is_file() or any(final.iterdir())):
        raise InputError(f"{final} is there already: move it away, or name another place with --to")
    return final


def unwritten(work: Work) -> list[str]:
    """What a set has beside pictures and captions, and no form takes."""
    masks = work.place.root / "masks"
    count, cut = len(list(masks.glob("*.png"))), work.set.crops
    told = [f"{count} masks, which are in {masks}"] if count else []
    return [*told, *([f"{len(cut)} crops, which are in {work.place.root / crops.NAME}"] if cut else [])]


@click.command(help=__doc__)
@click.argument("place", metavar="NAME_OR_FOLDER")
@click.option("--format", "form", default="kohya", show_default=True, help=f"One of {', '.join(exports.names())}.")
@click.option("--to", type=click.Path(path_type=Path), help="The folder or zip to write. [default: ./NAME-FORMAT]")
@json_option
@workspace_option
def command(place: str, form: str, to: Path | None, as_json: bool, workspace: Path | None) -> None:
    space = find_workspace(workspace)
    found = target(space, place)
    work = Work(space, found, settings.effective(space, found))
    with step.locked(found):  # so that nothing moves while it is copied
        result = export(work, form, to)
    click.echo(json.dumps(dict(result.data)) if as_json else shown(result))
