"""Who is answered: whoever has the token, from this server's own page, at this machine's own name; nobody else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lorafactory.review.guard import LARGEST, SEALS, WORD, Guard, Keys, is_loopback
from lorafactory.review.room import Room
from lorafactory.workspace import LoraDir, Workspace
from tests.review.asking import HOME, PORT, ask, cookie, get, post
from tests.review.sets import standing


def test_the_token_opens_once_and_a_cookie_does_from_then_on(room: Room) -> None:
    token, entered = room.keys.token, []
    room.entered = lambda: entered.append(room.keys.token)
    answer = ask(room, "GET", f"/?token={token}")
    told = answer.headers["set-cookie"]
    assert answer.status == 200 and told.startswith(f"lora-review-{PORT}={room.keys.cookie};")
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in told.split(";")}
    assert token not in told and room.keys.word not in told and room.keys.word.encode() not in answer.body
    page = get(room, "/set/anna/images")
    assert page.status == 200 and room.keys.word in page.text
    assert room.keys.cookie not in page.text and room.keys.token not in page.text
    assert ask(room, "GET", f"/?token={token}").status == 403  # from a history, or somebody's list of processes
    assert ask(room, "GET", f"/?token={token}", cookie(room)).status == 200  # whoever is in already goes on
    assert room.keys.token != token and entered == [room.keys.token]
    assert ask(room, "GET", f"/?token={room.keys.token}").status == 200  # another browser


def test_a_word_that_a_person_chose_opens_again(anna: LoraDir) -> None:
    room = Room(_space(anna), anna, True, Keys("a word of one's own", chosen=True))
    for _ in range(2):
        assert ask(room, "GET", "/?token=a%20word%20of%20one's%20own").status == 200


@pytest.mark.parametrize(
    "path", ["/", "/set/anna/images", "/set/anna/set", "/static/lib.js", "/night/told", "/nothing"]
)
def test_without_a_cookie_nothing_is_answered(room: Room, path: str) -> None:
    for headers in ({}, {"cookie": f"lora-review-{PORT}=guessed"}, {"cookie": f"lora-review-1={room.keys.cookie}"}):
        answer = ask(room, "GET", path, headers)
        assert (answer.status, answer.headers["content-type"]) == (403, "text/plain; charset=utf-8")
        assert "anna" not in answer.text
    assert ask(room, "GET", "/?token=guessed").status == 403
    assert ask(room, "POST", f"/?token={room.keys.token}").status == 403
    assert ask(room, "GET", f"/?token={room.keys.cookie}").status == 403


@pytest.mark.parametrize(
    "host",
    ["evil.example", f"evil.example:{PORT}", "127.0.0.1.evil.example", "192.168.1.5", "", "[::2]", "localhost.x"],
)
def test_another_host_is_refused(room: Room, host: str) -> None:
    assert ask(room, "GET", "/set/anna/set", {**cookie(room), "host": host}).status == 421


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1", "[::1]:8770"])
def test_this_machine_is_not_at_whatever_port_a_tunnel_has(room: Room, host: str) -> None:
    assert ask(room, "GET", "/set/anna/set", {**cookie(room), "host": host}).status == 200
    assert ask(room, "GET", "/set/anna/set", {**cookie(room), "host": host, "origin": f"http://{host}"}).status == 200


@pytest.mark.parametrize(
    "origin", ["null", "http://evil.example", f"https://{HOME}", "http://127.0.0.1:1", "http://localhost"]
)
def test_another_origin_is_refused(room: Room, anna: LoraDir, origin: str) -> None:
    before = standing(anna)
    assert get(room, "/set/anna/set", origin=origin).status == 403
    assert post(room, "/set/anna/undo", {}, origin=origin).status == 403
    assert standing(anna) == before


def test_a_change_needs_origin_word_and_json(room: Room, anna: LoraDir) -> None:
    shown = {key: get(room, "/set/anna/set").json["pictures"][0][key] for key in ("name", "sha", "text")}
    body = json.dumps({"pictures": [shown], "reason": "x"}).encode()
    whole = {
        **cookie(room), "origin": f"http://{HOME}", WORD: room.keys.word, "content-type": "application/json",
        "content-length": str(len(body)),
    }  # fmt: skip
    before = standing(anna)
    for missing, status in (
        ("origin", 403),
        (WORD, 403),
        ("cookie", 403),
        ("content-type", 415),
        ("content-length", 413),
    ):
        headers = {key: value for key, value in whole.items() if key != missing}
        assert ask(room, "POST", "/set/anna/aside", headers, body).status == status
    wrong = {WORD: "guessed", "content-type": "text/plain", "content-length": str(LARGEST + 1)}
    for key, value in wrong.items():
        assert ask(room, "POST", "/set/anna/aside", {**whole, key: value}, body).status in (403, 413, 415)
    for method in ("PUT", "DELETE", "OPTIONS", "PATCH"):
        assert ask(room, method, "/set/anna/aside", whole, body).status == 405
    assert ask(room, "GET", "/set/anna/aside", whole, body).status == 405  # a change is not looked at
    assert standing(anna) == before
    assert ask(room, "POST", "/set/anna/aside", whole, body).status == 200
    assert standing(anna) != before


def test_every_answer_is_sealed(room: Room) -> None:
    answers = [
        get(room, "/set/anna/images"), get(room, "/set/anna/set"), get(room, "/nothing"), get(room, "/static/lib.js"),
        ask(room, "GET", "/"), ask(room, "GET", f"/?token={room.keys.token}"), post(room, "/set/anna/aside", {"x": 1}),
    ]  # fmt: skip
    for answer in answers:
        assert SEALS.items() <= answer.headers.items() and answer.headers["cache-control"] == "no-store"
        assert not [name for name in answer.headers if name.startswith("access-control")]
    policy = SEALS["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy


def test_only_named_pictures_are_kept_by_the_browser(room: Room) -> None:
    sha = get(room, "/set/anna/set").json["pictures"][0]["sha"]
    small = get(room, f"/set/anna/thumb/{sha}")
    assert (small.status, small.headers["content-type"]) == (200, "image/webp")
    assert "immutable" in small.headers["cache-control"] and "private" in small.headers["cache-control"]


def test_what_cannot_be_meant_is_said_and_changes_nothing(room: Room, anna: LoraDir) -> None:
    before = standing(anna)
    for body in ({}, {"pictures": []}, {"pictures": [{"name": 1}]}, {"pictures": "all"}, [], {"extra": 1}):
        answer = post(room, "/set/anna/aside", body)
        assert answer.status == 400 and "cannot be meant" in answer.json["error"]
    assert get(room, "/set/nobody/set").status == 422
    assert standing(anna) == before


def test_others_are_let_in_by_address_only_where_it_listens_for_them(anna: LoraDir) -> None:
    guard = Guard(None, Keys("a token of one's own"), host="0.0.0.0", port=1)  # type: ignore[arg-type]
    assert [guard.is_here(h) for h in ("192.168.1.5:8770", "10.0.0.1", "[fe80::1]:1", "localhost")] == [True] * 4
    assert not guard.is_here("evil.example:8770")  # a name that was made to point here
    assert [is_loopback(h) for h in ("localhost", "127.0.0.1", "::1", "127.0.0.9")] == [True] * 4
    assert not any(map(is_loopback, ("0.0.0.0", "192.168.1.5", "127.evil.example", "")))


def test_other_addresses_are_refused_without_a_token(lora, space: Path) -> None:
    (space / "loras" / "anna").mkdir(parents=True)
    said = lora("review", "anna", "--host", "0.0.0.0")
    assert said.code == 2 and "ssh -L 8770" in said.err and "--token WORD" in said.err
    assert lora("review", "anna", "--host", "0.0.0.0", "--token", "short").code == 2
    assert lora("review", "anna", "--token", "short").code == 2
    assert lora("review", "nobody").code == 2
    said = lora("review", "anna", "--port", "99999")
    assert said.code == 2 and "--port" in said.err


def _space(place: LoraDir) -> Workspace:
    return Workspace(place.root.parent.parent, "test")
