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

import json
import re
import shutil
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from lorafactory import chain, dataset, images, settings, sidecars, step, trigger, unzip, workspace
from lorafactory.errors import InputError, NoSavePasses, Problem, raise_all
from lorafactory.files import whole, write_whole
from lorafactory.options import assignments, header_options, header_values, nested, workspace_option
from lorafactory.report import write_report
from lorafactory.step import Result, Work
from lorafactory.store import Store
from lorafactory.workspace import LoraDir, Workspace, find_workspace

DEMO = "demo"
NAMED = 10
"""Pictures set aside by a step that are named; `lora why NAME` names the others."""
OUT = re.compile(r": set aside, |, set aside$")
"""In a step's line about a picture that it set aside."""
COMPANIONS = (".txt", ".caption", ".json")
"""What belongs to a picture and lies beside it: a caption, or how it was generated."""


@dataclass(frozen=True)
class Origin:
    """Where the pictures come from: `there` (go on), `drop`, `zip` (a drop too), `from` or `demo`."""

    how: str
    folder: Path
    packed: Path | None = None
    """The zip that `folder` was unpacked from."""


def find_origin(
    space: Workspace, place: LoraDir, given: Path | None, unpacked: ExitStack, *, draws: bool = False
) -> Origin:
    """loras/NAME, then inbox/NAME, then --from; InputError with the three ways if there is none.

    None is needed where the recipe `draws` its pictures. A zip is unpacked into a folder that is gone when `unpacked`
    is closed.
    """
    if given is not None:
        given = given.expanduser()
        packed = given if given.is_file() else None
        if not packed and not given.is_dir():
            raise InputError(f"--from {given}: no such folder or zip")
        folder = unpacked.enter_context(unzip.unpacked(packed)) if packed else given
        if not images.find_sources(folder):
            raise InputError(
                f"--from {given}: no picture in it (jpg, png, webp, ... are looked for, also in subfolders)"
            )
        return Origin("from", folder, packed)
    begun = place.images.is_dir() or bool(images.find_sources(place.source))
    if begun or (place.root.is_dir() and place.name != DEMO):
        return Origin("there", place.source)
    drop = space.inbox / place.name
    if not drop.is_dir() and (packed := space.inbox / f"{place.name}.zip").is_file():
        return replace(find_origin(space, place, packed, unpacked), how="zip")
    if drop.is_dir():
        if not images.find_sources(drop):
            raise InputError(f"{drop}: no picture in it")
        return Origin("drop", drop)
    if place.name == DEMO:
        return Origin("demo", place.source)
    if draws:
        return Origin("there", place.source)
    raise InputError(
        f"nothing to make {place.name} from. One of:\n"
        f"    lora make {place.name} --from FOLDER      a folder or zip of pictures; they are copied\n"
        f"    put the pictures into {drop}, or {drop}.zip\n"
        f"    put the pictures into {place.source}"
    )


def take_in(origin: Origin, place: LoraDir) -> int:
    """Bring the originals into source/; return how many are new. What is there already, by content, is left out."""
    place.source.mkdir(parents=True, exist_ok=True)
    if origin.how == "drop":
        shutil.move(str(origin.folder), str(place.source / "_drop"))
        for child in sorted((place.source / "_drop").iterdir()):
            child.replace(place.source / child.name)
        (place.source / "_drop").rmdir()
        return len(images.find_sources(place.source))
    if origin.how == "demo":
        return workspace.draw_demo(place.source)
    if origin.how not in ("from", "zip"):
        return 0
    new = copy_new(origin.folder, place)
    if origin.how == "zip" and origin.packed:
        shutil.move(str(origin.packed), str(free_path(place.source / origin.packed.name)))
    return new


def copy_new(folder: Path, place: LoraDir) -> int:
    """Copy the originals of a folder that source/ does not have, with what belongs to them; return how many."""
    have = {images.sha256(p) for p in images.find_sources(place.source)}
    new = [p for p in images.find_sources(folder) if images.sha256(p) not in have]
    for path in new:
        target = free_path(place.source / path.relative_to(folder))
        target.parent.mkdir(parents=True, exist_ok=True)
        for companion in (path, *(path.with_suffix(s) for s in COMPANIONS)):
            if companion.is_file():
                with whole(target.with_suffix(companion.suffix)) as part:
                    shutil.copyfile(companion, part)
        listed = sidecars.listed(path, folder)  # a text beside is what stays with a picture that gets another name
        if listed and not any(target.with_suffix(s).exists() for s in sidecars.CAPTIONS):
            write_whole(target.with_suffix(".txt"), (listed + "\n").encode())
    return len(new)


def free_path(path: Path) -> Path:
    """The path, or one with ~2, ~3 ... where another file, or what belongs to one, has it already."""
    number, found = 2, path
    while found.exists() or any(found.with_suffix(s).exists() for s in COMPANIONS):
        found = path.with_name(f"{path.stem}~{number}{path.suffix}")
        number += 1
    return found


def asked(space: Workspace, place: LoraDir, origin: Origin, told: dict[str, Any]) -> dict[str, Any]:
    """What goes into lora.toml: what was said, and on first sight the recipe of the demo and the trigger."""
    values = dict(told)
    if origin.how == "demo":
        values.setdefault("recipe", DEMO)
    if not settings.effective(space, place, nested(values)).header.trigger:
        values["trigger"] = trigger_of(origin.folder) or trigger.make_trigger(place.name)
    files = {key: as_file(values.get(key)) for key in ("base", "vae", "recipe")}
    return values | {key: str(path.resolve()) for key, path in files.items() if path}


