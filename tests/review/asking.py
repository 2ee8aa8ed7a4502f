"""The page's server asked without a socket: its app is called as a server would, in a thread of its own."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import anyio

from lorafactory.review.app import build
from lorafactory.review.guard import WORD
from lorafactory.review.room import Room

PORT = 8770
HOME = f"127.0.0.1:{PORT}"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


def ask(room: Room, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
    """One request, with these headers and no others."""
    given = {"host": HOME, **(headers or {})}
    address, _, query = path.partition("?")
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": unquote(address), "raw_path": address.encode(), "query_string": query.encode(), "root_path": "",
        "headers": [(k.lower().encode(), v.encode()) for k, v in given.items()],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", PORT), "state": {},
    }  # fmt: skip
    sent: list[dict[str, Any]] = []
    coming = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> dict[str, Any]:
        return next(coming, {"type": "http.disconnect"})

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    app = build(room, host="127.0.0.1", port=PORT)
    thread = threading.Thread(target=anyio.run, args=(app, scope, receive, send))
    thread.start()
    thread.join()
    start = next(m for m in sent if m["type"] == "http.response.start")
    told = {k.decode(): v.decode() for k, v in start["headers"]}
    return Answer(start["status"], told, b"".join(m.get("body", b"") for m in sent))


def cookie(room: Room) -> dict[str, str]:
    return {"cookie": f"lora-review-{PORT}={room.keys.cookie}"}


def get(room: Room, path: str, **headers: str) -> Answer:
    """As the page itself asks."""
    return ask(room, "GET", path, cookie(room) | headers)


def post(room: Room, path: str, body: object, **headers: str) -> Answer:
    """As the page itself changes something."""
    data = json.dumps(body).encode()
    ours = {"origin": f"http://{HOME}", WORD: room.keys.word, "content-type": "application/json"}
    return ask(room, "POST", path, cookie(room) | ours | {"content-length": str(len(data))} | headers, data)
