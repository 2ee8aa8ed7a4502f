"""The Civitai trainer's JSON: that of its kohya engine, as seed 003 shows it, and the newer one of ai-toolkit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorafactory.recipe_formats._receipt import Field
from lorafactory.recipe_formats._values import leaves, renamed

NAME = "Civitai trainer JSON"
GENERAL = False
SIGNS = {"unetLR", "networkDim", "maxTrainEpochs", "trainBatchSize", "optimizerType", "textEncoderLR", "textEncoderLr"}
NAMES = {
    "unetLR": "unet_lr",
    "lr": "unet_lr",
    "textEncoderLR": "text_encoder_lr",
    "textEncoderLr": "text_encoder_lr",
    "trainTextEncoder": "train_text_encoder",
    "clipSkip": "clip_skip",
    "loraType": "algorithm",
    "keepTokens": "keep_tokens",
    "networkDim": "network_dim",
    "networkAlpha": "network_alpha",
    "numRepeats": "num_repeats",
    "lrScheduler": "lr_scheduler",
    "lrSchedulerNumCycles": "lr_scheduler_num_cycles",
    "minSnrGamma": "min_snr_gamma",
    "noiseOffset": "noise_offset",
    "enableBucket": "enable_bucket",
    "optimizerArgs": "optimizer_args",
    "optimizerType": "optimizer_type",
    "maxTrainEpochs": "max_train_epochs",
    "epochs": "max_train_epochs",
    "targetSteps": "max_train_steps",
    "steps": "total_steps",
    "shuffleCaption": "shuffle_caption",
    "shuffleTokens": "shuffle_caption",
    "trainBatchSize": "train_batch_size",
    "batchSize": "train_batch_size",
    "flipAugmentation": "flip_aug",
    "samplePrompts": "sample_prompts",
    "continueFrom": "network_weights",
    "baseModel": "base_model",
}


def claims(data: Mapping[str, Any]) -> bool:
    return any(name in SIGNS for name, _, _ in leaves(data))


def fields(data: Mapping[str, Any]) -> dict[str, Field]:
    return renamed(data, NAMES)


def defaults(data: Mapping[str, Any]) -> dict[str, Any]:
    """None: it saves all that it knows."""
    return {}
