"""The record: runs, decisions about pictures, what came from what. SQLite, one file per workspace.

Two invariants. Every write, checkpoint and close holds the file lock beside the database, and writes begin
IMMEDIATE: deferred transactions lose writes under contention, and SQLite before 3.51.3 can corrupt a file
that two connections write at the same instant. Rows are only added; of a run, status, end and error change.

sqlite3 is used directly: sqlite-utils takes 0.9 s to import, and its transactions are deferred.
"""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lorafactory.errors import RecordError
from lorafactory.migrations import migrate, pending
from lorafactory.mounts import refuse_network
from lorafactory.questions import QUESTIONS, RUN
from lorafactory.recording import (
    Change,
    Decision,
    Relative,
    Run,
    RunRow,
    canonical_json,
    clean,
    ended_by,
    environment,
    new_ulid,
    now,
    tidy,
)

__all__ = ["ANEW", "Change", "Decision", "Relative", "Run", "RunRow", "Store", "tidy"]

LOCK_SECONDS = 60.0
ANEW = "begun anew"
"""Step of the run that says: the set's folder was gone, and what was recorded of it before counts no more."""
PART = "part"
"""Setting of a run that tells only what it changed of the set, and not how all of it stands."""
NO = "no "
"""Before a role: what such a run took away."""

_ID = "(SELECT id FROM blob WHERE sha256 = ?)"
_IN_PART = f"coalesce(json_extract(settings, '$.{PART}'), 0)"
_open_runs: set[str] = set()
"""ULIDs of the runs in progress in this process, which `interrupt` leaves alone."""


