"""What a kohya LoRA file says of its own training: `ss_` and an argument's name; all values are texts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from lorafactory.recipe_formats._receipt import Field
from lorafactory.recipe_formats._values import add, leaves, listed, without

NAME = "metadata of a LoRA file"
GENERAL = False
METADATA = "__metadata__"
NAMES = {
    "optimizer": "optimizer_type",
    "num_epochs": "max_train_epochs",
    "batch_size_per_device": "train_batch_size",
    "debiased_estimation": "debiased_estimation_loss",
    "n_repeats": "num_repeats",
}
ABOUT = re.compile(
    r"^(modelspec\.|sshs_|lorafactory\.)|^ss_(session_id|training_\w+|output_name|num_\w+images|num_batches_per_epoch"
    r"|total_batch_size|epoch|steps|tag_\w+|bucket_info|\w+_dirs|\w*hash|vae_\w+|base_model_version|validation_\w+)$"
)
"""What tells of that run and its pictures, and is no setting."""
OF_THAT_RUN = "tells of that run and its pictures"


def claims(data: Mapping[str, Any]) -> bool:
    return METADATA in data


def fields(data: Mapping[str, Any]) -> dict[str, Field]:
    """Tables within are JSON; whether a text encoder was trained is told by the tensors' names."""
    held = data[METADATA]
    found: dict[str, Field] = {}
    for key, text in held.items() if isinstance(held, Mapping) else ():
        value = unpacked(text)
        name = str(key).removeprefix("ss_")
        if name == "optimizer":
            optimizer(found, str(text))
        elif name in ("datasets", "dataset_dirs"):
            sets(found, key, value)
        elif ABOUT.search(str(key)):
            found[f"(label) {key}"] = Field(str(key), text, inert=OF_THAT_RUN)
        else:
            add(found, NAMES.get(name, name), str(key), value)
    if not any(str(key).startswith("lora_te") for key in data):
        found["network_train_unet_only"] = Field("(no tensors of a text encoder)", True)
    return found


def unpacked(text: Any) -> Any:
    """A text that is a JSON table or list as that."""
    if isinstance(text, str) and text[:1] in ("{", "["):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text


def optimizer(found: dict[str, Field], text: str) -> None:
    """`bitsandbytes.optim.adamw.AdamW8bit(weight_decay=0.1)`: its class, and what it was given."""
    path, _, args = text.partition("(")
    found["optimizer_type"] = Field("ss_optimizer", path.rpartition(".")[2], said=text)
    if args.removesuffix(")"):
        found["optimizer_args"] = Field("ss_optimizer, its arguments", args.removesuffix(")"), said=text)


def sets(found: dict[str, Field], key: str, value: Any) -> None:
    """The datasets of a run that had their TOML, or its folders with their repeats."""
    tables = listed({"it": value}, "it") if isinstance(value, list) else [value] if isinstance(value, Mapping) else []
    if not tables:
        found[f"(label) {key}"] = Field(key, value, inert=OF_THAT_RUN)
    for i, table in enumerate(tables):
        if "tag_frequency" in table:
            told = f"{key}.{i}.tag_frequency"
            found[f"(label) {told}"] = Field(told, table["tag_frequency"], inert=OF_THAT_RUN)
        for name, path, held in leaves({k: v for k, v in without(table, "subsets").items() if k != "tag_frequency"}):
            add(found, NAMES.get(name, name), f"{key}.{i}.{path}", held)
        for j, subset in enumerate(listed(table, "subsets")):
            for name, path, held in leaves(subset):
                add(found, name, f"{key}.{i}.subsets.{j}.{path}", held)


def defaults(data: Mapping[str, Any]) -> dict[str, Any]:
    """None: what is not said is not known."""
    return {}
