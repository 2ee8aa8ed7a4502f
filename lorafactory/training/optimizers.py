"""Optimizers and learning-rate schedules by name; a new optimizer is one entry of OPTIMIZERS."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import io
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
    adaptive: bool = False
    """It finds the learning rate by itself, and multiplies it by the one that is set: 1."""
    state: float = 8.0
    """Bytes that it keeps for each trained number."""
    about: str = ""

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]

    def load(self) -> type[torch.optim.Optimizer]:
        try:
            return cast("type[torch.optim.Optimizer]", getattr(importlib.import_module(self.module), self.name))
        except ImportError as error:
            need = f"Optimizer {self.name} needs the package {self.package}: pip install {self.package}"
            raise SettingsError(need) from error
        except AttributeError as error:
            raise SettingsError(f"There is no {self.name} in {self.module}, for an optimizer.") from error


def _dadaptation(name: str, state: float, module: str = "dadaptation") -> Entry:
    bounded = "; growth_rate = 1.02 keeps it from going too far at first" if "Adam" in name else ""
    return Entry(module, name, {}, adaptive=True, state=state, about=f"finds the rate (arXiv 2301.07733){bounded}")


OPTIMIZERS = {
    # fused: one kernel for all the small matrices of an adapter, on a CPU too
    "adamw": Entry("torch.optim", "AdamW", {"fused": True}, about="the usual one"),
    "adamw8bit": Entry("bitsandbytes.optim", "AdamW8bit", state=2.0, about="with a quarter of its memory"),
    "lion": Entry("lion_pytorch", "Lion", state=4.0, about="by signs (arXiv 2302.06675): a third of AdamW's rate"),
    "lion8bit": Entry("bitsandbytes.optim", "Lion8bit", state=1.0, about="with a quarter of its memory"),
    # with these it keeps to the learning rate it is given, as every trainer's presets set it
    "adafactor": Entry(
        "transformers.optimization",
        "Adafactor",
        {"scale_parameter": False, "relative_step": False, "warmup_init": False},
        state=0.1,
        about="almost no memory (arXiv 1804.04235)",
    ),
    "prodigy": Entry(
        "prodigyopt",
        "Prodigy",
        {"safeguard_warmup": True, "use_bias_correction": True},
        adaptive=True,
        state=16.0,
        about="finds the rate, in some 100 steps; in 20 with use_bias_correction = false (arXiv 2306.06101)",
    ),
    # sd-scripts' names; its `DAdaptation` is the preprint's Adam
    "dadaptation": _dadaptation("DAdaptAdamPreprint", 12.0, "dadaptation.experimental"),
    "dadaptadam": _dadaptation("DAdaptAdam", 12.0),
    "dadaptadampreprint": _dadaptation("DAdaptAdamPreprint", 12.0, "dadaptation.experimental"),
    "dadaptadagrad": _dadaptation("DAdaptAdaGrad", 12.0),
    "dadaptadan": _dadaptation("DAdaptAdan", 20.0),
    "dadaptadanip": _dadaptation("DAdaptAdanIP", 20.0, "dadaptation.experimental"),
    "dadaptlion": _dadaptation("DAdaptLion", 8.0),
    "dadaptsgd": _dadaptation("DAdaptSGD", 12.0),
}
SCHEDULERS = ("constant", "linear", "cosine", "cosine_with_restarts", "polynomial")
OURS = ("self", "params", "lr")
"""Arguments that are not for `optimizer_args` to give."""


AUTO = "auto"
ENOUGH = 300
"""Steps with which an optimizer that finds its rate has some left for learning; measured on the pocket base."""


def entry(name: str) -> Entry:
    """An optimizer by its name, in any case, or any class as `module.Class`."""
    if name.lower() in OPTIMIZERS:
        return OPTIMIZERS[name.lower()]
    module, _, own = name.rpartition(".")
    if module:
        return Entry(module, own)
    known = ", ".join(sorted((AUTO, *OPTIMIZERS)))
    raise SettingsError(f"There is no optimizer {name!r}. Known: {known}; and any module.Class.")


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
    name = "adamw" if name == AUTO else name  # both take the same but for what only one of them has
    try:
        found = entry(name)
        if not args and found in OPTIMIZERS.values() and importlib.util.find_spec(found.package):
            return problems  # what it takes is not worth an import of torch
        made = found.load()
    except SettingsError as error:
        return [*problems, str(error)]
    if not (isinstance(made, type) and callable(getattr(made, "step", None))):
        return [*problems, f"{name} is no optimizer: it has no steps."]
    accepted = [p for p in inspect.signature(made).parameters if p not in OURS]
    unknown = [key for key in args if key not in accepted]
    if unknown:
        problems.append(f"Optimizer {name} does not take {', '.join(unknown)}. It takes: {', '.join(accepted)}.")
    return problems


def is_adaptive(name: str) -> bool:
    """True if it finds the learning rate by itself."""
    return name.lower() in OPTIMIZERS and OPTIMIZERS[name.lower()].adaptive


def check_rates(s: TrainSettings) -> list[str]:
    """An optimizer that finds the rate finds one for all: it refuses others beside it, in its first step."""
    rates = set(s.rates(("unet", "text_encoder", "text_encoder_2")).values())
    blocks = s.down_lr_weight or s.mid_lr_weight or s.up_lr_weight
    if s.optimizer.lower() == "dadaptsgd" and s.warmup:
        return [f"Optimizer {s.optimizer} cannot begin with a learning rate of 0: warmup = 0."]
    if not is_adaptive(s.optimizer) or (len(rates) == 1 and not blocks):
        return []
    which = "one rate for all blocks (no *_lr_weight)" if blocks else f"text_encoder_lr = 0, or {s.lr} as lr is"
    return [f"Optimizer {s.optimizer} finds one learning rate for all that is trained: {which}."]


def remarks(s: TrainSettings) -> list[str]:
    """What is likely a mistake in an optimizer's learning rate."""
    if is_adaptive(s.optimizer) and not 0.1 <= s.lr <= 10:
        return [f"lr = {s.lr:g}: {s.optimizer} finds the learning rate by itself and multiplies it by this; 1 is meant"]
    if not is_adaptive(s.optimizer) and s.lr >= 0.1:
        return [f"lr = {s.lr:g} is for optimizers that find their own; with {s.optimizer} 1e-4 is usual"]
    return []


def table() -> str:
    """The optimizers as a Markdown table, for the README."""
    rows = [f"| `{name}` | `{e.module}.{e.name}` | {e.state:g} | {e.about} |" for name, e in OPTIMIZERS.items()]
    return "\n".join(["| optimizer | class | bytes per trained number | |", "| --- | --- | --- | --- |", *rows]) + "\n"


def make(
    name: str, args: Mapping[str, Any], groups: Sequence[tuple[float, list[nn.Parameter]]]
) -> torch.optim.Optimizer:
    """Build the optimizer over (learning rate, parameters) groups."""
    found = entry(name)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # some tell there what they were told
            return found.load()(
                [{"params": parameters, "lr": lr} for lr, parameters in groups], **{**found.defaults, **args}
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
