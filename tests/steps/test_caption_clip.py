"""What CLIP thinks of words: with a fake that is told, and with the pocket's models on scenes whose truth is known."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from judged_sets import FakeRun, scenes, work_on
from PIL import Image

from lorafactory import wording
from lorafactory.captioners import blip
from lorafactory.dataset import Picture
from lorafactory.encoders import clip
from lorafactory.pocket import world
from lorafactory.step import Work
from lorafactory.steps import caption as step
from lorafactory.steps._opinions import UNSUPPORTED
from lorafactory.steps.caption import Settings

EXTRAS = ("with a black hat", "holding a ring", "with text", "and a ")


# ---------------------------------------------------------------- a fake that is told


@dataclass
class Teller:
    """Says what the list says, one sentence after the other, and counts its calls."""

    sentences: list[str]
    asked: int = 0

    def caption(self, images, **how):
        self.asked += len(images)
        return [self.sentences[self.asked - len(images) + i] for i in range(len(images))]


@dataclass
class Reader:
    """Sees a microphone in bright pictures: the second axis of its vectors is how much of one there is."""

    looks: int = 0
    texts: list[str] = field(default_factory=list)

    def prepare(self, picture):
        return picture.getpixel((0, 0))[0] / 255

    def encode_prepared(self, shares):
        self.looks += len(shares)
        return np.array([self.row(share) for share in shares], dtype=np.float32)

    def encode_texts(self, texts):
        self.texts += texts
        return np.array([self.row(self.share(t)) for t in texts], dtype=np.float32)

    def share(self, text: str) -> float:
        return 1.0 if "microphone" in text else 0.4 if text.startswith("a picture of") else 0.5

    def row(self, share: float):
        row = np.array([1.0, 2 * share - 1], dtype=np.float32)
        return row / np.linalg.norm(row)


def tell(monkeypatch: pytest.MonkeyPatch, sentences: list[str]) -> tuple[Teller, Reader]:
    teller, reader = Teller(sentences), Reader()
    for module, loaded in ((blip, teller), (clip.Clip, reader)):
        monkeypatch.setattr(module, "load", lambda model, loaded=loaded: loaded)
    for module in (blip, clip):
        monkeypatch.setattr(module, "missing", lambda model: None)
        monkeypatch.setattr(module, "identity", lambda model: "fake")
    return teller, reader


def grays(*levels: int) -> list[Image.Image]:
    return [Image.new("RGB", (70, 70), (level,) * 3) for level in levels]


def flagged(run: FakeRun) -> dict[str, list[str]]:
    found = defaultdict(list)
    for name, verdict, rule, told in run.rows:
        if rule == UNSUPPORTED and verdict == "flagged":
            found[name].append(told["note"].split('"')[1])
    return dict(found)


def captions(work: Work) -> list[str | None]:
    return [picture.caption for picture in work.set.pictures]


def test_a_microphone_that_is_not_there_is_flagged_and_one_that_is_is_not(tmp_path, monkeypatch):
    tell(monkeypatch, ["a man with a microphone in the hand"] * 2 + ["a man"])
    work, run = work_on(tmp_path, grays(255, 20, 128))
    result = step.run(work, Settings())
    assert flagged(run) == {"0002.png": ["with a microphone in the hand"]}
    assert captions(work) == ["4nna, a man with a microphone in the hand"] * 2 + ["4nna, a man"]
    assert result.data["unsupported"] == {"0002.png": ["with a microphone in the hand"]}
    assert result.summary == "caption: 3 captioned, 0 by hand, 0 up to date, 1 phrase unsupported"
    told = [told for name, _, rule, told in run.rows if rule == UNSUPPORTED]
    assert len(told) == 2 and all(one["threshold"] == 50 and one["score"] is not None for one in told)


def test_stripped_it_is_gone_and_comes_back_without_asking_the_captioner(tmp_path, monkeypatch):
    teller, _ = tell(monkeypatch, ["a man with a microphone in the hand"] * 2)
    work, run = work_on(tmp_path, grays(255, 20))
    step.run(work, Settings())
    work, run = work_after(work, run)
    step.run(work, Settings(strip_unsupported=True))
    whole = "4nna, a man with a microphone in the hand"
    assert captions(work) == [whole, "4nna, a man"]
    told = run.told("0002.png", "blip")
    assert (told["before"], told["after"]) == (whole, "4nna, a man")
    work, run = work_after(work, run)
    step.run(work, Settings())
    assert captions(work) == [whole, whole] and teller.asked == 2


def work_after(work: Work, run: FakeRun) -> tuple[Work, FakeRun]:
    from judged_sets import with_past

    done = {n: (told["sha256"], told["note"]) for n, verdict, _, told in run.rows if verdict == "captioned"}
    return with_past(work, captions=done)


def test_one_new_picture_is_one_look_and_one_caption(tmp_path, monkeypatch):
    teller, reader = tell(monkeypatch, ["a man with a microphone"] * 9)
    work, run = work_on(tmp_path, grays(*range(10, 90, 10)))
    step.run(work, Settings())
    assert (teller.asked, reader.looks) == (8, 8)
    grays(255)[0].save(work.set.pictures[0].path.with_name("0009.png"))
    work, run = work_after(work, run)
    assert step.run(work, Settings()).data["captioned"] == ["0009.png"]
    assert (teller.asked, reader.looks) == (9, 9)
    score = run.told("0009.png", UNSUPPORTED)["score"]
    assert score > 99  # brighter than the eight others, which were not looked at again


def test_texts_for_all_and_no_clip_ask_nobody(tmp_path, monkeypatch):
    _, reader = tell(monkeypatch, ["a man with a microphone"] * 4)
    work, run = work_on(tmp_path, grays(10, 20))
    step.run(work, Settings(text="{trigger} with a microphone"))
    step.run(work_after(work, run)[0], Settings(no_clip=True))
    step.run(work, Settings(captioner="files"))
    assert (reader.looks, reader.texts) == (0, [])


def test_a_phrase_of_most_captions_is_an_alarm(tmp_path, monkeypatch):
    tell(monkeypatch, [*["a man with a microphone"] * 4, "a man", "a man"])
    work, run = work_on(tmp_path, grays(250, 251, 252, 253, 254, 255))
    result = step.run(work, Settings())
    assert result.data["repeated"] == {"with a microphone": 4}
    assert result.summary.endswith("1 phrase in most captions")
    assert run.told("0004.png", "repeated phrase")["score"] == pytest.approx(4 / 6)
    assert "repeated phrase" not in run.verdicts("0005.png")


# ---------------------------------------------------------------- the pocket's models


@pytest.fixture(scope="module")
def invented(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, list[str]]:
    """Accessories that BLIP named when pressed for length, by whether they are there: the verdicts on them."""
    rng = random.Random(0)
    drawn = [world.random_scene(rng) for _ in range(30)]
    work, run = work_on(tmp_path_factory.mktemp("invented"), [world.draw(s, rng) for s in drawn])
    step.run(work, Settings(beams=2, min_length=18, batch=10))
    found: dict[bool, list[str]] = {True: [], False: []}
    for name, verdict, rule, told in run.rows:
        phrase = (told["note"] or "").split('"')[1] if rule == UNSUPPORTED else ""
        if phrase.startswith(EXTRAS) and not phrase.endswith("background"):
            found[phrase in drawn[int(name[:4]) - 1].caption()].append(verdict)
    return found


def test_what_blip_invents_is_mostly_flagged(invented):
    """A minimum of 18 tokens makes the pocket's BLIP add what is not there, as the seed says of the real one."""
    assert len(invented[False]) >= 4
    assert invented[False].count("flagged") >= len(invented[False]) / 2


