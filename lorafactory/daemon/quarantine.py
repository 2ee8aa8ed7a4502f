"""Drops that cannot become a LoRA: kept whole in quarantine/NAME-<id>/, with the reason and what to type."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lorafactory.daemon import rows
from lorafactory.daemon.moving import move
from lorafactory.daemon.names import lora_name
from lorafactory.daemon.rows import Drop
from lorafactory.errors import InputError
from lorafactory.files import write_whole
from lorafactory.store import Store
from lorafactory.workspace import Workspace

REASON = "REASON.md"
NAMED = 50
"""Offending files that REASON.md names."""


class Refused(InputError):  # noqa: N818  (said of a drop, not of the program)
    """Why a drop cannot become a LoRA: a stable code, one sentence, the files that it is about."""

    def __init__(self, code: str, sentence: str, files: Sequence[str] = ()) -> None:
        more = [f"and {len(files) - NAMED} more"] if len(files) > NAMED else []
        super().__init__("\n".join([sentence, *(" ".join(f.split()) for f in files[:NAMED]), *more]))
        self.code = code


def folder(space: Workspace) -> Path:
    return space.root / "quarantine"


def place(space: Workspace, drop: Drop) -> Path:
    """Where a drop goes; always the same place, so that a move that broke off can go on."""
    return folder(space) / f"{lora_name(drop.name)}-{drop.ulid[-8:].lower()}"


def put(space: Workspace, drop: Drop, home: Path) -> Path:
    """Move a claimed drop, whole, into quarantine with its REASON.md; return where it is."""
    target = place(space, drop)
    write_whole(home / REASON, page(drop, target.name))
    move(home, target)
    return target


def page(drop: Drop, called: str) -> bytes:
    """REASON.md: why, and how to go on."""
    sentence, *files = (drop.reason or "").splitlines() or [""]
    listed = "".join(f"\n- {line}" for line in files)
    told = f"# {drop.name} was not taken: {drop.code}\n\n{sentence}\n{listed}"
    how = f"\n\nMend what lies beside this page, then type\n\n    lora retry {called}\n"
    return (told.rstrip() + how).encode(errors="replace")


def back(space: Workspace, drop: Drop) -> None:
    """Move a drop that was let back into the inbox, and not taken yet, into quarantine again."""
    there = place(space, drop)
    if (space.inbox / drop.name).exists():
        move(space.inbox / drop.name, there / drop.name)
        write_whole(there / REASON, page(drop, there.name))


def held(space: Workspace, drop: Drop) -> Path | None:
    """What was dropped, where it lies in quarantine; None if a person took it away, or it is on its way there."""
    there = place(space, drop)
    return next((p for p in there.iterdir() if p.name != REASON), None) if there.is_dir() else None


def retry(space: Workspace, store: Store, name: str) -> list[Path]:
    """Move every quarantined drop of this name, or of quarantine's folder of this name, back into the inbox.

    InputError if there is none, or if something of that name lies in the inbox.
    """
    told = [(d, held(space, d)) for d in rows.drops(store, "quarantined")]
    fits = [(d, p) for d, p in told if p is not None and name in (lora_name(d.name), d.name, p.parent.name)]
    if not fits:
        names = sorted({p.parent.name for _, p in told if p is not None})
        raise InputError(f"nothing called {name} is quarantined; there is: {', '.join(names) or 'nothing'}")
    for _, path in fits:
        if (space.inbox / path.name).exists():
            raise InputError(f"{space.inbox / path.name} is there already: move it away, then type the same again")
    for drop, path in fits:
        move(path, space.inbox / path.name)
        tidy_up(space, store, drop)
    return [space.inbox / path.name for _, path in fits]


def tidy_up(space: Workspace, store: Store, drop: Drop) -> None:
    """Close the books on a quarantined drop whose files have left; what a person put there stays."""
    there = place(space, drop)
    if held(space, drop) is None:
        if there.is_dir():
            (there / REASON).unlink(missing_ok=True)
            there.rmdir()
        rows.clear(store, drop.ulid)
