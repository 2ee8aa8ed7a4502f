"""What sd-scripts takes: names and types of its arguments, and the rules it holds them to. Read at 6edbe005.

From `library/train_util.py` (add_sd_models_, add_dataset_, add_training_, add_masked_loss_, add_optimizer_arguments,
read_config_from_file, prepare_dataset_args, verify_training_args, get_optimizer), `library/custom_train_functions.py`
(add_custom_train_arguments), `library/config_util.py` (ConfigSanitizer), `train_network.py` and
`sdxl_train_network.py` (setup_parser), `networks/lora.py` and `networks/dylora.py` (create_network).

A file's values are put into the parsed arguments as they are: argparse converts and checks none of them.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

Kind = type | tuple[type, ...] | frozenset[Any]


def _of(kind: Kind, names: str) -> dict[str, Kind]:
    return dict.fromkeys(names.split(), kind)


ARGUMENTS: dict[str, Kind] = {
    **_of(
        bool,
        """v2 v_parameterization shuffle_caption enable_wildcard color_aug flip_aug random_crop cache_latents
        cache_latents_to_disk enable_bucket bucket_no_upscale alpha_mask torch_compile xformers sdpa mem_eff_attn
        gradient_checkpointing full_fp16 full_bf16 fp8_base noise_offset_random_strength
        ip_noise_gamma_random_strength zero_terminal_snr masked_loss scale_v_pred_loss_like_noise_pred
        debiased_estimation_loss weighted_captions no_metadata network_train_unet_only
        network_train_text_encoder_only dim_from_weights no_half_vae cache_text_encoder_outputs
        cache_text_encoder_outputs_to_disk save_state""",
    ),
    **_of(
        int,
        """keep_tokens min_bucket_reso max_bucket_reso bucket_reso_steps token_warmup_min
        caption_dropout_every_n_epochs save_every_n_epochs save_every_n_steps save_last_n_epochs train_batch_size
        max_train_steps max_train_epochs seed gradient_accumulation_steps clip_skip multires_noise_iterations
        min_timestep max_timestep sample_every_n_steps sample_every_n_epochs lr_scheduler_num_cycles network_dim""",
    ),
    **_of(
        (float, int),
        """caption_dropout_rate caption_tag_dropout_rate token_warmup_step prior_loss_weight noise_offset
        ip_noise_gamma multires_noise_discount adaptive_noise_scale huber_c huber_scale learning_rate max_grad_norm
        lr_warmup_steps lr_scheduler_power min_snr_gamma v_pred_like_loss unet_lr network_alpha network_dropout
        scale_weight_norms""",
    ),
    **_of(
        str,
        """caption_separator caption_extension keep_tokens_separator secondary_separator caption_prefix caption_suffix
        resolution train_data_dir reg_data_dir output_dir output_name vae optimizer_type network_module
        pretrained_model_name_or_path training_comment""",
    ),
    "text_encoder_lr": (float, int, list),
    "optimizer_args": list,
    "network_args": list,
    "max_token_length": frozenset({150, 225}),
    "mixed_precision": frozenset({"no", "fp16", "bf16"}),
    "save_precision": frozenset({"float", "fp16", "bf16"}),
    "save_model_as": frozenset({"ckpt", "pt", "safetensors"}),
    "loss_type": frozenset({"l1", "l2", "huber", "smooth_l1"}),
    "huber_schedule": frozenset({"constant", "exponential", "snr"}),
    "lr_scheduler": frozenset(
        {"linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"}
    ),
}
OPTIMIZERS = frozenset(
    [
        "adamw",
        "adamw8bit",
        "lion",
        "lion8bit",
        "adafactor",
        "prodigy",
        "dadaptation",
        "dadaptadampreprint",
        "dadaptadagrad",
        "dadaptadam",
        "dadaptadan",
        "dadaptadanip",
        "dadaptlion",
        "dadaptsgd",
    ]
)
"""Of those that are known here; names are compared in lower case."""
BLOCKS = frozenset(
    [
        "block_dims",
        "block_alphas",
        "conv_block_dims",
        "conv_block_alphas",
        "down_lr_weight",
        "mid_lr_weight",
        "up_lr_weight",
        "block_lr_zero_threshold",
    ]
)
NETWORK_ARGS = {
    "networks.lora": frozenset({"conv_dim", "conv_alpha", "rank_dropout", "module_dropout"}) | BLOCKS,
    "networks.dylora": frozenset({"conv_dim", "conv_alpha", "unit"}),
}
"""What the modules read of their arguments; all others they pass over in silence."""

SUBSET: dict[str, Kind] = {
    **_of(bool, "color_aug flip_aug random_crop shuffle_caption enable_wildcard cache_info is_reg alpha_mask"),
    **_of(int, "num_repeats keep_tokens token_warmup_min caption_dropout_every_n_epochs"),
    **_of((float, int), "token_warmup_step caption_dropout_rate caption_tag_dropout_rate"),
    **_of(
        str,
        """keep_tokens_separator secondary_separator caption_separator caption_prefix caption_suffix
        caption_extension class_tokens image_dir""",
    ),
}
DATASET: dict[str, Kind] = {
    **{name: kind for name, kind in SUBSET.items() if name not in ("image_dir", "is_reg", "alpha_mask")},
    **_of(bool, "enable_bucket bucket_no_upscale"),
    **_of(int, "batch_size bucket_reso_steps min_bucket_reso max_bucket_reso validation_seed"),
    **_of(float, "network_multiplier validation_split"),
    "resolution": (int, list),
}


def wrong_types(held: Mapping[str, Any], known: Mapping[str, Kind]) -> list[str]:
    """Names that are not known, and values that are not what is meant by them."""
    wrong = [f"{name}: not known" for name in held.keys() - known.keys()]
    for name, value in held.items():
        kind = known.get(name, object)
        fits = value in kind if isinstance(kind, frozenset) else isinstance(value, kind)
        if not fits or (isinstance(value, bool) and kind is not bool):
            wrong.append(f"{name} = {value!r}")
    return wrong


def wrong_arguments(told: Mapping[str, Any]) -> list[str]:
    """What it would not take of a training's arguments; sections are laid flat, whatever they are called."""
    given = {name: value for name, value in told.items() if not isinstance(value, Mapping)}
    wrong = wrong_types(given, ARGUMENTS)
    for section in told.values():
        for name in (section.keys() & ARGUMENTS.keys()) - {"vae"} if isinstance(section, Mapping) else ():
            wrong.append(f"{name} of a section takes the argument's place")
    if given["optimizer_type"].lower() not in OPTIMIZERS and "." not in given["optimizer_type"]:
        wrong.append(f"optimizer_type {given['optimizer_type']}")
    if "adaptive_noise_scale" in given and not given.get("noise_offset"):
        wrong.append("adaptive_noise_scale requires noise_offset")
    if given.get("scale_v_pred_loss_like_noise_pred") and not given.get("v_parameterization"):
        wrong.append("scale_v_pred_loss_like_noise_pred only with v_parameterization")
    if given.get("cache_latents") and (given.get("random_crop") or given.get("color_aug")):
        wrong.append("cache_latents while pictures are cut anew")
    if not all(side.isdecimal() for side in given["resolution"].split(",")):
        wrong.append(f"resolution {given['resolution']}")
    for text in given.get("optimizer_args", ()):
        _, value = text.split("=")
        ast.literal_eval(value)
    names = {text.split("=")[0] for text in given.get("network_args", ()) if len(text.split("=")) == 2}
    known = NETWORK_ARGS.get(given["network_module"], names)
    return wrong + [f"network_args {name} of {given['network_module']}" for name in names - known]


def wrong_dataset(told: Mapping[str, Any]) -> list[str]:
    """What its schema would not take of a dataset's file."""
    wrong = [f"{name}: not known" for name in told.keys() - {"general", "datasets"}]
    wrong += wrong_types(told.get("general", {}), DATASET)
    for dataset in told["datasets"]:
        wrong += wrong_types({k: v for k, v in dataset.items() if k != "subsets"}, DATASET)
        for subset in dataset["subsets"]:
            wrong += wrong_types(subset, SUBSET) + ([] if "image_dir" in subset else ["image_dir is missing"])
    return wrong
