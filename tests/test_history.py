"""One history, and every question about it: duplicates and rejects, a caption by hand, a LoRA, pictures drawn with it,
a second LoRA from these, a third that goes on from the second."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from lorafactory import cli, images, manifest, step
from lorafactory.commands._statement import problems
from lorafactory.pocket.concepts import CONCEPTS
from lorafactory.recipe import Header, Recipe
from lorafactory.step import Work
from lorafactory.steps import pick
from lorafactory.store import Store
from lorafactory.training.lora_header import tensor_hash
from lorafactory.workspace import LoraDir, Workspace
from tests.picked_sets import write_scores

CANARIES = ("canary-folder", "canary-host", "canary-user", "canary-token")
TOML = """
base = "BASE"
trigger = "zqx"
kind = "object"
[rename]
min_side = 64
[dedupe]
no_clip = true
act = "facts"
[filter]
no_clip = true
[caption]
no_clip = true
text = "{trigger}, a star"
[repeats]
policy = 2
[train]
epochs = 3
batch = 2
save_dtype = "fp32"
save_every_epochs = 1
"""


def run(space: Path, *args: object) -> None:
    assert cli.run([*map(str, args), "--workspace", str(space)]) == 0


def draw(folder: Path, seed: int, count: int) -> None:
    chance = random.Random(seed)
    folder.mkdir(parents=True)
    for i in range(count):
        images.save_png(CONCEPTS["eyestar"].sample(chance), folder / f"{i}.png")


def begin(space: Path, name: str, base: Path, **more: str) -> Path:
    place = space / "loras" / name
    place.mkdir(parents=True)
    tables = "".join(f"[{table}]\n{text}\n" for table, text in more.items())
    (place / "lora.toml").write_text(TOML.replace("BASE", base.as_posix()) + tables, encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace in which all of it happened; do not write in it."""
    from lorafactory.pocket import MODELS

    top = tmp_path_factory.mktemp("history") / "canary-folder"
    space = top / "workspace"
    patch = pytest.MonkeyPatch()
    for name, value in (("HOSTNAME", "canary-host"), ("USER", "canary-user"), ("HF_TOKEN", "canary-token")):
        patch.setenv(name, value)
    patch.setenv("NVIDIA_TF32_OVERRIDE", "canary-token canary-user")
    base = top / "models" / "pocket-base"
    shutil.copytree(MODELS / "base", base)
    try:
        make_history(space, base)
    finally:
        patch.undo()
    return space


def make_history(space: Path, base: Path) -> None:
    anna = begin(space, "anna", base)
    draw(anna / "source", 1, 3)
    images.load(anna / "source" / "0.png").save(anna / "source" / "same.bmp")
    Image.new("RGB", (32, 32)).save(anna / "source" / "small.png")
    run(space, "make", "anna", "--to", "caption")
    (next((anna / "training_images").iterdir()) / "0002.txt").write_text("zqx, a red star\n", encoding="utf-8")
    run(space, "make", "anna", "--to", "train")
    place = LoraDir("anna", anna, owned=True)
    header = Header(kind="object", trigger="zqx")
    work = Work(Workspace(space, "test"), place, Recipe(header, {}, {}))
    write_scores(work, [0.5, 0.7, 0.69])
    with Store(space / "lorafactory.db") as store:
        step.perform(pick, work, pick.Settings(epoch=(2,)), store)
    (place.comparison / "scores.json").unlink()  # made up, and not whole enough for a report

    begin(space, "dora", base)
    drawing = ("--prompts", "zqx, a star", "--count", "2", "--steps", "2", "--lora", anna / "anna.safetensors")
    run(space, "generate", "dora", *drawing)
    run(space, "make", "dora", "--to", "train")

    cleo = begin(space, "cleo", base)
    draw(cleo / "source", 2, 2)
    run(space, "make", "cleo", "--to", "repeats")
    save = space / "loras" / "dora" / "result_current" / "dora-000003.safetensors"
    run(space, "train", "cleo", "--from-lora", save)


