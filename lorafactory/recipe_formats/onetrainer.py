"""OneTrainer's JSON: presets with what differs from its defaults, settings with all there is, or the older flat one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lorafactory.recipe_formats._receipt import Field
from lorafactory.recipe_formats._values import add, convert, leaves, listed, number, without

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
    "lokr_decompose_factor": "factor",
    "lokr_decompose_both": "decompose_both",
    "lokr_use_tucker": "use_tucker",
    "layer_filter_preset": "preset",
    "compile": "torch_compile",
}
PARTS = ("unet", "text_encoder", "text_encoder_2", "vae")
OLDER = {
    **{f"train_{part}": f"{part}.train" for part in PARTS},
    **{f"train_{part}_epochs": f"{part}.stop_training_after" for part in PARTS},
    **{f"{part}_learning_rate": f"{part}.learning_rate" for part in PARTS},
    **{f"{part}_weight_dtype": f"{part}.weight_dtype" for part in PARTS},
    "optimizer": "optimizer.optimizer",
    "weight_decay": "optimizer.weight_decay",
    "lora_layer_preset": "layer_filter_preset",
    "save_after": "save_every",
    "save_after_unit": "save_every_unit",
}
"""Names of the flat form; it trained attention alone, as `attn-mlp`."""
ELSEWHERE = re.compile(
    r"(prior|transformer|unconditional_transformer|effnet_encoder|(decoder|text_encoder_[34])\w*|embeddings?|cloud|samples"
    r"|additional_embeddings|quantization|optimizer_defaults)(\.|$)|(token_count|initial_embedding_text|frames)$"
    r"|(oft|dora_oft|embedding|preserve_embedding|custom_conditioning|dynamic_timestep|cep|vb_loss)_|vae\.train"
    r"|text_encoder\w*sequence_length$|(text_encoder\w*|vae)\.gradient_checkpointing$"
    r"|\w+\.(include|attention_mask|guidance_scale|train_embedding|offload_fraction|activation_offloading)$"
)
"""Of other models, other kinds of training, and memory."""
IDLE = {
    "masked_training": ("unmasked_probability", "unmasked_weight"),
    "huber_strength": ("huber_delta",),
    "ema": ("ema_update_step_interval",),
    "lora_decompose": ("lora_decompose_norm_epsilon", "lora_decompose_output_axis"),
}
"""What counts only where the first is on."""
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
    "output_model_format": ("SAFETENSORS", "KOHYA_LORA", "LEGACY_SAFETENSORS", "LEGACY_LORA"),
    "loss_weight_fn": ("CONSTANT",),
    "timestep_distribution": ("UNIFORM",),
    "vae.weight_dtype": ("FLOAT_32",),
    "lora_weight_dtype": ("FLOAT_32",),
    "unet.train": (True,),
    "mse_strength": (1,),
    "timestep_shift": (1,),
    "loss_scaler": ("NONE",),
    "learning_rate_scaler": ("NONE",),
    "text_encoder_layer_skip": (0,),
    "text_encoder_2_layer_skip": (0,),
}
"""Values that ask for what is done here anyway."""
BETAS = ("beta1", "beta2")
ADAM = ("eps", "weight_decay")
PRODIGY = (
    *ADAM, "beta3", "d0", "d_coef", "decouple", "growth_rate", "safeguard_warmup", "slice_p", "use_bias_correction",
)  # fmt: skip
ARGUMENTS = {
    "ADAMW": (*ADAM, "amsgrad"),
    "ADAMW_8BIT": ADAM,
    "LION": ("weight_decay",),
    "LION_8BIT": ("weight_decay",),
    "PRODIGY": PRODIGY,
    "ADAFACTOR": (
        "clip_threshold", "decay_rate", "weight_decay", "scale_parameter", "relative_step", "warmup_init", "beta1",
    ),
    **dict.fromkeys(("DADAPT_ADAM", "DADAPT_ADAN", "DADAPT_LION", "DADAPT_SGD", "DADAPT_ADA_GRAD"), PRODIGY),
}  # fmt: skip
"""What of the optimizer's table is an argument of it; the table has those of all."""
DEFAULTS: dict[str, Any] = {
    "algorithm": "LORA",
    "preset": "full",
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
    flat = is_flat(data)
    if flat:
        found["preset"] = Field("(the flat form)", "attn-mlp", supposed=True)
    for _, path, value in leaves(without(data, "concepts")):
        now = OLDER.get(path, path) if flat else path
        add(found, NAMES.get(now, now), path, value)
    for i, concept in enumerate(listed(data, "concepts")):
        for _, path, value in leaves(concept):
            add(found, CONCEPT.get(path, f"concepts.{path}"), f"concepts.{i}.{path}", value)
    for part in (layers, schedule, optimizer, weighting, precision, unneeded):
        part(found)
    for name, by in (("save_every", "save_every_n"), ("sample_after", "sample_every_n")):
        unit = found.pop(f"{name}_unit", Field("", ""))
        if unit.word in UNITS and name in found:
            found[f"{by}_{UNITS[unit.word]}"] = found.pop(name)
        elif unit.word == "NEVER" and name in found:
            found[name] = replace(found[name], inert="never")
        if unit.name:
            found[f"{name}_unit"] = replace(unit, inert=f"the unit of {name}")
    if "," in str(found["resolution"].value if "resolution" in found else ""):
        found["resolutions"] = replace(found.pop("resolution"), why="one resolution is trained here")
    return found


def is_flat(data: Mapping[str, Any]) -> bool:
    return isinstance(data.get("optimizer"), str) or "train_unet" in data or "unet_learning_rate" in data


def layers(found: dict[str, Field]) -> None:
    """Which are changed: attention with its projections, or all there are; LoKr has a rank of its own."""
    kind, preset = (str(found[name].value if name in found else DEFAULTS[name]) for name in ("algorithm", "preset"))
    if kind == "LOKR" and "lokr_dim" in found:
        found["rank of LoRA"] = replace(found.pop("network_dim", Field("lora_rank", "")), inert="lokr_dim counts")
        found["network_dim"] = found.pop("lokr_dim")
    if preset in ("full", "attn-mlp") and "layer_filter" in found:
        found["layer_filter"] = replace(found["layer_filter"], inert="layer_filter_preset says it")
    if preset != "full" or ("dora_wd" in found and found["dora_wd"].on):
        return
    found["algorithm"] = replace(found.get("algorithm", Field("peft_type", kind, supposed=True)), why="for all layers")
    if kind == "LORA":
        convert(found, "algorithm", "locon", "for all layers")
    for name, other in (("conv_dim", "network_dim"), ("conv_alpha", "network_alpha")):
        rank = found[other].value if other in found and found[other].set else DEFAULTS[other]
        found[name] = Field(name, rank, supposed=True, why=f"{other}'s")


def unneeded(found: dict[str, Field]) -> None:
    """What asks for nothing: values as they are here, things of other models, and what is off as a whole."""
    unet = found.get("mixed_precision", Field("", None)).written
    for name, field in found.items():
        if name in RIGHT and field.value in RIGHT[name]:
            found[name] = replace(field, inert="so it is here")
        elif ELSEWHERE.match(name):
            found[name] = replace(field, inert="of no use for this training")
        elif name.startswith("optimizer."):
            found[name] = replace(field, inert="not of this optimizer, or of how it is computed")
        elif name.startswith("lokr_"):
            found[name] = replace(field, inert="for LoKr alone")
        elif name.endswith((".stop_training_after", ".stop_training_after_unit")):
            found[name] = lasting(found, name)
        elif name in ("train_dtype", "text_encoder.weight_dtype", "text_encoder_2.weight_dtype") and (
            field.value in (unet, "NONE")
        ):
            found[name] = replace(field, inert="that of the UNet")
    for first, names in IDLE.items():
        off = first not in found or found[first].off
        for name in names if off else ():
            if name in found:
                found[name] = replace(found[name], inert=f"{first} is off")


def lasting(found: dict[str, Field], name: str) -> Field:
    """Whether a part's training ends before all is done, counted in epochs."""
    part, _, what = name.partition(".")
    field, trained = found[name], found.get(NAMES.get(f"{part}.train", f"{part}.train"), Field("", True))
    all_epochs = (
        number(found["max_train_epochs"].value) if "max_train_epochs" in found else DEFAULTS["max_train_epochs"]
    )
    until = number(found[f"{part}.stop_training_after"].value) if f"{part}.stop_training_after" in found else None
    if trained.off:
        return replace(field, inert="it is not trained")
    if what.endswith("_unit"):
        return replace(field, inert="the unit of stop_training_after")
    return replace(field, inert="no sooner than the end") if until and until >= (all_epochs or 1) else field


def weighting(found: dict[str, Field]) -> None:
    """One function, and its strength."""
    weight = found.get("loss_weight_fn")
    if weight and weight.word in WEIGHTS:
        strength = found.pop("loss_weight_strength", Field("loss_weight_strength", 5.0, supposed=True))
        found[WEIGHTS[weight.word]] = strength
        found["loss_weight_fn"] = replace(weight, inert="its strength has a line")
    elif "loss_weight_strength" in found:
        found["loss_weight_strength"] = replace(found["loss_weight_strength"], inert="for another loss_weight_fn")
    for name in ("min_timestep", "max_timestep"):
        share = number(found[name].value) if name in found else None
        if share is not None:
            convert(found, name, round(share * 1000), "a share of the timesteps")


def precision(found: dict[str, Field]) -> None:
    """The UNet's may be less than 16 bits. The average of the weights may lie on the card or beside it."""
    if "ema" in found and found["ema"].on:
        convert(found, "ema", True)
    common = found.get("weight_dtype")
    if common and found.get("mixed_precision", Field("", "NONE")).value == "NONE":
        found["unet_weight_dtype"] = replace(found.pop("mixed_precision", common), inert="weight_dtype's")
        found["mixed_precision"] = found.pop("weight_dtype")
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
