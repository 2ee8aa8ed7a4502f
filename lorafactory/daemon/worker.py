"""A worker: one process per card that does queued jobs one after another, as `lora make` would.

It ends after a failure, as nobody knows what that left behind in memory or on the card, and after a number of jobs;
the daemon starts the next. It stops with a checkpoint when its standard input closes, so also when the daemon dies.
"""

from __future__ import annotations

import _thread
import logging
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from lorafactory import families, heartbeat, making, settings, step
from lorafactory.chain import CHAIN
from lorafactory.daemon.asking import looked_at
from lorafactory.daemon.limits import Limits, beat_of, limits, own, short_of_disk
from lorafactory.daemon.queue import Job, Queue
from lorafactory.errors import (
    DONE,
    FAILED,
    NEEDS_YOU,
    STOPPED,
    USAGE,
    NoSavePasses,
    OutOfMemory,
    PassingError,
    RecordError,
    SettingsError,
)
from lorafactory.index import write_index
from lorafactory.store import Store
from lorafactory.workspace import LoraDir, Workspace

MOST = 20
"""Jobs of one process: what leaks is given back after these."""
BUSY = 10.0
"""Seconds before a LoRA that another command has is tried again."""
LOG = "job.log"
LONGEST = 4 << 20
"""Bytes of a LoRA's log above which it begins anew."""
HANDOVER = 120.0
"""Seconds that a worker may still need after it was asked to stop."""

Make = Callable[[Workspace, str, str | None], object]
"""Makes a LoRA as far as a step, or wholly."""


def make(space: Workspace, lora: str, to: str | None) -> object:
    """What `lora make NAME` does."""
    return making.make(space, lora, given=None, told={}, to=to, force=False)


def work(
    space: Workspace, queue: Queue, make: Make = make, *, worker: str = "0", most: int = MOST,
    log: Callable[[LoraDir], None] = lambda place: None,
) -> int:  # fmt: skip
    """Do the jobs of the queue until there are none, one goes wrong or `most` are done; return an exit code."""
    told = limits(space)
    with families.resident():
        for _ in range(most):
            job = None if short_of_disk(space, told) else queue.next(datetime.now(UTC))
            if job is None:
                break
            log(space.lora(job.lora))
            ended = attempt(space, queue, job, make, heartbeat_of=worker, told=told)
            if ended is None:
                continue
            write_index(space)
            if told.on_done and ended.state != "queued":
                tell(told.on_done, ended)
            if ended.state == "queued" or ended.failure in ("failed", "out of memory"):
                return STOPPED if ended.failure is None else FAILED
    return DONE


def attempt(space: Workspace, queue: Queue, job: Job, make: Make, *, heartbeat_of: str, told: Limits) -> Job | None:
    """Try a job once, holding its LoRA's lock; return it as it ended, None if it was not ours to do."""
    place = space.lora(job.lora)
    try:
        held = step.locked(place)
    except PassingError as error:
        queue.finish(job, "queued", reason=str(error), pause=BUSY)
        return None
    silence = told.silence_minutes * 60
    with held, heartbeat.beating(beat_of(space, heartbeat_of), job.lora, silence=silence):
        begun = queue.begin(job)
        if begun is None:
            return None
        try:
            before = "" if looked_at(queue.store, begun) else waits_before(space, place)
            make(space, job.lora, CHAIN[CHAIN.index(before) - 1] if before else None)
        except NoSavePasses as error:
            return queue.finish(begun, "done", failure="no save passes", reason=str(error))
        except (KeyboardInterrupt, SystemExit):
            return queue.finish(begun, "queued", reason="stopped; goes on where it was")
        except Exception as error:  # one job's trouble is not the night's
            traceback.print_exc()
            return queue.finish(begun, "failed", failure=failure_of(error), reason=str(error) or type(error).__name__)
        if before:
            look = f"before {before}: look at {place.images}, then: lora make {job.lora}"
            return queue.finish(begun, "waiting", reason=look)
        return queue.finish(begun, "done")


def waits_before(space: Workspace, place: LoraDir) -> str:
    """The step before which the LoRA's recipe wants somebody to look; empty if none."""
    step_name = settings.effective(space, place).header.wait_before
    if step_name and step_name not in CHAIN[1:]:
        raise SettingsError(f"wait_before = {step_name!r}: one of {', '.join(CHAIN[1:])}")
    return step_name


def failure_of(error: Exception) -> str:
    """The class of a failure, one of `queue.CAPS`."""
    if isinstance(error, OutOfMemory | MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's
        return "out of memory"
    if isinstance(error, OSError | PassingError | RecordError):  # a full disk, a device that is gone, a lock
        return "transient"
    return "needs you" if getattr(error, "exit_code", None) in (USAGE, NEEDS_YOU) else "failed"


def tell(command: tuple[str, ...], job: Job) -> None:
    """Run the person's own command; what goes wrong in it is only said."""
    try:
        subprocess.run([*command, job.lora, job.failure or job.state], stdin=subprocess.DEVNULL, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"watch.on_done: {error}", file=sys.stderr)  # noqa: T201  (the job's log)


# ---------------------------------------------------------------- the process


def log_to(place: LoraDir) -> None:
    """Let all that the process says from now on go to the LoRA's log."""
    place.root.mkdir(parents=True, exist_ok=True)
    path = place.root / LOG
    mode = "wb" if path.is_file() and path.stat().st_size > LONGEST else "ab"
    with path.open(mode) as file:
        file.write(f"\n{datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n".encode())
        file.flush()
        sys.stdout.flush()
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)


def stop_at_end_of_input() -> None:
    """Ask the main thread to stop, once, when nobody holds the other end of standard input any more."""
    while os.read(0, 1024):
        pass
    _thread.interrupt_main(signal.SIGINT)


def main(root: str, worker: str) -> int:
    """Work for the daemon of this workspace, on the card that the environment shows."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for chatty in ("bitsandbytes", "diffusers", "transformers", "open_clip"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    threading.Thread(target=stop_at_end_of_input, daemon=True).start()
    space = Workspace(Path(root), "of the daemon")
    try:
        with FileLock(own(space, f"{worker}.lock"), timeout=HANDOVER), Store(space.record) as store:
            return work(space, Queue(store), worker=worker, log=log_to)
    except (KeyboardInterrupt, Timeout):
        return STOPPED


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
