"""A step of our loop against one of a plain diffusers + peft loop: steps per second and peak memory, in one run.

Full architectures with random weights; adapters on the UNet alone, same rank, layers, batch, resolution and precision;
latents and texts are ready before the first step. The two take turns in blocks; the ratio is that of the blocks'
medians, and their spread is printed. Memory without a card is that of the process, in which both find the same base.
What needs a card says so where there is none.

    .venv/bin/python tests/bench/bench_train_step.py --turns 5 --steps 8
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from diffusers import DDPMScheduler
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from lorafactory import families, images
from lorafactory.families import Base, Frame
from lorafactory.training import adapter, footprint, loop, memory, plan, precision, quantize
from lorafactory.training.plan import Example
from lorafactory.training.settings import TrainSettings
from tests.families.original_layout import build

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Case:
    family: str
    side: int
    batch: int
    rank: int
    dtype: str
    checkpointing: bool = False
    quantize: str = ""
    compile: bool = False

    def __str__(self) -> str:
        more = [w for w, on in (("checkpointing", self.checkpointing), ("compiled", self.compile)) if on]
        told = f"{self.family} {self.side} px, batch {self.batch}, rank {self.rank}, {self.dtype}"
        return ", ".join([told, *([self.quantize] if self.quantize else []), *more])


ON_CPU = (Case("sd15", 256, 1, 16, "fp32"), Case("sd15", 256, 1, 16, "bf16"))
ON_CARD = (
    Case("sd15", 512, 2, 32, "bf16"),
    Case("sd15", 512, 2, 32, "bf16", compile=True),
    Case("sdxl", 1024, 1, 32, "bf16"),
    Case("sdxl", 1024, 1, 32, "bf16", checkpointing=True),
    Case("sdxl", 1024, 1, 32, "bf16", compile=True),
    Case("sdxl", 1024, 1, 32, "bf16", checkpointing=True, quantize="4bit"),
)


@dataclass
class Measured:
    """Seconds of each step, block by block, and the most memory in bytes."""

    blocks: list[list[float]] = field(default_factory=list)
    peak: float = 0.0

    @property
    def medians(self) -> list[float]:
        return [statistics.median(block) for block in self.blocks]

    @property
    def seconds(self) -> float:
        return statistics.median(self.medians)

    def __str__(self) -> str:
        low, high = min(self.medians), max(self.medians)
        return f"{self.seconds:.3f} s a step ({low:.3f} to {high:.3f}), {self.peak / 1e9:.2f} GB"


def base_of(case: Case) -> Base:
    """The full architecture with random weights, as `precision.load` would leave it."""
    family: Any = families.get(case.family)
    base = build(family, family.CONFIG)
    base.dtype = precision.DTYPES[case.dtype]
    for part in (*base.parts.values(), base.vae):
        part.requires_grad_(requires_grad=False).eval()
    for part in base.parts.values():
        part.to(base.dtype)
    if case.quantize:
        quantize.quantize(base, case.quantize, DEVICE)
    base.device = torch.device(DEVICE)
    memory.recompute(base, on=case.checkpointing)
    return base


def settings_of(case: Case) -> TrainSettings:
    return TrainSettings(
        epochs=1,
        batch=case.batch,
        resolution=case.side,
        min_bucket=64,
        max_bucket=2048,
        rank=case.rank,
        alpha=case.rank,
        optimizer="adamw",
        scheduler="constant",
        cache="memory",
        cache_text=True,
    )


def example(folder: Path, case: Case, steps: int) -> Example:
    noise = np.random.default_rng(0).integers(0, 255, (case.side, case.side, 3), dtype=np.uint8)
    path = folder / "0001.png"
    images.save_png(Image.fromarray(noise), path)
    return Example(path.name, path, images.sha256(path), "a dot", steps * case.batch, case.side, case.side)


# ---------------------------------------------------------------- the two loops


def ours(base: Base, case: Case, steps: int) -> list[float]:
    """Seconds of each step after the first."""
    stamps: list[float] = []
    for part in (*base.parts.values(), base.vae):
        part.to(base.device)
    with tempfile.TemporaryDirectory() as place:
        shown = example(Path(place), case, steps + 1)
        on_step: Callable[[int, float, float], None] = lambda step, loss, lr: stamps.append(time.perf_counter())  # noqa: E731
        loop.train(base, [shown], settings_of(case), cache=Path(place) / "cache", on_step=on_step)
    return [after - before for before, after in itertools.pairwise(stamps)]


def plain(base: Base, case: Case, steps: int) -> list[float]:
    """The same of a loop as diffusers' training examples have it, with all else off the device."""
    unet: Any = base.parts["unet"]
    family = families.get(case.family)
    frames = [Frame((case.side, case.side), (0, 0), (case.side, case.side))] * case.batch
    with torch.no_grad(), precision.autocast(base):
        words = family.encode_captions(base, ["a dot"] * case.batch, frames)
    for part in (*(p for name, p in base.parts.items() if name != "unet"), base.vae):
        part.to("cpu")
    unet.to(base.device)
    targets = [layer.path for layer in adapter.layers(family, base, ["unet"]) if layer.block == "attention"]
    unet.add_adapter(LoraConfig(r=case.rank, lora_alpha=case.rank, target_modules=targets))
    trained = [p for p in unet.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.data = parameter.data.float()
    optimizer, scheduler = torch.optim.AdamW(trained, lr=1e-4), DDPMScheduler.from_config(base.scheduler.config)
    latents = torch.randn((case.batch, 4, case.side // 8, case.side // 8), device=base.device)
    stamps = []
    for _ in range(steps + 1):
        noise = torch.randn_like(latents)
        t = torch.randint(0, 1000, (case.batch,), device=base.device)
        noisy = scheduler.add_noise(latents, noise, t)
        with precision.autocast(base):
            prediction = family.predict(base, noisy, t, words)
        loss = torch.nn.functional.mse_loss(prediction.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        stamps.append(time.perf_counter())
    take_out(unet)
    return [after - before for before, after in itertools.pairwise(stamps)]


def take_out(unet: Any) -> None:
    for path, module in list(unet.named_modules()):
        if isinstance(module, BaseTunerLayer):
            parent, _, child = path.rpartition(".")
            setattr(unet.get_submodule(parent), child, module.get_base_layer())
    del unet.peft_config
    unet._hf_peft_config_loaded = False
    unet.requires_grad_(requires_grad=False)


# ---------------------------------------------------------------- measuring


def watched(block: Callable[[], list[float]], into: Measured) -> None:
    """Run a block; keep its times, and the most memory of the card, or of this process where there is none."""
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        into.blocks.append(block())
        into.peak = max(into.peak, torch.cuda.max_memory_allocated())
        return
    done, process = threading.Event(), psutil.Process()

    def look() -> None:
        while not done.wait(0.02):
            into.peak = max(into.peak, process.memory_info().rss)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        into.blocks.append(block())
    finally:
        done.set()
        watcher.join()


def measure(case: Case, turns: int, steps: int) -> Measured:
    """Let the two take turns and print what came of it; return ours."""
    gc.collect()  # the base of the case before
    base, found = base_of(case), (Measured(), Measured())
    shown = Example("0001.png", Path("0001.png"), "", "a dot", 1, case.side, case.side)
    s, family = settings_of(case), families.get(case.family)
    matrices = adapter.attach(
        family, base, kind=s.network, settings=s, parts=["unet"], generator=lambda name: torch.Generator()
    )
    expected = footprint.estimate(base, s, plan.plan([shown], s))
    matrices.detach()
    # compiled blocks stay so: where ours is, the plain loop has its turns before
    order = [(plain, 1)] * turns + [(ours, 0)] * turns if case.compile else [(plain, 1), (ours, 0)] * turns
    for index, (run, which) in enumerate(order):
        if case.compile and index == turns:
            precision.compile_blocks(base)
        watched(lambda run=run: run(base, case, steps), found[which])  # type: ignore[misc]
    print(f"{case}\n  ours   {found[0]}; {expected / 1e9:.2f} GB expected\n  plain  {found[1]}")
    print(f"  ours makes {found[1].seconds / found[0].seconds:.3f} times the plain loop's steps per second", flush=True)
    return found[0]


def machine() -> str:
    busy = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
    told = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, {busy}"
    card = f"; {torch.cuda.get_device_name()}" if DEVICE == "cuda" else "; no GPU here"
    return f"{told}{card}; torch {torch.__version__}"


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--turns", type=int, default=3, help="blocks of each loop")
    asked.add_argument("--steps", type=int, default=3, help="timed steps of a block")
    asked.add_argument("--only", default="", help="cases whose name has this in it")
    told = asked.parse_args()
    print(machine())
    if DEVICE == "cpu":
        print("\n".join(f"{case}: no GPU here" for case in ON_CARD))
    cases = [case for case in (ON_CARD if DEVICE == "cuda" else ON_CPU) if told.only in str(case)]
    by_dtype = {case.dtype: measure(case, told.turns, told.steps) for case in cases}
    if {"fp32", "bf16"} <= set(by_dtype):
        gain = by_dtype["fp32"].seconds / by_dtype["bf16"].seconds
        print(f"ours with a bf16 base makes {gain:.2f} times the steps per second of fp32")
        shapes = [tuple(p.shape) for n, p in base_of(replace(ON_CPU[0])).parts["unet"].named_parameters()]
        probed = precision.gain_of_bf16(shapes, settings_of(ON_CPU[0]))
        print(f"the probe at a training's start says {probed:.2f}")


if __name__ == "__main__":
    main()
