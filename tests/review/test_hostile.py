"""Whatever names and captions say is text; nothing of it runs, and nothing leads out of the folder."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from lorafactory import images
from lorafactory.daemon import rows
from lorafactory.review.room import Room
from lorafactory.store import Store
from lorafactory.workspace import LoraDir
from tests.browsing import IN_BROWSER
from tests.review.asking import get, post
from tests.review.conftest import Served
from tests.review.sets import folder_of, make_set, noise

HOSTILE = "</script><img src=x onerror=\"document.title='hit'\"><b>'{{7*7}}"
NAME = "<img src=x onerror=document.title='hit'> \" & ' é 日本"


@pytest.fixture
def place(tmp_path: Path) -> LoraDir:
    """A LoRA, a picture and captions that are called as somebody would who wants in."""
    made = make_set(tmp_path / "ws", 4, text=HOSTILE, name=NAME.replace("<", "_").replace(">", "_").replace('"', "_"))
    images.save_png(noise(9), folder_of(made) / f"{NAME.replace('/', '')}.png")
    (folder_of(made) / f"{NAME}.txt").write_text(HOSTILE, encoding="utf-8")
    with Store(made.root.parent.parent / "lorafactory.db") as store:
        rows.claim(store, "01HZZZZZZZZZZZZZZZZZZZZZZZ", NAME)
        rows.condemn(store, "01HZZZZZZZZZZZZZZZZZZZZZZZ", "no_images", f"{HOSTILE}\n{HOSTILE}.txt: {HOSTILE}")
    return made


@pytest.mark.xdist_group("browser")
@pytest.mark.skipif(IN_BROWSER[0].args[0], reason="no chromium here")
def test_everything_a_person_brings_is_text(serve: Any, place: LoraDir) -> None:
    served: Served = serve(place)
    seen = served.visit()
    page = seen.page
    assert NAME in "".join(page.locator(".cell .name").all_inner_texts())
    page.locator(".cell", has_text="0002.png").click()
    assert f"nearly the same as 0001.png{HOSTILE}" in page.inner_text("#view") or page.inner_text("#pair")
    assert HOSTILE in page.inner_text("#words")
    page.keyboard.press("Escape")
    page.click("nav >> text=captions")
    expect(page.locator(".captions li")).to_have_count(5)
    assert page.inner_text(".captions").count(HOSTILE) == 5
    page.keyboard.press("f")
    page.keyboard.type("hat")
    page.keyboard.press("Enter")
    expect(page.locator("#preview del").first).to_contain_text(HOSTILE)
    page.click("#preview [data-close]")
    page.click("nav >> text=night")
    expect(page.locator(".night article")).to_contain_text(NAME)
    page.click(".night summary")
    assert HOSTILE in page.inner_text(".night li")
    assert page.title() == f"{place.name} · night · lorafactory" and page.locator("img[src=x]").count() == 0


def test_names_in_the_page_itself_are_escaped(place: LoraDir) -> None:
    room = Room(_space(place), place, apply=True)
    told = get(room, f"/set/{place.name.replace('%', '%25')}/images").text
    assert html.escape(place.name, quote=False).replace("'", "&#39;") in told and "<img src" not in told


@pytest.mark.parametrize(
    "path",
    [
        "/set/anna/cell/../../lora.toml",
        "/set/anna/cell/%2e%2e/%2e%2e/lora.toml",
        "/set/anna/cell//etc/passwd",
        "/set/anna/sample/..%2f..%2flora.toml",
        "/set/anna/thumb/..%2f..%2f..%2florafactory.db",
        "/static/..%2fapp.py",
        "/static/../app.py",
        "/set/..%2f..%2f/set",
        "/set/%2e%2e/set",
    ],
)
def test_no_address_leads_to_another_file(room: Room, path: str) -> None:
    answer = get(room, path)
    assert answer.status in (404, 422) and b"trigger" not in answer.body and b"import" not in answer.body


def test_a_link_out_of_the_comparison_is_not_followed(room: Room, anna: LoraDir, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    anna.comparison.mkdir()
    (anna.comparison / "out.png").symlink_to(tmp_path / "secret.png")
    column = (
        '{"cells": [{"prompt": 0, "seed": 1, "file": "out.png"}, {"prompt": 0, "seed": 2, "file": "../lora.toml"}]}'
    )
    (anna.comparison / "scores.json").write_text(f'{{"version": 2, "columns": [{column}]}}', encoding="utf-8")
    assert b"secret" not in get(room, "/set/anna/cell/out.png").body
    assert b"trigger" not in get(room, "/set/anna/cell/../lora.toml").body


def test_names_that_are_not_there_change_nothing(room: Room, anna: LoraDir, tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("mine")
    for name in ("../../../outside.png", str(tmp_path / "outside.png"), "0001.txt", ""):
        answer = post(room, "/set/anna/write", {"captions": [{"name": name, "text": "", "caption": "theirs"}]})
        assert answer.status in (409, 422)
        answer = post(room, "/set/anna/aside", {"pictures": [{"name": name, "sha": "", "text": ""}], "reason": "x"})
        assert answer.status in (409, 422)
    assert outside.read_text() == "mine"
    reason = {"pictures": [_shown(room, "0001.png")], "reason": "../../x/<b>"}
    assert post(room, "/set/anna/aside", reason).status == 200
    assert [p.name for p in (anna.root / "set_aside").iterdir()] == ["__.._x__b_"]


def _shown(room: Room, name: str) -> dict[str, str]:
    told = next(p for p in get(room, "/set/anna/set").json["pictures"] if p["name"] == name)
    return {key: told[key] for key in ("name", "sha", "text")}


def _space(place: LoraDir) -> Any:
    from lorafactory.workspace import Workspace

    return Workspace(place.root.parent.parent, "test")
