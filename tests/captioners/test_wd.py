from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lorafactory.captioners import wd
from lorafactory.captioners.wd import Tag, Wd, said
from lorafactory.errors import InputError

SIDE = 32
TAGS = [("general", 9), ("solo", 0), ("long_hair", 0), ("^_^", 0), ("red_star", 0), ("anna_(game)", 4), ("blue_sky", 0)]
SHAPE = {
    "img_size": SIDE,
    "patch_size": 8,
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
    "class_token": False,
    "global_pool": "avg",
    "fc_norm": False,
    "act_layer": "gelu_tanh",
}
"""The real tagger's vision transformer, with small numbers; the last five are its own."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the hub has it, with random weights."""
    import timm
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("wd")
    torch.manual_seed(0)
    net = timm.create_model("vit_base_patch16_224", num_classes=len(TAGS), **SHAPE)
    torch.nn.init.normal_(net.head.weight, std=2.0)
    save_file(net.state_dict(), folder / "model.safetensors")
    config = {
        "architecture": "vit_base_patch16_224",
        "num_classes": len(TAGS),
        "num_features": 16,
        "global_pool": "avg",
        "model_args": SHAPE,
        "pretrained_cfg": {
            "input_size": [3, SIDE, SIDE],
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "num_classes": len(TAGS),
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    rows = [f"{i},{name},{kind},{9 - i}" for i, (name, kind) in enumerate(TAGS)]
    (folder / "selected_tags.csv").write_text("\n".join(["tag_id,name,category,count", *rows]) + "\n")
    return folder


@pytest.fixture(scope="module")
def loaded(tiny: Path) -> Wd:
    return Wd.load(str(tiny))


def pictures(count: int) -> list[Image.Image]:
    noise = np.random.default_rng(0)
    return [Image.fromarray(noise.integers(0, 256, (60, 40 + 4 * i, 3), dtype=np.uint8)) for i in range(count)]


def test_it_is_what_the_net_says_of_a_padded_picture_with_blue_first(loaded):
    """Written out once more by hand: white square, bicubic, -1 to 1, blue green red, sigmoid."""
    import torch

    picture = Image.new("RGB", (20, SIDE), (250, 30, 90))
    picture.paste((0, 90, 200), (5, 8, 15, 30))
    square = Image.new("RGB", (SIDE, SIDE), "white")
    square.paste(picture, (6, 0))
    values = np.asarray(square, dtype=np.float32)[:, :, ::-1].transpose(2, 0, 1) / 255 * 2 - 1
    with torch.inference_mode():
        row = torch.sigmoid(loaded.net(torch.from_numpy(values.copy())[None]))[0].tolist()
    general = [(p, name) for p, (name, kind) in zip(row, TAGS, strict=True) if kind == 0 or (kind == 4 and p >= 0.75)]
    expected = [name.replace("_", " ") if len(name) > 3 else name for p, name in sorted(general, reverse=True)]
    assert loaded.caption([picture], threshold=1e-6, batch=1) == [", ".join(expected)]
    middle = float(np.median([p for p, _ in general]))
    assert loaded.caption([picture], threshold=middle, batch=1)[0].split(", ") == [
        tag for tag, (p, _) in zip(expected, sorted(general, reverse=True), strict=True) if p >= middle
    ]


def test_one_line_for_each_whatever_the_batch(loaded):
    some = pictures(5)
    whole = loaded.caption(some, threshold=0.2, batch=4)
    assert len(whole) == 5 and loaded.caption(some, threshold=0.2, batch=1) == whole


def test_where_memory_ends_the_batch_is_halved(loaded, monkeypatch):
    import torch

    tried: list[int] = []
    real = Wd._describe

    def describe(self, some, threshold):
        tried.append(len(some))
        if len(some) > 2:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return real(self, some, threshold)

    some = pictures(5)
    expected = loaded.caption(some, threshold=0.2, batch=1)
    monkeypatch.setattr(Wd, "_describe", describe)
    assert loaded.caption(some, threshold=0.2, batch=4) == expected
    assert tried == [4, 2, 2, 1]


def test_ratings_are_not_said_and_names_only_when_sure():
    tags = [Tag("sensitive", "9"), Tag("anna_(game)", "4"), Tag("long_hair", "0"), Tag("^_^", "0")]
    assert said(tags, [0.99, 0.7, 0.4, 0.5], 0.35) == "^_^, long hair"
    assert said(tags, [0.99, 0.8, 0.4, 0.5], 0.45) == "anna (game), ^_^"
    assert said(tags, [0.99, 0.1, 0.1, 0.1], 0.35) == ""


def test_what_is_not_here_is_named_with_the_command_that_gets_it(tiny, tmp_path):
    assert wd.missing(str(tiny)) is None
    assert wd.identity(str(tiny)).startswith("wd:")
    assert wd.missing(str(tmp_path)) == (
        f"WD tagger is not whole: {tmp_path} has no model.safetensors and no config.json and no selected_tags.csv"
    )
    said_of_usual = wd.missing(wd.MODEL) or ""
    assert "about 380 MB" in said_of_usual and "lora init --fetch --tagger gets it" in said_of_usual
    other = wd.missing("somebody/some-tagger") or ""
    assert "--model FOLDER" in other and "--fetch" not in other
    with pytest.raises(InputError, match="is not on this machine"):
        wd.load(wd.MODEL)


def test_files_that_do_not_belong_together(tiny, tmp_path):
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert wd.identity(str(tmp_path)) == wd.identity(str(tiny))
    with (tmp_path / "selected_tags.csv").open("a") as more:
        more.write("9,one_more,0,1\n")
    assert wd.identity(str(tmp_path)) != wd.identity(str(tiny))
    with pytest.raises(InputError, match="has 8 tags, and the net 7"):
        wd.load(str(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architecture": "no_such_net"}))
    with pytest.raises(InputError, match="no tagger that this timm knows"):
        wd.load(str(tmp_path))
