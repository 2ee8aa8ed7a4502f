"""The worker: what goes wrong in one job, and what comes of it; and that a job is not changed by the one before."""

from __future__ import annotations

import errno
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from tiny import draw, hashes

from lorafactory import families, heartbeat
from lorafactory.daemon import worker
from lorafactory.daemon.limits import beat_of
from lorafactory.daemon.queue import Job, Queue
from lorafactory.daemon.worker import Make, work
from lorafactory.errors import (
    DONE,
    FAILED,
    STOPPED,
    FailedError,
    InputError,
    NoSavePasses,
    OutOfMemory,
    SettingsError,
)
from lorafactory.families import sd15
from lorafactory.store import Store
from lorafactory.workspace import Workspace


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    (tmp_path / "lorafactory.toml").write_text("[watch]\nfree_gb = 0\n", encoding="utf-8")
    with Store(tmp_path / "lorafactory.db") as store:
        yield Queue(store)


def scripted(faults: dict[str, BaseException]) -> Make:
    """A `make` whose first try of a LoRA raises what is said for it."""

    def make(space: Workspace, lora: str, to: str | None) -> object:
        if error := faults.pop(lora, None):
            raise error
        return None

    return make


def said(job: Job) -> tuple[str, str | None]:
    return job.state, job.failure


@pytest.mark.parametrize(
    ("error", "code", "state", "failure"),
    [
        (InputError("no pictures"), DONE, "failed", "needs you"),
        (SettingsError("no such recipe"), DONE, "failed", "needs you"),
        (NoSavePasses("overtrained"), DONE, "done", "no save passes"),
        (FailedError("The loss became nan at step 7"), FAILED, "queued", "failed"),
        (ValueError("a bug"), FAILED, "queued", "failed"),
        (OutOfMemory("Out of memory, with all done that saves it"), FAILED, "queued", "out of memory"),
        (MemoryError(), FAILED, "queued", "out of memory"),
        (OSError(errno.ENOSPC, "No space left on device"), FAILED, "queued", "transient"),
        (KeyboardInterrupt(), STOPPED, "queued", None),
    ],
)
def test_what_comes_of_an_error(queue: Queue, error: BaseException, code: int, state: str, failure: str | None):
    queue.add("anna")
    assert work(queue.space, queue, scripted({"anna": error})) == code
    (job,) = queue.jobs()
    assert said(job) == (state, failure)
    assert job.reason or failure is None
    assert not FileLock(queue.space.lora("anna").lock).is_locked


def test_torch_out_of_memory_is_known_by_its_name(queue: Queue):
    import torch

    queue.add("anna")
    work(queue.space, queue, scripted({"anna": torch.OutOfMemoryError("CUDA out of memory")}))
    assert said(queue.jobs()[0]) == ("queued", "out of memory")


def test_after_a_failure_the_next_worker_goes_on(queue: Queue):
    for name in ("a", "b", "c"):
        queue.add(name)
    make = scripted({"a": FailedError("nan")})
    assert work(queue.space, queue, make) == FAILED
    assert [j.state for j in queue.jobs()] == ["queued", "queued", "queued"]
    assert work(queue.space, queue, make) == DONE
    assert [(j.lora, *said(j), j.tries) for j in queue.jobs()] == [
        ("a", "done", None, 1), ("b", "done", None, 0), ("c", "done", None, 0),
    ]  # fmt: skip
    page = (queue.space.root / "index.html").read_text(encoding="utf-8")
    assert "went wrong once, then done" in page


def test_a_worker_ends_after_so_many_jobs(queue: Queue):
    for name in "abc":
        queue.add(name)
    assert work(queue.space, queue, scripted({}), most=2) == DONE
    assert [j.state for j in queue.jobs()] == ["done", "done", "queued"]


def test_a_lora_that_somebody_is_working_on_comes_later(queue: Queue):
    queue.add("anna")
    queue.add("bea")
    place = queue.space.lora("anna")
    place.root.mkdir(parents=True)
    with FileLock(place.lock):
        assert work(queue.space, queue, scripted({})) == DONE
    anna, bea = queue.jobs()
    assert (anna.state, anna.tries, bea.state) == ("queued", 0, "done")
    assert anna.not_before and "another command is working on anna" in str(anna.reason)


