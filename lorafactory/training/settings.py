"""The trainer's settings: the recipe's [train] table, the options of `lora train`, the rows of the README."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class TrainSettings(BaseModel):
    """Settings of one training run. Defaults are those of an SD 1.5 LoRA of a person, after seed 003."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)

    epochs: int = Field(6, ge=1)
    """How often the whole set, with its repeats, is seen. 6 to start with; `pick` finds the one that is enough."""
    batch: int = Field(2, ge=1)
    """Pictures per step. More is steadier and takes memory in proportion; the steps become fewer."""
    resolution: int = Field(512, ge=64)
    """Side in pixels of the square whose area a training picture may have: 512 for SD 1.5, 1024 for SDXL."""
    bucket_step: int = Field(64, ge=8)
    """Sides of buckets are multiples of this many pixels; a multiple of 8."""
    min_bucket: int = Field(256, ge=8)
    """Shortest side of a bucket, in pixels, where pictures may be enlarged."""
    max_bucket: int = Field(1024, ge=64)
    """Longest side of a bucket, in pixels, where pictures may be enlarged; 2048 for SDXL."""
    bucket_upscale: bool = False
    """Enlarge pictures that are smaller than their bucket. Off: they get a bucket of their own size."""
    network: str = "lora"
    """Adapter kind: `lora` (attention and its projections), `locon` (convolutions too)."""
    rank: int = Field(32, ge=1)
    """Width of the adapter; file size and what it can learn grow with it. 8 to 128."""
    alpha: float = Field(16, gt=0)
    """The adapter's output is scaled by alpha / rank; half the rank is usual."""
    conv_rank: int = Field(8, ge=1)
    """Rank of the convolutions' adapters, with `locon`."""
    conv_alpha: float = Field(8, gt=0)
    """Alpha of the convolutions' adapters, with `locon`."""
    lr: float = Field(1e-4, gt=0)
    """Learning rate of the UNet's adapter."""
    text_encoder_lr: float = Field(0.0, ge=0)
    """Learning rate of the text encoder's adapter; 0 leaves the text encoder as it is."""
    optimizer: str = "adamw"
    """`adamw`, or `adamw8bit` with a quarter of its memory (not on macOS); an unknown name lists the known."""
    optimizer_args: dict[str, Any] = {}
    """Further arguments of the optimizer, such as `{ weight_decay = 0.1 }`; unknown ones are errors."""
    scheduler: str = "cosine"
    """Course of the learning rate: `constant`, `linear`, `cosine`, `cosine_with_restarts`."""
    cycles: int = Field(3, ge=1)
    """Restarts of the learning rate, with `cosine_with_restarts`."""
    warmup: float = Field(0.0, ge=0)
    """Steps over which the learning rate rises from zero; below 1 a share of all steps."""
    min_snr_gamma: float = Field(0.0, ge=0)
    """Caps the weight of easy timesteps (arXiv:2303.09556); 5 is usual, 0 is off."""
    noise_offset: float = Field(0.0, ge=0)
    """Adds a constant per channel to the noise, for darker darks and brighter brights; up to 0.1, 0 is off."""
    keep_tokens: int = Field(0, ge=0)
    """Leading comma-separated parts of a caption that are never shuffled or dropped; 1 keeps the trigger."""
    shuffle_captions: bool = False
    """Shuffle the comma-separated parts of a caption anew each time."""
    caption_dropout: float = Field(0.0, ge=0, le=1)
    """Share of draws in which a picture is shown without its caption, 0 to 1."""
    tag_dropout: float = Field(0.0, ge=0, le=1)
    """Share of the caption's parts that is left out at each draw, 0 to 1."""
    flip: bool = False
    """Show half of the draws mirrored. Never for persons or characters: faces are not symmetric."""
    clip_skip: int = Field(1, ge=1, le=4)
    """Which layer of the text encoder is read, counted from the last: 1, or 2 for anime models."""
    gradient_accumulation: int = Field(1, ge=1)
    """Batches whose gradients are added up to one step."""
    max_grad_norm: float = Field(1.0, ge=0)
    """Longer gradients are cut to this length; 0 is off."""
    save_every_epochs: int = Field(1, ge=1)
    """A save after every so many epochs, and after the last."""
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Precision of the frozen base: fp32, bf16 (RTX 30 and newer) or fp16. The adapter is always fp32."""
    seed: int = 0
    """Every random choice follows from it."""
    holdout: int = Field(0, ge=0)
    """Pictures kept out of training, to measure the loss on what was never shown."""
