"""SIGKILL at random moments of a drop's way through a real training: to the worker, the daemon, or both at once.

A moment is so many seconds of computing, of daemon and worker together, so that a slow machine has the same moments.
What is left goes on by itself: a daemon starts the next worker, a worker without a daemon stops, a new daemon does the
rest. In the end all is as it is without a kill.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from tiny import WORKER, draw, hashes
from zygote import Job, Zygote

from lorafactory import images
from lorafactory.daemon.limits import own
from lorafactory.daemon.queue import Queue
from lorafactory.errors import NEEDS_YOU
from lorafactory.store import Store
from lorafactory.workspace import Workspace

pytestmark = pytest.mark.xdist_group("killed")  # one zygote for all
VICTIMS = ("worker", "daemon", "both")


@dataclass
class Night:
    """A workspace with one drop, and the daemon that is to make a LoRA of it."""

    space: Workspace
    zygote: Zygote

    def __post_init__(self) -> None:
        draw(self.space, "bea", 2, self.space.inbox / "bea")
        (self.space.inbox / "bea" / "_READY").touch()
        self.space.config_path.write_text("[watch]\nfree_gb = 0\n", encoding="utf-8")
        self.watch()

    def watch(self) -> None:
        self.daemon: Job = self.zygote.job("killed_training:look", self.space.root).go()

    def processes(self) -> dict[str, psutil.Process]:
        """The daemon's and the worker's, as far as they live."""
        pids, found = {"daemon": self.daemon.pid}, {}
        with suppress(FileNotFoundError, ValueError):
            pids["worker"] = int(own(self.space, WORKER).read_text())
        for who, pid in pids.items():
            with suppress(psutil.NoSuchProcess):
                found[who] = psutil.Process(pid)
        return found

    def computed(self) -> float:
        """Seconds that both have computed so far."""
        seconds = 0.0
        for process in self.processes().values():
            with suppress(psutil.NoSuchProcess):
                seconds += sum(process.cpu_times()[:2])
        return seconds

    def ended(self, seconds: float = 1e9) -> float:
        """Let them compute for so long, or to the end; return how long it was."""
        most = 0.0
        while most < seconds:
            with suppress(subprocess.TimeoutExpired):
                assert self.daemon.wait(0.02) == NEEDS_YOU, self.zygote.log.read_text()
                break
            most = max(most, self.computed())
        return most

    def kill(self, victim: str) -> bool:
        """Kill the worker, the daemon or both; the daemon if there is no worker now; False if all is over."""
        if self.daemon.poll() is not None:
            return False
        there = self.processes()
        struck = [who for who in there if victim in (who, "both")] or ["daemon"]
        for who in struck:
            with suppress(psutil.NoSuchProcess, KeyError):  # it ended just now
                there[who].kill()
        if "daemon" in struck:
            self.daemon.wait()
            self.watch()
        return True

    def outcome(self) -> object:
        """What there is in the end, where the record agrees with it."""
        place = self.space.lora("bea")
        with Store(self.space.record) as store:
            (job,) = Queue(store).jobs()
            runs = store.runs("bea", 100)
            made = {k: v for k, v in store.edges(runs[0].id, "out").items() if k.endswith(".safetensors")}
            assert made == {p.name: images.sha256(p) for p in place.result.glob("*.safetensors")}
            assert {run.status for run in runs} <= {"done", "interrupted", "stopped"}
            assert store.select("PRAGMA integrity_check") == [("ok",)]
            rows = job.state, store.select("""SELECT name, lora, state FROM "drop" """), runs[0].step, runs[0].status
        assert job.tries <= 1
        assert not list(self.space.inbox.glob("[!.]*")) and not list(self.space.inbox.glob(".lorafactory/*"))
        kept = (place.source, place.images, place.result / "state")
        files = sorted(p for folder in kept for p in folder.rglob("*") if p.is_file() and not p.name.endswith(".part"))
        return hashes(self.space, "bea"), rows, [(p.name, images.sha256(p)) for p in files]


@pytest.fixture(scope="module")
def undisturbed(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[float, object]]:
    """How long daemon and worker compute when nobody kills them, and what comes out."""
    night = Night(Workspace(tmp_path_factory.mktemp("undisturbed"), "a test"), zygote)
    yield night.ended(), night.outcome()


@pytest.mark.parametrize("kills", [6, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_makes_the_same_lora(
    tmp_path: Path, zygote: Zygote, undisturbed: tuple[float, object], kills: int
):
    seconds, wanted = undisturbed
    chance, struck = random.SystemRandom(), 0
    while struck < kills:
        night = Night(Workspace(tmp_path / "night", "a test"), zygote)
        victim, moment = VICTIMS[struck % 3], chance.uniform(0, seconds)
        after = night.ended(moment)
        if night.kill(victim):
            struck += 1
        else:  # it was over sooner than the one before
            seconds = after
        night.ended()
        assert night.outcome() == wanted, f"{victim} killed after {after:.2f} of {seconds:.2f} s"
        shutil.rmtree(night.space.root)
