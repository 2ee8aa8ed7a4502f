"""One training between its steps: the models, what is cached of the set, and how it all fits into memory."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lorafactory import families
from lorafactory.errors import FailedError
from lorafactory.families import Base
from lorafactory.training import adapter, forward, memory, optimizers
from lorafactory.training.checkpoint import Keeper
from lorafactory.training.conditioning import Words
from lorafactory.training.dropout import Dropout
from lorafactory.training.holdout import PAIRS, Holdout
from lorafactory.training.latents import Pictures
from lorafactory.training.memory import Means, Room
from lorafactory.training.order import batches
from lorafactory.training.plan import Example, Item, Plan, fit_all
from lorafactory.training.precision import autocast
from lorafactory.training.randomness import generator
from lorafactory.training.running import Running
from lorafactory.training.settings import TrainSettings

Group = Sequence[Sequence[Item]]
"""The batches of one step."""


@dataclass(frozen=True)
class Start:
    """A LoRA to go on from, and where its numbering stands."""

    tensors: Mapping[str, Tensor] | None = None
    epoch: int = 0
    step: int = 0


class Session:
    """Everything that `loop.train` works with; `close` leaves the base as it was."""

    def __init__(
        self,
        base: Base,
        examples: Sequence[Example],
        held_out: Sequence[Example],
        run: Plan,
        settings: TrainSettings,
        *,
        cache: Path,
        start: Start,
        keeper: Keeper,
        say: Callable[[int, str], None],
    ) -> None:
        """Cache the pictures, attach the adapter, encode what can be; go on from the keeper's newest state."""
        self.base, self.examples, self.run, self.settings = base, examples, run, settings
        self.start, self.keeper, self.say = start, keeper, say
        family = families.get(base.family)
        shown = [(example, run.fits[example.name]) for example in examples]
        fits = fit_all(held_out, settings)
        unseen = [(example, fits[example.name]) for example in held_out]
        self.fitted = [*shown, *unseen]
        self.pictures = Pictures(family, base, settings, cache)

        def encode() -> Holdout:
            self.pictures.prepare(shown)
            return Holdout(unseen, self.pictures)

        self.holdout = memory.encoded(base, encode, lambda text: say(start.step, text))
        rates = settings.rates(base.parts)
        self.matrices = adapter.attach(
            family,
            base,
            kind=settings.network,
            settings=settings,
            parts=list(rates),
            generator=lambda name: generator(settings.seed, "init", name),
            tensors=start.tensors,
        )
        self.recomputed = memory.recomputes(base)
        name = optimizers.chosen(settings.optimizer, base.device.type)
        first = Means(settings.batch, name, checkpointing=self.recomputed)
        means = Means(**keeper.plan["means"]) if "means" in keeper.plan else first
        self.room = Room(base, means, self.use, lambda text: say(self.step, text))
        try:
            self.words = Words(family, base, settings, cache=cache, steps=run.steps)
            self.now = Running(self.matrices, rates, settings, run.steps, means.optimizer)
            self.dropout = Dropout(self.matrices, settings)
            self.park()
        except BaseException:
            self.matrices.detach()
            raise

    @property
    def step(self) -> int:
        """Steps done, counted on from the LoRA that this one goes on from."""
        return self.start.step + self.now.step

    def close(self) -> None:
        self.matrices.detach()
        memory.recompute(self.base, on=self.recomputed)
        self.bring_back()

    # ------------------------------------------------------------ a step

    def gradients(self, epoch: int, group: Group) -> tuple[float, float]:
        """Leave the gradient of one step, cut to the longest allowed.

        Returns its loss, a mean over the step's pictures, and the gradient's length before it was cut.
        """
        s, now, shares = self.settings, self.now, []
        now.optimizer.zero_grad(set_to_none=True)
        seen = sum(len(batch) for batch in group)
        for piece, batch in enumerate(_pieces(group, self.room.means.micro)):
            with self.dropout.drawn(self.step, piece):
                with autocast(self.base):
                    drawn = forward.losses(self.base, batch, self.pictures, self.words, s, epoch=epoch, step=self.step)
                    share = drawn.sum() / seen
                torch.autograd.backward(now.scaler.scale(share))
            shares.append(share.detach())
        now.scaler.unscale_(now.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(now.trained, s.max_grad_norm or math.inf)
        *parts, length = torch.stack([*shares, norm]).tolist()  # the only wait for the device in a step
        return sum(parts), length

    def steps(self) -> Iterator[tuple[int, Group]]:
        """Epoch and batches of each step that is left."""
        each, many = self.run.steps_per_epoch, self.settings.gradient_accumulation
        while self.now.step < self.run.steps:
            epoch = self.now.step // each + 1
            todo = batches(self.run, self.examples, self.settings, self.start.epoch + epoch)
            while (before := self.now.step) // each + 1 == epoch:
                first = before % each * many
                yield self.start.epoch + epoch, todo[first : first + many]

    def try_out(self) -> float:
        """Seconds of a step on the largest bucket; what does not fit is found now and not in an hour."""
        before, took = self.matrices.state(), 0.0
        todo = batches(self.run, self.examples, self.settings, 1)
        largest = max(todo, key=lambda batch: len(batch) * math.prod(batch[0].fit.bucket))
        group = [largest] * min(self.settings.gradient_accumulation, len(todo))
        done = 0
        while done < 2:  # the first is slow: memory is taken, kernels are chosen
            began = time.perf_counter()
            loss, _ = self.room.fits(self.gradients, 1, group)
            done += self.update(loss) is not None
            took = time.perf_counter() - began
        self.matrices.load(before)
        self.now.renew(self.room.means.optimizer)
        return took

    def update(self, loss: float) -> float | None:
        """Take the step, and return its learning rate; None where memory ran out in it and it has gone back."""
        with contextlib.suppress(torch.OutOfMemoryError):
            return self.now.update(loss)
        # half of it may be done: its optimizer and gradients go, and the last state comes back before it is kept again
        self.now.renew(self.now.name)
        self.now.optimizer.zero_grad(set_to_none=True)
        if self.keeper.good is not None:  # else the step was only tried out
            self.now.put(self.keeper.good)
        self.room.make()
        return None

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
        """What a file of the adapter holds, and of its average if there is one."""
        if not self.now.average:
            return self.matrices.state(), None
        with self.now.averaged():
            average = self.matrices.state()
        return self.matrices.state(), average

    def measure(self) -> float | None:
        """Loss of the held-out pictures; None where there are none."""

        def ask() -> float | None:
            means = self.room.means  # once room was made, no more at once than a step has
            return self.holdout.measure(self.words, means.micro if means.away else PAIRS)

        found = self.room.fits(ask)
        self.now.holdout += [] if found is None else [found]
        return found

    # ------------------------------------------------------------ states

    def resume(self) -> bool:
        """Go on from the newest whole state, if there is one."""
        found = self.keeper.newest(lambda text: self.say(self.step, text))
        if found is not None:
            self.now.put(found)
            self.keeper.resumed(self.now.step)
        return found is not None

    def keep(self) -> None:
        """Keep what there is as the state to go on from."""
        self.keeper.decide(means=dataclasses.asdict(self.room.means))
        self.keeper.keep(self.now.take(), self.now.step)

    def go_back(self, what: str, epoch: int, group: Group) -> None:
        """After a step that is not finite: back to the last good state, once, with half the learning rate."""
        names = sorted({str(item.example.path) for batch in group for item in batch})
        told, pictures = f"{what} at step {self.step + 1} (epoch {epoch})", "\n".join(f"  {name}" for name in names)
        if self.now.calmed or self.keeper.good is None:
            fix = "Lower the learning rate (lr), or use dtype bf16 or fp32 and not fp16. Earlier saves are whole."
            raise FailedError(f"{told}. {fix} It was on these pictures:\n{pictures}")
        self.now.put(self.keeper.good)
        self.now.calm()
        back = f"Back to step {self.step}, from there on with half the learning rate."
        self.say(self.step, f"{told}, on these pictures:\n{pictures}\n{back}")
        self.keep()

    # ------------------------------------------------------------ room

    def use(self, means: Means) -> None:
        """Do as the ladder of `memory` says from here on, and so will whoever goes on with this training."""
        self.park()
        if means.optimizer != self.now.name:
            self.now.renew(means.optimizer)
        if self.room.begun:
            self.keep()

    def park(self) -> None:
        """Take off the device what a step does not need."""
        means, s = self.room.means, self.settings
        if s.cache_text or (means.away and self.words.can_park):
            self.words.park(self.fitted)
        if means.away and not s.random_crop:
            self.base.vae.to("cpu")
        memory.recompute(self.base, on=means.checkpointing)

    def bring_back(self) -> None:
        self.words.bring_back()
        self.base.vae.to(self.base.device)

    @contextlib.contextmanager
    def visit(self) -> Iterator[None]:
        """Have all of the base on the device, for samples."""
        self.bring_back()
        yield
        self.park()


def _pieces(group: Group, most: int) -> Iterator[Sequence[Item]]:
    """Batches of at most so many pictures: what a step sees and learns stays the same."""
    for batch in group:
        for first in range(0, len(batch), most):
            yield batch[first : first + most]
