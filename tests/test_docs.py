"""The README is current, and says nothing that does not exist."""

from __future__ import annotations

import difflib
import io
import re
from contextlib import redirect_stdout
from pathlib import Path

from cogapp import Cog

from lorafactory import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_generated_parts_are_current(tmp_path: Path):
    made = tmp_path / "README.md"
    with redirect_stdout(io.StringIO()):
        assert Cog().main(["cog", "-o", str(made), str(ROOT / "README.md")]) == 0
    changed = difflib.unified_diff(README.splitlines(), made.read_text(encoding="utf-8").splitlines(), lineterm="", n=0)
    assert not (told := "\n".join(changed)), f"type: make docs\n{told}"


def test_every_command_named_exists():
    named = set(re.findall(r"\blora ([a-z]+)\b", "\n".join(re.findall(r"```sh\n(.*?)```", README, re.S))))
    known = set(cli.lora.list_commands(None))
    assert named - {"make"} <= known | {"make"}
    assert known >= {"make", "check", "why", "recipe", "train"}


def test_every_make_target_named_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`make ([a-z-]+)", README)) <= targets
    assert {"setup", "lora", "test", "test-all", "check", "fix", "docs", "bench", "pocket", "clean"} <= targets


def test_every_picture_shown_is_there():
    for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (ROOT / path).is_file(), path
