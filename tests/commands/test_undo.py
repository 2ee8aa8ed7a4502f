"""`lora undo`: every command on a set is taken back byte for byte, and nothing that a person did is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from drawn import draw_all, drawn, files_of

from lorafactory import journal
from lorafactory.store import Store

SET = ("training_images", "set_aside")


def standing(root: Path) -> dict[str, bytes]:
    return {place: data for place, data in files_of(root).items() if place.startswith(SET)}


@pytest.fixture
def anna(space: Path) -> Path:
    """A LoRA with five originals, one with a text of its own."""
    root = space / "loras" / "anna"
    draw_all(root / "source", 5)
    (root / "source" / "IMG 2.txt").write_bytes(b"4nna, my own words")
    (root / "lora.toml").write_text('base = "pocket"\ntrigger = "4nna"\n')
    return root


@pytest.fixture
def imported(lora, anna: Path) -> Path:
    """The same after `rename`: its folder of pictures."""
    assert lora("rename", "anna").code == 0
    return anna / "training_images" / "1_4nna"


def said_by(space: Path, step: str) -> list[tuple[str, str, str]]:
    with Store(space / "lorafactory.db", readonly=True) as store:
        row = store.last("anna", step)
        assert row is not None
        return [(d.image, d.verdict, d.rule) for d in store.decisions(run_id=row.id)]


def test_each_call_goes_one_command_further_back(lora, anna: Path):
    before = [standing(anna)]
    assert lora("rename", "anna").code == 0
    folder = anna / "training_images" / "1_4nna"
    (folder / "0009.png").write_bytes((folder / "0001.png").read_bytes())
    drawn(9).resize((40, 40)).save(folder / "0010.png")
    (folder / "0010.txt").write_bytes(b"small\r\n")
    commands = [
        ("dedupe", "--no-clip"),
        ("filter", "--no-clip"),
        ("caption", "--text", "{trigger}, a photo"),
        ("repeats", "--policy", "7"),
        ("caption", "--text", "{trigger}, other words"),
    ]
    for name, *options in commands:
        before.append(standing(anna))
        assert lora(name, "anna", *options).code == 0
        assert standing(anna) != before[-1], name
    listed = json.loads(lora("undo", "anna", "--list", "--json").out)["runs"]
    assert [run["step"] for run in listed] == ["caption", "repeats", "caption", "filter", "dedupe", "rename"]
    for earlier in reversed(before[1:]):
        assert lora("undo", "anna").code == 0
        assert standing(anna) == earlier
    originals = {p: d for p, d in files_of(anna).items() if p.startswith("source")}
    assert lora("undo", "anna").code == 0  # the import
    gone = standing(anna)
    undone = [*(f"000{i}.png" for i in range(1, 6)), "0003.txt"]
    mine = ["0009.png", "0010.png", "0010.txt"]
    places = [*(f"set_aside/undone/{name}" for name in undone), *(f"training_images/1_4nna/{name}" for name in mine)]
    assert sorted(gone) == sorted(places)
    assert {p: d for p, d in files_of(anna).items() if p.startswith("source")} == originals
    said = lora("undo", "anna")
    assert (said.code, "nothing to take back" in said.err) == (3, True)


def test_a_text_comes_back_with_its_mark_and_line_ends(lora, imported: Path):
    was = b"\xef\xbb\xbf4nna, caf\xc3\xa9 at ~/home \r\n\r\n"
    (imported / "0001.txt").write_bytes(was)
    (imported / "0002.txt").write_bytes(b"")
    assert lora("caption", "anna", "--text", "x", "--overwrite").code == 0
    assert (imported / "0001.txt").read_bytes() == b"4nna, x\n"
    assert lora("undo", "anna").code == 0
    assert (imported / "0001.txt").read_bytes() == was
    assert (imported / "0002.txt").read_bytes() == b""
    assert not (imported / "0004.txt").exists()
    said = lora("caption", "anna", "--text", "y").out  # by hand again, as before
    assert (imported / "0001.txt").read_bytes() == was
    assert "0001.png: by hand" in said
    assert (imported / "0004.txt").read_bytes() == b"4nna, y\n"


def test_what_a_person_did_since_stops_it_and_is_kept(lora, imported: Path):
    assert lora("caption", "anna", "--text", "x").code == 0
    (imported / "0001.txt").write_text("mine\n")
    (imported / "0002.png").unlink()
    (imported / "0002.txt").unlink()
    before = files_of(imported)
    said = lora("undo", "anna")
    assert said.code == 3
    assert "1_4nna/0001.txt: changed since" in said.err
    assert "0002" not in said.err.split("cannot be taken back")[1]  # what is gone is gone already
    assert "lora undo anna --keep-by-hand" in said.err
    assert files_of(imported) == before
    assert lora("undo", "anna", "--keep-by-hand").code == 0
    texts = {p.name: p.read_text() for p in imported.glob("*.txt")}
    assert texts == {"0001.txt": "mine\n", "0003.txt": "4nna, my own words\n"}


def test_a_file_in_the_way_is_not_written_over(lora, imported: Path):
    (imported / "0009.png").write_bytes((imported / "0001.png").read_bytes())
    assert lora("dedupe", "anna", "--no-clip").code == 0
    drawn(77).save(imported / "0009.png")
    mine = (imported / "0009.png").read_bytes()
    said = lora("undo", "anna")
    assert said.code == 3
    assert "training_images/1_4nna/0009.png: another file is there now" in said.err
    assert (imported / "0009.png").read_bytes() == mine


def test_what_is_back_stays_though_the_chain_runs_again(lora, imported: Path, space: Path):
    (imported / "0009.png").write_bytes((imported / "0001.png").read_bytes())
    for command in (["dedupe", "anna", "--no-clip"], ["repeats", "anna", "--policy", "7"]):
        assert lora(*command).code == 0
        assert lora("undo", "anna").code == 0
    make = ["make", "anna", "--to", "repeats", "--text", "x", "--set", "dedupe.no_clip=true"]
    make += ["--set", "filter.no_clip=true", "--set", "repeats.policy=7"]
    out = lora(*make).out
    assert "dedupe: taken back by `undo`, and stays so" in out
    assert "repeats: taken back by `undo`, and stays so" in out
    assert (imported / "0009.png").exists()
    draw_all(space / "loras" / "anna" / "source", 1, first=50)
    assert "repeats: 7 x 4nna" in lora(*make).out  # another set, so the steps run again
    assert (imported.with_name("7_4nna") / "0009.png").exists()
    assert "put back  by hand" in lora("why", "anna/0009.png").out


def test_a_folder_goes_back_with_what_was_added_to_it(lora, imported: Path):
    assert lora("repeats", "anna", "--policy", "7").code == 0
    drawn(60).save(imported.with_name("7_4nna") / "mine.png")
    assert lora("undo", "anna").code == 0
    assert [p.name for p in imported.parent.iterdir()] == ["1_4nna"]
    assert (imported / "mine.png").exists()


def test_what_a_person_puts_back_after_the_import_was_taken_back_stays(lora, imported: Path, anna: Path):
    assert lora("undo", "anna").code == 0
    assert not imported.exists()
    imported.mkdir(parents=True)
    (anna / "set_aside" / "undone" / "0002.png").rename(imported / "0002.png")
    draw_all(anna / "source", 1, first=50)
    assert lora("rename", "anna").code == 0
    assert sorted(p.name for p in imported.glob("*.png")) == ["0002.png", "0006.png"]


def test_force_brings_back_what_was_taken_back(lora, imported: Path, anna: Path):
    before = standing(anna)
    assert lora("undo", "anna").code == 0
    imported.mkdir(parents=True)
    (anna / "set_aside" / "undone" / "0001.png").rename(imported / "0001.png")  # one by hand
    again = lora("rename", "anna", "--force")
    assert "rename: 0 imported, 1 there already, 4 brought back from set_aside/undone" in again.out
    assert standing(anna) == before  # under their names, with the text that one had
    assert "rename: up to date" in lora("rename", "anna").out
    assert lora("undo", "anna").code == 0
    assert [p.name for p in imported.glob("*.png")] == ["0001.png"]


def test_what_was_taken_back_says_how_to_get_it_and_check_that_nothing_comes(lora, imported: Path, anna: Path):
    assert "no pictures in the set" not in lora("check", "anna", "--no-clip").err
    assert "0 imported, 5 there already" in lora("rename", "anna", "--force").out  # a run that changes nothing
    assert lora("undo", "anna").code == 0
    assert "`lora rename anna --force` brings the pictures back from set_aside/undone" in lora("rename", "anna").out
    said = lora("check", "anna", "--no-clip")
    assert (said.code, "all 5 originals were brought in once" in said.err) == (3, True)
    assert "lora rename anna --force" in said.err
    draw_all(anna / "source", 1, first=50)
    assert "no pictures in the set" not in lora("check", "anna", "--no-clip").err
    assert lora("rename", "anna").code == 0
    (imported / "0006.png").unlink()
    assert "no pictures in the set" in lora("check", "anna", "--no-clip").err


def test_an_undo_that_broke_off_is_finished_by_the_next(lora, imported: Path, monkeypatch: pytest.MonkeyPatch):
    before = files_of(imported)
    assert lora("caption", "anna", "--text", "x").code == 0

    def half(root: Path, acts: list[journal.Act]) -> None:
        apply(root, acts[:2])
        raise OSError("the disk is full")

    apply = journal.apply
    monkeypatch.setattr(journal, "apply", half)
    assert lora("undo", "anna").code == 5
    monkeypatch.setattr(journal, "apply", apply)
    assert len(files_of(imported)) == len(before) + 2
    assert lora("undo", "anna").code == 0
    assert files_of(imported) == before


def test_a_folder_elsewhere_is_only_told_until_apply(lora, space: Path, tmp_path: Path):
    folder = draw_all(tmp_path / "set", 3)
    drawn(1).save(folder / "IMG 1 copy.png")
    before = files_of(folder)
    for command in (["dedupe", folder, "--no-clip"], ["caption", folder, "--text", "x"], ["repeats", folder]):
        assert lora(*command, "--apply").code == 0
    assert len(lora("undo", folder, "--list").out.splitlines()) == 4
    after = files_of(folder)
    said = lora("undo", folder)
    assert (said.code, "--apply does it" in said.out) == (0, True)
    assert files_of(folder) == after
    for _ in range(3):
        assert lora("undo", folder, "--apply").code == 0
    assert files_of(folder) == before
    assert [p.name for p in folder.iterdir() if p.is_dir()] == []


def test_pictures_that_were_converted_again_come_back(lora, imported: Path):
    (imported / "0003.txt").write_text("a person's words since\n")
    before = standing(imported.parents[1])
    assert lora("rename", "anna", "--crop", "center").code == 0
    assert standing(imported.parents[1]) != before
    assert lora("undo", "anna").code == 0
    assert standing(imported.parents[1]) == before
    assert "taken back" in lora("rename", "anna", "--crop", "center").out
    assert lora("rename", "anna", "--crop", "center", "--force").code == 0
    drawn(88).save(imported / "0002.png")
    said = lora("undo", "anna")
    assert (said.code, "0002.png: changed since" in said.err) == (3, True)
