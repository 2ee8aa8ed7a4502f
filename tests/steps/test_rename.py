"""Originals in, NNNN.png out: each one once, none lost, none changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from imported_sets import SMALL, Factory, Run, digest, drawn, foreign, made
from PIL import Image

from lorafactory import errors, images
from lorafactory.steps import rename


@pytest.fixture
def anna(tmp_path: Path) -> Factory:
    return made(tmp_path)


def test_imports_in_natural_order_and_leaves_originals_alone(anna: Factory):
    names = ["IMG 10.PNG", "IMG 9.jpg", "größe/ähnlich.webp", "größe/🙂.JPEG", "z.Tiff"]
    before = {path: digest(path) for path in (anna.put(name, seed) for seed, name in enumerate(names))}
    assert anna.go() == ["0001.png", "0002.png", "0003.png", "0004.png", "0005.png"]
    assert {path: digest(path) for path in before} == before
    noted = anna.run.told("imported")
    assert [n["note"] for n in noted] == ["größe/ähnlich.webp", "größe/🙂.JPEG", "IMG 9.jpg", "IMG 10.PNG", "z.Tiff"]
    for n in noted:
        assert (n["rule"], n["after"]) == ("rename", n["name"])
        assert n["sha"] == digest(anna.folder / n["name"])
        assert n["before"] == digest(anna.source / n["note"])
        assert anna.run.origins.get(n["sha"], n["before"]) == n["before"]
        looks = [images.pixel_hash(images.load(p)) for p in (anna.folder / n["name"], anna.source / n["note"])]
        assert looks[0] == looks[1]


def test_twice_changes_nothing_and_one_more_adds_one(anna: Factory):
    for seed in range(3):
        anna.put(f"{seed}.png", seed)
    anna.put("small.png").write_bytes(b"text")
    anna.go()
    before, noted = anna.files(), len(anna.run.notes)
    assert anna.go() == []
    assert anna.files() == before
    assert len(anna.run.notes) == noted
    anna.put("0 first in order.png", 7)
    assert anna.go() == ["0004.png"]
    assert before.items() <= anna.files().items()
    assert [(n["name"], n["verdict"]) for n in anna.run.notes[noted:]] == [
        ("0004.png", "imported"),
        ("0004.png", "converted"),
    ]


def test_the_same_without_a_record(anna: Factory):
    for seed in range(3):
        anna.put(f"{seed}.jpg", seed)
    anna.go()
    before, anna.run = anna.files(), Run()
    assert anna.go() == []
    assert anna.files() == before
    assert len(anna.run.told("imported")) == 3
    assert anna.run.past().imported == {digest(anna.source / f"{i}.jpg"): f"000{i + 1}.png" for i in range(3)}


def test_what_a_person_took_out_stays_out_and_its_number_unused(anna: Factory):
    for seed in range(3):
        anna.put(f"{seed}.png", seed)
    anna.go()
    (anna.folder / "0003.png").unlink()
    (anna.root / "set_aside" / "by hand").mkdir(parents=True)
    (anna.folder / "0001.png").rename(anna.root / "set_aside" / "by hand" / "0001.png")
    anna.put("3.png", 3)
    assert anna.go() == ["0004.png"]
    assert sorted(p.name for p in anna.folder.iterdir()) == ["0002.png", "0004.png"]


def test_captions_travel_along_as_a_persons(anna: Factory):
    anna.put("a.png", 1).with_suffix(".txt").write_text("\ufeffein Bär\n", encoding="utf-8")
    anna.put("b.png", 2).with_suffix(".caption").write_text("a bear\n", encoding="utf-8")
    anna.put("c.png", 3).with_suffix(".txt").write_text(" \n", encoding="utf-8")
    anna.go()
    assert {p.name: p.read_text(encoding="utf-8") for p in anna.folder.glob("*.txt")} == {
        "0001.txt": "ein Bär\n",
        "0002.txt": "a bear\n",
    }
    assert [(n["name"], n["rule"], n["after"]) for n in anna.run.told("caption changed")] == [
        ("0001.png", "by hand", "ein Bär"),
        ("0002.png", "by hand", "a bear"),
    ]


def test_a_picture_comes_in_without_a_caption_that_is_no_utf8(anna: Factory):
    text = anna.put("a.png", 1).with_suffix(".txt")
    text.write_bytes("Bär".encode("latin-1"))
    anna.put("b.png", 2).with_suffix(".txt").write_text("a bear", encoding="utf-8")
    (problem,) = rename.check(anna.work, SMALL)
    assert not problem.fatal and "a.txt is not UTF-8" in str(problem)
    result = anna.result()
    assert result.data["imported"] == ["0001.png", "0002.png"]
    assert [p.name for p in anna.folder.glob("*.txt")] == ["0002.txt"]
    assert text.read_bytes() == "Bär".encode("latin-1")
    (line,) = result.lines
    assert line.startswith("a.png: imported without its caption") and line.endswith("write it as 0001.txt")


def test_a_list_of_captions_that_is_no_utf8_is_said_before_any_work(anna: Factory):
    anna.put("a.png")
    (anna.source / "metadata.jsonl").write_bytes('{"file_name": "a.png", "text": "Bär"}'.encode("latin-1"))
    with pytest.raises(errors.InputError, match=r"metadata\.jsonl is not UTF-8"):
        anna.go()
    assert not anna.folder.exists()


def test_what_was_taken_out_is_not_counted_as_there(anna: Factory):
    for seed in range(3):
        anna.put(f"{seed}.png", seed)
    anna.go()
    (anna.folder / "0002.png").unlink()
    assert anna.result().summary == "rename: 0 imported, 2 there already, 1 taken out since they were imported"


def test_facts_act(anna: Factory):
    anna.put("a.png", 1)
    (anna.source / "b copy.png").write_bytes((anna.source / "a.png").read_bytes())
    anna.put("c.bmp", 1)
    anna.put("deep/text.png").write_bytes(b"just words")
    cut = anna.put("deep/cut.jpg", 2)
    cut.write_bytes(cut.read_bytes()[:400])
    drawn(3, (40, 15)).save(anna.source / "flat.png")
    drawn(3, (1, 1)).save(anna.source / "one.png")
    (anna.source / "flat.txt").write_text("flat", encoding="utf-8")
    (anna.source / "empty.gif").touch()
    before = anna.files()
    assert anna.go() == ["0001.png"]
    now = anna.files()
    assert before.items() <= now.items()
    aside = {name: sha for name, sha in now.items() if name.startswith("set_aside/")}
    assert aside == {
        f"set_aside/{place}": before[f"source/{name}"]
        for place, name in {
            "duplicate/b copy.png": "b copy.png",
            "duplicate/c.bmp": "c.bmp",
            "too_small/flat.png": "flat.png",
            "too_small/flat.txt": "flat.txt",
            "too_small/one.png": "one.png",
            "unreadable/cut.jpg": "deep/cut.jpg",
            "unreadable/text.png": "deep/text.png",
            "unreadable/empty.gif": "empty.gif",
        }.items()
    }
    noted = {n["name"]: (n["rule"], n["note"], n["score"], n["rival"]) for n in anna.run.told("set aside")}
    assert noted == {
        "b copy.png": ("same bytes", None, None, "0001.png"),
        "c.bmp": ("same pixels", None, None, "0001.png"),
        "flat.png": ("too small", "40 x 15 pixels", 15, None),
        "one.png": ("too small", "1 x 1 pixels", 1, None),
        "cut.jpg": ("unreadable", "truncated", None, None),
        "text.png": ("unreadable", "not an image: text", None, None),
        "empty.gif": ("unreadable", "empty file", None, None),
    }
    assert all(n["sha"] in before.values() for n in anna.run.told("set aside"))
    anna.go()
    assert anna.files() == now
    assert len(anna.run.told("set aside")) == len(noted)


def test_equal_names_set_aside_do_not_overwrite_each_other(anna: Factory):
    anna.put("good.png", 1)
    for number in range(3):
        anna.put(f"{number}/a.png").write_bytes(f"text {number}".encode())
    (anna.source / "1" / "a.txt").write_text("one", encoding="utf-8")
    anna.go()
    folder = anna.root / "set_aside" / "unreadable"
    names = {p.name: p.read_text() for p in folder.iterdir()}
    assert names == {"a.png": "text 0", "a~2.png": "text 1", "a~2.txt": "one", "a~3.png": "text 2"}
    anna.go()
    assert {p.name: p.read_text() for p in folder.iterdir()} == names


def test_what_was_put_back_stays(anna: Factory):
    anna.put("a.png", 1)
    drawn(2, (9, 9)).save(anna.source / "tiny.png")
    anna.go()
    (anna.root / "set_aside" / "too_small" / "tiny.png").rename(anna.folder / "tiny.png")
    before = anna.files()
    anna.put("b.png", 3)
    assert anna.go() == ["0002.png"]
    assert set(anna.files()) - set(before) == {"source/b.png", "training_images/1_4nna/0002.png"}
    assert anna.go() == []


def test_a_reencoded_copy_of_a_picture_set_aside_does_not_bring_it_back(anna: Factory):
    anna.put("a.png", 1)
    anna.put("b.png", 2)
    anna.go()
    (anna.root / "set_aside" / "blurred").mkdir(parents=True)
    (anna.folder / "0002.png").rename(anna.root / "set_aside" / "blurred" / "0002.png")
    anna.put("b again.tiff", 2)
    assert anna.go() == []
    assert anna.run.told("set aside")[-1]["rival"] == "0002.png"


def test_synthetic_originals_are_marked(anna: Factory):
    path = anna.put("generated-1.png", 1)
    told = {"prompt": "a red star", "seed": 4, "base": "pocket"}
    path.with_suffix(".json").write_text(json.dumps(told), encoding="utf-8")
    anna.put("other.png", 2).with_suffix(".json").write_text('{"author": "somebody"}', encoding="utf-8")
    anna.put("third.png", 3).with_suffix(".json").write_text("[", encoding="utf-8")
    anna.go()
    assert [n["note"] for n in anna.run.told("imported")] == ["synthetic: a red star", "other.png", "third.png"]


def test_the_first_frame_is_taken_and_said(anna: Factory):
    anna.put("a.gif", 1, save_all=True, append_images=[drawn(2), drawn(3)])
    anna.go()
    assert [(n["name"], n["rule"], n["note"]) for n in anna.run.told("flagged")] == [
        ("0001.png", "animated", "the first of 3 frames")
    ]


def test_writes_into_the_first_subset_there_is(anna: Factory):
    anna.put("a.png", 1)
    anna.go()
    anna.folder.rename(anna.folder.with_name("12_4nna"))
    anna.put("b.png", 2)
    assert anna.go() == ["0002.png"]
    assert [p.name for p in (anna.root / "training_images").iterdir()] == ["12_4nna"]


def test_nothing_to_import_and_nothing_usable(anna: Factory):
    with pytest.raises(errors.InputError, match="no pictures there"):
        anna.go()
    anna.put("a.png").write_bytes(b"words")
    anna.put("b.png").write_bytes(b"")
    with pytest.raises(errors.InputError, match="none of the 2 files") as caught:
        anna.go()
    assert "a.png: set aside, unreadable: not an image: text" in str(caught.value)
    assert "b.png: set aside, unreadable: empty file" in str(caught.value)


def test_twenty_odd_at_once(anna: Factory):
    for seed in range(24):
        anna.put(f"{seed}.png", seed)
    assert len(anna.go()) == 24
    assert images.pixel_hash(images.load(anna.folder / "0024.png")) == images.pixel_hash(drawn(23))


# ---------------------------------------------------------------- any other folder


def test_another_folder_needs_a_place_to_write_to(anna: Factory, tmp_path: Path):
    photos = tmp_path / "photos"
    photos.mkdir()
    other = foreign(anna, photos)
    for settings in (SMALL, rename.Settings(to=photos), rename.Settings(to=photos / "set")):
        with pytest.raises(errors.SettingsError, match=r"lora rename .*photos --to .*photos_set"):
            other.go(settings)
    with pytest.raises(errors.SettingsError, match="`to` is for other folders"):
        anna.go(rename.Settings(to=photos))
    assert list(photos.iterdir()) == []


def test_another_folder_is_read_only(anna: Factory, tmp_path: Path):
    photos = tmp_path / "photos"
    (photos / "set_aside" / "blurred").mkdir(parents=True)
    for seed, name in enumerate(("b.png", "a.jpg", "set_aside/blurred/c.png")):
        drawn(seed).save(photos / name)
    (photos / "bad.png").write_bytes(b"words")
    before = {p: digest(p) for p in photos.rglob("*") if p.is_file()}
    for header, folder in (({}, tmp_path / "flat"), ({"trigger": "4nna"}, tmp_path / "set" / "1_4nna")):
        other = foreign(anna, photos, **header)
        to = rename.Settings(min_side=16, to=folder if not header else folder.parent)
        assert other.go(to) == ["0001.png", "0002.png"]
        assert sorted(p.name for p in folder.glob("*.png")) == ["0001.png", "0002.png"]
        assert (to.to / "set_aside" / "unreadable" / "bad.png").is_file()
        assert other.go(to) == other.go(to, remembering=False) == []
    assert {p: digest(p) for p in photos.rglob("*") if p.is_file()} == before


def test_the_text_of_a_double_stays_with_the_picture_that_stays(lora, space: Path, tmp_path: Path):
    source = tmp_path / "pictures"
    source.mkdir()
    images.save_png(Image.new("RGB", (300, 300), "red"), source / "a.png")
    (source / "b.png").write_bytes((source / "a.png").read_bytes())
    (source / "b.txt").write_text("a red square")
    assert lora("rename", source, "--to", tmp_path / "set").code == 0
    assert [p.read_text().strip() for p in (tmp_path / "set").glob("*.txt")] == ["a red square"]
