"""One caption or picture that cannot be read stops only what needs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from drawn import draw_all

from tests.conftest import Said

GARBLED = "4nna, größer".encode("latin-1")


@pytest.fixture
def folder(space: Path) -> Path:
    """A LoRA's set of four, two of them with captions that are not UTF-8."""
    made = draw_all(space / "loras" / "anna" / "training_images" / "1_4nna", 4)
    for i in (1, 2):
        (made / f"IMG {i}.txt").write_bytes(GARBLED)
    (made.parent.parent / "lora.toml").write_text('base = "pocket"\ntrigger = "4nna"\nclass = "woman"\n')
    return made


def test_steps_go_on_beside_a_caption_that_is_no_utf8(lora: Callable[..., Said], folder: Path) -> None:
    for name, *options in (
        ("dedupe", "--no-clip"),
        ("filter", "--no-clip"),
        ("caption", "--text", "a photo"),
        ("caption", "--captioner", "files", "--add", "tag"),
        ("repeats", "--policy", "steps=20"),
        ("caption", "--text", "other words"),
    ):
        said = lora(name, "anna", *options)
        assert said.code == 0, said.err
        if name == "caption":
            assert all(f"IMG {i}.png: by hand, and cannot be read" in said.out for i in (1, 2))
    (home,) = folder.parent.iterdir()
    assert [(home / f"IMG {i}.txt").read_bytes() for i in (1, 2)] == [GARBLED] * 2
    assert (home / "IMG 3.txt").read_text() == "4nna, a photo, tag\n"  # what `files` edited counts as by hand
    for form in ("kohya", "huggingface"):
        said = lora("export", "anna", "--format", form, "--to", form)
        assert said.code == 0, said.err
    rows = [json.loads(line) for line in Path("huggingface/metadata.jsonl").read_text().splitlines()]
    assert [row["text"] is None for row in rows] == [False, True, True, False]
    assert "IMG 1.txt, which is not UTF-8 text" in said.out


def test_train_and_check_name_all_of_them(lora: Callable[..., Said], folder: Path) -> None:
    for command in (("train", "anna"), ("check", "anna", "--no-clip"), ("make", "anna", "--to", "train", "--no-clip")):
        said = lora(*command)
        assert said.code == 3
        assert all(f"IMG {i}.txt is not UTF-8 text" in said.err for i in (1, 2))


def test_undo_gives_the_bytes_back(lora: Callable[..., Said], folder: Path) -> None:
    assert lora("caption", "anna", "--text", "a photo", "--overwrite").code == 0
    assert (folder / "IMG 1.txt").read_bytes() != GARBLED
    assert lora("undo", "anna").code == 0
    assert (folder / "IMG 1.txt").read_bytes() == GARBLED


def test_what_a_person_did_to_one_is_seen(lora: Callable[..., Said], folder: Path) -> None:
    assert lora("repeats", "anna", "--policy", "keep").code == 0
    (folder / "IMG 1.txt").write_bytes("4nna, großer".encode("latin-1"))
    (folder / "IMG 2.txt").write_bytes("4nna, größer".encode())
    said = lora("repeats", "anna", "--policy", "keep")
    assert all(f"IMG {i}.png: caption changed by hand" in said.err for i in (1, 2))
    assert "by hand" not in lora("repeats", "anna", "--policy", "keep").err


def test_an_original_that_may_not_be_opened_is_refused_by_name(
    lora: Callable[..., Said], space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without chmod, which stops neither root nor Windows."""
    photos = draw_all(tmp_path / "photos", 3)
    locked, opened = photos / "IMG 1.png", Path.open

    def opening(path: Path, *args: object, **kwargs: object) -> object:
        if path == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **kwargs)  # type: ignore[arg-type, call-overload]

    monkeypatch.setattr(Path, "open", opening)
    for _ in range(2):
        said = lora("rename", photos, "--to", tmp_path / "set")
        assert said.code == 0, said.err
        assert f"{locked}: not taken: cannot be opened: Permission denied" in said.err
        assert "1 refused" in said.out
    assert sorted(p.name for p in (tmp_path / "set").glob("*.png")) == ["0001.png", "0002.png"]
