"""The daemon is killed at every moment of its work on one drop; started anew, it ends where it would have ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from dropped import Desk, png, write, zipped
from killing import dying

from lorafactory.daemon.inbox import CLAIMS, KEPT


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


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("prepare", [folder, more, archive, another, refused])
def test_killed_at_any_moment_it_ends_the_same(tmp_path: Path, prepare: Callable[[Desk], None], every: int):
    undisturbed = Desk(tmp_path / "undisturbed")
    prepare(undisturbed)
    with dying(1 << 30) as life:
        undisturbed.settled()
    wanted = end(undisturbed)
    assert life.lived > 20
    assert not [n for n in wanted[0] if n.startswith(f"inbox/{CLAIMS}")]
    for moment in range(1, life.lived + 1, every):
        desk = Desk(tmp_path / str(moment))
        prepare(desk)
        with dying(moment):
            desk.settled()
        desk.start()
        desk.settled()
        desk.settled()
        assert end(desk) == wanted, f"killed at moment {moment} of {life.lived}"
        desk.store.close()
    undisturbed.store.close()


def test_what_was_put_away_is_beside_the_pictures_and_hidden(tmp_path: Path):
    desk = Desk(tmp_path / "workspace")
    folder(desk)
    desk.settled()
    assert all(name.startswith(f"{KEPT}/") for name in desk.sources("anna") if not name[0].isdigit())
    assert [n for n in desk.sources("anna") if n[0].isdigit()] == ["1.png", "1.txt", "2.png", "2.txt"]
