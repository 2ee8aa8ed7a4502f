"""The server: a socket on this machine, the address with its token, and an end that lets go of every open stream."""

from __future__ import annotations

import socket
import threading
import webbrowser
from collections.abc import Callable
from types import FrameType

import uvicorn

from lorafactory.errors import InputError
from lorafactory.review.app import build
from lorafactory.review.room import Room

GRACE = 5
"""Seconds that requests get to end."""


class Server(uvicorn.Server):
    """Uvicorn's, which says when it has begun, and tells the streams that it ends."""

    def __init__(self, config: uvicorn.Config, room: Room, begun: Callable[[], None]) -> None:
        super().__init__(config)
        self.room, self.begun = room, begun

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.begun()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.room.close()
        super().handle_exit(sig, frame)


def listen(host: str, port: int, *, exactly: bool) -> socket.socket:
    """A socket on `port`, or on a free one where that is taken, unless it must be `exactly` that."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in (port,) if exactly else (port, 0):
        # said to be TCP, or asyncio lets the kernel hold back small answers for 40 ms (Nagle's algorithm)
        made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((host, number))
            made.listen()  # whoever comes before the server is ready waits
            return made
        except OSError as error:
            made.close()
            if exactly or number == 0:
                raise InputError(f"cannot listen on {host}:{number}: {error.strerror}; --port names another") from error
    raise AssertionError


def server(room: Room, host: str, port: int, begun: Callable[[], None] = lambda: None) -> Server:
    """`begun` is called once it answers, and ends in order on Ctrl-C."""
    config = uvicorn.Config(
        build(room, host=host, port=port),
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=GRACE,
    )
    return Server(config, room, begun)


def address(room: Room, host: str, port: int) -> str:
    """What is opened, with the token in it."""
    name = "127.0.0.1" if host in ("0.0.0.0", "localhost") else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/?token={room.keys.token}"


def serve(room: Room, made: socket.socket, host: str, *, browse: bool, say: Callable[[str], None]) -> None:
    """Serve until Ctrl-C."""
    port = made.getsockname()[1]
    url = address(room, host, port)
    room.entered = lambda: say(f"for another browser: {address(room, host, port)}")

    def begun() -> None:
        say(url)
        threading.Thread(target=room.warm, daemon=True).start()
        if browse:  # a browser may take its time
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

    try:
        server(room, host, port, begun).run(sockets=[made])
    except KeyboardInterrupt:  # uvicorn has ended in order, and hands the signal on
        pass
    finally:
        room.close()
