"""What would spoil a night, each with what to do about it: disk, drives, driver, sleep, other programs, the queue.

Nothing is changed, and no model is loaded. `note` is worth a look; `problem` needs somebody, and ends with 3.

\b
For example:
  lora doctor
  lora doctor --json
"""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

import lorafactory
from lorafactory import chain, index, mounts, settings
from lorafactory.daemon.awake import NOT_KEPT, awake
from lorafactory.daemon.limits import limits
from lorafactory.daemon.queue import Queue
from lorafactory.daemon.watch import is_watched
from lorafactory.errors import DONE, NEEDS_YOU, LoraError
from lorafactory.files import size
from lorafactory.intake import Origin
from lorafactory.making import asked
from lorafactory.options import json_option, nested, workspace_option
from lorafactory.recording import now
from lorafactory.setcheck import Verdict, count, some
from lorafactory.setcheck.table import COLOURS, WIDTH
from lorafactory.step import Work
from lorafactory.store import Store
from lorafactory.training.card import nvidia_smi, others
from lorafactory.workspace import Workspace, find_workspace

ASK_TORCH = "import torch; print(torch.__version__, torch.version.cuda or 'without CUDA', torch.cuda.is_available())"
PATIENCE = 120.0
"""Seconds in which torch, or a tool of the system, must answer."""
USUAL = 1e9
"""Bytes taken for a LoRA where none was made yet."""
FREE = ("cuda-", "nvidia-", "triton")
"""Packages that a torch for another CUDA brings in its own releases."""
SLEEP = {
    "linux": ("gsettings", "get", "org.gnome.settings-daemon.plugins.power", "sleep-inactive-ac-type"),
    "darwin": ("pmset", "-g"),
    "win32": ("powercfg", "/query", "SCHEME_CURRENT", "SUB_SLEEP", "STANDBYIDLE"),
}
"""What tells whether the machine sleeps when nobody is at it."""
STAYS = {"linux": r"'nothing'", "darwin": r"^\s*sleep\s+0\b", "win32": r"AC [^:]*: 0x0+\s*$"}
"""How its answer says never."""


@dataclass(frozen=True)
class Row:
    """One finding. `problem`: a night goes wrong unless somebody acts."""

    what: str
    value: str
    fix: str = ""
    verdict: Verdict = "ok"


Check = Callable[[Workspace, Store | None], Iterator[Row]]


# ---------------------------------------------------------------- the workspace


def disk(space: Workspace, store: Store | None) -> Iterator[Row]:
    told, there = limits(space), next(p for p in (space.root, *space.root.parents) if p.exists())
    free, jobs = shutil.disk_usage(there).free / 1e9, queued(store)
    made = [n for p in space.loras.glob("*/") if space.lora(p.name).chosen.is_file() and (n := size(p))]
    each = statistics.median(made) if made else USUAL
    needed = told.free_gb + len(jobs) * each / 1e9
    value = f"{free:.1f} GB free; {count(len(jobs), 'queued LoRA')} and {told.free_gb:g} GB kept free need {needed:.1f}"
    fix = "lora status --disk    shows what may be deleted; watch.free_gb in lorafactory.toml is kept free"
    verdict: Verdict = "problem" if free < told.free_gb else "note" if free < needed else "ok"
    yield Row("disk", value, fix if verdict != "ok" else "", verdict)


def drives(space: Workspace, store: Store | None) -> Iterator[Row]:
    if not space.record.is_file():  # else opening it says so
        mounts.refuse_network(space.record)
    if mounts.remote(space.inbox.resolve()):
        yield Row("inbox", f"on a network drive: a drop is taken after {mounts.REMOTE_SETTLE:g} s without a change")
    else:
        yield Row("drives", "workspace and inbox are on disks of this machine")


def clock(space: Workspace, store: Store | None) -> Iterator[Row]:
    sql = "SELECT max(started_at) FROM run UNION SELECT max(ended_at) FROM run"
    last = max((at or "" for (at,) in store.select(sql)), default="") if store else ""
    if last > (here := now()):
        fix = "set the clock; until then jobs that wait for a time wait too long"
        yield Row("clock", f"it is {here}, and the record has runs of {last}", fix, "problem")
    else:
        yield Row("clock", f"{here}, later than all in the record")


def queued(store: Store | None) -> list[str]:
    return [job.lora for job in Queue(store).jobs() if job.state == "queued"] if store else []


def queue(space: Workspace, store: Store | None) -> Iterator[Row]:
    """What was left, what will not even begin, and what needed somebody before this night."""
    if store is None:
        return
    running = [job.lora for job in Queue(store).jobs() if job.state == "running"]
    places = {lora: space.lora(lora) for lora in running}
    if dead := [lora for lora, place in places.items() if not (place.lock.exists() and index.is_locked(place))]:
        fix = "nothing: lora watch and lora overnight go on with it"
        yield Row("left running", f"{some(dead)}: its worker is no more", fix, "note")
    for lora in queued(store):
        if wrong := in_the_way(space, lora):
            yield Row(lora, wrong, f"mend that; lora check {lora} tells more", "problem")
    for card in index.cards(space, store):
        if card.news in index.NEEDS:
            yield Row(card.name, f"{card.news}: {card.reason}", f"mend that, then: {card.next}", "problem")


