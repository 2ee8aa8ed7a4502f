"""Samples of a training: the same prompts from the same noise again and again, and a page that shows them over time.

    sample/anna-01-step00000100.png     prompt 1 after 100 steps: sorted by name, a row per prompt
    sample/samples.json                 what each picture is of; read again when a training is resumed
    sample/index.html                   reloads itself until the training has ended

Training never notices: the noise of a sample has its own generator, and whatever the drawing takes from torch's shared
ones is put back.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from lorafactory import images, pages
from lorafactory.families import Base
from lorafactory.files import write_whole
from lorafactory.training.precision import autocast
from lorafactory.training.prompts import Prompt
from lorafactory.training.sample import sample
from lorafactory.training.settings import TrainSettings

RELOAD = 10
"""Seconds between two looks of the page at itself."""
LIST, PAGE = "samples.json", "index.html"


class Gallery:
    """The folder of a training's samples."""

    def __init__(
        self, folder: Path, name: str, prompts: Sequence[Prompt], settings: TrainSettings, *, last: int
    ) -> None:
        """`name` is the LoRA's, `last` the number of its last step. What an interrupted run drew stays."""
        self.folder, self.name, self.prompts, self.settings, self.last = folder, name, prompts, settings, last
        self.ended, self.remark = "", ""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / LIST
        self.drawn: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []

    def draw(self, base: Base, step: int, epoch: int) -> list[Image.Image]:
        """Draw every prompt with the base as it is now. A device without room for it ends the samples, not the run."""
        if self.remark:
            return []
        try:
            with torch.random.fork_rng([base.device] if base.device.type == "cuda" else []):
                pictures = self._pictures(base)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            self.remark = f"No samples from step {step} on: they do not fit into memory beside the training."
            pictures = []
        for prompt, picture in zip(self.prompts, pictures, strict=False):
            self._keep(picture, {"step": step, "epoch": epoch, "prompt": asdict(prompt)})
        self._write()
        return pictures

    def close(self, ended: str) -> None:
        """Write the page for the last time: how it ended, in words."""
        self.ended = ended
        self._write()

    def _pictures(self, base: Base) -> list[Image.Image]:
        """One per prompt; neighbours that are drawn alike in batches, which need less room than those of training."""
        s = self.settings
        found: list[Image.Image] = []
        for how, alike in groupby(self.prompts, key=lambda p: (p.negative, p.size, p.steps, p.cfg)):
            asked, (negative, size, steps, cfg) = list(alike), how
            with autocast(base):
                found += sample(
                    base,
                    [prompt.text for prompt in asked],
                    [prompt.seed for prompt in asked],
                    steps=steps,
                    cfg=cfg,
                    size=size,
                    negative=negative,
                    clip_skip=s.clip_skip,
                    max_tokens=s.max_tokens,
                    batch=s.batch,
                )
        return found

    def _keep(self, picture: Image.Image, entry: dict[str, Any]) -> None:
        entry = json.loads(json.dumps(entry))
        known = [*self._rows(), entry["prompt"]]
        entry["file"] = f"{self.name}-{known.index(entry['prompt']) + 1:02}-step{entry['step']:08}.png"
        images.save_png(picture, self.folder / entry["file"])
        self.drawn = [*(e for e in self.drawn if e["file"] != entry["file"]), entry]

    def _rows(self) -> list[dict[str, Any]]:
        """Every prompt that was drawn, in the order of their first pictures."""
        rows: list[dict[str, Any]] = []
        for entry in self.drawn:
            rows += [entry["prompt"]] if entry["prompt"] not in rows else []
        return rows

    def _write(self) -> None:
        write_whole(self.folder / LIST, (json.dumps(self.drawn, indent=1, ensure_ascii=False) + "\n").encode())
        write_whole(self.folder / PAGE, self._page().encode())

    def _page(self) -> str:
        # the newest first: the page begins at its right edge, so that it is seen without scrolling
        moments = sorted({(e["step"], e["epoch"]) for e in self.drawn}, reverse=True)
        cells = [
            (
                row,
                [next((e for e in self.drawn if (e["prompt"], e["step"]) == (row, step)), None) for step, _ in moments],
            )
            for row in self._rows()
        ]
        return pages.render(
            "training/gallery.html",
            pictures=pages.BESIDE,
            name=self.name,
            reload=0 if self.ended else RELOAD,
            state=self.ended or self._progress(),
            remark=self.remark,
            moments=moments,
            rows=cells,
        )

    def _progress(self) -> str:
        step = max((e["step"] for e in self.drawn), default=0)
        return f"step {step} of {self.last}; this page reloads itself every {RELOAD} seconds"
