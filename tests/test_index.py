"""The workspace's page: the worst news first, what to type next, links that can be moved; and `lora report`."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from filelock import FileLock

from lorafactory import index
from lorafactory.errors import FailedError
from lorafactory.index import Card, cards, write_index
from lorafactory.report import is_current
from lorafactory.store import Store
from lorafactory.workspace import Workspace
from tests.compared import make_lora, verdict

HOSTILE = "<script>alert(1)</script>\"'&"


@pytest.fixture
def workspace(space: Path) -> Workspace:
    make_lora(space, text=HOSTILE, prompts=1, seeds=1, saves=3, strengths=(1.0,), bases=("pony",))
    return Workspace(space, "test")


def begin(workspace: Workspace, name: str, error: BaseException | None = None) -> None:
    """A LoRA whose training ended so."""
    workspace.lora(name).root.mkdir()
    dies = suppress(FailedError, KeyboardInterrupt)
    with Store(workspace.record) as store, dies, store.run(name, "train", version=1, key="k", settings={}):
        if error:
            raise error


def told(workspace: Workspace) -> dict[str, Card]:
    with Store(workspace.record, readonly=True) as store:
        return {card.name: card for card in cards(workspace, store)}


def test_the_worst_news_come_first(workspace: Workspace) -> None:
    begin(workspace, "kiki")
    begin(workspace, "bob two", KeyboardInterrupt())
    begin(workspace, "zoe", FailedError(f"no memory {HOSTILE}"))
    shutil.copytree(workspace.lora("anna").root, workspace.lora("weak").root)
    (workspace.lora("weak").root / "anna.safetensors").rename(workspace.lora("weak").chosen)
    (workspace.lora("weak").comparison / "verdict.json").write_text(json.dumps(verdict(passed=False)))
    assert told(workspace)["weak"].news == "waiting"  # nothing is recorded of a folder that was copied
    with Store(workspace.record) as store, store.run("weak", "pick", version=1, key="k", settings={}):
        pass
    found = told(workspace)
    assert list(found) == ["zoe", "bob two", "weak", "kiki", "anna"]
    assert found["weak"].news == "no save passes" and found["weak"].next == "lora train anna --more 3"
    assert found["zoe"].reason == f"train: no memory {HOSTILE}" and found["zoe"].next == "lora make zoe"
    assert found["bob two"].reason == "during train" and found["bob two"].next == "lora make 'bob two'"
    assert found["kiki"].reason == "after train" and found["kiki"].save == ""
    anna = found["anna"]
    assert (anna.save, anna.trigger, anna.base) == ("epoch 3", "4nna", "pocket")
    assert anna.reason == f"epoch 3: the best{HOSTILE}" and anna.file == "loras/anna/anna.safetensors"


def test_a_run_that_nobody_is_at_was_interrupted(workspace: Workspace) -> None:
    place = workspace.lora("anna")
    with Store(workspace.record) as store, store.run("anna", "train", version=1, key="k", settings={}):
        assert told(workspace)["anna"].news == "interrupted"
        with FileLock(place.lock):
            assert told(workspace)["anna"].news == "running"


def test_what_was_refused_or_done_beside_is_no_news(lora: Callable[..., Any], workspace: Workspace) -> None:
    def compare(settings: dict[str, Any]) -> None:
        run = {"version": 2, "key": "k", "settings": settings}
        with Store(workspace.record) as store, suppress(FailedError), store.run("anna", "compare", **run):
            raise FailedError("no memory")

    assert lora("compare", "anna", "--axis", "nonsense").code
    assert lora("pick", "anna", 99).code
    with Store(workspace.record, readonly=True) as store:
        assert {run.step for run in store.runs("anna")} == {"by hand", "train", "rename"}
    compare({"axis": "rank"})
    assert told(workspace)["anna"].news == "done"
    compare({"axis": "", "loras": [], "to": ""})
    assert told(workspace)["anna"].reason == "compare: no memory"


def test_the_page_says_so_and_its_links_are_there_when_the_folder_moves(workspace: Workspace, tmp_path: Path) -> None:
    begin(workspace, "bob two", FailedError(HOSTILE))
    sample = workspace.lora("bob two").result / "sample" / "bob two #1.png"
    sample.parent.mkdir(parents=True)
    shutil.copy(workspace.lora("anna").chosen.with_suffix(".png"), sample)
    workspace.lora("anna").report.write_text("a report")
    write_index(workspace)
    workspace.root.rename(tmp_path / "moved")
    page = (tmp_path / "moved" / "index.html").read_text(encoding="utf-8")
    links = [unquote(unescape(link)) for link in re.findall(r'(?:href|src)="([^"]+)"', page)]
    assert set(links) == {
        "loras/bob two/result_current/sample/bob two #1.png",
        "loras/anna/anna.png",
        "loras/anna/report.html",
        "loras/anna/anna.safetensors",
    }
    assert all((tmp_path / "moved" / link).is_file() for link in links)
    assert "1 failed · 1 done" in page and HOSTILE not in page and HOSTILE in unescape(page)
    assert 'data-copy="4nna"' in page and page.index("bob two</bdi>") < page.index("anna</bdi>")


def test_looking_makes_no_workspace(tmp_path: Path) -> None:
    write_index(Workspace(tmp_path / "none", "test"))
    assert not (tmp_path / "none").exists()


def test_a_broken_lora_keeps_its_card(workspace: Workspace) -> None:
    workspace.lora("anna").settings.write_text("no toml =")
    assert told(workspace)["anna"].trigger == "" and told(workspace)["anna"].news == "done"


def test_the_page_is_written_after_a_job_that_fails_too(lora: Callable[..., Any], workspace: Workspace) -> None:
    (workspace.lora("anna").settings).write_text('base = "no such model"\n')
    said = lora("make", "anna")
    assert said.code and (workspace.root / index.PAGE).is_file()


def test_a_report_for_others_says_nothing_of_the_pictures(lora: Callable[..., Any], workspace: Workspace) -> None:
    place = workspace.lora("anna")
    place.settings.write_text(
        'base = "/secret/models/pony.safetensors"\ntrigger = "4nna"\n[compare]\nprompts = ["{trigger}, secret words"]\n'
        'on = ["/home/secret o\'brien/other.safetensors"]\n'
    )
    scores = json.loads((place.comparison / "scores.json").read_text())
    scores["prompts"][0] |= {"caption": True, "text": "4nna, Secret Silva", "plain": "Secret Silva"}
    scores["budget"]["full_command"] = "lora compare anna --on /home/secret/x.safetensors --full"
    scores["columns"][0]["base"] = "C:\\secret\\pony.safetensors"
    (place.comparison / "scores.json").write_text(json.dumps(scores))
    said = lora("report", "anna", "--share")
    assert said.code == 0, said.err
    assert not place.report.exists()
    shared = place.root.joinpath("report-shared.html").read_text(encoding="utf-8")
    assert lora("report", "anna").code == 0
    whole = place.report.read_text(encoding="utf-8")
    for ours in ("0001.png", "4nna, a caption", "caption.text", "secret", "Secret Silva"):
        assert ours not in shared and ours in whole
    assert "mirrored" not in shared and "txt2img-images/cells" not in shared
    assert str(workspace.root) not in shared + whole and "pony.safetensors" in shared and "epoch 3" in shared
    assert "other.safetensors" in shared
    assert shared.count("data:image/webp") == 4  # three cells and the preview


def test_a_choice_among_other_saves_of_the_same_names_is_not_shown(
    lora: Callable[..., Any], workspace: Workspace
) -> None:
    place = workspace.lora("anna")
    verdict = json.loads((place.comparison / "verdict.json").read_text(encoding="utf-8"))
    (place.comparison / "verdict.json").write_text(json.dumps(verdict | {"sha256": "of the training before"}))
    assert lora("report", "anna").code == 0
    page = place.report.read_text(encoding="utf-8")
    assert "No save is chosen yet" in page and verdict["reason"] not in page


def test_what_cannot_be_reported_says_what_to_type(lora: Callable[..., Any], workspace: Workspace) -> None:
    (workspace.lora("anna").comparison / "scores.json").write_text('{"version": 1}')
    said = lora("report", "anna")
    assert said.code == 3 and "lora compare anna --force" in said.err


def test_a_report_is_current_until_there_is_another_choice(workspace: Workspace) -> None:
    place = workspace.lora("anna")
    assert not is_current(place)
    place.report.write_text("a report")
    assert is_current(place)
    later = place.report.stat().st_mtime_ns + 1_000_000
    os.utime(place.comparison / "verdict.json", ns=(later, later))
    assert not is_current(place)
