"""The loop that trains every pocket model: resumable, and the same however often it was stopped.

The whole state is saved about once a minute under `.pocket/`, and every draw comes from a generator seeded by
(stage, step), so a stopped stage goes on as if it had not stopped.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from safetensors.torch import load_file, save_file

STATE = Path(".pocket")
SEED = 20260101
log = logging.getLogger("pocket")


def rng_for(stage: str, step: int) -> random.Random:
    """The draws of one step of one stage, whatever ran before."""
    torch.manual_seed(hash_of(stage, step))
    return random.Random(f"{SEED} {stage} {step}")


def hash_of(stage: str, step: int) -> int:
    return random.Random(f"torch {SEED} {stage} {step}").getrandbits(62)


@dataclass
class Job:
    """A stage's trainable parts and how one step is made."""

    name: str
    parts: dict[str, torch.nn.Module]
    steps: int
    lr: float
    loss: Callable[[random.Random, int], torch.Tensor]
    warmup: int = 100
    hold: float = 0.3
    """Share of the steps at full learning rate before the cosine falls to zero."""
    ema: float = 0.0
    betas: tuple[float, float] = (0.9, 0.98)


def train(job: Job) -> None:
    """Run the job to its end, going on from its saved state if there is one."""
    trained = torch.nn.ModuleDict(job.parts)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=job.lr, weight_decay=0.01, betas=job.betas)
    average = {k: v.detach().clone() for k, v in trained.state_dict().items()}
    step = restore(job, trained, optimizer, average)
    saved, shown, began = time.monotonic(), 0.0, time.monotonic()
    with Progress() as bar:
        task = bar.add_task(job.name, total=job.steps, completed=step)
        while step < job.steps:
            for group in optimizer.param_groups:
                group["lr"] = job.lr * schedule(job, step)
            loss = job.loss(rng_for(job.name, step), step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
            optimizer.step()
            step += 1
            shown = loss.item() if step == 1 else 0.98 * shown + 0.02 * loss.item()
            update_average(job, trained, average, step)
            bar.update(task, completed=step, description=f"{job.name} {shown:.4f}")
            if step % 100 == 0:
                log.info("%s step %d/%d loss %.4f %.0f s", job.name, step, job.steps, shown, time.monotonic() - began)
            if time.monotonic() - saved > 60:
                save(job, trained, optimizer, average, step)
                saved = time.monotonic()
    save(job, trained, optimizer, average, step)
    trained.load_state_dict(average)
    trained.eval()


def schedule(job: Job, step: int) -> float:
    if step < job.warmup:
        return (step + 1) / job.warmup
    done = max(0.0, (step / job.steps - job.hold) / (1 - job.hold))
    return float(0.5 * (1 + np.cos(np.pi * done)))


def update_average(job: Job, trained: torch.nn.Module, average: dict[str, torch.Tensor], step: int) -> None:
    keep = min(job.ema, step / (step + 10))
    for key, value in trained.state_dict().items():
        if value.is_floating_point() and keep:
            average[key].lerp_(value, 1 - keep)
        else:
            average[key].copy_(value)


def save(job: Job, trained: Any, optimizer: Any, average: dict[str, torch.Tensor], step: int) -> None:
    """Write model, average and optimizer as one safetensors file, whole or not at all."""
    tensors = {f"model/{k}": v for k, v in trained.state_dict().items()}
    tensors |= {f"average/{k}": v for k, v in average.items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{i}/{k}": v for k, v in state.items()}
    STATE.mkdir(exist_ok=True)
    path = STATE / f"{job.name}.safetensors"
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, f"{path}.part", {"step": str(step)})
    Path(f"{path}.part").replace(path)


def restore(job: Job, trained: Any, optimizer: Any, average: dict[str, torch.Tensor]) -> int:
    """Fill everything from the saved state; return the number of finished steps."""
    path = STATE / f"{job.name}.safetensors"
    if not path.exists():
        return 0
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    tensors = load_file(path)
    trained.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model/")})
    average.update({k[8:]: v for k, v in tensors.items() if k.startswith("average/")})
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, index, name = key.split("/")
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(header["__metadata__"]["step"])


def write_weights(module: torch.nn.Module, path: Path) -> None:
    """Write a module's weights in fp16 (the package's size is bounded)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    halves = {k: v.half() if v.is_floating_point() else v for k, v in module.state_dict().items()}
    save_file({k: v.contiguous().clone() for k, v in halves.items()}, path, {"format": "pt"})
