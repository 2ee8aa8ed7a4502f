"""`lora why`: the story of a picture, of a LoRA, of the recent runs."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from lorafactory.cli import lora
from lorafactory.errors import RecordError, SettingsError
from lorafactory.store import Store


def sha(letter: str) -> str:
    return letter * 64


def begin(store: Store, step: str):
    return store.run("anna", step, version=1, key="k", settings={})


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A workspace in which anna was made, and 0002.png was set aside, 0003.png put back by hand."""
    source = tmp_path / "loras" / "anna" / "source"
    source.mkdir(parents=True)
    (source / "IMG 1.jpg").write_bytes(b"one")
    original = hashlib.sha256(b"one").hexdigest()
    with Store(tmp_path / "lorafactory.db") as store:
        with begin(store, "rename") as run:
            run.used("sees", "IMG 1.jpg", original)
            for letter, name in (("a", "0001.png"), ("b", "0002.png"), ("c", "0003.png")):
                run.made("picture", name, sha(letter))
            run.note("0001.png", sha("a"), "imported", "decodes", before=original)
            run.derived(sha("a"), original, "converted")
        with begin(store, "dedupe") as run:
            run.note("0001.png", sha("a"), "kept", "near", score=0.4, threshold=0.985)
            for letter, name in (("b", "0002.png"), ("c", "0003.png")):
                aside = {"score": 0.991, "threshold": 0.985, "rival": "0001.png", "rival_sha256": sha("a")}
                run.note(name, sha(letter), "set aside", "near", **aside)
        with begin(store, "by hand") as run:
            run.note("0003.png", sha("c"), "put back", "by hand")
        with begin(store, "caption") as run:
            run.note("0001.png", sha("a"), "captioned", "blip", after="a red star", note=sha("5"))
        with begin(store, "train") as run:
            run.used("sees", "0001.png", sha("a"))
            run.used("sees", "0003.png", sha("c"))
    return tmp_path


def told(space: Path, *args: object) -> str:
    result = CliRunner().invoke(lora, ["why", *map(str, args), "--workspace", str(space)], catch_exceptions=False)
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "WHEN", result.stdout)


PICTURE = """\
anna/0001.png
  made from IMG 1.jpg
  WHEN  rename    imported  decodes
  WHEN  dedupe    kept  near, 0.4 against 0.985
  WHEN  caption   captioned  blip, "a red star"
  trained on it: anna, WHEN, done
"""


def test_why_a_picture_by_name_by_original_and_by_path(recorded: Path):
    assert told(recorded, "anna/0001.png") == PICTURE
    source = recorded / "loras" / "anna" / "source" / "IMG 1.jpg"
    by_original = told(recorded, "anna/IMG 1.jpg")
    assert told(recorded, source) == by_original
    assert by_original.splitlines() == [
        "anna/IMG 1.jpg",
        "  WHEN  rename    0001.png: imported  decodes",
        "  WHEN  dedupe    0001.png: kept  near, 0.4 against 0.985",
        '  WHEN  caption   0001.png: captioned  blip, "a red star"',
        "  trained on it: anna, WHEN, done",
    ]
    copy = recorded / "elsewhere.jpg"
    copy.write_bytes(source.read_bytes())
    assert "the same bytes as IMG 1.jpg" in told(recorded, copy)
    moved = recorded / "loras" / "anna" / "training_images" / "1_x" / "0002.png"  # it is in set_aside/
    assert "0.991 against 0.985, rival 0001.png" in told(recorded, moved)
    assert "no LoRA was trained on it" in told(recorded, moved)


def test_a_picture_of_a_folder_is_told_from_that_folder_alone(recorded: Path, tmp_path: Path):
    content = b"a picture"
    digest = hashlib.sha256(content).hexdigest()
    sets = [tmp_path / f"set {i}" for i in range(7)]
    with Store(recorded / "lorafactory.db") as store:
        for folder in sets:
            folder.mkdir()
            (folder / "0002.png").write_bytes(content)
            with store.run(str(folder), "filter", version=1, key="k", settings={}) as run:
                run.note("0002.png", digest, "kept", f"as {folder.name} says")
    lines = told(recorded, sets[3] / "0002.png").splitlines()
    rest = ", ".join(str(sets[i]) for i in (0, 1, 2, 4))
    assert lines == [
        str(sets[3] / "0002.png"),
        f"  other sets with the same picture: {rest} and 2 more",
        "  WHEN  filter    kept  as set 3 says",
        "  no LoRA was trained on it",
    ]
    of_folder = told(recorded, sets[3]).splitlines()
    assert of_folder[0] == str(sets[3]) and of_folder[1].endswith("1 kept") and len(of_folder) == 2
    copy = tmp_path / "copy.png"
    copy.write_bytes(content)
    assert [line for line in told(recorded, copy).splitlines() if "says" in line] == [
        f"  WHEN  filter    {sets[6]}/0002.png: kept  as set 6 says"
    ]


