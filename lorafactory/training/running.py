"""All that changes while a LoRA is trained: what a state keeps, and what is put back from one."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from lorafactory.training import optimizers
from lorafactory.training.adapter import Adapter
from lorafactory.training.checkpoint import Packed, pack
from lorafactory.training.settings import TrainSettings

CALMER = 0.5
"""What is left of the learning rate after a step that was not finite."""


class Running:
    """A training between two steps."""

    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    history: list[tuple[float, float]]
    """Loss and learning rate of every step so far."""
    average: list[Tensor]
    """Of every trained matrix, with `ema`; else empty."""

    def __init__(
        self, matrices: Adapter, rates: Mapping[str, float], settings: TrainSettings, steps: int, optimizer: str
    ) -> None:
        """Train each of the adapter's parts at its rate; parts without one stay as they are."""
        self.matrices, self.settings, self.steps = matrices, settings, steps
        self.groups = matrices.groups(rates, settings)
        self.holdout: list[float] = []
        """Loss of the held-out pictures: before the first step, then at each save; empty where there are none."""
        self.calmed = False
        """It has gone back once, and goes on with a smaller learning rate."""
        for parameter in (p for part in matrices.parts for p in matrices.parameters(part)):
            parameter.requires_grad = False
        for parameter in self.trained:
            parameter.requires_grad = True
        self.renew(optimizer)

    def renew(self, optimizer: str) -> None:
        """Begin with an optimizer of this name that has no past."""
        self.name = optimizer
        self.optimizer = optimizers.make(optimizer, self.settings.optimizer_args, self.groups)
        self.schedule = optimizers.schedule(self.optimizer, self.settings, self.steps)
        # gradients of fp16 would vanish unscaled; with other precisions the scaler does nothing
        device = self.matrices.base.device.type
        self.scaler = torch.amp.GradScaler(device, enabled=self.matrices.base.dtype == torch.float16)
        self.history = []
        self.average = [weight.detach().clone() for weight in self.trained] if self.settings.ema else []

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.history)

    @property
    def losses(self) -> tuple[float, ...]:
        return tuple(loss for loss, _ in self.history)

    @property
    def trained(self) -> list[nn.Parameter]:
        return [parameter for _, parameters in self.groups for parameter in parameters]

    def is_sound(self, loss: float, norm: float) -> bool:
        """False if loss or gradient are not finite. With fp16 the scaler tries smaller scales first, as it should."""
        searching = self.scaler.is_enabled() and self.scaler.get_scale() > 1
        return math.isfinite(loss) and (math.isfinite(norm) or searching)

    def update(self, loss: float) -> float:
        """Take one step down the gradients that are there; return the learning rate it was taken with."""
        group = self.optimizer.param_groups[0]
        lr = float(group["lr"]) * float(group.get("d", 1))  # what it has found, where it finds its own
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        self.history.append((loss, lr))
        if self.average:
            # the first steps count more: else the average would long be what there was before (as torch-ema's)
            decay = min(self.settings.ema_decay, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self.average, [weight.detach() for weight in self.trained], 1 - decay)
        return lr

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Have the average in place of the matrices."""
        trained = self.trained
        with torch.no_grad():
            now = [weight.clone() for weight in trained]
            for weight, mean in zip(trained, self.average, strict=True):
                weight.copy_(mean)
            yield
            for weight, before in zip(trained, now, strict=True):
                weight.copy_(before)

    def take(self) -> Packed:
        """Copy everything."""
        return pack(
            {
                "matrices": self.matrices.state(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "scaler": self.scaler.state_dict(),
                "history": torch.tensor(self.history, dtype=torch.float64).reshape(-1, 2),
                "holdout": self.holdout,
                "calmed": self.calmed,
                "average": self.average,
            }
        )

    def put(self, packed: Packed) -> None:
        """Be again as it was when `packed` was taken."""
        state = packed.unpack()
        self.matrices.load(state["matrices"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        self.history = [(loss, lr) for loss, lr in state["history"].tolist()]
        self.holdout = list(state["holdout"])
        self.calmed = bool(state["calmed"])
        for mean, found in zip(self.average, state.get("average", ()), strict=True):
            mean.copy_(found)

    def calm(self) -> None:
        """Go on with a smaller learning rate, from here to the end."""
        self.calmed = True
        self.schedule.base_lrs = [lr * CALMER for lr in self.schedule.base_lrs]
        for group in self.optimizer.param_groups:
            group["lr"] *= CALMER
            group["initial_lr"] *= CALMER
