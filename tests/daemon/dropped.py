"""What the tests of the inbox share: pictures that differ, a clock that they set, a record that is made once."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from PIL import Image

from lorafactory.daemon.inbox import CLAIMS, Inbox, Sight
from lorafactory.store import Store
from lorafactory.workspace import Workspace

MEMORY = Path("/dev/shm")


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@cache
def png(number: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256, number // 256 % 256, 77)).save(buffer, "PNG")
    return buffer.getvalue()


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write(path: Path, data: bytes | str = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)  # of 1980: equal files, equal zips
    return path


@dataclass
class Desk:
    """A workspace with its inbox, and a daemon on a clock that stands still."""

    root: Path
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.space = Workspace(self.root, "a test")
        self.space.inbox.mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self) -> None:
        """Start the daemon anew: what it remembered is gone, the record stays."""
        if hasattr(self, "store"):
            self.store.close()
        self.store = Store(self.space.record)
        self.inbox = Inbox(self.space, self.store, self.clock)

    def scan(self, after: float = 0.0) -> list[Sight]:
        self.clock.now += after
        return self.inbox.scan()

    def settled(self, seconds: float = 11.0) -> list[Sight]:
        """Scan until what is complete was taken; all that the scans had to say, the latest last."""
        return [sight for _ in range(4) for sight in self.scan(seconds / 3)]

    def states(self) -> dict[str, str]:
        return {s.name: s.state for s in self.inbox.scan()}

    def put(self, name: str, *numbers: int) -> Path:
        """Drop a folder of pictures."""
        for number in numbers:
            write(self.space.inbox / name / f"{number}.png", png(number))
        return self.space.inbox / name

    def sources(self, lora: str) -> list[str]:
        folder = self.space.lora(lora).source
        return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())

    def jobs(self) -> list[tuple[str, str]]:
        return self.store.select("SELECT lora, state FROM job ORDER BY id")

    def quarantined(self) -> dict[str, str]:
        """Name of the drop to the code of the reason."""
        return dict(self.store.select("""SELECT name, code FROM "drop" WHERE state = 'quarantined'"""))

    def claims(self) -> list[str]:
        folder = self.space.inbox / CLAIMS
        return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []


# ---------------------------------------------------------------- drops, and what becomes of them


def folder(desk: Desk) -> None:
    drop = desk.put("anna", 1, 2)
    write(drop / "1.txt", "anna")
    write(drop / "metadata.jsonl", '{"file_name": "2.png", "text": "anna at sea"}')
    write(drop / "lora.toml", 'class = "woman"')
    write(drop / "sub" / "notes.pdf", b"pdf")


def more(desk: Desk) -> None:
    desk.put("anna", 1)
    desk.settled()
    with desk.store.transaction() as db:
        db.execute("UPDATE job SET state = 'done'")
    write(write(desk.put("anna", 1, 3) / "2.png", png(2)).with_suffix(".txt"), "again")


def archive(desk: Desk) -> None:
    zipped(desk.space.inbox / "anna.zip", {"set/1.png": png(1), "set/1.txt": b"anna"})


def another(desk: Desk) -> None:
    more(desk)
    write(desk.space.inbox / "anna" / "lora.toml", "new = true")


def refused(desk: Desk) -> None:
    (desk.put("anna", 1) / "link").symlink_to("/")


def end(desk: Desk) -> tuple[object, ...]:
    """Where all is in the end: files, rows, jobs; ids of drops left out."""
    ulids = [ulid for (ulid,) in desk.store.select("""SELECT ulid FROM "drop" ORDER BY id""")]
    names = {ulid: f"#{n}" for n, ulid in enumerate(ulids)} | {u[-8:].lower(): f"#{n}" for n, u in enumerate(ulids)}

    def told(path: Path) -> str:
        text = path.relative_to(desk.space.root).as_posix()
        for ulid, name in names.items():
            text = text.replace(ulid, name)
        return text

    kept = (p for p in desk.space.root.rglob("*") if ".lock" not in p.name and "lorafactory.db" not in p.name)
    files = {told(p): "link" if p.is_symlink() else p.read_bytes() for p in kept if p.is_symlink() or p.is_file()}
    files = {n: b"" if n.endswith("REASON.md") else b for n, b in files.items() if not n.endswith(".part")}
    drops = desk.store.select("""SELECT name, lora, state, code, sha256 FROM "drop" ORDER BY id""")
    jobs = desk.store.select("SELECT lora, state, drop_id FROM job ORDER BY id")
    return files, drops, jobs


Prepare = Callable[[Desk], None]
DROPS: tuple[Prepare, ...] = (folder, more, archive, another, refused)
