"""The local page, served on a socket made beforehand: the browser is another process, and this one opens nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lorafactory.review.book import Book
from lorafactory.review.room import Room
from lorafactory.review.server import address, listen, server
from lorafactory.workspace import LoraDir, Workspace
from tests.browsing import Visit
from tests.review.sets import make_set

READY = {"captions": ".captions li.current", "saves": "#cells th, #empty:not([hidden])", "night": "#night > *"}
"""What is there once a part has told all it knows."""


def room_at(place: LoraDir, *, apply: bool = True) -> Room:
    space = place.root.parent.parent if place.owned else place.root.parent / "workspace"
    return Room(Workspace(space, "test"), place, apply)


@pytest.fixture
def anna(tmp_path: Path) -> LoraDir:
    """A LoRA's set of fourteen pictures, judged and captioned."""
    return make_set(tmp_path / "workspace")


@pytest.fixture
def room(anna: LoraDir) -> Room:
    return room_at(anna)


@pytest.fixture
def book(room: Room) -> Book:
    return room.book("anna")


@dataclass
class Served:
    """A page that is there for a browser."""

    room: Room
    port: int
    browser: Any
    visits: list[Visit]

    @property
    def place(self) -> LoraDir:
        return self.room.first

    def visit(self, part: str = "images", **more: Any) -> Visit:
        """Open a part, as somebody who clicks the printed address and then the part."""
        found = Visit(
            self.browser,
            address(self.room, "127.0.0.1", self.port),
            **{"viewport": {"width": 1280, "height": 850}, **more},
        )
        self.visits.append(found)
        found.page.wait_for_url("**/images")
        found.page.wait_for_selector(".cell")
        if part != "images":
            found.page.click(f"nav >> text={part}")
            found.page.wait_for_selector(READY[part])
        return found

    def home(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def serve(browser: Any) -> Iterator[Callable[..., Served]]:
    """Serve a LoRA; at the end nothing was complained about, and nothing asked of anybody else."""
    running: list[tuple[Served, Any, threading.Thread]] = []

    def start(place: LoraDir, **more: Any) -> Served:
        room, made = room_at(place, **more), listen("127.0.0.1", 0, exactly=True)
        port = made.getsockname()[1]
        serving = server(room, "127.0.0.1", port)
        thread = threading.Thread(target=serving.run, kwargs={"sockets": [made]})
        thread.start()
        served = Served(room, port, browser, [])
        running.append((served, serving, thread))
        return served

    yield start
    for served, serving, thread in running:
        for seen in served.visits:
            seen.context.close()
        served.room.close()
        serving.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
        for seen in served.visits:
            assert seen.said == []
            assert [url for url in seen.asked if not url.startswith(served.home())] == []


@pytest.fixture
def served(serve: Callable[..., Served], anna: LoraDir) -> Served:
    return serve(anna)
