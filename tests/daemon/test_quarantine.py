"""What cannot become a LoRA: each with its reason, whole, and back in the inbox with one command."""

from __future__ import annotations

import errno
import json
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from dropped import Desk, png, write, zipped

from lorafactory.daemon import inbox, opening, quarantine
from lorafactory.errors import InputError


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "workspace")


def linked(drop: Path) -> None:
    (drop / "secret.txt").symlink_to("/etc/passwd")


def hard(drop: Path) -> None:
    os.link(drop / "1.png", drop.parent.parent / "elsewhere.png")


def piped(drop: Path) -> None:
    os.mkfifo(drop / "1.txt")


def emptied(drop: Path) -> None:
    (drop / "1.png").unlink()


def cut(drop: Path) -> None:
    write(drop / "1.png", png(1)[:-30])


def promised(drop: Path) -> None:
    write(drop / "manifest.sha256", "0" * 64 + "  2.png\n")


def unlisted(drop: Path) -> None:
    write(drop / "metadata.jsonl", "{no json")


def settings(text: str) -> Callable[[Path], None]:
    return lambda drop: write(drop / "lora.toml", text)


BAD = [
    ("symlink", "secret.txt", linked),
    ("hard_link", "1.png", hard),
    ("special_file", "1.txt", piped),
    ("no_images", "no picture", emptied),
    ("undecodable", "1.png", cut),
    ("manifest_mismatch", "2.png", promised),
    ("bad_captions", "metadata.jsonl", unlisted),
    ("bad_settings", "not TOML|Expected", settings("x = [")),
    ("bad_settings", "publish_to", settings('publish_to = ["/etc"]')),
    ("bad_settings", "unknown key `sd15`", settings("[sd15.train]\nepochs = 3")),
    ("bad_settings", "is not a setting", settings("[train]\nepochz = 3")),
    ("bad_settings", "epochs", settings("[train]\nepochs = -3")),
    ("bad_settings", "compare.to", settings('[compare]\nto = "/etc/cron.d"')),
    ("bad_settings", "train.from_lora", settings('[train]\nfrom_lora = "../../x.safetensors"')),
    ("bad_settings", "`base`", settings(r'base = "\\\\evil\\share\\x.safetensors"')),
    ("bad_settings", "`recipe`", settings('recipe = "/tmp/mine.toml"')),
    ("bad_settings", "`trigger`", settings('trigger = "../../x"')),
    ("bad_settings", "do not show", settings('[caption]\ntext = "a\u202eb"')),
    ("bad_settings", "`new`", settings("new = 3")),
    ("bad_settings", "nested", settings("a = " + "[" * 5000 + "]" * 5000)),
    ("bad_settings", "bytes", settings("#" * 70_000)),
]


@pytest.mark.parametrize(("code", "told", "spoil"), BAD)
def test_a_bad_folder_goes_to_quarantine_whole_and_says_why(
    desk: Desk, code: str, told: str, spoil: Callable[[Path], None]
):
    drop = desk.put("anna", 1)
    spoil(drop)
    before = {p.relative_to(drop): p.lstat().st_size for p in drop.rglob("*")}
    desk.settled(4000 if code in ("no_images", "undecodable", "manifest_mismatch") else 11)
    assert desk.quarantined() == {"anna": code}
    (place,) = (desk.space.root / "quarantine").iterdir()
    page = (place / "REASON.md").read_text()
    assert code in page
    assert any(part in page for part in told.split("|"))
    assert f"lora retry {place.name}" in page
    assert {p.relative_to(place / "anna"): p.lstat().st_size for p in (place / "anna").rglob("*")} == before
    assert not desk.space.loras.exists()
    assert desk.jobs() == []
    assert [p.name for p in desk.space.inbox.iterdir()] == [inbox.CLAIMS]
    assert desk.claims() == []


def locked(path: Path) -> None:
    data = bytearray(zipped(path, {"a.png": png()}).read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.find(mark) + at] |= 1
    path.write_bytes(data)


