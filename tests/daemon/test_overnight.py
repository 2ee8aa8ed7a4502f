"""A night: what is brought into the inbox, in which order it is made, what is said before, and what stays awake."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dropped import png, write, zipped

from lorafactory import settings
from lorafactory.commands.overnight import next_at
from lorafactory.daemon import awake, estimate, overnight, watch
from lorafactory.daemon.estimate import Length
from lorafactory.daemon.limits import own
from lorafactory.daemon.queue import Job, Queue
from lorafactory.daemon.worker import work
from lorafactory.errors import DONE, NEEDS_YOU, STOPPED, USAGE, FailedError, InputError, SettingsError
from lorafactory.store import Store
from lorafactory.workspace import Workspace
from tests.conftest import Said

MINUTE = 60.0
NIGHT = datetime(2026, 3, 1, 23, 0, tzinfo=UTC)


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace whose night passes without waiting, on one card."""
    write(tmp_path / "ws" / "lorafactory.toml", "[watch]\nfree_gb = 0\n")
    for module in (watch, overnight):
        monkeypatch.setattr(module, "TICK", 0.001)
    for tool in ("LINUX", "MACOS"):
        monkeypatch.setattr(awake, tool, ("no-such-tool",))
    monkeypatch.setattr(watch, "SCAN", 0.001)
    monkeypatch.setattr(overnight, "cards", lambda: [""])
    monkeypatch.setattr(watch, "cards", lambda: [""])
    return Workspace(tmp_path / "ws", "a test")


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """Three sets, of which one is a zip, and what is none."""
    for number, name in enumerate(("anna", "berta")):
        write(tmp_path / "sets" / name / "1.png", png(number))
    zipped(tmp_path / "sets" / "carl.zip", {"1.png": png(7)})
    write(tmp_path / "sets" / "loose.png", png(8))
    write(tmp_path / "sets" / ".hidden" / "1.png", png(9))
    return tmp_path / "sets"


def pretend(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the daemon's workers only note the names of what they make."""

    def make(space: Workspace, lora: str, to: str | None) -> None:
        with (space.root / "made").open("a") as file:
            file.write(f"{lora}\n")

    def spawn(space: Workspace, name: str, card: str) -> Any:
        with Store(space.record) as store:
            code = work(space, Queue(store), make)
        return SimpleNamespace(stdin=None, poll=lambda: code)

    monkeypatch.setattr(watch, "spawn", spawn)


def night(space: Workspace, given: Path | None = None, until: datetime | None = None) -> tuple[int, list[str]]:
    said: list[str] = []
    return overnight.overnight(space, given, until=until, say=said.append), said


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


PAST = datetime(2020, 1, 1, tzinfo=UTC)


# ---------------------------------------------------------------- what comes into the inbox


def test_a_night_makes_each_set_once_and_leaves_the_originals(
    space: Workspace, sets: Path, monkeypatch: pytest.MonkeyPatch
):
    pretend(space, monkeypatch)
    write(sets / "anna" / "lora.toml", "[train]\nepochs = 99\n")
    before = contents(sets)
    code, said = night(space, sets)
    assert code == DONE
    assert (space.root / "made").read_text().split() == ["berta", "carl", "anna"], "the shortest first"
    assert contents(sets) == before
    assert "3 to make; how long that takes is not known yet, for none was made here so far" in said
    assert [p.name for p in space.inbox.iterdir() if p.name != ".lorafactory"] == []
    again, said = night(space, sets)
    assert again == DONE and len((space.root / "made").read_text().split()) == 3
    assert (
        "anna: left out, anna has all of it already; lora retry anna makes it again" in said
        and "nothing is queued" in said
    )
    write(sets / "anna" / "2.png", png(20))
    night(space, sets)
    assert (space.root / "made").read_text().split()[3:] == ["anna"]


def test_the_same_refused_drop_is_not_refused_twice(space: Workspace, sets: Path):
    write(sets / "broken.zip", b"no zip")
    write(sets / "empty" / "notes.txt", "nothing")
    assert night(space, sets, until=PAST)[0] == NEEDS_YOU
    held = sorted(p.name.rpartition("-")[0] for p in (space.root / "quarantine").iterdir())
    assert held == ["broken", "empty"]
    _, said = night(space, sets, until=PAST)
    assert sum("the same was refused before; see" in line for line in said) == 2
    assert len(list((space.root / "quarantine").iterdir())) == 2
    zipped(sets / "broken.zip", {"1.png": png(30)})
    night(space, sets, until=PAST)
    assert space.lora("broken").source.is_dir()


def test_what_has_an_end_stops_there_and_the_next_night_goes_on(
    space: Workspace, sets: Path, monkeypatch: pytest.MonkeyPatch
):
    pretend(space, monkeypatch)
    code, said = night(space, sets, until=PAST)
    assert code == STOPPED and said[-1].startswith("3 left for the next night")
    assert not (space.root / "made").exists()
    assert night(space)[0] == DONE
    assert sorted((space.root / "made").read_text().split()) == ["anna", "berta", "carl"]


def test_a_copy_that_broke_off_leaves_nothing_and_is_made_anew(
    space: Workspace, sets: Path, monkeypatch: pytest.MonkeyPatch
):
    write(space.inbox / ".anna" / "half.png", b"half")  # of a night that was killed
    with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):
        patch.setattr(overnight.moving, "copy", partial(copy_until, "berta", overnight.moving.copy))
        night(space, sets)
    assert list(space.inbox.iterdir()) == []
    night(space, sets, until=PAST)
    assert contents(space.lora("anna").source) == {"1.png": png(0)}


