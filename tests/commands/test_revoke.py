"""`lora revoke`: a picture leaves every set, what came of it is marked, and it is refused; all of it, or said."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from lorafactory import cli, dataset, images
from lorafactory.store import Store
from tests.conftest import Said
from tests.history import folder, hashes, save, told
from tests.records import forked, query

Lora = Callable[..., Said]
pytestmark = pytest.mark.xdist_group("history")
LINE = ("revoke", "anna/0001.png", "--reason", "asked to")


@pytest.fixture
def space(copied: Path) -> Path:
    (copied / "lorafactory.toml").write_text(f'publish_to = ["{(copied.parent / "comfy").as_posix()}"]\n')
    (copied.parent / "comfy").mkdir()
    shutil.copy(save(copied, "anna", 2), copied.parent / "comfy" / "anna-e02.safetensors")
    shutil.copy(save(copied, "anna", 2), copied.parent / "comfy" / "of somebody else.safetensors")
    return copied


def everything(space: Path) -> list[str]:
    """All that came of anna's first picture, and its copies, but for the sets."""
    anna, cleo, dora = (space / "loras" / name for name in ("anna", "cleo", "dora"))
    found = [anna / "source" / "0.png", anna / "source" / "same.bmp", anna / "set_aside" / "duplicate" / "same.bmp"]
    found += [anna / "set_aside" / "revoked" / "0001.png", anna / "anna.safetensors"]
    found += [*(dora / "source").glob("generated-*.png"), *(dora / "set_aside" / "revoked").glob("000[12].png")]
    found += [path for place in (anna, cleo, dora) for path in (place / "result_current").glob("*.safetensors")]
    return [*map(str, sorted(found)), str(space.parent / "comfy" / "anna-e02.safetensors")]


def test_it_leaves_every_set_and_all_that_came_of_it_is_named(lora: Lora, space: Path) -> None:
    sha = hashes(space, "anna")["0001.png"]
    said = lora(*LINE, "--json")
    done = json.loads(said.out)
    marked = query(space / "lorafactory.db", "SELECT count(*) FROM revocation")[0][0]
    assert done == {
        "sha256": sha,
        "marked": marked,
        "set_aside": ["anna/0001.png", "dora/0001.png", "dora/0002.png"],
        "busy": [],
        "files": everything(space),
        "cache": str(space / "cache"),
        "plan": ["lora make anna", "lora make dora", "lora make cleo"],
    }
    assert query(space / "lorafactory.db", "SELECT DISTINCT reason, agent FROM v_revocation") == [("asked to", "user")]
    assert query(space / "lorafactory.db", "SELECT sha256 FROM v_revocation WHERE cause IS NULL") == [(sha,)]
    forbidden = {row[0] for row in query(space / "lorafactory.db", "SELECT sha256 FROM v_revocation")}
    assert {images.sha256(Path(p)) for p in everything(space)} <= forbidden
    kept = [p for name in ("anna", "cleo") for p in hashes(space, name).values()]
    assert forbidden.isdisjoint(kept)
    assert told(space, "anna/0001.png")["revoked"] == "asked to"
    assert [told(space, name)["made"]["revoked"] for name in ("anna", "dora", "cleo")] == [True, True, True]
    assert [(d["image"], d["rule"], d["note"]) for d in told(space, "dora")["out"]] == [
        ("0001.png", "revoked", "asked to"), ("0002.png", "revoked", "asked to")]  # fmt: skip


def test_it_is_refused_from_then_on_in_any_form(lora: Lora, space: Path) -> None:
    anna = space / "loras" / "anna"
    assert lora(*LINE).code == 0
    images.load(anna / "source" / "0.png").save(anna / "source" / "again.webp", lossless=True, exact=True)
    assert lora("rename", "anna").out.splitlines() == [
        "0.png: refused, it is revoked: asked to",
        "again.webp: refused, it is revoked: asked to",
        "same.bmp: refused, it is revoked: asked to",
        "small.png: set aside, too small: 32 x 32 pixels",
        "rename: 0 imported, 2 there already, 4 set aside (3 revoked, 1 too small)",
    ]
    shutil.copy(anna / "set_aside" / "revoked" / "0001.png", put_back := folder(space, "anna") / "0001.png")
    said = lora("dedupe", "anna")
    assert said.code == 3
    assert f"{put_back} is revoked: asked to\n    take it out of the set" in said.err


