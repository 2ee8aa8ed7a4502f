"""What all parts share: as wide as a phone, readable by day and night, reached by keyboard, named for who listens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from lorafactory.review import app
from tests.browsing import IN_BROWSER
from tests.review.conftest import Served

HERE = Path(app.__file__).parent
PAIRS = (
    *((text, "paper") for text in ("ink", "soft", "warn", "good", "accent")),
    *((text, "raised") for text in ("ink", "soft", "warn")),
)
"""Text, and what it stands on."""


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_is_readable_by_day_and_by_night() -> None:
    """WCAG 2.2, 1.4.3: 4.5 to 1."""
    style = (HERE.parent / "pages.css").read_text(encoding="utf-8")
    parts = style.split("prefers-color-scheme: dark")[:2]
    day, night = (dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", part)) for part in parts)
    for colours in (day, night):
        for text, ground in PAIRS:
            light, dark = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)


def test_nothing_is_loaded_from_anywhere_else() -> None:
    for path in (*(HERE / "static").iterdir(), *(HERE / "templates").iterdir()):
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"https?://[^\s\"'`]+", text)) <= {"http://www.w3.org/2000/svg"}, path
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(| on\w+=\"", text), path


@pytest.mark.parametrize("scheme", ["light", "dark"])
class TestInBrowser:
    pytestmark = IN_BROWSER

    def test_every_part_fits_a_phone_and_everything_in_it_has_a_name(self, served: Served, scheme: str) -> None:
        phone = {"width": 390, "height": 844}
        seen = served.visit(viewport=phone, color_scheme=scheme, is_mobile=True, has_touch=True)
        page = seen.page
        for part in ("images", "captions", "saves", "night"):
            page.click(f"nav >> text={part}")
            page.wait_for_selector(f"nav >> [aria-current] >> text={part}")
            assert page.evaluate("document.documentElement.scrollWidth") == 390, part
            assert nameless(page) == [], part
        page.click("nav >> text=images")
        page.locator(".cell").nth(1).tap()
        expect(page.locator("#view")).to_be_visible()
        assert page.evaluate("document.querySelector('#view').scrollWidth") == 390
        page.click("#view >> text=set aside")
        expect(page.locator("#said")).to_have_text("set aside 0002.png: duplicate")
        assert page.inner_text("#view-name") == "0003.png"
        page.click("#view >> text=undo")
        expect(page.locator("#said")).to_contain_text("took back review, set aside 0002.png")

    def test_by_keyboard_alone_every_part_is_reached(self, served: Served, scheme: str) -> None:
        page = served.visit(color_scheme=scheme).page
        page.keyboard.press("?")
        expect(page.locator("#keys")).to_be_visible()
        assert "set aside" in page.inner_text("#keys")
        page.keyboard.press("Escape")
        page.evaluate("document.querySelector('.skip').focus()")
        assert page.locator(".skip").bounding_box()["x"] > 0  # seen once it has the focus
        for part in ("images", "captions", "saves"):
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.textContent") == part
        with page.expect_navigation():
            page.keyboard.press("Enter")
        page.wait_for_selector("#empty:not([hidden])")
        assert page.inner_text("#empty code") == "lora make anna"


def nameless(page: Any) -> list[str]:
    """What can be used and has no name for a screen reader."""
    return list(
        page.evaluate("""() => [...document.querySelectorAll("button, input, select, textarea, a, dialog")]
      .filter((e) => !(e.textContent.trim() || e.getAttribute("aria-label") || e.labels?.length))
      .map((e) => e.outerHTML.slice(0, 90))""")
    )
