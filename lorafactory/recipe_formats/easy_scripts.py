"""LoRA_Easy_Training_Scripts: TOML with tables of sd-scripts' `args` and `dataset_args`, or its older, flat JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorafactory.recipe_formats import _defaults
from lorafactory.recipe_formats._receipt import Field
from lorafactory.recipe_formats._values import add, leaves, listed, without

__all__ = ["GENERAL", "NAME", "claims", "defaults", "fields"]
NAME = "LoRA_Easy_Training_Scripts"
GENERAL = False
SIGNS = {"net_dim", "train_resolution", "cosine_restarts", "warmup_lr_ratio"}
"""Names that the older form alone has."""
NAMES = {
    "warmup_ratio": "lr_warmup_steps",
    "max_resolution": "resolution",
    "warmup_lr_ratio": "lr_warmup_steps",
    "base_model": "pretrained_model_name_or_path",
    "shuffle_captions": "shuffle_caption",
    "train_resolution": "resolution",
    "buckets": "enable_bucket",
    "min_bucket_resolution": "min_bucket_reso",
    "max_bucket_resolution": "max_bucket_reso",
    "change_output_name": "output_name",
    "max_clip_token_length": "max_token_length",
    "max_steps": "max_train_steps",
    "num_epochs": "max_train_epochs",
    "num_workers": "max_data_loader_n_workers",
    "persistent_workers": "persistent_data_loader_workers",
    "test_seed": "seed",
    "gradient_acc_steps": "gradient_accumulation_steps",
    "scheduler": "lr_scheduler",
    "cosine_restarts": "lr_scheduler_num_cycles",
    "scheduler_power": "lr_scheduler_power",
    "no_meta": "no_metadata",
    "save_as": "save_model_as",
    "lora_model_for_resume": "network_weights",
    "net_dim": "network_dim",
    "alpha": "network_alpha",
    "unet_only": "network_train_unet_only",
    "text_only": "network_train_text_encoder_only",
}


def claims(data: Mapping[str, Any]) -> bool:
    tables = [value for key, value in data.items() if str(key).endswith("_args") and isinstance(value, Mapping)]
    return bool(SIGNS & data.keys()) or "subsets" in data or any({"args", "dataset_args"} & t.keys() for t in tables)


def fields(data: Mapping[str, Any]) -> dict[str, Field]:
    """A subset's own come first and count. What is said of the module begins with its folder in the older form."""
    found: dict[str, Field] = {}
    for i, subset in enumerate(listed(data, "subsets")):
        for key, path, value in leaves(subset):
            add(found, NAMES.get(key, key), f"subsets.{i}.{path}", value)
    for key, path, value in leaves(without(data, "subsets")):
        own = value.removeprefix("sd_scripts.") if key == "network_module" and isinstance(value, str) else value
        add(found, NAMES.get(key, key), path, own)
    return found


def defaults(data: Mapping[str, Any]) -> dict[str, Any]:
    """sd-scripts' own; `unit` alone asks for DyLoRA."""
    found = _defaults.defaults(data)
    asks = any(
        name == "network_args" and "unit" in value for name, _, value in leaves(data) if isinstance(value, Mapping)
    )
    return {**found, "network_module": "networks.dylora"} if asks and "network_module" in found else found
