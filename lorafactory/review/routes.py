"""What can be asked of the page's server. A route reads what was asked, calls one function, says what came of it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from lorafactory import crops
from lorafactory.errors import InputError
from lorafactory.review import acts, captions, events, night, saves, thumbs
from lorafactory.review.acts import Shown
from lorafactory.review.asked import Asked, Counted, Crop, Named, Phrase, Replace, Sat, Save, Some, Texts
from lorafactory.review.blind import Sitting
from lorafactory.review.book import Book, trained
from lorafactory.review.room import Room
from lorafactory.workspace import Workspace

Json = dict[str, Any]
FOREVER = {"cache-control": "private, max-age=31536000, immutable"}
"""Of what is named by its content."""
PACKED = 1000
"""Bytes from which an answer is packed: a phone's way is narrow."""
ANSWERS: dict[str, Callable[[Workspace, str], str]] = {
    "retry": night.retry, "give-up": night.give_up, "undo": night.undo,
}  # fmt: skip
M = TypeVar("M", bound=Asked)


async def read(request: Request, kind: type[M]) -> M:
    return kind.model_validate_json(await request.body())


# ---------------------------------------------------------------- how it is answered


def told(request: Request, data: object, status: int = 200) -> Response:
    """JSON, packed where it is long."""
    body = json.dumps(data, separators=(",", ":"), default=str).encode()
    if len(body) < PACKED or "gzip" not in request.headers.get("accept-encoding", ""):
        return Response(body, status, media_type="application/json")
    return Response(gzip.compress(body, 4), status, {"content-encoding": "gzip"}, media_type="application/json")


def room_of(request: Request) -> Room:
    found: Room = request.app.state.room
    return found


def book_of(request: Request) -> Book:
    return room_of(request).book(request.path_params["lora"])


async def acted(request: Request, act: Callable[[], str], names: list[str] | None = None) -> Response:
    """Do it, and tell how the pictures that it was about are now; `names` None: all of them may be others."""
    book = book_of(request)

    def both() -> Json:
        said = act()
        return {"said": said, "set": book.told(names)}

    return told(request, await run_in_threadpool(both))


# ---------------------------------------------------------------- pictures


async def the_set(request: Request) -> Response:
    names = request.query_params.getlist("name") or None
    return told(request, await run_in_threadpool(book_of(request).told, names))


async def small(request: Request) -> Response:
    """A picture that the page has shown, by its content."""
    book, sha = book_of(request), request.path_params["sha"]

    def find() -> bytes:
        path = book.by_sha(sha)
        if path is None:
            raise InputError("this picture is not there any more")
        return thumbs.small(book.cache, path, sha, request.path_params["kind"]).read_bytes()

    return Response(await run_in_threadpool(find), headers=FOREVER, media_type="image/webp")


async def aside(request: Request) -> Response:
    asked = await read(request, Some)
    shown = [one.shown for one in asked.pictures]
    return await acted(request, lambda: acts.set_aside(book_of(request), shown, asked.reason), names_of(asked))


async def back(request: Request) -> Response:
    asked = await read(request, Some)
    return await acted(request, lambda: acts.put_back(book_of(request), [one.shown for one in asked.pictures]))


async def keep(request: Request) -> Response:
    asked = await read(request, Some)
    shown = [one.shown for one in asked.pictures]
    return await acted(request, lambda: acts.keep(book_of(request), shown), names_of(asked))


def names_of(asked: Some) -> list[str]:
    return [one.name for one in asked.pictures]


async def crop(request: Request) -> Response:
    asked = await read(request, Crop)
    act = lambda: acts.crop(book_of(request), Shown(asked.name, asked.sha), asked.was, asked.box)  # noqa: E731
    return await acted(request, act, [asked.name])


async def fit(request: Request) -> Response:
    """What the trainer would make of a rectangle, before it is kept."""
    asked = await read(request, Crop)
    book = book_of(request)

    def fitted() -> Json:
        size = book.seen(book.picture(asked.name)).size
        return trained(size, asked.box, book.train) | {"size": crops.size_of(asked.box) if asked.box else size}

    return told(request, await run_in_threadpool(fitted))


async def undo(request: Request) -> Response:
    book = book_of(request)

    def both() -> Json:
        said, names = acts.undo(book)
        return {"said": said, "names": names, "set": book.told(names)}

    return told(request, await run_in_threadpool(both))


# ---------------------------------------------------------------- captions


async def write(request: Request) -> Response:
    asked = await read(request, Texts)
    texts = {one.name: (one.text, one.caption) for one in asked.captions}
    said = asked.said or f"caption of {acts.some(list(texts))}"
    return await acted(request, lambda: acts.write_captions(book_of(request), texts, said), list(texts))


async def without(request: Request) -> Response:
    """Take a phrase out of a caption."""
    asked, book = await read(request, Phrase), book_of(request)

    def act() -> str:
        before = book.seen(book.picture(asked.name)).text or ""
        after = captions.without(before, asked.phrase, captions.edits(book.work))
        return acts.write_captions(book, {asked.name: (asked.text, after)}, f'"{asked.phrase}" out of {asked.name}')

    return await acted(request, act, [asked.name])


async def replace(request: Request) -> Response:
    """What find and replace would do to each caption; nothing is written."""
    asked, book = await read(request, Replace), book_of(request)

    def preview() -> list[Json]:
        found, e = [], captions.edits(book.work)
        for name in asked.names:
            seen = book.seen(book.picture(name))
            after = captions.replaced(seen.text or "", asked.find, asked.put, e, words=asked.words, case=asked.case)
            if after != (seen.text or "") and not seen.garbled:
                found.append({"name": name, "text": seen.text_sha256, "before": seen.text, "after": after})
        return found

    return told(request, {"changes": await run_in_threadpool(preview)})