def trigger_of(folder: Path) -> str:
    """The first word of a set's folder `12_4nna woman` if every caption in it has that word, else nothing.

    With no caption it may as well be `2_holidays`.
    """
    words, captions = set(), []
    for path in images.find_sources(folder):
        within = dataset.place_in_set(Path(folder.name) / path.relative_to(folder))
        if within is None or len(within.parts) > 1:  # loose, or for regularisation
            continue
        words |= {re.split(r"[\s,]", within.name.partition("_")[2].strip())[0]}
        with suppress(InputError):  # the import says so, with all else that is wrong
            captions.append(sidecars.caption_beside(path, folder))
    said = [text.lower() for text in captions if text]
    word = words.pop() if len(words) == 1 else ""
    alone = re.compile(rf"(?<!\w){re.escape(word.lower())}(?!\w)")
    return word if word and said and all(map(alone.search, said)) else ""


def as_file(value: object) -> Path | None:
    """The file or folder that a base, VAE or recipe names from here; kept whole, it means the same from elsewhere."""
    path = Path(str(value or "")).expanduser()
    marks = ("model_index.json", "config.json")  # of a whole base, and of a VAE alone
    there = path.is_file() if path.suffix in (".toml", ".safetensors") else any((path / m).is_file() for m in marks)
    return path if value and there else None


def make(
    space: Workspace, name: str, *, given: Path | None, told: dict[str, Any], to: str | None, force: bool
) -> dict[str, Result]:
    """Run the chain for one LoRA and publish what it chose. `told` is kept in lora.toml, by dotted keys."""
    with ExitStack() as unpacked:
        return make_from(space, space.lora(name), given=given, told=told, to=to, force=force, unpacked=unpacked)


def make_from(
    space: Workspace,
    place: LoraDir,
    *,
    given: Path | None,
    told: dict[str, Any],
    to: str | None,
    force: bool,
    unpacked: ExitStack,
) -> dict[str, Result]:
    """`make` with a place for what has to be unpacked until it is copied."""
    draws = bool(settings.effective(space, place, nested(told)).table("generate"))
    origin = find_origin(space, place, given, unpacked, draws=draws)
    values = asked(space, place, origin, told)
    work = Work(space, place, settings.effective(space, place, nested(values)), incoming=origin.folder)
    links = chain.links(work, to)
    problems = [*base_problem(work, links), *empty(work, origin, links), *chain.check(work, links)]
    for problem in problems:
        if not problem.fatal:
            click.echo(f"note: {problem}", err=True)
    raise_all(problems)
    click.echo(f"workspace {space.root} ({space.how})")
    with step.locked(place):
        for change in settings.write(place, values):
            click.echo(f"lora.toml {change}")
        if new := take_in(origin, place):
            click.echo(f"source: {new} new pictures")
        unpacked.close()
        work = replace(work, incoming=None)
        with Store(space.record) as store:
            results = chain.run(work, links, store, force=force, say=partial(say, name=place.name))
            if to is None:
                write_report(work, store)
    if to is None:
        conclude(work, results)
    else:
        click.echo(f"stopped after {to}, as asked; look at {place.root}, then: lora make {place.name}")
    return results


def say(result: Result, name: str) -> None:
    """A step's summary, and which pictures it set aside."""
    click.echo(result.summary)
    out = [line for line in result.lines if OUT.search(line)] if result.data.get("set_aside") else []
    for line in out[:NAMED]:
        click.echo(f"    {line}")
    if len(out) > NAMED:
        click.echo(f"    and {len(out) - NAMED} more: lora why {name}")


def conclude(work: Work, results: dict[str, Result]) -> None:
    """Say what came out; NoSavePasses if the verdict lets no save through."""
    verdict = json.loads((work.place.comparison / "verdict.json").read_text(encoding="utf-8"))
    click.echo(closing(work, results, verdict))
    if not verdict["passed"]:
        name = work.place.name
        raise NoSavePasses(f"no save of {name} passes the verdict; the best-ranked one is published, marked so")


def base_problem(work: Work, links: list[chain.Link]) -> list[Problem]:
    """A missing base matters only if a step needs one."""
    if any("base" in getattr(link.module, "MODELS", ()) for link in links):
        _ = work.models
    return []


def empty(work: Work, origin: Origin, links: list[chain.Link]) -> list[Problem]:
    """A LoRA's folder without a single picture, and nothing that would bring one."""
    if origin.how != "there" or links[0].name == "generate":
        return []
    if images.find_sources(work.place.source) or work.set.pictures:
        return []
    fix = f"put some in, or: lora make {work.place.name} --from FOLDER"
    return [Problem(f"{work.place.source}: no pictures there", fix)]


def closing(work: Work, results: dict[str, Result], verdict: dict[str, Any]) -> str:
    """The last lines: the file, the trigger, which save and why, the report, how to try another."""
    place = work.place
    if all(result.skipped for result in results.values()):
        return f"everything is up to date\n{place.chosen}   report: {place.report.as_uri()}"
    return "\n".join(
        [
            "",
            f"LoRA     {place.chosen}",
            f"trigger  {work.trigger}",
            f"save     {verdict['reason']}",
            f"report   {place.report.as_uri()}",
            f"another  lora pick {place.name} --{verdict.get('called_by', 'epoch')} N",
        ]
    )


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
