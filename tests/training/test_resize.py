"""A smaller LoRA: no matrix of its rank is nearer, the scale stays, and what cannot be made smaller is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lorafactory import families
from lorafactory.errors import InputError
from lorafactory.training import adapter, lora_file
from lorafactory.training.randomness import generator
from lorafactory.training.resize import resize, resized_file


def drawn(rank: int = 6, alpha: float = 3.0) -> dict[str, Tensor]:
    """A linear layer (20 x 12), a 1x1 and a 3x3 convolution, all of random numbers."""
    tensors: dict[str, Tensor] = {}
    for name, kernel in (("a_linear", ()), ("a_proj_in", (1, 1)), ("a_conv1", (3, 3))):
        for what, size in (("down", (rank, 12, *kernel)), ("up", (20, rank, *(1 for _ in kernel)))):
            key = f"{name}.lora_{what}.weight"
            tensors[key] = torch.randn(size, generator=generator(3, key))
        tensors[f"{name}.alpha"] = torch.tensor(alpha)
    return tensors


def change(tensors: dict[str, Tensor], name: str) -> Tensor:
    group = {key.partition(".")[2]: tensor for key, tensor in tensors.items() if key.startswith(name + ".")}
    shape = torch.Size((20, *group["lora_down.weight"].shape[1:]))
    return adapter.delta(name, group, torch.zeros(shape)).flatten(1)


NAMES = ("a_linear", "a_proj_in", "a_conv1")


@pytest.mark.parametrize("rank", [1, 4, 5])
def test_each_layer_is_what_the_largest_singular_values_make(rank: int) -> None:
    tensors = drawn()
    small = resize("x", tensors, rank)
    missed = whole = 0.0
    for name in NAMES:
        before, after = change(tensors, name), change(small.tensors, name)
        u, s, v = torch.linalg.svd(before, full_matrices=False)
        torch.testing.assert_close(after, (u[:, :rank] * s[:rank]) @ v[:rank], rtol=1e-4, atol=1e-5)
        assert float(small.tensors[f"{name}.alpha"]) == pytest.approx(3.0 * rank / 6)
        missed += float((before - after).square().sum())
        whole += float(before.square().sum())
    assert small.kept**2 == pytest.approx(1 - missed / whole, rel=1e-4)
    assert small.kept < 1
    shapes = {key: tuple(tensor.shape) for key, tensor in small.tensors.items() if "a_conv1" in key}
    assert shapes == {
        "a_conv1.lora_down.weight": (rank, 12, 3, 3),
        "a_conv1.lora_up.weight": (20, rank, 1, 1),
        "a_conv1.alpha": (),
    }


def test_what_has_that_rank_loses_nothing_and_smaller_layers_stay() -> None:
    tensors = drawn()
    for name in NAMES:  # a change of rank 2, held in matrices of rank 6
        tensors[f"{name}.lora_down.weight"][2:] = 0
    small = resize("x", tensors, 2)
    assert small.kept == pytest.approx(1)
    for name in NAMES:
        torch.testing.assert_close(change(small.tensors, name), change(tensors, name), rtol=1e-4, atol=1e-5)
    tensors = drawn() | {f"b_{key[2:]}": tensor for key, tensor in drawn(rank=2, alpha=5).items()}
    small = resize("x", tensors, 3)
    assert all(torch.equal(small.tensors[key], tensor) for key, tensor in tensors.items() if key.startswith("b_"))
    no_alpha = {key: tensor for key, tensor in drawn().items() if not key.endswith("alpha")}
    torch.testing.assert_close(
        change(resize("x", no_alpha, 4).tensors, "a_linear"), 2 * change(resize("x", drawn(), 4).tensors, "a_linear")
    )


def test_nothing_learned_and_layers_narrower_than_the_rank() -> None:
    zero = {key: torch.zeros_like(tensor) if "up" in key else tensor for key, tensor in drawn().items()}
    assert resize("x", zero, 3).kept == 1
    narrow = {"n.lora_down.weight": torch.randn(8, 4), "n.lora_up.weight": torch.randn(3, 8)}
    small = resize("x", narrow, 5)
    assert small.kept == pytest.approx(1) and small.tensors["n.lora_down.weight"].shape == (3, 4)
    product = small.tensors["n.lora_up.weight"] @ small.tensors["n.lora_down.weight"]
    torch.testing.assert_close(product, narrow["n.lora_up.weight"] @ narrow["n.lora_down.weight"])
    assert float(small.tensors["n.alpha"]) == 3


@pytest.mark.parametrize("strange", ["dora_scale", "lora_mid.weight", "hada_w1_a"])
def test_other_kinds_and_ranks_that_are_no_smaller_are_refused(strange: str) -> None:
    with pytest.raises(InputError, match=rf"anna: only a LoRA or a LoCon can be made smaller, and c has .*{strange}"):
        resize("anna", drawn() | {"c.alpha": torch.tensor(1.0), f"c.{strange}": torch.ones(2)}, 2)
    with pytest.raises(InputError, match="anna: is of rank 6 already, and --rank 6 is not smaller"):
        resize("anna", drawn(), 6)


def test_the_file_tells_its_new_size_and_is_read_like_any_other(tmp_path: Path) -> None:
    base = families.get("sd15").tiny()
    names = families.get("sd15").key_names(base)
    place = next(place for place in names if place.endswith("resnets.0.conv1"))
    part, _, path = place.partition(".")
    shape = base.parts[part].get_submodule(path).weight.shape
    linear = next(place for place in names if place.endswith("attn1.to_q"))
    part, _, path = linear.partition(".")
    flat = base.parts[part].get_submodule(path).weight.shape
    tensors = {}
    for name, up, down in (
        (names[place], (shape[0], 6, 1, 1), (6, *shape[1:])),
        (names[linear], (flat[0], 6), (6, flat[1])),
    ):
        tensors |= {f"{name}.lora_up.weight": torch.randn(up), f"{name}.lora_down.weight": torch.randn(down)}
        tensors[f"{name}.alpha"] = torch.tensor(3.3)
    file, small = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    papers = {"ss_network_dim": "6", "ss_network_alpha": "3.3", "ss_training_comment": "lorafactory", "ss_seed": "7"}
    lora_file.write(file, tensors, papers, dtype="bf16")
    data, kept = resized_file(file, 3, {"modelspec.title": "a", "ss_seed": "8"})
    small.write_bytes(data)
    read, told = lora_file.read(small)
    assert 0.5 < kept < 1
    assert (told["ss_network_dim"], float(told["ss_network_alpha"])) == ("3", pytest.approx(1.65))
    assert json.loads(told["ss_network_args"])["conv_dim"] == "3"
    assert told["ss_training_comment"] == f"rank 6 to 3 by SVD, {kept:.1%} of it kept; lorafactory"
    assert (told["modelspec.title"], told["ss_seed"]) == ("a", "8")
    assert told["sshs_model_hash"] == lora_file.tensor_hash(small) != lora_file.tensor_hash(file)
    assert {t.dtype for key, t in read.items() if not key.endswith("alpha")} == {torch.bfloat16}
    assert lora_file.apply(base, small).tensors == len(tensors)
