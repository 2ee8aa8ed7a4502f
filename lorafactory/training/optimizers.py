"""Optimizers and learning-rate schedules by name; a new optimizer is one entry of OPTIMIZERS."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from lorafactory.errors import SettingsError
from lorafactory.training.settings import TrainSettings

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Entry:
    """Where an optimizer comes from, and how it differs from its own defaults here."""

    module: str
    name: str
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]

    def load(self) -> type[torch.optim.Optimizer]:
        try:
            return cast("type[torch.optim.Optimizer]", getattr(importlib.import_module(self.module), self.name))
        except ImportError as error:
            need = f"Optimizer {self.name} needs the package {self.package}: pip install {self.package}"
            raise SettingsError(need) from error


OPTIMIZERS = {
    # fused: one kernel for all the small matrices of an adapter, on a CPU too
    "adamw": Entry("torch.optim", "AdamW", {"fused": True}),
    "adamw8bit": Entry("bitsandbytes.optim", "AdamW8bit"),
    "lion8bit": Entry("bitsandbytes.optim", "Lion8bit"),
    # with these it keeps to the learning rate it is given, as every trainer's presets set it
    "adafactor": Entry(
        "transformers.optimization",
        "Adafactor",
        {"scale_parameter": False, "relative_step": False, "warmup_init": False},
    ),
}
SCHEDULERS = ("constant", "linear", "cosine", "cosine_with_restarts", "polynomial")
OURS = ("self", "params", "lr")
"""Arguments that are not for `optimizer_args` to give."""


AUTO = "auto"


def chosen(name: str, device: str) -> str:
    """Which optimizer is meant on a device: with `auto` 8 bits on an NVIDIA card, where a quarter of memory counts."""
    if name != AUTO:
        return name
    return "adamw8bit" if device == "cuda" and importlib.util.find_spec("bitsandbytes") else "adamw"


def check(name: str, args: Mapping[str, Any], scheduler: str) -> list[str]:
    """Say everything that is wrong with an optimizer's name and arguments, before any model loads."""
    problems = []
    if scheduler not in SCHEDULERS:
        problems.append(f"There is no scheduler {scheduler!r}. Known: {', '.join(SCHEDULERS)}.")
    if name not in (AUTO, *OPTIMIZERS):
        return [*problems, f"There is no optimizer {name!r}. Known: {', '.join(sorted((AUTO, *OPTIMIZERS)))}."]
    name = "adamw" if name == AUTO else name  # both take the same but for what only one of them has
    if not args and importlib.util.find_spec(OPTIMIZERS[name].package):
        return problems  # what it takes is not worth an import of torch
    try:
        accepted = [p for p in inspect.signature(OPTIMIZERS[name].load()).parameters if p not in OURS]
    except SettingsError as error:
        return [*problems, str(error)]
    unknown = [key for key in args if key not in accepted]
    if unknown:
        problems.append(f"Optimizer {name} does not take {', '.join(unknown)}. It takes: {', '.join(accepted)}.")
    return problems


def make(
    name: str, args: Mapping[str, Any], groups: Sequence[tuple[float, list[nn.Parameter]]]
) -> torch.optim.Optimizer:
    """Build the optimizer over (learning rate, parameters) groups."""
    entry = OPTIMIZERS[name]
    try:
        return entry.load()(
            [{"params": parameters, "lr": lr} for lr, parameters in groups], **{**entry.defaults, **args}
        )
    except (TypeError, ValueError) as error:
        raise SettingsError(f"optimizer_args of {name}: {error}") from error


def schedule(
    optimizer: torch.optim.Optimizer, settings: TrainSettings, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Change the learning rate over `steps`, after a warm-up from 0."""
    if settings.scheduler == "polynomial":
        return _polynomial(optimizer, warmup_steps(settings.warmup, steps), steps, settings.power)
    from diffusers.optimization import get_scheduler

    kind = "constant_with_warmup" if settings.scheduler == "constant" else settings.scheduler
    made = get_scheduler(
        kind,
        optimizer,
        num_warmup_steps=warmup_steps(settings.warmup, steps),
        num_training_steps=steps,
        num_cycles=settings.cycles,
    )
    return cast("torch.optim.lr_scheduler.LRScheduler", made)


def _polynomial(
    optimizer: torch.optim.Optimizer, warmup: int, steps: int, power: float
) -> torch.optim.lr_scheduler.LRScheduler:
    """Fall to 0 as (1 - share of the steps) ^ power. diffusers' own goes by one rate for all groups."""
    from torch.optim.lr_scheduler import LambdaLR

    def factor(step: int) -> float:
        if step < warmup:
            return step / warmup
        return float(max(0.0, 1 - (step - warmup) / max(1, steps - warmup)) ** power)

    return LambdaLR(optimizer, factor)


def warmup_steps(warmup: float, steps: int) -> int:
    """Return a share of all steps below 1, else the number itself."""
    return round(warmup * steps) if warmup < 1 else int(warmup)
