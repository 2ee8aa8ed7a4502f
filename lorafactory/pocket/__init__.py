"""The embedded model set: a drawn world, models trained on it from scratch, and how they were trained."""

from __future__ import annotations

import json
from pathlib import Path

MODELS = Path(__file__).parent / "weights"
"""Folder of the weights: `base/` (diffusers), `clip/` (open_clip), `blip/` and `dino/` (transformers)."""
FIGURES = MODELS / "figures.json"
"""What `floors.py` measured of them."""
ASKED = (
    ("unet", "all", "pictures of one object with shape, colour and background right, told by pixels"),
    ("blip", "all", "captions with shape, colour and background right, nine beams"),
    ("clip", "first", "true caption first among all its one-attribute neighbours"),
    ("vae", "dB", "scenes rebuilt"),
    ("dino", "first", "the same thing again first among pictures of others with one detail changed"),
    ("dino", "first as the base draws", "the same, as the VAE gives them back, and one half forgotten by the base"),
    ("gain", "right", "how far to the set a picture comes as the VAE gives it back"),
    ("gain", "one detail wrong", "how far one of the thing with one detail changed comes"),
    ("gain", "half forgotten", "how far one that the base half forgot comes"),
)
"""Model, figure, and what it is a figure of."""


def figures() -> str:
    """The measured figures as a Markdown table."""
    told = json.loads(FIGURES.read_text(encoding="utf-8"))
    rows = ["", "| model | what | cases | figure |", "| --- | --- | --- | --- |"]
    for part, name, text in ASKED:
        value, cases = told[part][name], told[part]["cases"]
        rows.append(f"| {part} | {text} | {cases} | {f'{value:.1f} dB' if name == 'dB' else f'{value:.1%}'} |")
    return "\n".join(rows) + "\n\n"
