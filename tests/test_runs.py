"""Runs, decisions and lineage in the record: what was noted is there afterwards, whatever went wrong."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lorafactory.errors import STOPPED, LoraError, RecordError
from lorafactory.store import Change, Run, Store
from tests.records import begin, forked, query, sha


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lorafactory.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store(path) as opened:
        yield opened


class StoppedError(LoraError):
    exit_code = STOPPED


# ---------------------------------------------------------------- runs


def test_a_run_is_a_row_from_before_it_begins(path: Path, store: Store):
    with begin(store, settings={"clip": 0.985, "rules": ("a", "b")}) as run:
        assert query(path, "SELECT ulid, status, ended_at FROM run") == [(run.ulid, "running", None)]
    row = store.last("anna", "dedupe", key="k")
    assert (row.id, row.ulid, row.status, row.error, row.version) == (run.id, run.ulid, "done", None, 1)
    assert row.settings == {"clip": 0.985, "rules": ["a", "b"]}
    assert row.ended_at >= row.started_at
    assert 0 <= row.wall_s < 5
    assert store.last("anna", "dedupe", key="other") is None
    assert store.last("anna", "caption") is None
    assert store.last("bert", "dedupe") is None


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (ValueError("no such picture\nand more"), "failed", "ValueError: no such picture"),
        (RecordError("the base is missing\n    lora init"), "failed", "the base is missing"),
        (RuntimeError(), "failed", "RuntimeError"),
        (KeyboardInterrupt(), "stopped", "KeyboardInterrupt"),
        (SystemExit(1), "stopped", "SystemExit: 1"),
        (StoppedError("it is 07:30"), "stopped", "it is 07:30"),
    ],
)
def test_what_was_noted_survives_the_error(store: Store, error: BaseException, status: str, told: str):
    with pytest.raises(type(error)), begin(store) as run:
        run.note("0001.png", sha("a"), "kept", "equal")
        run.made("picture", "0001.png", sha("a"))
        run.metric(1, "loss", 0.5)
        raise error
    row = store.runs("anna")[0]
    assert (row.status, row.error) == (status, told)
    assert store.last("anna", "dedupe") is None
    assert store.last("anna", "dedupe", status=status) == row
    assert [d.image for d in store.decisions(run_id=run.id)] == ["0001.png"]
    assert store.edges(run.id, "out") == {"0001.png": sha("a")}
    assert store.metrics(run.id, "loss") == [(1, 0.5)]


def test_notes_are_written_every_500_rows(path: Path, store: Store):
    with begin(store) as run:
        for number in range(1, 500):
            run.metric(number, "loss", number / 2)
        assert query(path, "SELECT count(*) FROM metric") == [(0,)]
        run.metric(500, "loss", 250)
        assert query(path, "SELECT count(*) FROM metric") == [(500,)]
        run.metric(501, "loss", 250.5)
    assert store.metrics(run.id, "loss") == [(n, n / 2) for n in range(1, 502)]


def test_a_run_that_ended_takes_no_more_notes(store: Store):
    with begin(store) as run:
        pass
    with pytest.raises(RuntimeError, match=run.ulid):
        run.made("picture", "0001.png", sha("a"))


def test_runs_nest_and_are_listed_newest_first(store: Store):
    with begin(store, "make") as outer, begin(store, "dedupe", parent=outer.id) as inner:
        pass
    with begin(store, "dedupe", "bert"):
        pass
    assert [(r.lora, r.step, r.parent) for r in store.runs()] == [
        ("bert", "dedupe", None),
        ("anna", "dedupe", outer.id),
        ("anna", "make", None),
    ]
    assert [r.id for r in store.runs("anna", limit=1)] == [inner.id]
    assert store._all("SELECT parent FROM v_run WHERE id = ?", inner.id) == [(outer.ulid,)]


def die_in_a_run(path: Path) -> None:
    with begin(Store(path), "train") as run:
        run.metric(1, "loss", 0.5)
        os._exit(9)


@pytest.mark.skipif(os.name == "nt", reason="needs fork")
def test_runs_of_a_process_that_died_become_interrupted_and_others_stay(path: Path):
    child = forked(die_in_a_run, path)
    child.join()
    assert child.exitcode == 9
    with Store(path) as store, begin(store, "make") as mine, begin(store, "train", "bert") as other:
        assert [(r.step, r.status) for r in store.interrupt("anna")] == [("train", "interrupted")]
        assert store.interrupt("anna") == []
        assert {r.id: r.status for r in store.runs()}[mine.id] == "running"
        assert store.last("bert", "train", status="running").id == other.id
    assert query(path, "SELECT step, lora, status FROM run ORDER BY id") == [
        ("train", "anna", "interrupted"),
        ("make", "anna", "done"),
        ("train", "bert", "done"),
    ]


def write_fifty(path: Path, name: str) -> None:
    with Store(path) as store:
        for number in range(50):
            with begin(store, "dedupe", name) as run:
                run.note(f"{number:04}.png", sha("a"), "kept", "equal")


@pytest.mark.skipif(os.name == "nt", reason="needs fork")
def test_four_processes_lose_nothing(path: Path):
    names = ["anna", "bert", "cleo", "dora"]
    children = [forked(write_fifty, path, name) for name in names]  # all begin by creating the file
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0, 0]
    counts = "SELECT lora, count(*), count(DISTINCT image), count(DISTINCT run) FROM v_decision GROUP BY lora"
    assert query(path, counts) == [(name, 50, 50, 50) for name in names]
    assert query(path, "SELECT count(DISTINCT ulid) FROM run WHERE status = 'done'") == [(200,)]
    assert query(path, "PRAGMA integrity_check") == [("ok",)]


# ---------------------------------------------------------------- decisions and lineage


def test_a_decision_comes_back_as_it_was_noted(store: Store):
    with begin(store) as run:
        run.note(
            "0002.png",
            sha("b"),
            "set aside",
            "near",
            score=0.991,
            threshold=0.985,
            rival="0001.png",
            rival_sha256=sha("a"),
            before="training_images/1_x/0002.png",
            after="set_aside/near/0002.png",
            note="größer",
        )
        run.note("0001.png", sha("a"), "kept", "near", score=math.nan)
    aside, kept = store.decisions(lora="anna")
    assert (aside.run, aside.run_id, aside.step, aside.lora) == (run.ulid, run.id, "dedupe", "anna")
    assert (aside.image, aside.sha256, aside.verdict, aside.rule) == ("0002.png", sha("b"), "set aside", "near")
    assert (aside.score, aside.threshold, aside.rival, aside.rival_sha256) == (0.991, 0.985, "0001.png", sha("a"))
    assert (aside.before, aside.after) == ("training_images/1_x/0002.png", "set_aside/near/0002.png")
    assert aside.note == "größer"
    assert (kept.score, kept.rival, kept.rival_sha256) == (None, None, None)
    assert store.decisions(image="0001.png") == store.decisions(sha256=sha("a"), run_id=run.id) == [kept]
    assert store.decisions(lora="anna", rule="by hand") == store.decisions(lora="bert") == []


def test_edges_by_direction_and_role_and_the_last_word_counts(store: Store):
    with begin(store) as run:
        run.used("sees", "0001.png", sha("a"))
        run.made("picture", "0001.png", sha("b"))
        run.made("picture", "0001.png", sha("c"))
        run.made("caption", "0001.txt", sha("d"))
    assert store.edges(run.id, "in") == {"0001.png": sha("a")}
    assert store.edges(run.id, "out") == {"0001.png": sha("c"), "0001.txt": sha("d")}
    assert store.edges(run.id, "out", "caption") == {"0001.txt": sha("d")}
    assert store.named("anna", "0001.png", "picture") == [sha("c")]
    assert store.places(sha("a")) == [("anna", "0001.png")]


def test_the_last_run_that_left_something(store: Store):
    with begin(store) as left:
        left.made("picture", "0001.png", sha("a"))
    with begin(store, "make"):
        pass
    with pytest.raises(ValueError, match="x"), begin(store, "caption") as failed:
        failed.made("picture", "0001.png", sha("b"))
        raise ValueError("x")
    assert store.last_of("anna").id == failed.id > left.id  # what it had moved was not moved by hand
    assert store.last_of("bert") is None


def test_what_a_run_changed_comes_back_with_the_texts_it_replaced(store: Store):
    moved = Change("1_x/0001.png", "set_aside/similar/0001.png", sha("a"), sha("a"))
    written = Change("1_x/0002.txt", "1_x/0002.txt", sha("b"), sha("c"), "caf\u00e9\r\n".encode("latin-1"))
    with begin(store) as run:
        for change in (moved, written, Change(None, "1_x/0003.txt", None, sha("d"))):
            run.changed(change)
    assert store.changes(run.id) == [moved, written, Change(None, "1_x/0003.txt", None, sha("d"))]


def test_what_was_taken_back_is_not_offered_again(store: Store):
    for _ in range(2):
        with begin(store) as run:
            run.changed(Change(None, "1_x/0003.txt", None, sha("d")))
    with begin(store, "filter"):
        pass
    newest, older = store.changing("anna")
    with begin(store, "undo", settings={"undoes": newest.ulid}) as undo:
        undo.changed(Change("1_x/0003.txt", None, sha("d"), None))
    with pytest.raises(ValueError, match="x"), begin(store, "undo", settings={"undoes": older.ulid}):
        raise ValueError("x")
    assert store.undone("anna") == {newest.ulid: undo.id}
    assert store.changing("anna") == [older]


def test_lineage_goes_all_the_way_and_ends_in_a_circle(store: Store):
    with begin(store, "rename") as run:
        run.derived(sha("b"), sha("a"), "converted")
        run.derived(sha("c"), sha("b"), "cropped")
        run.derived(sha("a"), sha("c"), "restored")
        run.derived(sha("d"), sha("a"), "converted")
        run.derived(sha("a"), sha("a"), "copied")
    found = [(r.sha256[0], r.depth, r.how) for r in store.children(sha("a"))]
    assert found == [("b", 1, "converted"), ("d", 1, "converted"), ("c", 2, "cropped")]
    assert [(r.sha256[0], r.depth) for r in store.parents(sha("c"))] == [("b", 1), ("a", 2)]
    assert store.children(sha("e")) == []


def train(store: Store, lora: str, pictures: str, save: str, caption: str = "t") -> Run:
    with begin(store, "train", lora) as run:
        for letter in pictures:
            run.used("sees", f"{letter}.png", sha(letter))
            run.used("sees", f"{letter}.txt", sha(caption))
            run.made("picture", f"{letter}.png", sha(letter))
        run.made("save", f"{lora}-000001.safetensors", sha(save))
    return run


def test_users_of_a_picture_also_through_a_synthetic_one(store: Store):
    with begin(store, "rename") as run:
        run.derived(sha("b"), sha("a"), "converted")
        run.derived(sha("t"), sha("b"), "captioned")
    first = train(store, "anna", "bc", save="s")
    with begin(store, "generate", "dora") as run:
        run.derived(sha("g"), sha("s"), "generated")
    second = train(store, "dora", "gh", save="z")
    train(store, "cleo", "c", save="y")  # shares a picture and every caption with anna, and nothing with a
    assert [(row.lora, row.id) for row in store.users_of(sha("a"))] == [("anna", first.id), ("dora", second.id)]
    assert [row.lora for row in store.users_of(sha("c"))] == ["anna", "dora", "cleo"]
    assert [row.lora for row in store.users_of(sha("h"))] == ["dora"]
    assert store.users_of(sha("e")) == []
