"""The saves: chosen by one key, blind too; the choice is a pick like any other, and gives way when it is undone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from lorafactory import cli, step
from lorafactory.errors import InputError
from lorafactory.journal import BLIND
from lorafactory.review import acts, saves
from lorafactory.review.room import Room
from lorafactory.steps import pick
from lorafactory.store import Store
from tests.browsing import IN_BROWSER
from tests.picked_sets import three_saves, write_save, write_scores
from tests.review.asking import get, post
from tests.review.conftest import Served, room_at
from tests.review.sets import make_set
from tests.review.test_images_page import pressed

FILES = ("anna.safetensors", "anna.png", "anna.json", "txt2img-images/verdict.json")
in_browser = [IN_BROWSER[0], IN_BROWSER[1]]


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """These scores are made up, and not whole enough for a report, which takes seconds."""
    for module in ("review.book", "commands.undo"):
        monkeypatch.setattr(f"lorafactory.{module}.refresh", lambda work, **more: None)


@pytest.fixture
def compared(tmp_path: Path) -> Room:
    """A set, three saves, and a verdict that chose the second."""
    root = tmp_path / "ws"
    place = make_set(root, 3)
    work = three_saves(root)
    with Store(root / "lorafactory.db") as store:
        step.perform(pick, room_at(place).book("anna").work, pick.Settings(), store)
    assert work.place.root == place.root
    return room_at(place)


def published(room: Room) -> dict[str, bytes]:
    return {name: (room.first.root / name).read_bytes() for name in FILES}


def verdict(room: Room) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((room.first.comparison / "verdict.json").read_text(encoding="utf-8"))
    return found


def runs(room: Room) -> list[tuple[str, str]]:
    with Store(room.space.record, readonly=True) as store:
        return [(r.step, r.settings.get("said", "")) for r in store.runs("anna", limit=3)]


def test_a_choice_is_a_pick_and_undo_gives_back_the_one_before(lora, compared: Room) -> None:
    book, before = compared.book("anna"), published(compared)
    told = {c["label"]: c for c in saves.told(book.work)["columns"]}
    said = acts.choose(book, told["epoch 3"]["save"], told["epoch 3"]["sha256"])
    assert said.startswith("epoch 3, chosen by hand. The verdict: epoch 2")
    assert verdict(compared)["by_hand"] == {"saves": ["anna-000003.safetensors"], "agrees": False}
    third = published(compared)
    acts.choose(book, told["epoch 1"]["save"], told["epoch 1"]["sha256"])
    root = book.space.root
    assert (
        "a person's choice of a save is the verdict's too in 0 of 1 LoRAs"
        in lora("why", "anna", "--workspace", root).out
    )
    assert acts.undo(book)[0].startswith("took back pick of ")
    assert published(compared) == third
    said = lora("undo", "anna", "--list", "--workspace", root).out
    assert "pick      a save chosen by hand" in said
    assert lora("undo", "anna", "--workspace", root).code == 0
    assert published(compared) == before and verdict(compared)["by_hand"] is None
    assert lora("verify", "--workspace", root).code == 0
    assert "of 1 LoRAs" not in lora("why", "anna", "--workspace", root).out  # nobody's choice any more
    with book.held() as store:  # and the chain leaves it as it is
        assert step.perform(pick, book.work, pick.Settings(), store).skipped
    acts.choose(book, told["epoch 3"]["save"], told["epoch 3"]["sha256"])  # what was taken back may be chosen anew
    assert published(compared) == third


def test_where_nothing_was_chosen_before_nothing_is_after_undo(tmp_path: Path, lora) -> None:
    place = make_set(tmp_path / "ws", 3)
    three_saves(tmp_path / "ws")
    room = room_at(place)
    book = room.book("anna")
    told = saves.told(book.work)["columns"][1]
    acts.choose(book, told["save"], told["sha256"])
    (place.root / "anna.json").write_text("{}")  # mine now
    acts.undo(book)
    assert [(place.root / name).exists() for name in FILES] == [False, False, True, False]
    with book.held() as store:
        assert not step.perform(pick, book.work, pick.Settings(), store).skipped  # the verdict has its turn


def test_another_save_than_was_shown_is_not_chosen(compared: Room) -> None:
    book, before = compared.book("anna"), published(compared)
    told = saves.told(book.work)["columns"][3]
    write_save(book.place.result / told["save"], "other")
    write_scores(book.work, [0.5, 0.7, 0.69])
    with pytest.raises(InputError, match="is not what was shown"):
        acts.choose(book, told["save"], told["sha256"])
    assert published(compared) == before
    (book.place.comparison / "scores.json").unlink()
    assert saves.told(book.work)["next"] == "lora compare anna"
    assert post(compared, "/set/anna/choose", {"save": "x", "sha256": ""}).status == 422


def test_what_blind_mode_sends_does_not_say_which_save_it_is(compared: Room) -> None:
    said = post(compared, "/set/anna/blind", {"id": ""}).json
    seen = []
    while said["pair"]:
        assert set(said) == {"id", "number", "of", "pair", "prompt"}
        seen += [get(compared, f"/set/anna/blind/{said['id']}/{name}") for name in said["pair"]]
        for words in ("epoch", "safetensors", "cells", "label", "anna-0000"):
            assert words not in json.dumps(said) and not any(words in str(answer.headers) for answer in seen)
        said = post(compared, "/set/anna/blind", {"id": said["id"], "number": said["number"], "answer": "same"}).json
    assert [answer.status for answer in seen] == [200] * 6 and said["number"] == said["of"] == 3
    assert len({answer.headers["content-length"] for answer in seen}) >= 1
    assert not (compared.first.root / BLIND).exists()  # nothing is kept before the end
    assert get(compared, f"/set/anna/blind/{said['id']}/guessed").status == 422
    ended = post(compared, "/set/anna/blind", {"id": said["id"], "answer": "end"}).json
    assert ended["said"].startswith("blind: ") and len(ended["saves"]["blind"]["choices"]) == 3
    assert post(compared, "/set/anna/blind", {"id": said["id"], "answer": "end"}).status == 422


@pytest.mark.parametrize("mark", [None])
class TestInBrowser:
    pytestmark = in_browser

    def test_picked_with_one_key_and_undone(self, serve: Any, compared: Room, mark: None) -> None:
        served: Served = serve(compared.first)
        page = served.visit("saves").page
        before = published(compared)
        assert page.inner_text("#verdict h2") == "epoch 2"
        assert page.locator("th.current").inner_text().startswith("epoch 2")
        expect(page.locator(".shot img").first).not_to_have_js_property("naturalWidth", 0)
        page.keyboard.press("ArrowRight")
        page.keyboard.press("p")
        expect(page.locator("#verdict h2")).to_have_text("epoch 3, chosen by you")
        assert verdict(compared)["epoch"] == 3
        pressed(page, "u", "took back pick")
        expect(page.locator("#verdict h2")).to_have_text("epoch 2")
        assert published(compared) == before

    def test_chosen_blind_then_picked_and_all_of_it_undone(
        self, serve: Any, compared: Room, capfd: Any, mark: None
    ) -> None:
        served: Served = serve(compared.first)
        page, root = served.visit("saves").page, compared.first.root
        before = published(compared)
        page.keyboard.press("b")
        for number in (1, 2, 3):
            expect(page.locator("#far")).to_have_text(f"{number} of 3")
            for side in page.locator("#sides img").all():
                expect(side).not_to_have_js_property("naturalWidth", 0)
                assert "epoch" not in str(side.get_attribute("src")) and "anna-" not in str(side.get_attribute("src"))
            page.keyboard.press("ArrowRight" if redder(page) else "ArrowLeft")
        page.click("text=see the ranking")
        expect(page.locator(".ranking b").first).to_have_text("epoch 3")  # the reddest, as drawn
        assert page.locator(".ranking b").all_inner_texts() == ["epoch 3", "epoch 2", "epoch 1"]
        assert page.locator(".ranking .soft").first.inner_text().strip() == "preferred 2 of 2 times"
        kept = json.loads((root / BLIND).read_text(encoding="utf-8"))
        assert [row["label"] for row in kept["ranking"]] == ["epoch 3", "epoch 2", "epoch 1"]
        assert all(row["chosen"] in ("left", "right") for row in kept["choices"])
        page.keyboard.press("p")
        expect(page.locator("#verdict h2")).to_have_text("epoch 3, chosen by you")
        assert "Blind, you preferred" in page.inner_text("#blindly")
        capfd.readouterr()
        assert cli.run(["why", "anna", "--workspace", str(compared.space.root)]) == 0
        assert f"blind: {kept['words']}" in capfd.readouterr().out
        pressed(page, "u", "took back pick")
        pressed(page, "u", "took back review, blind: ")
        assert not (root / BLIND).exists() and published(compared) == before
        expect(page.locator("#blindly")).to_have_text("")

    def test_a_sitting_that_is_left_ranks_what_was_chosen(self, serve: Any, compared: Room, mark: None) -> None:
        served: Served = serve(compared.first)
        page = served.visit("saves").page
        page.keyboard.press("b")
        expect(page.locator("#far")).to_have_text("1 of 3")
        page.keyboard.press("Escape")
        expect(page.locator("#said")).to_have_text("nothing was chosen")
        page.keyboard.press("b")
        expect(page.locator("#blind")).to_be_visible()
        page.keyboard.press(" ")
        expect(page.locator("#far")).to_have_text("2 of 3")
        page.keyboard.press("Escape")
        expect(page.locator("#ranked")).to_be_visible()
        expect(page.locator("#ranked p").first).to_contain_text("By 1 choices")


def redder(page: Any) -> bool:
    """True if the right side is the later save's: cells of later epochs are drawn redder."""
    read = """() => [...document.querySelectorAll('#sides img')].map((img) => {
      const canvas = document.createElement('canvas');
      const pen = canvas.getContext('2d');
      pen.drawImage(img, 0, 0);
      return pen.getImageData(0, 0, 1, 1).data[0];
    })"""
    left, right = page.evaluate(read)
    return bool(right > left)


def test_a_page_without_a_comparison_says_what_to_type(room: Room) -> None:
    assert saves.told(room.book("anna").work) == {"columns": [], "next": "lora make anna", "blind": {}}
    assert post(room, "/set/anna/blind", {"id": ""}).status == 422
