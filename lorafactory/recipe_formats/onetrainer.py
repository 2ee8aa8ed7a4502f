"""OneTrainer's preset or settings as JSON: nested, and only what differs from its own defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lorafactory.recipe_formats._receipt import Field
from lorafactory.recipe_formats._values import add, convert, leaves, listed, number

NAME = "OneTrainer JSON"
GENERAL = False
SIGNS = {"training_method", "lora_rank", "base_model_name", "learning_rate_scheduler", "layer_filter_preset"}
NAMES = {
    "base_model_name": "pretrained_model_name_or_path",
    "epochs": "max_train_epochs",
    "unet.learning_rate": "unet_lr",
    "text_encoder.learning_rate": "text_encoder_lr",
    "text_encoder_2.learning_rate": "text_encoder_lr2",
    "text_encoder.train": "train_text_encoder",
    "text_encoder_2.train": "train_text_encoder_2",
    "text_encoder.dropout_probability": "caption_dropout_rate",
    "unet.gradient_checkpointing": "gradient_checkpointing",
    "unet.weight_dtype": "mixed_precision",
    "output_dtype": "save_precision",
    "peft_type": "algorithm",
    "lora_decompose": "dora_wd",
    "lora_rank": "network_dim",
    "lora_alpha": "network_alpha",
    "lora_model_name": "network_weights",
    "dropout_probability": "network_dropout",
    "learning_rate_scheduler": "lr_scheduler",
    "learning_rate_cycles": "lr_scheduler_num_cycles",
    "learning_rate_warmup_steps": "lr_warmup_steps",
    "clip_grad_norm": "max_grad_norm",
    "offset_noise_weight": "noise_offset",
    "force_v_prediction": "v_parameterization",
    "min_noising_strength": "min_timestep",
    "max_noising_strength": "max_timestep",
    "masked_training": "masked_loss",
    "aspect_ratio_bucketing": "enable_bucket",
    "optimizer.optimizer": "optimizer_type",
}
CONCEPT = {
    "text.enable_tag_shuffling": "shuffle_caption",
    "text.keep_tags_count": "keep_tokens",
    "text.tag_delimiter": "caption_separator",
    "image.enable_random_flip": "flip_aug",
}
UNITS = {"EPOCH": "epochs", "STEP": "steps"}
WEIGHTS = {"MIN_SNR_GAMMA": "min_snr_gamma", "DEBIASED_ESTIMATION": "debiased_estimation_loss"}
BITS = {"NFLOAT_4": "4bit", "INT_8": "8bit", "FLOAT_8": "8bit"}
RIGHT = {
    "training_method": ("LORA",),
    "model_type": ("STABLE_DIFFUSION_15", "STABLE_DIFFUSION_XL_10_BASE"),
    "output_model_format": ("SAFETENSORS", "KOHYA_LORA", "LEGACY_SAFETENSORS"),
    "loss_weight_fn": ("CONSTANT",),
    "layer_filter_preset": ("attn-mlp",),
    "timestep_distribution": ("UNIFORM",),
    "vae.weight_dtype": ("FLOAT_32",),
    "lora_weight_dtype": ("FLOAT_32",),
}
"""Values that ask for what is done here anyway."""
BETAS = ("beta1", "beta2")
ADAM = ("eps", "weight_decay")
PRODIGY = (*ADAM, "beta3", "d0", "d_coef", "decouple", "growth_rate", "safeguard_warmup", "use_bias_correction")
ARGUMENTS = {
    "ADAMW": ADAM,
    "ADAMW_8BIT": ADAM,
    "LION": ("weight_decay",),
    "LION_8BIT": ("weight_decay",),
    "PRODIGY": PRODIGY,
    "ADAFACTOR": ("clip_threshold", "decay_rate", "weight_decay"),
    **dict.fromkeys(("DADAPT_ADAM", "DADAPT_ADAN", "DADAPT_LION", "DADAPT_SGD", "DADAPT_ADA_GRAD"), PRODIGY),
}
"""What of the optimizer's table is an argument of it; the table has those of all."""
DEFAULTS = {
    "algorithm": "LORA",
    "network_dim": 16,
    "network_alpha": 1.0,
    "max_train_epochs": 100,
    "train_batch_size": 1,
    "learning_rate": 3e-6,
    "lr_scheduler": "constant_with_warmup",
    "lr_warmup_steps": 200,
    "optimizer_type": "adamw",
    "resolution": "512",
    "save_precision": "FLOAT_32",
}


