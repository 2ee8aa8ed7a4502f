"""The local page's app: its pages, what they load, its routes, and how an error is said."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from lorafactory import pages
from lorafactory.errors import LoraError, PassingError
from lorafactory.review import routes
from lorafactory.review.acts import Conflict
from lorafactory.review.guard import Guard
from lorafactory.review.room import Room

HERE = Path(__file__).parent
PARTS = ("images", "captions", "saves")
KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
WORDS = {"small": "thumb|view", "answer": "retry|give-up|undo", "part": "|".join(PARTS)}
"""What a part of an address may be."""


def build(room: Room, *, host: str, port: int) -> ASGIApp:
    """The app behind its guard."""
    for name, pattern in WORDS.items():
        register_url_convertor(name, _word(pattern))
    app = Starlette(
        routes=[
            Route("/", front),
            Route("/set/{lora}/{part:part}", page),
            Route("/night", page),
            Route("/static/{file}", static),
            *routes.routes(),
        ],
        exception_handlers={LoraError: said, OSError: said, ValidationError: misread},
    )
    app.state.room = room
    return Guard(app, room.keys, host=host, port=port, entered=room.entered)


def _word(pattern: str) -> Convertor[str]:
    class Word(Convertor[str]):
        regex = pattern

        def convert(self, value: str) -> str:
            return value

        def to_string(self, value: str) -> str:
            return value

    return Word()


# ---------------------------------------------------------------- pages


async def front(request: Request) -> Response:
    return RedirectResponse(request.url_for("page", lora=routes.room_of(request).first.name, part="images").path)


async def page(request: Request) -> Response:
    """One of the four parts."""
    room = routes.room_of(request)
    part = request.path_params.get("part", "night")
    lora = request.path_params.get("lora") or request.query_params.get("lora", room.first.name)
    told = {"lora": lora, "part": part, "parts": PARTS, "word": room.keys.word, "acts": room.book(lora).apply}
    return HTMLResponse(pages.environment().get_template(f"review/templates/{part}.html").render(**told))


async def static(request: Request) -> Response:
    """A style or script of the page, by its name in the folder."""
    name = request.path_params["file"]
    known = {path.name: path for path in (HERE / "static").iterdir() if path.suffix in KINDS}
    if name == "page.css":
        return Response(pages.read("pages.css", "review/static/page.css"), media_type=KINDS[".css"])
    if name not in known:
        return Response("there is no such file\n", 404, media_type="text/plain")
    return Response(known[name].read_bytes(), media_type=KINDS[known[name].suffix])


# ---------------------------------------------------------------- errors


async def said(request: Request, error: Exception) -> Response:
    """A message and, where files changed under the page, how they are now."""
    status = 423 if isinstance(error, PassingError) else 409 if isinstance(error, Conflict) else 422
    if "text/html" in request.headers.get("accept", ""):
        return PlainTextResponse(f"{error}\n", status)
    told: dict[str, object] = {"error": str(error)}
    if isinstance(error, Conflict):
        told |= {"names": error.names, "set": routes.book_of(request).told(error.names)}
    return routes.told(request, told, status)


async def misread(request: Request, error: Exception) -> Response:
    """What was asked is no question of this page."""
    first = re.split(r"\n", str(error))[0]
    return routes.told(request, {"error": f"this cannot be meant: {first}"}, 400)
