"""What is killed and begun again, of the work that needs torch alone."""

from __future__ import annotations

from pathlib import Path

import torch

from lorafactory.files import write_whole
from lorafactory.training import checkpoint
from lorafactory.training.checkpoint import Keeper, pack

STEPS = 6


def keep(root: str) -> None:
    """A training that keeps its state after every step, and what comes of it."""
    folder, made = Path(root, "state"), Path(root, "made")
    if not made.exists():
        keeper = Keeper(folder, steps=1, plan=checkpoint.read_plan(folder))
        keeper.decide(threads=1)
        found = keeper.newest(torn)
        state = found.unpack() if found else {"step": 0, "weights": torch.zeros(3)}
        while state["step"] < STEPS:
            state = {"step": state["step"] + 1, "weights": state["weights"] * 0.5 + state["step"]}
            keeper.keep(pack(state), state["step"])
        write_whole(made, str(state["weights"].tolist()).encode())
    checkpoint.finish(folder, Path(root, "log"))


def torn(text: str) -> None:
    raise AssertionError(text)
