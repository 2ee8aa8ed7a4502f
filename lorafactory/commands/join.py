"""Merge the record of another workspace into this one's, so that `why` knows what was made there too.

Runs, decisions, lineage, texts, numbers and revocations come over; rows are only added, so joining twice adds nothing.
Its files are not touched: copy loras/NAME here as well to go on with a LoRA. Its inbox and queue stay its own, and a
run that is at work there comes with the next join.

A LoRA that both have is one LoRA as long as one record only adds to what the other has of it. If each has runs of its
own, they are two: the other one goes by its place, as in `lora why /mnt/old/loras/anna`.

\b
For example:
  lora join /mnt/old              a workspace
  lora join old-lorafactory.db    a copy of its record
"""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click

from lorafactory import dataset
from lorafactory.commands._forbidden import kin
from lorafactory.errors import InputError
from lorafactory.options import json_option, workspace_option
from lorafactory.setcheck import count
from lorafactory.store import Store, tidy
from lorafactory.workspace import Workspace, find_workspace

# A run of ours that broke off may have ended there: a workspace can be copied while it works. What ours lacks of a run
# is what follows on what it has, as rows are only added. `same` maps their bytes to ours, `bring` their runs.
PREPARE = """
INSERT INTO main.env SELECT id, json FROM theirs.env WHERE true ON CONFLICT DO NOTHING;
INSERT INTO main.blob (sha256) SELECT sha256 FROM theirs.blob WHERE true ORDER BY id ON CONFLICT DO NOTHING;
CREATE TEMP TABLE same (their INTEGER PRIMARY KEY, our INTEGER NOT NULL);
INSERT INTO same SELECT t.id, o.id FROM theirs.blob t JOIN main.blob o USING (sha256);
CREATE TEMP TABLE bring (their INTEGER PRIMARY KEY, our INTEGER, lora TEXT, decisions INTEGER, changes INTEGER);
INSERT INTO bring (their, our, lora) SELECT t.id, o.id, t.lora FROM theirs.run t LEFT JOIN main.run o USING (ulid)
  WHERE o.id IS NULL AND t.status <> 'running'
  OR o.status IN ('running', 'interrupted') AND t.status IN ('done', 'failed', 'stopped')"""
COPY = """
INSERT INTO main.run (ulid, lora, step, version, status, key, settings, started_at, agent, env_id)
  SELECT t.ulid, b.lora, t.step, t.version, t.status, t.key, t.settings, t.started_at, t.agent, t.env_id
  FROM bring b JOIN theirs.run t ON t.id = b.their WHERE b.our IS NULL ORDER BY t.id;
UPDATE bring SET our = (SELECT o.id FROM theirs.run t JOIN main.run o USING (ulid) WHERE t.id = bring.their);
UPDATE bring SET decisions = (SELECT count(*) FROM main.decision WHERE run_id = our),
  changes = (SELECT count(*) FROM main.change WHERE run_id = our);
UPDATE main.run SET status = t.status, ended_at = t.ended_at, wall_s = t.wall_s, error = t.error, parent = (
    SELECT o.id FROM theirs.run p JOIN main.run o USING (ulid) WHERE p.id = t.parent)
  FROM bring b JOIN theirs.run t ON t.id = b.their WHERE b.our = run.id;
INSERT INTO main.edge (run_id, direction, role, name, blob_id)
  SELECT b.our, e.direction, e.role, e.name, s.our FROM bring b JOIN theirs.edge e ON e.run_id = b.their
  JOIN same s ON s.their = e.blob_id WHERE true ON CONFLICT DO UPDATE SET blob_id = excluded.blob_id;
INSERT INTO main.derived (dst_id, src_id, run_id, how)
  SELECT x.our, y.our, b.our, d.how FROM bring b JOIN theirs.derived d ON d.run_id = b.their
  JOIN same x ON x.their = d.dst_id JOIN same y ON y.their = d.src_id WHERE true ON CONFLICT DO NOTHING;
INSERT INTO main.metric (run_id, name, step, value)
  SELECT b.our, m.name, m.step, m.value FROM bring b JOIN theirs.metric m ON m.run_id = b.their
  WHERE true ON CONFLICT DO UPDATE SET value = excluded.value;
INSERT INTO main.decision (run_id, at, image, blob_id, verdict, rule, score, threshold, rival, rival_id, before, after,
    note)
  SELECT b.our, d.at, d.image, s.our, d.verdict, d.rule, d.score, d.threshold, d.rival, o.our, d.before, d.after, d.note
  FROM (SELECT *, row_number() OVER (PARTITION BY run_id ORDER BY id) AS nth FROM theirs.decision) d
  JOIN bring b ON b.their = d.run_id AND d.nth > b.decisions
  JOIN same s ON s.their = d.blob_id LEFT JOIN same o ON o.their = d.rival_id ORDER BY d.id;
INSERT INTO main.change (run_id, place_before, place_after, before_id, after_id)
  SELECT b.our, c.place_before, c.place_after, x.our, y.our
  FROM (SELECT *, row_number() OVER (PARTITION BY run_id ORDER BY id) AS nth FROM theirs.change) c
  JOIN bring b ON b.their = c.run_id AND c.nth > b.changes
  LEFT JOIN same x ON x.their = c.before_id LEFT JOIN same y ON y.their = c.after_id ORDER BY c.id;
INSERT INTO main.look (blob_id, pixels, phash)
  SELECT s.our, l.pixels, l.phash FROM theirs.look l JOIN same s ON s.their = l.blob_id
  WHERE true ON CONFLICT DO NOTHING;
INSERT INTO main.content (blob_id, bytes)
  SELECT s.our, c.bytes FROM theirs.content c JOIN same s ON s.their = c.blob_id WHERE true ON CONFLICT DO NOTHING"""
