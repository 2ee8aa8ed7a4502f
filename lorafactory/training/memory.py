"""Hold a training within the memory there is, one rung of a ladder at a time.

None of the first rungs changes what is learned but by rounding: the pictures of a step, their noise and the weight
of each stay the same, whatever is computed at once.
"""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from torch import nn

from lorafactory import families
from lorafactory.errors import BaseError, FailedError
from lorafactory.families import Base

T = TypeVar("T")
P = ParamSpec("P")
Ask = Callable[[Sequence[str]], str]
REAL = 100_000_000
"""Parameters from which a base is not a toy: SD 1.5's UNet has 860 million."""


@dataclass(frozen=True)
class Means:
    """How a training is held within the memory there is: kept in state/plan.json."""

    micro: int
    """Pictures that go through the model at once."""
    optimizer: str
    away: bool = False
    """The VAE, and text encoders that are not trained, are off the card."""
    checkpointing: bool = False
    """Activations of the UNet are computed again on the way back: less memory, a fifth to a third more time."""


def ladder(means: Means, *, begun: bool) -> Iterator[tuple[Means, str]]:
    """Ways to need less memory than now, the mildest first, and what each does."""
    if not means.away:
        yield dataclasses.replace(means, away=True), "what is not trained leaves the card"
    if not means.checkpointing:
        yield dataclasses.replace(means, checkpointing=True), "gradient checkpointing is on"
    if means.micro > 1:
        half = (means.micro + 1) // 2
        yield dataclasses.replace(means, micro=half), f"{half} pictures at once, accumulated to the same steps"
    if means.optimizer == "adamw" and not begun:
        yield dataclasses.replace(means, optimizer="adamw8bit"), "the optimizer keeps 8 bits"


class Room:
    """Does what may need too much memory, and makes room where it does."""

    def __init__(
        self,
        base: Base,
        means: Means,
        use: Callable[[Means], None],
        say: Callable[[str], None],
        *,
        ask: Ask | None = None,
    ) -> None:
        """`use` puts means to use, at once and whenever they change."""
        self.base, self.means, self.use, self.say, self.ask = base, means, use, say, ask
        self.begun = False
        """True once the optimizer has a past that another one would lose."""

    def fits(self, work: Callable[P, T], *args: P.args, **told: P.kwargs) -> T:
        """Do the work; where memory runs out, make room and do it again. FailedError where there is no more to make."""
        while True:
            with _no_memory() as ran_out:
                return work(*args, **told)
            # here, not in the handler: what has failed holds its memory until that ends
            if ran_out:
                self.make()

    def make(self) -> None:
        """Go down one rung."""
        if self.base.device.type == "cuda":
            torch.cuda.empty_cache()
        told = said(foreign(self.ask))
        rung = next(ladder(self.means, begun=self.begun), None)
        if rung is None:
            raise FailedError(
                f"Out of memory, with all done that saves it ({self.means}).{told}\n"
                "Close other programs on the card, or train with a smaller resolution or rank."
            )
        self.means, what = rung
        self.say(f"out of memory: from here on {what}.{told}")
        self.use(self.means)


@contextmanager
def _no_memory() -> Iterator[list[bool]]:
    ran_out: list[bool] = []
    try:
        yield ran_out
    except torch.OutOfMemoryError:
        ran_out.append(True)


def recomputes(base: Base) -> bool:
    """True if gradient checkpointing of the UNet is on."""
    return bool(base.parts["unet"].is_gradient_checkpointing)


def recompute(base: Base, *, on: bool) -> None:
    """Turn gradient checkpointing of the UNet on or off."""
    unet: Any = base.parts["unet"]
    if recomputes(base) != on:
        (unet.enable_gradient_checkpointing if on else unet.disable_gradient_checkpointing)()


def hold_to_free(device: torch.device, cuda: Any = torch.cuda) -> None:
    """On a card, take no more than is free now: Windows would lend main memory, and run twenty times slower."""
    if device.type != "cuda":
        return
    free, total = cuda.mem_get_info(device)
    cuda.set_per_process_memory_fraction(min(1.0, (free + cuda.memory_reserved(device)) / total), device)


def count(modules: Sequence[nn.Module]) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def is_real(base: Base) -> bool:
    """True unless it is a toy, which any machine trains at once."""
    return count(list(base.parts.values())) >= REAL


# ---------------------------------------------------------------- before anything is loaded


def nvidia_smi(query: Sequence[str]) -> str:
    """What nvidia-smi answers, empty where it does not."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    try:
        done = subprocess.run([tool, *query], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def foreign(ask: Ask | None = None) -> list[tuple[str, str]]:
    """Other programs on the card and their megabytes; Windows does not tell how many."""
    rows = (ask or nvidia_smi)(
        ["--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader,nounits"]
    ).splitlines()
    found = []
    for row in rows:
        pid, _, rest = row.partition(",")
        name, _, used = rest.rpartition(",")
        if pid.strip().isdigit() and int(pid) != os.getpid():
            program = name.strip().replace("\\", "/").rpartition("/")[2]
            found.append((program, used.strip()))
    return found


def said(programs: Sequence[tuple[str, str]]) -> str:
    """Name other programs in a sentence; nothing if there are none."""
    told = [f"{name} ({used} MB)" if used.isdigit() else name for name, used in programs]
    return f" Also on the card: {', '.join(told)}." if told else ""


def others(device: torch.device, ask: Ask | None = None) -> str:
    """Name what else uses the card, if the device is one."""
    return said(foreign(ask)) if device.type == "cuda" else ""


def parameters(path: Path) -> int:
    """How many numbers a base on disk has, by its headers alone."""
    return sum(math.prod(shape) for _, _, shape in families.weights(path))


def refuse_cpu(path: Path, ask: Ask | None = None) -> None:
    """Raise BaseError if a real base would be trained on the CPU while an NVIDIA card is there."""
    card = (ask or nvidia_smi)(["--query-gpu=name,driver_version", "--format=csv,noheader"]).strip().splitlines()
    if not card or parameters(path) < REAL:
        return
    name, _, driver = card[0].rpartition(",")
    wheel = "is built without CUDA" if torch.version.cuda is None else f"is built for CUDA {torch.version.cuda}"
    raise BaseError(
        f"{path.name} would be trained on the CPU, although this machine has {name.strip()}: its driver is "
        f"{driver.strip()}, and torch {torch.__version__} {wheel} and cannot use it.\n"
        "    take the torch that fits the driver from https://pytorch.org/get-started/locally, or renew the driver;\n"
        "    --cpu trains on the CPU all the same"
    )


def refuse_hours(seconds: float, steps: int) -> None:
    """Raise BaseError with how long it would take on the CPU."""
    raise BaseError(
        f"There is no card that torch can use. On this CPU a step takes {seconds:.1f} s, so {steps} steps about "
        f"{seconds * steps / 3600:.1f} hours.\n    --cpu trains all the same"
    )
