"""Whatever happens to the inbox and its daemons, every byte dropped ends in one place, and no drop trains twice.

Bytes are told by tokens: each chunk that is written has one of its own, so that also halves of files are followed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import BinaryIO

import pytest
from dropped import MEMORY, Clock, png
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from killing import dying

from lorafactory.daemon import quarantine
from lorafactory.daemon.inbox import CLAIMS, Inbox
from lorafactory.daemon.names import lora_name
from lorafactory.store import Store
from lorafactory.workspace import Workspace

NAMES = st.sampled_from(["anna", "bob", "a:b"])
FILES = st.sampled_from(["1.png", "2.png", "sub/1.png", "1.txt", "notes.pdf"])
WHICH = st.integers(0, 1)
SPOILED = ['base = "//evil/x"', "new = true", 'class = "woman"', "[train]\nepochs = 2"]


class InboxMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="lorafactory-test-", dir=MEMORY if MEMORY.is_dir() else None))
        self.clock = Clock()
        self.there = self.root / "0" / "inbox"
        self.there.mkdir(parents=True)
        (self.root / "1").mkdir()
        (self.root / "1" / "inbox").symlink_to(self.there)
        self.spaces = [Workspace(self.root / str(n), "a test") for n in (0, 1)]
        self.stores = [Store(space.record) for space in self.spaces]
        self.daemons = [Inbox(s, r, self.clock) for s, r in zip(self.spaces, self.stores, strict=True)]
        self.tokens: set[bytes] = set()
        self.count = 0
        self.drops: Counter[str] = Counter()
        self.open: dict[str, BinaryIO] = {}

    # ------------------------------------------------ what people and programs do

    def token(self) -> bytes:
        self.count += 1
        token = b"<token %06d>" % self.count
        self.tokens.add(token)
        return token

    def arrives(self, name: str) -> Path:
        """Where a drop of this name is written, and that it is a new one if none is there."""
        path = self.there / name
        self.drops[name] += not path.exists()
        return path

    @rule(name=NAMES, file=FILES)
    def write_chunk(self, name: str, file: str) -> None:
        """A copier that opens its files by their paths anew, and makes folders that are gone again."""
        path = self.arrives(name) / file
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as out:
            out.write((b"" if path.stat().st_size else png(self.count)) + self.token())

    @rule(name=NAMES, file=FILES)
    def begin_file(self, name: str, file: str) -> None:
        """A copier that keeps its file open, wherever the file goes."""
        assume(name not in self.open)
        path = self.arrives(name) / file
        path.parent.mkdir(parents=True, exist_ok=True)
        self.open[name] = path.open("ab", buffering=0)
        self.open[name].write(png(self.count) + self.token())

    @precondition(lambda self: self.open)
    @rule(data=st.data(), close=st.booleans())
    def go_on_with_file(self, data: st.DataObject, close: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.open)))
        if os.fstat(self.open[name].fileno()).st_nlink:  # bytes written to a file that was deleted are nobody's
            self.open[name].write(self.token())
        if close:
            self.open.pop(name).close()

    @rule(name=NAMES, count=st.integers(1, 3))
    def rename_in(self, name: str, count: int) -> None:
        assume(not (self.there / name).exists())
        hidden = self.there / f".{name}.partial"
        hidden.mkdir()
        for number in range(count):
            (hidden / f"{number}.png").write_bytes(png(self.count) + self.token())
        self.daemons[0].scan()
        hidden.rename(self.arrives(name))

    @rule(name=NAMES)
    def drop_a_zip(self, name: str) -> None:
        assume(not (self.there / f"{name}.zip").exists())
        with zipfile.ZipFile(self.arrives(f"{name}.zip"), "w") as archive:
            archive.writestr("set/1.png", png(self.count) + self.token())
            archive.writestr("set/1.txt", self.token())

    @rule(name=NAMES, text=st.sampled_from(SPOILED))
    def ask(self, name: str, text: str) -> None:
        assume((self.there / name).is_dir() and not (self.there / name / "lora.toml").exists())
        (self.there / name / "lora.toml").write_bytes(f"{text}\n# ".encode() + self.token())

    @rule(name=NAMES)
    def spoil(self, name: str) -> None:
        assume((self.there / name).is_dir() and not (self.there / name / "link").is_symlink())
        (self.there / name / "link").symlink_to("/")

    @rule(name=NAMES)
    def touch(self, name: str) -> None:
        for path in (self.there / name).rglob("*.png"):
            os.utime(path, (0, 0))

    @rule(name=NAMES, out=st.booleans())
    def take_out(self, name: str, out: bool) -> None:
        """Rename out of the inbox, or delete: those bytes are not ours any more."""
        path = self.there / name
        assume(path.is_dir())
        self.tokens -= tokens_below(path)
        gone = {p.stat().st_ino for p in path.rglob("*") if p.is_file()}
        if out:
            path.rename(Path(tempfile.mkdtemp(dir=self.root, prefix="out-")) / name)
        else:
            shutil.rmtree(path)
        if name in self.open and os.fstat(self.open[name].fileno()).st_ino in gone:  # what follows is not ours either
            self.open.pop(name).close()

    @rule(which=WHICH, data=st.data())
    def retry(self, which: int, data: st.DataObject) -> None:
        held = sorted((self.root / str(which) / "quarantine").glob("*/*[!d]"))
        assume(held)
        path = data.draw(st.sampled_from(held))
        assume(path.name != "REASON.md" and not (self.there / path.name).exists())
        self.drops[path.name] += 1
        quarantine.retry(self.spaces[which], self.stores[which], path.parent.name)

    @rule(which=WHICH)
    def train(self, which: int) -> None:
        with self.stores[which].transaction() as db:
            db.execute("UPDATE job SET state = 'done' WHERE state = 'running'")
            db.execute("UPDATE job SET state = 'running' WHERE state = 'queued'")

    # ------------------------------------------------ what the daemons do

    @rule(seconds=st.sampled_from([0.5, 4.0, 11.0, 40.0]))
    def time_passes_and_no_event_comes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(seconds=st.sampled_from([-1e6, 1e6]))
    def the_clock_jumps(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(which=WHICH)
    def scan(self, which: int) -> None:
        self.daemons[which].scan()

    @rule(which=WHICH, seconds=st.sampled_from([4.0, 20.0, 700.0]))
    def watch(self, which: int, seconds: float) -> None:
        for _ in range(4):
            self.clock.now += seconds
            self.daemons[which].scan()

    @rule(which=WHICH, moments=st.integers(1, 90), seconds=st.sampled_from([4.0, 20.0, 700.0]))
    def kill(self, which: int, moments: int, seconds: float) -> None:
        with dying(moments):
            self.watch(which, seconds)
        self.restart(which)

    def restart(self, which: int) -> None:
        self.stores[which].close()
        self.stores[which] = Store(self.spaces[which].record)
        self.daemons[which] = Inbox(self.spaces[which], self.stores[which], self.clock)

    # ------------------------------------------------ what holds

    @invariant()
    def no_byte_is_lost(self) -> None:
        assert self.tokens <= tokens_below(self.root)

    @invariant()
    def no_drop_is_claimed_twice(self) -> None:
        rows = [row for s in self.stores for row in s.select("""SELECT name, state, ulid FROM "drop" """)]
        # a daemon that died between row and rename claims nothing: another may take the drop before its row is gone
        claimed = Counter(
            n for n, state, ulid in rows if state != "claimed" or (self.there / CLAIMS / ulid / n).exists()
        )
        assert claimed <= self.drops, (claimed, self.drops)

    def teardown(self) -> None:
        try:
            self.heals()
        finally:
            for file in self.open.values():
                file.close()
            for store in self.stores:
                store.close()
            shutil.rmtree(self.root)

    def heals(self) -> None:
        """All is done, nobody trains, both daemons start anew: in the end all is where it belongs."""
        for which in (0, 1):
            self.restart(which)
            with self.stores[which].transaction() as db:
                db.execute("UPDATE job SET state = 'done' WHERE state = 'running'")
        for _ in range(8):
            self.clock.now += 700
            told = [sight for daemon in self.daemons for sight in daemon.scan()]
        self.no_byte_is_lost()
        self.no_drop_is_claimed_twice()
        assert told == []
        assert [p.name for p in self.there.iterdir()] in ([], [CLAIMS])
        assert not any((self.there / CLAIMS).glob("*"))
        places = Counter(token for place in self.ends() for token in tokens_below(place))
        assert {token: count for token, count in places.items() if count != 1} == {}
        assert places.keys() >= self.tokens
        for which, store in enumerate(self.stores):
            self.every_lora_is_asked_for(which, store)

    def ends(self) -> list[Path]:
        """The places where a byte may end."""
        loras = [p / "source" for n in (0, 1) for p in (self.root / str(n) / "loras").glob("*")]
        return [self.there, *loras, *(p for n in (0, 1) for p in (self.root / str(n) / "quarantine").glob("*"))]

    def every_lora_is_asked_for(self, which: int, store: Store) -> None:
        drops = store.select("""SELECT id, name, lora FROM "drop" WHERE state = 'ingested'""")
        jobs = store.select("SELECT drop_id, lora FROM job")
        folder = self.spaces[which].loras
        filled = {p.name for p in folder.glob("*") if any((p / "source").rglob("[!.]*.png"))}
        assert not store.select("""SELECT 1 FROM "drop" WHERE state = 'claimed'""")
        assert filled <= {lora for _, _, lora in drops} == {lora for _, lora in jobs}
        assert max(Counter(drop for drop, _ in jobs).values(), default=1) == 1
        assert all(lora.removesuffix("-2") == lora_name(name) or "-" in lora for _, name, lora in drops)


def tokens_below(place: Path) -> set[bytes]:
    """Every token in the files of a folder; those of zips are stored as they are."""
    found = set()
    for path in place.rglob("*"):
        if not path.is_symlink() and path.is_file():
            parts = path.read_bytes().split(b"<token ")[1:]
            found |= {b"<token " + part[:7] for part in parts}
    return found


InboxMachine.TestCase.settings = settings(
    max_examples=12, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
TestEveryByteEndsInOnePlace = InboxMachine.TestCase


@pytest.mark.slow
class TestManyTimes(InboxMachine.TestCase):
    settings = settings(
        max_examples=1000, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
    )
