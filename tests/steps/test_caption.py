from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from judged_sets import FakeRun, scenes, with_past, work_on
from PIL import Image

from lorafactory.captioners import blip, wd
from lorafactory.errors import FailedError
from lorafactory.step import Work
from lorafactory.steps import _sentences
from lorafactory.steps import caption as step
from lorafactory.steps.caption import Settings


@dataclass
class FakeBlip:
    """Says the colour of the upper left pixel, and nothing of red pictures; counts its calls."""

    batches: list[int] = field(default_factory=list)
    how: dict[str, Any] = field(default_factory=dict)

    def caption(self, images: Sequence[Image.Image], **how: Any) -> list[str]:
        self.batches.append(len(images))
        self.how = how
        corners = [image.getpixel((0, 0)) for image in images]
        if (66, 6, 6) in corners:
            raise RuntimeError("the picture bites\nin many lines")
        return ["" if corner == (255, 0, 0) else f"a corner of {corner[0]} {corner[1]}" for corner in corners]


@pytest.fixture
def fake(monkeypatch) -> FakeBlip:
    captioner = FakeBlip()
    monkeypatch.setattr(blip, "load", lambda model: captioner)
    monkeypatch.setattr(blip, "missing", lambda model: None)
    monkeypatch.setattr(blip, "identity", lambda model: "fake")
    return captioner


def plains(*colours: object) -> list[Image.Image]:
    return [Image.new("RGB", (70, 70), colour) for colour in colours]  # type: ignore[arg-type]


def remembered(run: FakeRun) -> dict[str, tuple[str, str]]:
    """What `step.remember` reads back from such a run."""
    return {name: (told["sha256"], told["note"]) for name, verdict, _, told in run.rows if verdict == "captioned"}


def changed(run: FakeRun) -> dict[str, tuple[str, str]]:
    """Texts before and after of the captions that were edited."""
    return {n: (told["before"], told["after"]) for n, verdict, _, told in run.rows if verdict == "caption changed"}


def captions(work: Work) -> list[str | None]:
    return [picture.caption for picture in work.set.pictures]


def test_trigger_then_what_is_seen(tmp_path, fake):
    work, run = work_on(tmp_path, plains("blue", "lime", "navy"))
    result = step.run(work, Settings(batch=2))
    assert captions(work) == ["4nna, a corner of 0 0", "4nna, a corner of 0 255", "4nna, a corner of 0 0"]
    assert fake.batches == [2, 1]
    assert fake.how == {
        "prompt": "a picture of",
        "beams": 9,
        "min_length": 15,
        "max_length": 75,
        "batch": 2,
    }
    assert result.summary == "caption: 3 captioned, 0 by hand, 0 up to date"
    assert run.verdicts("0001.png") == {"blip": "captioned"}
    told = run.told("0001.png", "blip")
    assert (told["before"], told["after"]) == (None, "4nna, a corner of 0 0")


def test_again_does_nothing(tmp_path, fake):
    work, run = work_on(tmp_path, plains("blue", "lime"))
    step.run(work, Settings())
    work, run = with_past(work, captions=remembered(run))
    result = step.run(work, Settings(batch=1))
    assert result.data == {"captioned": [], "by_hand": [], "up_to_date": ["0001.png", "0002.png"]}
    assert fake.batches == [2]
    assert run.verdicts("0002.png") == {"up to date": "kept"}


def test_one_new_picture_is_one_new_caption(tmp_path, fake):
    work, run = work_on(tmp_path, plains("blue", "lime"))
    step.run(work, Settings())
    new = work.set.pictures[0].path.with_name("0003.png")
    plains("navy")[0].save(new)
    work, run = with_past(work, captions=remembered(run))
    assert step.run(work, Settings()).data["captioned"] == ["0003.png"]
    assert fake.batches == [2, 1]


def test_other_settings_and_other_pixels_make_new_captions(tmp_path, fake):
    work, run = work_on(tmp_path, plains("blue", "lime"))
    step.run(work, Settings())
    past = remembered(run)
    assert step.run(with_past(work, captions=past)[0], Settings(beams=3)).data["captioned"] == ["0001.png", "0002.png"]
    assert fake.batches == [2, 2]
    work, run = with_past(work, captions=past)
    plains("navy")[0].save(work.set.pictures[1].path)
    assert step.run(work, Settings()).data["captioned"] == ["0002.png"]


