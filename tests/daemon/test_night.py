"""A night in small: good sets among all that goes wrong, and nobody at the keyboard. In the morning each is explained.

The daemon is the real one, and so are its workers: each is a process of its own, forked from this one so that it need
not import torch again, which does what `lorafactory.daemon.worker` does. Two faults cannot be dropped into a folder, so
the worker's process is told of them by the LoRA's name: memory that runs out in a step, and a step that never ends.
"""

from __future__ import annotations

import html
import importlib
import multiprocessing
import os
import random
import re
import sys
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from dropped import png, write, zipped
from test_quarantine import damaged, link_inside, locked

from lorafactory import images
from lorafactory.daemon import awake, overnight, watch, worker
from lorafactory.daemon.child import Child
from lorafactory.daemon.limits import own
from lorafactory.daemon.queue import ENDED, Queue
from lorafactory.errors import NEEDS_YOU
from lorafactory.pocket.concepts import CONCEPTS
from lorafactory.store import Store
from lorafactory.training import session
from lorafactory.workspace import Workspace

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

CONFIG = """
base = "pocket"
kind = "object"
class = "star"
[dedupe]
no_clip = true
[filter]
no_clip = true
[caption]
no_clip = true
text = "{trigger}, a star"
[repeats]
policy = 4
[train]
epochs = 2
batch = 4
save_every_epochs = 1
[compare]
prompts = ["{trigger}"]
seeds = [1, 2]
steps = 2
strengths = [1.0]
[watch]
free_gb = 0
"""
HANGING, HUNG = "hanging", "hung"
"""Files: one is there while a step hangs, when the daemon's clock runs a minute at every look, one ever after."""


# ---------------------------------------------------------------- what is dropped


def stars(folder: Path, count: int = 3) -> Path:
    chance = random.Random(folder.name)
    folder.mkdir(parents=True)
    for number in range(count):
        images.save_png(CONCEPTS["eyestar"].sample(chance), folder / f"{number}.png")
    return folder


def star_zip(path: Path) -> None:
    drawn = stars(path.with_suffix(""))
    zipped(path, {f"set/{p.name}": p.read_bytes() for p in sorted(drawn.iterdir())})
    for picture in drawn.iterdir():
        picture.unlink()
    drawn.rmdir()


def asks(text: str) -> Callable[[Path], object]:
    """A good set whose lora.toml says this."""
    return lambda path: write(stars(path) / "lora.toml", text)


def with_symlink(path: Path) -> None:
    (stars(path) / "secret.txt").symlink_to("/etc/passwd")


def with_pipe(path: Path) -> None:
    os.mkfifo(stars(path) / "1.txt")


def without_end(path: Path) -> None:
    star_zip(path)
    path.write_bytes(path.read_bytes()[:-30])


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("1.png", "w") as out:
        for _ in range(80):
            out.write(bytes(1 << 20))


Drops = dict[str, tuple[Callable[[Path], object], str]]
NIGHT: Drops = {
    "berta.zip": (star_zip, "trained"),
    "stuck": (stars, "hung once"),
    "noise.zip": (lambda path: write(path, random.Random(1).randbytes(5000)), "archive_broken: cannot be unpacked"),
    "bomb.zip": (bomb, "bomb: more than pictures do"),
    "empty": (Path.mkdir, "no_images: no picture in it"),
    "hostile": (asks('base = "//evil/share/x.safetensors"\n'), "bad_settings: lora.toml asks for"),
    "link": (with_symlink, "symlink: has links"),
    "greedy": (stars, "failed: Out of memory"),
    "steep": (asks("[train]\nlr = 1e30\n"), "failed: Lower the learning rate"),
}
"""Name, what makes it, and how it ends: `code: words of the page`, or that it is made."""
MORE: Drops = {
    "anna": (stars, "trained"),
    **{f"good {n}": (stars, "trained") for n in range(6)},
    "größe": (stars, "trained"),
    "shell $(id) 'x'": (stars, "trained"),
    "one": (partial(stars, count=1), "trained"),
    "thrifty": (asks("[train]\nrank = 4\n"), "trained"),
    "cut.zip": (without_end, "archive_broken: cannot be unpacked"),
    "damaged.zip": (damaged, "archive_broken: cannot be unpacked"),
    "locked.zip": (locked, "archive_encrypted: a password"),
    "out.zip": (lambda path: zipped(path, {"../a.png": png()}), "archive_unsafe: no set of pictures has"),
    "linked.zip": (link_inside, "archive_unsafe: no set of pictures has"),
    "pipe": (with_pipe, "trained"),  # pipes are not copied
    "torn": (lambda path: write(path / "1.png", png()[:-30]), "undecodable: None of its pictures"),
    "unknown": (asks("[train]\nepochz = 3\n"), "bad_settings: epochz"),
    "nowhere": (asks('base = "no-such-base"\n'), "failed: no-such-base"),
    "asleep": (stars, "failed: it hung"),
}


# ---------------------------------------------------------------- the workers


