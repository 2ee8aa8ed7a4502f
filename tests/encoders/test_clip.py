from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lorafactory import encoders, images
from lorafactory.dataset import Picture
from lorafactory.encoders import _memory, clip
from lorafactory.encoders.clip import Clip, Hub
from lorafactory.errors import InputError, SettingsError
from lorafactory.pocket import models

REAL = "ViT-B-32-quickgelu/openai"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as open_clip writes it, of the pocket's shapes and random weights."""
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("clip")
    size = models.write_clip_tokenizer(folder)
    pixels = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    whole = {"model_cfg": models.clip_config(size), "preprocess_cfg": pixels}
    (folder / clip.CONFIG).write_text(json.dumps(whole))
    torch.manual_seed(0)
    save_file(models.build_clip(size).state_dict(), folder / clip.WEIGHTS)
    return folder


@pytest.fixture(scope="module")
def model(tiny: Path) -> str:
    return f"folder:{tiny}"


@pytest.fixture(scope="module")
def loaded(model: str) -> Clip:
    return Clip.load(model)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Picture]:
    made = []
    for i in range(5):
        path = tmp_path / f"{i}.png"
        images.save_png(drawn(i), path)
        made.append(Picture(path))
    return made


def drawn(i: int) -> Image.Image:
    picture = Image.new("RGB", (80, 60), (40 * i, 200, 255 - 30 * i))
    picture.paste((255, 0, 20 * i), (5 * i, 10, 40 + 5 * i, 40))
    return picture


def test_encoders_are_found_by_listing():
    assert encoders.names() == ["clip", "dino"]
    assert encoders.get("clip") is clip
    with pytest.raises(SettingsError, match=r"no encoder 'siglip'; known are: clip, dino"):
        encoders.get("siglip")


