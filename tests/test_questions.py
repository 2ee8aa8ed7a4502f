"""The questions that `why` asks: answered from indexes alone, also by Datasette; and the record under contention."""

from __future__ import annotations

import math
import os
import random
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lorafactory import migrations, questions
from lorafactory.questions import QUESTIONS
from lorafactory.store import Store
from tests.bench.bench_record import answers, fill, sha
from tests.records import begin, forked, query

VALUES = {"sha256": sha("a"), "lora": "lora001", "run_id": 3, "role": "plan", "pixels": "p", "phash": 5, "place": "x"}
FOUND = re.compile(r"SCAN (hit|v_timeline|\(subquery-\d+\)|CONSTANT ROW)$")
"""What may be gone through whole: what was found so far."""


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("record") / "lorafactory.db"
    fill(path, 4, 80, 800)
    yield path


def test_every_question_is_answered_from_indexes_alone(record: Path) -> None:
    with Store(record, readonly=True) as store:
        for name, question in QUESTIONS.items():
            plan = [row[3] for row in store._db.execute(f"EXPLAIN QUERY PLAN {question.sql}", VALUES)]
            whole = [line for line in plan if line.startswith("SCAN") and not FOUND.match(line)]
            assert whole == [], f"{name}: {plan}"


def test_answers_of_a_small_record(record: Path) -> None:
    with Store(record, readonly=True) as store:
        assert all(milliseconds >= 0 for milliseconds in answers(store, 1).values())
        picture, original = sha(1, 7), sha("original", sha(1, 7))
        assert store.ask("pixels", pixels=sha("pixels", picture)) == [{"sha256": picture}]
        bits = int(picture[:16], 16) ^ 0b1010
        near = store.ask("near", phash=bits - (1 << 64) if bits >> 63 else bits)
        assert picture in [row["sha256"] for row in near]
        assert [row["lora"] for row in store.ask("trainings", sha256=original)] == ["lora001"]
        assert {row["sha256"] for row in store.ask("offspring", sha256=original)} == {picture, sha("save", 1)}
        (training,) = store.ask("lora", lora="lora001")
        assert (training["pictures"], training["definition"], training["revoked"]) == (20, sha("definition", 1), 0)
        assert len(store.ask("excluded", lora="lora001")) == 0  # a later run saw each of them
        assert store.ask("retries", lora="lora001") == [{"retries": 0}]


def test_revoked_once_and_for_good_with_what_came_of_it(record: Path, tmp_path: Path) -> None:
    path = tmp_path / "lorafactory.db"
    path.write_bytes(record.read_bytes())
    with Store(path) as store:
        store.revoke([sha("x"), sha("y")], "asked to by hf_" + "q7" * 17)
        store.revoke([sha("y")], "again")
        assert store.revoked() == {sha("x"): "asked to by [secret]", sha("y"): "asked to by [secret]"}
        rows = store.ask("revoked", sha256=sha("y"))
        assert [(row["cause"], row["agent"]) for row in rows] == [(sha("x"), "user")]


@pytest.mark.parametrize("version", range(1, len(migrations.MIGRATIONS)))
def test_every_earlier_schema_is_brought_to_the_newest(tmp_path: Path, version: int) -> None:
    import sqlite3

    path = tmp_path / "old.db"
    db = sqlite3.connect(path, isolation_level=None)
    for migration in migrations.MIGRATIONS[:version]:
        migration(db)
    db.execute(f"PRAGMA user_version = {version}")
    db.execute(f"PRAGMA application_id = {migrations.APPLICATION_ID}")
    db.close()
    children = [forked(open_once, path) for _ in range(4 if os.name != "nt" else 0)]
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * len(children)
    Store(path).close()
    Store(tmp_path / "fresh.db").close()
    schema = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
    assert query(path, schema) == query(tmp_path / "fresh.db", schema)
    assert query(tmp_path / f"old-version-{version}.db", "PRAGMA user_version") == [(version,)]


def open_once(path: Path) -> None:
    Store(path).close()


# ---------------------------------------------------------------- looking


def test_datasette_has_the_very_questions() -> None:
    path = Path(questions.__file__).with_name("datasette.yaml")
    assert path.read_text(encoding="utf-8") == questions.as_yaml(), "python -m lorafactory.questions writes it anew"


def test_no_question_is_called_as_a_table_is(record: Path) -> None:
    """Datasette 1.0 would show the table."""
    assert QUESTIONS.keys().isdisjoint(name for (name,) in query(record, "SELECT name FROM sqlite_master"))


# ---------------------------------------------------------------- many at once, and killed


def write_on(path: Path, name: str, runs: float, until: float = math.inf, cpu_s: float = 0) -> None:
    """Write runs one after the other, and say of each whose end is on disk that it is.

    After `cpu_s` seconds of work a signal that nothing handles ends the process, wherever it is.
    """
    with Store(path) as store, path.with_name(f"{name}.done").open("w") as told:
        if cpu_s:
            signal.signal(signal.SIGPROF, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_PROF, cpu_s)
        number = 0
        while number < runs and time.monotonic() < until:
            with begin(store, "dedupe", name) as run:
                for picture in range(20):
                    run.note(f"{picture}.png", sha(name, number, picture), "kept", "equal")
            number += 1
            told.write(f"{run.ulid}\n")
            told.flush()


def whole(path: Path) -> int:
    """Nothing that was said to be written is lost, and no run is half there; return how many ended."""
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    ended = {ulid for (ulid,) in query(path, "SELECT ulid FROM run WHERE status = 'done'")}
    said = {line for told in path.parent.glob("*.done") for line in told.read_text().splitlines() if len(line) == 26}
    assert said <= ended
    counts = "SELECT DISTINCT r.status, count(d.id) FROM run r LEFT JOIN decision d ON d.run_id = r.id GROUP BY r.id"
    assert set(query(path, counts)) <= {("done", 20), ("running", 0)}
    return len(ended)


def contend(path: Path, processes: int, runs: float, until: float = math.inf) -> int:
    children = [forked(write_on, path, f"lora{n}", runs, until) for n in range(processes)]
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * processes
    return whole(path)


def kill_often(path: Path, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    for number in range(kills):
        child = forked(write_on, path, f"lora{number}", math.inf, math.inf, chance.uniform(0.001, 0.05))
        child.join()
        assert child.exitcode == -signal.SIGPROF
    assert whole(path) > 0


forks = pytest.mark.skipif(os.name == "nt", reason="needs fork")


@forks
def test_a_few_processes_at_once_lose_nothing(tmp_path: Path) -> None:
    assert contend(tmp_path / "lorafactory.db", 3, 15) == 45


@forks
def test_a_writer_killed_anywhere_leaves_a_whole_record(tmp_path: Path) -> None:
    kill_often(tmp_path / "lorafactory.db", 6, 1)


@forks
@pytest.mark.slow
def test_eight_processes_for_a_minute_lose_nothing(tmp_path: Path) -> None:
    assert contend(tmp_path / "lorafactory.db", 8, math.inf, time.monotonic() + 60) > 8


@forks
@pytest.mark.slow
def test_a_writer_killed_200_times_leaves_a_whole_record(tmp_path: Path) -> None:
    kill_often(tmp_path / "lorafactory.db", 200, 2)