class Store:
    """A connection to the record. Belongs to one thread and one process."""

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        """Open the record, creating and migrating it; `readonly` never creates and takes no lock."""
        self.path = path
        self._readonly = readonly
        self._lock = FileLock(path.with_suffix(".lock"), timeout=LOCK_SECONDS)
        refuse_network(path)
        if readonly and not path.is_file():
            raise RecordError(f"no record at {path} yet.\n    lora make NAME writes one")
        try:
            self._db = self._open_to_look() if readonly else self._open_to_write()
        except sqlite3.DatabaseError as error:
            hint = "if it is not lorafactory's, move it away; the next command begins a new one"
            raise RecordError(f"{path} cannot be opened as the record: {error}.\n    {hint}") from error

    def _open_to_write(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked():
            return self._connect("", migrate)

    def _open_to_look(self) -> sqlite3.Connection:
        old: list[Any] = []
        db = self._connect("?mode=ro", lambda db, path: old.extend(pending(db, path)))
        if not old:
            return db
        db.close()
        Store(self.path).close()  # migrates
        return self._connect("?mode=ro", pending)

    def _connect(self, mode: str, prepare: Callable[[sqlite3.Connection, Path], object]) -> sqlite3.Connection:
        db = sqlite3.connect(self.path.absolute().as_uri() + mode, uri=True, timeout=30, isolation_level=None)
        try:
            for pragma in ("synchronous = FULL", "foreign_keys = ON", "trusted_schema = OFF", "mmap_size = 0"):
                db.execute(f"PRAGMA {pragma}")
            prepare(db, self.path)
        except BaseException:
            db.close()
            raise
        return db

    def close(self) -> None:
        """Close the connection; the last one out folds the write-ahead log into the file."""
        if self._readonly:
            self._db.close()
        else:
            with self._locked():
                self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------ writing

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._lock.acquire()
        except Timeout as error:
            raise RecordError(f"another process has held {self.path} for a minute; try again later") from error
        try:
            yield
        finally:
            self._lock.release()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """The only way to write: one IMMEDIATE transaction inside the file lock."""
        if self._readonly:
            raise RecordError(f"{self.path} was opened for looking only")
        with self._locked():
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except sqlite3.OperationalError as error:
                raise RecordError(f"{self.path} cannot be written: {error}") from error
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    @contextmanager
    def run(
        self,
        lora: str,
        step: str,
        *,
        version: int,
        key: str,
        settings: Mapping[str, object],
        parent: int | None = None,
        agent: str = "user",
    ) -> Iterator[Run]:
        """Write a row `running`, do the body, complete the row with its end and all that was noted."""
        env = environment()
        env_id = hashlib.sha256(env.encode()).hexdigest()
        about = (tidy(lora), step, version, key, canonical_json(settings), parent, agent, env_id)
        columns = "lora, step, version, key, settings, parent, agent, env_id, ulid, started_at, status"
        with self._write() as db:
            ulid = new_ulid()
            db.execute("INSERT INTO env (id, json) VALUES (?, ?) ON CONFLICT DO NOTHING", (env_id, env))
            sql = f"INSERT INTO run ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'running')"
            row_id = int(db.execute(sql, (*about, ulid, now())).lastrowid or 0)
        run, started = Run(self._write, row_id, ulid), time.monotonic()
        _open_runs.add(ulid)
        try:
            yield run
        except BaseException as error:
            self._end(run, *ended_by(error), started)
            raise
        else:
            self._end(run, "done", None, started)
        finally:
            run.ended = True
            _open_runs.discard(ulid)

    def _end(self, run: Run, status: str, error: str | None, started: float) -> None:
        with self._write() as db:
            run.flush(db)
            sql = "UPDATE run SET status = ?, ended_at = ?, wall_s = ?, error = ? WHERE id = ?"
            db.execute(sql, (status, now(), time.monotonic() - started, error, run.id))

    def revoke(self, sha256s: Sequence[str], reason: str, agent: str = "user") -> None:
        """Mark the first file, which is what is revoked, and the others, which came from it; once each."""
        sql = f"""INSERT INTO revocation (ulid, blob_id, at, reason, agent, cause_id)
          VALUES (?, {_ID}, ?, ?, ?, (SELECT id FROM revocation WHERE blob_id = {_ID}))
          ON CONFLICT DO NOTHING"""
        with self._write() as db:
            for sha256 in sha256s:
                cause = None if sha256 == sha256s[0] else sha256s[0]
                db.execute("INSERT INTO blob (sha256) VALUES (?) ON CONFLICT DO NOTHING", (sha256,))
                db.execute(sql, (new_ulid(), sha256, now(), clean(reason), agent, cause))

    def revoked(self) -> dict[str, str]:
        """Return sha256 to reason of all that is revoked, and of all that came from it by then."""
        return dict(self._all("SELECT sha256, reason FROM v_revocation"))

    def interrupt(self, lora: str) -> list[RunRow]:
        """Mark this LoRA's dead `running` rows interrupted and return them. The caller holds its lock."""
        running = self._runs("lora = ? AND status = 'running' ORDER BY id", tidy(lora))
        dead = [row.id for row in running if row.ulid not in _open_runs]
        if dead:
            with self._write() as db:
                db.executemany("UPDATE run SET status = 'interrupted' WHERE id = ?", [(i,) for i in dead])
        return [row for i in dead for row in self._runs("id = ?", i)]

    # ------------------------------------------------------------ looking

    def _all(self, sql: str, *values: object) -> list[Any]:
        return self._db.execute(sql, values).fetchall()

    transaction, select = _write, _all  # for the daemon's own tables

    def _runs(self, where: str, *values: object) -> list[RunRow]:
        return [_run_row(row) for row in self._all(f"SELECT {RUN} FROM run WHERE {where}", *values)]

    def last(self, lora: str, step: str, *, status: str | None = "done", key: str | None = None) -> RunRow | None:
        """Return the newest run of a step on a LoRA, with this cache key if one is given."""
        where = (
            "lora = ? AND step = ? AND (? IS NULL OR status = ?) AND (? IS NULL OR key = ?) ORDER BY id DESC LIMIT 1"
        )
        return next(iter(self._runs(where, tidy(lora), step, status, status, key, key)), None)

    def begun(self, lora: str) -> int:
        """Return the id of the run since which the set is what it is, begun anew; 0 if it always was."""
        row = self.last(lora, ANEW)
        return row.id if row else 0

    def last_of(self, lora: str) -> RunRow | None:
        """Return the newest ended run, of any step, that left a whole set or decided something."""
        decided = "EXISTS (SELECT 1 FROM decision WHERE run_id = run.id)"
        left = "EXISTS (SELECT 1 FROM edge WHERE run_id = run.id AND direction = 'out')"
        ended = f"status IN ('done', 'failed', 'stopped') AND NOT {_IN_PART}"
        where = f"lora = ? AND {ended} AND ({left} OR {decided}) ORDER BY id DESC LIMIT 1"
        return next(iter(self._runs(where, tidy(lora))), None)

    def left(self, lora: str, role: str) -> dict[str, str]:
        """Return name to sha256 of what `last_of` left, with what the runs in part since then made of it."""
        last = self.last_of(lora)
        if last is None:
            return {}
        sql = f"""SELECT e.role, e.name, e.sha256 FROM run r JOIN v_edge e ON e.run_id = r.id AND e.direction = 'out'
          WHERE r.lora = ? AND r.id >= ? AND (r.id = ? OR {_IN_PART}) AND e.role IN (?, ?) ORDER BY r.id"""
        found: dict[str, str] = {}
        for told, name, sha256 in self._all(sql, tidy(lora), last.id, last.id, role, NO + role):
            found.pop(name, None)
            if told == role:
                found[name] = sha256
        return found

    def runs(self, lora: str | None = None, limit: int = 20, *, step: str | None = None) -> list[RunRow]:
        """Return runs, of one LoRA or one step if it is given, newest first; a negative limit returns all.

        Of all LoRAs, the public ids tell the time, also of what was joined later.
        """
        asked = {"lora": tidy(lora), "step": step}
        given = {column: value for column, value in asked.items() if value is not None}
        where = " AND ".join(f"{column} = ?" for column in given) or "1"
        return self._runs(f"{where} ORDER BY {'id' if lora else 'ulid'} DESC LIMIT ?", *given.values(), limit)

    def edges(self, run_id: int, direction: str, role: str | None = None) -> dict[str, str]:
        """Return name to sha256 of what a run read (`in`) or wrote (`out`)."""
        where = "run_id = ? AND direction = ? AND (? IS NULL OR role = ?) ORDER BY name"
        rows = self._all(f"SELECT name, sha256 FROM v_edge WHERE {where}", run_id, direction, role, role)
        return dict(rows)

    def decisions(
        self,
        *,
        lora: str | None = None,
        image: str | None = None,
        sha256: str | None = None,
        rule: str | None = None,
        verdict: str | None = None,
        run_id: int | None = None,
    ) -> list[Decision]:
        """Return the decisions that fit all that is given, oldest first."""
        lora, image = lora and tidy(lora), image and tidy(image)
        asked = {"lora": lora, "image": image, "sha256": sha256, "rule": rule, "verdict": verdict, "run_id": run_id}
        given = {column: value for column, value in asked.items() if value is not None}
        where = " AND ".join(f"{column} = ?" for column in given) or "1"
        rows = self._all(f"SELECT * FROM v_decision WHERE {where} ORDER BY id", *given.values())
        return [Decision(*row) for row in rows]

    def changes(self, run_id: int) -> list[Change]:
        """Return what a run did to the set's files, in the order in which it is recorded."""
        columns = "place_before, place_after, sha256_before, sha256_after, text_before"
        rows = self._all(f"SELECT {columns} FROM v_change WHERE run_id = ? ORDER BY id", run_id)
        return [Change(*row) for row in rows]

    def changing(self, lora: str) -> list[RunRow]:
        """Return the runs that can be taken back and stand, newest first.

        These are the runs that changed files of this set but `undo`'s, what a person did in `review` or answered to
        the queue, and their choices of a save.
        """
        changed = "EXISTS (SELECT 1 FROM change WHERE run_id = run.id)"
        chosen = "step = 'pick' AND EXISTS (SELECT 1 FROM metric WHERE run_id = run.id AND name = 'agrees')"
        what = f"step <> 'undo' AND ({changed} OR {chosen} OR step IN ('review', 'retry') AND status = 'done')"
        rows = self._runs(f"lora = ? AND id > ? AND {what} ORDER BY id DESC", tidy(lora), self.begun(lora))
        undone = self.undone(lora)
        return [row for row in rows if row.ulid not in undone]

    def undone(self, lora: str) -> dict[str, int]:
        """Return the public ids of the runs that `undo` has taken back, each with the id of its run of `undo`."""
        rows = self._runs("lora = ? AND step = 'undo' AND status = 'done' ORDER BY id", tidy(lora))
        return {str(row.settings["undoes"]): row.id for row in rows}

    def children(self, sha256: str) -> list[Relative]:
        """Return every file that came from this one, nearest first."""
        return self._closure(sha256, "SELECT dst_sha256, how FROM v_derived WHERE src_sha256 = ? ORDER BY run_id")

    def parents(self, sha256: str) -> list[Relative]:
        """Return every file that this one came from, nearest first."""
        return self._closure(sha256, "SELECT src_sha256, how FROM v_derived WHERE dst_sha256 = ? ORDER BY run_id")

    def _closure(self, sha256: str, sql: str) -> list[Relative]:
        found = {sha256: Relative(sha256, 0, "")}
        for here in (queue := [sha256]):  # level by level, so the depth is the least, and a cycle ends
            for there, how in self._all(sql, here):
                if there not in found:
                    found[there] = Relative(there, found[here].depth + 1, how)
                    queue.append(there)
        return list(found.values())[1:]

    def places(self, sha256: str) -> list[tuple[str, str]]:
        """Return every (LoRA, name) under which the record knows these bytes."""
        decided = "SELECT lora, image FROM v_decision WHERE sha256 = ?"
        rows = self._all(f"SELECT lora, name FROM v_edge WHERE sha256 = ? UNION {decided}", sha256, sha256)
        return list(rows)

    def named(self, lora: str, name: str, role: str | None = None) -> list[str]:
        """Return every sha256 that a name within a LoRA has stood for, in this role if one is given."""
        edges = "SELECT sha256 FROM v_edge WHERE lora = ? AND name = ? AND (? IS NULL OR role = ?)"
        decided = "SELECT sha256 FROM v_decision WHERE lora = ? AND image = ? AND ? IS NULL"
        asked = (tidy(lora), tidy(name), role)
        return [sha256 for (sha256,) in self._all(f"{edges} UNION {decided}", *asked, role, *asked)]

    def metrics(self, run_id: int, name: str) -> list[tuple[int, float]]:
        """Return (step, value) in order of step."""
        rows = self._all("SELECT step, value FROM metric WHERE run_id = ? AND name = ? ORDER BY step", run_id, name)
        return [(step, math.nan if value is None else value) for step, value in rows]

    def users_of(self, sha256: str) -> list[RunRow]:
        """Return the trainings, finished or not, that saw this picture or anything that came from it."""
        return [_run_row(tuple(row.values())) for row in self.ask("trainings", sha256=sha256)]

    def ask(self, question: str, **values: object) -> list[dict[str, Any]]:
        """Return the answer to one of `QUESTIONS`, a table per row."""
        cursor = self._db.execute(QUESTIONS[question].sql, values)
        columns = [column[0] for column in cursor.description]
        return [dict(zip(columns, row, strict=True)) for row in cursor]


def _run_row(row: tuple[Any, ...]) -> RunRow:
    return RunRow(*(json.loads(value) if column == 7 else value for column, value in enumerate(row)))
