"""Saves and scores as a training and a comparison leave them, for the tests of pick."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

from PIL import Image

from lorafactory import images
from lorafactory.recipe import Header, Recipe
from lorafactory.step import Work
from lorafactory.training.lora_header import tensor_hash
from lorafactory.workspace import LoraDir, Workspace


def write_save(path: Path, content: str, **metadata: str) -> Path:
    header = json.dumps({"__metadata__": metadata, "t": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]}}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(header)) + header + content.encode().ljust(8))
    return path


def write_scores(work: Work, likeness: list[float], **scores: list[float]) -> None:
    """Scores as compare writes them: the baseline at 0.4, then a save per likeness; two cells each."""
    columns: list[dict[str, Any]] = []
    for epoch, like in enumerate([0.4, *likeness]):
        name = f"anna-{epoch:06}.safetensors" if epoch else None
        cells = []
        for seed in (1, 2, 3):
            file = f"cells/{epoch}-{seed}.png"
            (work.place.comparison / "cells").mkdir(parents=True, exist_ok=True)
            images.save_png(Image.new("RGB", (48, 48), (epoch * 40, seed * 60, 0)), work.place.comparison / file)
            cells.append({"prompt": 0, "seed": seed, "likeness": like + seed / 1000, "copy": False, "file": file})
        if epoch:  # only the baseline has the third cell
            cells[-1] |= {"likeness": None, "copy": None, "file": None, "command": "lora compare anna --full"}
        save = work.place.result / str(name)
        columns.append(
            {
                "save": name,
                "label": f"epoch {epoch}" if epoch else "baseline",
                "epoch": epoch,
                "step": 10 * epoch,
                "strength": 1.0 if epoch else 0.0,
                "base": "pocket",
                "sha256": images.sha256(save) if epoch else None,
                "tensors": tensor_hash(save) if epoch else None,
                "likeness": like,
                "floor": 0.4,
                "likeness_error": 0.0,
                "fit": scores.get("fit", [0.3] * 9)[epoch],
                "fit_floor": 0.3,
                "diversity": 0.3,
                "diversity_floor": 0.3,
                "copies": scores.get("copies", [0.0] * 9)[epoch],
                "artefacts": 0.5,
                "cells": cells,
            }
        )
    other = {**columns[-1], "base": "another", "likeness": 0.99, "label": "epoch 3 on another"}
    told = {
        "version": 2,
        "strength": 1.0,
        "set": {"floor": 0.4, "ceiling": 0.8, "diversity": 0.3, "fit": None},
        "seeds": [1, 2, 3],
        "prompts": [{"text": "4nna", "trigger": True, "plain": "", "group": "like"}],
        "columns": [*columns, other],
    }
    (work.place.comparison / "scores.json").write_text(json.dumps(told), encoding="utf-8")


def three_saves(folder: Path) -> Work:
    """Three saves; by the verdict the second is chosen."""
    place = LoraDir("anna", folder / "loras" / "anna", owned=True)
    for epoch in (1, 2, 3):
        told = {"modelspec.architecture": "stable-diffusion-v1/lora", "modelspec.title": f"anna epoch {epoch}"}
        write_save(place.result / f"anna-{epoch:06}.safetensors", f"epoch {epoch}", ss_learning_rate="0.0004", **told)
    header = Header(kind="person", **{"class": "woman"}, trigger="4nna")
    made = Work(Workspace(folder, "test"), place, Recipe(header, {}, {}))
    write_scores(made, [0.5, 0.7, 0.69])
    return made


def papers(path: Path) -> dict[str, str]:
    """The metadata of a LoRA file, whose hashes must be right."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    found: dict[str, str] = json.loads(data[8 : 8 + length])["__metadata__"]
    digest = hashlib.sha256(data[8 + length :]).hexdigest()
    assert (found["sshs_model_hash"], found["modelspec.hash_sha256"]) == (digest, f"0x{digest}")
    return found
