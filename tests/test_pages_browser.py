"""The pages as a person meets them: opened from disk in Chromium, by keyboard too, with nothing else to be had."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lorafactory import report, settings
from lorafactory.index import write_index
from lorafactory.step import Work
from lorafactory.store import Store
from lorafactory.workspace import Workspace
from tests.browsing import IN_BROWSER, Visit
from tests.compared import make_lora

HOSTILE = "</script><img src=x onerror=\"document.title='hit'\"><script>document.title='hit'</script>"
SAVES = ["epoch 1", "epoch 2", "epoch 3", "epoch 4"]
pytestmark = IN_BROWSER


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with a LoRA of 504 cells of noise, its report and the index."""
    space = Workspace(tmp_path_factory.mktemp("pages") / "ws", "test")
    place = make_lora(space.root, text=HOSTILE, prompts=7, saves=4, seeds=4)
    with Store(space.record, readonly=True) as store:
        report.write_report(Work(space, place, settings.effective(space, place)), store)
    write_index(space)
    return space


@pytest.fixture
def visit(browser: Any, written: Workspace) -> Iterator[Visit]:
    """The report, which must leave no trace of a complaint."""
    seen = Visit(browser, written.lora("anna").report.as_uri(), viewport={"width": 1280, "height": 900})
    yield seen
    assert seen.said == []
    assert [url for url in seen.asked if not url.startswith("data:image/")] == [written.lora("anna").report.as_uri()]
    assert "hit" not in seen.page.title()
    seen.context.close()


def heads(visit: Visit) -> list[str]:
    return visit.texts("#grid thead b")


def test_it_is_small_enough_and_shows_what_files_bring_as_text(visit: Visit, written: Workspace) -> None:
    assert written.lora("anna").report.stat().st_size < 20_000_000
    assert visit.page.locator("#grid img").count() == 504 - 2 * 2 * 7  # the last seed of the first save was not drawn
    assert all(visit.page.evaluate("[...document.images].filter(i => i.src).map(i => i.naturalWidth > 0)"))
    text = visit.page.inner_text("body")
    assert f"4nna, a caption{HOSTILE} 0" in text and f"The best{HOSTILE}" in text and f"soft{HOSTILE}" in text
    assert visit.page.locator("script").count() == 2


def test_the_axes_are_chosen_and_values_hidden(visit: Visit) -> None:
    page = visit.page
    assert heads(visit) == ["baseline", *SAVES]
    assert visit.texts("#grid tr[data-seed] > th") == ["1"] * 7
    page.select_option("[name=across]", "strength")
    assert heads(visit) == ["baseline", "epoch 3", "epoch 3"]  # the chosen save at 0.8 and 1
    page.select_option("[name=across]", "base")
    assert heads(visit) == ["baseline", "epoch 3"] * 2  # each base with its own baseline
    page.select_option("[name=down]", "seed")
    assert visit.texts("#grid tr[data-seed] > th") == ["1", "2", "3", "4"]
    page.select_option("[name=prompt]", "6")
    assert visit.texts("#grid .prompt div")[0].startswith("4nna, scene 6")
    page.select_option("[name=down]", "prompt seed")
    assert len(visit.texts("#grid tr[data-seed] > th")) == 28
    page.select_option("[name=across]", "save")
    page.click("#axes summary")
    page.uncheck("[name=show-save][value='epoch 2']")
    page.uncheck("[name=show-prompt][value='0']")
    assert heads(visit) == ["baseline", "epoch 1", "epoch 3", "epoch 4"]
    assert len(visit.texts("#grid tr[data-seed] > th")) == 24


def test_a_cell_is_opened_by_keyboard(visit: Visit) -> None:
    page = visit.page
    page.locator("#grid .cell:visible").first.focus()
    page.keyboard.press("Enter")
    assert visit.texts("#viewer-title") == ["without the LoRA"]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert visit.texts("#viewer-title") == ["epoch 3"]
    facts = visit.texts("#viewer dd")
    assert facts[:3] == [f"4nna, scene 1{HOSTILE}", "1", "anna-000003.safetensors"]
    assert visit.texts("#viewer-near figcaption")[0].startswith("nearest training picture, 0004.png, mirrored: 0.90")
    same = "document.querySelector('#viewer-near img').src === document.querySelector('#picture-3').src"
    assert page.evaluate(same)
    assert "txt2img-images/cells/" in page.get_attribute("#viewer figcaption a", "href")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Escape")
    assert not page.locator("#viewer").is_visible()
    assert page.evaluate("document.activeElement.dataset.cell") == "4.1.1"  # epoch 2 at 1, second prompt, first seed
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")  # no further than the first row
    assert visit.texts("#viewer dd")[0] == f"4nna, scene 0{HOSTILE}"


