"""The trainer's settings: the recipe's [train] table, the options of `lora train`, the rows of the README."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

NEUTRAL: dict[str, Any] = {"neutral": True}
"""Of a setting that changes no number: where things are kept, and what is allowed."""


class TrainSettings(BaseModel):
    """Settings of one training run. Defaults are those of an SD 1.5 LoRA of a person, after seed 003."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)

    # ------------------------------------------------------------ how long

    epochs: int = Field(6, ge=1)
    """How often the whole set, with its repeats, is seen. 6 to start with; `pick` finds the one that is enough."""
    max_steps: int = Field(0, ge=0)
    """At most so many steps: epochs that would go beyond are left out, whole. 0 is off."""
    batch: int = Field(2, ge=1)
    """Pictures per step. More is steadier and takes memory in proportion; the steps become fewer."""
    gradient_accumulation: int = Field(1, ge=1)
    """Batches whose gradients are added up to one step."""
    more: int = Field(0, ge=0, json_schema_extra=NEUTRAL)
    """So many epochs more, from the last save on, with a learning rate that begins anew: until it is good. The numbers
    of the saves go on, and earlier ones stay."""
    from_lora: str = ""
    """Begin with this LoRA file, of the base's family; its ranks hold, whatever the settings say."""
    save_every_epochs: int = Field(1, ge=1)
    """A save after every so many epochs, and after the last."""
    save_every_steps: int = Field(0, ge=0)
    """A save after every so many steps and at the end, and not after epochs; 0 is off."""
    save_at: tuple[int, ...] = ()
    """A save after each of these steps, such as `[1500, 2000, 2500]`, and at the end, and not after epochs."""
    keep_last: int = Field(0, ge=0)
    """Keep so many of the newest saves, and the first, and one that was picked; earlier ones of the same training are
    deleted. 0 keeps all."""
    sample_every_epochs: int = Field(0, ge=0, json_schema_extra=NEUTRAL)
    """Draw samples at the start, after every so many epochs and at the end, beside result_current/sample/index.html;
    0 is off. Training is the same with and without."""
    sample_every_steps: int = Field(0, ge=0, json_schema_extra=NEUTRAL)
    """Draw samples after every so many steps instead."""

    # ------------------------------------------------------------ pictures

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
    random_crop: bool = False
    """Cut the bucket out of a new place of the picture each time, not out of its middle. The VAE stays loaded."""
    flip: bool = False
    """Show half of the draws mirrored. Refused for persons and characters: faces are not symmetric."""
    force_flip: bool = Field(False, json_schema_extra=NEUTRAL)
    """Allow `flip` for a person or character all the same."""
    masked_loss: bool = True
    """Where masks/ has a picture's mask, learn what is white in it, half of what is grey, nothing of what is black."""
    prior_loss_weight: float = Field(1.0, ge=0)
    """Weight of the regularisation pictures in reg/, which an epoch shows as often as all others; 1 is usual."""
    holdout: int = Field(0, ge=0)
    """Pictures kept out of training, to measure the loss on what was never shown."""

    # ------------------------------------------------------------ captions

    caption_prefix: str = ""
    """Put before every caption, with a blank between."""
    caption_suffix: str = ""
    """Put after every caption, with a blank between."""
    shuffle_captions: bool = False
    """Shuffle the comma-separated parts of a caption anew each time. The part with the trigger comes first."""
    keep_tokens: int = Field(0, ge=0)
    """Leading parts of a caption that are never shuffled or dropped; at 0 the part with the trigger is."""
    keep_separator: str = "|||"
    """In a caption: what is before it is kept in place, and what is after a second one too."""
    caption_separator: str = Field(",", min_length=1)
    """What stands between the parts of a caption."""
    secondary_separator: str = ";;;"
    """In a caption: becomes a comma after shuffling and dropping, so that parts stay together."""
    caption_dropout: float = Field(0.0, ge=0, le=1)
    """Share of draws in which a picture is shown without its caption, 0 to 1."""
    caption_dropout_every: int = Field(0, ge=0)
    """In every so manieth epoch pictures are shown without captions; 0 is never."""
    tag_dropout: float = Field(0.0, ge=0, le=1)
    """Share of the caption's parts that is left out at each draw, 0 to 1."""
    token_warmup: float = Field(0.0, ge=0)
    """Steps over which a caption grows from its first parts to all of them; below 1 a share of all steps."""
    token_warmup_min: int = Field(1, ge=0)
    """Parts beside the kept ones with which `token_warmup` begins."""
    wildcards: bool = False
    """Draw one of `{red|blue}` in captions, and one of a caption's lines. Off: its first line, as it is."""
    max_tokens: int = Field(75, ge=75, le=225, multiple_of=75)
    """CLIP tokens of a caption that are read: 75, 150 or 225. What is beyond is not seen."""
    clip_skip: int = Field(1, ge=1, le=4)
    """Which layer of the text encoder is read, counted from the last: 1, or 2 for anime models. SDXL ignores it."""

    # ------------------------------------------------------------ the adapter

    network: str = "lora"
    """Adapter kind: `lora` (attention and its projections), `locon` (convolutions too), `dora`, `loha`, `lokr`,
    `dylora`."""
    rank: int = Field(32, ge=1)
    """Width of the adapter; file size and what it can learn grow with it. 8 to 128."""
    alpha: float = Field(16, gt=0)
    """The adapter's output is scaled by alpha / rank; half the rank is usual."""
    conv_rank: int = Field(8, ge=0)
    """Rank of the convolutions' adapters, with `locon`, `loha` and `lokr`; 0 leaves the residual blocks alone."""
    conv_alpha: float = Field(8, gt=0)
    """Alpha of the convolutions' adapters, with `locon`, `loha` and `lokr`."""
    unit: int = Field(4, ge=1)
    """Ranks that are learned and cut off together, with `dylora`; the rank is a multiple of it."""
    lokr_factor: int = Field(-1, ge=-1)
    """Size of the smaller of the two matrices, with `lokr`; -1 makes both as alike as can be."""
    decompose_both: bool = False
    """Make a product of the smaller matrix too, with `lokr`."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of what goes from down to up that is left out at each step, with `lora`, `locon` and `dylora`."""
    rank_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the ranks that is left out at each step, for each picture; with `loha` and `lokr` of the outputs."""
    module_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the layers whose adapter is left out at each step."""
    block_dims: tuple[int, ...] | str = ()
    """A rank for each block of the UNet instead of `rank`, as kohya's: 25 numbers for SD 1.5 (12 down, middle, 12
    up), 23 for SDXL (embeddings, 9 down, 3 middle, 9 up, out); a block with 0 is left as it is."""
    block_alphas: tuple[float, ...] | str = ()
    """An alpha for each block, with `block_dims`; where they are not given `alpha` holds."""
    conv_block_dims: tuple[int, ...] | str = ()
    """A rank of each block's convolutions instead of `conv_rank`."""
    conv_block_alphas: tuple[float, ...] | str = ()
    """An alpha of each block's convolutions, with `conv_block_dims`."""

    # ------------------------------------------------------------ learning rate

    lr: float = Field(1e-4, gt=0)
    """Learning rate of the UNet's adapter."""
    text_encoder_lr: float = Field(0.0, ge=0)
    """Learning rate of the text encoder's adapter; 0 leaves the text encoder as it is."""
    text_encoder_2_lr: float | None = Field(None, ge=0)
    """Learning rate of SDXL's second, larger text encoder; that of the first where it is not given."""
    down_lr_weight: tuple[float, ...] | str = ()
    """A factor of the learning rate for each block of the UNet's way down: 12 numbers for SD 1.5, 9 for SDXL, or
    `sine`, `cosine`, `linear`, `reverse_linear`, `zeros`, each also with a number on top as in `cosine+.25`."""
    mid_lr_weight: tuple[float, ...] | str = ()
    """The same for the middle: 1 number for SD 1.5, 3 for SDXL."""
    up_lr_weight: tuple[float, ...] | str = ()
    """The same for the way up, as long as the way down."""
    block_lr_zero_threshold: float = Field(0.0, ge=0)
    """Blocks with a factor up to this get no adapter."""
    optimizer: str = "auto"
    """`adamw`, or `adamw8bit` with a quarter of its memory (not on macOS), which is `auto` on an NVIDIA card;
    `prodigy` and others that find their own rate want `lr = 1`. Also any `module.Class`; an unknown name lists the
    known."""
    optimizer_args: dict[str, Any] = {}
    """Further arguments of the optimizer, such as `{ weight_decay = 0.1 }`; unknown ones are errors."""
    ema: bool = False
    """Also keep a running average of the adapter, and write it beside each save, as NAME-000004-ema.safetensors: a
    save like others, and the one that `lora pick NAME 4` takes."""
    ema_decay: float = Field(0.999, gt=0, lt=1)
    """What of the average stays at each step, once enough steps are done: it begins with less."""
    scheduler: str = "cosine"
    """Course of the learning rate: `constant`, `linear`, `cosine`, `cosine_with_restarts`, `polynomial`."""
    cycles: int = Field(3, ge=1)
    """Restarts of the learning rate, with `cosine_with_restarts`."""
    power: float = Field(1.0, gt=0)
    """Exponent of `polynomial`: 1 falls in a line, 2 faster at first."""
    warmup: float = Field(0.0, ge=0)
    """Steps over which the learning rate rises from zero; below 1 a share of all steps."""
    max_grad_norm: float = Field(1.0, ge=0)
    """Longer gradients are cut to this length; 0 is off."""

    # ------------------------------------------------------------ loss

    loss: Literal["l2", "l1", "huber", "smooth_l1"] = "l2"
    """How an error counts: `l2` squared, `l1` plain; `huber` and `smooth_l1` squared while small, plain when large."""
    huber_schedule: Literal["snr", "exponential", "constant"] = "snr"
    """How the border between small and large errors depends on the noise, with `huber` and `smooth_l1`."""
    huber_c: float = Field(0.1, gt=0)
    """The border between small and large errors where noise is strongest."""
    huber_scale: float = Field(1.0, gt=0)
    """Factor of the border, with `exponential` and `constant`."""
    min_snr_gamma: float = Field(0.0, ge=0)
    """Caps the weight of easy timesteps (arXiv:2303.09556); 5 is usual, 0 is off."""
    debiased: bool = False
    """Weigh timesteps by 1 / sqrt(SNR) (arXiv:2310.08442). Another answer to what min_snr_gamma is for."""
    scale_v_pred_loss: bool = False
    """On v-prediction bases, weigh timesteps as if the base predicted noise."""
    min_timestep: int = Field(0, ge=0, lt=1000)
    """First timestep that is trained; low ones decide details."""
    max_timestep: int = Field(1000, ge=1, le=1000)
    """Timesteps below this are trained; high ones decide composition."""

    # ------------------------------------------------------------ noise

    noise_offset: float = Field(0.0, ge=0)
    """Adds a constant per channel to the noise, for darker darks and brighter brights; up to 0.1, 0 is off."""
    noise_offset_random: bool = False
    """Draw the strength of the noise offset anew each time, between 0 and `noise_offset`."""
    adaptive_noise_scale: float = 0.0
    """Adds this times the picture's mean latent to the noise offset; a tenth of it is usual, 0 is off."""
    multires_iterations: int = Field(0, ge=0)
    """Adds so many coarser and coarser layers to the noise; 6 to 10, 0 is off. Instead of a noise offset."""
    multires_discount: float = Field(0.3, gt=0, lt=1)
    """Each coarser layer counts this much of the one before; 0.1 to 0.3."""
    ip_noise_gamma: float = Field(0.0, ge=0)
    """Input perturbation (arXiv:2301.11706): noise in the picture that the answer does not know; 0.1, 0 is off."""
    ip_noise_gamma_random: bool = False
    """Draw the strength of the input perturbation anew each time, between 0 and `ip_noise_gamma`."""

    # ------------------------------------------------------------ machine

    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the frozen base. `auto`: bf16 (RTX 30 and newer), fp16 on older cards; on a processor bf16 where it
    is faster with it, measured at the start. A small base stays in fp32, and the adapter always."""
    quantize: Literal["none", "8bit", "4bit"] = "none"
    """Hold the UNet's linear layers in so many bits: less memory, slower steps, a coarser base. For small cards."""
    gradient_checkpointing: bool | Literal["auto"] = Field("auto", json_schema_extra=NEUTRAL)
    """Compute the UNet's activations twice instead of keeping them: half the memory, a third more time. `auto`: for
    SDXL on cards under 16 GB."""
    compile: bool = False
    """Compile the UNet's blocks with torch.compile: faster steps on a card, after a minute or more at the start."""
    cache: Literal["disk", "memory"] = Field("disk", json_schema_extra=NEUTRAL)
    """Where latents and texts are kept: `disk` (cache/, shared by all runs), or `memory` of this run alone."""
    cache_text: bool = Field(False, json_schema_extra=NEUTRAL)
    """Encode all captions first and take the text encoders off the card. Only where captions do not vary."""
    checkpoint_minutes: float = Field(5.0, ge=0, json_schema_extra=NEUTRAL)
    """The state to go on from after a crash is kept so often, and at each save; 0 is off."""
    checkpoint_steps: int = Field(0, ge=0, json_schema_extra=NEUTRAL)
    """And after every so many steps; 0 is off."""
    cpu: bool = Field(False, json_schema_extra=NEUTRAL)
    """Train on the CPU, where there is no card that torch can use, or with one. Hours to days for a real base."""
    seed: int = 0
    """Every random choice follows from it."""

    def rates(self, parts: Iterable[str]) -> dict[str, float]:
        """Learning rate of each of a base's parts that is trained."""
        second = self.text_encoder_lr if self.text_encoder_2_lr is None else self.text_encoder_2_lr
        all_rates = {"unet": self.lr, "text_encoder": self.text_encoder_lr, "text_encoder_2": second}
        return {part: all_rates[part] for part in parts if all_rates[part] > 0}

    def varying(self) -> list[str]:
        """Names of the settings that are on and make other texts of a caption than the one that it is."""
        able = ("shuffle_captions", "tag_dropout", "token_warmup", "wildcards")
        return [name for name in able if getattr(self, name)]