def in_the_way(space: Workspace, lora: str) -> str:
    """What ends a job before it begins, in words: a base or model that is not there, a wrong setting."""
    place = space.lora(lora)
    try:
        values = nested(asked(space, place, Origin("there", place.source), {}))
        work = Work(space, place, settings.effective(space, place, values), incoming=place.source)
        _ = work.models
        return "\n".join(str(p) for p in chain.check(work, chain.links(work)) if p.fatal)
    except LoraError as error:
        return str(error)


# ---------------------------------------------------------------- the machine


def graphics(space: Workspace, store: Store | None) -> Iterator[Row]:
    cards = [row for row in nvidia_smi("--query-gpu=name,driver_version,memory.free,memory.total") if len(row) > 3]
    if not cards:
        yield Row("graphics card", "none that nvidia-smi knows: training runs on the processor", "", "note")
        return
    for *name, driver, free, total in cards:
        yield Row("graphics card", f"{','.join(name)}, driver {driver}, {free} of {total} MB free")
    told = answer(sys.executable, "-c", ASK_TORCH).strip()
    if not told.endswith("True"):
        fix = "a torch that fits the driver, from https://pytorch.org/get-started/locally, or a newer driver"
        yield Row("torch", f"{told or 'it does not answer'}: it cannot use the card", fix, "problem")
    else:
        yield Row("torch", f"{told.removesuffix(' True')}, uses the card")
    if (there := others()) and not is_watched(space):
        yield Row("other programs", there.strip(), "close them before the night", "note")


def sleep(space: Workspace, store: Store | None) -> Iterator[Row]:
    told = answer(*SLEEP[sys.platform]) if sys.platform in SLEEP else ""
    never = bool(told and re.search(STAYS[sys.platform], told, re.MULTILINE))
    with awake() as how:
        kept = not how.startswith(NOT_KEPT)
    setting = "never sleeps by itself" if never else "sleeps when nobody is at it" if told else "no settings to read"
    bad = bool(told) and not never and not kept
    fix = "turn sleep off in the system's power settings" if bad else ""
    yield Row("sleep", f"{setting}; {how}", fix, "problem" if bad else "ok")


def answer(*command: str) -> str:
    """What a program says; empty where it is not there, fails, or does not answer in time."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def packages(space: Workspace, store: Store | None) -> Iterator[Row]:
    lock = Path(lorafactory.__file__).parent.parent / "requirements.lock"
    if not lock.is_file():
        return
    tested: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;]+)", lock.read_text(encoding="utf-8"), re.MULTILINE):
        tested.setdefault(name, set()).add(version)
    here = {d.name.lower().replace("_", "-"): d.version.partition("+")[0] for d in metadata.distributions()}
    here = {name: here[name] for name in tested.keys() & here.keys() if not name.startswith(FREE)}
    other = sorted(f"{name} {version}" for name, version in here.items() if version not in tested[name])
    fix = "bin/lora --setup    makes them what requirements.lock says" if other else ""
    value = f"not as tested: {some(other, 8)}" if other else f"{count(len(here), 'package')} as tested"
    yield Row("packages", value, fix, "note" if other else "ok")


CHECKS: tuple[Check, ...] = (disk, drives, graphics, sleep, clock, packages, queue)


def doctor(space: Workspace) -> list[Row]:
    """All that was found, the worst first; a check that fails is itself a finding."""
    found: list[Row] = []
    store = None
    try:
        store = Store(space.record, readonly=True) if space.record.is_file() else None
    except LoraError as error:
        found.append(row_of("record", error))
    try:
        for check in CHECKS:
            try:
                found += check(space, store)
            except (LoraError, OSError) as error:
                found.append(row_of(check.__name__, error))
    finally:
        if store is not None:
            store.close()
    return sorted(found, key=lambda row: ("problem", "note", "ok").index(row.verdict))


def row_of(what: str, error: Exception) -> Row:
    told, _, fix = str(error).partition("\n")
    return Row(what, told, fix.strip() or "mend that, then: lora doctor", "problem")


def show(found: list[Row]) -> None:
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, ratio in (("", None), ("what", 3), ("found", 14), ("what to do", 10)):
        table.add_column(title, ratio=ratio, overflow="fold", no_wrap=title == "")
    for row in found:
        table.add_row(*map(Text, (row.verdict, row.what, row.value, row.fix)), style=COLOURS[row.verdict])
    console.print(table)


@click.command(help=__doc__)
@json_option
@workspace_option
@click.pass_context
def command(context: click.Context, as_json: bool, workspace: Path | None) -> None:
    space = find_workspace(workspace)
    found = doctor(space)
    stops, notes = (sum(row.verdict == verdict for row in found) for verdict in ("problem", "note"))
    if as_json:
        click.echo(json.dumps({"workspace": str(space.root), "findings": [asdict(row) for row in found]}))
    else:
        click.echo(f"workspace {space.root} ({space.how})")
        show(found)
        click.echo(f"{count(stops, 'problem')}, {count(notes, 'note')}" + ("" if stops else ": a night can begin"))
    context.exit(NEEDS_YOU if stops else DONE)
