"""The queue: one job per LoRA, retries by class of failure, nothing stuck in `running`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lorafactory import step
from lorafactory.daemon import rows
from lorafactory.daemon.queue import CAPS, PAUSES, Queue, needing_you
from lorafactory.store import Store


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    with Store(tmp_path / "lorafactory.db") as store:
        yield Queue(store)


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=1)


def fail(queue: Queue, failure: str) -> str:
    """One try of the only job, whenever it is due; return its state afterwards."""
    job = queue.next(datetime.now(UTC) + timedelta(days=1))
    assert job is not None
    begun = queue.begin(job)
    assert begun is not None
    return queue.finish(begun, "failed", failure=failure, reason="it was said why").state


def test_a_lora_keeps_the_job_it_has(queue: Queue):
    first = queue.add("anna")
    again = queue.add("anna", priority=3)
    assert (again.id, again.ulid, again.priority, again.state) == (first.id, first.ulid, 3, "queued")
    queue.finish(again, "done")
    assert queue.add("anna").id != first.id


def test_order_is_priority_then_the_one_asked_for_first(queue: Queue):
    for name, priority in (("a", 0), ("b", 5), ("c", 5), ("d", 0)):
        queue.add(name, priority=priority)
    order = []
    while job := queue.next(soon()):
        order.append(job.lora)
        queue.finish(job, "done")
    assert order == ["b", "c", "a", "d"]


def test_what_began_is_not_begun_twice(queue: Queue):
    job = queue.add("anna")
    begun = queue.begin(job)
    assert begun is not None and begun.state == "running" and begun.started_at
    assert queue.begin(job) is None and queue.next(soon()) is None


@pytest.mark.parametrize("failure", CAPS)
def test_each_class_of_failure_has_its_number_of_tries(queue: Queue, failure: str):
    queue.add("anna")
    states = [fail(queue, failure) for _ in range(CAPS[failure] + 1)]
    assert states == ["queued"] * CAPS[failure] + ["failed"]
    (job,) = queue.jobs()
    assert (job.tries, job.failure, job.reason) == (CAPS[failure] + 1, failure, "it was said why")


def test_pauses_grow_for_what_goes_by_itself(queue: Queue):
    queue.add("anna")
    pauses = []
    for _ in range(CAPS["transient"]):
        before = datetime.now(UTC)
        fail(queue, "transient")
        (job,) = queue.jobs()
        pauses.append((datetime.fromisoformat(str(job.not_before)) - before).total_seconds())
        assert queue.next(soon()) is None
    assert [round(p, -1) for p in pauses] == list(PAUSES) and sorted(pauses) == pauses


def test_a_stop_counts_as_no_try(queue: Queue):
    job = queue.begin(queue.add("anna"))
    assert job is not None
    stopped = queue.finish(job, "queued", reason="stopped")
    assert (stopped.state, stopped.tries, stopped.failure) == ("queued", 0, None)
    assert queue.next(soon()) == stopped


def test_a_running_row_whose_lock_is_free_is_queued_again(queue: Queue):
    queue.begin(queue.add("dead"))
    queue.begin(queue.add("alive"))
    with step.locked(queue.space.lora("alive")):
        assert [(j.lora, j.state, j.tries, j.failure) for j in queue.recover()] == [("dead", "queued", 1, "died")]
        assert [j.lora for j in queue.jobs() if j.state == "running"] == ["alive"]
    assert [j.lora for j in queue.recover()] == ["alive"]


def test_what_a_dead_worker_left_running_in_the_record_was_interrupted(queue: Queue):
    for name in ("dead", "alive"):
        queue.begin(queue.add(name))
        with queue.store.run(name, "train", version=1, key="k", settings={}), step.locked(queue.space.lora(name)):
            pass
    with queue.store.transaction() as db:
        db.execute("UPDATE run SET status = 'running'")
    with step.locked(queue.space.lora("alive")):
        queue.recover()
    assert {run.lora: run.status for run in queue.store.runs()} == {"dead": "interrupted", "alive": "running"}


def test_what_always_kills_its_worker_is_not_tried_for_ever(queue: Queue):
    queue.add("poison")
    for _ in range(CAPS["died"] + 1):
        job = queue.next(soon())
        assert job is not None
        queue.begin(job)
        queue.recover()
    (job,) = queue.jobs()
    assert job.state == "failed" and needing_you(queue.newest()) == [job]


def test_recover_makes_no_folder_of_a_lora_that_is_not_there(queue: Queue):
    queue.begin(queue.add("ghost"))
    queue.recover()
    assert not queue.space.lora("ghost").root.exists()


def test_what_waited_is_done_once_a_person_has_trained_it(queue: Queue):
    queue.finish(queue.add("anna"), "waiting", reason="look at it")
    assert queue.recover() == [] and len(needing_you(queue.newest())) == 1
    with queue.store.run("anna", "train", version=1, key="k", settings={}):
        pass
    assert [(j.lora, j.state) for j in queue.recover()] == [("anna", "done")]
    assert needing_you(queue.newest()) == []


def test_more_pictures_wake_what_waits(queue: Queue):
    queue.finish(queue.add("anna"), "waiting", reason="look at it")
    rows.claim(queue.store, "01ULID", "anna")
    rows.promise(queue.store, "01ULID", "anna", "sha256")
    drop = rows.find(queue.store, "01ULID")
    assert drop is not None
    rows.ingest(queue.store, drop, "anna")
    assert [(j.lora, j.state) for j in queue.recover()] == [("anna", "queued")]


def test_a_job_given_up_needs_nobody(queue: Queue):
    assert queue.give_up(queue.add("anna")).state == "failed"
    assert needing_you(queue.newest()) == []