def told(space: Path, *args: object) -> dict:
    result = CliRunner().invoke(
        cli.lora, ["why", *map(str, args), "--workspace", str(space), "--json"], catch_exceptions=False
    )
    found: dict = json.loads(result.stdout)
    return found


def shas(space: Path) -> dict[str, str]:
    """Names within anna to sha256."""
    (folder,) = (space / "loras" / "anna" / "training_images").iterdir()
    return {p.name: images.sha256(p) for p in images.find(folder)}


# ---------------------------------------------------------------- a picture


def test_a_picture_is_known_by_its_content_and_followed_into_every_lora(history: Path, tmp_path: Path) -> None:
    story = told(history, "anna/0001.png")
    assert [(d["step"], d["verdict"], d["rule"]) for d in story["decisions"]][:2] == [
        ("rename", "imported", "rename"),
        ("rename", "converted", "rename"),
    ]
    assert [(r["lora"], r["status"]) for r in story["trainings"]] == [
        ("anna", "done"),
        ("dora", "done"),
        ("cleo", "done"),
    ]
    assert (story["possible"], story["revoked"]) == ([], "")
    again = tmp_path / "another name.webp"
    images.load(history / "loras" / "anna" / "source" / "0.png").save(again, lossless=True, exact=True)
    assert told(history, again)["decisions"] == story["decisions"]
    assert told(history, again)["trainings"] == story["trainings"]
    near = tmp_path / "near.jpg"
    images.load(history / "loras" / "anna" / "source" / "0.png").save(near, quality=90)
    (possible,) = told(history, near)["possible"]
    assert re.fullmatch(r"anna/0.png, [0-4] of 64 bits, in anna, cleo, dora", possible)


def test_a_reject_is_told_with_its_reason(history: Path) -> None:
    (small,) = told(history, "anna/small.png")["decisions"]
    assert (small["verdict"], small["rule"], small["score"], small["threshold"]) == (
        "set aside",
        "too small",
        32.0,
        64.0,
    )


# ---------------------------------------------------------------- a LoRA


def test_everything_that_went_into_a_lora(history: Path) -> None:
    story = told(history, "anna")
    made = story["made"]
    pictures = [(p["name"], p["sha256"], p["caption"], p["repeats"]) for p in made["manifest"]["pictures"]]
    hashes = shas(history)
    assert pictures == [
        ("0001.png", hashes["0001.png"], "zqx, a star", 2),
        ("0002.png", hashes["0002.png"], "zqx, a red star", 2),
        ("0003.png", hashes["0003.png"], "zqx, a star", 2),
    ]
    assert made["writers"] == {"0001.png": "text", "0002.png": "by hand", "0003.png": "text"}
    assert [(d["image"], d["verdict"], d["rule"]) for d in made["excluded"]] == [
        ("same.bmp", "set aside", "same pixels"),
        ("small.png", "set aside", "too small"),
    ]
    base = images.sha256(history.parent / "models" / "pocket-base" / "unet" / "diffusion_pytorch_model.safetensors")
    assert len(made["manifest"]["base"]["sha256"]) == len(base)
    assert made["manifest"]["settings"]["epochs"] == 3
    assert (made["retries"], made["revoked"], made["status"], made["manifest"]["from"]["more"]) == (0, False, "done", 0)
    assert story["chosen"] == 1
    begins = told(history, "cleo")["made"]["manifest"]["from"]
    save = history / "loras" / "dora" / "result_current" / "dora-000003.safetensors"
    assert begins == {"sha256": images.sha256(save), "epoch": 0, "step": 0, "more": 0}


