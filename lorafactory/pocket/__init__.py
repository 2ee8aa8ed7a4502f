"""The embedded model set: a drawn world, models trained on it from scratch, and how they were trained."""

from __future__ import annotations

import json
from pathlib import Path

MODELS = Path(__file__).parent / "weights"
"""Folder of the weights: `base/` (diffusers), `clip/` (open_clip), `blip/` and `dino/` (transformers)."""
FIGURES = MODELS / "figures.json"
"""What `floors.py` measured of them."""
ASKED = {
    "unet": "pictures of one object with shape, colour and background right, told by pixels",
    "blip": "captions with shape, colour and background right, nine beams",
    "clip": "true caption first among all its one-attribute neighbours",
    "vae": "scenes rebuilt",
    "dino": "the same thing again first among pictures of others with one detail changed",
}


def figures() -> str:
    """The measured figures as a Markdown table."""
    told = json.loads(FIGURES.read_text(encoding="utf-8"))
    rows = ["", "| model | what | cases | figure |", "| --- | --- | --- | --- |"]
    for part, text in ASKED.items():
        values = told[part]
        chosen = values.get("all", values.get("first"))
        shown = f"{chosen:.1%}" if chosen is not None else f"{values['dB']:.1f} dB"
        rows.append(f"| {part} | {text} | {values['cases']} | {shown} |")
    return "\n".join(rows) + "\n\n"
