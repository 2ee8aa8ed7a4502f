"""Prompt files in kohya's syntax: what they mean, what is refused, and that they are only data (trainers.md 1.6)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lorafactory.errors import InputError
from lorafactory.training.prompts import Prompt, Prompts, read


def written(folder: Path, text: str, name: str = "prompts.txt", **more: object) -> Prompts:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return read(path, **more)  # type: ignore[arg-type]


def refused(folder: Path, text: str, name: str = "prompts.txt") -> list[str]:
    with pytest.raises(InputError) as raised:
        written(folder, text, name)
    return str(raised.value).replace(str(folder / name), "FILE").split("\n")


def test_a_line_is_a_prompt_with_options(tmp_path: Path) -> None:
    found = written(
        tmp_path,
        "\ufeff# of anna\n"
        "\n"
        "a woman -- in a red-hot coat, --n blurry, bad --W 515 --h 768 --d 42 --s 20 --l 5.5\n"
        "  plain, with é \n",
        side=96,
    )
    assert found == Prompts(
        (
            Prompt("a woman -- in a red-hot coat,", "blurry, bad", (512, 768), 42, 20, 5.5),
            Prompt("plain, with é", "", (96, 96), 1, 30, 7.5),  # kohya's steps and guidance, and always the same seed
        )
    )


def test_words_are_filled_in_and_all_else_is_left_alone(tmp_path: Path) -> None:
    words = {"trigger": "zqx", "class": "woman"}
    (found,) = written(tmp_path, "{trigger}, a {class}, {other},,  x --n {trigger}", words=words).prompts
    assert (found.text, found.negative) == ("zqx, a woman, {other},,  x", "{trigger}")


def test_lists_in_toml_and_json_say_the_same(tmp_path: Path) -> None:
    line = "a cat --n dog --w 64 --h 128 --d 3 --s 7 --l 2"
    (wanted,) = written(tmp_path, line).prompts
    toml = '[prompt]\nwidth = 64\nheight = 128\nnegative_prompt = "dog"\n[[prompt.subset]]\nprompt = "a cat"\n'
    assert written(tmp_path, f"{toml}seed = 3\nsample_steps = 7\nscale = 2\n", "p.toml").prompts == (wanted,)
    told = {"prompt": "a cat", "negative_prompt": "dog", "width": 64, "height": 128, "enum": 0}
    told |= {"seed": 3, "sample_steps": 7, "scale": 2.0}
    assert written(tmp_path, json.dumps([line, told]), "p.json").prompts == (wanted, wanted)


def test_no_option_opens_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_text("secret")
    for text, name in (
        (f"a cat --cn {secret}", "p.txt"),
        (json.dumps([{"prompt": "a cat", "controlnet_image": str(secret)}]), "p.json"),
    ):
        (said,) = refused(tmp_path, text, name)
        assert "--cn names a file, and a prompt file opens none" in said
    # what looks like a file, a tag or code is text
    told = f"{secret}, <lora:x:1>, $(id), {{0.__class__}}, @{secret}"
    assert written(tmp_path, told, words={"trigger": "zqx"}).prompts[0].text == told


def test_all_that_is_wrong_is_said_by_line(tmp_path: Path) -> None:
    text = "a --w 4000 --d -1\n--n only\nb --seed 3\nc --s 0 --l nan\nfine\nd --h"
    assert refused(tmp_path, text) == [
        "FILE, line 1: --w 4000: not a number from 64 to 2048",
        "FILE, line 1: --d -1: not a number from 0 to 9223372036854775807",
        "FILE, line 2: there is no prompt",
        "FILE, line 3: --seed is no option; there are --n, --w, --h, --d, --s, --l, --ss, --g",
        "FILE, line 4: --s 0: not a number from 1 to 1000",
        "FILE, line 4: --l nan: not a number from 1 to 100",
        "FILE, line 6: --h : not a number from 64 to 2048",
    ]
    assert refused(tmp_path, "# nothing\n") == ["FILE: no prompt in it; write one per line"]
    for name, broken in (("p.json", '{"prompt": "x"}'), ("p.json", "[1]"), ("p.toml", "x = 1"), ("p.toml", "[")):
        assert refused(tmp_path, broken, name)[0].startswith("FILE: not a prompt file (")
    with pytest.raises(InputError, match="not a prompt file"):
        read(tmp_path / "missing.txt")


def test_what_changes_nothing_is_said(tmp_path: Path) -> None:
    found = written(tmp_path, "a --ss euler_a --g 3.5\nb --ss ddim")
    assert [remark.partition(", ")[2] for remark in found.remarks] == [
        "line 1: --g is for bases that take guidance as an input, and changes nothing here",
        "line 1: --ss is not used: samples are drawn with ddim",
    ]
