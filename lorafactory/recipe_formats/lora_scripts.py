"""The TOML of Akegarasu's lora-scripts (SD-Trainer): sd-scripts' arguments, and some of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorafactory.recipe_formats._defaults import defaults
from lorafactory.recipe_formats._receipt import Field
from lorafactory.recipe_formats._values import leaves, renamed

__all__ = ["GENERAL", "NAME", "claims", "defaults", "fields"]
NAME = "lora-scripts TOML"
GENERAL = False
SIGNS = {
    "model_train_type", "lycoris_algo", "lr_restart_cycles", "optimizer_args_custom", "network_args_custom",
    "enable_preview", "enable_block_weights", "log_module", "additional_network",
}  # fmt: skip
NAMES = {
    "lr_restart_cycles": "lr_scheduler_num_cycles",
    "optimizer_args_custom": "optimizer_args",
    "network_args_custom": "network_args",
    "lycoris_algo": "algo",
    "lokr_factor": "factor",
    "dylora_unit": "unit",
    "dropout": "network_dropout",
    "prodigy_d0": "optimizer_args.d0",
    "prodigy_d_coef": "optimizer_args.d_coef",
}


def claims(data: Mapping[str, Any]) -> bool:
    return bool(SIGNS & data.keys()) or any(name in SIGNS for name, _, _ in leaves(data))


def fields(data: Mapping[str, Any]) -> dict[str, Field]:
    return renamed(data, NAMES)
