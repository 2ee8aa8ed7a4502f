"""Captions in the browser: mended by keyboard, phrases taken out by one key, replaced over a selection, never lost."""

from __future__ import annotations

from playwright.sync_api import Route, expect

from lorafactory import cli
from lorafactory.store import Store
from tests.browsing import IN_BROWSER
from tests.review.conftest import Served
from tests.review.sets import folder_of, standing
from tests.review.test_images_page import pressed, space_of

pytestmark = IN_BROWSER
ROWS = ".captions li"


def test_a_caption_is_mended_in_place_saved_as_typed_and_comes_back(served: Served, capfd) -> None:
    seen = served.visit("captions")
    page, place = seen.page, served.place
    before = standing(place)
    expect(page.locator(f"{ROWS}.current .prefix")).to_have_text("4nna, ")
    expect(page.locator(f"{ROWS}.current .tokens")).to_contain_text("of 75 tokens")
    page.keyboard.press("Enter")
    assert page.input_value("textarea") == "a woman with a hat and holding a cup, number 1"
    page.keyboard.type(",  laughing  ")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("a second line")
    expect(page.locator(f"{ROWS}.current .tokens")).not_to_have_text("")
    page.keyboard.press("Enter")
    expect(page.locator("#said")).to_have_text("caption of 0001.png")
    assert page.input_value("textarea") == "a woman with a hat and holding a cup, number 2"  # on to the next
    text = "4nna, a woman with a hat and holding a cup, number 1,  laughing  \na second line\n"
    assert (folder_of(place) / "0001.txt").read_text(encoding="utf-8") == text
    page.keyboard.type("!")
    page.keyboard.press("Escape")  # as it was
    assert (folder_of(place) / "0002.txt").read_bytes() == before["training_images/2_4nna/0002.txt"]
    capfd.readouterr()
    assert cli.run(["why", "anna/0001.png", "--workspace", space_of(place)]) == 0
    assert "review    caption changed  by hand" in capfd.readouterr().out
    page.keyboard.press("ArrowUp")
    page.keyboard.press("h")
    expect(page.locator("#history li")).to_have_count(2)
    page.click("#history >> text=take this")  # the text before
    expect(page.locator(f"{ROWS}.current .body")).not_to_contain_text("laughing")
    pressed(page, "u", "took back review, caption of 0001.png")
    expect(page.locator(f"{ROWS}.current .body")).to_contain_text("laughing")
    pressed(page, "u", "took back review, caption of 0001.png")
    expect(page.locator(f"{ROWS}.current .body")).not_to_contain_text("laughing")
    assert standing(place) == before


def test_the_prefix_is_text_once_somebody_wants_it_so(served: Served) -> None:
    page = served.visit("captions").page
    page.keyboard.press("Enter")
    page.keyboard.press("Home")
    page.keyboard.press("Backspace")
    assert page.input_value("textarea").startswith("4nna, a woman")
    for _ in range(6):
        page.keyboard.press("Backspace")
    page.keyboard.press("Enter")
    expect(page.locator("#said")).to_have_text("caption of 0001.png")
    text = "a woman with a hat and holding a cup, number 1\n"
    assert (folder_of(served.place) / "0001.txt").read_text(encoding="utf-8") == text


def test_a_flagged_phrase_shows_its_score_and_leaves_by_one_key(served: Served) -> None:
    page = served.visit("captions").page
    page.click("#filters >> text=flagged 1")
    expect(page.locator("mark")).to_have_text("and holding a cup1")
    assert page.inner_text(".phrases button").split("\n")[-1].endswith("and holding a cup percentile 12 ×")
    page.keyboard.press("Escape")
    page.locator(ROWS).first.focus()
    pressed(page, "1", '"and holding a cup" out of 0001.png')
    expect(page.locator(ROWS)).to_have_count(0)
    assert (folder_of(served.place) / "0001.txt").read_text(encoding="utf-8") == "4nna, a woman with a hat, number 1\n"
    pressed(page, "u", "took back")
    expect(page.locator("mark")).to_have_count(1)


def test_find_and_replace_over_what_is_selected_with_a_preview(served: Served) -> None:
    page, place = served.visit("captions").page, served.place
    before = standing(place)
    page.keyboard.press(" ")
    page.keyboard.press("ArrowDown")
    page.keyboard.press(" ")
    expect(page.locator("#count")).to_have_text("2 selected")
    page.keyboard.press("f")
    page.keyboard.type("A hat")
    page.keyboard.press("Tab")
    page.keyboard.type("a red scarf")
    page.keyboard.press("Enter")
    expect(page.locator("#preview h2")).to_have_text("2 of 2 captions change")
    assert page.locator("#preview del").first.inner_text() == "4nna, a woman with a hat and holding a cup, number 1"
    assert standing(place) == before  # only shown so far
    page.click("#preview >> text=replace >> nth=-1")
    expect(page.locator("#said")).to_have_text('"A hat" replaced by "a red scarf" in 2 captions')
    texts = [(folder_of(place) / f"000{i}.txt").read_text(encoding="utf-8") for i in (1, 2, 3)]
    assert [("a red scarf" in text, text.startswith("4nna, ")) for text in texts] == [(1, 1), (1, 1), (0, 1)]
    page.locator(ROWS).first.focus()
    pressed(page, "u", "took back review")  # both were one act
    assert standing(place) == before