def test_another_prefix_needs_no_model(tmp_path, fake):
    work, run = work_on(tmp_path, plains("blue"))
    step.run(work, Settings())
    work, _ = with_past(work, captions=remembered(run))
    step.run(work, Settings(prefix="{trigger} {class}, "))
    assert captions(work) == ["4nna star, a corner of 0 0"] and fake.batches == [1]


def test_what_a_person_wrote_is_left_alone(tmp_path, fake):
    work, run = work_on(tmp_path, plains("blue", "lime", "navy", "aqua"))
    brought, changed, *_ = work.set.pictures
    brought.write_caption("my words")
    changed.write_caption("mended words")
    work, run = with_past(
        work,
        hand_captions=frozenset({"0002.png", "0003.png"}),
        captions=dict.fromkeys(("0002.png", "0003.png"), ("old", "old")),
    )
    result = step.run(work, Settings())
    assert captions(work) == ["my words", "mended words", None, "4nna, a corner of 0 255"]
    assert result.data["by_hand"] == ["0001.png", "0002.png", "0003.png"]
    assert run.verdicts("0003.png") == {"by hand": "kept"}


def test_overwrite_replaces_and_keeps_the_old_text(tmp_path, fake):
    work, run = work_on(tmp_path, plains("blue"))
    work.set.pictures[0].write_caption("my words")
    step.run(work, Settings(overwrite=True))
    assert captions(work) == ["4nna, a corner of 0 0"]
    assert run.told("0001.png", "blip")["before"] == "my words"


def test_captions_of_a_killed_run_are_ours(tmp_path, fake):
    """Written, but never recorded: word for word what we would write is no person's text."""
    work, _ = work_on(tmp_path, plains("blue", "lime"))
    step.run(work, Settings())
    work, run = with_past(work, hand_captions=frozenset({"0001.png", "0002.png"}))
    assert step.run(work, Settings()).data["captioned"] == ["0001.png", "0002.png"]
    assert fake.batches == [2] and set(remembered(run)) == {"0001.png", "0002.png"}


def test_one_text_for_all_needs_no_model(tmp_path, fake):
    work, run = work_on(tmp_path, plains("blue", "lime"))
    step.run(work, Settings(text="a photo of a {class}"))
    assert captions(work) == ["4nna, a photo of a star"] * 2
    assert fake.batches == [] and run.verdicts("0001.png") == {"text": "captioned"}
    work, run = with_past(work, captions=remembered(run))
    assert step.run(work, Settings(text="a photo of a {class}")).data["captioned"] == []


@pytest.mark.parametrize(
    ("settings", "trigger", "expected"),
    [
        ({"text": "{trigger}, a photo"}, "4nna", "4nna, a photo"),
        ({"text": "a photo of {trigger}"}, "4nna", "a photo of 4nna"),
        ({"text": "4nna, a photo"}, "4nna", "4nna, a photo"),
        ({"text": "a photo", "prefix": ""}, "4nna", "a photo"),
        ({"text": "a photo"}, "", "a photo"),
        ({"text": "a photo", "prefix": "art, "}, "", "art, a photo"),
    ],
)
def test_the_prefix_comes_once(tmp_path, settings, trigger, expected):
    work, _ = work_on(tmp_path, plains("blue"), trigger=trigger)
    step.run(work, Settings(**settings))
    assert captions(work) == [expected]


def test_a_picture_without_a_caption_fails_the_step_by_name(tmp_path, fake):
    work, run = work_on(tmp_path, plains("blue", (255, 0, 0), (66, 6, 6), "lime"))
    work.set.pictures[3].path.write_bytes(b"no picture")
    with pytest.raises(FailedError) as failed:
        step.run(work, Settings())
    assert str(failed.value).splitlines()[0] == "3 pictures have no caption, 1 have:"
    assert "0002.png: blip said nothing" in str(failed.value)
    assert "0003.png: the picture bites" in str(failed.value) and "many lines" not in str(failed.value)
    assert "0004.png" in str(failed.value)
    assert captions(work) == ["4nna, a corner of 0 0", None, None, None]
    assert set(remembered(run)) == {"0001.png"}


def test_a_folder_that_is_not_ours_is_only_reported_on(tmp_path, fake):
    work, run = work_on(tmp_path, plains("blue"))
    result = step.run(replace(work, apply=False), Settings())
    assert captions(work) == [None] and remembered(run) == {}
    assert result.lines == ["0001.png: would say: 4nna, a corner of 0 0"]
    assert run.verdicts("0001.png") == {"blip": "would be captioned"}


