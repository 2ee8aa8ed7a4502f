"""Every adapter kind: it learns, its file says all of it, killed or not, and lycoris reads it as we do."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lorafactory import families, networks
from lorafactory.errors import InputError
from lorafactory.families import Base
from lorafactory.networks import Size, _blocks, lokr
from lorafactory.training import adapter, dropout, lora_file, resize
from lorafactory.training.adapter import attach
from lorafactory.training.checkpoint import Keeper
from lorafactory.training.loop import Save, train
from lorafactory.training.plan import Example
from lorafactory.training.randomness import generator
from lorafactory.training.sample import sample
from lorafactory.training.settings import TrainSettings
from tests.training.conftest import attached, change, same

SHAPES = {
    "lora": {"lora_down.weight", "lora_up.weight", "alpha"},
    "locon": {"lora_down.weight", "lora_up.weight", "alpha"},
    "dylora": {"lora_down.weight", "lora_up.weight", "alpha"},
    "dora": {"lora_down.weight", "lora_up.weight", "dora_scale", "alpha"},
    "loha": {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "alpha"},
    "lokr": {"lokr_w1", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "alpha"},
}
LAYER = re.compile(r"lora_unet_(down|mid|up)_block\w+|lora_te_text_model_encoder_layers_\d+_(self_attn|mlp)_\w+")
ALL_OUT = {"dropout": 0.2, "rank_dropout": 0.2, "module_dropout": 0.2}
BLOCKWISE = {"block_dims": (4, 2, *[3] * 10, 0, *[5] * 12), "up_lr_weight": "cosine+.5", "mid_lr_weight": (0.5,)}
"""12 blocks down, of which the first with layers has rank 2, none in the middle, 12 up."""
OPTIONS = {"steps": 2, "cfg": 3.0, "size": (32, 32)}


class Killed(BaseException):
    """Ends a training anywhere, as a signal that cannot be caught would."""


def settings(quick: TrainSettings, kind: str, **more: object) -> TrainSettings:
    plain = {"caption_dropout": 0, "tag_dropout": 0, "shuffle_captions": False, "flip": False, "noise_offset": 0}
    told = {"network": kind, "epochs": 8, "save_every_epochs": 8, "lr": 3e-2, "scheduler": "constant", "unit": 2}
    return change(quick, **{**plain, **told, "text_encoder_lr": 1e-3, **more})


@pytest.mark.parametrize(
    ("kind", "more"),
    [(kind, {}) for kind in networks.names()]
    + [
        ("lora", {**ALL_OUT, **BLOCKWISE}),
        ("lokr", {"rank_dropout": 0.1, "module_dropout": 0.1}),
        ("dylora", {"ema": True}),
    ],
)
def test_it_learns_and_its_file_is_all_of_it_killed_or_not(
    kind: str, more: dict[str, object], base: Base, pictures: list[Example], quick: TrainSettings, cache: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    s, saves, drawn = settings(quick, kind, **more), [], []
    pictures = pictures[::4]  # two of one size: 2 steps an epoch

    def on_save(save: Save) -> None:
        saves.append(save)
        drawn.append(sample(base, ["zqx"], [1], **OPTIONS)[0])

    losses = train(base, pictures, s, cache=cache, on_save=on_save).losses
    third = len(losses) // 3
    assert sum(losses[-third:]) < 0.97 * sum(losses[:third])

    file = tmp_path / "a.safetensors"
    digest = lora_file.write(file, saves[-1].tensors, {}, dtype="fp32")
    assert {name.partition(".")[2] for name in saves[-1].tensors} == SHAPES[kind]
    assert all(LAYER.fullmatch(name.partition(".")[0]) for name in saves[-1].tensors)
    assert adapter.sizes_told(saves[-1].tensors)["network"] == ("lora" if kind == "dylora" else kind)
    before = sample(base, ["zqx"], [1], **OPTIONS)[0]
    with lora_file.applied(base, file) as there:
        after = sample(base, ["zqx"], [1], **OPTIONS)[0]
    assert there.tensors == len(saves[-1].tensors)
    apart = [np.abs(np.asarray(after, int) - np.asarray(other, int)).mean() for other in (drawn[-1], before)]
    assert apart[0] < 0.2 and apart[1] > 1

    def on_step(step: int, loss: float, lr: float) -> None:
        if step == 7:
            raise Killed

    keeper, again = Keeper(tmp_path / "state", steps=4), []
    with pytest.raises(Killed):
        train(base, pictures, s, cache=cache, keeper=keeper, on_step=on_step)
    train(base, pictures, s, cache=cache, keeper=Keeper(tmp_path / "state", steps=4), on_save=again.append)
    assert lora_file.write(tmp_path / "b.safetensors", again[-1].tensors, {}, dtype="fp32") == digest
    assert (again[-1].average is None) == (not s.ema)
    assert not s.ema or same(again[-1].average or {}, saves[-1].average or {})


def test_a_row_of_dora_is_as_long_as_its_scale_says(base: Base, quick: TrainSettings) -> None:
    made = attached(base, change(quick, network="dora"))
    tensors = made.state()
    made.detach()
    name, path = "lora_unet_down_blocks_0_attentions_0_proj_in", "down_blocks.0.attentions.0.proj_in"
    weight, scale = base.parts["unet"].get_submodule(path).weight, tensors[f"{name}.dora_scale"]
    assert weight.ndim == 4 and scale.shape == (len(weight), 1, 1, 1)
    assert tensors["lora_te_text_model_encoder_layers_0_mlp_fc1.dora_scale"].shape[1:] == (1,)
    with lora_file.applied(base, tensors):
        torch.testing.assert_close(weight.flatten(1).norm(dim=1), scale.flatten().abs())
    with pytest.raises(InputError, match="another size"):
        lora_file.apply(base, {**tensors, f"{name}.dora_scale": scale[1:]})


@pytest.mark.parametrize("kind", ["dora", "loha", "lokr"])
def test_only_low_rank_files_are_made_smaller(kind: str, base: Base, quick: TrainSettings) -> None:
    made = attached(base, change(quick, network=kind))
    tensors = made.state()
    made.detach()
    with pytest.raises(InputError, match="only a LoRA or a LoCon can be made smaller"):
        resize.resize("a.safetensors", tensors, 1)


@pytest.mark.parametrize("kind", ["lora", "dora", "loha", "lokr"])
def test_going_on_from_a_file_takes_its_sizes(kind: str, base: Base, quick: TrainSettings) -> None:
    made = attached(base, change(quick, network=kind, rank=3, alpha=6))
    tensors = made.state()
    made.detach()
    told = adapter.sizes_told(tensors)
    assert (told["network"], told["rank"]) == (kind, 3)
    family = families.get(base.family)
    again = attach(
        family, base, kind=kind, settings=quick, parts=[], generator=lambda name: generator(9, name), tensors=tensors
    )
    assert same(again.state(), tensors)
    again.detach()
    with pytest.raises(InputError, match="adapter kind"):
        other = "loha" if kind != "loha" else "lora"
        attach(family, base, kind=other, settings=quick, parts=[], generator=lambda n: generator(9), tensors=tensors)


# ---------------------------------------------------------------- what is left out


def test_dylora_at_a_block_is_its_file_cut_there(base: Base, quick: TrainSettings) -> None:
    """With alpha as it is: the change of the first b ranks is scaled by alpha / b."""
    s = change(quick, network="dylora", rank=6, unit=2, seed=3)
    made = attached(base, s)
    left, tensors = dropout.Dropout(made, s), made.state()
    states = torch.randn(1, 77, 16, generator=generator(3))
    noisy, t = torch.randn((1, 4, 8, 8), generator=generator(4)), torch.tensor([300])

    def answer() -> Tensor:
        with torch.no_grad():
            return families.get("sd15").predict(base, noisy, t, {"encoder_hidden_states": states})

    found, whole = {}, answer()
    for step in range(12):
        with left.drawn(step, 0):
            found[2 * (1 + int(left.share * 3))] = answer()
    assert sorted(found) == [2, 4, 6]
    made.detach()
    for there, theirs in found.items():
        cut = {
            key: tensor[:there] if "lora_down" in key else tensor[:, :there] if "lora_up" in key else tensor
            for key, tensor in tensors.items()
        }
        with lora_file.applied(base, cut):
            torch.testing.assert_close(answer(), theirs, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found[6], whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(ALL_OUT))
def test_each_dropout_leaves_out_what_it_says_and_only_in_a_step(name: str, base: Base, quick: TrainSettings) -> None:
    s = change(quick, **{name: 0.5}, rank=8)
    made = attached(base, s)
    module = made.modules["lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"][1]
    left = dropout.Dropout(made, s)
    seen: list[Tensor] = []
    module.lora_B[adapter.ADAPTER].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    x = torch.ones(4, 5, module.in_features)
    plain = module(x)
    with left.drawn(7, 0):
        once = module(x)
    with left.drawn(7, 0):
        twice = module(x)
    with left.drawn(7, 1):
        other = module(x)
    made.detach()
    assert torch.equal(once, twice) and not torch.equal(once, plain)
    gone = seen[1] == 0
    if name == "module_dropout":
        base_alone = module.get_base_layer()(x)
        assert any(torch.equal(out, base_alone) for out in (once, other))
        return
    assert not torch.equal(once, other)
    assert 0.3 < float(gone.float().mean()) < 0.7
    torch.testing.assert_close(seen[1][~gone], 2 * seen[0][~gone])
    by_rank = bool((gone == gone[:, :1]).all())  # the same ranks for every word of a picture
    assert by_rank == (name == "rank_dropout") and not (gone == gone[:1]).all()


# ---------------------------------------------------------------- blocks


@pytest.mark.parametrize(
    ("family", "name", "number"),
    [
        ("sd15", "down_blocks.0.attentions.0.proj_in", 1),
        ("sd15", "lora_unet_down_blocks_2_downsamplers_0_conv", 9),
        ("sd15", "lora_unet_mid_block_resnets_1_conv1", 12),
        ("sd15", "lora_unet_up_blocks_0_resnets_0_conv1", 13),
        ("sd15", "lora_unet_up_blocks_3_attentions_2_proj_out", 24),
        ("sdxl", "lora_unet_input_blocks_4_1_proj_in", 5),
        ("sdxl", "down_blocks.1.attentions.0.proj_in", 5),
        ("sdxl", "lora_unet_middle_block_1_proj_in", 11),
        ("sdxl", "mid_block.resnets.1.conv1", 12),
        ("sdxl", "lora_unet_output_blocks_8_0_in_layers_2", 21),
        ("sdxl", "lora_te1_text_model_encoder_layers_0_mlp_fc1", None),
    ],
)
def test_blocks_are_numbered_as_kohyas(family: str, name: str, number: int | None) -> None:
    assert _blocks.number(name, family) == number


def test_presets_rise_and_fall_as_kohyas() -> None:
    assert _blocks.rates("linear", 12) == pytest.approx([i / 11 for i in range(12)])
    assert _blocks.rates("reverse_linear+.5", 9) == pytest.approx([1.5 - i / 8 for i in range(9)])
    sine, cosine = _blocks.rates("sine", 12), _blocks.rates("cosine", 12)
    assert sine[0] == 0 and sine[-1] == 1 and cosine == pytest.approx(sine[::-1])
    assert all(a < b for a, b in pairwise(sine)) and sine[1] > 1 / 11
    assert _blocks.rates("zeros+.25", 3) == (0.25,) * 3 and _blocks.rates("", 2) == (1, 1)
    assert _blocks.rates("1, .5,0", 3) == (1, 0.5, 0)


def test_each_block_has_its_rank_and_its_rate(base: Base, quick: TrainSettings) -> None:
    dims = [4] * 25
    dims[1], dims[12] = 2, 0  # the first on the way down, the middle
    up = ",".join(["1"] * 9 + ["0.5", "0.5", "0"])
    s = change(quick, network="locon", block_dims=tuple(dims), block_alphas=(3.0,) * 25, up_lr_weight=up)
    made = attached(base, s, 0)
    sizes = {name: size for name, (_, _, size) in made.modules.items()}
    groups = made.groups({"unet": 1e-3, "text_encoder": 1e-4}, s)
    made.detach()
    assert sizes["lora_unet_down_blocks_0_attentions_0_proj_in"] == Size(2, 3.0)
    assert sizes["lora_unet_down_blocks_0_resnets_0_conv1"] == Size(quick.conv_rank, quick.conv_alpha)
    assert sizes["lora_te_text_model_encoder_layers_0_mlp_fc1"] == Size(quick.rank, quick.alpha)
    middle = {name for name in sizes if "mid_block" in name}
    assert middle and all(re.search("_conv[12]$", name) for name in middle)
    assert sorted(lr for lr, _ in groups) == pytest.approx([1e-4, 1e-3])  # a small base has no blocks that far up
    quarter = change(s, up_lr_weight="zeros", down_lr_weight=".25," + ",".join(["1"] * 11), mid_lr_weight=(0.5,))
    made = attached(base, change(quarter, down_lr_weight="zeros+.25"), 0)
    assert not any("up_blocks" in name for name in made.modules)
    rates = dict(made.groups({"unet": 1e-3}, change(quarter, down_lr_weight="zeros+.25")))
    made.detach()
    assert sorted(rates) == pytest.approx([2.5e-4, 5e-4])


def test_blocks_of_sdxl_are_9_3_and_9(quick: TrainSettings) -> None:
    base = families.get("sdxl").tiny()
    dims = [4] * 23
    dims[5], dims[11] = 2, 0  # input_blocks_4, middle_block_1
    s = change(quick, block_dims=tuple(dims), up_lr_weight="zeros", down_lr_weight=(*[1.0] * 4, 0.5, *[1.0] * 4))
    made = attached(base, s, 0)
    ranks = {
        name.removeprefix("lora_unet_"): size.rank for name, (_, _, size) in made.modules.items() if "unet" in name
    }
    rates = sorted({lr for lr, _ in made.groups({"unet": 1e-3}, s)})
    made.detach()
    in_block = {name[:14]: rank for name, rank in ranks.items() if not name.startswith("lora_te")}
    assert in_block == {"input_blocks_4": 2, "input_blocks_5": 4}
    assert rates == [5e-4, 1e-3]


def test_wrong_blocks_are_told(quick: TrainSettings) -> None:
    wrong = change(quick, block_dims=(4,) * 23, down_lr_weight="sinus", up_lr_weight=(1.0, 2.0))
    told = "\n".join(networks.check_blocks(wrong, "sd15"))
    assert "block_dims has 23 numbers, and a base of family sd15 has 25 blocks" in told
    assert "down_lr_weight = 'sinus': 12 numbers with commas, or one of sine, cosine" in told
    assert "up_lr_weight has 2 numbers" in told
    assert networks.check_blocks(change(quick, block_dims=(4,) * 23, down_lr_weight="sine"), "sdxl") == []
    assert networks.check_blocks(change(quick, network="dylora", rank=6, unit=4), "sd15")
    assert "network dora has no dropout" in networks.check(change(quick, network="dora", dropout=0.1))[0]
    assert "Known: dora, dylora, locon, loha, lokr, lora" in networks.check(change(quick, network="lara"))[0]


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize("factor", [-1, 4, 6])
def test_lokrs_matrices_are_as_large_as_peft_makes_them(factor: int, quick: TrainSettings) -> None:
    from peft.tuners.lokr.layer import factorization

    for number in (1, 7, 16, 40, 127, 128, 250, 320, 512, 640, 768, 1024, 1280, 3072):
        assert lokr.factors(number, factor) == tuple(factorization(number, factor)), number


@pytest.mark.parametrize("kind", networks.names())
def test_a_files_numbers_are_counted_before_it_is_there(kind: str, base: Base, quick: TrainSettings) -> None:
    s = change(quick, network=kind)
    network, counted = networks.get(kind), 0
    for layer in adapter.layers(families.get(base.family), base, list(base.parts)):
        if (size := networks.size(kind, layer, s, base.family)) is not None:
            counted += network.numbers(layer, size, s)
    made = attached(base, s)
    tensors = made.state()
    made.detach()
    assert counted == sum(tensor.numel() for name, tensor in tensors.items() if not name.endswith(".alpha"))


def test_an_average_is_that_of_the_steps(
    base: Base, pictures: list[Example], quick: TrainSettings, cache: Path
) -> None:
    saves: list[Save] = []
    s = settings(quick, "lora", ema=True, ema_decay=0.4, epochs=1, save_every_epochs=1, save_every_steps=1)
    train(base, pictures, s, cache=cache, on_save=saves.append)
    name = next(name for name in saves[0].tensors if name.endswith("lora_up.weight") and "unet" in name)
    mean = torch.zeros_like(saves[0].tensors[name])
    for step, save in enumerate(saves, 1):
        decay = min(0.4, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * save.tensors[name]
        assert save.average is not None
        torch.testing.assert_close(save.average[name], mean)
    assert len(saves) > 4 and not torch.equal(mean, saves[-1].tensors[name])
