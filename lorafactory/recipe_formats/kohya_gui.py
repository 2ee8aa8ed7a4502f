"""The JSON that kohya_ss' GUI saves: flat, numbers often as texts, empty for unset."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lorafactory.recipe_formats._receipt import Field
from lorafactory.recipe_formats._values import add, convert, number, renamed

NAME = "kohya_ss GUI JSON"
GENERAL = False
SIGNS = {"LoRA_type", "max_resolution", "noise_offset_type", "sdxl_no_half_vae", "additional_parameters", "lr_warmup"}
NAMES = {
    "epoch": "max_train_epochs",
    "optimizer": "optimizer_type",
    "max_resolution": "resolution",
    "lr_warmup": "lr_warmup_steps",
    "lora_network_weights": "network_weights",
    "LyCORIS_preset": "preset",
    "use_cp": "use_tucker",
    "sdxl_no_half_vae": "no_half_vae",
    "sdxl_cache_text_encoder_outputs": "cache_text_encoder_outputs",
}
RIVALS = (("max_train_epochs", "epoch"), ("lr_warmup_steps", "lr_warmup"))
"""The first counts where it is set and not 0, else the second."""
DEFAULTS = {
    "LoRA_type": "Standard",
    "network_dim": 8,
    "network_alpha": 1,
    "max_train_epochs": 1,
    "train_batch_size": 1,
    "learning_rate": 1e-4,
    "lr_scheduler": "cosine",
    "optimizer_type": "AdamW8bit",
    "resolution": "512,512",
}


def claims(data: Mapping[str, Any]) -> bool:
    return bool(SIGNS & data.keys())


def fields(data: Mapping[str, Any]) -> dict[str, Field]:
    """The warm-up is percent of the steps; additional_parameters are options, one field each."""
    counts = [second if Field("", data.get(first)).off else first for first, second in RIVALS]
    ordered = {**{key: data[key] for key in counts if key in data}, **data}
    more = data.get("additional_parameters")
    found = renamed({k: v for k, v in ordered.items() if not (v is more and isinstance(more, str) and more)}, NAMES)
    percent = number(data.get("lr_warmup"))
    if "lr_warmup" in counts and percent:
        convert(found, "lr_warmup_steps", percent / 100, "percent of the steps, a share here")
    for first, _ in RIVALS:
        if {first, late := f"{first}#2"} <= found.keys():
            found[late] = replace(found[late], inert=f"{found[first].name} counts")
    for option, value in options(more).items():
        name = NAMES.get(option, option)
        if (before := found.pop(name, None)) is not None:
            found[f"{name}#before"] = replace(before, inert="additional_parameters say it too, and count")
        add(found, name, f"additional_parameters --{option}", value)
    return found


def options(text: Any) -> dict[str, Any]:
    """`--v_parameterization --noise_offset=0.1` as names and values."""
    try:
        words = shlex.split(text) if isinstance(text, str) else []
    except ValueError:  # a quote that does not end
        words = str(text).split()
    found: dict[str, Any] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            found[name] = value if equals else True
        else:
            found[name] = word if found.get(name, True) is True else f"{found[name]} {word}"
    return found


def defaults(data: Mapping[str, Any]) -> dict[str, Any]:
    """The GUI's own; as many cycles as epochs; and a text encoder without a rate beside the UNet's is not trained."""
    silent = {} if Field("", data.get("unet_lr")).off else {"text_encoder_lr": 0}
    convolved = {} if data.get("LoRA_type", "Standard") == "Standard" else {"conv_dim": 1, "conv_alpha": 1}
    return {**DEFAULTS, "lr_scheduler_num_cycles": data.get("epoch", 1), **convolved, **silent}
