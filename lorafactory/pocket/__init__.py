"""The embedded model set: a drawn world, models trained on it from scratch, and how they were trained."""

from pathlib import Path

MODELS = Path(__file__).parent / "weights"
"""Folder of the weights: `base/` (diffusers), `clip/` (open_clip), `blip/` (transformers)."""