def test_check_says_all_that_is_wrong(tmp_path, monkeypatch):
    work, _ = work_on(tmp_path, plains("blue"), **{"class": ""})
    monkeypatch.setattr(blip, "missing", lambda model: "BLIP is not on this machine: x, about 1900 MB in all")
    (problem,) = step.check(work, Settings())
    assert problem.fatal and "1900 MB" in problem.message and "--text" in problem.fix
    assert step.check(work, Settings(text="{trigger}, a photo")) == []
    wrong = Settings(text="{class}", prefix="{name}", min_length=80)
    assert [p.message for p in step.check(work, wrong)] == [
        "caption.prefix: {name} means nothing; known are {trigger}, {class}",
        "caption.min_length = 80 is above max_length = 75",
        "caption.text: there is nothing to put for {class}",
    ]
    (unknown,) = step.check(work, Settings(captioner="blib"))
    assert unknown.message == "there is no captioner 'blib'; known are: blip, files, none, wd"


def test_check_warns_that_the_pocket_knows_only_drawings(tmp_path, monkeypatch):
    monkeypatch.setattr(blip, "missing", lambda model: None)
    work, _ = work_on(tmp_path, [*scenes(1), Image.new("RGB", (200, 100))])
    (problem,) = step.check(work, Settings())
    assert not problem.fatal and "know only drawings" in problem.message
    assert step.check(work, Settings(text="a photo")) == []


# ---------------------------------------------------------------- edits


def test_every_caption_is_edited_and_the_captioner_is_asked_once(tmp_path, fake):
    work, run = work_on(tmp_path, plains("blue", "lime"))
    step.run(work, Settings())
    work, run = with_past(work, captions=remembered(run))
    asked = Settings(suffix=" at night", replace=["a corner => the {class}"], add=["solo"], remove=["nothing"])
    step.run(work, asked)
    assert captions(work) == ["4nna, the star of 0 0, solo at night", "4nna, the star of 0 255, solo at night"]
    assert run.told("0001.png", "blip")["before"] == "4nna, a corner of 0 0"
    work, run = with_past(work, captions=remembered(run))
    assert step.run(work, asked).data["up_to_date"] == ["0001.png", "0002.png"]
    step.run(with_past(work, captions=remembered(run))[0], Settings())
    assert fake.batches == [2]


def test_edits_that_leave_nothing_are_a_failure(tmp_path, fake):
    work, _ = work_on(tmp_path, plains("blue", "lime"))
    with pytest.raises(FailedError, match=r"0001\.png: the edits leave nothing of it"):
        step.run(work, Settings(replace=["a corner of 0 0 =>"]))
    assert captions(work) == [None, "4nna, a corner of 0 255"]


def test_files_are_edited_whoever_wrote_them_and_nobody_is_asked(tmp_path, fake):
    work, run = work_on(tmp_path, plains("blue", "lime", "navy"))
    brought, ours, _ = work.set.pictures
    brought.write_caption("a man with a man")
    ours.write_caption("4nna, a corner")
    work, run = with_past(work, hand_captions=frozenset({"0001.png"}), captions={"0002.png": ("old", "old")})
    asked = Settings(captioner="files", replace=["a man => anna"], suffix=", outdoors")
    result = step.run(work, asked)
    assert captions(work) == ["4nna, anna with anna, outdoors", "4nna, a corner, outdoors", None]
    assert result.data == {"edited": ["0001.png", "0002.png"], "without": ["0003.png"]}
    assert changed(run) == {
        "0001.png": ("a man with a man", "4nna, anna with anna, outdoors"),
        "0002.png": ("4nna, a corner", "4nna, a corner, outdoors"),
    }
    again = step.run(work, asked)
    assert again.data["edited"] == [] and again.summary == "caption: 0 edited, 2 as they were, 1 without a caption"
    assert fake.batches == []


def test_files_of_a_folder_that_is_not_ours_are_only_reported_on(tmp_path):
    work, run = work_on(tmp_path, plains("blue"))
    work.set.pictures[0].write_caption("a man")
    result = step.run(replace(work, apply=False), Settings(captioner="files", replace=["a man => anna"]))
    assert captions(work) == ["a man"] and result.lines == ["0001.png: would say: 4nna, anna"]
    assert changed(run) == {}