def claims(data: Mapping[str, Any]) -> bool:
    return bool(SIGNS & data.keys())


def fields(data: Mapping[str, Any]) -> dict[str, Field]:
    """Words and units are sd-scripts', where they differ; concepts are here only in packed settings."""
    found: dict[str, Field] = {}
    for _, path, value in leaves({key: value for key, value in data.items() if key != "concepts"}):
        add(found, NAMES.get(path, path), path, value)
    for i, concept in enumerate(listed(data, "concepts")):
        for _, path, value in leaves(concept):
            add(found, CONCEPT.get(path, f"concepts.{path}"), f"concepts.{i}.{path}", value)
    for part in (schedule, optimizer, weighting, precision):
        part(found)
    for name, by in (("save_every", "save_every_n"), ("sample_after", "sample_every_n")):
        unit = found.get(f"{name}_unit", Field("", ""))
        if name in found and unit.word in UNITS:
            found[f"{by}_{UNITS[unit.word]}"] = found.pop(name)
            found[f"{name}_unit"] = replace(unit, inert=f"the unit of {name}")
    for name, values in RIGHT.items():
        if name in found and found[name].value in values:
            found[name] = replace(found[name], inert="so it is here")
    if "," in str(found["resolution"].value if "resolution" in found else ""):
        found["resolutions"] = replace(found.pop("resolution"), why="one resolution is trained here")
    return found


def weighting(found: dict[str, Field]) -> None:
    """One function, and its strength."""
    weight = found.get("loss_weight_fn")
    if weight and weight.word in WEIGHTS:
        strength = found.pop("loss_weight_strength", Field("loss_weight_strength", 5.0, supposed=True))
        found[WEIGHTS[weight.word]] = strength
        found["loss_weight_fn"] = replace(weight, inert="its strength has a line")
    for name in ("min_timestep", "max_timestep"):
        share = number(found[name].value) if name in found else None
        if share is not None:
            convert(found, name, round(share * 1000), "a share of the timesteps")


def precision(found: dict[str, Field]) -> None:
    """The UNet's may be less than 16 bits. The average of the weights may lie on the card or beside it."""
    if "ema" in found and found["ema"].on:
        convert(found, "ema", True)
    held = found.get("mixed_precision")
    if held and held.word in BITS:
        found["quantize"] = replace(found.pop("mixed_precision"), value=BITS[held.word], said=held.value)


def schedule(found: dict[str, Field]) -> None:
    """The warm-up comes before every course, the constant one too; 1 is all steps, where sd-scripts' 1 is one."""
    if "lr_scheduler" in found and found["lr_scheduler"].value == "CONSTANT":
        convert(found, "lr_scheduler", "constant_with_warmup")
    if "lr_warmup_steps" in found and number(found["lr_warmup_steps"].value) == 1:
        all_of_it = "1 is all of the steps there, and the rate would rise to the end"
        found["learning_rate_warmup_steps"] = replace(found.pop("lr_warmup_steps"), why=all_of_it)


def optimizer(found: dict[str, Field]) -> None:
    """The arguments of the one that is chosen; its two betas are one argument elsewhere."""
    named = str(found["optimizer_type"].value) if "optimizer_type" in found else "ADAMW"
    convert(found, "optimizer_type", named.replace("_", ""))
    betas = [found.get(f"optimizer.{name}", Field("", None)) for name in BETAS]
    if all(beta.set for beta in betas) and named != "ADAFACTOR":
        for name in BETAS:
            del found[f"optimizer.{name}"]
        one = Field(" and ".join(beta.name for beta in betas), [beta.value for beta in betas])
        found["optimizer_args.betas"] = one
    for name in ARGUMENTS.get(named, ()):
        if f"optimizer.{name}" in found:
            found[f"optimizer_args.{name}"] = found.pop(f"optimizer.{name}")


def defaults(data: Mapping[str, Any]) -> dict[str, Any]:
    return DEFAULTS
