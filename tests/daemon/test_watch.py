"""The daemon: what it starts, stops, pauses and says; with workers that are only pretended, and a clock of the test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from lorafactory import heartbeat
from lorafactory.daemon import child, watch
from lorafactory.daemon.child import Child
from lorafactory.daemon.inbox import Sight
from lorafactory.daemon.limits import beat_of, own
from lorafactory.daemon.queue import Queue
from lorafactory.daemon.watch import Daemon
from lorafactory.errors import DONE, FAILED, NEEDS_YOU, STOPPED, FailedError
from lorafactory.files import write_whole
from lorafactory.store import Store
from lorafactory.workspace import Workspace


@dataclass
class Process:
    """A worker's process that does what the test says."""

    code: int | None = None
    closed: bool = False
    stdin: Any = None
    holds: Any = None
    """A lock, which the system frees when the process dies."""

    def __post_init__(self) -> None:
        self.stdin = self

    def close(self) -> None:
        self.closed = True

    def poll(self) -> int | None:
        return self.code

    def kill(self) -> None:
        self.code = -9
        if self.holds:
            self.holds.release()

    def wait(self) -> int | None:
        return self.code


@dataclass
class Stage:
    """A daemon with one pretended worker."""

    space: Workspace
    store: Store
    now: float = 0.0
    said: list[str] = field(default_factory=list)
    sights: list[Sight] = field(default_factory=list)
    started: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.child = Child(self.space, "0", self.start, self.clock)
        self.daemon = Daemon(self.space, self.store, [self.child], lambda: self.sights, self.said.append, self.clock)
        self.queue = Queue(self.store)

    def clock(self) -> float:
        return self.now

    def start(self) -> Any:
        self.started.append(Process())
        return self.started[-1]

    def turn(self, seconds: float = 5.0, *, stop: bool = False) -> bool:
        self.now += seconds
        return self.daemon.turn(stop=stop)

    def beat(self, done: int) -> None:
        beat = heartbeat.Beat("anna", "train", done, 100)
        text = str(vars(beat)).replace("'", '"')
        write_whole(beat_of(self.space, "0"), text.encode(), synced=False)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    (tmp_path / "lorafactory.toml").write_text("[watch]\nfree_gb = 0\n", encoding="utf-8")
    space = Workspace(tmp_path, "")
    with Store(space.record) as store:
        yield Stage(space, store)


def test_a_worker_is_started_when_there_is_work_and_not_twice(stage: Stage):
    stage.turn()
    assert stage.started == [] and stage.daemon.idle()
    stage.queue.add("anna")
    stage.queue.add("bea")
    stage.turn()
    stage.turn()
    assert len(stage.started) == 1 and not stage.daemon.idle()


def test_a_worker_that_ended_is_followed_by_the_next_while_there_is_work(stage: Stage):
    stage.queue.add("anna")
    stage.turn()
    stage.started[0].code = FAILED
    stage.turn()
    assert len(stage.started) == 2
    stage.queue.finish(stage.queue.jobs()[0], "done")
    stage.started[1].code = DONE
    stage.turn()
    assert len(stage.started) == 2 and stage.daemon.idle() and not stage.daemon.needs_you()


def test_a_worker_that_cannot_even_begin_is_not_started_all_the_time(stage: Stage):
    stage.queue.add("anna")
    stage.turn()
    stage.started[0].code = 1
    stage.turn()
    assert len(stage.started) == 1 and any("ended with 1" in line for line in stage.said)
    stage.turn(watch.REST)
    assert len(stage.started) == 2


def test_what_a_dead_worker_left_is_queued_again(stage: Stage):
    job = stage.queue.add("anna")
    stage.turn()
    stage.queue.begin(job)
    stage.started[0].code = -9
    stage.turn()
    assert [(j.state, j.tries, j.failure) for j in stage.queue.jobs()] == [("queued", 1, "died")]
    assert any(line.startswith("anna: queued, the worker died") for line in stage.said)


def silence(stage: Stage, minutes: float) -> None:
    for _ in range(round(minutes)):
        stage.turn(60)


def test_a_job_that_gives_no_sign_of_life_is_stopped_then_killed_and_tried_again(stage: Stage):
    job = stage.queue.add("anna")
    stage.turn()
    process, place = stage.started[0], stage.space.lora("anna")
    place.root.mkdir(parents=True)
    process.holds = FileLock(place.lock)
    process.holds.acquire()
    stage.queue.begin(job)
    for n in range(30):  # half an hour of work
        stage.beat(n)
        stage.turn(60)
    assert not process.closed
    silence(stage, 14)
    assert not process.closed
    silence(stage, 2)
    assert process.closed and process.code is None
    assert any("anna: no sign of life for 15 minutes" in line for line in stage.said)
    silence(stage, child.GRACE / 60 + 2)
    assert process.code == -9
    assert [(j.state, j.tries, j.failure) for j in stage.queue.jobs()] == [("queued", 1, "hang")]
    assert "job.log" in str(stage.queue.jobs()[0].reason) and len(stage.started) == 2


def test_a_machine_that_slept_is_no_hang(stage: Stage):
    stage.queue.add("anna")
    stage.turn()
    stage.beat(1)
    stage.turn()
    stage.turn(8 * 3600)
    assert not stage.started[0].closed


