"""What is killed and begun again: the training of a tiny model, by a daemon and its worker."""

from __future__ import annotations

from pathlib import Path

import diffusers
import open_clip  # noqa: F401
import transformers
import zygote
from tiny import WORKER

from lorafactory.daemon import watch, worker
from lorafactory.daemon.limits import own
from lorafactory.families import sd15  # noqa: F401
from lorafactory.steps import train  # noqa: F401
from lorafactory.training import loop  # noqa: F401
from lorafactory.workspace import Workspace

PARTS = (diffusers.AutoencoderKL, diffusers.UNet2DConditionModel, transformers.CLIPTextModel)
"""Named so that they are imported here, once for all."""


def work(root: str, name: str) -> int:
    """What the daemon starts."""
    return worker.main(root, name)


def look(root: str) -> int:
    """What `lora watch --once` does, sooner; it has its workers from the zygote, which has imported torch."""

    def spawn(space: Workspace, name: str, card: str) -> zygote.Job:
        job = zygote.Job(zygote.ASKED[0], own(space, f"{name}.log"), "killed_training:work", root, name)
        own(space, WORKER).write_text(str(job.pid))
        return job.go()

    watch.spawn, watch.TICK, watch.SCAN, watch.REST = spawn, 0.1, 0.25, 0.0
    return watch.watch(Workspace(Path(root), "a test"), once=True, say=lambda text: print(text, flush=True))
