"""Captions: what is missing, what the base does not read, what all of them say."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorafactory.dataset import Picture
from lorafactory.families._vocabulary import tokenizer, tokenizer_of
from lorafactory.pocket import MODELS
from lorafactory.setcheck import texts
from lorafactory.setcheck.texts import cut_words, phrases
from lorafactory.training.settings import TrainSettings

S = TrainSettings()


def captioned(folder: Path, *captions: str | bytes | None) -> list[Picture]:
    pictures = [Picture(folder / f"{i}.png") for i in range(len(captions))]
    for picture, text in zip(pictures, captions, strict=True):
        if text is not None:
            picture.caption_path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return pictures


def rows(pictures: list[Picture], trigger: str = "4nna", s: TrainSettings = S) -> dict[str, texts.Finding]:
    return {row.what: row for row in texts.findings(pictures, trigger, "woman", MODELS / "base", s)}


def test_missing_empty_and_unreadable_captions_are_all_said(tmp_path: Path):
    row = rows(captioned(tmp_path, "4nna, a hat", None, "  ", "4nna, größer".encode("latin-1")))["captions"]
    assert row.verdict == "note"
    for told in ("1 not UTF-8 (3.png)", "1 missing (1.png)", "1 empty (2.png)"):
        assert told in row.value
    assert row.pictures == ("3.png", "1.png", "2.png")


def test_a_set_without_captions_is_one_note(tmp_path: Path):
    found = rows(captioned(tmp_path, None, None))
    assert [row.verdict for row in found.values()] == ["note"]


def test_good_captions_are_ok(tmp_path: Path):
    found = rows(captioned(tmp_path, "4nna, a hat", "\ufeff4nna, a dog on grass", "4NNA at the sea"))
    assert {row.verdict for row in found.values()} == {"ok"}


def test_the_words_that_are_cut_are_those_beyond_75_tokens(tmp_path: Path):
    reader = tokenizer()
    fits = " ".join(["cat"] * 75)
    assert cut_words(fits, reader, 75) == ""
    assert cut_words(f"{fits} black dog", reader, 75) == "black dog"
    # a word that is cut in its middle counts as cut
    assert cut_words(" ".join(["cat"] * 74) + " photosynthesizing", reader, 75) == "photosynthesizing"
    row = rows(captioned(tmp_path, f"4nna {fits} dog"))["caption length"]
    assert row.verdict == "note"
    assert row.pictures == ("0.png",)


def test_it_is_the_bases_own_tokenizer_that_counts():
    """The pocket's knows few words and so takes more tokens for an unknown one."""
    word = "photographer"
    own, clip = (len(t(word, add_special_tokens=False).input_ids) for t in (tokenizer_of(MODELS / "base"), tokenizer()))
    assert own > clip == 1
    line = " ".join([word] * 75)
    assert cut_words(line, tokenizer(), 75) == ""
    assert cut_words(line, tokenizer_of(MODELS / "base"), 75) != ""


def test_longer_windows_prefix_and_lines_count(tmp_path: Path):
    long = captioned(tmp_path, "4nna " + " ".join(["a"] * 80))
    assert rows(long)["caption length"].verdict == "note"
    assert rows(long, s=TrainSettings(max_tokens=150))["caption length"].verdict == "ok"
    short = captioned(tmp_path, "4nna " + " ".join(["a"] * 70))
    assert rows(short)["caption length"].verdict == "ok"
    dressed = rows(short, s=TrainSettings(caption_suffix="a photo of a very large house"))["caption length"]
    assert dressed.verdict == "note"
    lines = captioned(tmp_path, "4nna, a hat\nand a dog")
    assert 'loses "and a dog"' in rows(lines)["caption length"].value


def test_the_trigger_is_a_word_of_its_own(tmp_path: Path):
    pictures = captioned(tmp_path, "4nna, a hat", "a dog", "4nnabelle on a chair")
    assert rows(pictures)["trigger"].pictures == ("1.png", "2.png")
    assert rows(pictures, trigger="")["trigger"].verdict == "ok"


def test_a_phrase_in_most_captions_is_told_whole_and_once(tmp_path: Path):
    said = ["a hat", "a red car", "the sea", "her dog", "two trees"]
    captions = [f"4nna, a woman with a microphone in the hand and {thing}" for thing in said]
    assert phrases(captions, {"4nna", "woman"}) == [("microphone in the hand", 5)]
    row = rows(captioned(tmp_path, *captions))["same phrase"]
    assert row.verdict == "note"
    assert '"microphone in the hand" in 5 of 5' in row.value


@pytest.mark.parametrize("count", [2, 3])
def test_most_means_three_in_five(count: int):
    captions = ["4nna, smile, hat", "4nna, smile, sea", "4nna, tree", "4nna, car", "4nna, dog"]
    captions = [c + ", smile" if i == 2 and count == 3 else c for i, c in enumerate(captions)]
    assert phrases(captions, {"4nna"}) == ([("smile", 3)] if count == 3 else [])


def test_few_captions_and_words_that_say_nothing_are_left_alone():
    assert phrases(["4nna, a red hat"] * 4, {"4nna"}) == []
    assert phrases(["in the", "in the", "in the", "in the", "in the"], set()) == []
    assert phrases(["4nna, a woman"] * 6, {"4nna", "woman"}) == []


def test_one_caption_for_all_is_a_phrase_too():
    assert phrases(["4nna, a photo"] * 6, {"4nna", "woman"}) == [("photo", 6)]
