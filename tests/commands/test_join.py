"""`lora join`: what another record knows comes over, once, and nothing of ours changes."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorafactory.errors import InputError, RecordError
from lorafactory.questions import QUESTIONS
from lorafactory.recording import Change
from lorafactory.store import Run, Store
from tests.records import begin, query, sha

TABLES = ("env", "blob", "run", "edge", "derived", "metric", "decision", "change", "look", "content", "revocation")


def fill(run: Run, letter: str) -> None:
    """One row in every table that a run can write to."""
    run.note("0001.png", sha(letter), "kept", "near", score=0.5, threshold=0.9, rival="0002.png", rival_sha256=sha("f"))
    run.used("sees", "0001.png", sha(letter))
    run.made("picture", "0001.png", sha(letter))
    run.kept("plan", "plan.json", f"the plan of {letter}")
    run.derived(sha(letter), sha("0" + letter)[:64], "png")
    run.looked(sha(letter), sha("9"), 5)
    run.changed(Change("1_x/0001.txt", "1_x/0001.txt", sha("7"), sha("8"), b"words before"))
    run.metric(1, "loss", 0.25)


@pytest.fixture
def ours(space: Path) -> Path:
    with Store(space / "lorafactory.db") as store, begin(store, "dedupe", "anna") as run:
        fill(run, "a")
    return space / "lorafactory.db"


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    with Store(tmp_path / "old" / "lorafactory.db") as store:
        with begin(store, "make", "bert") as outer, begin(store, "dedupe", "bert", parent=outer.id) as run:
            fill(run, "b")
        with begin(store, "dedupe", "cleo") as run:
            fill(run, "c")
    return tmp_path / "old" / "lorafactory.db"


RUN_BOUND = {
    "run": "SELECT v.ulid, v.lora, v.step, v.status, v.settings, v.started_at, v.ended_at, v.wall_s, v.error, v.parent,"
    " v.agent, v.env FROM v_run v",
    "decision": "SELECT run, at, image, sha256, verdict, rule, score, threshold, rival, rival_sha256, before, after,"
    " note FROM v_decision",
    "edge": "SELECT run, direction, role, name, sha256 FROM v_edge",
    "derived": "SELECT run, dst_sha256, src_sha256, how FROM v_derived",
    "change": "SELECT ulid, place_before, place_after, sha256_before, sha256_after, text_before FROM v_change v"
    " JOIN run r ON r.id = v.run_id",
    "metric": "SELECT ulid, m.name, m.step, m.value FROM metric m JOIN run r ON r.id = m.run_id",
}
OF_FILES = {
    "env": "SELECT * FROM env",
    "look": "SELECT sha256, pixels, phash FROM look JOIN blob ON blob.id = blob_id",
    "content": "SELECT sha256, bytes FROM content JOIN blob ON blob.id = blob_id",
    "revocation": "SELECT * FROM v_revocation",
}


def rows(path: Path) -> dict[str, list[str]]:
    """All that a record says, by public ids and hashes."""
    return {name: sorted(map(repr, query(path, sql))) for name, sql in (RUN_BOUND | OF_FILES).items()}


def joined(lora: Callable[..., Any], other: Path) -> dict[str, Any]:
    said = lora("join", other, "--json")
    assert (said.code, said.err) == (0, "")
    found: dict[str, Any] = json.loads(said.out)
    return found


def test_all_of_it_comes_over_and_twice_is_once(lora: Any, ours: Path, theirs: Path) -> None:
    mine, other = rows(ours), rows(theirs)
    expected = {
        "record": str(theirs),
        "runs": 3,
        "decisions": 2,
        "loras": ["bert", "cleo"],
        "renamed": {},
        "at_work": 0,
    }
    assert joined(lora, theirs.parent) == {**expected, "revoked": 0, "forbidden": {}}
    both = {name: sorted([*mine[name], *other[name]]) for name in RUN_BOUND}
    assert rows(ours) == both | {name: sorted({*mine[name], *other[name]}) for name in OF_FILES}
    assert rows(theirs) == other
    counts = [query(ours, f"SELECT count(*) FROM {table}") for table in TABLES]
    assert joined(lora, theirs) == {**expected, "runs": 0, "decisions": 0, "loras": [], "revoked": 0, "forbidden": {}}
    assert [query(ours, f"SELECT count(*) FROM {table}") for table in TABLES] == counts
    assert query(ours, "PRAGMA integrity_check") == [("ok",)] and query(ours, "PRAGMA foreign_key_check") == []
    assert lora("join", theirs).out == f"{theirs}: nothing that this record lacks\n"


def test_why_answers_as_the_other_record_does(lora: Any, ours: Path, theirs: Path) -> None:
    joined(lora, theirs)
    with Store(ours, readonly=True) as here, Store(theirs, readonly=True) as there:
        run = {store: store.last("bert", "dedupe").id for store in (here, there)}
        for name, question in QUESTIONS.items():
            told = []
            for store in (here, there):
                values = {"sha256": sha("b"), "lora": "bert", "run_id": run[store], "role": "plan"}
                values |= {"pixels": sha("9"), "phash": 5, "place": "training_images/10_bert/b.png"}
                found = store.ask(name, **{k: v for k, v in values.items() if f":{k}" in question.sql})
                told.append([{k: v for k, v in row.items() if k not in ("id", "run_id", "parent")} for row in found])
            if name not in ("pixels", "near", "hours"):  # these ask about all LoRAs
                assert told[0] == told[1], name


def test_what_is_at_work_there_comes_when_it_ended(lora: Any, ours: Path, theirs: Path) -> None:
    with Store(theirs) as store, begin(store, "train", "dora") as run:
        run.made("save", "dora-000001.safetensors", sha("d"))
        first = joined(lora, theirs)
    assert (first["runs"], first["at_work"], first["loras"]) == (3, 1, ["bert", "cleo"])
    second = joined(lora, theirs)
    assert (second["runs"], second["at_work"], second["loras"]) == (1, 0, ["dora"])
    assert query(ours, "SELECT lora, status FROM v_lora") == [("dora", "done")]


def test_a_run_that_broke_off_here_and_ended_there_is_completed(lora: Any, ours: Path, tmp_path: Path) -> None:
    """A workspace was copied while it trained; the copy's record took the run for a dead one."""
    copy = tmp_path / "copy" / "lorafactory.db"
    copy.parent.mkdir()
    with Store(ours) as store, begin(store, "train", "dora") as run:
        for number in range(500):
            run.note(f"{number}.png", sha("d"), "kept", "near")
        run.changed(Change(None, "1_x/0001.png", None, sha("d")))
        shutil.copy(ours, copy)  # the 500 are on disk, the change is not
        shutil.copy(f"{ours}-wal", f"{copy}-wal")
        run.note("500.png", sha("d"), "kept", "near")
    with Store(copy) as store:
        store._open_runs = set()
        with store.transaction() as db:
            db.execute("UPDATE run SET status = 'interrupted' WHERE status = 'running'")
    before = query(copy, "SELECT id, at, image FROM decision")
    assert len([row for row in before if row[2] != "0001.png"]) == 500
    said = lora("join", ours, "--workspace", copy.parent, "--json")
    assert {k: json.loads(said.out)[k] for k in ("runs", "decisions", "renamed")} == {
        "runs": 1,
        "decisions": 1,
        "renamed": {},
    }
    assert query(copy, "SELECT id, at, image FROM decision")[: len(before)] == before
    assert rows(copy) == rows(ours)


