"""The sdxl family: kohya's names on full-size models, both file layouts, and all that the UNet is told."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from original_layout import chosen, original
from safetensors.torch import save_file
from torch import Tensor

from lorafactory.families import Base, Frame, sdxl

FAMILY = "sdxl"
FRAME = Frame((32, 32), (0, 0), (32, 32))
PARTS = ["unet", "text_encoder", "text_encoder_2"]


# ---------------------------------------------------------------- names


def attention_names() -> set[str]:
    """What sd-scripts trains of SDXL's UNet: transformers of 1 x 2 and 10 layers, in the original numbering."""
    depths = {f"input_blocks_{i}": 2 for i in (4, 5)} | {f"input_blocks_{i}": 10 for i in (7, 8)}
    depths |= {"middle_block": 10} | {f"output_blocks_{i}": 10 if i < 3 else 2 for i in range(6)}
    found = set()
    for block, depth in depths.items():
        found |= {f"lora_unet_{block}_1_proj_in", f"lora_unet_{block}_1_proj_out"}
        for layer in range(depth):
            inner = f"lora_unet_{block}_1_transformer_blocks_{layer}"
            found |= {f"{inner}_attn{n}_to_{x}" for n in (1, 2) for x in ("q", "k", "v", "out_0")}
            found |= {f"{inner}_ff_net_0_proj", f"{inner}_ff_net_2"}
    return found


def text_names() -> set[str]:
    ends = [*(f"self_attn_{x}_proj" for x in ("q", "k", "v", "out")), "mlp_fc1", "mlp_fc2"]
    return {
        f"{encoder}_text_model_encoder_layers_{layer}_{end}"
        for encoder, depth in (("lora_te1", 12), ("lora_te2", 32))
        for layer in range(depth)
        for end in ends
    }


def test_a_lora_changes_the_modules_that_kohya_changes(full: Base) -> None:
    found = chosen(sdxl, full, "lora")
    assert set(found) == attention_names() | text_names()
    counts = [sum(part == name for part, _ in found.values()) for name in PARTS]
    assert counts == [722, 72, 192]


def test_a_locon_adds_the_residual_blocks(full: Base) -> None:
    found = chosen(sdxl, full, "locon")
    added = {name: rank for name, (_, rank) in found.items() if name not in attention_names() | text_names()}
    resnets = [f"input_blocks_{i}_0" for i in (1, 2, 4, 5, 7, 8)] + ["middle_block_0", "middle_block_2"]
    resnets += [f"output_blocks_{i}_0" for i in range(9)]
    wide = {f"{r}_{end}" for r in resnets for end in ("in_layers_2", "out_layers_3")}
    wide |= {"input_blocks_3_0_op", "input_blocks_6_0_op", "output_blocks_2_2_conv", "output_blocks_5_2_conv"}
    narrow = {f"{r}_emb_layers_1" for r in resnets}
    narrow |= {f"{r}_skip_connection" for r in resnets if r.startswith("output") or r in resnets[2:5:2]}
    assert {name for name, rank in added.items() if rank == 8} == {f"lora_unet_{x}" for x in wide}
    assert {name for name, rank in added.items() if rank == 16} == {f"lora_unet_{x}" for x in narrow}
    assert (len(wide), len(narrow)) == (38, 28)


def test_layers_outside_the_blocks_have_names_too(full: Base) -> None:
    names = sdxl.key_names(full)
    assert names["unet.add_embedding.linear_1"] == "lora_unet_label_emb_0_0"
    assert names["text_encoder_2.text_projection"] == "lora_te2_text_projection"


# ---------------------------------------------------------------- captions and sizes


def test_captions_are_encoded_as_by_the_pipeline(tiny: Base) -> None:
    captions = ["zqx, a dot!", ""]
    found = sdxl.encode_captions(tiny, captions, [FRAME] * 2)
    states, _, pooled, _ = sdxl.pipeline(tiny).encode_prompt(captions, do_classifier_free_guidance=False)
    torch.testing.assert_close(found["encoder_hidden_states"], states)
    torch.testing.assert_close(found["text_embeds"], pooled)
    assert found["encoder_hidden_states"].shape == (2, 77, 40)
    again = sdxl.encode_captions(tiny, captions, [FRAME] * 2, clip_skip=2)
    assert all(torch.equal(again[name], found[name]) for name in found)


