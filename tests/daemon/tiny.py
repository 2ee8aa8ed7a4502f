"""A real training that takes seconds, for the tests of worker and daemon."""

from __future__ import annotations

import random
from pathlib import Path

from lorafactory import images
from lorafactory.pocket.concepts import CONCEPTS
from lorafactory.training.lora_header import tensor_hash
from lorafactory.workspace import Workspace

TOML = """
base = "pocket"
trigger = "zqx"
wait_before = "compare"
[dedupe]
no_clip = true
[filter]
no_clip = true
[caption]
no_clip = true
text = "{trigger}, a star"
[repeats]
policy = 4
[train]
epochs = 2
batch = 2
checkpoint_steps = 2
save_dtype = "fp32"
save_every_epochs = 1
"""

WORKER = "worker.pid"
"""Where a daemon that is killed tells of its worker's process."""


def draw(space: Workspace, name: str, seed: int, folder: Path | None = None) -> None:
    """Two drawings, in source/ or this folder, and what is asked: 2 x 4 repeats x 2 epochs / batch 2 = 8 steps."""
    chance, place = random.Random(seed), space.lora(name)
    folder = folder or place.source
    folder.mkdir(parents=True)
    for i in range(2):
        images.save_png(CONCEPTS["eyestar"].sample(chance), folder / f"{i}.png")
    place.root.mkdir(parents=True, exist_ok=True)
    place.settings.write_text(TOML, encoding="utf-8")


def hashes(space: Workspace, name: str) -> dict[str, str]:
    return {p.name: tensor_hash(p) for p in sorted(space.lora(name).result.glob("*.safetensors"))}
