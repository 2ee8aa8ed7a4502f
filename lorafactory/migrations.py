"""The record's schema, as named migrations that are only ever added.

`user_version` counts the migrations a file has had. Everything here runs inside the file lock that `store.py`
holds; each migration is one transaction, and a file that already is a record is copied beside itself first.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from lorafactory.errors import RecordError

APPLICATION_ID = 0x4C6F5241  # "LoRA", so that nobody takes another program's database for a record

# Rows refer to each other by integer: with text keys two million decisions took 900 MB. Views show hashes.
# No json_valid(): with trusted_schema off, SQLite 3.40 calls it unsafe.
_TABLES = """
CREATE TABLE blob (
  id INTEGER PRIMARY KEY, sha256 TEXT NOT NULL UNIQUE CHECK (sha256 <> '')
) STRICT;
CREATE TABLE env (
  id TEXT PRIMARY KEY, json TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE run (
  id INTEGER PRIMARY KEY, ulid TEXT NOT NULL UNIQUE, lora TEXT NOT NULL, step TEXT NOT NULL,
  version INTEGER NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('running', 'done', 'failed', 'stopped', 'interrupted')),
  key TEXT NOT NULL, settings TEXT NOT NULL, started_at TEXT NOT NULL,
  ended_at TEXT, wall_s REAL, error TEXT, parent INTEGER REFERENCES run (id),
  agent TEXT NOT NULL DEFAULT 'user', env_id TEXT NOT NULL REFERENCES env (id)
) STRICT;
CREATE INDEX run_lora ON run (lora, step, status);
CREATE TABLE edge (
  run_id INTEGER NOT NULL REFERENCES run (id), direction TEXT NOT NULL CHECK (direction IN ('in', 'out')),
  role TEXT NOT NULL, name TEXT NOT NULL, blob_id INTEGER NOT NULL REFERENCES blob (id),
  PRIMARY KEY (run_id, direction, role, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX edge_blob ON edge (blob_id, direction);
CREATE TABLE derived (
  dst_id INTEGER NOT NULL REFERENCES blob (id), src_id INTEGER NOT NULL REFERENCES blob (id),
  run_id INTEGER NOT NULL REFERENCES run (id), how TEXT NOT NULL,
  PRIMARY KEY (dst_id, src_id, run_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX derived_src ON derived (src_id);
CREATE TABLE decision (
  id INTEGER PRIMARY KEY, run_id INTEGER NOT NULL REFERENCES run (id), at TEXT NOT NULL, image TEXT NOT NULL,
  blob_id INTEGER NOT NULL REFERENCES blob (id), verdict TEXT NOT NULL, rule TEXT NOT NULL, score REAL,
  threshold REAL, rival TEXT, rival_id INTEGER REFERENCES blob (id), before TEXT, after TEXT, note TEXT
) STRICT;
CREATE INDEX decision_run ON decision (run_id);
CREATE INDEX decision_blob ON decision (blob_id);
CREATE TABLE metric (
  run_id INTEGER NOT NULL REFERENCES run (id), name TEXT NOT NULL, step INTEGER NOT NULL, value REAL,
  PRIMARY KEY (run_id, name, step)
) STRICT, WITHOUT ROWID
"""
_VIEWS = """
CREATE VIEW v_run AS
  SELECT r.id, r.ulid, r.lora, r.step, r.version, r.status, r.key, r.settings, r.started_at, r.ended_at,
         r.wall_s, r.error, p.ulid AS parent, r.agent, e.json AS env
  FROM run r LEFT JOIN run p ON p.id = r.parent JOIN env e ON e.id = r.env_id;
CREATE VIEW v_decision AS
  SELECT d.id, d.run_id, r.ulid AS run, r.step, r.lora, d.at, d.image, b.sha256, d.verdict, d.rule, d.score,
         d.threshold, d.rival, o.sha256 AS rival_sha256, d.before, d.after, d.note
  FROM decision d JOIN run r ON r.id = d.run_id JOIN blob b ON b.id = d.blob_id
  LEFT JOIN blob o ON o.id = d.rival_id;
CREATE VIEW v_edge AS
  SELECT e.run_id, r.ulid AS run, r.step, r.lora, e.direction, e.role, e.name, b.sha256
  FROM edge e JOIN run r ON r.id = e.run_id JOIN blob b ON b.id = e.blob_id;
CREATE VIEW v_derived AS
  SELECT d.run_id, r.ulid AS run, r.lora, x.sha256 AS dst_sha256, s.sha256 AS src_sha256, d.how
  FROM derived d JOIN run r ON r.id = d.run_id JOIN blob x ON x.id = d.dst_id JOIN blob s ON s.id = d.src_id
"""

# Texts are kept as bytes: a decision quotes them cleaned, and what is taken back is the same byte for byte.
_CHANGES = """
CREATE TABLE change (
  id INTEGER PRIMARY KEY, run_id INTEGER NOT NULL REFERENCES run (id), place_before TEXT, place_after TEXT,
  before_id INTEGER REFERENCES blob (id), after_id INTEGER REFERENCES blob (id)
) STRICT;
CREATE INDEX change_run ON change (run_id);
CREATE TABLE content (
  blob_id INTEGER PRIMARY KEY REFERENCES blob (id), bytes BLOB NOT NULL
) STRICT;
CREATE VIEW v_change AS
  SELECT c.id, c.run_id, c.place_before, c.place_after, b.sha256 AS sha256_before, a.sha256 AS sha256_after,
         t.bytes AS text_before
  FROM change c LEFT JOIN blob b ON b.id = c.before_id LEFT JOIN blob a ON a.id = c.after_id
  LEFT JOIN content t ON t.blob_id = c.before_id
"""

# A drop's row begins when it is claimed. What is to be with it is written here first, then done on disk.
_AUTOMATION = """
CREATE TABLE "drop" (
  id INTEGER PRIMARY KEY, ulid TEXT NOT NULL UNIQUE, name TEXT NOT NULL, lora TEXT,
  state TEXT NOT NULL CHECK (state IN ('claimed', 'ingested', 'quarantined', 'cleared')),
  sha256 TEXT, code TEXT, reason TEXT, claimed_at TEXT NOT NULL, ended_at TEXT
) STRICT;
CREATE INDEX drop_state ON "drop" (state);
CREATE INDEX drop_lora ON "drop" (lora);
CREATE TABLE job (
  id INTEGER PRIMARY KEY, ulid TEXT NOT NULL UNIQUE, lora TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'waiting', 'done', 'failed', 'paused')),
  priority INTEGER NOT NULL DEFAULT 0, tries INTEGER NOT NULL DEFAULT 0, not_before TEXT, failure TEXT,
  reason TEXT, asked_at TEXT NOT NULL, started_at TEXT, ended_at TEXT, wall_s REAL,
  drop_id INTEGER UNIQUE REFERENCES "drop" (id)
) STRICT;
CREATE UNIQUE INDEX job_active ON job (lora) WHERE state NOT IN ('done', 'failed');
CREATE INDEX job_state ON job (state, priority)
"""

# Perceptual hashes are found by five bands of their 64 bits: two that differ in at most four are equal in one.
_ASKED = """
CREATE TABLE look (
  blob_id INTEGER PRIMARY KEY REFERENCES blob (id), pixels TEXT NOT NULL, phash INTEGER NOT NULL
) STRICT;
CREATE INDEX look_pixels ON look (pixels);
CREATE INDEX look_band_1 ON look (phash & 8191);
CREATE INDEX look_band_2 ON look (phash >> 13 & 8191);
CREATE INDEX look_band_3 ON look (phash >> 26 & 8191);
CREATE INDEX look_band_4 ON look (phash >> 39 & 8191);
CREATE INDEX look_band_5 ON look (phash >> 52 & 4095);
CREATE TABLE revocation (
  id INTEGER PRIMARY KEY, ulid TEXT NOT NULL UNIQUE, blob_id INTEGER NOT NULL REFERENCES blob (id),
  at TEXT NOT NULL, reason TEXT NOT NULL, agent TEXT NOT NULL, cause_id INTEGER REFERENCES revocation (id)
) STRICT;
CREATE UNIQUE INDEX revocation_blob ON revocation (blob_id);
CREATE INDEX run_step ON run (step, lora);
CREATE INDEX job_lora ON job (lora);
CREATE VIEW v_revocation AS
  SELECT b.sha256, v.at, v.reason, v.agent, c.sha256 AS cause
  FROM revocation v JOIN blob b ON b.id = v.blob_id
  LEFT JOIN revocation o ON o.id = v.cause_id LEFT JOIN blob c ON c.id = o.blob_id;
CREATE VIEW v_lora AS
  SELECT r.lora, r.id AS run_id, r.ulid AS run, r.status, r.started_at, r.wall_s / 3600 AS hours,
         (SELECT count(*) FROM edge e WHERE e.run_id = r.id AND e.direction = 'in' AND e.role = 'trained on')
           AS pictures,
         (SELECT max(e.name) FROM edge e WHERE e.run_id = r.id AND e.direction = 'in' AND e.role = 'model') AS base,
         (SELECT e.name FROM edge e WHERE e.run_id = r.id AND e.direction = 'out' AND e.role = 'manifest')
           AS definition,
         EXISTS (SELECT 1 FROM edge e JOIN revocation v ON v.blob_id = e.blob_id
                 WHERE e.run_id = r.id AND e.direction = 'out' AND e.role = 'save') AS revoked,
         r.settings, n.json AS env
  FROM run r JOIN env n ON n.id = r.env_id WHERE r.step = 'train';
CREATE VIEW v_use AS
  SELECT r.lora, r.ulid AS run, r.status, r.started_at, e.name AS image, b.sha256
  FROM edge e JOIN run r ON r.id = e.run_id AND r.step = 'train' JOIN blob b ON b.id = e.blob_id
  WHERE e.direction = 'in' AND e.role = 'trained on';
CREATE VIEW v_excluded AS
  SELECT d.id, d.run_id, r.ulid AS run, r.step, r.lora, d.at, d.image, b.sha256, d.verdict, d.rule, d.score,
         d.threshold, d.rival, o.sha256 AS rival_sha256, d.before, d.after, d.note
  FROM run r CROSS JOIN decision d ON d.run_id = r.id JOIN blob b ON b.id = d.blob_id
  LEFT JOIN blob o ON o.id = d.rival_id
  WHERE d.verdict IN ('set aside', 'removed', 'refused') AND NOT EXISTS (
    SELECT 1 FROM decision e CROSS JOIN run q ON q.id = e.run_id
    WHERE e.blob_id = d.blob_id AND e.id > d.id AND q.lora = r.lora AND e.image = d.image AND (
      e.run_id <> d.run_id OR e.verdict IN ('put back', 'added', 'set aside', 'removed', 'refused')));
CREATE VIEW v_timeline AS
  SELECT r.lora, r.started_at AS at, r.step AS what, r.status || coalesce(': ' || r.error, '') AS detail FROM run r
  UNION ALL
  SELECT r.lora, d.at, d.verdict, d.image FROM run r CROSS JOIN decision d ON d.run_id = r.id WHERE r.step = 'by hand'
"""


def m001_runs_decisions_lineage(db: sqlite3.Connection) -> None:
    """Create the core: blobs, runs, what they read and wrote, decisions, lineage, metrics."""
    for statement in (_TABLES + ";" + _VIEWS).split(";\n"):  # executescript would commit in the middle
        db.execute(statement)


def m002_changes(db: sqlite3.Connection) -> None:
    """Add what a run moved, wrote or took away, file by file, and the texts that were there before."""
    for statement in _CHANGES.split(";\n"):
        db.execute(statement)


def m003_automation(db: sqlite3.Connection) -> None:
    """Add what came into the inbox, and the queue."""
    for statement in _AUTOMATION.split(";\n"):
        db.execute(statement)


def m004_questions(db: sqlite3.Connection) -> None:
    """Add what pictures look like, what was revoked, and views for those who ask."""
    for statement in _ASKED.split(";\n"):
        db.execute(statement)


MIGRATIONS: list[Callable[[sqlite3.Connection], None]] = [
    m001_runs_decisions_lineage,
    m002_changes,
    m003_automation,
    m004_questions,
]


def pending(db: sqlite3.Connection, path: Path) -> list[Callable[[sqlite3.Connection], None]]:
    """Return the migrations the file has not had; RecordError if the file is not for us."""
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    owner = int(db.execute("PRAGMA application_id").fetchone()[0])
    filled = int(db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    if owner != APPLICATION_ID and (owner or filled or version):
        hint = "move it away, or use another --workspace"
        raise RecordError(f"{path} is a database of another program.\n    {hint}")
    if version > len(MIGRATIONS):
        raise RecordError(
            f"{path} was written by a newer lorafactory (record version {version}, this one knows "
            f"{len(MIGRATIONS)}).\n    update lorafactory, or use another --workspace"
        )
    return MIGRATIONS[version:]


def migrate(db: sqlite3.Connection, path: Path) -> None:
    """Bring the file to the newest schema, one transaction per migration, a backup before the first."""
    todo = pending(db, path)
    version = len(MIGRATIONS) - len(todo)
    if todo and version:
        back_up(db, path.with_name(f"{path.stem}-version-{version}{path.suffix}"))
    for migration in todo:
        version += 1
        db.execute("BEGIN IMMEDIATE")
        try:
            migration(db)
            db.execute(f"PRAGMA user_version = {version}")
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise
    db.execute("PRAGMA journal_mode = WAL")


def back_up(db: sqlite3.Connection, target: Path) -> None:
    """Copy the database to `target`, whole or not at all."""
    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)
    db.execute("VACUUM INTO ?", (str(partial),))
    with partial.open("rb+") as handle:  # VACUUM INTO does not wait for the disk
        os.fsync(handle.fileno())
    partial.replace(target)
