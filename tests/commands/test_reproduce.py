"""`lora reproduce`: the same tensors again, from wherever the inputs lie now; or what is missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorafactory import images
from lorafactory.pocket import MODELS
from lorafactory.training import forward
from lorafactory.training.lora_header import tensor_hash
from tests.conftest import Said
from tests.history import BASE, folder, hashes, run, save, told

Lora = Callable[..., Said]
pytestmark = pytest.mark.xdist_group("history")


def reproduced(lora: Lora, thing: object, *args: str) -> dict[str, Any]:
    said = lora("reproduce", thing, "--json", *args)
    assert said.code == 0, said.err
    found: dict[str, Any] = json.loads(said.out)
    return found


def trained(space: Path, name: str, *epochs: int) -> dict[str, str]:
    """Names and tensor hashes of saves and their averages as they were trained."""
    result = space / "loras" / name / "result_current"
    found = [path for epoch in epochs for path in result.glob(f"{name}-{epoch:06}*.safetensors")]
    return {path.name: tensor_hash(path) for path in found}


# ---------------------------------------------------------------- the same again


def test_bit_identical_though_base_and_pictures_lie_elsewhere(lora: Lora, copied: Path, tmp_path: Path) -> None:
    """With masks, a caption by hand, averages; the base is known by its content under `models`."""
    moved = tmp_path / "other models" / "called otherwise"
    shutil.copytree(MODELS / "base", moved)
    (copied / "lorafactory.toml").write_text(f'models = ["{moved.parent.as_posix()}"]\n')
    toml = copied / "loras" / "anna" / "lora.toml"
    toml.write_text(toml.read_text().replace("models/pocket-base", "models/gone"))
    aside = copied / "loras" / "anna" / "set_aside" / "by hand"
    aside.mkdir()
    shutil.move(folder(copied, "anna") / "0002.png", aside)
    (folder(copied, "anna") / "0001.txt").write_text("other words, which are not what it was trained on\n")
    before = {p: p.stat().st_mtime_ns for p in copied.rglob("*") if p.is_file() and "lorafactory.db" not in p.name}
    found = reproduced(lora, "anna")
    assert (found["verdict"], found["made"]) == ("bit-identical", trained(copied, "anna", 1, 2, 3))
    assert len(found["made"]) == 6 and found["saves"] == found["made"]
    unchanged = {p: p.stat().st_mtime_ns for p in before}
    assert unchanged == before
    new = {p.relative_to(copied).parts[:3] for p in copied.rglob("*") if p.is_file()} - {
        p.relative_to(copied).parts[:3] for p in before}  # fmt: skip
    assert new <= {("loras", "anna", "reproduced"), ("loras", "anna", ".lora.lock"), ("lorafactory.db",),
                   ("lorafactory.lock",), ("cache", "hashes.json")}  # fmt: skip


def test_bit_identical_of_a_lora_that_goes_on_from_another_and_of_more_of_it(lora: Lora, copied: Path) -> None:
    more = reproduced(lora, "cleo")
    assert (more["verdict"], more["made"]) == ("bit-identical", trained(copied, "cleo", 4))
    first = reproduced(lora, save(copied, "cleo", 1))
    assert (first["verdict"], first["made"]) == ("bit-identical", trained(copied, "cleo", 1, 2, 3))


def test_an_earlier_training_and_what_is_different_now(lora: Lora, copied: Path) -> None:
    before = trained(copied, "anna", 1, 2, 3)
    (folder(copied, "anna") / "0003.txt").write_text("zqx, a blue star\n", encoding="utf-8")
    run(copied, "make", "anna", "--to", "train")
    (earlier,) = (copied / "loras" / "anna" / "results").glob("*/anna-000003.safetensors")
    words = {"what": "0003.png: caption", "here": "zqx, a star", "there": "zqx, a blue star"}
    assert told(copied, earlier, "anna") == {"one": str(earlier), "other": "anna", **words}
    found = reproduced(lora, earlier)
    assert (found["verdict"], found["made"]) == ("bit-identical", before)


def test_same_settings_where_the_bits_differ(lora: Lora, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other noise stands for another kind of card."""
    seeded = forward.generator
    monkeypatch.setattr(forward, "generator", lambda seed, *of: seeded(seed + 1, *of))
    found = reproduced(lora, "dora")
    assert found["verdict"] == "same settings"
    assert found["made"].keys() == found["saves"].keys() and found["made"] != found["saves"]


