"""What all tests share: a workspace of their own, the command line in-process, one small demo trained once."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from filelock import FileLock

from tests.browsing import CHROMIUM

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """No test, and so no command, opens a connection: offline is the default."""
    patch = pytest.MonkeyPatch()

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"a connection was opened: {args[1:]}")

    for name in ("connect", "connect_ex"):
        patch.setattr(socket.socket, name, refuse)
    patch.setattr(socket, "getaddrinfo", refuse)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium, for tests marked `browsing.IN_BROWSER`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        made = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


class Said(NamedTuple):
    """What a command did: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty workspace that commands of this test use."""
    root = tmp_path / "workspace"
    monkeypatch.setenv("LORAFACTORY_WORKSPACE", str(root))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return root


@pytest.fixture
def lora(space: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run the command line in this process, never in the person's own workspace; importing torch anew costs 10 s."""
    from lorafactory import cli

    def run(*args: object) -> Said:
        capfd.readouterr()
        code = cli.run([str(a) for a in args])
        out, err = capfd.readouterr()
        return Said(code, out, err)

    return run


SMALL = {"pictures": 8, "epochs": 3, "repeats": 32, "batch": 4}
"""8 pictures and the traps that ten pictures may not lose, x 32 repeats / batch 4: 240 steps, 3 saves."""


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that is made once for all processes of the session; do not write in it."""
    base = factory.getbasetemp()
    root = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / name
    with FileLock(f"{root}.lock"):
        if not (root / "done").exists():
            root.mkdir()
            make(root)
            (root / "done").touch()
    return root


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a small demo that went through the whole chain, with secrets lying about."""
    from tests.history import FOLDER, secrets

    def make(root: Path) -> None:
        with secrets():
            make_small_demo(root / FOLDER)

    return made_once(tmp_path_factory, "small-demo", make) / FOLDER


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of the scripted history."""
    from tests.history import FOLDER, make_all

    return made_once(tmp_path_factory, "history", make_all) / FOLDER / "workspace"


@pytest.fixture
def copied(history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the scripted history's workspace, to do with as one likes; commands use it."""
    space = tmp_path / "workspace"
    shutil.copytree(history, space)
    monkeypatch.setenv("LORAFACTORY_WORKSPACE", str(space))
    return space


def make_small_demo(root: Path) -> None:
    from lorafactory import cli
    from lorafactory.pocket.demo import draw_demo

    source = root / "loras" / "demo" / "source"
    source.mkdir(parents=True)
    draw_demo(source, SMALL["pictures"])
    args = ["--workspace", str(root), "--recipe", "demo"]
    sets = [
        f"train.epochs={SMALL['epochs']}",
        f"train.batch={SMALL['batch']}",
        f"repeats.policy={SMALL['repeats']}",
        "train.save_every_epochs=1",
        'train.scheduler="cosine"',
    ]
    sets += [
        "compare.seeds=[1]",
        'compare.prompts=["{trigger}", "{trigger}, a large yellow star in front of a plain blue background"]',
    ]
    code = cli.run(["make", "demo", *args, *(x for s in sets for x in ("--set", s))])
    assert code in (0, 4), f"the small demo ended with {code}"


@pytest.fixture
def demo(trained: Path, space: Path) -> Iterator[Path]:
    """A copy of the small demo's workspace to do with as one likes."""
    shutil.copytree(trained, space)
    yield space
