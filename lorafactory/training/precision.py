"""In what precision the frozen base computes, decided once per training: the adapter in it is always in fp32."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lorafactory import families
from lorafactory.errors import SettingsError
from lorafactory.families import Base
from lorafactory.training import memory, quantize
from lorafactory.training.settings import TrainSettings

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SMALL = 100e6
"""Weights of a UNet up to which fp32 costs nothing that matters, so nothing else is tried."""
LARGE, ROOMY = 2e9, 16e9
"""Weights of a UNet that is trained with checkpointing on a card with less memory than that, in bytes."""
FASTER = 1.1
"""So many times faster bf16 must be on a processor to be worth its rounding."""
ROUNDS = 5


@dataclass(frozen=True)
class Decision:
    """How a base is loaded and run; kept with the training's state, so that a resumed run computes alike."""

    device: str
    dtype: str
    """Of the frozen base: fp32, bf16 or fp16. With fp16 gradients are scaled."""
    quantize: str
    """`none`, or the bits that the UNet's linear layers are held in: `8bit`, `4bit`."""
    checkpointing: bool
    """Activations of the UNet are computed again for the gradient instead of kept."""
    compile: bool
    why: str
    """What decided the precision, in words."""

    def __str__(self) -> str:
        held = f", held in {self.quantize}" if self.quantize != "none" else ""
        more = [w for w, on in (("gradient checkpointing", self.checkpointing), ("compiled", self.compile)) if on]
        return ", ".join([f"{self.dtype} base{held} ({self.why}), adapter in fp32", *more])


def decide(path: Path, s: TrainSettings, *, device: str | None = None) -> Decision:
    """Decide from the base's headers, the settings and the machine; no tensor of the base is read.

    On a processor the base's own widest layers are timed in fp32 and bf16, so the answer may differ between two
    machines, or on one that is busy: ask once per training and keep the answer.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    shapes = [shape for part, _, shape in families.weights(path) if part == "unet"]
    count = sum(math.prod(shape) for shape in shapes)
    dtype, why = (s.dtype, "as asked") if s.dtype != "auto" else _dtype(shapes, count, device, s)
    checkpointing = s.gradient_checkpointing
    if checkpointing == "auto":
        room = torch.cuda.get_device_properties(0).total_memory if device == "cuda" else math.inf
        checkpointing = count > LARGE and room < ROOMY
    return Decision(device, dtype, s.quantize, bool(checkpointing), s.compile, why)


def _dtype(shapes: list[tuple[int, ...]], count: int, device: str, s: TrainSettings) -> tuple[str, str]:
    if count < SMALL:
        return "fp32", "it is small"
    if device == "cuda":
        # not what it merely emulates
        good = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bf16", "the card computes in it") if good else ("fp16", "the card has no bf16")
    gain = gain_of_bf16(shapes, s)
    if gain >= FASTER:
        return "bf16", f"this processor is {gain:.1f} times as fast with it"
    return "fp32", f"this processor gains nothing by bf16: {gain:.1f} times as fast"


def gain_of_bf16(shapes: list[tuple[int, ...]], s: TrainSettings) -> float:
    """How many times faster than in fp32 the processor is in bf16, over the largest linear layer and convolution.

    Both are given as many rows as the resolution has at the UNet's second depth, where most of the time goes. Each is
    timed in turns, and the fastest of each counts: what else runs on the machine only ever adds.
    """
    side = max(4, s.resolution // 32)
    jobs = [_job(max(found, key=math.prod), side, s.batch) for n in (2, 4) if (found := _of_rank(shapes, n))]
    times = dict.fromkeys((torch.float32, torch.bfloat16), 0.0)
    with torch.no_grad():
        for job in jobs:
            for dtype, seconds in _fastest({dtype: job(dtype) for dtype in times}).items():
                times[dtype] += seconds
    return times[torch.float32] / times[torch.bfloat16]


def _of_rank(shapes: list[tuple[int, ...]], rank: int) -> list[tuple[int, ...]]:
    return [shape for shape in shapes if len(shape) == rank and (rank == 2 or shape[-1] == 3)]


def _job(shape: tuple[int, ...], side: int, batch: int) -> Callable[[torch.dtype], Callable[[], Any]]:
    """Make one layer's product, in a precision, ready to run."""

    def prepared(dtype: torch.dtype) -> Callable[[], Any]:
        weight = torch.full(shape, 0.01, dtype=dtype)
        if len(shape) == 2:
            rows = torch.full((batch * side * side, shape[1]), 0.5, dtype=dtype)
            return lambda: torch.nn.functional.linear(rows, weight)
        cells = torch.full((batch, shape[1], side, side), 0.5, dtype=dtype)
        return lambda: torch.nn.functional.conv2d(cells, weight, padding=1)

    return prepared


def _fastest(jobs: Mapping[torch.dtype, Callable[[], Any]]) -> dict[torch.dtype, float]:
    for job in jobs.values():
        job()  # what is set up on the first call is not the work
    best = dict.fromkeys(jobs, math.inf)
    for _ in range(ROUNDS):
        for dtype, job in jobs.items():
            began = time.perf_counter()
            job()
            best[dtype] = min(best[dtype], time.perf_counter() - began)
    return best


# ---------------------------------------------------------------- into effect


def load(path: Path, decided: Decision, *, vae: Path | None = None, prediction: str | None = None) -> Base:
    """Load a base as it was decided, ready to be trained; SettingsError, before it is read, if that cannot be."""
    if decided.quantize != "none":
        quantize.check(decided.quantize, decided.device)
    if decided.compile:
        check_compiler(decided.device)
    if decided.quantize == "none" and not decided.compile:
        base = families.load(path, dtype=DTYPES[decided.dtype], device=decided.device, vae=vae, prediction=prediction)
        memory.recompute(base, on=decided.checkpointing)
        return base
    family = families.get(families.detect(path))
    # layer by layer from the machine's memory: a card that needs fewer bits has no room for the whole
    device = decided.device if decided.quantize == "none" else "cpu"
    base = family.load(path, dtype=DTYPES[decided.dtype], device=device, vae=vae, prediction=prediction)
    if decided.quantize != "none":
        quantize.quantize(base, decided.quantize, decided.device)
    memory.recompute(base, on=decided.checkpointing)
    if decided.compile:
        compile_blocks(base)
    return base


def autocast(base: Base) -> contextlib.AbstractContextManager[Any]:
    """Compute in the base's precision where that is safe; with fp32 nothing changes."""
    if base.dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(base.device.type, base.dtype)


def compile_blocks(base: Base) -> None:
    """Compile the UNet's repeated blocks, each kind once: the first step takes a minute or so, the others less.

    They are compiled at their first call, so an adapter that comes into them later is compiled with them.
    """
    # the same blocks come in several widths, and pictures in several sizes
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    unet: Any = base.parts["unet"]
    kinds = {*unet._repeated_blocks, *families.get(base.family).targets["resnet"]}
    for module in unet.modules():
        if type(module).__name__ in kinds:
            module.compile()


def check_compiler(device: str) -> None:
    """Compile next to nothing; SettingsError in words where that fails."""
    try:
        torch.compile(lambda x: x * 2 + 1)(torch.ones(8, device=device))
    except Exception as error:
        line = str(error).strip().partition("\n")[0]
        raise SettingsError(f"train.compile needs a compiler that torch can use (C++, or Triton): {line}") from error
