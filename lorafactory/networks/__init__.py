"""Adapter kinds: one file = one kind; a new file in this folder is a new kind.

A kind says which layers it changes and how large the change may be, with which of peft's layers it is trained, and
how the tensors of a file become a change of weights; `training/adapter.py` puts it into a base. Imports no torch.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from lorafactory.errors import SettingsError
from lorafactory.networks import _blocks

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lorafactory.training.settings import TrainSettings as Settings

Group = Mapping[str, "Tensor"]
"""The tensors that a file has for one layer, by what follows its name."""


@dataclass(frozen=True)
class Layer:
    """A layer of the base that could carry an adapter."""

    part: str
    path: str
    """Within the part."""
    block: str
    """Which of the family's `targets` it lies in: `attention`, `resnet`, `text`."""
    shape: tuple[int, ...]
    """Of its weight: out, in, and the kernel's sides of a convolution."""

    @property
    def kernel(self) -> int:
        """Side of the convolution's kernel; 1 for a linear layer."""
        return self.shape[2] if len(self.shape) > 2 else 1


@dataclass(frozen=True)
class Size:
    """How large a layer's adapter is; its change is scaled by alpha / rank."""

    rank: int
    alpha: float


class Network(Protocol):
    """What an adapter kind brings. Implemented by a module of this folder, whose docstring's first line names it."""

    MODULE: str
    """What a file's metadata call it: the module of sd-scripts or lycoris that trains the same."""
    TENSORS: frozenset[str]
    """What a file may have for a layer, beside `alpha`."""
    DROPOUTS: tuple[str, ...]
    """Which of `dropout`, `rank_dropout`, `module_dropout` it knows."""

    def size(self, layer: Layer, s: Settings) -> Size | None:
        """How large an adapter this layer gets; None leaves it as it is."""

    def numbers(self, layer: Layer, size: Size, s: Settings) -> int:
        """How many numbers a file has for it."""

    def config(self, s: Settings) -> tuple[str, dict[str, Any]]:
        """peft's class of configuration, and its arguments."""

    def start(self, name: str, values: Tensor, draw: torch.Generator) -> None:
        """Fill a matrix, fp32 on the CPU, as training begins with it; all together they change nothing yet."""

    def told(self, group: Group) -> Size:
        """The size that a file's tensors tell of."""

    def change(self, group: Group) -> Tensor:
        """The change of the weight, scaled, of as many numbers as the weight has, in fp32."""

    def arguments(self, s: Settings) -> dict[str, str]:
        """What `ss_network_args` says of it."""


@cache
def names() -> tuple[str, ...]:
    """Every kind there is: the Python files of this folder. Those with a leading underscore are helpers.

    Listed once, as it is asked for each layer of a LoRA that goes into a base.
    """
    return tuple(sorted(f.stem for f in Path(__file__).parent.glob("*.py") if not f.stem.startswith("_")))


def get(name: str) -> Network:
    if name not in names():
        raise SettingsError(f"There is no adapter kind {name!r}. Known: {', '.join(names())}.")
    return cast(Network, importlib.import_module(f"{__name__}.{name}"))


def of(tensors: Iterable[str]) -> str | None:
    """The plainest kind whose file has a layer of these tensors; None if there is none."""
    found = set(tensors) - {"alpha"}
    able = [name for name in names() if found and found <= get(name).TENSORS]
    return min(able, key=lambda name: (len(get(name).TENSORS), name != "lora", name), default=None)


def size(kind: str, layer: Layer, s: Settings, family: str) -> Size | None:
    """How large an adapter this layer gets, also by its block's own rank and learning rate; None: it gets none."""
    network = get(kind)
    if layer.part == "unet":
        local = _blocks.local(layer.path, s, family, conv=layer.kernel > 1)
        if local is None:
            return None
        s = local
    return network.size(layer, s)


def check(s: Settings) -> list[str]:
    """Say what is wrong with the settings of an adapter, whatever the base."""
    if s.network not in names():
        return [f"There is no adapter kind {s.network!r}. Known: {', '.join(names())}."]
    network = get(s.network)
    able = ", ".join(network.DROPOUTS) or "none"
    given = [name for name in ("dropout", "rank_dropout", "module_dropout") if getattr(s, name)]
    problems = [
        f"network {s.network} has no {name} (it has: {able}): set it to 0."
        for name in given
        if name not in network.DROPOUTS
    ]
    if s.quantize == "4bit" and s.network in ("loha", "lokr"):
        problems.append(f"network {s.network} needs the shapes of the weights, and 4 bits hide them: quantize = 8bit.")
    return problems


def check_blocks(s: Settings, family: str) -> list[str]:
    """Say what is wrong with ranks, and with the settings of single blocks, for a base of this family."""
    problems = _blocks.check(s, family)
    ranks = [s.rank, *map(int, () if problems else _blocks.numbers(s.block_dims))]
    if s.network == "dylora" and (odd := [rank for rank in ranks if rank % s.unit]):
        problems.append(f"network dylora learns {s.unit} ranks together (unit), and {odd[0]} is no multiple.")
    return problems


def block_rate(name: str, s: Settings, family: str) -> float:
    """By what the learning rate of a layer of the UNet is multiplied; the layer by its kohya name or its path."""
    return _blocks.rate(name, s, family)


def inner(shape: tuple[int, ...]) -> int:
    """Numbers of a weight for each of its outputs."""
    return math.prod(shape[1:])


def block_arguments(s: Settings) -> dict[str, str]:
    """What `ss_network_args` says of blocks and dropouts that are set."""
    given = {name: getattr(s, name) for name in (*_blocks.SETTINGS, "rank_dropout", "module_dropout")}
    return {
        name: ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        for name, value in given.items()
        if value
    }
