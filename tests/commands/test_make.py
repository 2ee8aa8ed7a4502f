"""`lora make`: which trigger a set that came from elsewhere gets, and what is said of pictures set aside."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from drawn import draw_all

QUICK = ("--to", "dedupe", "--text", "x", "--base", "pocket", "--set", "dedupe.no_clip=true")


def trigger_in(space: Path, name: str) -> str:
    return str(tomllib.loads((space / "loras" / name / "lora.toml").read_text(encoding="utf-8"))["trigger"])


@pytest.mark.parametrize(
    ("folders", "captions", "expected"),
    [
        (["36_zzz"], ["zzz, a photo", "a photo of ZZZ"], "zzz"),
        (["36_4nna woman"], ["4nna, smiling", None], "4nna"),
        (["36_zzz"], ["zzz, a photo", "zzzz, a photo"], "rk"),
        (["36_holidays"], [None, None], "rk"),
        (["36_zzz", "4_hat"], ["zzz, a hat", "zzz, a hat"], "rk"),
        (["36_zzz face", "4_zzz far"], ["zzz, near", "zzz, far"], "zzz"),
        (["36_zzz", "reg/1_woman"], ["zzz, near", "a woman"], "zzz"),
        (["photos"], ["zzz, near", "zzz"], "rk"),
    ],
)
def test_a_set_brings_its_trigger(
    lora, space: Path, tmp_path: Path, folders: list[str], captions: list[str | None], expected: str
):
    for i, text in enumerate(captions):
        folder = draw_all(tmp_path / "from" / folders[i % len(folders)], 1, first=i)
        if text:
            (folder / f"IMG {i}.txt").write_text(text)
    said = lora("make", "rkohya", "--from", tmp_path / "from", *QUICK)
    assert said.code == 0, said.err
    found = trigger_in(space, "rkohya")
    assert found.startswith("rk") if expected == "rk" else found == expected
    assert lora("make", "told", "--from", tmp_path / "from", "--trigger", "mine", *QUICK).code == 0
    assert trigger_in(space, "told") == "mine"


def test_pictures_set_aside_are_named(lora, space: Path, tmp_path: Path):
    draw_all(tmp_path / "from", 3)
    for i in range(12):
        (tmp_path / "from" / f"broken {i}.jpg").write_bytes(b"no picture %d" % i)
    said = lora("make", "anna", "--from", tmp_path / "from", *QUICK)
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("rename: "))
    assert "12 set aside (12 unreadable)" in lines[at]
    assert all(
        line.startswith("    broken ") and ": set aside, unreadable: " in line for line in lines[at + 1 : at + 11]
    )
    assert lines[at + 11] == "    and 2 more: lora why anna"
    assert lines[at + 12].startswith("dedupe: ")
