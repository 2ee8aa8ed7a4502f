"""Reads the files beside it."""

from __future__ import annotations

from pathlib import Path

from lorafactory import recipe_formats
from lorafactory.commands.recipe import accept
from lorafactory.recipe_formats import Reading

HERE = Path(__file__).parent


def read(name: str) -> Reading:
    return recipe_formats.read(recipe_formats.parse(HERE / name), accept)


def why(reading: Reading, verdict: str) -> dict[str, str]:
    """Fields of a verdict, and what is said of them."""
    return {line.field.name: line.why for line in reading.lines.values() if line.verdict == verdict}
