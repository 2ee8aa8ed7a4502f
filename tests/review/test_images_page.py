"""The grid as a person meets it: culled by keyboard, undone, proposals answered, cropped; all of it in the record."""

from __future__ import annotations

import shutil
from typing import Any

from playwright.sync_api import expect

from lorafactory import cli, crops, images
from lorafactory.store import Store
from lorafactory.workspace import LoraDir
from tests.browsing import IN_BROWSER
from tests.review.conftest import Served
from tests.review.sets import folder_of, noise, standing

pytestmark = IN_BROWSER


def pressed(page: Any, key: str, said: str) -> None:
    """Press a key, and wait for what comes of it."""
    page.keyboard.press(key)
    expect(page.locator("#said")).to_contain_text(said)


def names(page: Any) -> list[str]:
    return page.locator(".cell .name").all_inner_texts()


def space_of(place: LoraDir) -> str:
    return str(place.root.parent.parent)


def test_ten_are_culled_by_keyboard_told_by_why_and_taken_back(served: Served, capfd) -> None:
    page, place = served.visit().page, served.place
    before = standing(place)
    assert names(page) == [f"{i:04}.png" for i in range(1, 15)]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")  # seven in a row at this width
    out = []
    for key in ["x", "Delete"] * 5:
        current = page.inner_text(".cell.current .name")
        pressed(page, key, f"set aside {current}: unwanted")
        out.append(current)
    assert len(set(out)) == 10 and names(page) == sorted({f"{i:04}.png" for i in range(1, 15)} - set(out))
    aside = place.root / "set_aside" / "unwanted"
    assert {p.name for p in aside.glob("*.png")} == set(out) and len(list(aside.glob("*.txt"))) == 10
    capfd.readouterr()
    assert cli.run(["why", "anna", "--workspace", space_of(place)]) == 0
    told = capfd.readouterr().out
    assert "10 acts  10 set aside" in told and "not in the set: 10" in told
    assert cli.run(["why", f"anna/{out[0]}", "--workspace", space_of(place)]) == 0
    assert "review    set aside  by hand, unwanted" in capfd.readouterr().out
    for name in reversed(out[2:]):
        pressed(page, "u", f"took back review, set aside {name}: unwanted")
    for _ in range(2):  # and what the page did, the command takes back
        assert cli.run(["undo", "anna", "--workspace", space_of(place)]) == 0
    expect(page.locator(".cell")).to_have_count(14)  # noticed by itself
    assert standing(place) == before


def test_a_picture_is_seen_in_full_with_what_training_cuts_off(served: Served) -> None:
    page = served.visit().page
    page.keyboard.press("Enter")
    expect(page.locator("#whole")).not_to_have_js_property("naturalWidth", 0)
    assert page.inner_text("#view-name") == "0001.png"
    assert "144 × 128 · trained at 96 × 96, shrunk to 75 %, 11 % cut off" in page.inner_text("#facts")
    assert "a woman with a hat" in page.inner_text("#words")
    part, frame = (page.locator(at).bounding_box() for at in ("#part", "#frame"))
    assert abs(part["width"] / frame["width"] - 96 / 108) < 0.02 and abs(part["height"] - frame["height"]) < 3
    page.keyboard.press("t")
    assert not page.is_visible("#part")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#view-place") == "2 of 14"
    page.keyboard.press("Escape")
    expect(page.locator(".cell[data-key='0002.png']")).to_be_focused()


def test_duplicates_stand_side_by_side_and_proposals_are_answered(served: Served) -> None:
    page, place = served.visit().page, served.place
    page.click("text=duplicates 1")
    assert names(page) == ["0002.png"]
    page.locator(".cell").first.click()
    expect(page.locator("#rival img")).not_to_have_js_property("naturalWidth", 0)
    assert page.inner_text("#pair b") == "phash: 3 of 64 bits apart, 4 count as the same"
    assert page.inner_text("#pair span:last-child").startswith("0001.png stays, 144 × 128")
    pressed(page, "x", "set aside 0002.png: duplicate")
    assert (place.root / "set_aside" / "duplicate" / "0002.png").exists()
    pressed(page, "u", "took back")
    page.click("text=flagged")
    page.locator(".cell", has_text="0003.png").click()
    assert "blurred" in page.inner_text("#flags")
    pressed(page, "k", "keep 0003.png")
    with Store(served.room.space.record, readonly=True) as store:
        (kept,) = [d for d in store.decisions(lora="anna", image="0003.png") if d.step == "review"]
    assert (kept.verdict, kept.rule, kept.note) == ("stays", "by hand", "blurred")
    assert page.inner_text("#view-name") != "0003.png"  # the next one that is flagged
    pressed(page, "u", "took back review, keep 0003.png")
    page.keyboard.press("Escape")
    expect(page.locator(".cell", has_text="0003.png")).to_contain_text("blur")