def test_what_is_there_is_not_flagged(invented):
    assert len(invented[True]) >= 10
    assert invented[True].count("flagged") <= len(invented[True]) / 20


def test_lies_in_a_persons_captions_are_taken_out_and_nothing_else(tmp_path):
    """Every second caption gets an accessory that is not drawn; the head and what is true stay."""
    rng = random.Random(4)
    drawn = [world.random_scene(rng) for _ in range(40)]
    work, _ = work_on(tmp_path, [world.draw(s, rng) for s in drawn])
    true = ["4nna, " + s.caption() for s in drawn]
    for i, (picture, text) in enumerate(zip(work.set.pictures, true, strict=True)):
        lie = next(e for e in EXTRAS[i % 2 :] if e not in text)
        picture.write_caption(text.replace(" in front", f" {lie} in front") if i % 2 == 0 else text)
    step.run(work, Settings(captioner="files", strip_unsupported=True))
    after = captions(work)
    lied, honest = range(0, 40, 2), range(1, 40, 2)
    assert sum(after[i] == true[i] for i in lied) >= 12
    assert sum(after[i] == true[i] for i in honest) >= 19
    assert all((after[i] or "").startswith(wording.pieces(true[i].removeprefix("4nna, "))[0], 6) for i in range(40))


def test_the_best_word_of_each_dimension_is_appended(tmp_path):
    work, run = work_on(tmp_path, scenes(16, seed=3))
    rng = random.Random(3)
    drawn = []
    for _ in range(16):
        drawn.append(world.random_scene(rng, plain=True))
        world.draw(drawn[-1], rng)
    words = {"shape": list(world.SHAPES), "size": ["large", "small"]}
    step.run(work, Settings(text="a picture", words=words))
    said = [set((text or "").split(", ")[2:]) for text in captions(work)]
    shapes = [(s.shape, have & set(world.SHAPES)) for s, have in zip(drawn, said, strict=True)]
    assert sum(have == {shape} for shape, have in shapes) >= 13
    assert sum(bool(have - {shape}) for shape, have in shapes) <= 2
    assert all(len(have & {"large", "small"}) <= 1 for have in said)
    told = run.told("0001.png", "shape")
    assert told["threshold"] == 0.01 and told["note"].count(",") == len(world.SHAPES) - 1


def test_a_word_that_is_said_already_or_hardly_ahead_is_left_out(tmp_path):
    work, run = work_on(tmp_path, scenes(4))
    first: Picture = work.set.pictures[0]
    first.write_caption("4nna, a tiny star")
    words = {"shape": ["star", "circle"], "size": ["large", "small"]}
    files = Settings(captioner="files", words=words, word_margin=0.9)
    step.run(work, files)
    assert first.caption == "4nna, a tiny star"
    assert run.verdicts("0001.png") == {"size": "not worded", "files": "kept"}
    step.run(work, Settings(words=words, word_margin=0.0, beams=1))
    text = work.set.pictures[1].caption or ""
    step.run(work, Settings(captioner="files", words=words, word_margin=0.0))
    assert work.set.pictures[1].caption == text


def test_the_command_takes_a_table_of_words(lora, space, tmp_path: Path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, picture in enumerate(scenes(3)):
        picture.save(folder / f"{i}.png")
    told = ["--text", "a picture", "--base", "pocket", "--words", 'size = ["large", "small"]', "--word-margin", "0"]
    said = lora("caption", folder, *told, "--apply")
    assert said.code == 0, said.err
    assert all((folder / f"{i}.txt").read_text().split(", ")[1].strip() in ("large", "small") for i in range(3))