def copy_until(last: str, copy: Callable[[Path, Path], None], source: Path, target: Path) -> None:
    if source.name == last:
        raise OSError("the disk is full")
    copy(source, target)


def test_a_name_that_is_taken_in_the_inbox_is_left_alone(space: Workspace, sets: Path):
    mine = write(space.inbox / "carl.zip", b"being copied")
    inode = mine.stat().st_ino
    offered, said = overnight.offers(space, sets), []
    with Store(space.record) as store:
        overnight.bring(space, store, overnight.Inbox(space, store), offered, said.append)
    assert said == ["carl.zip: left out, something of that name lies in the inbox already"]
    assert mine.stat().st_ino == inode and sorted(p.name for p in space.inbox.iterdir()) == [
        "anna",
        "berta",
        "carl.zip",
    ]


def test_what_was_brought_is_taken_at_once(space: Workspace, sets: Path):
    space.inbox.mkdir()
    with Store(space.record) as store:
        inbox = overnight.Inbox(space, store, clock=lambda: 0.0)
        overnight.bring(space, store, inbox, overnight.offers(space, sets), print)
        inbox.scan()
        assert [(s.name, s.state) for s in inbox.scan()] == [(n, "taken") for n in ("anna", "berta", "carl.zip")]


def test_a_matrix_makes_each_set_with_each_recipe(space: Workspace, sets: Path):
    own = '# mine\nrecipe = "default"\n[train]\nepochs = 3\n'
    write(sets / "anna" / "lora.toml", own)
    soft = write(sets / "soft.toml", "[train]\nrank = 8\n")
    write(space.root / "recipes" / "ours.toml", "[train]\nrank = 4\n")
    named = 'recipes = ["demo", "ours", "soft.toml"]'
    matrix = write(sets / "m.toml", f'{named}\n[sets]\nanna = "anna"\n"b/c" = "berta"\n')
    night(space, matrix, until=PAST)
    names = sorted(p.name for p in space.loras.iterdir())
    assert names == ["anna-demo", "anna-ours", "anna-soft", "b_c-demo", "b_c-ours", "b_c-soft"]
    assert settings.effective(space, space.lora("b_c-ours")).table("train")["rank"] == 4
    asked = tomllib.loads(space.lora("anna-soft").settings.read_text())
    assert asked["recipe"] == str(soft) and asked["train"] == {"epochs": 3}
    told = settings.effective(space, space.lora("anna-soft"))
    assert told.table("train")["rank"] == 8 and told.table("train")["epochs"] == 3
    assert settings.effective(space, space.lora("b_c-demo")).header.recipe == "demo"
    assert (sets / "anna" / "lora.toml").read_text() == own


