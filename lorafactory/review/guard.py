"""Who may ask: a browser that was shown the token, from a page of this server. All else is refused before any route.

The token stands in the address and opens once; what answers it is a cookie that no script and no other site can use,
so an address that is seen in a list of processes or in a history opens nothing. For another browser there is another
token, which only the terminal is told, unless a person chose the word themselves. A change
needs, beside the cookie, the page's own word in a header and an Origin that is this server: neither can be had by
another page. A Host that is not this machine is refused, so a name that was made to point here reads nothing.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
LARGEST = 4 << 20
"""Bytes of a change."""
WORD = "x-review"
"""Header of a change with the page's word."""
READS = ("GET", "HEAD")
SEALS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""Headers of every answer."""
ENTER = """<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url=/">
<title>lorafactory</title><link rel="icon" href="/static/icon.svg">"""
"""A page of our own that goes on: where the address was opened from another site, its cookie counts only then."""
CLOSED = "This page is for whoever started it: open the address that `lora review` printed, with its token."


@dataclass
class Keys:
    """What opens the page."""

    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    """Once, in the address."""
    chosen: bool = False
    """A person chose the token, and it opens as often as it is used."""
    cookie: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    word: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    """In every page, and in the header of every change."""

    def spend(self) -> None:
        if not self.chosen:
            self.token = secrets.token_urlsafe(32)


class Guard:
    """Stands before the app."""

    def __init__(
        self, app: ASGIApp, keys: Keys, *, host: str, port: int, entered: Callable[[], None] = lambda: None
    ) -> None:
        """`entered` is called when a token was used."""
        self.app, self.keys, self.host, self.entered = app, keys, host, entered
        self.called = f"lora-review-{port}"
        """Name of the cookie; servers on other ports of one machine share a browser's cookies."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            answer = self.answer(scope)
            await (answer or self.app)(scope, receive, sealed(send))

    def answer(self, scope: Scope) -> Response | None:
        """What is said instead of the app's answer; None if whoever asks may ask this."""
        headers = Headers(scope=scope)
        host, origin, method = headers.get("host", ""), headers.get("origin"), scope["method"]
        if not self.is_here(host):
            return refused(f"{host or 'no Host'} is not where this page is", 421)
        if origin is not None and origin != f"http://{host}":
            return refused("asked from another page")
        if method not in (*READS, "POST"):
            return refused(method, 405)
        known = same(cookie_parser(headers.get("cookie", "")).get(self.called, ""), self.keys.cookie)
        given = QueryParams(scope["query_string"]).get("token") if scope["path"] == "/" else None
        if method == "GET" and given is not None and (known or same(given, self.keys.token)):
            return self.enter(spent=same(given, self.keys.token))
        if not known:
            return refused(CLOSED)
        return None if method in READS else self.change(headers, origin)

    def change(self, headers: Headers, origin: str | None) -> Response | None:
        """What is in the way of a change."""
        if origin is None or not same(headers.get(WORD, ""), self.keys.word):
            return refused("asked from another page")
        if headers.get("content-type", "").partition(";")[0] != "application/json":
            return refused("a change is JSON", 415)
        length = headers.get("content-length", "")
        return None if length.isdecimal() and int(length) <= LARGEST else refused("too long, or of no length", 413)

    def enter(self, *, spent: bool) -> Response:
        found = HTMLResponse(ENTER)
        if spent:
            self.keys.spend()
            self.entered()
        found.set_cookie(self.called, self.keys.cookie, httponly=True, samesite="strict")
        return found

    def is_here(self, host: str) -> bool:
        """True if a Host is this machine's. Any port: a tunnel may have another. A name made up elsewhere never is."""
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        if name in LOOPBACK:
            return True
        return not is_loopback(self.host) and (name in (self.host, socket.gethostname()) or is_address(name))


def is_loopback(host: str) -> bool:
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def is_address(name: str) -> bool:
    """True for an IP address, which no name server can make point elsewhere."""
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def same(given: str, wanted: str) -> bool:
    return secrets.compare_digest(given.encode(), wanted.encode())


def refused(why: str, status: int = 403) -> Response:
    return PlainTextResponse(f"{why}\n", status)


def sealed(send: Send) -> Send:
    """Every answer says what its page may load, and that nobody keeps it, unless it says so itself."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SEALS.items():
                headers[name] = value
            headers.setdefault("cache-control", "no-store")
        await send(message)

    return sending
