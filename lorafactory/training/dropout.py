"""What of an adapter is left out at a step: dropouts as sd-scripts' and lycoris', and DyLoRA's ranks.

Only between the beginning and the end of a `drawn` block is anything left out; samples and the loss of held-out
pictures see the whole. Source of the three dropouts: sd-scripts `networks/lora.py: LoRAModule.forward`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lorafactory.training.adapter import ADAPTER, Adapter
from lorafactory.training.randomness import generator, uniform
from lorafactory.training.settings import TrainSettings


class Dropout:
    """Leaves out parts of an adapter, drawn anew for each part of a step; nothing where no setting asks for it."""

    def __init__(self, matrices: Adapter, s: TrainSettings) -> None:
        self.settings = s
        self.layers: list[Any] = []
        self.share = 1.0
        """Of DyLoRA's ranks: as many as are there at this step."""
        if not (s.dropout or s.rank_dropout or s.module_dropout or s.network == "dylora"):
            return
        for _, module, _ in matrices.modules.values():
            self.layers.append(module)
            if hasattr(module, "lora_A"):  # peft's other layers do it by themselves
                module.lora_A[ADAPTER].register_forward_hook(self._between)
                module.lora_B[ADAPTER].register_forward_hook(self._after)
        self._train(on=False)

    @contextlib.contextmanager
    def drawn(self, step: int, piece: int) -> Iterator[None]:
        """Leave out what is drawn for a piece of a step, on the way forward and back."""
        if not self.layers:
            yield
            return
        s = self.settings
        self.share = uniform(generator(s.seed, "block", step))  # one for the whole step
        with torch.random.fork_rng(devices=[]):  # what is left out is drawn on the CPU, also by peft
            torch.default_generator.set_state(generator(s.seed, "dropout", step, piece).get_state())
            self._train(on=True)
            try:
                yield
            finally:
                self._train(on=False)

    def _train(self, *, on: bool) -> None:
        for module in self.layers:
            module.training = on

    def _between(self, down: nn.Module, given: Any, out: Tensor) -> Tensor:
        """What goes from down to up: (..., rank) or (n, rank, h, w)."""
        s = self.settings
        if not self.layers[0].training:
            return out
        ranks = 1 if out.ndim == 4 else out.ndim - 1
        if s.network == "dylora":
            out = out * self._ranks(out.shape[ranks]).to(out).reshape(-1, *[1] * (out.ndim - 1 - ranks))
        if s.dropout:
            out = out * _kept(out.shape, s.dropout).to(out)
        if s.rank_dropout:
            shape = [out.shape[0]] + [size if axis == ranks else 1 for axis, size in enumerate(out.shape[1:], 1)]
            out = out * _kept(shape, s.rank_dropout).to(out)
        return out

    def _after(self, up: nn.Module, given: Any, out: Tensor) -> Tensor:
        if not (self.settings.module_dropout and self.layers[0].training):
            return out
        return out * float(torch.rand(()) >= self.settings.module_dropout)

    def _ranks(self, rank: int) -> Tensor:
        """DyLoRA: rank / b for the first b ranks, so that alpha / rank becomes alpha / b; 0 for the others."""
        unit = self.settings.unit
        there = min(rank, unit * (1 + int(self.share * max(1, rank // unit))))
        return (torch.arange(rank) < there) * (rank / there)


def _kept(shape: Any, rate: float) -> Tensor:
    """Ones and zeros, and the ones larger by as much as there are fewer."""
    return (torch.rand(shape) >= rate) / (1 - rate)
