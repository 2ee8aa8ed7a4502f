"""What a person did is recorded once, holds, and is told from what a run did."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from lorafactory.dataset import Picture, Set, read_set, set_aside
from lorafactory.past import remember, see_hand, snapshot
from lorafactory.store import Store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "set" / "1_4nna"
    made.mkdir(parents=True)
    for i in range(1, 5):
        Image.new("RGB", (8, 8), (40 * i, 0, 0)).save(made / f"{i:04}.png")
        (made / f"{i:04}.txt").write_text(f"4nna, picture {i}\n")
    return made


@pytest.fixture
def store(tmp_path: Path):
    with Store(tmp_path / "lorafactory.db") as opened:
        yield opened


def pictures(folder: Path) -> Set:
    return read_set(folder.parent, folder.parent)


def ran(folder: Path, store: Store) -> None:
    with store.run("anna", "caption", version=1, key="k", settings={}) as run:
        snapshot(pictures(folder), run)


def test_nothing_changed_is_nothing_said(folder: Path, store: Store):
    assert see_hand(pictures(folder), "anna", store) == []
    ran(folder, store)
    assert see_hand(pictures(folder), "anna", store) == []


def test_each_change_is_recorded_once(folder: Path, store: Store):
    ran(folder, store)
    (folder / "0001.png").unlink()
    (folder / "0001.txt").unlink()
    (folder / "0002.txt").write_text("my words\n")
    (folder / "0003.txt").unlink()
    Image.new("RGB", (8, 8), (0, 9, 0)).save(folder / "0004.png")
    Image.new("RGB", (8, 8), (0, 0, 9)).save(folder / "0009.png")
    said = see_hand(pictures(folder), "anna", store)
    assert sorted(said) == [
        "0001.png: removed by hand",
        "0002.png: caption changed by hand",
        "0003.png: caption removed by hand",
        "0004.png: changed by hand",
        "0009.png: added by hand",
    ]
    assert see_hand(pictures(folder), "anna", store) == []
    past = remember("anna", store)
    assert past.hand["0001.png"] == "removed"
    assert past.hand_captions == {"0002.png", "0003.png"}


def test_a_picture_put_back_is_told_from_a_new_one(folder: Path, store: Store):
    with store.run("anna", "dedupe", version=1, key="k", settings={}) as run:
        picture = Picture(folder / "0002.png")
        run.note(picture.name, picture.sha256, "set aside", "phash")
        moved = set_aside(folder.parent, picture, "similar")
        snapshot(pictures(folder), run)
    moved.replace(folder / "0002.png")
    assert see_hand(pictures(folder), "anna", store) == ["0002.png: put back by hand"]


def test_what_a_failed_run_moved_was_not_moved_by_hand(folder: Path, store: Store):
    ran(folder, store)
    with pytest.raises(ValueError, match="x"), store.run("anna", "dedupe", version=1, key="k", settings={}) as run:
        set_aside(folder.parent, Picture(folder / "0002.png"), "similar")
        snapshot(pictures(folder), run)
        raise ValueError("x")
    assert see_hand(pictures(folder), "anna", store) == []


def test_what_a_killed_run_moved_is_not_called_by_hand(folder: Path, store: Store):
    ran(folder, store)
    broken = store.run("anna", "dedupe", version=1, key="k", settings={})
    broken.__enter__()
    set_aside(folder.parent, Picture(folder / "0002.png"), "similar")
    from lorafactory import store as module

    module._open_runs.clear()  # as after a kill: nobody in this process has the run open
    assert [row.status for row in store.interrupt("anna")] == ["interrupted"]
    assert see_hand(pictures(folder), "anna", store) == ["0002.png: set aside by a run that broke off"]


def test_captions_of_a_run_that_was_taken_back_are_as_before_it(folder: Path, store: Store):
    def captioned(name: str, key: str) -> str:
        with store.run("anna", "caption", version=1, key=key, settings={}) as run:
            run.note(name, "a" * 64, "captioned", "text", after="x", note=key)
        return run.ulid

    with store.run("anna", "by hand", version=1, key="", settings={}) as run:
        run.note("0002.png", "b" * 64, "caption changed", "by hand")
    captioned("0001.png", "first")
    later = [captioned("0001.png", "second"), captioned("0002.png", "second")]
    assert remember("anna", store).captions["0001.png"] == ("a" * 64, "second")
    assert remember("anna", store).hand_captions == frozenset()
    for ulid in later:
        with store.run("anna", "undo", version=1, key="", settings={"undoes": ulid}):
            pass
    assert remember("anna", store).captions == {"0001.png": ("a" * 64, "first")}
    assert remember("anna", store).hand_captions == {"0002.png"}


def test_what_was_imported_once_stays_known_though_it_was_taken_back(store: Store):
    with store.run("anna", "rename", version=1, key="k", settings={}) as run:
        run.note("0001.png", "a" * 64, "imported", "rename", before="b" * 64, after="0001.png")
    with store.run("anna", "undo", version=1, key="", settings={"undoes": run.ulid}) as undo:
        undo.note("0001.png", "a" * 64, "set aside", "by hand")
    past = remember("anna", store)
    assert past.imported == {"b" * 64: "0001.png"}
    assert past.hand == {"0001.png": "set aside"}
