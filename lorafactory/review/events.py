"""What changes while a page is open, as server-sent events: files of the set, the check-up, the night.

Nothing watches as long as no page listens. A page that listens is told what changed, and asks for it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import anyio
from starlette.concurrency import run_in_threadpool

from lorafactory.review import night
from lorafactory.review.book import Book, Stamp, as_of
from lorafactory.workspace import Workspace

EVERY = 1.0
"""Seconds between two looks."""
REST = 2
"""Looks without a change after which the set is checked anew."""
QUIET = 15
"""Looks without news after which a line of nothing keeps the connection open."""


class Closing:
    """Set once, when the server ends: then the streams do."""

    def __init__(self) -> None:
        self.now = False


async def of_set(book: Book, closing: Closing) -> AsyncIterator[str]:
    """Since when it is watched; the places of files that changed, and which of them were changed by others than the
    page's acts; the check-up."""
    before, checked, still = await run_in_threadpool(book.stamps), -1, 0
    yield sent("since", as_of(before))
    async for number in ticks(closing):
        now, acted = await run_in_threadpool(book.stamps_and_acts)
        still = 0 if now != before else still + 1
        if now != before:
            places = differing(before, now)
            others = [place for place in places if not acted or acted.get(place) != now.get(place)]
            yield sent("set", {"places": places, "others": others})
            before = now
        if still >= REST:
            await run_in_threadpool(book.check, before)
        if book.checking.times not in (checked, 0):
            checked = book.checking.times
            yield sent("check", {"rows": book.checking.rows})
        elif number % QUIET == 0:
            yield ":\n\n"


async def of_night(space: Workspace, closing: Closing) -> AsyncIterator[str]:
    """How the night stands, whenever that is another than before."""
    signs: object = None
    told: dict[str, Any] = {}
    async for number in ticks(closing):
        if (now := await run_in_threadpool(night.signs, space)) == signs:
            if number % QUIET == 0:
                yield ":\n\n"
            continue
        signs, found = now, await run_in_threadpool(night.told, space)
        if found != told:
            told = found
            yield sent("night", told)


async def ticks(closing: Closing) -> AsyncIterator[int]:
    """A number every so often, until the server ends."""
    number = 0
    while not closing.now:
        yield number
        number += 1
        await anyio.sleep(EVERY)


def sent(kind: str, data: object) -> str:
    return f"event: {kind}\ndata: {json.dumps(data, default=str)}\n\n"


def differing(before: Mapping[str, Stamp], now: Mapping[str, Stamp]) -> list[str]:
    """Places of the files that came, went or were changed."""
    return sorted({place for place in before.keys() | now.keys() if before.get(place) != now.get(place)})