def test_tags_are_counted_choose_pictures_and_leave_together(served: Served) -> None:
    page, place = served.visit("captions").page, served.place
    page.click("#tagging summary")
    expect(page.locator("#tags li").first).to_contain_text("a woman with a hat and holding a cup 14")
    page.click('#tags >> text="number 3"')
    expect(page.locator(ROWS)).to_have_count(1)
    page.click('[aria-label="take number 3 out"]')
    page.click("#preview [data-do]")
    expect(page.locator("#said")).to_have_text('"number 3" out of 1 captions')
    text = "4nna, a woman with a hat and holding a cup\n"
    assert (folder_of(place) / "0003.txt").read_text(encoding="utf-8") == text


def test_a_caption_changed_on_disk_meanwhile_is_shown_and_not_written_over(served: Served) -> None:
    seen = served.visit("captions")
    page, path = seen.page, folder_of(served.place) / "0001.txt"
    page.keyboard.press("Enter")
    page.keyboard.type(", mine")
    path.write_text("4nna, theirs\n", encoding="utf-8")
    expect(page.locator(".conflict .theirs")).to_have_text("4nna, theirs")  # told before anything is saved
    page.keyboard.press("Enter")
    assert path.read_text(encoding="utf-8") == "4nna, theirs\n"
    page.click("[data-take]")
    expect(page.locator(f"{ROWS}.current .body")).to_have_text("4nna, theirs")
    page.keyboard.press("Enter")
    page.keyboard.type(", mine again")
    page.route("**/events", lambda route: route.abort())
    path.write_text("4nna, theirs again\n", encoding="utf-8")
    expect(page.locator(".conflict .theirs")).to_have_text("4nna, theirs again")
    page.click("[data-mine]")
    expect(page.locator("#said")).to_have_text("caption of 0001.png")
    assert path.read_text(encoding="utf-8") == "4nna, theirs, mine again\n"
    with Store(served.room.space.record, readonly=True) as store:
        told = [(d.step, d.rule, d.before, d.after) for d in store.decisions(lora="anna", image="0001.png")][-2:]
    assert told == [  # nothing is lost: what stood there is in the record
        ("by hand", "by hand", None, "4nna, theirs again"),
        ("review", "by hand", "4nna, theirs again", "4nna, theirs, mine again"),
    ]
    page.locator(ROWS).first.focus()
    pressed(page, "u", "took back")
    assert path.read_text(encoding="utf-8") == "4nna, theirs again\n"


def test_what_changed_after_the_page_was_read_and_before_it_was_watched_is_seen(served: Served) -> None:
    page, path = served.visit("captions").page, folder_of(served.place) / "0001.txt"

    def meanwhile(route: Route) -> None:
        path.write_text("4nna, theirs\n", encoding="utf-8")
        route.continue_()

    page.route("**/events", meanwhile, times=1)
    page.reload()
    expect(page.locator(f"{ROWS} .body").first).to_have_text("4nna, theirs")


def test_a_save_of_what_changed_unseen_is_refused(served: Served) -> None:
    seen = served.visit("captions")
    page, path = seen.page, folder_of(served.place) / "0001.txt"
    page.route("**/events", lambda route: route.abort())
    page.reload()
    page.wait_for_selector(f"{ROWS}.current")
    page.keyboard.press("Enter")
    page.keyboard.type(", mine")
    path.write_text("4nna, theirs\n", encoding="utf-8")
    page.keyboard.press("Enter")
    expect(page.locator("#said")).to_contain_text("changed on disk since it was shown: 0001.png")
    expect(page.locator(".conflict .theirs")).to_have_text("4nna, theirs")
    assert path.read_text(encoding="utf-8") == "4nna, theirs\n"
    assert page.input_value("textarea").endswith(", mine")  # what was typed is there still
    seen.said.clear()  # of the connection that was cut, and of the refusal


def test_what_training_does_not_read_is_told_while_typing(served: Served) -> None:
    page = served.visit("captions").page
    page.keyboard.press("Enter")
    page.keyboard.type(", and" + " a very long tail" * 20)
    expect(page.locator(f"{ROWS}.current .tokens")).to_contain_text("not read:")
    page.keyboard.press("Enter")
    expect(page.locator("#filters >> text=too long 1")).to_be_visible()