def test_a_file_alone_and_with_the_record(history: Path, tmp_path: Path) -> None:
    chosen = history / "loras" / "anna" / "anna.safetensors"
    with_record = told(history, chosen)
    assert with_record["made"] == told(history, "anna")["made"]
    assert with_record["provenance"] == "whole"
    shutil.copy(chosen, tmp_path / "found.safetensors")
    alone = told(tmp_path / "nowhere", tmp_path / "found.safetensors")
    assert (alone["made"], alone["provenance"]) == (None, "")
    assert alone["carries"] == with_record["carries"]
    assert {k: alone["carries"][k] for k in ("name", "trigger", "epoch", "rank")} == {
        "name": "anna",
        "trigger": "zqx",
        "epoch": "2",
        "rank": with_record["carries"]["rank"],
    }


def test_the_first_difference(history: Path) -> None:
    saves = [history / "loras" / "anna" / "result_current" / f"anna-00000{n}.safetensors" for n in (1, 3)]
    assert told(history, *saves)["what"] == ""
    assert told(history, "anna", "dora")["what"] == "0001.png: sha256"
    between = told(history, "dora", "cleo")
    assert between["what"] == "from: sha256" or between["what"].startswith("0001.png")


def test_nothing_asked_tells_the_recent_runs_and_the_hours(history: Path) -> None:
    story = told(history)
    assert set(story["hours"]) == {"anna", "cleo", "dora"}
    assert (story["chosen"], story["agreed"]) == (1, 1)
    assert [r["run"]["step"] for r in story["runs"]][:2] == ["train", "repeats"]


# ---------------------------------------------------------------- what travels, and whether it holds


def test_the_statement_holds_without_the_record_and_a_change_is_found(history: Path, tmp_path: Path) -> None:
    chosen = history / "loras" / "anna" / "anna.safetensors"
    assert problems(chosen) == []
    statement = json.loads(chosen.with_suffix(manifest.SUFFIX).read_text(encoding="utf-8"))
    assert statement["subject"][0]["digest"] == {"sha256": images.sha256(chosen)}
    materials = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert [m["name"] for m in materials] == ["base", "picture", "picture", "picture"]
    copy = tmp_path / "anna.safetensors"
    shutil.copy(chosen, copy)
    told_of = json.loads(json.dumps(statement))
    told_of["predicate"]["buildDefinition"]["externalParameters"]["settings"]["epochs"] = 4
    copy.with_suffix(manifest.SUFFIX).write_text(json.dumps(told_of))
    assert problems(copy) == [f"{copy.stem}.prov.json: its inputs are not those that the header of {copy.name} names"]
    copy.write_bytes(copy.read_bytes()[:-1] + b"!")
    assert len(problems(copy)) == 4


def test_nothing_personal_travels(history: Path) -> None:
    place = history / "loras" / "anna"
    for path in (place / "result_current").glob("*.safetensors"):
        assert not [c for c in CANARIES if c.encode() in path.read_bytes()], path
    for suffix in (".safetensors", ".json", ".png", manifest.SUFFIX):
        data = (place / "anna").with_suffix(suffix).read_bytes()
        assert data and not [c for c in CANARIES if c.encode() in data], suffix
    with Store(history / "lorafactory.db", readonly=True) as store:
        record = "".join(row[0] for row in store.select("SELECT json FROM env"))
        record += "".join(str(row[0]) for row in store.select("SELECT bytes FROM content"))
    assert not [c for c in CANARIES[1:] if c in record]


def test_verify_finds_what_is_gone_changed_or_from_nowhere(history: Path, tmp_path: Path, capfd) -> None:
    space = tmp_path / "workspace"
    shutil.copytree(history, space)
    assert cli.run(["verify", "--deep", "--workspace", str(space)]) == 0
    result = space / "loras" / "anna" / "result_current"
    (result / "anna-000001.safetensors").unlink()
    shutil.copy(result / "anna-000003.safetensors", result / "anna-000002.safetensors")
    (space / "loras" / "anna" / "anna.json").write_text("{}")
    (space / "loras" / "anna" / "source" / "1.png").write_bytes(b"other")
    data = bytearray((result / "anna-000003.safetensors").read_bytes())
    data[-1] ^= 1
    (result / "stray.safetensors").write_bytes(data)
    capfd.readouterr()
    assert cli.run(["verify", "--deep", "--workspace", str(space)]) == 3
    said = capfd.readouterr().err
    for what in (
        "anna-000001.safetensors is gone",
        "its tensors are not those that were trained",
        "no run in this record",
    ):
        assert what in said
    assert "anna.json was changed since" in said and "1.png was changed since" in said
    assert said.startswith("lora: 5 things")