def test_said_in_words(lora: Lora, space: Path) -> None:
    sha = hashes(space, "anna")["0001.png"]
    said = lora(*LINE)
    marked = query(space / "lorafactory.db", "SELECT count(*) FROM revocation")[0][0]
    assert said.out.splitlines() == [
        f"revoked {sha}: {marked} files marked, and refused from now on",
        "  anna/0001.png: set aside",
        "  dora/0001.png: set aside",
        "  dora/0002.png: set aside",
        *(f"  still there, yours to delete: {path}" for path in everything(space)),
        f"  safe to delete, and may hold what was computed from it: {space / 'cache'}",
        "LoRAs that learned from it; to have them without it, in this order:",
        "    lora make anna",
        "    lora make dora",
        "    lora make cleo",
    ]
    assert lora("revoke", "anna/nobody.png", "--reason", "x") == Said(
        2, "", "lora: no picture at anna/nobody.png, and the record knows none: NAME/0001.png, or a file\n"
    )


def test_the_same_by_its_original_its_double_or_a_copy(lora: Lora, space: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.webp"
    images.load(space / "loras" / "anna" / "source" / "0.png").save(copy, lossless=True, exact=True)
    marks = []
    for number, thing in enumerate(("anna/0001.png", "anna/same.bmp", "anna/0.png", copy)):
        shutil.copytree(space, other := tmp_path / f"other-{number}")
        assert lora("revoke", thing, "--reason", "x", "--workspace", other).code == 0
        marks.append({row[0] for row in query(other / "lorafactory.db", "SELECT sha256 FROM v_revocation")})
    assert marks == [marks[0], marks[0], marks[0], marks[0] | {images.sha256(copy)}]


# ---------------------------------------------------------------- half-way


def test_a_set_that_is_being_worked_on_is_said_and_the_same_line_ends_it(lora: Lora, space: Path) -> None:
    with FileLock(space / "loras" / "dora" / ".lora.lock"):
        said = lora(*LINE, "--json")
        assert said.code == 5
        assert said.err == (
            "lora: another command is at work on dora, and the picture is in the set still, though refused\n"
            "    once that has ended, the same line again takes it out\n"
        )
        done = json.loads(said.out)
        assert (done["set_aside"], done["busy"]) == (["anna/0001.png"], ["dora"])
    assert "is revoked: asked to" in lora("dedupe", "dora").err
    done = json.loads(lora(*LINE, "--json").out)
    assert (done["set_aside"], done["busy"], done["files"]) == (
        ["dora/0001.png", "dora/0002.png"],
        [],
        everything(space),
    )


def ended(lora: Lora, space: Path, left: list[str]) -> None:
    """After it broke off all is marked, and the same line takes the rest out."""
    assert query(space / "lorafactory.db", "SELECT count(*) FROM revocation WHERE cause_id IS NULL") == [(1,)]
    done = json.loads(lora(*LINE, "--json").out)
    assert (done["set_aside"], done["files"]) == (left, everything(space))
    assert (list(hashes(space, "anna")), hashes(space, "dora")) == (["0002.png", "0003.png"], {})
    assert json.loads(lora(*LINE, "--json").out)["set_aside"] == []


def test_broken_off_between_two_pictures(lora: Lora, space: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved, move = [], dataset.set_aside

    def break_off(root: Path, picture: dataset.Picture, reason: str) -> Path:
        if len(moved) == 2:
            raise OSError("no space left on device")
        moved.append(picture.name)
        return move(root, picture, reason)

    monkeypatch.setattr(dataset, "set_aside", break_off)
    assert lora(*LINE).code == 5
    monkeypatch.undo()
    os.environ["LORAFACTORY_WORKSPACE"] = str(space)
    ended(lora, space, ["dora/0002.png"])


def die(moves: int) -> None:
    move, left = dataset.set_aside, [None] * moves

    def kill(root: Path, picture: dataset.Picture, reason: str) -> Path:
        if not left:
            os._exit(9)
        left.pop()
        return move(root, picture, reason)

    dataset.set_aside = kill  # type: ignore[assignment]
    cli.run(list(LINE))


@pytest.mark.skipif(os.name == "nt", reason="needs fork")
@pytest.mark.parametrize(
    ("moves", "left"), [(0, ["anna/0001.png", "dora/0001.png", "dora/0002.png"]), (2, ["dora/0002.png"])]
)
def test_killed_between_two_pictures(lora: Lora, space: Path, moves: int, left: list[str]) -> None:
    child = forked(die, moves)
    child.join()
    assert child.exitcode == 9
    ended(lora, space, left)
    with Store(space / "lorafactory.db", readonly=True) as store:
        assert {row.status for row in store.runs(step="revoke")} == {"done", "interrupted"}


# ---------------------------------------------------------------- what stays


def test_what_a_person_did_before_stays_theirs(lora: Lora, space: Path) -> None:
    (folder(space, "anna") / "0003.txt").write_text("zqx, my words\n", encoding="utf-8")
    assert lora(*LINE).err.splitlines()[0] == "0003.png: caption changed by hand"
    assert lora("caption", "anna", "--text", "{trigger}, other words", "--no-clip").code == 0
    assert (folder(space, "anna") / "0003.txt").read_text(encoding="utf-8") == "zqx, my words\n"
