"""sd-scripts' arguments, by name, as settings: the one translation that all formats share.

Names and meanings are those of sd-scripts' `train_util.py` and `train_network.py`. Where a field is no setting, a
line says whether that changes nothing (inert) or something (refused).
"""

from __future__ import annotations

import math
import re

from lorafactory.recipe_formats._network import network
from lorafactory.recipe_formats._receipt import OWN, PART, SAME, Field, Reading
from lorafactory.recipe_formats._values import arguments, literal, number

ALIKE = (
    "keep_tokens random_crop masked_loss prior_loss_weight caption_prefix caption_suffix caption_separator "
    "secondary_separator token_warmup_min clip_skip max_grad_norm huber_schedule huber_c huber_scale min_snr_gamma "
    "min_timestep max_timestep noise_offset adaptive_noise_scale ip_noise_gamma gradient_checkpointing seed"
)
TABLE = {
    **{name: f"train.{name}" for name in ALIKE.split()},
    "train_batch_size": "train.batch",
    "gradient_accumulation_steps": "train.gradient_accumulation",
    "max_train_epochs": "train.epochs",
    "save_every_n_epochs": "train.save_every_epochs",
    "save_every_n_steps": "train.save_every_steps",
    "save_last_n_epochs": "train.keep_last",
    "sample_every_n_epochs": "train.sample_every_epochs",
    "sample_every_n_steps": "train.sample_every_steps",
    "min_bucket_reso": "train.min_bucket",
    "max_bucket_reso": "train.max_bucket",
    "bucket_reso_steps": "train.bucket_step",
    "flip_aug": "train.flip",
    "shuffle_caption": "train.shuffle_captions",
    "keep_tokens_separator": "train.keep_separator",
    "caption_dropout_rate": "train.caption_dropout",
    "caption_dropout_every_n_epochs": "train.caption_dropout_every",
    "caption_tag_dropout_rate": "train.tag_dropout",
    "token_warmup_step": "train.token_warmup",
    "enable_wildcard": "train.wildcards",
    "max_token_length": "train.max_tokens",
    "lr_scheduler_num_cycles": "train.cycles",
    "lr_scheduler_power": "train.power",
    "lr_warmup_steps": "train.warmup",
    "loss_type": "train.loss",
    "debiased_estimation_loss": "train.debiased",
    "scale_v_pred_loss_like_noise_pred": "train.scale_v_pred_loss",
    "noise_offset_random_strength": "train.noise_offset_random",
    "multires_noise_iterations": "train.multires_iterations",
    "multires_noise_discount": "train.multires_discount",
    "ip_noise_gamma_random_strength": "train.ip_noise_gamma_random",
    "cache_text_encoder_outputs": "train.cache_text",
    "torch_compile": "train.compile",
}
"""Arguments that mean the same here."""
ELSEWHERE = {name: f"train.{name}" for name in ("quantize", "ema", "ema_decay")}
"""What other tools have, and sd-scripts has not."""
ZERO_IS_UNSET = (
    "max_train_epochs", "max_train_steps", "save_every_n_epochs", "lr_scheduler_num_cycles", "max_token_length",
    "clip_skip", "lr_scheduler_power", "gradient_accumulation_steps", "huber_c", "huber_scale",
)  # fmt: skip
INERT = {
    "always so here": """cache_latents cache_latents_to_disk no_half_vae cache_text_encoder_outputs_to_disk alpha_mask
        save_model_as skip_cache_check""",
    "how attention is computed, chosen by itself here": "xformers mem_eff_attn sdpa attention attention_mechanism",
    "about the machine it ran on": """max_data_loader_n_workers persistent_data_loader_workers multi_gpu gpu_ids
        num_cpu_threads_per_process lowram lowvram highvram vae_batch_size num_processes num_machines ddp_timeout
        main_process_port extra_accelerate_launch_args dynamo_backend dynamo_mode dynamo_use_dynamic
        dynamo_use_fullgraph ddp_gradient_as_bucket_view ddp_static_graph train_device temp_device
        dataloader_threads caching_threads async_offloading enable_autocast_cache prefetch_next_batch
        fused_gradient_reduce async_gradient_reduce async_gradient_reduce_buffer gradient_reduce_precision
        device_indexes fallback_train_dtype""",
    "the base tells": "sdxl model_type",
    "state is always kept here, to go on from": """save_state save_state_on_train_end save_state_to_huggingface
        save_last_n_epochs_state save_last_n_steps_state backup_after backup_after_unit rolling_backup
        rolling_backup_count continue_last_backup""",
    "changes no number": """training_comment output_name model_list log_with log_prefix log_config log_tracker_name
        wandb_run_name no_metadata async_upload huggingface_repo_id huggingface_repo_type huggingface_repo_visibility
        huggingface_path_in_repo debug_dataset console_log_level sample_sampler caption_extension __version tensorboard
        tensorboard_port tensorboard_expose tensorboard_always_on clear_cache_before_training latent_caching
        image_caching text_caching engine img_count debug_mode samples_to_tensorboard non_ema_sampling sample_skip_first
        sample_image_format sample_video_format sample_audio_format backup_before_save save_skip_first
        save_filename_prefix include_train_config validation validate_after validate_after_unit prevent_overwrites
        latent_caching_epochs use_wandb only_cache bundle_additional_embeddings name version author description
        tag_occurrence_txt_file sort_tag_occurrence_alphabetically save_json_only""",
    "has no effect there either": "stop_text_encoder_training stop_text_encoder_training_pct no_token_padding",
}
REFUSED = {
    "color_aug": "colours are never changed here",
    "save_last_n_steps": "saves are kept by number here: train.keep_last",
    "full_fp16": "the adapter trains in fp32 here",
    "full_bf16": "the adapter trains in fp32 here",
    "fp8_base": "train.quantize is this tool's way to less memory",
    "weighted_captions": "weights in captions are read as text here",
    "max_train_steps": "see max_train_epochs",
    "text_encoder_lr": "see unet_lr",
    "sample_prompts": "a file or texts of its own: train.sample_prompts",
    "network_weights": "a place on another machine: train.from_lora",
    "resume": "a place on another machine; `lora train NAME --more 3` goes on",
    "v2": "Stable Diffusion 2 is no family here",
    "sd_model_name": "name your own: --base PART_OF_ITS_NAME",
    "base_model": "name your own: --base PART_OF_ITS_NAME",
    "perturbation_noise_weight": "it is in the target too there: not the same as ip_noise_gamma",
    "text_encoder.stop_training_after": "the text encoder is trained to the end here",
    "text_encoder_2.stop_training_after": "the text encoder is trained to the end here",
    "use_tucker": "all that it could learn can be learned without, in a larger file",
    "use_scalar": "a change begins at nothing without it too",
    "train_norm": "norms get no adapter here",
    "scale_weight_norms": "weights are not held back here: a lower rate or fewer epochs",
    "layer_filter": "attention with its projections, or everything: nothing between",
    "preset": "attention with its projections, or everything: nothing between",
    "sample_after": "counted in minutes there: train.sample_every_epochs",
    "lr_scheduler_type": "no class is imported here; the course is what lr_scheduler says",
    "lr_scheduler_args": "of lr_scheduler_type, which is not taken over",
    "unmasked_weight": "grey in a mask says it here",
    "train_dtype": "one precision for all that is frozen: that of the UNet",
    "text_encoder.weight_dtype": "one precision for all that is frozen: that of the UNet",
    "text_encoder_2.weight_dtype": "one precision for all that is frozen: that of the UNet",
    "ema_update_step_interval": "the average moves at every step here",
    "concept_file_name": "the concepts are in a file of their own",
}
WITHDRAWN = {
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "runwayml/stable-diffusion-inpainting": "stable-diffusion-v1-5/stable-diffusion-inpainting",
    "botp/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
}
"""Hub ids that are gone, and where the same weights are now."""
_HUB = re.compile(r"[\w.-]+/[\w.-]+")
_REASONS = {name: why for why, told in INERT.items() for name in told.split()}
SCHEDULERS = {
    **{name: name for name in ("constant", "linear", "cosine", "cosine_with_restarts", "polynomial")},
    "constant_with_warmup": "constant",
    "cosine_with_hard_restarts": "cosine_with_restarts",
}
PRECISIONS = {
    **dict.fromkeys(("no", "float", "fp32", "float_32", "tfloat_32"), "fp32"),
    **dict.fromkeys(("fp16", "float_16"), "fp16"),
    **dict.fromkeys(("bf16", "bfloat_16"), "bf16"),
}