def test_all_that_is_wrong_with_a_matrix_is_said_before_anything_is_copied(space: Workspace, sets: Path):
    matrix = write(sets / "m.toml", 'recipes = ["no-such", "mine.toml"]\n[sets]\nanna = "anna"\nzoe = "zoe"\n')
    with pytest.raises(SettingsError, match=r"(?s)sets\.zoe.*no file .*mine\.toml.*no 'no-such'"):
        night(space, matrix)
    with pytest.raises(SettingsError, match="not TOML"):
        night(space, write(sets / "m.toml", "recipes = ["))
    with pytest.raises(SettingsError, match=r"(?s)`recipes`.*`prompts`"):
        night(space, write(sets / "m.toml", 'prompts = 1\n[sets]\nanna = "anna"\n'))
    assert not space.inbox.exists()


def test_a_folder_of_pictures_is_no_folder_of_sets(space: Workspace, sets: Path, tmp_path: Path):
    with pytest.raises(InputError, match="lora make NAME --from"):
        night(space, sets / "anna")
    with pytest.raises(InputError, match="no such folder"):
        night(space, tmp_path / "nowhere")


def test_two_nights_at_once_are_refused_before_anything_is_copied(space: Workspace, sets: Path):
    from filelock import FileLock

    with FileLock(own(space, watch.LOCK)), pytest.raises(FailedError, match="another"):
        night(space, sets)
    assert not space.inbox.exists()


# ---------------------------------------------------------------- how long it takes


def made(space: Workspace, store: Store, lora: str, told: str, *runs: tuple[str, str, str, float]) -> None:
    """A LoRA with its settings, and runs of (step, status, key, seconds)."""
    write(space.lora(lora).settings, told)
    for step, status, key, seconds in runs:
        with store.run(lora, step, version=1, key=key, settings={}) as run:
            pass
        with store.transaction() as db:
            db.execute("UPDATE run SET status = ?, wall_s = ? WHERE id = ?", (status, seconds, run.id))


def test_a_lora_takes_what_its_steps_took_with_what_was_stopped_on_the_way(space: Workspace):
    with Store(space.record) as store:
        made(space, store, "anna", "", ("train", "done", "old", 1e6), ("pick", "done", "p", 3.0))
        runs = [("caption", "failed", "c", 99.0), ("caption", "done", "c", 10.0), ("train", "stopped", "new", 100.0)]
        made(space, store, "anna", "", *runs)
        assert estimate.whole(store, "anna") == 1e6 + 10 + 3
        made(space, store, "anna", "", ("train", "done", "new", 200.0))
        assert estimate.whole(store, "anna") is None, "its comparison is to come"
        made(space, store, "anna", "", ("pick", "done", "p", 5.0))
        assert estimate.whole(store, "anna") == 10 + 100 + 200 + 5


def test_each_base_and_resolution_has_its_own_measure_and_epochs_count(space: Workspace):
    ended = (("train", "done", "t", 1.0), ("pick", "done", "p", 0.0))
    with Store(space.record) as store:
        for n, seconds in enumerate((50.0, 60.0, 900.0)):
            told = 'base = "pocket"\n[train]\nepochs = 2\n'
            made(space, store, f"small{n}", told, ("train", "done", "t", seconds), ended[1])
        told = 'base = "pocket"\n[train]\nepochs = 4\nresolution = 128\n'
        made(space, store, "large", told, ("train", "done", "t", 4000.0), ended[1])
        queue = Queue(store)
        for lora, epochs, resolution in (("big", 1, 128), ("long", 9, 96), ("short", 1, 96), ("begun", 1, 128)):
            write(
                space.lora(lora).settings, f'base = "pocket"\n[train]\nepochs = {epochs}\nresolution = {resolution}\n'
            )
            queue.add(lora)
        write(space.lora("other").settings, 'base = "elsewhere"\n')
        job = queue.begin(queue.add("begun"))
        queue._began[job.id] -= 900
        queue.finish(job, "queued", reason="stopped")
        queue.add("other")
        found = estimate.lengths(space, store, queue.jobs())
        told = {x.job.lora: x.seconds for x in found}
        assert told["short"] == 30 and told["long"] == 270 and told["big"] == 1000
        assert told["begun"] == pytest.approx(100, abs=1), "900 of its 1000 s are done"
        assert told["other"] == pytest.approx(240 * epochs_of(space, "other")), "of all kinds"
        assert [x.job.lora for x in found][:3] == ["short", "begun", "long"]
        queue.arrange([x.job for x in found])
        late = queue.add("late")
        assert [job.lora for job in queue.jobs()] == [*(x.job.lora for x in found), late.lora]