def test_why_a_lora_and_why_nothing(recorded: Path):
    lines = told(recorded, "anna").splitlines()
    assert [line.split()[1] for line in lines[1:6]] == ["train", "caption", "by", "dedupe", "rename"]
    assert lines[4].endswith("1 kept, 2 set aside")
    out = "  0002.png        set aside  by dedupe  near, 0.991 against 0.985, rival 0001.png"
    assert lines[6:] == ["not in the set: 1", out]
    assert told(recorded, recorded / "loras" / "anna") == told(recorded, "anna")
    assert told(recorded).startswith("latest runs\n  WHEN  anna          train     done")
    story = json.loads(told(recorded, "anna", "--json"))
    assert [d["image"] for d in story["out"]] == ["0002.png"]
    assert story["runs"][3]["verdicts"] == {"kept": 1, "set aside": 2}


def test_why_a_lora_tells_the_verdict_and_a_persons_choice(recorded: Path):
    folder = recorded / "loras" / "anna" / "txt2img-images"
    folder.mkdir()
    own = {"pick": "a3", "reason": "epoch 3: the best", "rejected": {"a4": "copies: 30%"}, "next": None}
    verdict = {"reason": "epoch 3: the best", "by_hand": None, "verdict": own}
    (folder / "verdict.json").write_text(json.dumps(verdict))
    assert told(recorded, "anna").splitlines()[6:8] == ["save: epoch 3: the best", "  rejected a4: copies: 30%"]
    assert "choice" not in told(recorded, "anna")
    chosen = {"reason": "epoch 1, chosen by hand. The verdict: epoch 3: the best", "by_hand": {"agrees": False}}
    (folder / "verdict.json").write_text(json.dumps({**verdict, **chosen, "verdict": {**own, "next": "lora x"}}))
    with Store(recorded / "lorafactory.db") as store, begin(store, "pick") as run:
        run.metric(0, "agrees", 0)
    assert told(recorded, "anna").splitlines()[7:11] == [
        "save: epoch 1, chosen by hand. The verdict: epoch 3: the best",
        "  rejected a4: copies: 30%",
        "  next: lora x",
        "a person's choice of a save is the verdict's too in 0 of 1 LoRAs",
    ]
    assert json.loads(told(recorded, "anna", "--json"))["verdict"]["by_hand"] == {"agrees": False}


def test_how_often_a_person_and_the_verdict_agree(recorded: Path):
    assert "choice" not in told(recorded)

    def pick(store: Store, lora: str, agrees: float | None):
        with store.run(lora, "pick", version=2, key="k", settings={}) as run:
            if agrees is not None:
                run.metric(0, "agrees", agrees)

    with Store(recorded / "lorafactory.db") as store:
        pick(store, "anna", None)  # by the verdict
    assert "choice" not in told(recorded)
    with Store(recorded / "lorafactory.db") as store:
        for lora, agrees in (("anna", 1), ("bert", 1), ("carl", 0), ("anna", 0), ("carl", None)):
            pick(store, lora, agrees)
    assert told(recorded).splitlines()[-1] == "a person's choice of a save is the verdict's too in 1 of 3 LoRAs"
    story = json.loads(told(recorded, "--json"))
    assert (story["chosen"], story["agreed"]) == (3, 1)
    assert "choice" not in told(recorded, "anna")


def test_why_something_unknown(recorded: Path):
    with pytest.raises(SettingsError, match=r"nothing is recorded about bert(.|\n)*recorded LoRAs: anna"):
        told(recorded, "bert")
    with pytest.raises(RecordError, match="no record"):
        told(recorded / "elsewhere")
    assert not (recorded / "elsewhere").exists()