def test_rows_of_length_one_that_no_batch_changes(loaded, monkeypatch):
    whole = loaded.encode_images([drawn(i) for i in range(5)])
    monkeypatch.setattr(clip, "BATCH", 2)
    parts = loaded.encode_images([drawn(i) for i in range(5)])
    assert whole.shape == (5, 128) and whole.dtype == np.float32
    assert np.linalg.norm(whole, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.abs(whole - parts).max() < 1e-5
    assert len(np.unique(whole.round(4), axis=0)) == 5


def test_parts_are_the_patches_half_way(loaded):
    pictures = [drawn(i) for i in range(3)]
    parts = loaded.encode_parts(pictures)
    assert parts.shape == (3, 64, 128) and np.linalg.norm(parts, axis=2) == pytest.approx(1, abs=1e-5)
    seen = []
    hook = loaded.net.visual.transformer.resblocks[1].register_forward_hook(lambda *told: seen.append(told[2]))
    loaded.encode_images(pictures)
    hook.remove()
    patches = seen[0][:, 1:].numpy()
    assert parts == pytest.approx(patches / np.linalg.norm(patches, axis=2, keepdims=True), abs=1e-5)
    assert len(loaded.encode_parts([])) == 0


def test_any_mode_of_picture(loaded):
    gray = drawn(0).convert("L")
    assert np.array_equal(loaded.encode_images([gray]), loaded.encode_images([gray.convert("RGB")]))


def test_texts(loaded):
    rows = loaded.encode_texts(["a large red star", "a small blue ring", "a large red star", "star " * 99])
    assert rows.shape == (4, 128) and rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.abs(rows[0] - rows[2]).max() < 1e-6 < np.abs(rows[0] - rows[1]).max()


def test_nothing_of_nothing(loaded, model, tmp_path):
    assert len(loaded.encode_images([])) == len(loaded.encode_texts([])) == 0
    assert len(clip.embed([], model, tmp_path)) == 0


def test_the_model_does_not_learn(loaded):
    assert not loaded.net.training
    assert not any(p.requires_grad for p in loaded.net.parameters())


def test_what_is_made_ahead_comes_in_order_and_a_fault_is_not_lost():
    made = list(_memory.ahead(list(range(7)), lambda n: n * n, 3))
    assert made == [[0, 1, 4], [9, 16, 25], [36]]
    assert list(_memory.ahead([], abs, 3)) == []
    with pytest.raises(ZeroDivisionError):
        list(_memory.ahead([1, 0, 2], lambda n: 1 // n, 2))


def test_a_picture_is_looked_at_once(model, loaded, pictures, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    loads: list[str] = []
    monkeypatch.setattr(Clip, "load", lambda name: loads.append(name) or loaded)
    first = clip.embed(pictures[:4], model, cache)
    assert np.abs(first - loaded.encode_images([images.load(p.path) for p in pictures[:4]])).max() < 1e-6
    assert len(list((cache / "embeddings").iterdir())) == 4

    again = clip.embed(list(reversed(pictures[:4])), model, cache)
    assert np.array_equal(again, first[::-1]) and loads == [model]

    seen: list[int] = []
    monkeypatch.setattr(Clip, "encode_prepared", lambda self, some: seen.append(len(some)) or first[: len(some)])
    clip.embed(pictures, model, cache)
    assert seen == [1] and loads == [model] * 2


def test_pictures_come_through_whoever_opens_them_each_once(model, loaded, pictures, tmp_path, monkeypatch):
    """Equal bytes are opened once; a picture that cannot be opened has no row, and stops no other."""
    monkeypatch.setattr(Clip, "load", lambda name: loaded)
    monkeypatch.setattr(clip, "BATCH", 2)
    twin = Picture(pictures[1].path.with_name("twin.png"))
    twin.path.write_bytes(pictures[1].path.read_bytes())
    opened: list[str] = []

    def open_(picture: Picture) -> Image.Image | None:
        opened.append(picture.name)
        return None if picture.name == "3.png" else images.load(picture.path)

    found = clip.rows([*pictures, twin], model, tmp_path, open_)
    assert len(opened) == 5 and len({"1.png", "twin.png"} & set(opened)) == 1
    assert found.keys() == {p.sha256 for p in pictures if p.name != "3.png"}
    again = clip.embed([pictures[4], twin], model, tmp_path)
    assert np.array_equal(again, np.stack([found[pictures[4].sha256], found[twin.sha256]]))


def test_texts_are_remembered_by_what_they_say_and_by_model(model, loaded, tmp_path, monkeypatch):
    loads: list[str] = []
    monkeypatch.setattr(Clip, "load", lambda name: loads.append(name) or loaded)
    first = clip.read(["a star", "a ring", "a star"], model, tmp_path)
    assert np.abs(first - loaded.encode_texts(["a star", "a ring", "a star"])).max() < 1e-6
    assert np.array_equal(clip.read(["a ring"], model, tmp_path), first[1:2]) and loads == [model]


def test_the_cache_goes_by_content_and_model(model, loaded, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(Clip, "load", lambda name: loaded)
    clip.embed(pictures[:1], model, tmp_path)
    moved = Picture(pictures[0].path.rename(tmp_path / "elsewhere.png"))
    clip.embed([moved], model, tmp_path)
    assert len(list((tmp_path / "embeddings").iterdir())) == 1
    monkeypatch.setattr(clip, "identity", lambda name: "another")
    clip.embed([moved], model, tmp_path)
    assert len(list((tmp_path / "embeddings").iterdir())) == 2


@pytest.mark.parametrize("broken", [b"", b"\x93NUMPY\x01", b"no vector at all"])
def test_a_broken_cache_file_is_made_again(model, loaded, pictures, tmp_path, monkeypatch, broken):
    monkeypatch.setattr(Clip, "load", lambda name: loaded)
    first = clip.embed(pictures[:1], model, tmp_path)
    (file,) = (tmp_path / "embeddings").iterdir()
    file.write_bytes(broken)
    assert np.array_equal(clip.embed(pictures[:1], model, tmp_path), first)
    assert np.array_equal(np.load(file), first[0])


def test_identity_is_of_weights_and_configuration(tiny, model, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for file in tiny.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    assert clip.identity(f"folder:{other}") == clip.identity(model)
    (other / clip.CONFIG).write_text((tiny / clip.CONFIG).read_text() + "\n")
    assert clip.identity(f"folder:{other}") != clip.identity(model)


def test_a_folder_without_weights_gives_no_random_model(tiny, model, tmp_path):
    assert clip.missing(model) is None
    (tmp_path / clip.CONFIG).write_text((tiny / clip.CONFIG).read_text())
    (tmp_path / "open_clip_pytorch_model.bin").write_bytes(b"a pickle")
    assert clip.missing(f"folder:{tmp_path}") == f"CLIP is not whole: {tmp_path} has no {clip.WEIGHTS}"
    with pytest.raises(InputError, match="CLIP is not whole"):
        Clip.load(f"folder:{tmp_path}")


def hub_file(cache: Path, repository: str, file: str, commit: str = "c0ffee") -> Path:
    """A file in a hub cache, as huggingface_hub lays it out."""
    root = cache / f"models--{repository.replace('/', '--')}"
    path = root / "snapshots" / commit / file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(commit)
    return path


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache in the place of the user's."""
    from functools import partial

    import huggingface_hub

    look: Any = partial(huggingface_hub.try_to_load_from_cache, cache_dir=tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", look)
    return tmp_path / "hub"


def test_a_model_of_the_hub_is_only_looked_for_in_its_cache(hub_cache):
    said = clip.missing(REAL)
    assert said is not None
    assert "timm/vit_base_patch32_clip_224.openai/open_clip_model.safetensors" in said
    assert "about 600 MB" in said and "lora init --fetch" in said
    with pytest.raises(InputError, match="lora init --fetch"):
        Clip.load(REAL)
    hub_file(hub_cache, clip.KNOWN[REAL].repository, clip.KNOWN[REAL].file)
    assert clip.missing(REAL) is None
    assert clip.identity(REAL) == f"clip:{REAL}@c0ffee"


def test_an_unknown_model_lists_the_known():
    with pytest.raises(SettingsError, match=r"no CLIP called 'ViT-X/y'; known are: ViT-B-32-quickgelu/openai"):
        clip.missing("ViT-X/y")


def test_the_other_activation_is_an_error(hub_cache, monkeypatch):
    """open_clip warns, and then returns vectors that are not the model's."""
    monkeypatch.setitem(clip.KNOWN, "ViT-B-32/openai", Hub("timm/x", clip.WEIGHTS, 605))
    hub_file(hub_cache, "timm/x", clip.WEIGHTS)
    with pytest.raises(SettingsError, match="trained with quick GELU, and ViT-B-32 has the other one"):
        Clip.load("ViT-B-32/openai")
    pixels = clip._pixels("ViT-B-32-quickgelu", "openai")
    assert len(pixels["image_mean"]) == len(pixels["image_std"]) == 3


def test_loading_says_nothing(model, caplog, recwarn):
    caplog.set_level(logging.WARNING)
    Clip.load(model)
    assert caplog.records == [] and len(recwarn) == 0
