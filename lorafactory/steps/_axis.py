"""LoRAs side by side: by a setting they were trained with, or one of them with groups of its blocks left out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from lorafactory import families
from lorafactory.errors import SettingsError
from lorafactory.steps._saves import Save, papers

T = TypeVar("T")
BLOCKS = "blocks"
GROUPS = {
    "IN": r"lora_unet_(down_blocks|input_blocks)_",
    "MID": r"lora_unet_(mid_block|middle_block)_",
    "OUT": r"lora_unet_(up_blocks|output_blocks)_",
    "text encoder": r"lora_te\d?_",
}
"""Kohya's names of the layers in each group, as diffusers and as the original releases number the blocks."""
KEYS = {
    "rank": "ss_network_dim",
    "alpha": "ss_network_alpha",
    "lr": "ss_learning_rate",
    "scheduler": "ss_lr_scheduler",
    "epochs": "ss_num_epochs",
    "batch": "ss_total_batch_size",
    "flip": "ss_flip_aug",
    "base": "ss_sd_model_name",
}
"""A setting's name here, where it is not the file's with `ss_` before it."""
NOT_SETTINGS = re.compile(r"ss_(output_name|training_\w+|session_id|\w*hash|tag_frequency|dataset_dirs|bucket_info)$")


def groups(save: Save) -> list[str]:
    """The groups of blocks that a LoRA changes."""
    names = families.header(save.path)
    return [group for group, pattern in GROUPS.items() if any(re.match(pattern, name) for name in names)]


def without(tensors: Mapping[str, T], group: str) -> dict[str, T]:
    """A LoRA's tensors but those of a group."""
    return {name: value for name, value in tensors.items() if not re.match(GROUPS[group], name)}


def by_setting(saves: Sequence[Save], key: str) -> list[Save]:
    """Saves in the order of a setting, called by its value; SettingsError if they do not differ in it."""
    if len(saves) < 2:
        cure = "train again with another setting, which keeps this one in results/, or name more files"
        raise SettingsError(f"--axis {key}: nothing to lay beside {saves[0].path.name}\n    {cure}")
    full = KEYS.get(key, key if key.startswith("ss_") else f"ss_{key}")
    told = [papers(save.path) for save in saves]
    values = [says.get(full, "not told") for says in told]
    if len(set(values)) < 2:
        raise SettingsError(f"--axis {key}: {_alike(values, full)}\n    {_differing(told)}")
    labels = [f"{key.removeprefix('ss_')} {value}" for value in values]
    named = [
        replace(save, label=f"{label}, {save.path.stem}" if labels.count(label) > 1 else label)
        for save, label in zip(saves, labels, strict=True)
    ]
    order = sorted(range(len(saves)), key=lambda i: (_rank(values[i]), saves[i].path.name))
    return [named[i] for i in order]


def _alike(values: Sequence[str], full: str) -> str:
    return f"no file tells {full}" if set(values) == {"not told"} else f"all files say {full} = {values[0]}"


def _differing(told: Sequence[Mapping[str, str]]) -> str:
    keys = sorted({key for says in told for key in says if key.startswith("ss_") and not NOT_SETTINGS.match(key)})
    ours = {full: name for name, full in KEYS.items()}
    found = [ours.get(k, k.removeprefix("ss_")) for k in keys if len({says.get(k) for says in told}) > 1]
    return f"they differ in: {', '.join(found)}" if found else "they differ in no setting"


def _rank(value: str) -> tuple[int, float, str]:
    """Numbers by size, then words by letter."""
    try:
        return 0, float(value), ""
    except ValueError:
        return 1, 0.0, value