def test_what_of_the_machine_is_not_as_it_was(lora: Lora, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lorafactory.commands import reproduce

    here = json.loads(reproduce.environment())
    here["packages"]["torch"], here["python"] = "9.0", "3.99"
    then = json.loads(reproduce.environment())
    monkeypatch.setattr(reproduce, "environment", lambda: json.dumps(here))
    assert reproduced(lora, "anna", "--plan")["differs"] == [
        f"package torch was {then['packages']['torch']}, and is 9.0",
        f"python was {then['python']}, and is 3.99",
    ]


# ---------------------------------------------------------------- impossible


def test_the_plan_says_that_all_is_there(lora: Lora, copied: Path) -> None:
    plan = "anna: 3 images x 2 repeats x 3 epochs / batch 2 = 9 steps, 3 saves, 2 buckets"
    assert lora("reproduce", "anna", "--plan") == Said(0, f"{plan}\n  all that it was made of is there\n", "")
    assert not (copied / "loras" / "anna" / "reproduced").exists()


def impossible(thing: str, *missing: str) -> Said:
    told = f"{thing}: impossible because {'; '.join(missing)} is missing"
    return Said(3, "", f"lora: {told}\n    bring it back under the LoRA's folder, or `models`\n")


def test_impossible_without_the_base(lora: Lora, copied: Path, history: Path) -> None:
    base = history.parent / "models" / "pocket-base"
    missing = f"the base {base} (sha256 {BASE})"
    base.rename(base.with_name("away"))
    try:
        assert lora("reproduce", "anna") == lora("reproduce", "anna", "--plan") == impossible("anna", missing)
    finally:
        base.with_name("away").rename(base)
    assert lora("reproduce", "anna", "--plan").code == 0


def test_impossible_with_the_base_of_another_schedule(lora: Lora, copied: Path, history: Path) -> None:
    config = history.parent / "models" / "pocket-base" / "scheduler" / "scheduler_config.json"
    was = config.read_text(encoding="utf-8")
    config.write_text(was.replace("v_prediction", "epsilon"), encoding="utf-8")
    try:
        said = lora("reproduce", "anna", "--plan")
        assert said.code and "the base " in said.err + said.out
    finally:
        config.write_text(was, encoding="utf-8")
    assert lora("reproduce", "anna", "--plan").code == 0


def test_impossible_without_a_picture_or_a_mask_each_named(lora: Lora, copied: Path) -> None:
    anna = copied / "loras" / "anna"
    mask, sha = images.sha256(anna / "masks" / "0003.png"), hashes(copied, "anna")["0001.png"]
    (anna / "masks" / "0003.png").unlink()
    (folder(copied, "anna") / "0001.png").unlink()
    (anna / "source" / "0.png").unlink()
    missing = (f"0001.png (sha256 {sha})", f"the mask of 0003.png (sha256 {mask})")
    assert lora("reproduce", "anna", "--plan") == impossible("anna", *missing)


def test_impossible_without_the_lora_that_it_went_on_from(lora: Lora, copied: Path, history: Path) -> None:
    begun = images.sha256(save(copied, "dora", 3))
    first = save(copied, "cleo", 3)
    assert lora("reproduce", first, "--plan").code == 0
    save(history, "dora", 3).rename(away := save(history, "dora", 3).with_name("away"))
    try:
        told = impossible(str(first), f"the LoRA that it went on from (sha256 {begun})")
        assert lora("reproduce", first, "--plan") == told
        shutil.copy(away, copied / "loras" / "cleo" / "found again.safetensors")
        assert lora("reproduce", first, "--plan").code == 0
    finally:
        away.rename(save(history, "dora", 3))


def test_of_a_lora_whose_folder_is_gone_the_record_tells_what_is_missing(lora: Lora, copied: Path) -> None:
    of = hashes(copied, "dora")
    shutil.rmtree(copied / "loras" / "dora")
    assert lora("reproduce", "dora", "--plan") == impossible("dora", *(f"{n} (sha256 {sha})" for n, sha in of.items()))


def test_what_the_record_does_not_know(lora: Lora, copied: Path, tmp_path: Path) -> None:
    stray = tmp_path / "stray.safetensors"
    shutil.copy(save(copied, "anna", 1), stray)
    assert lora("reproduce", stray, "--plan").code == 0, "a copy is known by its content"
    data = bytearray(stray.read_bytes().replace(b"lorafactory.manifest", b"lorafactory.manifesu"))
    data[-1] ^= 1
    stray.write_bytes(data)
    for thing in (stray, "nobody"):
        said = lora("reproduce", thing)
        assert said == Said(2, "", f"lora: no training of {thing} in {copied / 'lorafactory.db'} left a manifest: "
                            f"lora why {thing}\n")  # fmt: skip
