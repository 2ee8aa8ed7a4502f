"""How much memory a training needs: estimated before its first step, measured after the last."""

from __future__ import annotations

import sys

import psutil
import torch

from lorafactory.families import Base
from lorafactory.training import memory, optimizers
from lorafactory.training.plan import Plan
from lorafactory.training.settings import TrainSettings

ACTIVATIONS = {"sd15": (5100.0, 1230.0), "sdxl": (8400.0, 590.0)}
"""Bytes per pixel of a picture that a step holds in 16 bits, without and with gradient checkpointing. Counted storage
by storage over a step of the full architectures on fake tensors (512 px, 1024 px), adapters on all attention layers,
norms in fp32 as autocast has them on a card."""
FP32 = 1.4
"""So many times more in fp32, counted in the same way."""
PROCESS = 1.5e9
"""Bytes of a process beside all that, without a card: torch, and the weights that its kernels lay out anew."""


def estimate(base: Base, s: TrainSettings, plan: Plan) -> float:
    """Bytes that training a base with its adapter in it holds at most: of its card, or without one of the machine.

    Weights are counted as they are; what a step keeps for its gradients grows with the pixels of its pictures.
    """
    modules = list(base.parts.values())
    if s.cache_text and base.device.type == "cuda":
        modules = [base.parts["unet"]]
    numbers = [p for m in (*modules, base.vae) for p in m.parameters()]
    weights = sum(p.numel() * p.element_size() for p in numbers if not p.requires_grad)
    # the number itself, its gradient, what the optimizer knows of it, and its average
    kept = optimizers.entry(optimizers.chosen(s.optimizer, base.device.type)).state + (4 if s.ema else 0)
    trained = sum(p.numel() for p in numbers if p.requires_grad) * (4 + 4 + kept)
    pixels = max(width * height for width, height in plan.per_bucket) * s.batch
    plain, again = ACTIVATIONS[base.family]
    held = pixels * (again if memory.recomputes(base) else plain) * (FP32 if base.dtype == torch.float32 else 1)
    return float(weights + trained + held + (0 if base.device.type == "cuda" else PROCESS))


def expected(base: Base, s: TrainSettings, plan: Plan) -> str:
    """The estimate in words, to be put behind others; nothing for a toy."""
    return f", about {estimate(base, s, plan) / 1e9:.1f} GB" if memory.is_real(base) else ""


def peak(base: Base) -> float:
    """Bytes that were held at most since the program began: of the card, or of the process where there is none."""
    if base.device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(base.device))
    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset)
    import resource

    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(held if sys.platform == "darwin" else held * 1024)
