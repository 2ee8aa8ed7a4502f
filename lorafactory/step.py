"""What every step shares: settings that are also options, the lock, up to date or run, the run row, one way to record.

A step is a module of `steps/` with:

    VERSION     an integer; raise it when the same input gives other output
    Settings    a subclass of StepSettings: the recipe's table, the command's options, its help, its README row
    check(work, settings) -> list[Problem]      no model, no writes; `make` runs every step's check first
    run(work, settings) -> Result               does the work; records through `work.note`

and, where they differ from the defaults below:

    MODELS      which of "base", "clip", "blip" change the output
    asks(settings) -> set[str]                  which of these are asked with such settings; all, or all but `no_clip`
    HEADER      which of "trigger", "kind", "class" change the output
    SHRINKS     True if pictures that left the set since change nothing
    ready(work, settings) -> None               raises what only the steps before can tell; asked right before `run`
    stands(last, settings) -> bool              a run with settings `last` is not undone by these
    keeps(work, settings) -> settings           with what an earlier run was told and still stands; not if forced
    adds(last) -> bool                          a run with settings `last` only adds to what the one before it did
    about(told) -> str                          what settings ask for beside what `make` does; only runs about it count
    sees(work, settings) -> dict[str, str]      what it reads, name to sha256; the set's images if absent
    outputs(work, settings) -> list[Path]       files without which the step has not happened
    AGAIN       what --force does after `undo`, in words

What `check` or `ready` refuse was never begun: it leaves no row, and the LoRA is what the last run made of it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from rich.console import Console
from rich.progress import track

from lorafactory import dataset, families, heartbeat, journal
from lorafactory.dataset import Picture, Set
from lorafactory.errors import PassingError, Problem, SettingsError, raise_all
from lorafactory.note import Note
from lorafactory.past import Past, remember, snapshot
from lorafactory.recipe import Recipe, say_invalid
from lorafactory.store import RunRow, Store, tidy
from lorafactory.workspace import (
    REAL_BLIP,
    REAL_CLIP,
    LoraDir,
    ModelSet,
    Workspace,
    base_identity,
    identity,
    model_set,
)

T = TypeVar("T")


class StepSettings(BaseModel):
    """Base of a step's settings. A field's docstring is its help; `{"neutral": True}`: no output depends on it."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)


@dataclass(frozen=True)
class Result:
    """What a step has to say: one line for people, and the same as data."""

    summary: str
    data: Mapping[str, Any] = field(default_factory=dict)
    lines: Sequence[str] = ()
    """Further lines, such as one per picture in a report."""
    skipped: bool = False
    """True if everything was up to date."""


@dataclass(frozen=True)
class Work:
    """What a step works on."""

    workspace: Workspace
    place: LoraDir
    recipe: Recipe
    apply: bool = True
    """False: report what would be moved or edited, and touch nothing."""
    note: Note = field(default_factory=lambda: Note(None))
    past: Past = field(default_factory=Past)
    incoming: Path | None = None
    """Folder whose pictures are about to come in; only checks meet it."""
    cut_off: bool = False
    """The step's latest run has no end in the record; it may have done all of its work."""

    @property
    def originals(self) -> Path:
        """The folder of the originals: the LoRA's source/, or where they are before they are copied there."""
        return self.incoming or self.place.source

    @property
    def set(self) -> Set:
        return dataset.read_set(self.place.root, self.place.images, self.recipe.header.trigger)

    @cached_property
    def models(self) -> ModelSet:
        head = self.recipe.header
        return model_set(self.workspace, head.base, vae=head.vae, prediction=head.prediction)

    @cached_property
    def judges(self) -> ModelSet:
        """Whose CLIP and BLIP are asked: those of the base, and where none is named the real ones."""
        return self.models if self.recipe.header.base else ModelSet(None, REAL_CLIP, REAL_BLIP)

    @property
    def trigger(self) -> str:
        """The token that calls the LoRA: of the recipe, else of a folder named `12_word`, else nothing."""
        if self.recipe.header.trigger or self.place.owned:
            return self.recipe.header.trigger
        named = (dataset.subset_of(s.folder) for s in self.set.subsets)
        return next((s.word for s in named if s), "")

    def aside(self, picture: Picture, reason: str, rule: str, **told: Any) -> None:
        """Record that a picture leaves the set and, unless this is only a report, move it to `set_aside/<reason>/`."""
        self.note(picture, "set aside" if self.apply else "would be set aside", rule, **told)
        if self.apply:
            dataset.set_aside(self.place.root, picture, reason)

    def track(self, items: Sequence[T], what: str) -> Iterable[T]:
        """Iterate with a progress bar on stderr, and signs of life."""
        console = Console(stderr=True)
        shown = track(items, what, console=console, transient=True, disable=not console.is_terminal)
        for done, item in enumerate(shown):
            heartbeat.beat(what, done, len(items))
            yield item


