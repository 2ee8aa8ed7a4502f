"""Hold a training within the memory there is, one rung of a ladder at a time.

None of the first rungs changes what is learned but by rounding: the pictures of a step, their noise and the weight
of each stay the same, whatever is computed at once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch

from lorafactory import families
from lorafactory.errors import BaseError, OutOfMemory
from lorafactory.families import Base
from lorafactory.training import card

T = TypeVar("T")
P = ParamSpec("P")
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

    def __init__(self, base: Base, means: Means, use: Callable[[Means], None], say: Callable[[str], None]) -> None:
        """`use` puts means to use, at once and whenever they change."""
        self.base, self.means, self.use, self.say = base, means, use, say
        self.begun = False
        """True once the optimizer has a past that another one would lose."""

    def fits(self, work: Callable[P, T], *args: P.args, **told: P.kwargs) -> T:
        """Do the work; where memory runs out, make room and do it again. OutOfMemory where there is no more to make."""
        while True:
            with suppress(torch.OutOfMemoryError):
                return work(*args, **told)
            # here, not in the handler: what has failed holds its memory until that ends
            self.make()

    def make(self) -> None:
        """Go down one rung."""
        _empty(self.base)
        rung = next(ladder(self.means, begun=self.begun), None)
        if rung is None:
            raise OutOfMemory(
                f"Out of memory, with all done that saves it.{card.others()}\n"
                "Close other programs on the card, or train with a smaller resolution or rank."
            )
        self.means, what = rung
        self.say(f"out of memory: from here on {what}.{card.others()}")
        self.use(self.means)


def encoded(base: Base, work: Callable[[], T], say: Callable[[str], None]) -> T:
    """Do work that is the VAE's; where memory runs out, once more with nothing else on the card."""
    with suppress(torch.OutOfMemoryError):
        return work()
    # bitsandbytes' layers cannot leave
    parts = [part for part in base.parts.values() if all(p.is_floating_point() for p in part.parameters())]
    say(f"out of memory: pictures are encoded while the rest of the base is off the card.{card.others()}")
    try:
        for part in parts:
            part.to("cpu")
        _empty(base)
        with suppress(torch.OutOfMemoryError):
            return work()
        raise OutOfMemory(
            f"Out of memory while pictures are encoded, with the VAE alone on the card.{card.others()}\n"
            "Close other programs on it, or train with a smaller resolution."
        )
    finally:
        for part in parts:
            part.to(base.device)


def _empty(base: Base) -> None:
    if base.device.type == "cuda":
        torch.cuda.empty_cache()


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


def is_real(base: Base) -> bool:
    """True unless it is a toy, which any machine trains at once."""
    return sum(p.numel() for part in base.parts.values() for p in part.parameters()) >= REAL


# ---------------------------------------------------------------- before anything is loaded


def parameters(path: Path) -> int:
    """How many numbers a base on disk has, by its headers alone."""
    return sum(math.prod(shape) for _, _, shape in families.weights(path))


def refuse_cpu(path: Path) -> None:
    """Raise BaseError if an NVIDIA card is there that torch cannot use."""
    found = next((row for row in card.nvidia_smi("--query-gpu=name,driver_version") if len(row) > 1), None)
    if found is None:
        return
    name, driver = found[0], found[-1]
    wheel = "is built without CUDA" if torch.version.cuda is None else f"is built for CUDA {torch.version.cuda}"
    raise BaseError(
        f"{path.name} would be trained on the CPU, although this machine has {name}: its driver is "
        f"{driver}, and torch {torch.__version__} {wheel} and cannot use it.\n"
        "    take the torch that fits the driver from https://pytorch.org/get-started/locally, or renew the driver;\n"
        "    --cpu trains on the CPU all the same"
    )
