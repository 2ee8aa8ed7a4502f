"""The sd15 family: kohya's names on full-size models, both file layouts, settings read from the base itself."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from lorafactory import families, networks
from lorafactory.errors import BaseError, SettingsError
from lorafactory.families import Base, Frame, sd15
from lorafactory.training.adapter import layers
from lorafactory.training.settings import TrainSettings

FRAME = Frame((32, 32), (0, 0), (32, 32))


@pytest.fixture(scope="module")
def tiny() -> Base:
    return sd15.tiny()


@pytest.fixture(scope="module")
def full() -> Base:
    """Stable Diffusion 1.5 in its true size without its weights."""
    base = sd15.tiny()
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(sd15.CONFIG / "unet"))
        text = CLIPTextModel(CLIPTextConfig.from_pretrained(sd15.CONFIG / "text_encoder"))
    base.parts = {"unet": unet, "text_encoder": text}
    return base


@pytest.fixture(scope="module")
def folder(tiny: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "tiny"
    sd15.pipeline(tiny).save_pretrained(path)
    return path


def chosen(base: Base, kind: str) -> dict[str, tuple[str, int]]:
    """Part and rank of every layer a kind changes, by its name in the file."""
    names, network = sd15.key_names(base), networks.get(kind)
    settings = TrainSettings(rank=16, conv_rank=8)
    found = {}
    for layer in layers(sd15, base, ["unet", "text_encoder"]):
        size = network.size(layer, settings)
        if size is not None:
            found[names[f"{layer.part}.{layer.path}"]] = (layer.part, size.rank)
    return found


def test_a_lora_changes_the_modules_that_kohya_changes(full: Base) -> None:
    found = chosen(full, "lora")
    assert sum(part == "unet" for part, _ in found.values()) == 192
    assert sum(part == "text_encoder" for part, _ in found.values()) == 72
    block = "lora_unet_down_blocks_0_attentions_0"
    inner = f"{block}_transformer_blocks_0"
    assert {name for name in found if name.startswith(block + "_")} == {
        f"{block}_proj_in",
        f"{block}_proj_out",
        *(f"{inner}_attn{n}_to_{x}" for n in (1, 2) for x in ("q", "k", "v", "out_0")),
        f"{inner}_ff_net_0_proj",
        f"{inner}_ff_net_2",
    }
    layer = "lora_te_text_model_encoder_layers_11"
    assert {name for name in found if name.startswith(layer + "_")} == {
        *(f"{layer}_self_attn_{x}_proj" for x in ("q", "k", "v", "out")),
        f"{layer}_mlp_fc1",
        f"{layer}_mlp_fc2",
    }


def test_a_locon_adds_the_residual_blocks(full: Base) -> None:
    found = chosen(full, "locon")
    added = {name: rank for name, (_, rank) in found.items() if name not in chosen(full, "lora")}
    assert sum(rank == 8 for rank in added.values()) == 50  # 3x3 convolutions
    assert sum(rank == 16 for rank in added.values()) == 36  # 1x1 ones and time projections
    assert "lora_unet_down_blocks_2_downsamplers_0_conv" in added
    assert "lora_unet_up_blocks_0_upsamplers_0_conv" in added
    assert added["lora_unet_up_blocks_3_resnets_2_conv_shortcut"] == 16


def test_no_two_layers_share_a_name(full: Base) -> None:
    names = sd15.key_names(full)
    assert len(set(names.values())) == len(names)


def test_a_folder_is_loaded_as_it_was_saved(tiny: Base, folder: Path) -> None:
    assert families.detect(folder) == "sd15"
    loaded = sd15.load(folder)
    for name, part in tiny.parts.items():
        assert all(torch.equal(t, loaded.parts[name].state_dict()[key]) for key, t in part.state_dict().items())
        assert not any(p.requires_grad for p in loaded.parts[name].parameters())
    assert loaded.vae_sha256 == tiny.vae_sha256
    assert loaded.schedule.prediction_type == "v_prediction"
    assert (loaded.latent_channels, loaded.latent_factor) == (4, 4)
    captions = ["zqx, a dot", ""]
    found = sd15.encode_captions(loaded, captions, [FRAME] * 2)["encoder_hidden_states"]
    assert found.shape == (2, 77, 16)
    torch.testing.assert_close(found, sd15.encode_captions(tiny, captions, [FRAME] * 2)["encoder_hidden_states"])


def test_precision_and_prediction_type_come_from_the_settings(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "eps"))
    config = copy / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "prediction_type": "epsilon"}))
    loaded = sd15.load(copy, dtype=torch.bfloat16)
    assert loaded.schedule.prediction_type == "epsilon"
    assert {p.dtype for part in loaded.parts.values() for p in part.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in loaded.vae.parameters()} == {torch.float32}
    words = sd15.encode_captions(loaded, ["a"], [FRAME])
    out = sd15.predict(loaded, torch.zeros(1, 4, 8, 8), torch.tensor([5]), words)
    assert (out.dtype, out.shape) == (torch.float32, (1, 4, 8, 8))


def test_clip_skip_takes_an_earlier_layer_through_the_last_norm(tiny: Base) -> None:
    def states(skip: int) -> Tensor:
        return sd15.encode_captions(tiny, ["a dot"], [FRAME], clip_skip=skip)["encoder_hidden_states"]

    with torch.no_grad():
        tokens = tiny.tokenizers[0](["a dot"], padding="max_length", max_length=77, return_tensors="pt")
        out = tiny.parts["text_encoder"](tokens.input_ids, output_hidden_states=True)
        torch.testing.assert_close(states(1), out.last_hidden_state)
        torch.testing.assert_close(states(2), tiny.parts["text_encoder"].final_layer_norm(out.hidden_states[-2]))
    with pytest.raises(BaseError, match="has 2 layers"):
        states(3)


def test_latents_are_scaled(tiny: Base) -> None:
    pixels = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    mean, std = sd15.encode_images(tiny, pixels)
    assert mean.shape == std.shape == (1, 4, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(mean, tiny.vae.encode(pixels).latent_dist.mean * 0.9)


def test_the_tokenizer_is_clips() -> None:
    tokenizer = sd15.tokenizer()
    assert len(tokenizer) == 49408
    # the ids of openai/clip-vit-large-patch14
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert tokenizer("Hello, World!").input_ids == [49406, 3306, 267, 1002, 256, 49407]


def test_unknown_and_broken_bases_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"'flux9'\. Known: .*sd15"):
        families.get("flux9")
    assert families.names() == sorted(families.names()) and "sd15" in families.names()
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
    half = tmp_path / "half.safetensors"
    save_file({"a": torch.zeros(100)}, half)
    with pytest.raises(BaseError, match="no base model was recognised"):
        families.detect(half)
    half.write_bytes(half.read_bytes()[:-8])
    with pytest.raises(BaseError, match="Download it again"):
        families.detect(half)
    save_file({"lora_unet_x.alpha": torch.zeros(())}, half)
    with pytest.raises(BaseError, match="this is a LoRA"):
        families.detect(half)


# ---------------------------------------------------------------- one file in the layout of the original release


@pytest.fixture(scope="module")
def small_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration that ships in the package, with the channels of a toy."""
    path = Path(shutil.copytree(sd15.CONFIG, tmp_path_factory.mktemp("config") / "small"))
    smaller = {
        "unet": {"block_out_channels": [32, 32, 64, 64], "cross_attention_dim": 16, "attention_head_dim": 2},
        "vae": {"block_out_channels": [32, 32, 32, 32]},
        "text_encoder": {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "projection_dim": 16,
        },
    }
    for part, values in smaller.items():
        file = path / part / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    return path


RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET = [  # two layers to a level, as in the full model
    (r"^conv_in", "input_blocks.0.0"),
    (r"^time_embedding\.linear_1", "time_embed.0"),
    (r"^time_embedding\.linear_2", "time_embed.2"),
    (r"^conv_norm_out", "out.0"),
    (r"^conv_out", "out.2"),
    (r"^down_blocks\.(\d)\.resnets\.(\d)", lambda m: f"input_blocks.{3 * int(m[1]) + int(m[2]) + 1}.0"),
    (r"^down_blocks\.(\d)\.attentions\.(\d)", lambda m: f"input_blocks.{3 * int(m[1]) + int(m[2]) + 1}.1"),
    (r"^down_blocks\.(\d)\.downsamplers\.0\.conv", lambda m: f"input_blocks.{3 * int(m[1]) + 3}.0.op"),
    (r"^mid_block\.resnets\.(\d)", lambda m: f"middle_block.{2 * int(m[1])}"),
    (r"^mid_block\.attentions\.0", "middle_block.1"),
    (r"^up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"output_blocks.{3 * int(m[1]) + int(m[2])}.0"),
    (r"^up_blocks\.(\d)\.attentions\.(\d)", lambda m: f"output_blocks.{3 * int(m[1]) + int(m[2])}.1"),
    # the first level up has no attention, so its upsampler comes one place earlier
    (r"^up_blocks\.0\.upsamplers\.0", "output_blocks.2.1"),
    (r"^up_blocks\.(\d)\.upsamplers\.0", lambda m: f"output_blocks.{3 * int(m[1]) + 2}.2"),
]
VAE = [
    (r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{3 - int(m[1])}.block.{m[2]}"),
    (r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample"),
    (r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}"),
    (r"mid_block\.attentions\.0", "mid.attn_1"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"conv_norm_out", "norm_out"),
    (r"group_norm", "norm"),
    (r"to_([qkv])\.", r"\1."),
    (r"to_out\.0", "proj_out"),
]


def original(base: Base) -> dict[str, Tensor]:
    """Name a base's tensors as the original release does."""
    tensors = {}
    for key, tensor in base.parts["unet"].state_dict().items():
        for pattern, name in UNET:
            key, found = re.subn(pattern, name, key)  # noqa: PLW2901
            if found and ".resnets." not in key:
                break
        for ours, theirs in RESNET.items():
            key = re.sub(rf"^((?:input|middle|output)_blocks?[.\d]+)\.{ours}\.", rf"\1.{theirs}.", key)  # noqa: PLW2901
        tensors[f"model.diffusion_model.{key}"] = tensor
    for key, tensor in base.vae.state_dict().items():
        for pattern, name in VAE:
            key = re.sub(pattern, name, key)  # noqa: PLW2901
        square = "mid.attn_1" in key and tensor.ndim == 2
        tensors[f"first_stage_model.{key}"] = tensor[:, :, None, None] if square else tensor
    for key, tensor in base.parts["text_encoder"].state_dict().items():
        full = "text_model." + key.removeprefix("text_model.")
        tensors[f"cond_stage_model.transformer.{full}"] = tensor
    return {name: tensor.clone().contiguous() for name, tensor in tensors.items()}


@pytest.mark.parametrize("marked", [False, True])
def test_a_one_file_checkpoint_needs_no_hub(
    small_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, marked: bool
) -> None:
    import socket

    from diffusers import AutoencoderKL

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(sd15, "CONFIG", small_config)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    torch.manual_seed(0)
    made = sd15.tiny()
    made.parts = {
        "unet": UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(small_config / "unet")),
        "text_encoder": CLIPTextModel(CLIPTextConfig.from_pretrained(small_config / "text_encoder")),
    }
    made.vae = AutoencoderKL.from_config(AutoencoderKL.load_config(small_config / "vae"))
    tensors = original(made)
    file = tmp_path / "model.safetensors"
    save_file({**tensors, **({"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)} if marked else {})}, file)

    assert families.detect(file) == "sd15"
    loaded = sd15.load(file)
    for name, part in made.parts.items():
        state = loaded.parts[name].state_dict()
        assert state.keys() == part.state_dict().keys()
        assert all(torch.equal(tensor, state[key]) for key, tensor in part.state_dict().items())
    assert loaded.vae_sha256 == made.vae_sha256
    assert loaded.schedule.prediction_type == ("v_prediction" if marked else "epsilon")
    assert (float(loaded.schedule.snr(torch.tensor([999]))) == 0) is marked
    assert len(loaded.tokenizers[0]) == 49408
