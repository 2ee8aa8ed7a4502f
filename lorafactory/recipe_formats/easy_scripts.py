"""The TOML of LoRA_Easy_Training_Scripts: sd-scripts' arguments in tables of `args` and `dataset_args`, and subsets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorafactory.recipe_formats._defaults import defaults
from lorafactory.recipe_formats._receipt import Field
from lorafactory.recipe_formats._values import add, leaves, listed

__all__ = ["GENERAL", "NAME", "claims", "defaults", "fields"]
NAME = "LoRA_Easy_Training_Scripts TOML"
GENERAL = False
NAMES = {"warmup_ratio": "lr_warmup_steps", "max_resolution": "resolution"}


def claims(data: Mapping[str, Any]) -> bool:
    tables = [value for key, value in data.items() if str(key).endswith("_args") and isinstance(value, Mapping)]
    return "subsets" in data or any({"args", "dataset_args"} & table.keys() for table in tables)


def fields(data: Mapping[str, Any]) -> dict[str, Field]:
    """A subset's own come first and count."""
    found: dict[str, Field] = {}
    for i, subset in enumerate(listed(data, "subsets")):
        for key, path, value in leaves(subset):
            add(found, NAMES.get(key, key), f"subsets.{i}.{path}", value)
    for key, path, value in leaves({k: v for k, v in data.items() if k != "subsets"}):
        add(found, NAMES.get(key, key), path, value)
    return found