def settings_of(module: ModuleType, recipe: Recipe) -> Any:
    """The step's settings from the recipe; SettingsError lists every wrong one."""
    name = name_of(module)
    try:
        return module.Settings.model_validate(recipe.table(name))
    except ValidationError as error:
        problems = say_invalid(error, recipe.origins, name)
        raise SettingsError("\n".join(p.message for p in problems)) from error


def name_of(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


# ---------------------------------------------------------------- up to date, or run


def cache_key(module: ModuleType, work: Work, settings: StepSettings) -> str:
    """sha256 over the canonical JSON of everything but the inputs that changes the step's output."""
    fields = type(settings).model_fields
    values = {k: v for k, v in settings.model_dump(mode="json").items() if not is_neutral(fields[k])}
    models = {m: model_identity(work, m) for m in getattr(module, "MODELS", ())}
    if "base" in models and work.models.base is not None:
        models["base"] = base_identity(work.workspace, work.models)
    header = {"trigger": work.trigger, "kind": work.recipe.header.kind, "class": work.recipe.header.class_}
    header = {k: v for k, v in header.items() if k in getattr(module, "HEADER", ())}
    whole = [name_of(module), module.VERSION, values, models, header]
    return hashlib.sha256(json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def is_neutral(field: FieldInfo) -> bool:
    """True if no output depends on this setting."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("neutral"))


def model_identity(work: Work, kind: str) -> str:
    """The model's content, as far as it can be known without loading it."""
    model = getattr(work.models if kind == "base" else work.judges, kind)
    path = Path(str(model).removeprefix("folder:"))
    return identity(work.workspace, path) if path.exists() else str(model)


def sees(module: ModuleType, work: Work, settings: StepSettings) -> dict[str, str]:
    own = getattr(module, "sees", None)
    found: dict[str, str] = own(work, settings) if own else work.set.hashes()
    return {str(tidy(name)): sha for name, sha in found.items()}


def up_to_date(module: ModuleType, work: Work, settings: StepSettings, key: str, store: Store) -> bool:
    """True if the latest run had this key, left exactly what the step would read now, and its files are there.

    Only the latest counts: after A, B and A again the folder holds what B made. A run that `undo` took back stays so
    as long as the folder is as `undo` left it. Of a set that began anew since, only a run whose files are there counts.
    """
    rows = counting(module, work, settings, store)
    if not rows or rows[0].status != "done":
        return False
    outputs: Callable[[Work, StepSettings], list[Path]] | None = getattr(module, "outputs", None)
    files = outputs(work, settings) if outputs else []
    if rows[0].id < store.begun(work.place.recorded) and not files:
        return False
    stands = getattr(module, "stands", None)
    if key not in keys(module, rows) and not (stands and stands(rows[0].settings, settings)):
        return False
    taken_back = store.undone(work.place.recorded).get(rows[0].ulid)
    seen, now = store.edges(taken_back or rows[0].id, "in", "sees"), sees(module, work, settings)
    shrinks = getattr(module, "SHRINKS", False) and not taken_back
    if not (now.items() <= seen.items() if shrinks else now == seen):
        return False
    return bool(taken_back) or all(path.exists() for path in files)


def counting(module: ModuleType, work: Work, settings: StepSettings, store: Store) -> list[RunRow]:
    """The step's runs on this LoRA that were about the same as these settings are, newest first."""
    about = getattr(module, "about", lambda told: "")
    rows = store.runs(work.place.recorded, 1000, step=name_of(module))
    return [row for row in rows if about(row.settings) == about(settings.model_dump(mode="json"))]


def keys(module: ModuleType, rows: Sequence[RunRow]) -> list[str]:
    """The key of the latest run, and of the one that it added to, if it did."""
    found, adds = [], getattr(module, "adds", None)
    for row in rows:
        if row.status == "done":
            found.append(row.key)
            if not (adds and adds(row.settings)):
                break
    return found


def is_done(module: ModuleType, work: Work, settings: StepSettings, store: Store) -> bool:
    """True if the step has nothing to do."""
    return up_to_date(module, work, settings, cache_key(module, work, settings), store)


def is_taken_back(name: str, recorded: str, store: Store) -> bool:
    """True if `undo` took back the last run of the step that changed anything."""
    rows = (row for row in store.runs(recorded, limit=1000) if row.step == name and store.changes(row.id))
    last = next(rows, None)
    return last is not None and last.ulid in store.undone(recorded)


def perform(
    module: ModuleType,
    work: Work,
    settings: StepSettings,
    store: Store,
    *,
    force: bool = False,
    parent: int | None = None,
) -> Result:
    """Check, skip if up to date, else run with a row written before and completed after. The caller holds the lock."""
    raise_all(module.check(work, settings))
    refuse_revoked(work, store)
    key, name = cache_key(module, work, settings), name_of(module)
    heartbeat.beat(name)
    if not force and work.place.owned and up_to_date(module, work, settings, key, store):
        undone = is_taken_back(name, work.place.recorded, store)
        again = f"`lora {name} {work.place.name} --force` {getattr(module, 'AGAIN', 'runs it again')}"
        told = f"taken back by `undo`, and stays so; {again}" if undone else "up to date"
        return Result(f"{name}: {told}", skipped=True)
    if not force and (keeps := getattr(module, "keeps", None)):
        settings = keeps(work, settings)
        key = cache_key(module, work, settings)
    getattr(module, "ready", lambda *_: None)(work, settings)
    rows = counting(module, work, settings, store)
    cut_off = not force and bool(rows) and rows[0].status != "done"
    with store.run(
        work.place.recorded,
        name,
        version=module.VERSION,
        key=key,
        settings=settings.model_dump(mode="json"),
        parent=parent,
    ) as run:
        noted = replace(work, note=Note(run), past=remember(work.place.recorded, store, again=force), cut_off=cut_off)
        before = journal.look(noted.set)
        try:
            result: Result = module.run(noted, settings)
        finally:  # also of a step that fails: what it had moved by then was not moved by hand
            snapshot(noted.set, run)
            journal.record(before, journal.look(noted.set), run)
            families.park()
        for seen, sha in sees(module, noted, settings).items():
            run.used("sees", seen, sha)
        kinds = set(getattr(module, "MODELS", ())) - ({"clip"} if getattr(settings, "no_clip", False) else set())
        asks: Callable[[StepSettings], set[str]] | None = getattr(module, "asks", None)
        for kind in asks(settings) if asks else kinds:
            run.used("model", *model_seen(noted, kind))
    return result


def refuse_revoked(work: Work, store: Store) -> None:
    """InputError if a picture of the set is revoked: somebody put it back."""
    revoked = store.revoked()
    found = [p for s in work.set.subsets for p in s.pictures if revoked and dataset.hash_of(p.path) in revoked]
    raise_all(Problem(f"{p.path} is revoked: {revoked[p.sha256]}", "take it out of the set") for p in found)


def model_seen(work: Work, kind: str) -> tuple[str, str]:
    """A model's name without its folder, and its sha256, or that of its name where nothing else is known."""
    model = str(getattr(work.models if kind == "base" else work.judges, kind)).removeprefix("folder:")
    told = model_identity(work, kind)
    known = re.fullmatch("[0-9a-f]{64}", told)
    name = Path(model).name if Path(model).exists() else model
    return f"{kind} {name}", told if known else hashlib.sha256(told.encode()).hexdigest()


def locked(place: LoraDir) -> AbstractContextManager[Any]:
    """Take the lock that whatever changes a LoRA's folder holds; PassingError if somebody else has it.

    Who has it may take it again: the worker of the queue holds it around the whole job.
    """
    place.lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(place.lock, is_singleton=True).acquire(timeout=0)
    except Timeout as error:
        raise PassingError(
            f"another command is working on {place.name}; wait for it, then type the same again"
        ) from error