async def count(request: Request) -> Response:
    asked = await read(request, Counted)
    return told(request, {"counts": await run_in_threadpool(captions.counted, book_of(request).work, asked.texts)})


async def history(request: Request) -> Response:
    book, name = book_of(request), request.query_params.get("name", "")
    return told(request, {"texts": await run_in_threadpool(captions.history, book.space, book.place, name)})


# ---------------------------------------------------------------- saves


async def comparison(request: Request) -> Response:
    return told(request, await run_in_threadpool(lambda: saves.told(book_of(request).work)))


async def cell(request: Request) -> Response:
    path = await run_in_threadpool(lambda: saves.cell_path(book_of(request).work, request.path_params["file"]))
    return FileResponse(path, headers={"cache-control": "private, max-age=3600"})


async def sample(request: Request) -> Response:
    path = await run_in_threadpool(lambda: saves.sample_path(book_of(request).work, request.path_params["file"]))
    return FileResponse(path, headers={"cache-control": "private, max-age=3600"})


async def report(request: Request) -> Response:
    """The report as it was written: for the disk, as its own policy has no place in this page's."""
    return FileResponse(book_of(request).place.report, headers={"content-disposition": "attachment"})


async def choose(request: Request) -> Response:
    asked, book = await read(request, Save), book_of(request)

    def both() -> Json:
        return {"said": acts.choose(book, asked.save, asked.sha256), "saves": saves.told(book.work)}

    return told(request, await run_in_threadpool(both))


async def sit(request: Request) -> Response:
    """Begin a blind comparison, answer its pair, ask for another round, or end it and hear the ranking."""
    asked, book, room = await read(request, Sat), book_of(request), room_of(request)

    def go_on() -> Json:
        if not asked.id:
            scores = saves.comparison(book.work)
            texts = [prompt["text"] for prompt in scores.get("prompts", ())]
            return pair_of(room.sit(Sitting.begin(saves.judged(scores), texts)))
        sitting = room.sitting(asked.id)
        if asked.answer == "end":
            return end(book, room, sitting)
        if asked.answer == "more":
            sitting.round()
        else:
            sitting.answer(asked.number, asked.answer)
        return pair_of(sitting)

    return told(request, await run_in_threadpool(go_on))


def pair_of(sitting: Sitting) -> Json:
    """What the page may know of the pair to be answered now."""
    pair, done = sitting.pair, {"id": sitting.id, "number": len(sitting.answers), "of": len(sitting.pairs)}
    return done | ({"pair": pair.names, "prompt": sitting.prompts[pair.prompt]} if pair else {"pair": None})


def end(book: Book, room: Room, sitting: Sitting) -> Json:
    """Write the ranking down, and only now say which save is which."""
    if not sitting.answers:
        raise InputError("nothing was chosen yet")
    document = sitting.document(datetime.now(UTC).isoformat(timespec="seconds"))
    said = f"blind: {document['words']}"
    numbers = {row["label"]: row["strength"] for row in document["ranking"]}
    acts.keep_ranking(book, (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode(), said, numbers)
    del room.sittings[sitting.id]
    return {"said": said, "saves": saves.told(book.work)}


async def unseen(request: Request) -> Response:
    """One side of a pair; its address tells nothing, and neither does what is sent with it."""
    sitting, book = room_of(request).sitting(request.path_params["id"]), book_of(request)
    file = sitting.file(request.path_params["name"])
    if file is None:
        raise InputError("there is no such pair")
    data = await run_in_threadpool(lambda: saves.cell_path(book.work, file).read_bytes())
    return Response(data, media_type="image/png")


# ---------------------------------------------------------------- the night


async def the_night(request: Request) -> Response:
    return told(request, await run_in_threadpool(night.told, room_of(request).space))


async def answer(request: Request) -> Response:
    """An answer to the queue."""
    asked, space = await read(request, Named), room_of(request).space
    say = ANSWERS[request.path_params["answer"]]

    def both() -> Json:
        return {"said": say(space, asked.name), "night": night.told(space)}

    return told(request, await run_in_threadpool(both))


# ---------------------------------------------------------------- what changes


async def set_events(request: Request) -> Response:
    return stream(events.of_set(book_of(request), room_of(request).closing))


async def night_events(request: Request) -> Response:
    room = room_of(request)
    return stream(events.of_night(room.space, room.closing))


def stream(found: Any) -> Response:
    return StreamingResponse(found, media_type="text/event-stream")


def routes() -> list[BaseRoute]:
    of_set: list[tuple[str, Any, str]] = [
        ("set", the_set, "GET"), ("{kind:small}/{sha}", small, "GET"), ("aside", aside, "POST"), ("back", back, "POST"),
        ("keep", keep, "POST"), ("crop", crop, "POST"), ("fit", fit, "POST"), ("undo", undo, "POST"),
        ("write", write, "POST"), ("without", without, "POST"), ("replace", replace, "POST"), ("count", count, "POST"),
        ("history", history, "GET"), ("comparison", comparison, "GET"), ("cell/{file:path}", cell, "GET"),
        ("sample/{file:path}", sample, "GET"), ("report", report, "GET"), ("choose", choose, "POST"),
        ("blind", sit, "POST"), ("blind/{id}/{name}", unseen, "GET"), ("events", set_events, "GET"),
    ]  # fmt: skip
    found: list[BaseRoute] = [Route(f"/set/{{lora}}/{path}", call, methods=[how]) for path, call, how in of_set]
    return [
        *found,
        Route("/night/told", the_night),
        Route("/night/events", night_events),
        Route("/night/{answer:answer}", answer, methods=["POST"]),
    ]
