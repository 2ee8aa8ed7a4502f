"""SIGKILL before every system call that changes a file: of a claim, an ingest, a training's states, a pick.

strace counts the calls of an undisturbed run, then kills one run at each of them. What was killed is begun again, and
then all is as it is without a kill; in between no file is torn, and nothing is lost that was there before.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from dropped import Desk, Prepare, archive, end, folder, more, refused, sha
from picked_sets import three_saves
from zygote import Job, Zygote

from lorafactory.daemon.opening import UNPACKED
from lorafactory.store import Store

pytestmark = pytest.mark.xdist_group("killed")  # one zygote for all
CALLS = (
    "open openat creat write pwrite64 writev pwritev sendfile copy_file_range fallocate truncate ftruncate fsync "
    "fdatasync rename renameat renameat2 link linkat symlink symlinkat unlink unlinkat mkdir mkdirat rmdir chmod "
    "fchmod fchmodat utime utimes utimensat"
)
TRACED = "trace=?" + ",?".join(CALLS.split())  # no system has all of them
LINE = re.compile(r"^\d+ +(\w+)\((.*)")
Tree = dict[str, str]


# ---------------------------------------------------------------- strace


def run(job: Job, log: Path, *told: str) -> int:
    """Let a job run under strace, and return its exit code."""
    command = ["strace", "-f", "-y", "-s", "0", "-o", str(log), "-e", TRACED, *told, "-p", str(job.pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        said = strace.stderr.readline()
        if "attached" not in said:
            job.kill()
            job.wait()
            pytest.skip(f"strace cannot trace here: {said}")
        code = job.go().wait()
        strace.communicate()
    return code


def moments(log: Path, root: Path) -> list[tuple[str, int]]:
    """The calls that change a file below `root`, locks left out: name, and which one of that name it is, from 1."""
    found, seen = [], Counter[str]()
    for call, told in (m.groups() for m in map(LINE.match, log.read_text(errors="replace").splitlines()) if m):
        seen[call] += 1
        reads = call.startswith("open") and "O_CREAT" not in told and "O_TRUNC" not in told
        if str(root) in told and not (reads or " = -1 " in told or ".lock" in told):
            found.append((call, seen[call]))
    return found


# ---------------------------------------------------------------- what is swept


@dataclass(frozen=True)
class Swept:
    """A piece of work: what is there before, the job, how it has ended; and whether it only ever adds files."""

    prepare: Callable[[Path], object]
    job: str
    end: Callable[[Path], object]
    adds: bool = True


def drop(prepare: Prepare) -> Swept:
    """The work on a drop."""

    def prepared(root: Path) -> None:
        desk = Desk(root)
        prepare(desk)
        desk.store.close()

    def ended(root: Path) -> object:
        desk = Desk(root)
        found = end(desk), sound(desk.store)
        desk.store.close()
        return found

    return Swept(prepared, "killed_work:take", ended)


def compared(root: Path) -> None:
    """A LoRA that was compared, with a folder to publish to."""
    work = three_saves(root)
    work.place.settings.write_text('trigger = "4nna"\nkind = "person"\nclass = "woman"\n', encoding="utf-8")
    work.workspace.config_path.write_text(f"publish_to = ['{root / 'out'}']\n", encoding="utf-8")
    Store(work.workspace.record).close()


def published(root: Path) -> object:
    """Every file; the record says of the latest pick what is on the disk, and that no other ended."""
    with Store(root / "lorafactory.db") as store:
        newest, *earlier = store.runs("anna", 10)
        made = set(store.edges(newest.id, "out").values())
        assert len(made) == 4 and made <= set(tree(root).values())
        assert newest.status == "done" and {run.status for run in earlier} <= {"interrupted"}
        return tree(root), sound(store)


def empty(root: Path) -> None:
    root.mkdir()


def sound(store: Store) -> list[tuple[str]]:
    return store.select("PRAGMA integrity_check") + store.select("PRAGMA foreign_key_check")


def tree(root: Path) -> Tree:
    """sha256 of every file under its own name; what belongs to the record, locks and unfinished files left out."""
    left = re.compile(rf"^lorafactory\.db|\.lock$|\.part$|/{UNPACKED}/")
    files = {p.relative_to(root).as_posix(): p for p in root.rglob("*") if p.is_file() and not p.is_symlink()}
    return {name: sha(path.read_bytes()) for name, path in files.items() if not left.search(name)}


SWEPT = {
    "folder": drop(folder),
    "more": drop(more),
    "archive": drop(archive),
    "refused": drop(refused),
    "states": Swept(empty, "killed_states:keep", tree, adds=False),
    "pick": Swept(compared, "killed_work:publish", published),
}


@pytest.fixture(autouse=True)
def strace() -> None:
    if shutil.which("strace") is None:
        pytest.skip("no strace: apt-get install strace")


@pytest.mark.parametrize("every", [20, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("what", SWEPT)
def test_killed_before_any_system_call_it_ends_the_same(tmp_path: Path, zygote: Zygote, what: str, every: int):
    swept, root, ready, log = SWEPT[what], tmp_path / "root", tmp_path / "ready", tmp_path / "strace"
    swept.prepare(root)
    shutil.copytree(root, ready, symlinks=True)
    assert run(zygote.job(swept.job, root), log) == 0, zygote.log.read_text()
    wanted, before, after = swept.end(root), tree(ready), tree(root)
    calls = moments(log, root)
    assert len(calls) > 20
    for number, (call, nth) in enumerate(calls[every // 2 :: every]):
        shutil.rmtree(root)
        shutil.copytree(ready, root, symlinks=True)
        where = f"killed before {call} {nth}, {number} of {len(calls)}"
        code = run(zygote.job(swept.job, root), log, "-e", f"inject={call}:signal=KILL:when={nth}")
        assert code == -9, f"{where}: {code}"
        torn_or_lost(tree(root), before, after, adds=swept.adds)
        again = zygote.job(swept.job, root).go()
        assert again.wait() == 0, f"{where}: {zygote.log.read_text()}"
        assert swept.end(root) == wanted, where


def torn_or_lost(now: Tree, before: Tree, after: Tree, *, adds: bool) -> None:
    """What is there after a kill is whole: as it was before, or as it will be. What was there before is there still."""
    known = {*before.values(), *after.values()}
    torn = [name for name, sha256 in now.items() if sha256 not in known and not name.endswith("REASON.md")]
    assert not (adds and torn)
    assert not [name for name, sha256 in before.items() if sha256 not in now.values()]
