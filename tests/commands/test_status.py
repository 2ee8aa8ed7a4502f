"""What a person sees of the night, and the two answers to it: again, or no more."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorafactory.commands import watch
from lorafactory.daemon.queue import Queue
from lorafactory.store import Store
from lorafactory.workspace import Workspace
from tests.conftest import Said

Lora = Callable[..., Said]


@pytest.fixture
def queue(space: Path) -> Queue:
    """The queue of a workspace, with LoRAs that ended in every way."""
    space.mkdir()
    queue = Queue(Store(space / "lorafactory.db"))
    for name in ("again", "broken", "asks", "later"):
        (space / "loras" / name / "source").mkdir(parents=True)
        queue.add(name)
    jobs = {job.lora: job for job in queue.jobs()}
    queue.finish(jobs["broken"], "failed", failure="needs you", reason="base 'pony' is not there [really]")
    queue.finish(jobs["asks"], "waiting", reason="before train: look at it")
    queue.finish(jobs["again"], "failed", failure="transient", reason="No space left on device")
    return queue


def seen(lora: Lora) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lora("status", "--json").out)
    return found


def test_without_a_workspace_there_is_nothing_and_nothing_is_made(lora: Lora, space: Path):
    said = lora("status")
    assert said.code == 0 and "nothing needs you" in said.out and not space.exists()


def test_everything_is_told_worst_first(lora: Lora, queue: Queue):
    said = lora("status")
    assert said.code == 3 and "2 need you" in said.out and "[really]" in said.out
    order = [said.out.index(f"\n{name} ") for name in ("broken", "asks", "again", "later")]
    assert order == sorted(order)
    found = seen(lora)
    news = {card["name"]: (card["news"], card["next"]) for card in found["loras"]}
    assert news["broken"] == ("needs you", "lora retry broken")
    assert news["asks"] == ("waiting for you", "lora make asks")
    assert news["again"][0] == "queued"
    assert "went wrong once: No space left on device" in json.dumps(found)
    assert [job["lora"] for job in found["queue"]] == ["again", "later"]


def test_retry_queues_again_and_drop_gives_up(lora: Lora, queue: Queue, space: Path):
    assert "broken: queued" in lora("retry", "broken").out
    assert "asks: given up" in lora("retry", "asks", "--drop").out
    assert seen(lora)["needs_you"] == 0
    assert [job.lora for job in queue.jobs() if job.state == "queued"] == ["again", "later", "broken"]
    assert "given up" not in (space / "index.html").read_text(encoding="utf-8")


def test_a_running_job_is_not_given_up(lora: Lora, queue: Queue):
    queue.begin(next(job for job in queue.jobs() if job.lora == "later"))
    said = lora("retry", "later", "--drop")
    assert said.code == 5 and "stop `lora watch` first" in said.err


def test_what_is_nowhere_cannot_be_retried(lora: Lora, queue: Queue):
    assert lora("retry", "nobody").code == 3
    assert lora("retry", "nobody", "--drop").code == 3
    assert not (queue.space.loras / "nobody").exists()


def test_a_quarantined_drop_is_told_and_comes_back(lora: Lora, space: Path):
    drop = space / "inbox" / "void"
    drop.mkdir(parents=True)
    (drop / "_READY").touch()
    (space / "lorafactory.toml").write_text("[watch]\nfree_gb = 0\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lorafactory.daemon.watch.SCAN", 0.0)
        patch.setattr("lorafactory.daemon.watch.TICK", 0.0)
        said = lora("watch", "--once")
    assert said.code == 3 and "void: quarantined" in said.out
    (card,) = seen(lora)["loras"]
    assert card["news"] == "quarantined" and card["next"] == f"lora retry {card['name']}"
    assert "no_images" in card["reason"] or "picture" in card["reason"]
    said = lora("retry", card["name"])
    assert said.code == 0 and "back in the inbox" in said.out and (drop / "_READY").exists()
    assert seen(lora)["loras"] == []


def test_disk_tells_what_may_go(lora: Lora, space: Path, queue: Queue):
    place = space / "loras" / "later"
    (place / "results" / "2026").mkdir(parents=True)
    (place / "results" / "2026" / "later.safetensors").write_bytes(bytes(5000))
    (place / "source" / "a.png").write_bytes(bytes(300))
    row = next(r for r in json.loads(lora("status", "--disk", "--json").out) if r["name"] == "later")
    assert (row["originals"], row["earlier"], row["safe_to_delete"]) == (300, 5000, 5000)
    assert "safe to delete" in lora("status", "--disk").out


def test_the_unit_quotes_what_systemd_would_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    path = watch.install(Workspace(tmp_path / 'a "50%" $HOME', ""))
    line = next(x for x in path.read_text(encoding="utf-8").splitlines() if x.startswith("ExecStart="))
    assert line.endswith(f'"--workspace" "{tmp_path}/a \\"50%%\\" $$HOME"')
    assert path == tmp_path / "config" / "systemd" / "user" / watch.UNIT