# ---------------------------------------------------------------- names


def test_one_lora_goes_on_and_two_of_a_name_stay_two(lora: Any, ours: Path, theirs: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy" / "lorafactory.db"
    copy.parent.mkdir()
    shutil.copy(ours, copy)
    with Store(copy) as store, begin(store, "train", "anna"):
        pass
    assert joined(lora, copy)["renamed"] == {}, "theirs only adds to ours"
    with Store(ours) as store, begin(store, "pick", "anna"):
        pass
    with Store(copy) as store, begin(store, "compare", "anna"):
        pass
    place = str(copy.parent / "loras" / "anna")
    said = lora("join", copy)
    assert said.out.splitlines() == [
        f"{copy}: 1 run of {place}, 0 decisions",
        f"  anna there is not the anna of here: lora why {place!r}",
    ]
    with Store(copy) as store, begin(store, "pick", "anna"):
        pass
    assert joined(lora, copy)["renamed"] == {"anna": place}, "it keeps the name that it got"
    with Store(ours, readonly=True) as store:
        assert [run.step for run in store.runs("anna")] == ["pick", "train", "dedupe"]
        assert [run.step for run in store.runs(place)] == ["pick", "compare"]
    told = lora("why", place).out.splitlines()
    assert (told[0], [line.split()[2] for line in told[1:]]) == (place, ["pick", "compare"])
    with Store(theirs) as store, begin(store, "dedupe", "anna") as run:
        fill(run, "e")
    other = str(theirs.parent / "loras" / "anna")
    assert joined(lora, theirs)["renamed"] == {"anna": other}
    assert lora("why", f"{other}/0001.png").out.splitlines()[0] == f"{other}/0001.png"


def test_runs_of_all_loras_are_told_in_the_order_of_time(lora: Any, ours: Path, theirs: Path) -> None:
    with Store(ours) as store, begin(store, "caption", "anna"):
        pass
    joined(lora, theirs)
    with Store(ours, readonly=True) as store:
        assert (store.runs()[0].lora, store.runs()[0].step) == ("anna", "caption")


# ---------------------------------------------------------------- revocations


def test_what_was_revoked_there_is_forbidden_here_with_all_that_came_of_it(lora: Any, ours: Path, theirs: Path) -> None:
    folder = ours.parent / "loras" / "anna" / "training_images" / "1_x"
    folder.mkdir(parents=True)
    (folder / "0001.png").write_bytes(b"a picture")
    from lorafactory import images

    picture = images.sha256(folder / "0001.png")
    with Store(ours) as store, begin(store, "rename", "anna") as run:
        run.derived(picture, sha("d"), "png")
    with Store(theirs) as store:
        store.revoke([sha("d"), sha("e")], "asked to")
    found = joined(lora, theirs)
    assert (found["revoked"], found["forbidden"]) == (3, {"anna/0001.png": "asked to"})
    assert sorted(query(ours, "SELECT sha256, reason, cause FROM v_revocation")) == sorted(
        [(sha("d"), "asked to", None), (sha("e"), "asked to", sha("d")), (picture, "asked to", sha("d"))]
    )
    line = '    lora revoke anna/0001.png --reason "asked to"    takes it out of its set'
    with Store(theirs) as store:
        store.revoke([sha("1")], "another")
    said = lora("join", theirs).out.splitlines()
    assert said == [
        f"{theirs}: nothing that this record lacks",
        "  1 file may not be used any more, here too",
        line,
    ]
    assert lora("revoke", "anna/0001.png", "--reason", "asked to").code == 0
    assert not (folder / "0001.png").exists()
    assert joined(lora, theirs)["revoked"] == 0


def test_what_came_elsewhere_of_what_is_revoked_here_is_forbidden_too(lora: Any, ours: Path, theirs: Path) -> None:
    with Store(ours) as store:
        store.revoke([sha("d")], "asked to")
    with Store(theirs) as store, begin(store, "generate", "bert") as run:
        run.derived(sha("e"), sha("d"), "generated")
    assert joined(lora, theirs)["revoked"] == 1
    assert query(ours, "SELECT sha256, cause FROM v_revocation") == [(sha("d"), None), (sha("e"), sha("d"))]


# ---------------------------------------------------------------- what is no other record


def test_what_is_no_other_record_is_refused(lora: Any, ours: Path, tmp_path: Path) -> None:
    before = query(ours, "SELECT count(*) FROM run")
    said = lora("join", tmp_path / "nowhere")
    assert (said.code, said.err.splitlines()[0]) == (3, f"lora: {tmp_path}/nowhere: no record there")
    (tmp_path / "anna.safetensors").write_bytes(b"a LoRA")
    assert "no record there" in lora("join", tmp_path / "anna.safetensors").err
    assert lora("join", tmp_path / "nowhere", "--workspace", tmp_path / "none").code == 3
    assert not (tmp_path / "none").exists()
    said = lora("join", ours.parent)
    assert (said.code, said.err.splitlines()[0]) == (3, f"lora: {ours} is the record of this workspace")
    strange = tmp_path / "cake.db"
    db = sqlite3.connect(strange)
    db.execute("CREATE TABLE cake (sugar)")
    db.close()
    assert "another program" in lora("join", strange).err
    with pytest.raises(RecordError, match="another program"):
        Store(strange)
    assert query(ours, "SELECT count(*) FROM run") == before


def test_a_join_that_breaks_off_leaves_nothing_of_it(ours: Path, theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lorafactory.commands import join
    from lorafactory.workspace import Workspace

    before = rows(ours)
    monkeypatch.setattr(join, "COPY", f"{join.COPY};\nINSERT INTO nowhere VALUES (1)")
    with Store(ours) as store, pytest.raises((RecordError, InputError), match="nowhere"):
        join.join(store, Workspace(ours.parent, "test"), theirs)
    assert rows(ours) == before
    monkeypatch.undo()
    with Store(ours) as store:
        assert join.join(store, Workspace(ours.parent, "test"), theirs).runs == 3


def test_a_record_of_an_earlier_version_is_brought_up_to_date(lora: Any, ours: Path, tmp_path: Path) -> None:
    from lorafactory import migrations

    old = tmp_path / "old.db"
    db = sqlite3.connect(old, isolation_level=None)
    migrations.MIGRATIONS[0](db)
    db.execute("PRAGMA user_version = 1")
    db.execute(f"PRAGMA application_id = {migrations.APPLICATION_ID}")
    db.execute("INSERT INTO env VALUES ('e', '{}')")
    db.execute(
        "INSERT INTO run (ulid, lora, step, version, status, key, settings, started_at, env_id)"
        " VALUES ('u', 'bert', 'dedupe', 1, 'done', 'k', '{}', '2025-01-01T00:00:00.000Z', 'e')"
    )
    db.close()
    assert joined(lora, old)["loras"] == ["bert"]
    assert (tmp_path / "old-version-1.db").is_file()