def faults(root: Path) -> Callable[..., Any]:
    """`forward.losses` that takes too much memory, or never ends, for the LoRAs that are called so."""
    losses = session.forward.losses

    def faulty(base: Any, batch: Any, *args: Any, **told: Any) -> Any:
        lora = batch[0].example.path.relative_to(root / "loras").parts[0]
        if lora == "greedy" or (lora == "thrifty" and len(batch) > 1):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        if lora == "asleep" or (lora == "stuck" and not (root / HUNG).exists()):
            for name in (HANGING, HUNG) if lora == "stuck" else (HANGING,):
                (root / name).touch()
            while True:
                time.sleep(3600)
        return losses(base, batch, *args, **told)

    return faulty


class Forked:
    """A worker as `Child` sees it. What it has from the daemon's process, as the open record, it does not use."""

    def __init__(self, space: Workspace, name: str, card: str) -> None:
        (space.root / HANGING).unlink(missing_ok=True)
        hears, end = os.pipe()
        self.stdin = os.fdopen(end, "wb")
        self.process = multiprocessing.get_context("fork").Process(target=self.work, args=(space.root, name, hears))
        self.process.start()
        os.close(hears)

    def work(self, root: Path, name: str, hears: int) -> None:
        self.stdin.close()
        os.dup2(hears, 0)
        log = own(Workspace(root, ""), f"{name}.log").open("wb", buffering=0)
        for descriptor in (1, 2):
            os.dup2(log.fileno(), descriptor)
        sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", buffering=1) for descriptor in (1, 2))
        torch.cuda.is_available = lambda: False  # no card can be used after a fork
        session.forward.losses = faults(root)
        os._exit(worker.main(str(root), name))

    def poll(self) -> int | None:
        return self.process.exitcode

    def kill(self) -> None:
        self.process.kill()

    def wait(self) -> int | None:
        self.process.join()
        return self.process.exitcode


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace on one card, whose daemon waits for nothing."""
    for module in ("diffusers", "open_clip", "transformers"):  # once, for all workers
        importlib.import_module(module)
    space = Workspace(tmp_path / "ws", "a test")
    write(space.config_path, CONFIG)
    jumps = 0.0

    def clock() -> float:
        nonlocal jumps
        jumps += 60 if (space.root / HANGING).exists() else 0
        return time.monotonic() + jumps

    monkeypatch.setattr(watch, "spawn", Forked)
    monkeypatch.setattr(watch, "Child", partial(Child, clock=clock))
    monkeypatch.setattr(watch, "Daemon", partial(watch.Daemon, clock=clock))
    for place in (watch, overnight):
        monkeypatch.setattr(place, "TICK", 0.05)
        monkeypatch.setattr(place, "cards", lambda: [""])
    monkeypatch.setattr(watch, "SCAN", 0.5)
    for tool in ("LINUX", "MACOS"):
        monkeypatch.setattr(awake, tool, ("no-such-tool",))
    return space


# ---------------------------------------------------------------- the morning


REFUSED = """SELECT name, code, ulid FROM "drop" WHERE state = 'quarantined'"""


def told(space: Workspace) -> dict[str, tuple[str, str]]:
    """What the morning page says of each LoRA and drop, by its name: in a word, and why."""
    page = (space.root / "index.html").read_text(encoding="utf-8")
    card = r'<h2><bdi>(.*?)</bdi></h2>\n<p class="news \w+">(.*?)</p>\n<p class="reason" dir="auto">(.*?)</p>'
    return {name: (news, why) for name, news, why in (map(html.unescape, c) for c in re.findall(card, page, re.DOTALL))}


def sleep_through(space: Workspace, sets: Path, drops: Drops) -> None:
    """Offer all of it, let the night pass, and look at what is there in the morning."""
    sets.mkdir()
    for name, (make, _) in drops.items():
        make(sets / name)
    said: list[str] = []
    assert overnight.overnight(space, sets, until=None, say=said.append) == NEEDS_YOU
    print("\n".join(said))
    with Store(space.record, readonly=True) as store:
        tries = {job.lora: job.tries for job in Queue(store).newest() if job.state in ENDED}
        refused = {name: (code, home) for name, code, home in store.select(REFUSED)}
        assert {run.status for run in store.runs(limit=10_000)} == {"done", "failed", "interrupted"}
    page = told(space)
    assert len(page) == len(drops) == len(tries) + len(refused)
    for name, (_, end) in drops.items():
        lora, (what, _, words) = name.removesuffix(".zip"), end.partition(": ")
        if what in ("trained", "hung once"):
            assert tries[lora] == (what == "hung once"), name
            assert page[lora][0] in ("no save passes", "epoch 1", "epoch 2"), (name, page[lora])
            assert space.lora(lora).chosen.is_file() and space.lora(lora).report.is_file(), name
        elif what == "failed":
            assert lora in tries and page[lora][0] in ("failed", "needs you") and words in page[lora][1], page[lora]
        else:
            (home,) = (space.root / "quarantine").glob(f"*-{refused[name][1][-8:].lower()}")
            assert (refused[name][0], page[home.name][0]) == (what, "quarantined") and words in page[home.name][1], name
            assert (home / name).is_symlink() or (home / name).exists()


def test_a_short_night_is_explained_in_the_morning(space: Workspace, tmp_path: Path):
    sleep_through(space, tmp_path / "sets", NIGHT)


@pytest.mark.slow
def test_a_night_of_thirty_drops_is_explained_in_the_morning(space: Workspace, tmp_path: Path):
    sleep_through(space, tmp_path / "sets", NIGHT | MORE)