REVOKED = """SELECT v.ulid, b.sha256, v.at, v.reason, v.agent, c.sha256
  FROM theirs.revocation v JOIN theirs.blob b ON b.id = v.blob_id
  LEFT JOIN theirs.revocation o ON o.id = v.cause_id LEFT JOIN theirs.blob c ON c.id = o.blob_id ORDER BY v.id"""
ALONE = "SELECT 1 FROM main.run WHERE lora = ? AND ulid NOT IN (SELECT ulid FROM theirs.run) LIMIT 1"


@dataclass
class Joined:
    """What came over."""

    record: str
    runs: int = 0
    decisions: int = 0
    loras: list[str] = field(default_factory=list)
    """The LoRAs that these are of, by their names here."""
    renamed: dict[str, str] = field(default_factory=dict)
    """Those that are called otherwise here, as this record has another of that name: their name there, and here."""
    at_work: int = 0
    """Runs that had no end there, and were left out."""
    revoked: int = 0
    """Files that may not be used any more, from now on here too."""
    forbidden: dict[str, str] = field(default_factory=dict)
    """Pictures of sets here that are among them, and why."""


def record_of(space: Workspace, other: Path) -> Path:
    """The other workspace's record, or a copy of one; InputError if there is none."""
    record = (other / "lorafactory.db" if other.is_dir() else other).resolve()
    found = False
    with suppress(OSError), record.open("rb") as file:
        found = file.read(6) == b"SQLite"
    if not found:
        raise InputError(f"{record}: no record there\n    lora join FOLDER: a workspace, or a copy of its record")
    if record == space.record.resolve():
        raise InputError(f"{record} is the record of this workspace\n    lora join FOLDER: another workspace")
    return record


def join(store: Store, space: Workspace, record: Path) -> Joined:
    """Bring over what this record lacks."""
    done = Joined(str(record))
    with attached(store, record), store.transaction() as db:
        run_all(db, PREPARE)
        name_them(db, record.parent, done)
        run_all(db, COPY)
        count_them(db, done)
        run_all(db, "DROP TABLE same;\nDROP TABLE bring")
    known = store.revoked()
    for root, reason in store.select("SELECT DISTINCT coalesce(cause, sha256), reason FROM v_revocation"):
        marked = [sha for sha in kin(store, [root]) if sha not in known]
        if marked:
            store.revoke([root, *marked], reason)
            known |= dict.fromkeys(marked, reason)
            done.revoked += len(marked)
    done.forbidden = forbidden(space, known) if done.revoked else {}
    return done


