"""What is told from a header or a few JSON files: family, prediction type, and every kind of file that is no base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lorafactory import families
from lorafactory.errors import BaseError, SettingsError

UNET = "model.diffusion_model"
SD15 = [
    f"{UNET}.time_embed.0.weight",
    f"{UNET}.input_blocks.0.0.weight",
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
    "first_stage_model.encoder.conv_in.weight",
]
SDXL = [
    *SD15[:2],
    f"{UNET}.label_emb.0.0.weight",
    "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight",
    "conditioner.embedders.1.model.token_embedding.weight",
    "first_stage_model.encoder.conv_in.weight",
]


def checkpoint(path: Path, keys: list[str], metadata: dict[str, str] | None = None, channels: int = 4) -> Path:
    save_file({key: torch.zeros(1, channels, 1, 1) for key in keys}, path, metadata=metadata)
    return path


def folder(path: Path, pipeline: str = "StableDiffusionXLPipeline", **files: dict[str, Any]) -> Path:
    contents: dict[str, dict[str, Any]] = {"unet": {}, "scheduler": {}, "vae": {}, **files}
    for part, values in contents.items():
        (path / part).mkdir(parents=True)
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        (path / part / name).write_text(json.dumps(values))
    (path / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    return path


@pytest.mark.parametrize(
    ("keys", "metadata", "wanted"),
    [
        (SD15, {}, ("sd15", "epsilon", False)),
        (SDXL, {}, ("sdxl", "epsilon", False)),
        ([*SDXL, "v_pred"], {}, ("sdxl", "v_prediction", False)),
        ([*SDXL, "v_pred", "ztsnr"], {"modelspec.prediction_type": "epsilon"}, ("sdxl", "v_prediction", True)),
        (SDXL, {"modelspec.prediction_type": "v"}, ("sdxl", "v_prediction", False)),
        (SDXL, {"modelspec.predict_key": "v"}, ("sdxl", "v_prediction", False)),
        (SDXL, {"modelspec.prediction_type": "epsilon"}, ("sdxl", "epsilon", False)),
    ],
)
def test_a_checkpoint_says_what_it_is(
    tmp_path: Path, keys: list[str], metadata: dict[str, str], wanted: tuple[str, str, bool]
) -> None:
    found = families.inspect(checkpoint(tmp_path / "a.safetensors", keys, metadata))
    assert (found.family, found.prediction_type, found.zero_snr) == wanted


def test_a_folder_says_it_in_its_scheduler(tmp_path: Path) -> None:
    told = {"_class_name": "EulerDiscreteScheduler", "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    found = families.inspect(folder(tmp_path / "v", scheduler=told))
    assert (found.family, found.prediction_type, found.zero_snr) == ("sdxl", "v_prediction", True)
    assert families.inspect(folder(tmp_path / "plain")).prediction_type == "epsilon"
    with pytest.raises(BaseError, match="'sample' cannot be trained"):
        families.inspect(folder(tmp_path / "x", scheduler={"prediction_type": "sample"}))
    with pytest.raises(BaseError, match="EDM noise schedule"):
        families.inspect(folder(tmp_path / "edm", scheduler={"_class_name": "EDMDPMSolverMultistepScheduler"}))


def test_the_user_has_a_word_where_the_base_leaves_it_open(tmp_path: Path) -> None:
    silent = checkpoint(tmp_path / "silent.safetensors", SDXL)
    assert families.inspect(silent, prediction="v_prediction").prediction_type == "v_prediction"
    marked = checkpoint(tmp_path / "marked.safetensors", [*SDXL, "v_pred"])
    with pytest.raises(BaseError, match=r"marked\.safetensors: answers v_prediction.*Take out"):
        families.inspect(marked, prediction="epsilon")
    with pytest.raises(SettingsError, match=r"'v' is not known. Known: epsilon, v_prediction"):
        families.inspect(silent, prediction="v")
    half = checkpoint(tmp_path / "half.safetensors", [*SDXL, "ztsnr"])
    with pytest.raises(BaseError, match=r"half\.safetensors: zero terminal SNR needs v_prediction"):
        families.inspect(half)
    assert families.inspect(half, prediction="v_prediction").zero_snr


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["lora_unet_x.alpha"], "this is a LoRA;"),
        (["unet.down_blocks.0.attentions.0.to_q.lora_A.weight"], "this is a LoRA;"),
        (["control_model.input_hint_block.0.bias", *SD15[:2]], "this is a ControlNet;"),
        (SDXL[:3], "this is only a UNet;"),
        (["down_blocks.0.resnets.0.conv1.weight"], "this is only a UNet;"),
        (["encoder.down_blocks.0.resnets.0.conv1.weight"], "this is only a VAE;"),
        (["encoder.down.0.block.0.conv1.weight"], "this is only a VAE;"),
        (["text_model.embeddings.position_ids"], "this is only a text encoder;"),
        (["emb_params"], "this is an embedding;"),
        (["a"], "no base model was recognised"),
        (["cond_stage_model.model.token_embedding.weight"], "family Stable Diffusion 2, which is not supported"),
        ([SDXL[2], "conditioner.embedders.0.model.token_embedding.weight"], "family the SDXL refiner"),
        ([f"{UNET}.joint_blocks.0.x_block.attn.qkv.weight"], "family Stable Diffusion 3"),
        (["double_blocks.0.img_attn.qkv.weight"], "family Flux"),
        ([*SDXL, "edm_mean"], "EDM noise schedule"),
        (SD15[:3], "has no VAE"),
    ],
)
def test_what_is_no_base_is_called_by_its_name(tmp_path: Path, keys: list[str], message: str) -> None:
    with pytest.raises(BaseError, match=rf"a\.safetensors: .*{message}"):
        families.inspect(checkpoint(tmp_path / "a.safetensors", keys))


def test_bases_for_inpainting_and_stable_diffusion_2_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseError, match="9 input channels"):
        families.detect(checkpoint(tmp_path / "a.safetensors", SD15, channels=9))
    with pytest.raises(BaseError, match="9 input channels"):
        families.detect(folder(tmp_path / "inpaint", "StableDiffusionPipeline", unet={"in_channels": 9}))
    with pytest.raises(BaseError, match="family Stable Diffusion 2"):
        families.detect(folder(tmp_path / "sd2", "StableDiffusionPipeline", unet={"cross_attention_dim": 1024}))


def test_unknown_and_broken_bases_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"'flux9'\. Known: .*sd15"):
        families.get("flux9")
    assert families.names() == ["sd15", "sdxl"]
    with pytest.raises(BaseError, match="no such base"):
        families.detect(tmp_path / "gone.safetensors")
    (tmp_path / "old.ckpt").write_bytes(b"x")
    with pytest.raises(BaseError, match=r"old\.ckpt: not a base"):
        families.detect(tmp_path / "old.ckpt")
    with pytest.raises(BaseError, match=r"no model_index\.json"):
        families.detect(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(BaseError, match="family FluxPipeline, which is not supported"):
        families.detect(tmp_path)
    (tmp_path / "model_index.json").write_text("[1")
    with pytest.raises(BaseError, match=r"model_index\.json: cannot be read"):
        families.detect(tmp_path)
    half = checkpoint(tmp_path / "half.safetensors", ["a"])
    half.write_bytes(half.read_bytes()[:-8])
    with pytest.raises(BaseError, match="Download it again"):
        families.detect(half)
