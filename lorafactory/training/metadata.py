"""What a LoRA file says of itself, in the keys that interfaces read.

`ss_*` are sd-scripts' (`train_network.py`), read by A1111, Forge and SwarmUI; `modelspec.*` are those of the
Stability AI model metadata standard 1.0.1. All values are strings, and unset ones "None", as sd-scripts writes them.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from lorafactory import __version__, networks
from lorafactory.families import Base
from lorafactory.training import optimizers
from lorafactory.training.captions import plain
from lorafactory.training.loop import Save
from lorafactory.training.lora_header import legacy_hash
from lorafactory.training.memory import Means, recomputes
from lorafactory.training.optimizers import warmup_steps
from lorafactory.training.plan import Example, Plan
from lorafactory.training.settings import TrainSettings

NOT_HERE = {
    **dict.fromkeys(("ss_full_fp16", "ss_fp8_base", "ss_lowram", "ss_color_aug"), False),
    **dict.fromkeys(("ss_scale_weight_norms", "ss_face_crop_aug_range", "ss_resize_interpolation")),
}
"""What sd-scripts has and tells of, and this has not."""


def metadata(
    *,
    name: str,
    base: Base,
    examples: Sequence[Example],
    settings: TrainSettings,
    plan: Plan,
    save: Save,
    label: str = "",
    about: str = "",
    trigger: str = "",
    base_sha256: str = "",
    vae_sha256: str = "",
    files: Mapping[str, Path] | None = None,
    started: float | None = None,
    finished: float | None = None,
) -> dict[str, str]:
    """Describe one save; times are seconds since 1970.

    `name` is the LoRA's, `label` tells this save (`epoch 4`), `about` what is learned (`person, woman`). `files` has
    the "base" and the "vae" where they are one file each, of which only the name and hashes are told.
    """
    short = {what: legacy_hash(file) for what, file in (files or {}).items()}
    values: dict[str, Any] = {
        "ss_output_name": name,
        "ss_training_started_at": started,
        "ss_training_finished_at": finished,
        "ss_epoch": save.epoch,
        "ss_steps": save.step,
        "ss_sd_model_name": base.name,
        "ss_sd_model_hash": short.get("base"),
        "ss_new_sd_model_hash": base_sha256 or None,
        "ss_vae_name": base.vae_name or None,
        "ss_vae_hash": short.get("vae"),
        "ss_new_vae_hash": vae_sha256 or None,
        "ss_training_comment": f"lorafactory {__version__}",
        "ss_mixed_precision": {torch.float32: "no", torch.bfloat16: "bf16"}.get(base.dtype, "fp16"),
        **_numbers(settings, plan, save.means),
        **_choices(base, settings, save.means),
        **NOT_HERE,
        **_pictures(examples, settings, plan),
        "ss_zero_terminal_snr": float(base.schedule.snr(torch.tensor([base.schedule.num_timesteps - 1]))) == 0,
        **_modelspec(base, settings, title=f"{name} {label}".strip(), about=about, trigger=trigger),
        **base.labels,
    }
    if finished is not None:
        values["modelspec.date"] = datetime.fromtimestamp(finished, UTC).isoformat(timespec="seconds")
    return {key: _text(value) for key, value in values.items()}


def _modelspec(base: Base, s: TrainSettings, *, title: str, about: str, trigger: str) -> dict[str, Any]:
    found = {
        "sai_model_spec": "1.0.1",
        "title": title,
        "description": f"{about or title}, trained on {base.name}",
        "resolution": f"{s.resolution}x{s.resolution}",
        "prediction_type": "v" if base.schedule.prediction_type == "v_prediction" else "epsilon",
        "timestep_range": f"{s.min_timestep},{s.max_timestep}",
        "encoder_layer": s.clip_skip,
    }
    found |= {"tags": about} if about else {}
    found |= {"trigger_phrase": trigger, "usage_hint": f"say {trigger} in the prompt"} if trigger else {}
    return {f"modelspec.{key}": value for key, value in found.items()}


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, Mapping | list) else str(value)


def _numbers(s: TrainSettings, plan: Plan, means: Means) -> dict[str, Any]:
    """What was set, and of the batch what memory made of it: a step has the same pictures, in more pieces."""
    pieces = math.ceil(s.batch / means.micro)
    return {
        "ss_num_train_images": plan.samples - plan.reg_samples,
        "ss_num_reg_images": plan.reg_samples,
        "ss_num_validation_images": s.holdout,
        "ss_prior_loss_weight": s.prior_loss_weight,
        "ss_num_batches_per_epoch": plan.batches_per_epoch,
        "ss_num_epochs": plan.epochs,
        "ss_max_train_steps": plan.steps,
        "ss_batch_size_per_device": min(s.batch, means.micro),
        "ss_total_batch_size": s.batch * s.gradient_accumulation,
        "ss_gradient_accumulation_steps": s.gradient_accumulation * pieces,
        "ss_learning_rate": s.lr,
        "ss_unet_lr": s.lr,
        "ss_text_encoder_lr": _text_rates(s),
        "ss_lr_warmup_steps": warmup_steps(s.warmup, plan.steps),
        "ss_network_dim": s.rank,
        "ss_network_alpha": s.alpha,
        "ss_seed": s.seed,
        "ss_noise_offset": s.noise_offset or None,
        "ss_noise_offset_random_strength": s.noise_offset_random,
        "ss_adaptive_noise_scale": s.adaptive_noise_scale or None,
        "ss_multires_noise_iterations": s.multires_iterations or None,
        "ss_multires_noise_discount": s.multires_discount if s.multires_iterations else None,
        "ss_ip_noise_gamma": s.ip_noise_gamma or None,
        "ss_ip_noise_gamma_random_strength": s.ip_noise_gamma_random,
        "ss_min_snr_gamma": s.min_snr_gamma or None,
        "ss_huber_c": s.huber_c,
        "ss_huber_scale": s.huber_scale,
        "ss_max_grad_norm": s.max_grad_norm,
        "ss_caption_dropout_rate": s.caption_dropout,
        "ss_caption_dropout_every_n_epochs": s.caption_dropout_every,
        "ss_caption_tag_dropout_rate": s.tag_dropout,
        "ss_keep_tokens": s.keep_tokens,
        "ss_clip_skip": s.clip_skip,
        "ss_min_bucket_reso": s.min_bucket,
        "ss_max_bucket_reso": s.max_bucket,
        "ss_resolution": (s.resolution, s.resolution),
    }


def _choices(base: Base, s: TrainSettings, means: Means) -> dict[str, Any]:
    entry = optimizers.entry(means.optimizer)
    args = ",".join(f"{key}={value}" for key, value in {**entry.defaults, **s.optimizer_args}.items())
    network = networks.get(s.network)
    return {
        "ss_network_module": network.MODULE,
        "ss_network_args": {**network.arguments(s), **networks.block_arguments(s)} or None,
        "ss_network_dropout": s.dropout or None,
        "ss_optimizer": f"{entry.module}.{entry.name}({args})",
        "ss_lr_scheduler": s.scheduler,
        "ss_gradient_checkpointing": recomputes(base),
        # sd-scripts' word for 75 tokens is none
        "ss_max_token_length": s.max_tokens if s.max_tokens > 75 else None,
        "ss_cache_latents": not s.random_crop,
        "ss_enable_bucket": True,
        "ss_bucket_no_upscale": not s.bucket_upscale,
        "ss_random_crop": s.random_crop,
        "ss_shuffle_caption": s.shuffle_captions,
        "ss_flip_aug": s.flip,
        "ss_loss_type": s.loss,
        "ss_huber_schedule": s.huber_schedule,
        "ss_debiased_estimation": s.debiased,
    }


def _text_rates(s: TrainSettings) -> Any:
    """One rate, or a list where the two text encoders differ; None where none is trained."""
    rates = s.rates(("text_encoder", "text_encoder_2"))
    values = [rates.get(part, 0.0) for part in ("text_encoder", "text_encoder_2")]
    if not rates:
        return None
    return values[0] if s.text_encoder_2_lr is None else values


def _pictures(examples: Sequence[Example], s: TrainSettings, plan: Plan) -> dict[str, Any]:
    """Folders, tags and buckets, each picture counted once whatever its repeats, as sd-scripts does."""
    tags: dict[str, Counter[str]] = defaultdict(Counter)
    folders: dict[bool, dict[str, dict[str, int]]] = {False: {}, True: {}}
    for example in examples:
        folder = example.path.parent.name
        text = plain(example.caption if s.wildcards else example.caption.split("\n")[0], s)
        tags[folder].update(tag.strip().lower() for tag in text.split(s.caption_separator) if tag.strip())
        entry = folders[example.reg].setdefault(folder, {"n_repeats": example.repeats, "img_count": 0})
        entry["img_count"] += 1
    buckets = {
        str(index): {"resolution": list(size), "count": count}
        for index, (size, count) in enumerate(plan.per_bucket.items())
    }
    bucket = {e.name: plan.fits[e.name].bucket for e in examples}
    errors = [abs(bucket[e.name][0] / bucket[e.name][1] - e.size[0] / e.size[1]) for e in examples]
    return {
        "ss_tag_frequency": {folder: dict(counts.most_common()) for folder, counts in tags.items()},
        "ss_dataset_dirs": folders[False],
        "ss_reg_dataset_dirs": folders[True],
        "ss_bucket_info": {"buckets": buckets, "mean_img_ar_error": sum(errors) / len(errors)},
    }
