"""The sd15 family: kohya's names on full-size models, both file layouts, settings read from the base itself."""

from __future__ import annotations

import copy
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from original_layout import chosen, original
from original_layout import vae as original_vae
from safetensors.torch import save_file
from torch import Tensor

from lorafactory import families
from lorafactory.errors import BaseError
from lorafactory.families import Base, Frame, sd15

FAMILY = "sd15"
FRAME = Frame((32, 32), (0, 0), (32, 32))


def test_a_lora_changes_the_modules_that_kohya_changes(full: Base) -> None:
    found = chosen(sd15, full, "lora")
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
    found = chosen(sd15, full, "locon")
    added = {name: rank for name, (_, rank) in found.items() if name not in chosen(sd15, full, "lora")}
    assert sum(rank == 8 for rank in added.values()) == 50  # 3x3 convolutions
    assert sum(rank == 16 for rank in added.values()) == 36  # 1x1 ones and time projections
    assert "lora_unet_down_blocks_2_downsamplers_0_conv" in added
    assert "lora_unet_up_blocks_0_upsamplers_0_conv" in added
    assert added["lora_unet_up_blocks_3_resnets_2_conv_shortcut"] == 16


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


def test_long_captions_are_read_in_pieces_of_75(tiny: Base) -> None:
    caption = "a dot " * 30 + "b"  # 121 tokens: every letter is one

    def states(text: str, limit: int) -> Tensor:
        return sd15.encode_captions(tiny, [text, ""], [FRAME] * 2, max_tokens=limit)["encoder_hidden_states"]

    tokenizer = tiny.tokenizers[0]
    ids = tokenizer(caption, add_special_tokens=False).input_ids
    first, second = ([tokenizer.bos_token_id, *part, tokenizer.eos_token_id] for part in (ids[:75], ids[75:]))
    second += [tokenizer.pad_token_id] * (77 - len(second))
    with torch.no_grad():
        whole = [tiny.parts["text_encoder"](torch.tensor([piece])).last_hidden_state[0] for piece in (first, second)]
    wanted = torch.cat([whole[0][:1], whole[0][1:-1], whole[1][1:-1], whole[1][-1:]])
    found = states(caption, 150)
    assert found.shape == (2, 152, 16)
    torch.testing.assert_close(found[0], wanted)
    assert states(caption, 225).shape == (2, 227, 16)
    torch.testing.assert_close(states(caption, 75)[0], whole[0])  # the rest is cut off


# ---------------------------------------------------------------- one file in the layout of the original release


def test_the_text_encoder_may_come_without_a_level_of_its_name(made: Base, tmp_path: Path) -> None:
    tensors = {key.replace("transformer.text_model.", "transformer."): t for key, t in original(made).items()}
    save_file(tensors, tmp_path / "merged.safetensors")
    assert families.detect(tmp_path / "merged.safetensors") == "sd15"
    state = sd15.load(tmp_path / "merged.safetensors", dtype=torch.bfloat16).parts["text_encoder"].state_dict()
    for key, tensor in made.parts["text_encoder"].state_dict().items():
        assert torch.equal(state[key], tensor.bfloat16())


def test_what_a_file_lacks_or_has_in_another_size_is_named(made: Base, tmp_path: Path) -> None:
    tensors, file = original(made), tmp_path / "half.safetensors"
    bias, weight = "model.diffusion_model.out.2.bias", "model.diffusion_model.out.2.weight"
    save_file({key: t for key, t in tensors.items() if key != bias}, file)
    with pytest.raises(
        BaseError, match=rf"half\.safetensors: 1 of the \d+ tensors .*UNet.* {re.escape(bias)} is missing"
    ):
        sd15.load(file)
    save_file({**tensors, weight: torch.zeros(4, 8, 3, 3)}, file)
    with pytest.raises(BaseError, match=f"{re.escape(weight)} differs"):
        sd15.load(file)


# ---------------------------------------------------------------- a VAE of one's own


@pytest.mark.parametrize("layout", ["original", "checkpoint", "diffusers", "old diffusers", "folder"])
def test_a_vae_can_be_brought(made: Base, tmp_path: Path, layout: str) -> None:
    whole = original(made)
    base, vae = tmp_path / "base.safetensors", tmp_path / "vae.safetensors"
    save_file({key: t for key, t in whole.items() if not key.startswith("first_stage_model.")}, base)
    with pytest.raises(BaseError, match=r"base\.safetensors: has no VAE.*vae = FILE"):
        sd15.load(base)

    mine = {key: tensor + 0.5 for key, tensor in made.vae.state_dict().items()}
    other = copy.copy(made)
    other.vae = copy.deepcopy(made.vae)
    other.vae.load_state_dict(mine)
    vars(other).pop("vae_sha256", None)  # remembered of the first
    if layout == "folder":
        vae = tmp_path / "vae"
        other.vae.save_pretrained(vae)
    elif layout == "checkpoint":
        save_file(original(other), vae)
    elif layout == "original":
        save_file({key: t.contiguous() for key, t in original_vae(other).items()}, vae)
    else:
        former = {"to_q.": "query.", "to_k.": "key.", "to_v.": "value.", "to_out.0.": "proj_attn."}
        for new, old in former.items() if layout == "old diffusers" else ():
            mine = {key.replace(new, old): t for key, t in mine.items()}
        save_file(mine, vae)
    if layout == "checkpoint":  # in place of the base's own
        save_file(whole, base)
    loaded = sd15.load(base, vae=vae, dtype=torch.float16)
    assert loaded.vae_sha256 == other.vae_sha256 != made.vae_sha256
    assert {p.dtype for p in loaded.vae.parameters()} == {torch.float32}


def test_a_vae_that_is_none_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BaseError, match=r"gone\.safetensors: not a VAE"):
        sd15.load(folder, vae=tmp_path / "gone.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(BaseError, match=r"a\.safetensors: \d+ of the \d+ tensors of its AutoencoderKL do not fit"):
        sd15.load(folder, vae=tmp_path / "a.safetensors")
