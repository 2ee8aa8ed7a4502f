"""The record's file: ours, whole, migrated, with nobody's secrets in it; nothing else's file is touched."""

from __future__ import annotations

import json
import os
import platform
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from lorafactory import migrations, recording
from lorafactory.errors import RecordError
from lorafactory.store import Store
from tests.records import begin, forked, query, sha


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lorafactory.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store(path) as opened:
        yield opened


# ---------------------------------------------------------------- the file


def test_new_file_is_ours_durable_and_whole(path: Path):
    with Store(path) as store:
        assert [tuple(store._db.execute(f"PRAGMA {p}").fetchone()) for p in ("synchronous", "foreign_keys")] == [
            (2,),
            (1,),
        ]
    assert query(path, "PRAGMA application_id") == [(migrations.APPLICATION_ID,)]
    assert query(path, "PRAGMA user_version") == [(len(migrations.MIGRATIONS),)]
    assert query(path, "PRAGMA journal_mode") == [("wal",)]
    assert query(path, "PRAGMA integrity_check") == [("ok",)]


def test_the_oldest_schema_is_brought_to_the_newest(path: Path):
    db = sqlite3.connect(path, isolation_level=None)
    migrations.MIGRATIONS[0](db)
    db.execute("PRAGMA user_version = 1")
    db.execute(f"PRAGMA application_id = {migrations.APPLICATION_ID}")
    db.execute("INSERT INTO env VALUES ('e', '{}')")
    db.execute(
        "INSERT INTO run (ulid, lora, step, version, status, key, settings, started_at, env_id)"
        " VALUES ('u', 'anna', 'dedupe', 1, 'done', 'k', '{\"clip\":0.9}', '2025-01-01T00:00:00.000Z', 'e')"
    )
    db.close()
    with Store(path) as store:
        assert store.last("anna", "dedupe").settings == {"clip": 0.9}
        with begin(store) as run:
            run.note("0001.png", sha("a"), "kept", "equal")
    with Store(path.with_name("fresh.db")):
        pass
    schema = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
    assert query(path, schema) == query(path.with_name("fresh.db"), schema)


def m002_colour(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE blob ADD COLUMN colour TEXT")


def m003_breaks(db: sqlite3.Connection) -> None:
    db.execute("CREATE TABLE half (id INTEGER)")
    db.execute("INSERT INTO nowhere VALUES (1)")


def test_migrating_backs_up_first_and_a_broken_migration_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch):
    with Store(path) as store, begin(store) as run:
        run.note("0001.png", sha("a"), "kept", "equal")
    first = len(migrations.MIGRATIONS)
    monkeypatch.setattr(migrations, "MIGRATIONS", [*migrations.MIGRATIONS, m002_colour, m003_breaks])
    with pytest.raises(RecordError, match="nowhere"):
        Store(path)
    assert query(path, "PRAGMA user_version") == [(first + 1,)]
    assert query(path, "SELECT name FROM sqlite_master WHERE name = 'half'") == []
    assert query(path, "SELECT sha256, colour FROM blob") == [(sha("a"), None)]
    backup = path.with_name(f"lorafactory-version-{first}.db")
    assert query(backup, "PRAGMA user_version") == [(first,)]
    assert query(backup, "SELECT sha256 FROM blob") == [(sha("a"),)]
    assert not list(path.parent.glob("*.partial"))


def test_looking_migrates_an_old_record(path: Path, monkeypatch: pytest.MonkeyPatch):
    Store(path).close()
    monkeypatch.setattr(migrations, "MIGRATIONS", [*migrations.MIGRATIONS, m002_colour])
    with Store(path, readonly=True) as store:
        assert store.runs() == []
    assert query(path, "SELECT colour FROM blob") == []