def translate(r: Reading) -> None:
    """Give every field its line, and what is a setting its place."""
    for part in (_base, _length, _pictures, _rates, _optimizer, _schedule, network, _noise, _machine):
        part(r)
    for name in r.fields:
        if name in ZERO_IS_UNSET and number(r.value(name)) == 0:
            r.inert(name, "0 is unset")
        if key := TABLE.get(name) or ELSEWHERE.get(name):
            r.take(name, key)
    for name in r.fields:
        if name.startswith(OWN):
            r.take(name, name.removeprefix(OWN))  # in place of what stands for it in sd-scripts' words
    for name, given in r.fields.items():
        twin, late, _ = name.partition("#")
        if given.is_secret:
            r.refuse(name, "a secret stays where it is")
        elif given.is_place and given.set:
            r.refuse(name, REFUSED.get(name, "a place on another machine"))
        elif late and twin in r.fields:
            same = given.value == r.fields[twin].value
            told = given.inert or f"{r.fields[twin].name} {'says so too' if same else 'counts'}"
            (r.inert if same or given.inert else r.refuse)(name, told)
        elif given.inert or name in _REASONS:
            r.inert(name, given.inert or _REASONS[name])
        elif given.off:
            r.inert(name, "off")
        else:
            r.refuse(name, given.why or REFUSED.get(name, "nothing here does that"))


