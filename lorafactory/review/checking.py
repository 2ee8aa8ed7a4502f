"""The check-up in the background: what `lora check` says of the set without CLIP, and small pictures made on the way.

Each picture is decoded once, whatever is changed around it; its rows are read anew when the folder has come to rest.
"""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from lorafactory import images
from lorafactory.crops import Box
from lorafactory.dataset import hash_of
from lorafactory.errors import LoraError
from lorafactory.review import thumbs
from lorafactory.setcheck import checkup
from lorafactory.setcheck.looks import THUMB, Look, Seen, look
from lorafactory.step import Work

NOTHING = Image.new("RGB", (1, 1))
"""In the place of what only the contact sheet needs: 100 kB a picture."""


@dataclass
class Checking:
    """What was found of one set, and by how many check-ups."""

    times: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    """What is not as it should be, as `lora check` has it."""
    of: dict[str, list[str]] = field(default_factory=dict)
    """Picture to the rows that are about it."""
    stamps: object = None
    """How the files were when it was last begun."""
    _busy: threading.Lock = field(default_factory=threading.Lock)
    _known: dict[tuple[str, Box | None], Look] = field(default_factory=dict)

    def begin(self, work: Work, cache: Path, stamps: object) -> None:
        """Check in a thread of its own, unless these files were checked or one is at it."""
        if stamps == self.stamps or not self._busy.acquire(blocking=False):
            return
        self.stamps = stamps
        threading.Thread(target=self._check, args=(work, cache), name="check", daemon=True).start()

    def _check(self, work: Work, cache: Path) -> None:
        try:
            seen = self._look(work, cache)
            found = [row for row in checkup.findings(work, seen, no_clip=True) if row.verdict != "ok"]
            of: dict[str, list[str]] = {}
            for row in found:
                for name in row.pictures:
                    of.setdefault(name, []).append(f"{row.what} (should be: {row.wanted})")
            self.rows, self.of = [asdict(row) for row in found], of
        except (LoraError, OSError) as error:  # settings or files that a person is just mending
            self.rows, self.of = [_failed(error)], {}
        finally:
            self.times += 1
            self._busy.release()

    def _look(self, work: Work, cache: Path) -> Seen:
        looks, unreadable, cut, known = [], {}, work.set.crops, {}
        for picture in work.set.pictures:
            key = (hash_of(picture.path) or "", cut.get(picture.name))
            try:
                thumbs.small(cache, picture.path, key[0], "thumb", waited_for=False)
                if key not in self._known:
                    image, size = images.load_reduced(picture.path, THUMB), images.size(picture.path)
                    self._known[key] = replace(look(picture, image, size, key[1]), thumb=NOTHING)
                known[key] = self._known[key]
                looks.append(replace(known[key], picture=picture))
            except images.Unreadable as error:
                unreadable[picture.name] = error.reason
            except FileNotFoundError:  # taken out meanwhile
                continue
        self._known = known
        return Seen(looks, unreadable)


def _failed(error: Exception) -> dict[str, Any]:
    told = {"what": "check", "value": str(error), "wanted": "", "rule": "", "verdict": "problem"}
    return told | {"pictures": []}