def test_long_captions_are_read_in_pieces_of_75(tiny: Base) -> None:
    caption = "a dot " * 30 + "b"  # 121 tokens: every letter is one
    found = sdxl.encode_captions(tiny, [caption, "a"], [FRAME] * 2, max_tokens=150)
    assert found["encoder_hidden_states"].shape == (2, 152, 40)
    pieces = []
    for encoder, tokenizer, pad in zip(PARTS[1:], tiny.tokenizers, (513, 0), strict=True):
        ids = tokenizer(caption, add_special_tokens=False).input_ids
        rows = [[512, *ids[:75], 513], [512, *ids[75:], 513] + [pad] * (150 - len(ids))]
        with torch.no_grad():
            out = tiny.parts[encoder](torch.tensor(rows), output_hidden_states=True)
        first, second = out.hidden_states[-2]
        pieces.append(torch.cat([first[:-1], second[1:]]))
    torch.testing.assert_close(found["encoder_hidden_states"][0], torch.cat(pieces, dim=-1))
    torch.testing.assert_close(found["text_embeds"][0], out.text_embeds[0])  # the first piece's


def test_sizes_are_told_height_first_and_exactly(tiny: Base) -> None:
    frames = [Frame((4033, 3001), (5, 7), (1152, 896)), FRAME]
    found = sdxl.encode_captions(tiny, ["a", "a"], frames)["time_ids"]
    assert found.tolist() == [[3001, 4033, 7, 5, 896, 1152], [32, 32, 0, 0, 32, 32]]
    low = sdxl.tiny()
    low.dtype = torch.bfloat16
    for part in low.parts.values():
        part.to(torch.bfloat16)
    told = sdxl.encode_captions(low, ["a"], frames[:1])
    assert told["time_ids"].tolist() == [[3001, 4033, 7, 5, 896, 1152]]  # in bf16 it would be 3008, 4032
    out = sdxl.predict(low, torch.zeros(1, 4, 8, 8), torch.tensor([5]), told)
    assert (out.dtype, out.shape) == (torch.float32, (1, 4, 8, 8))


def test_the_answer_depends_on_everything_told(tiny: Base) -> None:
    def answer(caption: str, frame: Frame) -> Tensor:
        noisy = torch.ones(1, 4, 8, 8)
        return sdxl.predict(tiny, noisy, torch.tensor([500]), sdxl.encode_captions(tiny, [caption], [frame]))

    plain = answer("a", FRAME)
    assert torch.equal(plain, answer("a", FRAME))
    assert not torch.equal(plain, answer("b", FRAME))
    for frame in (
        Frame((64, 32), (0, 0), (32, 32)),
        Frame((32, 32), (3, 0), (32, 32)),
        Frame((32, 32), (0, 0), (40, 32)),
    ):
        assert not torch.equal(plain, answer("a", frame))


def test_an_exclamation_mark_is_a_character(folder: Path, tmp_path: Path) -> None:
    """Token 0 fills the second encoder's rows; declared as a special token it would swallow the character."""
    ids = tiny_ids = [512, 256, 256, 513]  # "!" at a word's end is token 256, as in CLIP's own vocabulary
    for base in (sdxl.tiny(), sdxl.load(folder)):
        for tokenizer, pad in zip(base.tokenizers, (513, 0), strict=True):
            assert tokenizer("! !").input_ids == tiny_ids
            assert tokenizer("! !", padding="max_length", max_length=6).input_ids == [*ids, pad, pad]
    # the files of an older release: the vocabulary apart, and special tokens in the settings
    second = tmp_path / "tokenizer_2"
    second.mkdir()
    vocabulary = sdxl.tiny().tokenizers[0].get_vocab()
    (second / "vocab.json").write_text(json.dumps(vocabulary))
    (second / "merges.txt").write_text("#version: 0.2\n")
    special = {"content": "!", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    settings = {"pad_token": "!", "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
    settings |= {"added_tokens_decoder": {"0": {**special, "special": True}}}
    (second / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = sdxl.tokenizer_from(second, sdxl.PAD)
    assert tokenizer("! !", padding="max_length", max_length=6).input_ids == [*ids, 0, 0]


# ---------------------------------------------------------------- one file


def test_marks_in_a_file_decide_what_is_trained_and_drawn(made: Base, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({**original(made), "v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}, file)
    loaded = sdxl.load(file, dtype=torch.bfloat16)
    assert {p.dtype for part in loaded.parts.values() for p in part.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in loaded.vae.parameters()} == {torch.float32}
    assert loaded.schedule.prediction_type == "v_prediction"
    assert float(loaded.schedule.snr(torch.tensor([999]))) == 0
    scheduler = sdxl.pipeline(loaded).scheduler
    scheduler.set_timesteps(4)
    assert scheduler.config.prediction_type == "v_prediction" and int(scheduler.timesteps[0]) == 999
    save_file(original(made), file)
    assert sdxl.load(file, prediction="v_prediction").schedule.prediction_type == "v_prediction"
