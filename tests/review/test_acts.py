"""Acts on a set: recorded as what they changed, refused where files are others, taken back to the last byte."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from lorafactory import crops, dataset, images, journal, past, step, steps
from lorafactory.errors import InputError, PassingError, SettingsError
from lorafactory.past import remember
from lorafactory.review import acts
from lorafactory.review.acts import Conflict, Shown
from lorafactory.review.book import Book
from lorafactory.review.room import Room
from lorafactory.store import Store
from lorafactory.workspace import LoraDir, Workspace
from tests.review.sets import folder_of, noise, standing


def shown(book: Book, *names: str) -> list[Shown]:
    told = {p["name"]: p for p in [*book.told()["pictures"], *book.told()["aside"]]}
    return [Shown(name, told[name]["sha"], told[name]["text"]) for name in names]


def store_of(book: Book) -> Store:
    return Store(book.space.record)


def by_hand(book: Book) -> list[str]:
    """What a command that comes next sees as done by hand: nothing, if acts have told all of it."""
    with store_of(book) as store:
        return past.see_hand(book.work.set, book.place.recorded, store)


def rows(book: Book) -> int:
    with store_of(book) as store:
        return int(store.select("SELECT count(*) FROM edge")[0][0])


def test_acts_tell_only_what_they_changed_and_all_of_it(book: Book, anna: LoraDir) -> None:
    before = rows(book)
    acts.set_aside(book, shown(book, "0005.png", "0006.png"), "blurred")
    text = shown(book, "0007.png")[0].text
    acts.write_captions(book, {"0007.png": (text or "", "4nna, other words")}, "caption of 0007.png")
    acts.crop(book, shown(book, "0008.png")[0], None, (0, 0, 100, 100))
    acts.put_back(book, shown(book, "0005.png"))
    acts.keep(book, shown(book, "0003.png"))
    assert rows(book) - before < 15  # and not the whole set with each
    assert by_hand(book) == []
    (folder_of(anna) / "0009.png").unlink()
    (folder_of(anna) / "0010.txt").write_text("4nna, by another program\n", encoding="utf-8")
    crops.write(anna.root, {"0011.png": (0, 0, 64, 64)})
    assert by_hand(book) == [
        "0009.png: removed by hand", "0010.png: caption changed by hand", "crops.toml: changed by hand",
    ]  # fmt: skip
    assert by_hand(book) == []


def test_what_another_program_did_is_recorded_before_the_act(book: Book, anna: LoraDir) -> None:
    acts.keep(book, shown(book, "0003.png"))
    path = folder_of(anna) / "0001.txt"
    path.write_text("4nna, theirs\n", encoding="utf-8")
    with pytest.raises(Conflict, match=r"changed on disk since it was shown: 0001\.png"):
        acts.write_captions(book, {"0001.png": ("0" * 64, "4nna, mine")}, "x")
    assert path.read_text(encoding="utf-8") == "4nna, theirs\n"
    acts.write_captions(book, {"0001.png": (shown(book, "0001.png")[0].text or "", "4nna, mine")}, "x")
    with store_of(book) as store:
        told = [(d.step, d.after) for d in store.decisions(lora="anna", image="0001.png", verdict="caption changed")]
    assert told == [("by hand", "4nna, theirs"), ("review", "4nna, mine")]


def test_every_act_is_taken_back_to_the_last_byte_by_page_and_command(
    lora, book: Book, anna: LoraDir, space: Path
) -> None:
    (folder_of(anna) / "0004.txt").write_bytes(b"\xef\xbb\xbf4nna, with a mark\r\n\r\n")
    (folder_of(anna) / "0005.txt").unlink()
    steps_back = []
    for act in (
        lambda: acts.set_aside(book, shown(book, "0001.png", "0004.png"), "text"),
        lambda: acts.put_back(book, shown(book, "0004.png")),
        lambda: acts.write_captions(book, {"0004.png": (shown(book, "0004.png")[0].text or "", "x")}, "said"),
        lambda: acts.write_captions(book, {"0005.png": ("", "4nna, new")}, "said"),
        lambda: acts.crop(book, shown(book, "0004.png")[0], None, (0, 0, 100, 100)),
        lambda: acts.crop(book, shown(book, "0004.png")[0], (0, 0, 100, 100), (1, 1, 99, 99)),
        lambda: acts.crop(book, shown(book, "0004.png")[0], (1, 1, 99, 99), None),
        lambda: acts.keep(book, shown(book, "0002.png")),
    ):
        steps_back.append(standing(anna))
        act()
        assert by_hand(book) == []
    for number, before in enumerate(reversed(steps_back)):
        if number % 2:
            assert acts.undo(book)[0].startswith("took back review, ")
        else:
            assert lora("undo", "anna", "--workspace", book.space.root).code == 0
        assert standing(anna) == before
        assert by_hand(book) == []
    with pytest.raises(InputError, match="nothing was done here"):
        acts.undo(book)


def test_after_the_way_back_all_is_as_if_it_had_not_been(book: Book) -> None:
    acts.set_aside(book, shown(book, "0002.png"), "duplicate")
    acts.undo(book)
    acts.keep(book, shown(book, "0003.png"))
    acts.write_captions(book, {"0001.png": (shown(book, "0001.png")[0].text or "", "4nna, mine")}, "x")
    with store_of(book) as store:
        told = remember("anna", store)
        assert (told.stays("0003.png"), told.stays("0002.png"), told.hand_captions) == (True, False, {"0001.png"})
    assert [f["rule"] for f in flags(book, "0002.png")] == ["phash"] and flags(book, "0003.png") == []
    acts.undo(book)
    acts.undo(book)
    with store_of(book) as store:
        told = remember("anna", store)
        assert (told.stays("0003.png"), told.hand_captions, told.hand) == (False, frozenset(), {})
        assert told.captions["0001.png"][1] == "0" * 64  # a captioner's again
    assert [f["rule"] for f in flags(book, "0003.png")] == ["blur"]


def flags(book: Book, name: str) -> list[dict[str, object]]:
    return next(p["flags"] for p in book.told([name])["pictures"])


def test_what_stays_is_not_taken_out_by_a_strict_step(book: Book, anna: LoraDir) -> None:
    images.save_png(images.load(folder_of(anna) / "0001.png").resize((130, 116)), folder_of(anna) / "0002.png")
    module = steps.get("dedupe")
    settings = module.Settings(no_clip=True, act="strict")
    acts.keep(book, shown(book, "0002.png"))
    with book.held() as store:
        result = step.perform(module, book.work, settings, store, force=True)
    assert result.data["set_aside"] == [] and (folder_of(anna) / "0002.png").exists()


def test_undo_in_the_page_stops_at_what_a_command_did(book: Book, anna: LoraDir) -> None:
    acts.set_aside(book, shown(book, "0005.png"), "text")
    module = steps.get("caption")
    with book.held() as store:
        step.perform(module, book.work, module.Settings(text="x", overwrite=True), store)
    with pytest.raises(InputError, match="the last thing done was caption; lora undo anna takes it back"):
        acts.undo(book)


def test_a_picture_comes_back_to_its_folder_though_that_is_called_otherwise_by_now(book: Book, anna: LoraDir) -> None:
    acts.set_aside(book, shown(book, "0005.png"), "text")
    (anna.images / "1_another").mkdir()
    folder_of(anna).rename(anna.images / "9_4nna")
    assert acts.put_back(book, shown(book, "0005.png")) == "put back 0005.png"
    assert (anna.images / "9_4nna" / "0005.txt").exists()


def test_putting_back_is_undone_though_the_folder_it_came_from_is_gone(book: Book, anna: LoraDir) -> None:
    acts.set_aside(book, shown(book, "0005.png"), "text")
    acts.put_back(book, shown(book, "0005.png"))
    (anna.root / "set_aside" / "text").rmdir()
    acts.undo(book)
    assert (anna.root / "set_aside" / "text" / "0005.txt").exists()
    assert len(list(folder_of(anna).glob("*.png"))) == 13  # the set's folder stays where it is


def test_a_hundred_acts_in_a_row_are_one_line_of_why(lora, book: Book) -> None:
    text = shown(book, "0001.png")[0].text or ""
    for i in range(30):
        acts.write_captions(book, {"0001.png": (text, f"4nna, {i}")}, "caption of 0001.png")
        text = shown(book, "0001.png")[0].text or ""
    said = lora("why", "anna", "--workspace", book.space.root).out
    assert "30 acts  30 caption changed" in said and said.count(" review ") == 1 and " dedupe " in said


def test_only_shown_a_folder_is_left_as_it_is(anna: LoraDir, tmp_path: Path) -> None:
    foreign = tmp_path / "photos"
    folder_of(anna).rename(foreign)
    place = LoraDir("photos", foreign, owned=False)
    before = {p.name: p.read_bytes() for p in foreign.iterdir()}
    space = Workspace(tmp_path / "nowhere", "test")
    looking, room = Room(space, place, apply=False), Room(space, place, apply=True)
    book, acting = looking.book("photos"), room.book("photos")
    assert len(book.told()["pictures"]) == 14
    with pytest.raises(SettingsError, match=r"photos --apply` acts"):
        acts.set_aside(book, shown(book, "0001.png"), "x")
    assert not space.root.exists() and {p.name: p.read_bytes() for p in foreign.iterdir()} == before
    acts.set_aside(acting, shown(acting, "0001.png"), "x")
    assert (foreign / "set_aside" / "x" / "0001.txt").exists()
    acts.crop(acting, shown(acting, "0002.png")[0], None, (0, 0, 50, 50))
    assert by_hand(acting) == []
    for _ in range(2):
        acts.undo(acting)
    assert {p.name: p.read_bytes() for p in foreign.iterdir() if p.is_file()} == before
    looking.close()
    room.close()


def test_while_a_command_works_an_act_waits_for_nobody(book: Book) -> None:
    found: list[object] = []

    def act() -> None:
        try:
            acts.keep(book, shown(book, "0003.png"))
        except PassingError as error:
            found.append(error)

    with step.locked(book.place):
        thread = threading.Thread(target=act)
        thread.start()
        thread.join()
    assert "another command is working on anna" in str(found[0])


def test_acts_of_two_pages_come_one_after_the_other(book: Book, anna: LoraDir) -> None:
    def act(name: str) -> None:
        acts.set_aside(book, shown(book, name), "text")

    threads = [threading.Thread(target=act, args=(f"{i:04}.png",)) for i in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list((anna.root / "set_aside" / "text").glob("*.png"))) == 8
    assert by_hand(book) == []
    for _ in range(8):
        acts.undo(book)
    assert len(dataset.read_set(anna.root, anna.images).pictures) == 14


def test_a_crop_outside_or_of_another_shape_than_shown_is_refused(book: Book, anna: LoraDir) -> None:
    one = shown(book, "0001.png")[0]
    for box in ((0, 0, 145, 100), (-1, 0, 10, 10), (5, 5, 5, 10), (10, 0, 5, 10)):
        with pytest.raises(InputError, match="is no part of"):
            acts.crop(book, one, None, box)
    crops.write(anna.root, {"0001.png": (0, 0, 50, 50)})  # by hand, meanwhile
    with pytest.raises(Conflict):
        acts.crop(book, one, None, (0, 0, 60, 60))
    acts.crop(book, one, (0, 0, 50, 50), (0, 0, 144, 128))  # all of it is no crop
    assert crops.read(anna.root) == {}


def test_a_caption_that_is_no_text_is_not_written_over(book: Book, anna: LoraDir) -> None:
    (folder_of(anna) / "0001.txt").write_bytes(b"4nna, caf\xe9")
    with pytest.raises(InputError, match="not UTF-8"):
        acts.write_captions(book, {"0001.png": (shown(book, "0001.png")[0].text or "", "mine")}, "x")
    assert (folder_of(anna) / "0001.txt").read_bytes() == b"4nna, caf\xe9"
    told = next(p for p in book.told()["pictures"] if p["name"] == "0001.png")
    assert told["garbled"] and told["caption"] == "4nna, caf\\xe9"


def test_names_that_two_folders_share_are_told_apart(book: Book, anna: LoraDir) -> None:
    other = anna.images / "3_b0b"
    other.mkdir()
    images.save_png(noise(70), other / "0001.png")
    names = [p["name"] for p in book.told()["pictures"]]
    assert {"4nna/0001.png", "b0b/0001.png", "0002.png"} <= set(names)
    acts.set_aside(book, shown(book, "b0b/0001.png"), "text")
    assert by_hand(book) == []
    acts.crop(book, shown(book, "4nna/0001.png")[0], None, (0, 0, 50, 50))
    assert crops.read(anna.root) == {"4nna/0001.png": (0, 0, 50, 50)}
    acts.undo(book)
    acts.undo(book)
    assert (other / "0001.png").exists() and by_hand(book) == []


def test_a_deed_that_breaks_off_has_told_what_it_did(
    book: Book, anna: LoraDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    move, done = dataset.set_aside, []

    def break_off(*args: object) -> Path:
        if done:
            raise OSError("no room")
        done.append(1)
        return move(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(acts.dataset, "set_aside", break_off)
    asked = shown(book, "0001.png", "0002.png")
    with pytest.raises(OSError, match="no room"):
        acts.set_aside(book, asked, "text")
    assert (anna.root / "set_aside" / "text" / "0001.png").exists()
    assert by_hand(book) == []
    with store_of(book) as store:
        row = store.runs("anna", limit=1)[0]
        assert (row.step, row.status) == ("review", "failed")
        assert [c.before for c in store.changes(row.id)] == [
            "training_images/2_4nna/0001.png", "training_images/2_4nna/0001.txt",
        ]  # fmt: skip
    assert journal.is_text("crops.toml")