def _base(r: Reading) -> None:
    """The base by its id on the hub; a file's place is another machine's."""
    given = r.value("pretrained_model_name_or_path")
    if isinstance(given, str) and _HUB.fullmatch(given) and not given.endswith((".safetensors", ".ckpt")):
        if given in WITHDRAWN:
            r.take(
                "pretrained_model_name_or_path", "base", WITHDRAWN[given], "withdrawn from the hub; the same weights"
            )
        else:
            r.take("pretrained_model_name_or_path", "base")
    elif given is not None:
        r.refuse("pretrained_model_name_or_path", "a file of another machine: name yours, --base PART_OF_ITS_NAME")
    if r.on("v_parameterization"):
        r.take("v_parameterization", "prediction", "v_prediction")


def _length(r: Reading) -> None:
    """Epochs, and where there are none steps. Repeats are the folders' own, or those of a dataset's table."""
    if number(r.value("max_train_epochs")):
        r.inert("max_train_steps", "the epochs are said, and decide")
    for name in ("total_steps", "max_train_steps"):
        steps = number(r.value(name)) if r.open(name) else None
        if steps:
            r.take(name, "repeats.policy", f"steps={round(steps)}", "the repeats are chosen so that it fits")
            r.inert("num_repeats", f"{r.fields[name].name} decides")
    r.take("num_repeats", "repeats.policy")


def _pictures(r: Reading) -> None:
    """`W,H` is an area, whose shape buckets have; ours is the side of a square."""
    sides = [number(text) or 0 for text in re.findall(r"\d+(?:\.\d+)?", str(r.value("resolution")))[:2]]
    if len(sides) == 2 and sides[0] != sides[1]:
        r.take("resolution", "train.resolution", round(math.sqrt(sides[0] * sides[1])), "a square of that area")
    elif sides:
        r.take("resolution", "train.resolution", round(sides[0]))
    if r.open("bucket_no_upscale"):
        r.take("bucket_no_upscale", "train.bucket_upscale", not r.on("bucket_no_upscale"), "said the other way round")
    if r.on("shuffle_caption") and number(r.value("keep_tokens")) == 0:
        r.take("keep_tokens", "train.keep_tokens", why="the part with the trigger stays in place all the same")
    if r.on("enable_bucket"):
        r.inert("enable_bucket", "always so here")
    elif r.open("enable_bucket"):
        r.refuse("enable_bucket", "pictures are always sorted into buckets here")


def _rates(r: Reading) -> None:
    """`unet_lr` and `text_encoder_lr` fall back to `learning_rate`; what is not trained has rate 0 here."""
    _second_encoder(r)
    unet_off = number(r.value("unet_lr")) == 0
    if unet_off and not r.on("text_encoder_lr"):
        for name in ("unet_lr", "text_encoder_lr"):
            r.inert(name, "both are 0: learning_rate counts")
    elif unet_off or r.on("network_train_text_encoder_only"):
        for name in ("unet_lr", "network_train_text_encoder_only"):
            r.refuse(name, "the UNet is always trained here")
        r.inert("learning_rate", "text_encoder_lr counts")
    _text_encoder(r)
    if r.open("unet_lr"):
        r.inert("learning_rate", "unet_lr counts")
        r.take("unet_lr", "train.lr")
    r.take("learning_rate", "train.lr")


