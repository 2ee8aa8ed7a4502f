"""Every family through the trainer: the file does what was trained, by our reader, by hand and by diffusers'."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from original_layout import build
from PIL import Image
from torch import Tensor

from lorafactory import families
from lorafactory.families import Base, Frame
from lorafactory.training import adapter, lora_file
from lorafactory.training.loop import train
from lorafactory.training.metadata import metadata
from lorafactory.training.plan import Example, plan
from lorafactory.training.randomness import generator
from lorafactory.training.sample import sample
from lorafactory.training.settings import TrainSettings

QUICK = TrainSettings(
    epochs=1,
    batch=1,
    resolution=64,
    bucket_step=8,
    min_bucket=16,
    max_bucket=64,
    rank=4,
    alpha=3,
    conv_rank=3,
    conv_alpha=2,
    lr=1e-2,
    text_encoder_lr=1e-2,
    min_snr_gamma=5,
)
FAMILIES = ("sd15", "sdxl")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    """Two pictures of different shape: two steps."""
    folder = tmp_path_factory.mktemp("set") / "1_zqx"
    folder.mkdir()
    found = []
    for i, size in enumerate(((32, 32), (48, 32))):
        path = folder / f"{i}.png"
        Image.new("RGB", size, (200, 90 * i, 40)).save(path)
        found.append(Example(path.name, path, hashlib.sha256(path.read_bytes()).hexdigest(), "zqx, a dot!", 1, *size))
    return found


def answer(family: Any, base: Base) -> Tensor:
    """What the model says of fixed noise, after fixed words and sizes."""
    frames = [Frame((48, 32), (0, 0), (40, 32)), Frame((32, 32), (0, 4), (32, 32))]
    noisy = torch.randn((2, 4, 8, 8), generator=generator(3))
    with torch.no_grad():
        words = family.encode_captions(base, ["zqx, a dot!", "no"], frames)
        return family.predict(base, noisy, torch.tensor([10, 700]), words)


def merged(base: Base, tensors: dict[str, Tensor]) -> None:
    """Add up x down x alpha / rank to every weight: written here anew, for linear layers and for kernels."""
    grouped: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        layer, what = key.split(".", 1)
        grouped[layer][what] = tensor
    paths = {name: path for path, name in families.get(base.family).key_names(base).items()}
    for layer, group in grouped.items():
        part, path = paths[layer].split(".", 1)
        weight = base.parts[part].get_parameter(f"{path}.weight")
        down, up = group["lora_down.weight"], group["lora_up.weight"]
        scale = float(group["alpha"]) / down.shape[0]
        kernels = down.ndim == 4
        change = torch.einsum("orxy,rikl->oikl", up, down) if kernels else (up[:, :, None] * down).sum(1)
        weight.data += scale * change


@pytest.mark.parametrize("kind", ["lora", "locon"])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_file_does_what_was_trained(name: str, kind: str, pictures: list[Example], tmp_path: Path) -> None:
    family = families.get(name)
    base, file = family.tiny(), tmp_path / "a.safetensors"
    settings = QUICK.model_copy(update={"network": kind})
    plain, trained = answer(family, base), []

    def keep(save: Any) -> None:
        trained.append(answer(family, base))  # the adapter is still in the base
        told = metadata(
            name="a", base=base, examples=pictures, settings=settings, plan=plan(pictures, settings), save=save
        )
        lora_file.write(file, save.tensors, told, dtype="fp32")

    outcome = train(base, pictures, settings, cache=tmp_path / "cache", on_save=keep)
    assert len(outcome.losses) == 2
    assert torch.equal(answer(family, base), plain)
    with lora_file.applied(base, file) as applied:
        torch.testing.assert_close(answer(family, base), trained[0], rtol=0, atol=1e-5)
    tensors, told = lora_file.read(file)
    assert applied.tensors == len(tensors)
    assert (plain - trained[0]).abs().max() > 1e-3
    merged(base, tensors)
    torch.testing.assert_close(answer(family, base), trained[0], rtol=0, atol=1e-5)
    assert told["modelspec.architecture"] == base.labels["modelspec.architecture"]


def drawn_at_random(name: str, kind: str) -> dict[str, Tensor]:
    """A LoRA whose every matrix matters, in every part."""
    family = families.get(name)
    base = family.tiny()
    attached = adapter.attach(
        family, base, kind=kind, settings=QUICK, parts=list(base.parts), generator=lambda key: generator(0, key)
    )
    tensors = attached.state()
    for key, tensor in tensors.items():
        if key.endswith("lora_up.weight"):
            tensor.copy_(torch.randn(tensor.shape, generator=generator(1, key)))
    return tensors


@pytest.mark.parametrize("kind", ["lora", "locon"])
@pytest.mark.parametrize("name", FAMILIES)
def test_diffusers_takes_every_tensor_and_draws_the_same(name: str, kind: str, tmp_path: Path) -> None:
    family, tensors = families.get(name), drawn_at_random(name, kind)
    base, file = family.tiny(), tmp_path / "a.safetensors"
    lora_file.write(file, tensors, {"ss_output_name": "a"}, dtype="fp32")
    words, options = ["zqx", "a dot!"], {"steps": 4, "cfg": 5.0, "size": (32, 40)}
    plain = sample(base, words, [1, 2], **options)
    with lora_file.applied(base, file):
        ours = sample(base, words, [1, 2], **options)

    pipe = family.pipeline(family.tiny())
    pipe.load_lora_weights(file)
    modules = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    loaded = [n for part in modules for n, _ in part.named_parameters() if ".lora_" in n]
    assert len(loaded) == len(tensors) * 2 // 3  # all but the alphas, which become scales
    theirs = pipe(
        words,
        negative_prompt=["", ""],
        num_inference_steps=4,
        guidance_scale=5.0,
        width=32,
        height=40,
        generator=[torch.Generator().manual_seed(seed) for seed in (1, 2)],
    ).images
    for a, b, c in zip(ours, theirs, plain, strict=True):
        assert np.abs(np.asarray(a, int) - np.asarray(b, int)).mean() < 0.5
        assert np.abs(np.asarray(a, int) - np.asarray(c, int)).mean() > 2


@pytest.mark.parametrize(("name", "modules"), [("sd15", 192 + 72 + 86), ("sdxl", 722 + 72 + 192 + 66)])
def test_shapes_in_the_file_are_kohyas_on_the_full_size(name: str, modules: int) -> None:
    """Down (r, in) or (r, in, k, k), up (out, r) or (out, r, 1, 1): a 1x1 convolution stays one, as in SD 1.5."""
    family = families.get(name)
    base = build(family, family.CONFIG, "meta")
    attached = adapter.attach(
        family, base, kind="locon", settings=QUICK, parts=list(base.parts), generator=lambda key: generator(0)
    )
    assert len(attached.modules) == modules
    for key, (_, module, size) in attached.modules.items():
        layer = module.get_base_layer()
        out, into, *kernel = layer.weight.shape
        assert module.lora_A["lorafactory"].weight.shape == (size.rank, into, *kernel), key
        assert module.lora_B["lorafactory"].weight.shape == (out, size.rank, *([1, 1] if kernel else [])), key
    projections = {key: x[1].get_base_layer().weight.ndim for key, x in attached.modules.items() if "proj_in" in key}
    assert set(projections.values()) == {4 if name == "sd15" else 2}
