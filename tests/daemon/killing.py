"""A daemon that dies: at the n-th thing it does to a file or to the record, and from then on it does nothing more."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from lorafactory.store import Store

CALLS = ("rename", "replace", "mkdir", "rmdir", "unlink", "fsync")


class Killed(BaseException):
    """SIGKILL, as far as one process can play it."""


@dataclass
class Life:
    left: int
    """Moments to live: there is one before and one after each operation."""
    lived: int = 0

    def moment(self) -> None:
        self.lived += 1
        if self.lived >= self.left:
            raise Killed

    def wrapped(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def done(*args: Any, **told: Any) -> Any:
            if str(args[0]).endswith(".lock"):  # the system frees a dead process's locks
                return call(*args, **told)
            self.moment()
            result = call(*args, **told)
            self.moment()
            return result

        return done

    def half(self, source: Path, target: Path) -> Path:
        """Copy a file, with a moment in the middle."""
        data = Path(source).read_bytes()
        Path(target).write_bytes(data[: len(data) // 2])
        self.moment()
        Path(target).write_bytes(data)
        return target

    @contextmanager
    def transaction(self, store: Store) -> Iterator[Any]:
        self.moment()
        with store._write() as db:
            yield db
            self.moment()
        self.moment()


@contextmanager
def dying(moments: int) -> Iterator[Life]:
    """The block ends at that moment, if it gets so far; `lived` tells how many there were."""
    life = Life(moments)
    with (
        patch.multiple(os, **{name: life.wrapped(getattr(os, name)) for name in CALLS}),
        patch.object(shutil, "copyfile", life.half),
        patch.object(Store, "transaction", lambda store: life.transaction(store)),  # noqa: PLW0108
        suppress(Killed),
    ):
        yield life
