"""Stable Diffusion 1.x: one CLIP text encoder, a UNet with cross-attention, four latent channels.

Everything that differs between bases of this family (sizes, layer counts, prediction type, latent scale,
noise schedule) is read from the base's own configuration; the small models that ship with the project are members
like any other.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from lorafactory.errors import BaseError
from lorafactory.families import Base, Frame, header
from lorafactory.families._ddpm import Ddpm

Parts = tuple[Any, Any, dict[str, Any]]
"""UNet, text encoder, and what else a base is made of."""
CONFIG = Path(__file__).parent / "sd15_config"
LABELS = {
    "ss_base_model_version": "sd_v1",
    "ss_v2": "False",
    "modelspec.architecture": "stable-diffusion-v1/lora",
    "modelspec.implementation": "diffusers",
}
targets = {
    "attention": ("Transformer2DModel",),
    "resnet": ("ResnetBlock2D", "Downsample2D", "Upsample2D"),
    "text": ("CLIPAttention", "CLIPMLP"),
}


def load(path: Path, *, dtype: torch.dtype | None = None, device: str = "cpu") -> Base:
    """Load a diffusers folder or a one-file checkpoint; `dtype` is fp32 where not given."""
    dtype = dtype or torch.float32
    with _quiet():
        try:
            parts = _load_folder(path, dtype) if path.is_dir() else _load_one_file(path, dtype)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise BaseError(f"{path}: cannot be loaded as a Stable Diffusion 1.x base: {error}") from error
    return _base(path.name, *parts[:2], **parts[2], dtype=dtype, device=device)


def _base(
    name: str,
    unet: nn.Module,
    text_encoder: nn.Module,
    *,
    vae: nn.Module,
    tokenizer: Any,
    scheduler: Any,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Base:
    for module in (unet, text_encoder, vae):
        module.requires_grad_(requires_grad=False).eval()
    return Base(
        family="sd15",
        name=name,
        parts={"unet": unet.to(device), "text_encoder": text_encoder.to(device)},
        tokenizers=(tokenizer,),
        vae=vae.to(device),
        scheduler=scheduler,
        schedule=Ddpm(scheduler.config, name),
        device=torch.device(device),
        dtype=dtype,
        labels=LABELS,
    )


def _load_folder(path: Path, dtype: torch.dtype) -> Parts:
    local: dict[str, Any] = {"local_files_only": True}
    weights = {**local, "use_safetensors": True}
    return (
        UNet2DConditionModel.from_pretrained(path, subfolder="unet", dtype=dtype, **weights),
        CLIPTextModel.from_pretrained(path, subfolder="text_encoder", dtype=dtype, **weights),
        {
            "vae": AutoencoderKL.from_pretrained(path, subfolder="vae", dtype=torch.float32, **weights),
            "tokenizer": CLIPTokenizer.from_pretrained(path / "tokenizer", **local),
            # the schedulers of this family share the fields that DDIM reads, so its own class does not matter
            "scheduler": DDIMScheduler.from_pretrained(path, subfolder="scheduler", **local),
        },
    )


def _load_one_file(path: Path, dtype: torch.dtype) -> Parts:
    """Load a checkpoint of the original release's layout, with the configuration in the package."""
    local: dict[str, Any] = {"config": str(CONFIG), "local_files_only": True}
    # by itself, so that it is never rounded to the precision of the others
    vae = AutoencoderKL.from_single_file(str(path), subfolder="vae", dtype=torch.float32, **local)
    pipe = StableDiffusionPipeline.from_single_file(
        str(path), vae=vae, tokenizer=tokenizer(), safety_checker=None, dtype=dtype, **local
    )
    # the file's only word about its schedule: empty marker tensors, as ComfyUI and Forge read them
    marks = header(path).keys()
    told = {"prediction_type": "v_prediction"} if "v_pred" in marks else {}
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config, rescale_betas_zero_snr="ztsnr" in marks, **told)
    return pipe.unet, pipe.text_encoder, {"vae": vae, "tokenizer": pipe.tokenizer, "scheduler": scheduler}


