"""What little of a base tells of it before anything is loaded: its family, and what it was taught to answer.

Of a one-file checkpoint the header is read, of a diffusers folder its JSON files; no tensor, and no torch.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorafactory.errors import BaseError, SettingsError

UNET = "model.diffusion_model"
TEXT = "token_embedding.weight"
MARKERS = (
    ("sdxl", (f"{UNET}.label_emb.0.0.weight", f"conditioner.embedders.1.model.{TEXT}")),
    ("the SDXL refiner", (f"{UNET}.label_emb.0.0.weight", f"conditioner.embedders.0.model.{TEXT}")),
    ("Stable Diffusion 2", (f"cond_stage_model.model.{TEXT}",)),
    ("sd15", (f"{UNET}.time_embed.0.weight", f"cond_stage_model.transformer.text_model.embeddings.{TEXT}")),
    ("sd15", (f"{UNET}.time_embed.0.weight", f"cond_stage_model.transformer.embeddings.{TEXT}")),
    ("Stable Diffusion 3", (f"{UNET}.joint_blocks.0.x_block.attn.qkv.weight",)),
    ("Flux", (f"{UNET}.double_blocks.0.img_attn.qkv.weight",)),
    ("Flux", ("double_blocks.0.img_attn.qkv.weight",)),
)
"""Keys of a one-file checkpoint that tell the architectures apart; all of a row's must be there."""
NOT_BASES = (
    (r"^(lora|lycoris)_|\.lora_|\.hada_|\.lokr_|\.oft_", "a LoRA"),
    (r"^control_model\.|^controlnet_|^input_hint_block\.", "a ControlNet"),
    (r"^emb_params$|^clip_[lg]$", "an embedding"),
    (r"^(model\.diffusion_model|down_blocks|input_blocks)\.", "only a UNet"),
    (r"^(first_stage_model|encoder\.down\w*|decoder\.up\w*)\.", "only a VAE"),
    (r"^(cond_stage_model|conditioner|text_model)\.", "only a text encoder"),
)
PIPELINES = {"StableDiffusionPipeline": "sd15", "StableDiffusionXLPipeline": "sdxl"}
PREDICTIONS = ("epsilon", "v_prediction")
VAE_KEYS = ("first_stage_model.encoder.conv_in.weight", "vae.encoder.conv_in.weight")


@dataclass(frozen=True)
class Found:
    """What a base says of itself."""

    family: str
    prediction_type: str
    """`epsilon` or `v_prediction`."""
    zero_snr: bool
    """The last timestep is nothing but noise."""

    @property
    def reads_clip_skip(self) -> bool:
        """SDXL always reads the last but one layer, as sd-scripts does, whatever `clip_skip` says."""
        return self.family != "sdxl"


def inspect(path: Path, *, vae: Path | None = None, prediction: str | None = None) -> Found:
    """Say what a base is, or why it cannot be trained; `vae` and `prediction` are what its user says of it.

    What is said wins over what the base leaves open: the keys `v_pred` and `ztsnr` of a file, as ComfyUI and Forge
    read them, then its metadata (`modelspec.prediction_type`, ComfyUI's `modelspec.predict_key`); the scheduler's
    settings of a folder. Raises BaseError with the file and what to do.
    """
    if prediction not in (None, *PREDICTIONS):
        raise SettingsError(f"prediction {prediction!r} is not known. Known: {', '.join(PREDICTIONS)}.")
    family = detect(path)
    own, zero_snr, has_vae = _folder_says(path) if path.is_dir() else _file_says(path)
    if own == "v_prediction" and prediction == "epsilon":
        raise BaseError(f"{path}: answers v_prediction, by its own word. Take out `prediction = {prediction!r}`.")
    found = Found(family, prediction or own or "epsilon", zero_snr)
    refuse(str(path), found.prediction_type, zero_snr=zero_snr)
    if vae is None and not has_vae:
        raise BaseError(f"{path}: has no VAE. Give one: vae = FILE.safetensors (the one of its family).")
    if vae is not None and not vae.is_dir() and (vae.suffix != ".safetensors" or not vae.is_file()):
        raise BaseError(f"{vae}: not a VAE this can load. Bring a .safetensors file or a diffusers folder.")
    return found


def refuse(where: str, prediction_type: str, *, zero_snr: bool) -> None:
    """Raise BaseError for what a base may have been taught and cannot be trained here."""
    if prediction_type not in PREDICTIONS:
        raise BaseError(f"{where}: prediction type {prediction_type!r} cannot be trained.")
    if prediction_type == "epsilon" and zero_snr:
        # the noise cannot be the answer where the picture is all noise: every weight would be 0/0
        raise BaseError(
            f"{where}: zero terminal SNR needs v_prediction, and this base says epsilon. "
            "If that is a slip of its maker's: prediction = 'v_prediction'."
        )


