"""crops.toml: written beside a person's own lines, read strictly, and what training, check and comparison go by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lorafactory import crops, families, images
from lorafactory.errors import InputError
from lorafactory.recipe import Header, Recipe
from lorafactory.step import Work
from lorafactory.steps import _telling, compare, train
from lorafactory.training import masks
from lorafactory.training.latents import Pictures
from lorafactory.training.plan import Example, frame, plan
from lorafactory.training.settings import TrainSettings
from lorafactory.workspace import Workspace

BOX = (8, 4, 40, 36)
S = TrainSettings(resolution=64, bucket_step=8, min_bucket=16, max_bucket=64)


def noise(path: Path, size: tuple[int, int], mode: str = "RGB") -> Path:
    values = np.random.default_rng(size[0]).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    images.save_png(Image.fromarray(values).convert(mode), path)
    return path


@pytest.fixture
def whole(tmp_path: Path) -> Example:
    path = noise(tmp_path / "0001.png", (64, 48))
    return Example("0001.png", path, images.sha256(path), "zqx", 1, 64, 48, crop=BOX)


@pytest.fixture
def cut(tmp_path: Path, whole: Example) -> Example:
    """The same, cut out with another program."""
    path = tmp_path / "cut.png"
    images.save_png(images.load(whole.path).crop(BOX), path)
    return Example("0001.png", path, images.sha256(path), "zqx", 1, 32, 32)


def work_on(root: Path) -> Work:
    space = Workspace(root, "test")
    folder = space.lora("anna").images / "2_zqx"
    folder.mkdir(parents=True)
    noise(folder / "0001.png", (64, 48))
    noise(folder / "0002.png", (48, 48))
    return Work(space, space.lora("anna"), Recipe(Header(base="pocket", trigger="zqx"), {}, {}))


def test_a_line_is_written_beside_what_a_person_wrote(tmp_path: Path) -> None:
    assert crops.read(tmp_path) == {}
    crops.write(tmp_path, {"0001.png": BOX})
    path = tmp_path / crops.NAME
    assert path.read_text() == f'# {crops.HEAD}\n"0001.png" = [8, 4, 40, 36]\n'
    path.write_text(path.read_text() + '# the hat stays\n"a b/0002.png" = [0, 0, 10, 10]   # mine\n')
    crops.write(tmp_path, {"0001.png": None, "0003.png": (1, 2, 3, 4)})
    assert crops.read(tmp_path) == {"a b/0002.png": (0, 0, 10, 10), "0003.png": (1, 2, 3, 4)}
    assert "# the hat stays" in path.read_text() and "# mine" in path.read_text()


def test_whatever_is_no_rectangle_is_refused_all_at_once(tmp_path: Path) -> None:
    path = tmp_path / crops.NAME
    path.write_text(
        'a = [0, 0, 0, 5]\nb = [1, 2, 3]\nc = "0 0 1 1"\nd = [-1, 0, 5, 5]\ne = [0, 0, 5, 5]\nf = [0, 0, 5, 5.0]\n'
    )
    with pytest.raises(InputError) as error:
        crops.read(tmp_path)
    said = str(error.value)
    assert [f"{path}: {name} = " in said for name in "abcdef"] == [True, True, True, True, False, True]
    path.write_text("a = [")
    with pytest.raises(InputError, match=r"crops\.toml is not TOML"):
        crops.read(tmp_path)


def test_a_crop_is_trained_on_as_the_file_cut_out_would_be(tmp_path: Path, whole: Example, cut: Example) -> None:
    family, base = families.get("sd15"), families.get("sd15").tiny()
    latents = Pictures(family, base, S, tmp_path)
    fits = [plan([one], S).fits[one.name] for one in (whole, cut)]
    assert fits[0] == fits[1]
    assert frame(whole, fits[0]) == frame(cut, fits[1])
    assert all(map(torch.equal, latents(whole, fits[0]), latents(cut, fits[1])))
    moved = replace(whole, crop=(0, 4, 32, 36))  # of the same shape, and so in the same bucket: another entry
    assert not torch.equal(latents(moved, fits[0])[0], latents(whole, fits[0])[0])


def test_a_mask_is_cut_as_its_picture_whatever_its_size(tmp_path: Path, whole: Example, cut: Example) -> None:
    fit = plan([whole], S).fits[whole.name]
    mask = Image.new("L", (64, 48), 255)
    mask.paste(0, (0, 0, 24, 48))  # of the crop, the left half is hidden
    for size in ((64, 48), (128, 96)):
        path = tmp_path / f"mask-{size[0]}.png"
        mask.resize(size, Image.Resampling.NEAREST).save(path)
        found = masks.weight(path, fit, (4, 4), flip=False, crop=BOX, whole=(64, 48))
        torch.testing.assert_close(found[0, 0], torch.tensor([0.0, 0, 1, 1]))
    assert plan([replace(whole, mask=tmp_path / "mask-128.png")], S)  # of the picture's shape, not of the crop's


def test_training_and_comparison_see_another_crop(tmp_path: Path) -> None:
    work = work_on(tmp_path)
    s, c = train.Settings(resolution=64, bucket_step=8, min_bucket=16), compare.Settings()
    before, compared = train.sees(work, s), compare.sees(work, c)
    crops.write(work.place.root, {"0001.png": BOX})
    assert {name for name, sha in train.sees(work, s).items() if before[name] != sha} == {"0001.png"}
    assert set(compare.sees(work, c)) - set(compared) == {"0001.png crop"}
    assert [e.size for e in train.split(work, s)[0]] == [(32, 32), (48, 48)]
    known = _telling.known_set(work)
    assert known is not None and [p.size for p in known.images] == [(32, 32), (48, 48)]


def test_a_crop_beyond_its_picture_is_said_before_any_work(tmp_path: Path) -> None:
    work = work_on(tmp_path)
    crops.write(work.place.root, {"0001.png": (0, 0, 65, 48)})
    (problem,) = train.check(work, train.Settings(resolution=64, bucket_step=8, min_bucket=16))
    assert "crops.toml cuts out [0, 0, 65, 48], and it has 64x48 pixels" in problem.message
