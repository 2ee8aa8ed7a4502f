"""A worker's process as the daemon sees it: started, watched for signs of life, asked to stop, killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import IO

from lorafactory import heartbeat
from lorafactory.daemon.limits import beat_of, own
from lorafactory.training.card import nvidia_smi
from lorafactory.workspace import Workspace

GRACE = 120.0
"""Seconds that a worker gets to write its checkpoint."""
LONGEST = 60.0
"""Seconds that count between two looks, at most: a machine that slept heard nothing."""
VISIBLE = "CUDA_VISIBLE_DEVICES"


def cards() -> list[str]:
    """What `CUDA_VISIBLE_DEVICES` has to say, once per worker; one empty one where there is no card."""
    if VISIBLE in os.environ:
        found = os.environ[VISIBLE].split(",")
    else:
        found = [row[0] for row in nvidia_smi("--query-gpu=index") if row]
    return found or [""]


def spawn(space: Workspace, name: str, card: str) -> subprocess.Popen[bytes]:
    """Start a worker. It has its own session, so that Ctrl-C in a terminal reaches the daemon alone."""
    command = [sys.executable, "-u", "-m", "lorafactory.daemon.worker", str(space.root), name]
    environment = os.environ | ({VISIBLE: card} if card else {})
    with own(space, f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=os.name != "nt",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )


class Child:
    """At most one process at a time, for one card."""

    def __init__(
        self,
        space: Workspace,
        name: str,
        start: Callable[[], subprocess.Popen[bytes]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.space, self.name, self.clock = space, name, clock
        self._start = start
        self.process: subprocess.Popen[bytes] | None = None
        self.hung: str | None = None
        """The LoRA at which it went silent."""
        self.asked_at: float | None = None
        """When it was asked to stop."""
        self.ended_at = -1e9
        """When the last process ended."""
        self._seen: heartbeat.Beat | None = None
        self._silent = self._looked = 0.0

    @property
    def alive(self) -> bool:
        return self.process is not None

    def start(self) -> None:
        beat_of(self.space, self.name).unlink(missing_ok=True)
        self.process, self.hung, self.asked_at, self._seen = self._start(), None, None, None
        self._silent, self._looked = 0.0, self.clock()

    def ended(self) -> int | None:
        """The exit code of a process that has ended since the last look."""
        if self.process is None or (code := self.process.poll()) is None:
            return None
        _close(self.process.stdin)
        self.process, self.ended_at = None, self.clock()
        return code

    def silent(self) -> float:
        """Seconds without a sign of life, as far as was looked."""
        now, beat = self.clock(), heartbeat.read(beat_of(self.space, self.name))
        passed = min(now - self._looked, LONGEST)
        self._silent = self._silent + passed if beat == self._seen else 0.0
        self._seen, self._looked = beat, now
        return self._silent

    def ask(self) -> None:
        """Let it stop with a checkpoint."""
        if self.process is not None and self.asked_at is None:
            self.asked_at = self.clock()
            _close(self.process.stdin)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def watch(self, silence: float) -> str:
        """Stop it where it is silent for too long, and kill it if it does not stop; say so, empty if all is well."""
        if not self.alive:
            return ""
        if self.asked_at is None and self.silent() > silence:
            self.hung = self._seen.lora if self._seen else ""
            self.ask()
            return f"{self.hung or 'the worker'}: no sign of life for {silence / 60:g} minutes; it is stopped"
        if self.asked_at is not None and self.clock() - self.asked_at > GRACE:
            self.kill()
            return f"worker {self.name} did not stop in {GRACE:g} s; killed"
        return ""


def _close(stream: IO[bytes] | None) -> None:
    if stream is not None:
        stream.close()