def tokenizer() -> CLIPTokenizer:
    """Build CLIP's tokenizer from the vocabulary that open_clip ships."""
    spec = importlib.util.find_spec("open_clip")  # found, not imported: that takes seconds
    if spec is None or not spec.submodule_search_locations:
        raise BaseError("open_clip is not installed, and CLIP's vocabulary is in it: pip install open_clip_torch")
    text = gzip.decompress((Path(spec.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz").read_bytes())
    # the first line is a version; 48 894 merges make, with 2 x 256 bytes and 2 specials, the 49 408 tokens
    merges = text.decode("utf-8").splitlines()[1 : 49152 - 256 - 2 + 1]
    pairs = [(left, right) for left, right in (line.split() for line in merges)]
    symbols = _byte_symbols()
    tokens = [*symbols, *(s + "</w>" for s in symbols), *(left + right for left, right in pairs)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    made: CLIPTokenizer = CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)}, merges=pairs, model_max_length=77
    )
    return made


def _byte_symbols() -> list[str]:
    """Name each byte by a visible character, in the order of GPT-2's BPE, as CLIP's vocabulary does."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(b) for b in visible] + [chr(256 + n) for n in range(256 - len(visible))]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the libraries' bars and notices while a base loads; errors still raise."""
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def encode_images(base: Base, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the scaled latents of pixels (n, 3, h, w) in -1..1."""
    with torch.no_grad():
        posterior = base.vae.encode(pixels.to(base.device, torch.float32)).latent_dist
    scale = base.vae.config.scaling_factor
    shift = base.vae.config.shift_factor or 0.0
    return (posterior.mean - shift) * scale, posterior.std * scale


def encode_captions(
    base: Base, captions: Sequence[str], frames: Sequence[Frame], *, clip_skip: int = 1
) -> dict[str, Tensor]:
    """Hidden states (n, 77, d); clip_skip 1 is the last layer, 2 the one before; the final norm follows."""
    encoder: Any = base.parts["text_encoder"]
    layers = int(encoder.config.num_hidden_layers)
    if not 1 <= clip_skip <= layers:
        raise BaseError(f"clip_skip {clip_skip}: the text encoder of {base.name} has {layers} layers.")
    tokenizer = base.tokenizers[0]
    tokens = tokenizer(
        list(captions),
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    )
    out = encoder(tokens.input_ids.to(base.device), output_hidden_states=clip_skip > 1)
    if clip_skip == 1:
        return {"encoder_hidden_states": out.last_hidden_state}
    inner = getattr(encoder, "text_model", encoder)
    return {"encoder_hidden_states": inner.final_layer_norm(out.hidden_states[-clip_skip])}


def predict(base: Base, noisy: Tensor, t: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
    states = conditioning["encoder_hidden_states"].to(base.dtype)
    out: Tensor = base.parts["unet"](noisy.to(base.dtype), t, states, return_dict=False)[0]
    return out.float()


def key_names(base: Base) -> dict[str, str]:
    """Kohya's names: `lora_unet_` and diffusers' module names, `lora_te_` and transformers' old ones."""
    names = {}
    for part, prefix in (("unet", "lora_unet_"), ("text_encoder", "lora_te_")):
        for path, module in base.parts[part].named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                # transformers 5 dropped the level `text_model.` that the names of the format still have
                full = path if part == "unet" else "text_model." + path.removeprefix("text_model.")
                names[f"{part}.{path}"] = prefix + full.replace(".", "_")
    return names


def pipeline(base: Base) -> StableDiffusionPipeline:
    with _quiet():
        pipe = StableDiffusionPipeline(
            vae=base.vae,
            text_encoder=base.parts["text_encoder"],
            tokenizer=base.tokenizers[0],
            unet=base.parts["unet"],
            scheduler=DDIMScheduler.from_config(base.scheduler.config),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tiny(seed: int = 0) -> Base:
    """Two levels, the upper with attention; a two-layer text encoder over bytes; 4 px a cell; answers v."""
    symbols = _byte_symbols()
    vocab = [*symbols, *(s + "</w>" for s in symbols), "<|startoftext|>", "<|endoftext|>"]
    specials = {
        "bos_token_id": len(vocab) - 2,
        "eos_token_id": len(vocab) - 1,
        "pad_token_id": len(vocab) - 1,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(16, 32),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            attention_head_dim=2,
            cross_attention_dim=16,
            norm_num_groups=8,
        )
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(vocab),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=77,
                projection_dim=16,
                **specials,
            )
        )
        vae = AutoencoderKL(
            block_out_channels=(8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            latent_channels=4,
            norm_num_groups=4,
            mid_block_add_attention=False,
            scaling_factor=0.9,
        )
    scheduler = DDIMScheduler.from_pretrained(CONFIG, subfolder="scheduler", prediction_type="v_prediction")
    tokenizer = CLIPTokenizer(vocab={t: i for i, t in enumerate(vocab)}, merges=[], model_max_length=77)
    return _base("tiny", unet, text, vae=vae, tokenizer=tokenizer, scheduler=scheduler)