def test_newer_version_is_refused_and_left_alone(path: Path):
    Store(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    before = path.read_bytes()
    for readonly in (False, True):
        with pytest.raises(RecordError, match="newer lorafactory"):
            Store(path, readonly=readonly)
    assert path.read_bytes() == before


@pytest.mark.parametrize("readonly", [False, True])
def test_what_is_no_record_is_refused_and_left_alone(path: Path, readonly: bool):
    path.write_text("shopping list: " + "milk, " * 1000)
    before = path.read_bytes()
    with pytest.raises(RecordError, match=re.escape(str(path)) + ".*not a database"):
        Store(path, readonly=readonly)
    assert path.read_bytes() == before


def test_database_of_another_program_is_refused_and_left_alone(path: Path):
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE recipes (cake TEXT)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(RecordError, match="another program"):
        Store(path)
    assert path.read_bytes() == before


def test_looking_creates_nothing_and_writes_nothing(path: Path):
    with pytest.raises(RecordError, match="lora make NAME"):
        Store(path, readonly=True)
    assert not list(path.parent.iterdir())
    Store(path).close()
    with (
        Store(path, readonly=True) as store,
        pytest.raises(RecordError, match="looking only"),
        begin(store),
    ):
        pass
    assert query(path, "SELECT count(*) FROM run") == [(0,)]


# ---------------------------------------------------------------- what is written down


def test_nobody_and_no_secret_is_recorded(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/jane")
    monkeypatch.setenv("USERPROFILE", "/home/jane")
    key = "hf_" + "q7" * 17
    settings = {"base": Path("/home/jane/models/x.safetensors"), "other": "/home/janet/y", "hf_token": "hunter2"}
    with Store(path) as store:
        with pytest.raises(OSError, match="nothing there"), begin(store, settings=settings) as run:
            run.note("0001.png", sha("a"), "imported", "decodes", before="/home/jane/a.png", note=f"Bearer {key}")
            run.note(f"{key}.png", sha("b"), "kept", "a name stays")
            raise OSError(f"nothing there: '/home/jane/a.png' at https://jane:hunter2@example.org/?token={key}")
        row = store.runs()[0]
        assert row.settings == {"base": "~/models/x.safetensors", "other": "/home/janet/y", "hf_token": "[secret]"}
        assert row.error == "OSError: nothing there: '~/a.png' at https://[secret]@example.org/?token=[secret]"
        assert [(d.image, d.before, d.note) for d in store.decisions()] == [
            ("0001.png", "~/a.png", "Bearer [secret]"),
            (f"{key}.png", None, None),
        ]
        env = json.loads(store._all("SELECT env FROM v_run")[0][0])
    assert set(env) == {"packages", "platform", "python", "variables"}
    assert {"torch", "pillow"} <= set(env["packages"])
    assert platform.node() not in env["platform"].split()
    assert b"hunter2" not in path.read_bytes()
    assert b"/home/jane/" not in path.read_bytes()


def test_names_that_are_no_utf8_can_be_recorded_and_found(store: Store):
    name = os.fsdecode(b"caf\xe9.jpg")
    with begin(store) as run:
        run.note(name, sha("a"), "kept", "decodes")
    assert [d.sha256 for d in store.decisions(image=name)] == store.named("anna", name) == [sha("a")]


def test_ulids_sort_as_they_were_made(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recording, "_last", (0, 0, 0))
    monkeypatch.setattr(recording.time, "time_ns", lambda: 1_469_918_176_385_000_000)
    made = [recording.new_ulid() for _ in range(100)]
    assert made == sorted(set(made))
    assert {len(u) for u in made} == {26}
    assert made[0].startswith("01ARYZ6S41")  # the specification's own example
    monkeypatch.setattr(recording.time, "time_ns", lambda: 0)  # the clock went back
    assert recording.new_ulid() > made[-1]


def write_ulid(path: Path) -> None:
    path.write_text(recording.new_ulid())


@pytest.mark.skipif(os.name == "nt", reason="needs fork")
def test_ulids_of_forked_processes_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recording.time, "time_ns", lambda: 0)
    made = [recording.new_ulid()]
    for name in ("first", "second"):
        forked(write_ulid, tmp_path / name).join()
        made.append((tmp_path / name).read_text())
    assert len({ulid[10:] for ulid in made}) == 3
