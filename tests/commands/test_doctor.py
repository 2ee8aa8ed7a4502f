"""The doctor: each thing that would spoil a night is found, with what to do, and nothing is changed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from lorafactory import mounts
from lorafactory.commands import doctor
from lorafactory.daemon import rows
from lorafactory.daemon.awake import NOT_KEPT
from lorafactory.daemon.queue import Queue
from lorafactory.recording import new_ulid
from lorafactory.store import Store
from lorafactory.workspace import Workspace
from tests.conftest import Said

Lora = Callable[..., Said]
Found = dict[str, dict[str, str]]


@pytest.fixture
def seen(lora: Lora, monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[int, Found]]:
    """What the doctor finds, by what it is about, on a machine whose card, settings and packages are out of play."""
    monkeypatch.setattr(doctor, "nvidia_smi", lambda *query: [])
    monkeypatch.setattr(doctor, "SLEEP", {})
    monkeypatch.setattr(doctor, "CHECKS", tuple(check for check in doctor.CHECKS if check is not doctor.packages))

    def look() -> tuple[int, Found]:
        said = lora("doctor", "--json")
        return said.code, {row["what"]: row for row in json.loads(said.out)["findings"]}

    return look


@pytest.fixture
def queue(space: Path) -> Any:
    space.mkdir()
    (space / "lorafactory.toml").write_text('base = "pocket"\n[watch]\nfree_gb = 0\n', encoding="utf-8")
    with Store(space / "lorafactory.db") as store:
        yield Queue(store)


def test_without_a_workspace_the_machine_is_looked_at_and_nothing_is_made(lora: Lora, seen: Any, space: Path):
    code, found = seen()
    assert code == 0 and {"disk", "drives", "sleep", "clock"} <= found.keys() and not space.exists()
    said = lora("doctor")
    assert "a night can begin" in said.out and "disk" in said.out


def test_a_disk_too_small_for_the_queue(seen: Any, queue: Queue, space: Path, monkeypatch: pytest.MonkeyPatch):
    place = queue.space.lora("made")
    place.root.mkdir(parents=True)
    place.chosen.write_bytes(b"x" * 3_000_000)
    free = 5_000_000
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": free}))
    (space / "loras" / "anna" / "source").mkdir(parents=True)
    queue.add("anna")
    assert seen()[1]["disk"]["verdict"] == "ok", "3 MB fit into 5"
    queue.add("berta")
    disk = seen()[1]["disk"]
    assert disk["verdict"] == "note" and "2 queued LoRAs" in disk["value"] and "--disk" in disk["fix"]
    (space / "lorafactory.toml").write_text('base = "pocket"\n[watch]\nfree_gb = 1\n', encoding="utf-8")
    code, found = seen()
    assert code == 3 and found["disk"]["verdict"] == "problem"


class Mount(NamedTuple):
    """As psutil tells of one."""

    device: str
    mountpoint: str
    fstype: str
    opts: str


def test_a_workspace_or_inbox_on_a_network(seen: Any, queue: Queue, space: Path, monkeypatch: pytest.MonkeyPatch):
    parts = [Mount("/dev/a", "/", "ext4", "rw")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: parts)
    assert "drives" in seen()[1]
    parts.append(Mount("nas:/drops", str(space / "inbox"), "nfs4", "rw"))
    assert f"{mounts.REMOTE_SETTLE:g} s" in seen()[1]["inbox"]["value"]
    parts.append(Mount("nas:/all", str(space), "cifs", "rw"))
    code, found = seen()
    assert code == 3 and found["record"]["value"].startswith(f"{space / 'lorafactory.db'} is on a network drive (cifs)")
    assert found["record"]["fix"].startswith("--workspace FOLDER")
    (space / "lorafactory.db").unlink()
    code, found = seen()
    assert code == 3 and found["drives"]["value"].startswith(f"{space / 'lorafactory.db'} is on a network drive (cifs)")


CARD = ["RTX 3060", "550.1", "900", "12288"]


@pytest.mark.parametrize(
    ("told", "verdict"),
    [("2.9.1 12.8 True", "ok"), ("2.9.1 without CUDA False", "problem"), ("", "problem")],
)
def test_a_card_that_torch_cannot_use(seen: Any, monkeypatch: pytest.MonkeyPatch, told: str, verdict: str):
    asked = []
    monkeypatch.setattr(doctor, "nvidia_smi", lambda *query: [CARD])
    monkeypatch.setattr(doctor, "answer", lambda *command: asked.append(command) or f"{told}\n")
    monkeypatch.setattr(doctor, "others", lambda: " Also on the card: game.exe (3000 MB).")
    code, found = seen()
    assert found["torch"]["verdict"] == verdict and (code == 3) == (verdict == "problem")
    assert asked == [(sys.executable, "-c", doctor.ASK_TORCH)]
    assert "900 of 12288 MB free" in found["graphics card"]["value"]
    assert "game.exe (3000 MB)" in found["other programs"]["value"] and found["other programs"]["verdict"] == "note"


def test_torch_is_not_asked_where_there_is_no_card(seen: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "answer", lambda *command: pytest.fail(f"{command} was asked"))
    assert "torch" not in seen()[1]


@pytest.mark.parametrize(
    ("system", "told", "held", "verdict"),
    [
        ("linux", "'suspend'\n", False, "problem"),
        ("linux", "'suspend'\n", True, "ok"),
        ("linux", "'nothing'\n", False, "ok"),
        ("darwin", "Power settings:\n displaysleep         10\n sleep                1\n", False, "problem"),
        ("darwin", "Power settings:\n displaysleep         10\n sleep                0\n", False, "ok"),
        ("win32", "    Current AC Power Setting Index: 0x00000708\n    Current DC Power Setting Index: 0x00000000\n",
         False, "problem"),
        ("win32", "    Current AC Power Setting Index: 0x00000000\n    Current DC Power Setting Index: 0x00000384\n",
         False, "ok"),
    ],
)  # fmt: skip
def test_a_machine_that_falls_asleep(monkeypatch: pytest.MonkeyPatch, system: str, told: str, held: bool, verdict: str):
    from contextlib import nullcontext

    how = "the machine is kept awake meanwhile" if held else f"{NOT_KEPT}: nothing there"
    monkeypatch.setattr(doctor, "answer", lambda *command: told)
    monkeypatch.setattr(doctor, "awake", lambda: nullcontext(how))
    monkeypatch.setattr(sys, "platform", system)
    (row,) = doctor.sleep(Workspace(Path(os.devnull), ""), None)
    assert row.verdict == verdict and how in row.value and bool(row.fix) == (verdict == "problem")


def test_a_clock_that_went_back(seen: Any, queue: Queue):
    with queue.store.run("anna", "train", version=1, key="k", settings={}):
        pass
    assert seen()[1]["clock"]["verdict"] == "ok"
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    with queue.store.transaction() as db:
        db.execute("UPDATE run SET ended_at = ?", (later,))
    code, found = seen()
    assert code == 3 and later in found["clock"]["value"]


def test_what_was_left_and_what_needs_somebody(seen: Any, queue: Queue, space: Path):
    for name in ("dead", "failed", "asks"):
        (space / "loras" / name).mkdir(parents=True)
    queue.begin(queue.add("dead"))
    queue.finish(queue.add("failed"), "failed", failure="needs you", reason="no pictures [at all]")
    queue.finish(queue.add("asks"), "waiting", reason="look at it")
    rows.claim(queue.store, ulid := new_ulid(), "bad.zip")
    rows.condemn(queue.store, ulid, "bomb", "It is too large.\nx.png")
    code, found = seen()
    assert code == 3
    assert found["left running"]["value"].startswith("dead") and found["left running"]["verdict"] == "note"
    assert found["failed"]["fix"].endswith("lora retry failed") and "[at all]" in found["failed"]["value"]
    assert found["asks"]["fix"].endswith("lora make asks")
    assert "bomb: It is too large." in found["bad.zip"]["value"] and "lora retry bad.zip" in found["bad.zip"]["fix"]
    assert not (space / "loras" / "dead" / ".lora.lock").exists(), "looking leaves nothing"


def test_a_queued_lora_that_cannot_begin(seen: Any, queue: Queue, space: Path):
    from lorafactory.pocket.demo import draw_demo

    (space / "loras" / "anna" / "source").mkdir(parents=True)
    draw_demo(space / "loras" / "anna" / "source", 8)
    queue.add("anna")
    assert "anna" not in seen()[1], "pocket needs nothing that is not here"
    (space / "loras" / "anna" / "lora.toml").write_text('base = "no-such"\n', encoding="utf-8")
    assert "no base called 'no-such'" in seen()[1]["anna"]["value"]
    (space / "loras" / "anna" / "lora.toml").write_text("[train]\nepochs = -1\n", encoding="utf-8")
    code, found = seen()
    assert code == 3 and "epochs" in found["anna"]["value"] and "lora check anna" in found["anna"]["fix"]


def test_settings_that_cannot_be_read_are_one_finding_among_others(seen: Any, queue: Queue, space: Path):
    (space / "lorafactory.toml").write_text("[watch]\nno_such = 1\n", encoding="utf-8")
    code, found = seen()
    assert code == 3 and "no_such" in found["disk"]["value"] and "drives" in found


def test_packages_that_are_not_the_tested_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "lorafactory").mkdir()
    monkeypatch.setattr("lorafactory.__file__", str(tmp_path / "lorafactory" / "__init__.py"))
    space = Workspace(tmp_path, "")
    assert list(doctor.packages(space, None)) == []
    lock = tmp_path / "requirements.lock"
    here = doctor.metadata.version("click")
    lock.write_text(f"click==0.1 ; sys_platform == 'win32'\nclick=={here}\n    # via x\nnot-here==1\nnvidia-x==9\n")
    (row,) = doctor.packages(space, None)
    assert row.verdict == "ok" and row.value == "1 package as tested"
    lock.write_text("click==0.1\npillow==0.2\n")
    (row,) = doctor.packages(space, None)
    assert row.verdict == "note" and f"click {here}" in row.value and "pillow" in row.value


def test_a_program_that_does_not_answer_says_nothing(monkeypatch: pytest.MonkeyPatch):
    assert doctor.answer("no-such-program") == ""
    assert doctor.answer(sys.executable, "-c", "import sys; print(1); sys.exit(1)") == ""
    monkeypatch.setattr(doctor, "PATIENCE", 0.0)
    assert doctor.answer(sys.executable, "-c", "print(1)") == ""
