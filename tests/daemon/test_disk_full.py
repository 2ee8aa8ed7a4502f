"""A disk that is full while a LoRA is trained, on a small tmpfs: nothing is torn, and it goes on when there is room."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import pytest
from tiny import draw, hashes

from lorafactory import files
from lorafactory.daemon import worker
from lorafactory.daemon.queue import Job, Queue
from lorafactory.daemon.watch import Daemon
from lorafactory.daemon.worker import work
from lorafactory.errors import DONE, DiskFull, RecordError
from lorafactory.store import Store
from lorafactory.training import checkpoint, lora_file, session
from lorafactory.workspace import Workspace

CROWDED = files.RESERVE // 2
"""Bytes that the record and the pages can still use, and no training may."""


@pytest.fixture
def disk(small_disk: Callable[[int], Path]) -> Path:
    return small_disk(64)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The tensor hashes of a training that nothing was in the way of."""
    space = Workspace(tmp_path_factory.mktemp("undisturbed"), "")
    draw(space, "bea", 2)
    worker.make(space, "bea", "train")
    return hashes(space, "bea")


def fill(root: Path, left: int) -> None:
    """Leave so many bytes of the disk."""
    with (root / "filler").open("wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, max(shutil.disk_usage(root).free - left, 1))
        if not left:
            with suppress(OSError):
                while True:
                    file.write(bytes(512))


@contextmanager
def filled(root: Path, moment: int, left: int) -> Iterator[None]:
    """The disk is filled before the training's step of this number, counted from 1; with 0 at once."""
    losses, calls = session.forward.losses, count(1)

    def counted(*args: object, **told: object) -> object:
        if next(calls) == moment:
            fill(root, left)
        return losses(*args, **told)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session.forward, "losses", counted)
        if not moment:
            fill(root, left)
        yield
    assert (root / "filler").exists(), "the training never came so far"


def night(space: Workspace, store: Store) -> tuple[Callable[[], bool], list[str]]:
    """A daemon without workers, whose every turn looks at all there is; and what it says."""
    said: list[str] = []
    daemon = Daemon(space, store, [], list, said.append, clock=count(step=60).__next__)
    return daemon.turn, said


def nothing_is_torn(space: Workspace) -> None:
    place = space.lora("bea")
    assert not list(space.root.rglob("*.part"))
    for path in (place.result / "state").glob(checkpoint.STATES):
        checkpoint._read(path)
    for path in place.result.glob("*.safetensors"):
        lora_file.read(path)
    with sqlite3.connect(f"file:{space.record}?mode=ro", uri=True) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    db.close()


def job_of(queue: Queue) -> Job:
    (job,) = queue.newest()
    return job


SAVE = 4
"""Two saves and a state every two steps: step 4 is followed by both."""
MOMENTS = [pytest.param(m, n, marks=() if m == SAVE else pytest.mark.slow) for m in range(9) for n in (0, CROWDED)]


@pytest.mark.parametrize(("moment", "left"), MOMENTS)
def test_a_training_goes_on_when_there_is_room_again(disk: Path, undisturbed: dict[str, str], moment: int, left: int):
    (disk / "lorafactory.toml").write_text("[watch]\nfree_gb = 0\n", encoding="utf-8")
    space = Workspace(disk, "")
    draw(space, "bea", 2)
    with Store(space.record) as store:
        queue, (turn, said) = Queue(store), night(space, store)
        queue.add("bea")
        with filled(disk, moment, left), suppress(RecordError):  # which ends the worker's process
            work(space, queue)
        nothing_is_torn(space)
        assert turn() and turn(), "the daemon goes on"
        if left and moment:
            job = job_of(queue)
            assert (job.state, job.tries, job.failure) == ("queued", 1, "transient")
            assert "MB free on this disk" in str(job.reason) and "lora status --disk" in str(job.reason)
            assert any(str(job.reason) in line for line in said)
        (disk / "filler").unlink()
        assert turn() and job_of(queue).state in ("queued", "done")
        queue.add("bea")  # what waits for its next try has it now
        assert work(space, queue) == DONE
        assert job_of(queue).state == "waiting"
        assert hashes(space, "bea") == undisturbed
        assert "running" not in {run.status for run in store.runs("bea", 100)}
        nothing_is_torn(space)


def test_what_has_no_room_is_not_begun(disk: Path):
    fill(disk, CROWDED)
    with pytest.raises(DiskFull, match=r"8 MB free on this disk, and 1[67] MB are needed"):
        checkpoint.pack({"step": 3}).write(disk / "state", 3)
    with pytest.raises(DiskFull):
        lora_file.write(disk / "anna.safetensors", {}, {})
    assert sorted(p.name for p in disk.rglob("*") if p.is_file()) == ["filler"]
    (disk / "filler").unlink()
    assert checkpoint.pack({"step": 3}).write(disk / "state", 3).is_file()
