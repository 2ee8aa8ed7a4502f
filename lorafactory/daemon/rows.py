"""The record's rows of drops and jobs, as far as the inbox writes them."""

from __future__ import annotations

from dataclasses import dataclass

from lorafactory.errors import FailedError
from lorafactory.recording import clean, new_ulid, now, tidy
from lorafactory.store import Store

_COLUMNS = "id, ulid, name, lora, state, code, reason"


@dataclass(frozen=True)
class Drop:
    """A drop that was claimed: `claimed`, then `ingested` or `quarantined`; `cleared`: left quarantine again."""

    id: int
    ulid: str
    name: str
    """As it was called in the inbox."""
    lora: str | None
    state: str
    code: str | None
    reason: str | None
    """Why it is quarantined: a sentence, then a line per offending file."""


def drops(store: Store, state: str) -> list[Drop]:
    """The drops in a state, oldest first."""
    return [Drop(*row) for row in store.select(f'SELECT {_COLUMNS} FROM "drop" WHERE state = ? ORDER BY id', state)]


def find(store: Store, ulid: str) -> Drop | None:
    return next((Drop(*row) for row in store.select(f'SELECT {_COLUMNS} FROM "drop" WHERE ulid = ?', ulid)), None)


def lora_of(store: Store, name: str) -> str | None:
    """The LoRA that drops of this name went to, the latest."""
    sql = """SELECT lora FROM "drop" WHERE name = ? AND lora IS NOT NULL ORDER BY id DESC LIMIT 1"""
    return next((str(lora) for (lora,) in store.select(sql, tidy(name))), None)


def promised(store: Store, lora: str) -> bool:
    """True if a drop is on its way to this LoRA."""
    return bool(store.select("""SELECT 1 FROM "drop" WHERE lora = ? AND state = 'claimed'""", tidy(lora)))


def claim(store: Store, ulid: str, name: str) -> None:
    with store.transaction() as db:
        sql = """INSERT INTO "drop" (ulid, name, state, claimed_at) VALUES (?, ?, 'claimed', ?)"""
        db.execute(sql, (ulid, tidy(name), now()))


def release(store: Store, ulid: str) -> None:
    """Forget a claim that came to nothing: the drop was gone before it could be moved."""
    with store.transaction() as db:
        db.execute("""DELETE FROM "drop" WHERE ulid = ? AND state = 'claimed'""", (ulid,))


def promise(store: Store, ulid: str, lora: str, sha256: str) -> None:
    """Fix which LoRA a drop goes to, before the first file does, and what it consists of."""
    with store.transaction() as db:
        db.execute("""UPDATE "drop" SET lora = ?, sha256 = ? WHERE ulid = ?""", (tidy(lora), sha256, ulid))


def ingest(store: Store, drop: Drop, lora: str) -> None:
    """Write that a drop's files are in source/, and ask for the training, unless one is asked for already.

    FailedError while a job of the LoRA runs: it may have read the files that were there before.
    """
    with store.transaction() as db:
        busy = "SELECT 1 FROM job WHERE lora = ? AND state = 'running'"
        if db.execute(busy, (tidy(lora),)).fetchone():
            raise FailedError(f"{lora} is being trained")
        ended = """UPDATE "drop" SET state = 'ingested', ended_at = ? WHERE id = ? AND state = 'claimed'"""
        if db.execute(ended, (now(), drop.id)).rowcount:
            asked = """INSERT INTO job (ulid, lora, state, asked_at, drop_id) VALUES (?, ?, 'queued', ?, ?)
              ON CONFLICT DO NOTHING"""
            db.execute(asked, (new_ulid(), tidy(lora), now(), drop.id))


def condemn(store: Store, ulid: str, code: str, reason: str) -> None:
    with store.transaction() as db:
        sql = """UPDATE "drop" SET state = 'quarantined', code = ?, reason = ?, ended_at = ?
          WHERE ulid = ? AND state = 'claimed'"""
        db.execute(sql, (code, clean(reason), now(), ulid))


def condemn_again(store: Store, ulid: str) -> None:
    """Take back that a drop was cleared."""
    with store.transaction() as db:
        db.execute("""UPDATE "drop" SET state = 'quarantined' WHERE ulid = ? AND state = 'cleared'""", (ulid,))


def clear(store: Store, ulid: str) -> None:
    with store.transaction() as db:
        db.execute("""UPDATE "drop" SET state = 'cleared' WHERE ulid = ? AND state = 'quarantined'""", (ulid,))