@contextmanager
def attached(store: Store, record: Path) -> Iterator[None]:
    """The other record as `theirs`, for looking; `why` too brings one of an earlier version up to date."""
    Store(record, readonly=True).close()
    store.select("ATTACH ? AS theirs", f"{record.as_uri()}?mode=ro")
    try:
        yield
    finally:
        store.select("DETACH theirs")


def run_all(db: sqlite3.Connection, script: str) -> None:
    for statement in script.split(";\n"):  # executescript would commit first
        db.execute(statement)


def name_them(db: sqlite3.Connection, root: Path, done: Joined) -> None:
    """Say under which names their LoRAs go here: the first that has no runs but theirs."""
    known: dict[str, list[str]] = {}
    for theirs, ours in db.execute("SELECT DISTINCT t.lora, o.lora FROM theirs.run t JOIN main.run o USING (ulid)"):
        known.setdefault(theirs, []).append(ours)
    for (lora,) in db.execute("SELECT DISTINCT lora FROM bring ORDER BY lora").fetchall():
        place = str(tidy(str(root / "loras" / lora if lora == Path(lora).name else f"{lora} of {root}")))
        others = (f"{place} ({n})" for n in itertools.count(2))
        names = itertools.chain(known.get(lora, []), (lora, place), others)
        name = next(name for name in names if not db.execute(ALONE, (name,)).fetchone())
        db.execute("UPDATE bring SET lora = ? WHERE lora = ?", (name, lora))
        done.loras.append(name)
        if name != lora:
            done.renamed[lora] = name


def count_them(db: sqlite3.Connection, done: Joined) -> None:
    """Bring the revocations over, and count what came."""
    sql = """INSERT INTO main.revocation (ulid, blob_id, at, reason, agent, cause_id)
      VALUES (?, (SELECT id FROM main.blob WHERE sha256 = ?), ?, ?, ?, (SELECT v.id FROM main.revocation v
        JOIN main.blob b ON b.id = v.blob_id WHERE b.sha256 = ?)) ON CONFLICT DO NOTHING"""
    done.revoked = sum(db.execute(sql, row).rowcount for row in db.execute(REVOKED).fetchall())
    counted = """SELECT count(*), coalesce(sum((SELECT count(*) FROM main.decision WHERE run_id = our) - decisions), 0)
      FROM bring"""
    done.runs, done.decisions = db.execute(counted).fetchone()
    running = "SELECT count(*) FROM theirs.run WHERE status = 'running' AND ulid NOT IN (SELECT ulid FROM main.run)"
    done.at_work = db.execute(running).fetchone()[0]


def forbidden(space: Workspace, revoked: dict[str, str]) -> dict[str, str]:
    """The pictures of the sets here that are revoked, as NAME/PICTURE, with the reason."""
    found: dict[str, str] = {}
    for folder in sorted(space.loras.glob("*/")):
        place = space.lora(folder.name)
        for subset in dataset.read_set(place.root, place.images).subsets:
            hashes = {f"{place.name}/{p.name}": dataset.hash_of(p.path) for p in subset.pictures}
            found |= {name: revoked[sha] for name, sha in hashes.items() if sha in revoked}
    return found


def lines(done: Joined) -> list[str]:
    told = [f"{done.record}: nothing that this record lacks"]
    if done.runs:
        told = [f"{done.record}: {count(done.runs, 'run')} of {', '.join(done.loras)}, {done.decisions} decisions"]
    told += [f"  {lora} there is not the {lora} of here: lora why {name!r}" for lora, name in done.renamed.items()]
    if done.at_work:
        told.append(f"  {count(done.at_work, 'run')} there had no end yet: join again when all is done there")
    told += [f"  {count(done.revoked, 'file')} may not be used any more, here too"] if done.revoked else []
    for name, reason in done.forbidden.items():
        told.append(f"    lora revoke {name} --reason {json.dumps(reason)}    takes it out of its set")
    return told


@click.command(help=__doc__)
@click.argument("other", type=click.Path(path_type=Path))
@json_option
@workspace_option
def command(other: Path, as_json: bool, workspace: Path | None) -> None:
    space = find_workspace(workspace)
    record = record_of(space, other.expanduser())
    with Store(space.record) as store:
        done = join(store, space, record)
    click.echo(json.dumps(asdict(done)) if as_json else "\n".join(lines(done)))
