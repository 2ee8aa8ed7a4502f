"""How a training begins: anew, where one broke off, or from a LoRA that is there."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lorafactory.errors import FailedError, InputError, Problem, SettingsError
from lorafactory.step import Work
from lorafactory.steps._saves import Save, find_saves
from lorafactory.training import optimizers
from lorafactory.training.saves import Point
from lorafactory.training.settings import TrainSettings

if TYPE_CHECKING:
    from lorafactory.training.checkpoint import Keeper
    from lorafactory.training.precision import Decision
    from lorafactory.training.session import Start

S = TypeVar("S", bound=TrainSettings)
Row = tuple[int, float, float]
"""Step, loss, learning rate."""


@dataclass(frozen=True)
class From:
    """What a training goes on from, as state/plan.json keeps it."""

    file: str = ""
    """A LoRA file, within result_current/ if it is one of this LoRA's."""
    epoch: int = 0
    step: int = 0
    more: int = 0
    """Epochs to train beyond the last save; 0: those of the settings."""


@dataclass(frozen=True)
class Beginning:
    """Everything that is settled before a base is loaded."""

    keeper: Keeper
    decided: Decision
    threads: int
    resumed: bool
    source: From
    start: Start
    earlier: list[Row]
    """Steps before `start`, of the training that goes on with `--more`."""

    @property
    def after(self) -> Point:
        """Where the numbers of its saves go on from."""
        return Point(self.source.epoch, self.source.step)

    def settings(self, s: S) -> S:
        """The settings as they act here: a LoRA's own ranks, the epochs that are left, the optimizer that is meant."""
        from lorafactory.training import adapter

        told: dict[str, Any] = {}
        if self.source.more:  # however it was typed this time: as it began
            s = type(s).model_validate(self.keeper.plan["settings"])
            told = {"epochs": self.source.more, "max_steps": 0}
        if self.start.tensors is not None:
            told |= adapter.sizes_told(self.start.tensors)
            if s.network == "dylora" and told["network"] == "lora":
                del told["network"]  # its file is a plain LoRA
        told["optimizer"] = optimizers.chosen(s.optimizer, self.decided.device)
        return s.model_copy(update=told)


def state_of(work: Work) -> Path:
    return work.place.result / "state"


def log_of(work: Work) -> Path:
    return work.place.result / "log"


def identity(key: str, sees: Mapping[str, str]) -> str:
    """What two trainings share if one can go on where the other broke off: settings, base, pictures, captions."""
    return hashlib.sha256(json.dumps([key, dict(sees)], sort_keys=True).encode()).hexdigest()


def settle(work: Work, s: TrainSettings, same: str, threads: int) -> Beginning:
    """Decide how to begin; what was decided when a training began holds until it has ended."""
    import torch

    if plan := known(state_of(work), same):
        found = begin(work, s, plan, resumed=True)
    else:
        found = begin(work, s, anew(work, s, same, threads), resumed=False)
    if found.decided.device == "cuda" and not torch.cuda.is_available():
        raise FailedError(
            f"{work.place.name} was begun on a card that torch cannot use now; with it, the same line goes on.\n"
            f"    to begin anew on the CPU: delete {state_of(work)}"
        )
    return found


def ended(work: Work, s: TrainSettings, same: str) -> Beginning | None:
    """How this training began if all of it is there, though the record does not know; more of it is not meant."""
    if s.more or not work.cut_off or known(state_of(work), same) or not read_losses(work):
        return None
    plan = known(log_of(work), same)
    return begin(work, s, plan, resumed=True) if plan else None


def known(folder: Path, same: str) -> dict[str, Any]:
    """The plan in a folder, if it is that of a training with this identity; else empty."""
    from lorafactory.training import checkpoint

    plan = checkpoint.read_plan(folder)
    return plan if same in plan.get("identities", ()) else {}


def anew(work: Work, s: TrainSettings, same: str, threads: int) -> dict[str, Any]:
    """Decide all that state/plan.json holds."""
    from lorafactory.training import checkpoint, memory, precision

    base, source, goes_on_from = work.models.base, From(s.from_lora), []
    assert base is not None
    if s.more:
        last = last_save(work)
        source = From(last.path.name, last.epoch, last.step, s.more)
        goes_on_from = checkpoint.read_plan(log_of(work)).get("identities", [])
        shutil.rmtree(state_of(work), ignore_errors=True)  # of a training with other inputs that was given up
    decided = precision.decide(base, s, device="cpu" if s.cpu else None)
    # many threads get in each other's way where there is little to do
    if decided.device == "cpu" and "OMP_NUM_THREADS" not in os.environ and memory.parameters(base) < memory.REAL:
        threads = 1
    return {
        "identities": [same, *goes_on_from],
        "settings": s.model_dump(mode="json"),
        "threads": threads,
        "precision": asdict(decided),
        "from": asdict(source),
    }


def begin(work: Work, s: TrainSettings, plan: dict[str, Any], *, resumed: bool) -> Beginning:
    from lorafactory.training.checkpoint import Keeper
    from lorafactory.training.precision import Decision

    source = From(**plan["from"])
    return Beginning(
        keeper=Keeper(state_of(work), minutes=s.checkpoint_minutes, steps=s.checkpoint_steps, plan=plan),
        decided=Decision(**plan["precision"]),
        threads=int(plan["threads"]),
        resumed=resumed,
        source=source,
        start=_start(work, source),
        earlier=[row for row in read_losses(work) if row[0] <= source.step] if source.more else [],
    )


def _start(work: Work, source: From) -> Start:
    from lorafactory.training import lora_file
    from lorafactory.training.session import Start

    if not source.file:
        return Start()
    path = work.place.result / source.file if source.more else Path(source.file).expanduser()
    return Start(lora_file.read(path)[0], source.epoch, source.step)


def last_save(work: Work) -> Save:
    """The newest save of the current training; InputError if there is none."""
    saves = [save for save in find_saves(work) if not save.average]
    if not saves:
        raise InputError(f"no save to go on from in {work.place.result}: first `lora train {work.place.name}`")
    return saves[-1]


def read_losses(work: Work) -> list[Row]:
    """The steps that log/loss.csv tells of."""
    path = log_of(work) / "loss.csv"
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [(int(row["step"]), float(row["loss"]), float(row["lr"])) for row in csv.DictReader(file)]


def check(work: Work, s: TrainSettings) -> list[Problem]:
    """What is wrong with `--more` and `--from-lora`."""
    problems = []
    if s.more and work.recipe.origins.get("train.more") != "command line":
        text = "train.more would train more each time; it is for the command line"
        problems.append(Problem(text, f"lora train {work.place.name} --more {s.more}", error=SettingsError))
    if s.more and s.from_lora:
        text = "--more goes on from the last save and --from-lora from another file: give one of them"
        problems.append(Problem(text, error=SettingsError))
    elif s.more and not find_saves(work):
        text = f"no save to go on from in {work.place.result}"
        problems.append(Problem(text, f"lora train {work.place.name}"))
    if s.from_lora and not Path(s.from_lora).expanduser().is_file():
        problems.append(Problem(f"train.from_lora = {s.from_lora}: no such file", "give a LoRA's .safetensors file"))
    return problems