def test_a_stop_lets_the_worker_write_its_checkpoint(stage: Stage):
    stage.queue.add("anna")
    stage.turn()
    assert stage.turn(stop=True) and stage.started[0].closed
    assert stage.turn(stop=True), "it is waited for"
    stage.started[0].code = STOPPED
    assert not stage.turn(stop=True) and len(stage.started) == 1
    assert sum("stopping" in line for line in stage.said) == 1


def test_a_full_disk_pauses_the_queue_until_there_is_room(stage: Stage):
    stage.queue.add("anna")
    limits, stage.daemon.limits = stage.daemon.limits, stage.daemon.limits.model_copy(update={"free_gb": 1e9})
    stage.turn()
    stage.turn()
    assert stage.started == [] and sum("no job begins" in line for line in stage.said) == 1
    assert "less than" in watch.told(stage.space)["paused"]
    stage.daemon.limits = limits
    stage.turn()
    assert len(stage.started) == 1 and stage.said[-1] == "there is room again; the queue goes on"


def test_what_the_inbox_says_is_said_once_and_left_for_status(stage: Stage):
    stage.sights = [Sight("anna", "settling", "copied, as it seems", 8.0)]
    stage.turn()
    stage.sights = [replace(stage.sights[0], left_s=3.0)]
    stage.turn()
    assert len(stage.said) == 1 and not stage.daemon.idle()
    assert watch.told(stage.space)["sights"][0]["left_s"] == 3.0
    stage.sights = [Sight("anna", "taken", "5 new pictures for anna")]
    stage.turn()
    assert stage.said[1:] == ["anna: taken, 5 new pictures for anna"]
    assert (stage.space.root / "index.html").is_file()


def test_what_was_stopped_at_once_has_not_failed(stage: Stage):
    job = stage.queue.add("anna")
    stage.turn()
    stage.queue.begin(job)
    stage.child.kill()
    stage.daemon.tidy()
    assert [(j.state, j.tries) for j in stage.queue.jobs()] == [("queued", 0)]


def test_a_record_that_cannot_be_written_stops_no_daemon(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    stage.queue.add("anna")
    with monkeypatch.context() as patch:
        patch.setattr(stage.daemon.queue, "recover", lambda: stage.store.transaction().__enter__())
        patch.setattr(stage.store, "_readonly", True)
        assert stage.turn() and stage.turn()
    assert stage.started == [] and sum("no job begins" in line for line in stage.said) == 1
    stage.turn()
    assert len(stage.started) == 1


def test_who_needs_a_person(stage: Stage):
    job = stage.queue.add("anna")
    stage.queue.finish(job, "failed", failure="needs you", reason="no pictures")
    assert stage.daemon.idle() and stage.daemon.needs_you()


# ---------------------------------------------------------------- the whole


def run(tmp_path: Path, **told: Any) -> tuple[int, list[str]]:
    said: list[str] = []
    return watch.watch(Workspace(tmp_path, ""), say=said.append, **told), said


def test_once_ends_when_there_is_nothing(tmp_path: Path):
    assert run(tmp_path, once=True) == (DONE, [])


def test_until_ends_and_leaves_the_queue(tmp_path: Path):
    with Store(tmp_path / "lorafactory.db") as store:
        Queue(store).add("anna")
        assert run(tmp_path, until=datetime.now(UTC) - timedelta(seconds=1))[0] == DONE
        assert Queue(store).jobs()[0].state == "queued"


def test_a_second_daemon_is_refused(tmp_path: Path):
    space = Workspace(tmp_path, "")
    assert not watch.is_watched(space)
    with FileLock(own(space, watch.LOCK)):
        assert watch.is_watched(space)
        with pytest.raises(FailedError, match="another `lora watch`"):
            run(tmp_path)


WITHOUT_TORCH = """
import sys
from pathlib import Path
from lorafactory.daemon import watch
from lorafactory.workspace import Workspace
watch.SCAN = watch.TICK = 0.01
code = watch.watch(Workspace(Path(sys.argv[1]), ""), once=True, say=print)
assert not {"torch", "diffusers", "transformers", "open_clip"} & set(sys.modules)
sys.exit(code)
"""


def test_the_daemon_imports_no_torch_and_tells_who_is_needed(tmp_path: Path):
    drop = tmp_path / "inbox" / "empty"
    drop.mkdir(parents=True)
    (drop / "_READY").touch()
    command = [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == NEEDS_YOU, done.stderr
    assert "empty: quarantined" in done.stdout
    assert "quarantined" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_a_beat_tells_how_far_and_how_fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, moment = tmp_path / "beat.json", [1000.0]
    monkeypatch.setattr("time.time", lambda: moment[0])
    monkeypatch.setattr("time.monotonic", lambda: moment[0])
    heartbeat.beat("nobody asked")
    with heartbeat.beating(path, "anna", silence=900):
        for done in (10, 20, 30):
            moment[0] += 60
            heartbeat.beat("train", done, 100)
        told = heartbeat.read(path)
        assert told is not None and (told.lora, told.what, told.done, told.of) == ("anna", "train", 30, 100)
        assert told.left_s == pytest.approx(70 * 6)
        moment[0] += 60
        heartbeat.alive()
        after = heartbeat.read(path)
        assert after is not None and after != told and after.done == 30
    assert heartbeat.read(tmp_path / "none.json") is None
