"""LoRA files: exact bytes, exact names, and the same change of a base as diffusers makes of them."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lorafactory import families
from lorafactory.errors import InputError
from lorafactory.families import Base
from lorafactory.training import lora_file
from lorafactory.training.adapter import attach
from lorafactory.training.randomness import generator
from lorafactory.training.sample import sample
from lorafactory.training.settings import TrainSettings
from tests.training.conftest import change

sd15 = families.get("sd15")


@pytest.fixture(scope="module")
def base() -> Base:
    return sd15.tiny()


def adapter(base: Base, quick: TrainSettings, kind: str) -> dict[str, Tensor]:
    """A LoRA whose every matrix is random and matters, its alphas unlike its ranks."""
    attached = attach(
        sd15,
        base,
        kind=kind,
        settings=quick,
        parts=["unet", "text_encoder"],
        generator=lambda name: generator(0, name),
    )
    tensors = attached.state()
    attached.detach()
    for name, tensor in tensors.items():
        if name.endswith("lora_up.weight"):
            tensor.copy_(torch.randn(tensor.shape, generator=generator(1, name)))
    return tensors


def weights(base: Base) -> dict[str, Tensor]:
    return {f"{p}.{n}": t.clone() for p, part in base.parts.items() for n, t in part.state_dict().items()}


def test_the_same_tensors_give_the_same_bytes(tmp_path: Path, base: Base, quick: TrainSettings) -> None:
    tensors = adapter(base, quick, "lora")
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    digest = lora_file.write(one, tensors, {"ss_seed": "1", "modelspec.title": "ä"}, dtype="fp32")
    lora_file.write(two, dict(reversed(tensors.items())), {"modelspec.title": "ä", "ss_seed": "1"}, dtype="fp32")
    assert one.read_bytes() == two.read_bytes()
    lora_file.write(two, tensors, {"ss_seed": "2"}, dtype="fp32")
    assert one.read_bytes() != two.read_bytes()
    assert lora_file.tensor_hash(one) == lora_file.tensor_hash(two) == digest
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.safetensors", "two.safetensors"]

    read, metadata = lora_file.read(one)
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    assert metadata["sshs_model_hash"] == digest and metadata["modelspec.hash_sha256"] == f"0x{digest}"
    # the window of the legacy hash begins behind the end of a file this small
    assert metadata["sshs_legacy_hash"] == "e3b0c442"

    data = one.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    assert list(header) == sorted(header) and list(header["__metadata__"]) == sorted(header["__metadata__"])
    assert length % 8 == 0


def test_alpha_is_a_number_in_the_precision_of_the_file(tmp_path: Path, base: Base, quick: TrainSettings) -> None:
    tensors = adapter(base, quick, "locon")
    lora_file.write(tmp_path / "a.safetensors", tensors, {}, dtype="fp16")
    read, _ = lora_file.read(tmp_path / "a.safetensors")
    alphas = {name: tensor for name, tensor in read.items() if name.endswith(".alpha")}
    assert {(t.dtype, t.shape) for t in read.values()} >= {(torch.float16, torch.Size([]))}
    assert {t.dtype for t in read.values()} == {torch.float16}
    assert {float(t) for t in alphas.values()} == {quick.alpha, quick.conv_alpha}
    ranks = {name: read[name.replace(".alpha", ".lora_down.weight")].shape[0] for name in alphas}
    assert {(ranks[n], float(alphas[n])) for n in alphas} == {(4, 2.0), (3, 1.0)}


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
def test_alpha_is_exact_in_every_precision(tmp_path: Path, dtype: str) -> None:
    """0.1 and 3.3 are in none of fp16 and bf16: such an alpha stays in fp32, which every reader reads too."""
    file = tmp_path / "a.safetensors"
    for alpha in (0.1, 3.3, 16.0, 1000.0, 1.0):
        tensors = {"x.alpha": torch.tensor(alpha), "x.lora_up.weight": torch.full((2, 2), 0.1)}
        lora_file.write(file, tensors, {}, dtype=dtype)
        read, _ = lora_file.read(file)
        assert torch.equal(read["x.alpha"].float(), tensors["x.alpha"]) and read["x.alpha"].shape == ()
        assert read["x.lora_up.weight"].dtype == lora_file.DTYPES[dtype]
    assert read["x.alpha"].dtype == lora_file.DTYPES[dtype]


def test_what_would_overflow_in_the_file_is_not_written(tmp_path: Path) -> None:
    tensors = {"x.lora_up.weight": torch.tensor([70000.0]), "x.alpha": torch.tensor(1.0)}
    with pytest.raises(InputError, match=r"1 tensors are not finite in fp16.*save_dtype fp32 holds them"):
        lora_file.write(tmp_path / "a.safetensors", tensors, {}, dtype="fp16")
    assert list(tmp_path.iterdir()) == []
    lora_file.write(tmp_path / "a.safetensors", tensors, {}, dtype="bf16")


def test_what_is_not_finite_is_never_written(tmp_path: Path, base: Base, quick: TrainSettings) -> None:
    tensors = adapter(base, quick, "lora")
    next(iter(tensors.values()))[0] = float("nan")
    with pytest.raises(InputError, match="1 tensors are not finite"):
        lora_file.write(tmp_path / "a.safetensors", tensors, {})
    assert list(tmp_path.iterdir()) == []


def test_apply_and_remove(base: Base, quick: TrainSettings) -> None:
    tensors = adapter(base, quick, "locon")
    before = weights(base)
    there = lora_file.apply(base, tensors, 0.7)
    assert there.tensors == len(tensors)
    changed = {name for name, tensor in weights(base).items() if not torch.equal(tensor, before[name])}
    assert len(changed) == len(tensors) // 3
    on_top = lora_file.apply(base, tensors, -0.7)
    lora_file.remove(on_top)
    lora_file.remove(there)
    after = weights(base)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_the_change_is_up_times_down_times_alpha_by_rank(base: Base, quick: TrainSettings) -> None:
    tensors = adapter(base, quick, "locon")
    name, path = "lora_unet_down_blocks_0_resnets_0_conv1", "down_blocks.0.resnets.0.conv1"
    weight = base.parts["unet"].get_submodule(path).weight
    x = torch.randn(1, weight.shape[1], 6, 6, generator=generator(5))
    down, up = tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"]
    wanted = torch.nn.functional.conv2d(torch.nn.functional.conv2d(x, down, padding=1), up) * (1 / 3) * 0.5
    before = torch.nn.functional.conv2d(x, weight, padding=1)
    with lora_file.applied(base, tensors, 0.5):
        found = torch.nn.functional.conv2d(x, weight, padding=1) - before
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["lora", "locon"])
def test_diffusers_takes_every_tensor_and_draws_the_same(
    tmp_path: Path, base: Base, quick: TrainSettings, kind: str
) -> None:
    tensors = adapter(base, change(quick, alpha=3, conv_alpha=2), kind)
    file = tmp_path / "a.safetensors"
    lora_file.write(file, tensors, {"ss_output_name": "a"}, dtype="fp32")
    options = {"steps": 4, "cfg": 5.0, "size": (32, 32)}
    plain = sample(base, ["zqx", "a dot"], [1, 2], **options)
    with lora_file.applied(base, file):
        ours = sample(base, ["zqx", "a dot"], [1, 2], **options)

    fresh = sd15.tiny()
    pipe = sd15.pipeline(fresh)
    pipe.load_lora_weights(file)
    loaded = [n for part in (pipe.unet, pipe.text_encoder) for n, _ in part.named_parameters() if ".lora_" in n]
    assert len(loaded) == len(tensors) * 2 // 3  # all but the alphas, which become scales
    theirs = pipe(
        ["zqx", "a dot"],
        num_inference_steps=4,
        guidance_scale=5.0,
        width=32,
        height=32,
        generator=[torch.Generator().manual_seed(seed) for seed in (1, 2)],
    ).images
    for a, b, c in zip(ours, theirs, plain, strict=True):
        assert np.abs(np.asarray(a, int) - np.asarray(b, int)).mean() < 0.5
        assert np.abs(np.asarray(a, int) - np.asarray(c, int)).mean() > 2


def test_a_lora_for_something_else_is_refused(base: Base, quick: TrainSettings, tmp_path: Path) -> None:
    tensors = adapter(base, quick, "lora")
    with pytest.raises(InputError, match=r"1 of its 1 layers are not in tiny \(sd15\), such as lora_te2_x"):
        lora_file.apply(base, {"lora_te2_x.lora_down.weight": torch.zeros(1)})
    name = next(iter(tensors)).partition(".")[0]
    group = {key: tensor for key, tensor in tensors.items() if key.startswith(name + ".")}
    with pytest.raises(InputError, match="another size"):
        lora_file.apply(base, {**group, f"{name}.lora_up.weight": torch.zeros(3, 4)})
    with pytest.raises(InputError, match=r"cannot read \(alpha, hada_w1_a\)"):
        lora_file.apply(base, {f"{name}.hada_w1_a": torch.zeros(3, 4), f"{name}.alpha": torch.tensor(1.0)})
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match=r"x\.safetensors: not a readable"):
        lora_file.apply(base, tmp_path / "x.safetensors")