# ---------------------------------------------------------------- once more


def test_reproduced_to_the_last_bit_then_told_apart_then_impossible(history: Path, tmp_path: Path, capfd) -> None:
    space, base = tmp_path / "workspace", history.parent / "models" / "pocket-base"
    shutil.copytree(history, space)
    capfd.readouterr()
    assert cli.run(["reproduce", "anna", "--json", "--workspace", str(space)]) == 0
    data = json.loads(capfd.readouterr().out)
    there = {p.name: tensor_hash(p) for p in (space / "loras" / "anna" / "result_current").glob("*.safetensors")}
    assert (data["verdict"], data["made"]) == ("bit-identical", there)

    (folder,) = (space / "loras" / "anna" / "training_images").iterdir()
    (folder / "0003.txt").write_text("zqx, a blue star\n", encoding="utf-8")
    run(space, "make", "anna", "--to", "train")
    (earlier,) = (space / "loras" / "anna" / "results").glob("*/anna-000003.safetensors")
    assert told(space, earlier, "anna") == {
        "one": str(earlier),
        "other": "anna",
        "what": "0003.png: caption",
        "here": "zqx, a star",
        "there": "zqx, a blue star",
    }

    base.rename(base.with_name("away"))
    capfd.readouterr()
    try:
        assert cli.run(["reproduce", "anna", "--workspace", str(space)]) == 3
    finally:
        base.with_name("away").rename(base)
    said = capfd.readouterr().err
    assert re.search(r"impossible because the base .*pocket-base \(sha256 [0-9a-f]{64}\) is missing", said), said


# ---------------------------------------------------------------- forbidden


def test_a_revoked_picture_leaves_marks_what_came_of_it_and_is_refused(history: Path, tmp_path: Path, capfd) -> None:
    space = tmp_path / "workspace"
    shutil.copytree(history, space)
    anna = space / "loras" / "anna"
    capfd.readouterr()
    assert cli.run(["revoke", "anna/0001.png", "--reason", "asked to", "--json", "--workspace", str(space)]) == 0
    done = json.loads(capfd.readouterr().out)
    assert done["plan"] == ["lora make anna", "lora make dora", "lora make cleo"]
    assert done["set_aside"] == ["anna/0001.png", "dora/0001.png", "dora/0002.png"]
    assert str(anna / "source" / "0.png") in done["files"]
    assert str(space / "loras" / "cleo" / "result_current" / "cleo-000003.safetensors") in done["files"]
    assert told(space, "anna/0001.png")["revoked"] == "asked to"
    assert told(space, "cleo")["made"]["revoked"] is True
    again = anna / "source" / "again.webp"
    images.load(anna / "source" / "0.png").save(again, lossless=True, exact=True)
    capfd.readouterr()
    assert cli.run(["rename", "anna", "--workspace", str(space)]) == 0
    said = capfd.readouterr().out
    assert "again.webp: refused, it is revoked: asked to" in said and "0.png: refused" in said
    (aside,) = (anna / "set_aside" / "revoked").glob("0001.png")
    (folder,) = (anna / "training_images").iterdir()
    shutil.copy(aside, folder / "0001.png")
    assert cli.run(["dedupe", "anna", "--workspace", str(space)]) == 3
    assert "0001.png is revoked: asked to" in capfd.readouterr().err