def epochs_of(space: Workspace, lora: str) -> int:
    what = estimate.what_it_is(space, lora)
    assert what is not None
    return what[1]


def length(minutes: float | None) -> Length:
    job = Job(1, "", "anna", "queued", 0, 0, None, None, None, "", None, None, None, None)
    return Length(job, minutes and minutes * MINUTE, 1, 1)


def test_what_is_said_before_the_night():
    say = partial(estimate.forecast, cards=1, now=NIGHT, until=NIGHT + timedelta(hours=8, minutes=30))
    thirty = [length(55.0) for _ in range(30)]
    assert say(thirty) == "about 9 of 30 will be done by 07:30, 55 min each as measured on this machine"
    assert say(thirty, cards=2).startswith("about 18 of 30 will be done by 07:30")
    assert say([length(9 * 60.0)]).startswith("about 0 of 1 will be done")
    assert say(thirty, until=None) == "30 to make, about 27 h 30 min in all, 55 min each as measured on this machine"
    assert "not known yet" in say([length(None)]) and say([]) == "nothing is queued"


def test_until_is_the_next_time_that_the_clock_shows_it():
    now = datetime(2026, 3, 1, 23, 0).astimezone()
    assert next_at(time(7, 30), now) == datetime(2026, 3, 2, 7, 30).astimezone()
    assert next_at(time(23, 30), now) == datetime(2026, 3, 1, 23, 30).astimezone()
    assert next_at(time(23, 0), now) == datetime(2026, 3, 2, 23, 0).astimezone()


def test_the_command_says_where_how_long_and_what_came_of_it(space: Workspace, lora: Callable[..., Said], sets: Path):
    said = lora("overnight", "--workspace", space.root, "--until", "07:30")
    assert said.code == DONE and "nothing is queued" in said.out and "all is done" in said.out
    assert (space.root / "index.html").as_uri() in said.out
    assert lora("overnight", "--until", "25:00").code == USAGE
    write(sets / "bad.zip", "no zip")
    for name in ("anna", "berta", "carl.zip"):
        (sets / name).rename(sets / f".{name}")
    said = lora("overnight", sets, "--workspace", space.root)
    assert said.code == NEEDS_YOU and "something needs you" in said.out


# ---------------------------------------------------------------- awake


def tool(tmp_path: Path, text: str) -> tuple[str, ...]:
    path = write(tmp_path / "inhibit", f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return (str(path), "--why=a test")


@pytest.mark.skipif(sys.platform == "win32", reason="shell scripts")
def test_the_systems_tool_holds_the_machine_awake_until_the_end(tmp_path: Path):
    mark = tmp_path / "awake"
    command = tool(tmp_path, f'touch {mark}; shift; "$@"; rm {mark}')
    with awake._held_by(command) as told:
        assert told.startswith("the machine is kept awake") and mark.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="shell scripts")
@pytest.mark.parametrize("text", ["exit 1", "exec </dev/null; exit 1"])
def test_a_tool_that_refuses_stops_nothing(tmp_path: Path, text: str):
    with awake._held_by(tool(tmp_path, text)) as told:
        assert told.startswith(awake.NOT_KEPT) and "refuses" in told
    with awake._held_by(("no-such-tool",)) as told:
        assert told == f"{awake.NOT_KEPT}: there is no no-such-tool"


def test_windows_is_told_and_told_again_at_the_end():
    said: list[int] = []
    kernel = SimpleNamespace(SetThreadExecutionState=lambda state: said.append(state) or 1)
    with awake._of_thread(kernel) as told:
        assert said == [0x80000001] and told.startswith("the machine is kept awake")
    assert said == [0x80000001, 0x80000000]