def test_what_was_edited_stays_and_undo_takes_it_back(lora, space, tmp_path):
    """Through the record: an edited caption counts as a person's, until the edit is undone."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    plains("blue")[0].save(folder / "0001.png")
    text = folder / "0001.txt"
    base = ["--base", "pocket", "--trigger", "4nna", "--apply"]
    assert lora("caption", folder, "--text", "a man", *base).code == 0
    assert lora("caption", folder, "--captioner", "files", "--replace", "a man => anna", *base).code == 0
    assert text.read_text() == "4nna, anna\n"
    said = lora("caption", folder, "--text", "a woman", *base)
    assert "1 by hand" in said.out and text.read_text() == "4nna, anna\n"
    from lorafactory.store import Store

    with Store(space / "lorafactory.db", readonly=True) as store:
        edited = [d for d in store.decisions(lora=str(folder)) if d.verdict == "caption changed"]
    assert [(d.before, d.after) for d in edited] == [("4nna, a man", "4nna, anna")]
    assert lora("undo", folder, "--apply").code == 0
    assert text.read_text() == "4nna, a man\n"
    assert "1 up to date" in lora("caption", folder, "--text", "a man", *base).out


def test_no_captions_at_all(tmp_path, fake):
    """For a LoRA without a trigger: the files say nothing, so neither the trainer nor a prefix speaks."""
    work, run = work_on(tmp_path, plains("blue", "lime"))
    work.set.pictures[1].write_caption("my words")
    assert step.check(work, Settings(captioner="none")) == []
    step.run(work, Settings(captioner="none", suffix=", outdoors"))
    assert captions(work) == ["", "my words"] and fake.batches == []
    work, run = with_past(work, captions=remembered(run), hand_captions=frozenset({"0002.png"}))
    assert step.run(work, Settings(captioner="none", suffix=", outdoors")).data["up_to_date"] == ["0001.png"]


def test_check_says_what_cannot_be_edited(tmp_path):
    work, _ = work_on(tmp_path, plains("blue"))
    wrong = Settings(text="x", replace=["(", "( =>"], words={"light": ["soft"]}, no_clip=True, suffix="{name}")
    assert [p.message.partition(";")[0] for p in step.check(work, wrong)] == [
        "caption.suffix: {name} means nothing",
        "caption.replace: '(': write it as FIND => PUT, as in \"a man => anna\"",
        "caption.replace: '( =>': missing ), unterminated subpattern at position 0",
        "caption.words: light has 1 word",
        "caption.words needs CLIP",
    ]
    (unused,) = step.check(work, Settings(captioner="files", text="x"))
    assert not unused.fatal and unused.message == "caption.text is not used: captioner = files"


# ---------------------------------------------------------------- long work


def test_a_killed_run_goes_on_where_it_was(tmp_path, fake, monkeypatch):
    """What was said before the end is kept; only the rest is asked again."""
    work, _ = work_on(tmp_path, plains("blue", "lime", "navy", "aqua", "teal"))
    real = _sentences.write_whole
    kept = []

    def killed(path, data):
        if len(kept) == 3:
            raise KeyboardInterrupt
        kept.append(path)
        real(path, data)

    monkeypatch.setattr(_sentences, "write_whole", killed)
    with pytest.raises(KeyboardInterrupt):
        step.run(work, Settings(batch=1))
    assert captions(work) == [None] * 5 and fake.batches == [1] * 4
    monkeypatch.setattr(_sentences, "write_whole", real)
    step.run(work, Settings(batch=1))
    assert None not in captions(work) and fake.batches == [1] * 6


def test_another_captioner_is_asked_as_it_wants_to_be(tmp_path, monkeypatch):
    asked = []

    class Tagger:
        def caption(self, images, **how):
            asked.append(how)
            return ["1girl, long hair, solo"] * len(images)

    monkeypatch.setattr(wd, "load", lambda model: Tagger())
    monkeypatch.setattr(wd, "missing", lambda model: None)
    monkeypatch.setattr(wd, "identity", lambda model: f"wd:{model}")
    work, run = work_on(tmp_path, plains("blue"))
    settings = Settings(captioner="wd", threshold=0.5, remove=["1girl"])
    assert step.check(work, settings) == []
    step.run(work, settings)
    assert captions(work) == ["4nna, long hair, solo"] and asked == [{"threshold": 0.5, "batch": 4}]
    assert run.verdicts("0001.png") == {"wd": "captioned"}
    later, _ = with_past(work, captions=remembered(run))
    step.run(later, Settings(captioner="wd", threshold=0.5))
    assert len(asked) == 1
    step.run(later, Settings(captioner="wd", threshold=0.5, model="elsewhere"))
    assert len(asked) == 2
    assert step.sees(work, settings)["captioner"] != step.sees(work, replace_model(settings, "elsewhere"))["captioner"]


def replace_model(settings: Settings, model: str) -> Settings:
    return settings.model_copy(update={"model": model})
