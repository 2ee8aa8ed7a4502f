"""A page in headless Chromium, for the tests of pages."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
IN_BROWSER = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
    pytest.mark.xdist_group("browser"),
]
"""Marks of a module whose tests need a browser; one browser serves them all."""


class Visit:
    """A page, and all that it complained about or asked for."""

    def __init__(self, browser: Any, url: str, **more: Any) -> None:
        self.context = browser.new_context(**more)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(url)

    def texts(self, selector: str) -> list[str]:
        return [found.inner_text() for found in self.page.locator(f"{selector}:visible").all()]