def test_the_lock_is_held_while_a_job_runs(queue: Queue):
    queue.add("anna")
    seen = []

    def make(space: Workspace, lora: str, to: str | None) -> object:
        seen.append([(j.lora, j.state) for j in queue.recover()])
        beat = heartbeat.read(beat_of(space, "0"))
        assert beat is not None and beat.lora == "anna"
        return None

    work(queue.space, queue, make)
    assert seen == [[]] and queue.jobs()[0].state == "done"


def test_a_full_disk_begins_no_job(queue: Queue):
    queue.space.config_path.write_text("[watch]\nfree_gb = 1e9\n", encoding="utf-8")
    queue.add("anna")
    assert work(Workspace(queue.space.root, ""), queue, scripted({})) == DONE
    assert queue.jobs()[0].state == "queued"


def test_wait_before_parks_the_job(queue: Queue):
    place = queue.space.lora("anna")
    place.root.mkdir(parents=True)
    place.settings.write_text('wait_before = "train"\n', encoding="utf-8")
    queue.add("anna")
    asked = []
    work(queue.space, queue, lambda space, lora, to: asked.append(to))
    (job,) = queue.jobs()
    assert asked == ["repeats"] and job.state == "waiting" and "lora make anna" in str(job.reason)


def test_wait_before_what_is_no_step_needs_you(queue: Queue):
    place = queue.space.lora("anna")
    place.root.mkdir(parents=True)
    place.settings.write_text('wait_before = "lunch"\n', encoding="utf-8")
    queue.add("anna")
    work(queue.space, queue, scripted({}))
    assert said(queue.jobs()[0]) == ("failed", "needs you")


def test_on_done_gets_name_and_state_and_no_shell(queue: Queue, tmp_path: Path):
    script = tmp_path / "tell.py"
    out = tmp_path / "told.txt"
    script.write_text("import sys\nwith open(sys.argv[1], 'a') as f: f.write(repr(sys.argv[2:]))\n", encoding="utf-8")
    words = ", ".join(f"'{w}'" for w in (sys.executable, script, out, "$(id); *"))
    queue.space.config_path.write_text(f"[watch]\nfree_gb = 0\non_done = [{words}]\n", encoding="utf-8")
    queue.add("anna")
    queue.add("bea")
    work(Workspace(queue.space.root, ""), queue, scripted({"bea": NoSavePasses("none")}))
    assert out.read_text() == "['$(id); *', 'anna', 'done']['$(id); *', 'bea', 'no save passes']"


# ---------------------------------------------------------------- real trainings


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The saves of `bea`, made by itself."""
    space = Workspace(tmp_path_factory.mktemp("alone"), "")
    draw(space, "bea", 2)
    worker.make(space, "bea", "train")
    return hashes(space, "bea")


def test_a_then_b_with_the_base_resident_equals_b_alone(
    queue: Queue, alone: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    draw(queue.space, "anna", 1)
    draw(queue.space, "bea", 2)
    loads, load = [], sd15.load
    monkeypatch.setattr(sd15, "load", lambda *args, **told: loads.append(args) or load(*args, **told))
    queue.add("anna")
    queue.add("bea")
    assert work(queue.space, queue) == DONE
    assert [j.state for j in queue.jobs()] == ["waiting", "waiting"]
    assert len(loads) == 1 and len(alone) == 2
    assert hashes(queue.space, "bea") == alone
    assert hashes(queue.space, "anna") != alone


def test_a_base_whose_schedule_was_corrected_is_read_again(tmp_path: Path):
    from lorafactory.pocket import MODELS

    path = Path(shutil.copytree(MODELS / "base", tmp_path / "base"))
    config = path / "scheduler" / "scheduler_config.json"
    with families.resident():
        first = families.load(path)
        config.write_text(config.read_text(encoding="utf-8").replace("v_prediction", "epsilon"), encoding="utf-8")
        assert families.load(path).scheduler.config.prediction_type != first.scheduler.config.prediction_type


def test_nothing_stays_resident_outside():
    from lorafactory.pocket import MODELS

    with families.resident():
        first = families.load(MODELS / "base")
        assert families.load(MODELS / "base") is first
    assert families.load(MODELS / "base") is not first