def _text_encoder(r: Reading) -> None:
    """It is trained unless it is said not to be, with the common rate where it has none of its own."""
    told, common = r.fields.get("train_text_encoder"), r.fields.get("learning_rate")
    still = ["network_train_unet_only"] if r.on("network_train_unet_only") else []
    still += ["train_text_encoder"] if told and told.set and told.off else []
    for name in still:
        r.take(name, "train.text_encoder_lr", 0.0, "the text encoder stays as it is")
        r.inert("text_encoder_lr", "the text encoder is not trained")
    r.inert("train_text_encoder", "the rates tell")
    if common and not still and not r.open("text_encoder_lr"):
        r.fields["text_encoder_lr#"] = Field("text_encoder_lr", common.value, supposed=True, why="learning_rate's")
        r.take("text_encoder_lr#", "train.text_encoder_lr")
    r.take("text_encoder_lr", "train.text_encoder_lr")


def _second_encoder(r: Reading) -> None:
    """SDXL's text encoders may have a rate each, as a list of two."""
    given = literal(r.value("text_encoder_lr"))
    if isinstance(given, list) and len(given) == 2:
        own = r.fields["text_encoder_lr"]
        r.fields["text_encoder_lr"] = Field(own.name, given[0], said=own.written, why="the first of two")
        r.fields["text_encoder_lr2"] = Field(own.name, given[1], said=own.written, why="the second")
    if r.value("train_text_encoder_2") is not None and not r.on("train_text_encoder_2"):
        r.take("train_text_encoder_2", "train.text_encoder_2_lr", 0.0, "it stays as it is")
        r.inert("text_encoder_lr2", "it is not trained")
    r.inert("train_text_encoder_2", "the rates tell")
    r.take("text_encoder_lr2", "train.text_encoder_2_lr")


def _optimizer(r: Reading) -> None:
    """The optimizer, and its arguments where it is one that is known here."""
    if r.on("use_8bit_adam"):
        r.take("use_8bit_adam", "train.optimizer", "adamw8bit")
        r.inert("optimizer_type", "use_8bit_adam counts")
    named = r.value("optimizer_type")
    r.take("optimizer_type", "train.optimizer", str(named).lower())
    single = [name for name in r.fields if name.startswith(PART) and r.open(name)]
    if r.refused("optimizer_type"):
        for name in ("optimizer_args", *single):
            if r.open(name):
                r.refuse(name, f"of {named}, which is not taken over")
        return
    try:
        r.take("optimizer_args", "train.optimizer_args", arguments(r.value("optimizer_args") or {}))
    except ValueError as error:
        r.refuse("optimizer_args", str(error))
    if str(named).lower() == "prodigy":  # here both are on
        said = r.tables.get("train", {}).get("optimizer_args", {})
        names = [f"{PART}{arg}" for arg in ("safeguard_warmup", "use_bias_correction") if arg not in said]
        single += [name for name in names if name not in r.fields]
        r.suppose(dict.fromkeys(names, False))
    for name in single:
        r.take(name, "train.optimizer_args", {name.removeprefix(PART): literal(r.value(name))})


def _schedule(r: Reading) -> None:
    named = str(r.value("lr_scheduler") or "").lower()
    if named in SCHEDULERS:
        own = SCHEDULERS[named]
        r.take("lr_scheduler", "train.scheduler", *(() if own == named else (own, "train.warmup does the rest")))
    elif named:
        r.refuse("lr_scheduler", f"known here: {', '.join(dict.fromkeys(SCHEDULERS.values()))}")
    if named == "constant":
        r.inert("lr_warmup_steps", "the constant schedule has no warm-up there")


def _noise(r: Reading) -> None:
    """Of two kinds of noise only the chosen one counts; what belongs to one that is off is off too."""
    kind = str(r.value("noise_offset_type") or "")
    offset = ("noise_offset", "noise_offset_random_strength", "adaptive_noise_scale")
    multires = ("multires_noise_iterations", "multires_noise_discount")
    for chosen, names in (("Multires", offset), ("Original", multires)):
        if kind == chosen:
            for name in names:
                r.inert(name, f"noise_offset_type is {kind}")
    r.inert("noise_offset_type", "says which of the two sets counts")
    for first, *others in (offset, multires, ("ip_noise_gamma", "ip_noise_gamma_random_strength")):
        if not r.on(first):
            for name in others:
                r.inert(name, f"{first} is off")


def _machine(r: Reading) -> None:
    for name, key in (("mixed_precision", "train.dtype"), ("save_precision", "train.save_dtype")):
        r.take(name, key, PRECISIONS.get(str(r.value(name)).lower(), SAME))