def _file_says(path: Path) -> tuple[str | None, bool, bool]:
    """Prediction type where it is said, zero terminal SNR, whether it has a VAE."""
    found = header(path)
    if any(key.startswith(("edm_mean", "edm_vpred")) for key in found):
        raise BaseError(f"{path}: has the EDM noise schedule (Playground 2.5, CosXL), which cannot be trained.")
    metadata = found.get("__metadata__", {})
    word = metadata.get("modelspec.prediction_type") or metadata.get("modelspec.predict_key")
    own = {"v": "v_prediction", "v_prediction": "v_prediction", "epsilon": "epsilon"}.get(str(word).lower())
    return "v_prediction" if "v_pred" in found else own, "ztsnr" in found, any(key in found for key in VAE_KEYS)


def _folder_says(path: Path) -> tuple[str | None, bool, bool]:
    scheduler = _json(path / "scheduler" / "scheduler_config.json")
    if str(scheduler.get("_class_name", "")).startswith("EDM"):
        raise BaseError(f"{path}: has the EDM noise schedule (Playground 2.5, CosXL), which cannot be trained.")
    return scheduler.get("prediction_type"), bool(scheduler.get("rescale_betas_zero_snr")), (path / "vae").is_dir()


def detect(path: Path) -> str:
    """Say the family of a base from little of it: `model_index.json`, or the header of a checkpoint."""
    from lorafactory.families import names

    if path.is_dir():
        found = _family_of_folder(path)
    elif path.suffix == ".safetensors" and path.is_file():
        found = _family_of_checkpoint(path)
    elif not path.exists():
        raise BaseError(f"{path}: there is no such base model.")
    else:
        raise BaseError(
            f"{path}: not a base this can load. Bring a .safetensors checkpoint or a diffusers folder; "
            "a .ckpt can hold programs and is never opened."
        )
    if found not in names():
        raise BaseError(f"{path}: a base of family {found}, which is not supported. Known: {', '.join(names())}.")
    return found


def _family_of_folder(path: Path) -> str:
    index = path / "model_index.json"
    if not index.is_file():
        raise BaseError(f"{path}: not a diffusers folder, it has no model_index.json.")
    pipeline = str(_json(index).get("_class_name"))
    family = PIPELINES.get(pipeline, pipeline)
    unet = _json(path / "unet" / "config.json") if family in PIPELINES.values() else {}
    if family == "sd15" and unet.get("cross_attention_dim") == 1024:
        return "Stable Diffusion 2"
    _refuse_channels(path, int(unet.get("in_channels", 4)))
    return family


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise TypeError("no table")
    except (OSError, ValueError, TypeError) as error:
        raise BaseError(f"{path}: cannot be read ({error}).") from error
    return found


def _family_of_checkpoint(path: Path) -> str:
    try:
        found = header(path)
    except (ValueError, struct.error, OSError) as error:
        raise BaseError(f"{path}: not a whole .safetensors file ({error}). Download it again.") from error
    for family, markers in MARKERS:
        if all(marker in found for marker in markers):
            first: Mapping[str, Any] = found.get(f"{UNET}.input_blocks.0.0.weight", {})
            _refuse_channels(path, first.get("shape", (0, 4))[1])
            return family
    raise BaseError(f"{path}: {_what_else(found)}")


def _what_else(keys: Collection[str]) -> str:
    for pattern, kind in NOT_BASES:
        if any(re.search(pattern, key) for key in keys):
            return f"this is {kind}; a base model is needed, with UNet and text encoder."
    return "no base model was recognised in it."


def _refuse_channels(path: Path, channels: int) -> None:
    if channels != 4:
        raise BaseError(f"{path}: its UNet has {channels} input channels; those of inpainting and editing have no use.")


def header(path: Path) -> dict[str, Any]:
    """Read the header of a safetensors file: name -> dtype, shape, offsets; no tensor is read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > size - 8:
            raise ValueError(f"the header needs {length} bytes and the file has {size}")
        found = json.loads(file.read(length))
    if not isinstance(found, dict):
        raise ValueError("the header is no table")
    end = max((v["data_offsets"][1] for k, v in found.items() if k != "__metadata__"), default=0)
    if end + 8 + length != size:
        raise ValueError(f"{end + 8 + length} bytes expected, {size} found")
    return found


def weights(base: Path) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Part, name and shape of every weight of the UNet and the text encoders, from the files' headers."""
    if base.is_file():
        for name, shape in _shapes(base):
            if name.startswith(f"{UNET}."):
                yield "unet", name.removeprefix(UNET), shape
            elif name.startswith(("cond_stage_model.", "conditioner.")):
                yield "text_encoder", name, shape
        return
    for folder in sorted(p for p in base.iterdir() if p.name == "unet" or p.name.startswith("text_encoder")):
        for file in sorted(folder.glob("*.safetensors"), key=lambda p: len(p.name))[:1]:  # not its .fp16 twin
            for name, shape in _shapes(file):
                yield "unet" if folder.name == "unet" else "text_encoder", f".{name}", shape


def _shapes(file: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name, about in header(file).items():
        if name != "__metadata__" and name.endswith("weight"):
            yield name, tuple(about["shape"])
