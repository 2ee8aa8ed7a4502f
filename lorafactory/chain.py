"""The chain: the steps in order, all checks before any work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType

from lorafactory import past, step, steps
from lorafactory.errors import Problem, SettingsError
from lorafactory.step import Result, StepSettings, Work
from lorafactory.store import Store

CHAIN = ("generate", "rename", "dedupe", "filter", "caption", "repeats", "train", "compare", "pick")


@dataclass(frozen=True)
class Link:
    """One step of the chain with its settings."""

    module: ModuleType
    settings: StepSettings

    @property
    def name(self) -> str:
        return step.name_of(self.module)


def links(work: Work, to: str | None = None) -> list[Link]:
    """The steps that will run, up to and including `to`; SettingsError lists every wrong setting of every step."""
    if to and to not in CHAIN:
        raise SettingsError(f"--to {to}: the chain has {', '.join(CHAIN)}")
    names = CHAIN[: CHAIN.index(to) + 1] if to else CHAIN
    found, wrong = [], []
    for name in names:
        if name == "generate" and not work.recipe.table(name):
            continue
        module = steps.get(name)
        try:
            found.append(Link(module, step.settings_of(module, work.recipe)))
        except SettingsError as error:
            wrong.append(str(error))
    if wrong:
        raise SettingsError("\n".join(wrong))
    return found


def check(work: Work, chain: list[Link]) -> list[Problem]:
    """What every step finds wrong or risky, each thing once, without a model and without writing."""
    return list(dict.fromkeys(p for link in chain for p in link.module.check(work, link.settings)))


def run(
    work: Work, chain: list[Link], store: Store, *, force: bool = False, say: Callable[[Result], None]
) -> dict[str, Result]:
    """Run the chain; the caller has checked and holds the lock. Each step's result is said as it ends."""
    store.interrupt(work.place.recorded)
    for line in past.see_hand(work.set, work.place.recorded, store):
        say(Result(line))
    results = perform(work, chain, store, force=force, say=say)
    last = chain[-1]
    if last.name == "pick" and (more := last.module.asks_more(work, last.settings)):
        asked_by = store.last(work.place.recorded, "pick")
        epochs = f"{more} epoch{'s' if more > 1 else ''}"
        say(Result(f"undertrained: {epochs} more, this once, as pick.if_undertrained asks"))
        results |= perform(*longer(work, chain, more), store, say=say, parent=asked_by.id if asked_by else None)
    return results


def perform(
    work: Work,
    chain: list[Link],
    store: Store,
    *,
    force: bool = False,
    say: Callable[[Result], None],
    parent: int | None = None,
) -> dict[str, Result]:
    """Do one step after the other, each only if it is not up to date; `parent` is the run that asked for these."""
    results = {}
    for link in chain:
        fresh = replace(work)  # reads the set anew: the step before may have changed it
        plan_line = getattr(link.module, "plan_line", None)
        if plan_line and (force or not step.is_done(link.module, fresh, link.settings, store)):
            say(Result(plan_line(fresh, link.settings)))
        results[link.name] = step.perform(link.module, fresh, link.settings, store, force=force, parent=parent)
        say(results[link.name])
    return results


def longer(work: Work, chain: list[Link], epochs: int) -> tuple[Work, list[Link]]:
    """The chain from the training on, with so many epochs more, as `lora train --more` would be told."""
    links = chain[[link.name for link in chain].index("train") :]
    links[0] = replace(links[0], settings=links[0].settings.model_copy(update={"more": epochs}))
    origins = work.recipe.origins | {"train.more": "command line"}
    return replace(work, recipe=replace(work.recipe, origins=origins)), links