def test_what_check_finds_comes_first(served: Served) -> None:
    images.save_png(noise(50, (600, 80)), folder_of(served.place) / "0020.png")
    page = served.visit().page
    page.wait_for_selector("#check:not([hidden])")
    page.click("text=flagged")
    expect(page.locator(".cell .name").first).to_have_text("0020.png")
    page.click("#check summary")
    assert "buckets 2 buckets, 1 with one picture: 0020.png (224x32)" in page.inner_text("#check")


def test_several_are_selected_set_aside_at_once_and_put_back(served: Served) -> None:
    page, place = served.visit().page, served.place
    before = standing(place)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    assert page.inner_text("#chosen span") == "3 selected"
    page.keyboard.press("r")
    page.keyboard.type("bad pose")
    page.keyboard.press("Enter")
    pressed(page, "x", "set aside 0002.png, 0003.png, 0004.png: bad pose")
    assert len(list((place.root / "set_aside" / "bad pose").iterdir())) == 6
    page.click("text=set aside 3")
    page.locator(".cell").first.click()
    pressed(page, "b", "put back 0002.png")
    assert (folder_of(place) / "0002.txt").exists()
    pressed(page, "u", "took back review, put back")
    page.keyboard.press("Escape")
    pressed(page, "u", "took back review, set aside")  # all three were one act
    assert standing(place) == before


def test_cropped_by_keyboard_and_by_pointer(served: Served) -> None:
    page, place = served.visit().page, served.place
    page.keyboard.press("c")
    page.wait_for_selector("#cropper:focus")
    for key in ["Shift+ArrowLeft"] * 44 + ["Shift+ArrowUp"] * 28 + ["ArrowRight"] * 10 + ["Alt+ArrowDown"] * 3:
        page.keyboard.press(key)
    expect(page.locator("#fitted")).to_contain_text("100 × 100: trained at 96 × 96")
    pressed(page, "Enter", "crop 0001.png")
    assert crops.read(place.root) == {"0001.png": (10, 3, 110, 103)}
    assert "cropped to 100 × 100" in page.inner_text("#facts")
    frame = page.locator("#frame").bounding_box()
    page.keyboard.press("c")
    page.select_option("#shape", "1")
    corner = page.locator("#cropper [data-edge=nw]").bounding_box()
    page.mouse.move(corner["x"] + 7, corner["y"] + 7)
    page.mouse.down()
    page.mouse.move(frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2, steps=4)
    page.mouse.up()
    page.click("text=keep crop")
    expect(page.locator("#facts")).not_to_contain_text("100 × 100")
    left, top, right, bottom = crops.read(place.root)["0001.png"]
    assert (right, bottom) == (110, 103) and right - left == bottom - top < 50
    expect(page.locator("#part")).to_be_visible()
    pressed(page, "u", "took back review, crop 0001.png")
    assert crops.read(place.root) == {"0001.png": (10, 3, 110, 103)}
    page.keyboard.press("c")
    page.click("text=no crop")
    expect(page.locator("#facts")).not_to_contain_text("cropped to")
    assert crops.read(place.root) == {}
    for _ in range(2):
        pressed(page, "u", "took back review, crop")
        page.evaluate("document.querySelector('#said').textContent = ''")
    assert not (place.root / "crops.toml").exists()


def test_a_folder_changed_under_the_page_is_noticed(served: Served) -> None:
    page, folder = served.visit().page, folder_of(served.place)
    for thumb in page.locator(".cell img").all():
        expect(thumb).not_to_have_js_property("naturalWidth", 0)
    (folder / "0001.png").unlink()
    images.save_png(noise(99), folder / "0099.png")
    shutil.copy(folder / "0005.png", folder / "0006.png")
    expect(page.locator(".cell")).to_have_count(14)
    page.wait_for_selector(".cell >> text=0099.png")
    assert "0001.png" not in names(page)
    sha = images.sha256(folder / "0006.png")
    page.wait_for_selector(f'.cell[data-key="0006.png"] img[src$="{sha}"]')
    images.save_png(noise(98), folder / "0098.png")  # by now it is watched, so that the page can say what changed
    expect(page.locator("#said")).to_contain_text("changed on disk: 0098.png")


def test_what_was_replaced_since_it_was_shown_is_not_set_aside(served: Served) -> None:
    page, folder = served.visit().page, folder_of(served.place)
    page.route("**/events", lambda route: route.abort())  # nobody tells the page
    page.reload()
    page.wait_for_selector(".cell")
    images.save_png(noise(77), folder / "0001.png")
    pressed(page, "x", "changed on disk since it was shown: 0001.png")
    assert images.load(folder / "0001.png").tobytes() == noise(77).tobytes()
    sha = images.sha256(folder / "0001.png")
    page.wait_for_selector(f'.cell[data-key="0001.png"] img[src$="{sha}"]')  # and it is shown as it is now
    pressed(page, "x", "set aside 0001.png")
    served.visits[0].said.clear()  # of the connection that was cut, and of the refusal