def link_inside(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        entry = zipfile.ZipInfo("a.png")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")


def damaged(path: Path) -> None:
    data = bytearray(zipped(path, {"a.png": png() * 40}).read_bytes())
    data[60] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("code", "make"),
    [
        ("archive_encrypted", locked),
        ("archive_unsafe", link_inside),
        ("archive_unsafe", lambda path: zipped(path, {"../a.png": png()})),
        ("archive_unsafe", lambda path: zipped(path, {"a.png": png(), "more.zip": b"PK"})),
        ("archive_unsafe", lambda path: zipped(path, {"a.png": png(), "A.png": png()})),
        ("bomb", lambda path: zipped(path, {"a.png": png(), "b.png": bytes(80 << 20)})),
        ("archive_broken", damaged),
        ("archive_broken", lambda path: write(path, b"no zip at all")),
        ("no_images", lambda path: zipped(path, {"a.exe": b"MZ"})),
        ("symlink", lambda path: path.symlink_to("/etc/passwd")),
        ("special_file", os.mkfifo),
    ],
)
def test_a_bad_zip_goes_to_quarantine(desk: Desk, code: str, make: Callable[[Path], object]):
    make(desk.space.inbox / "anna.zip")
    desk.settled(700)
    assert desk.quarantined() == {"anna.zip": code}
    (place,) = (desk.space.root / "quarantine").iterdir()
    assert sorted(p.name for p in place.iterdir()) == ["REASON.md", "anna.zip"]
    assert desk.claims() == []


def test_bytes_that_begin_no_zip_are_refused_once_they_have_settled(desk: Desk):
    path = write(desk.space.inbox / "anna.zip", b"\x8b\x01" + os.urandom(100))
    desk.scan()
    write(path, path.read_bytes() + os.urandom(100))
    desk.settled(9)
    assert desk.quarantined() == {}
    desk.settled(40)
    assert desk.quarantined() == {"anna.zip": "archive_broken"}


def test_retry_brings_it_back_and_mended_it_is_taken(desk: Desk):
    settings("[train]\nepochz = 3")(desk.put("anna", 1))
    desk.settled()
    (place,) = (desk.space.root / "quarantine").iterdir()
    settings("[train]\nepochs = 3")(place / "anna")
    assert quarantine.retry(desk.space, desk.store, "anna") == [desk.space.inbox / "anna"]
    assert list((desk.space.root / "quarantine").iterdir()) == []
    assert desk.quarantined() == {}
    desk.settled()
    assert desk.jobs() == [("anna", "queued")]
    assert "epochs = 3" in desk.space.lora("anna").settings.read_text()


def test_retry_says_what_there_is_and_writes_over_nothing(desk: Desk):
    emptied(desk.put("anna", 1))
    desk.settled(700)
    with pytest.raises(InputError, match="nothing called bob is quarantined; there is: anna-"):
        quarantine.retry(desk.space, desk.store, "bob")
    desk.put("anna", 2)
    with pytest.raises(InputError, match="is there already"):
        quarantine.retry(desk.space, desk.store, "anna")
    assert desk.quarantined() == {"anna": "no_images"}


def test_what_a_person_takes_out_of_quarantine_is_not_told_of_any_more(desk: Desk):
    emptied(desk.put("anna", 1))
    desk.settled(700)
    (place,) = (desk.space.root / "quarantine").iterdir()
    (place / "anna").rename(desk.space.inbox / "bea")
    desk.scan()
    assert desk.quarantined() == {}
    assert not place.exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.ESTALE, errno.EBUSY])
def test_what_passes_never_condemns(desk: Desk, monkeypatch: pytest.MonkeyPatch, number: int):
    desk.put("anna", 1)

    def fails(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    for module, name in ((opening.stability, "sha256"), (inbox, "copy_new"), (inbox.stability, "look")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, fails)
            assert desk.settled()[-1].why == os.strerror(number)
        desk.clock.now += inbox.PAUSE
    assert desk.quarantined() == {}
    assert desk.settled(60)[-1].state == "taken"


def test_quarantine_on_another_file_system_gets_a_whole_copy(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    linked(drop := desk.put("anna", 1))
    piped(drop)
    rename = os.rename

    def border(source: Path, target: Path) -> None:
        here, there = ("quarantine" in Path(p).parts for p in (source, target))
        if here != there:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(source, target)

    monkeypatch.setattr(os, "rename", border)
    desk.settled()
    (place,) = (desk.space.root / "quarantine").iterdir()
    assert sorted(p.name for p in (place / "anna").iterdir()) == ["1.png", "secret.txt"]
    assert (place / "anna" / "1.png").read_bytes() == png(1)
    assert desk.claims() == []


def test_a_reason_is_a_page_that_a_file_name_cannot_break(desk: Desk):
    write(desk.space.inbox / "a\nb" / "x\ny.png", b"x")
    desk.settled(700)
    (place,) = (desk.space.root / "quarantine").iterdir()
    assert "- x y.png\n" in (place / "REASON.md").read_text()
    assert json.dumps(place.name).isascii()