def test_a_cell_that_was_not_drawn_says_what_draws_it(visit: Visit) -> None:
    page = visit.page
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.select_option("[name=seed]", "4")
    page.locator(".undrawn:visible").first.click()
    assert visit.texts("#viewer-undrawn code") == [f"lora compare anna --full{HOSTILE}"]
    assert visit.texts("#viewer-drawn") == []
    page.click("#viewer-undrawn button")
    page.wait_for_selector("#viewer-undrawn button[data-said]")
    assert page.evaluate("navigator.clipboard.readText()") == f"lora compare anna --full{HOSTILE}"
    page.click("#viewer [data-close]")
    assert not page.locator("#viewer").is_visible()


def test_every_column_is_in_the_window_or_can_be_scrolled_to(browser: Any, tmp_path: Path) -> None:
    space = Workspace(tmp_path, "test")
    place = make_lora(space.root, saves=6, strengths=(1.0,), bases=("pony",), prompts=1, seeds=1)
    with Store(space.record, readonly=True) as store:
        report.write_report(Work(space, place, settings.effective(space, place)), store)
    seen = Visit(browser, place.report.as_uri(), viewport={"width": 1600, "height": 3000})
    page, last = seen.page, seen.page.locator("#grid thead th:visible").last
    ends = "document.querySelector('#grid thead th:last-child').getBoundingClientRect().right"
    reached = """([x, y]) => Boolean(document.elementFromPoint(x, y).closest("#grid th:last-child"))"""
    for width in (1600, 1200, 1100, 500):
        page.set_viewport_size({"width": width, "height": 3000})
        page.evaluate("document.querySelector('.bleed').scrollLeft = 9999")
        box = last.bounding_box()
        assert page.evaluate(ends) <= width
        assert page.evaluate("document.querySelector('.bleed').scrollLeft") == 0 or width == 500
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate(reached, [box["x"] + box["width"] - 9, box["y"] + box["height"] / 2])  # and not cut off
    assert seen.said == []
    seen.context.close()


def test_it_is_as_wide_as_a_phone_and_dark_at_night(browser: Any, written: Workspace) -> None:
    seen = Visit(
        browser,
        written.lora("anna").report.as_uri(),
        viewport={"width": 390, "height": 844},
        color_scheme="dark",
        is_mobile=True,
    )
    assert seen.page.evaluate("document.documentElement.scrollWidth") == 390
    assert seen.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 22, 19)"
    assert seen.page.locator(".chart").first.evaluate("e => e.currentSrc !== e.src")  # the drawing for the night
    assert seen.said == []
    seen.context.close()


def test_without_scripts_every_cell_is_there(browser: Any, written: Workspace) -> None:
    seen = Visit(browser, written.lora("anna").report.as_uri(), java_script_enabled=False)
    assert len(seen.page.locator("#grid .cell:visible").all()) == 504
    assert not seen.page.locator("#axes").is_visible()
    seen.context.close()


def test_the_index_shows_its_pictures_and_leads_to_the_report(browser: Any, written: Workspace) -> None:
    seen = Visit(browser, (written.root / "index.html").as_uri())
    picture = seen.page.locator("img")  # exactly one, or the next line fails; it loads when it is scrolled to
    picture.evaluate("i => i.complete || new Promise(done => { i.onload = i.onerror = done; })")
    assert picture.evaluate("i => i.naturalWidth") > 0
    assert f"epoch 3: the best{HOSTILE}" in seen.page.inner_text("body")
    seen.page.click("text=report")
    assert seen.page.title().startswith("anna")
    assert seen.said == [] and "hit" not in seen.page.title()
    seen.context.close()
