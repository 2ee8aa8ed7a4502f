"""The whole chain for one LoRA: what was asked is kept, everything is checked, the steps run, the pages are written."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from lorafactory import chain, images, settings, step, trigger
from lorafactory.errors import NoSavePasses, Problem, raise_all
from lorafactory.index import write_index
from lorafactory.intake import DEMO, Origin, find_origin, take_in, trigger_of
from lorafactory.mounts import refuse_network
from lorafactory.options import nested
from lorafactory.report import is_current, write_report
from lorafactory.step import Result, Work
from lorafactory.store import Store
from lorafactory.workspace import LoraDir, Workspace

NAMED = 10
"""Pictures set aside by a step that are named; `lora why NAME` names the others."""
OUT = re.compile(r": set aside, |, set aside$")
"""In a step's line about a picture that it set aside."""


def asked(space: Workspace, place: LoraDir, origin: Origin, told: dict[str, Any]) -> dict[str, Any]:
    """What goes into lora.toml: what was said, and on first sight the recipe of the demo and the trigger."""
    values = dict(told)
    if origin.how == "demo":
        values.setdefault("recipe", DEMO)
    if not settings.effective(space, place, nested(values)).header.trigger:
        values["trigger"] = trigger_of(origin.folder) or trigger.make_trigger(place.name)
    files = {key: as_file(values.get(key)) for key in ("base", "vae", "recipe")}
    return values | {key: str(path.resolve()) for key, path in files.items() if path}


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
        unpacked.callback(write_index, space)  # also of a job that fails
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
    refuse_network(space.record)  # before the first picture is copied
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
            if to is None and not (all(result.skipped for result in results.values()) and is_current(place)):
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
        text = f"no save of {work.place.name} passes the verdict; the best-ranked one is published, marked so"
        raise NoSavePasses(f"{text}\n    {verdict['verdict']['next']}")


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
    other = verdict.get("another")
    return "\n".join(
        [
            "",
            f"LoRA     {place.chosen}",
            *(line.replace("published ", "copy     ") for line in results["pick"].lines if line[:10] == "published "),
            f"trigger  {work.trigger}",
            f"save     {verdict['reason']}",
            f"report   {place.report.as_uri()}",
            *([f"another  {other}"] if other else []),
        ]
    )
