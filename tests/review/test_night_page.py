"""The night in the browser: a job as it goes, what needs somebody and the answers to it, each taken back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from lorafactory import heartbeat, images, step
from lorafactory.daemon import rows
from lorafactory.daemon.limits import beat_of
from lorafactory.daemon.queue import Job, Queue
from lorafactory.daemon.worker import work
from lorafactory.errors import InputError, PassingError
from lorafactory.files import write_whole
from lorafactory.review import night
from lorafactory.steps._diary import write_losses
from lorafactory.store import Store
from lorafactory.workspace import LoraDir, Workspace
from tests.browsing import IN_BROWSER
from tests.review.conftest import Served
from tests.review.sets import make_set, noise


@pytest.fixture
def anna(tmp_path: Path) -> LoraDir:
    return make_set(tmp_path / "ws", 3)


@pytest.fixture
def space(anna: LoraDir) -> Workspace:
    return Workspace(anna.root.parent.parent, "test")


@pytest.fixture
def queue(space: Workspace) -> Iterator[Queue]:
    with Store(space.record) as store:
        yield Queue(store)


def ended(queue: Queue, lora: str, state: Any, failure: str, reason: str) -> Job:
    (queue.space.lora(lora).root / "source").mkdir(parents=True, exist_ok=True)
    return queue.finish(queue.add(lora), state, failure=failure, reason=reason)


def states(queue: Queue) -> dict[str, tuple[str, str | None, str | None]]:
    return {job.lora: (job.state, job.failure, job.reason) for job in queue.newest()}


def refused(queue: Queue, name: str, code: str, reason: str) -> Path:
    """A drop in quarantine, with one file."""
    ulid = f"01HZZZZZZZZZZZZZZZ{name.upper():Z>8}"
    rows.claim(queue.store, ulid, name)
    rows.condemn(queue.store, ulid, code, reason)
    folder = queue.space.root / "quarantine" / f"{name}-{ulid[-8:].lower()}"
    (folder / name).mkdir(parents=True)
    (folder / name / "notes.txt").write_text("no picture")
    (folder / "REASON.md").write_text("why")
    return folder


# ---------------------------------------------------------------- answers


def test_answers_are_recorded_and_taken_back(lora: Any, queue: Queue, space: Workspace) -> None:
    ended(queue, "broken", "failed", "needs you", "base 'pony' is not there")
    ended(queue, "asks", "waiting", "", "before train: look at it")
    before = states(queue)
    assert night.retry(space, "broken") == "broken: queued"
    assert night.retry(space, "asks") == "asks: queued"
    assert night.give_up(space, "asks") == "asks: given up"
    root = space.root
    assert "try again: broken: queued" in lora("why", "broken", "--workspace", root).out
    assert "go on: asks: queued" in lora("why", "asks", "--workspace", root).out
    assert night.undo(space) == "took back give up: asks: given up"
    assert states(queue)["asks"][0] == "queued"
    assert lora("undo", "asks", "--workspace", root).code == 0
    assert lora("undo", "broken", "--workspace", root).code == 0
    assert states(queue) == before
    with pytest.raises(InputError, match="nothing was answered that could be taken back"):
        night.undo(space)


def test_what_has_begun_since_is_not_taken_back(queue: Queue, space: Workspace) -> None:
    ended(queue, "broken", "failed", "needs you", "why")
    night.retry(space, "broken")
    job = queue.active("broken")
    assert job is not None and queue.begin(job)
    with pytest.raises(InputError, match="the job of broken is running since"):
        night.undo(space)
    with pytest.raises(PassingError):
        night.give_up(space, "broken")
    assert states(queue)["broken"][0] == "running"


def test_a_job_that_waited_goes_on_past_where_it_waited(queue: Queue, space: Workspace) -> None:
    (space.lora("anna").root / "lora.toml").write_text('base = "pocket"\nwait_before = "train"\n', encoding="utf-8")
    queue.add("anna")
    made: list[str | None] = []

    def make(space: Workspace, lora: str, to: str | None) -> None:
        made.append(to)
        if len(made) == 2:
            raise OSError("no room")  # and it is tried again, still without waiting

    work(space, queue, make)
    assert states(queue)["anna"][0] == "waiting" and made == ["repeats"]
    night.retry(space, "anna")
    work(space, queue, make)
    queue.add("anna")
    work(space, queue, make)
    assert made == ["repeats", None, None] and states(queue)["anna"][0] == "done"
    queue.add("anna")  # another job waits again
    work(space, queue, make)
    assert made[-1] == "repeats"


def test_a_quarantined_drop_comes_back_and_goes_back(lora: Any, queue: Queue, space: Workspace) -> None:
    folder = refused(queue, "void", "no_images", "There is no picture in it\nnotes.txt: not an image")
    space.inbox.mkdir()
    told = night.told(space)["quarantine"]
    assert told == [{"name": "void", "called": folder.name, "code": "no_images", "reason": "There is no picture in it",
                     "files": ["notes.txt: not an image"]}]  # fmt: skip
    assert night.retry(space, folder.name).endswith("inbox/void: back in the inbox")
    assert (space.inbox / "void" / "notes.txt").exists() and not folder.exists()
    assert night.told(space)["quarantine"] == []
    assert "try again: " in lora("why", "void", "--workspace", space.root).out
    assert lora("undo", "void", "--workspace", space.root).code == 0  # there is no LoRA of that name
    assert (folder / "void" / "notes.txt").exists() and (folder / "REASON.md").exists()
    assert night.told(space)["quarantine"] == told and not (space.loras / "void").exists()
    assert "given up" in night.give_up(space, "void")
    assert night.told(space)["quarantine"] == [] and (folder / "void").exists()
    night.undo(space)
    assert night.told(space)["quarantine"] == told
    night.retry(space, "void")
    (space.inbox / "void").rename(space.root / "taken")
    with pytest.raises(InputError, match="the drop was taken since"):
        night.undo(space)


# ---------------------------------------------------------------- in the browser


@pytest.mark.parametrize("mark", [None])
class TestInBrowser:
    pytestmark = IN_BROWSER

    def test_a_job_is_seen_as_it_goes(self, serve: Any, anna: LoraDir, queue: Queue, mark: None) -> None:
        served: Served = serve(anna)
        page, log = served.visit("night").page, anna.result / "log"
        expect(page.locator("#night")).to_contain_text("Nothing is queued, and nothing needs you.")
        job = queue.add("anna")
        expect(page.locator("article[data-name='1. anna']")).to_be_visible()
        log.mkdir(parents=True)
        with step.locked(anna), heartbeat.beating(beat_of(queue.space, "0"), "anna", silence=900):
            assert queue.begin(job)
            heartbeat.beat("train", 0, 200)
            expect(page.locator("article[data-name=anna]")).to_contain_text("train 0 of 200, 0 %")
            for done in (50, 100):
                write_losses(log / "loss.csv", [(i, 0.3 - i / 1000, 1e-4) for i in range(1, done + 1)])
                heartbeat._heart.written = 0  # type: ignore[union-attr]  # a second has passed
                heartbeat.beat("train", done, 200)
                expect(page.locator("figcaption").first).to_contain_text(f"after step {done}")
            assert page.get_attribute("progress", "value") == "0.5"
            (anna.result / "sample").mkdir()
            images.save_png(noise(3), anna.result / "sample" / "anna-01-step00000100.png")
            entry = '[{"step": 100, "epoch": 1, "prompt": {"text": "4nna"}, "file": "anna-01-step00000100.png"}]'
            write_whole(anna.result / "sample" / "samples.json", entry.encode())
            heartbeat._heart.written = 0  # type: ignore[union-attr]
            heartbeat.beat("train", 101, 200)
            sample = page.locator(".samples img")
            expect(sample).not_to_have_js_property("naturalWidth", 0)
            assert sample.get_attribute("alt") == "4nna"
            queue.finish(queue.job(job.id), "failed", failure="needs you", reason="the base is gone")
        beat_of(queue.space, "0").unlink()
        expect(page.locator("section[aria-label='Went wrong']")).to_contain_text("the base is gone")

    def test_what_needs_somebody_is_answered(self, serve: Any, anna: LoraDir, queue: Queue, mark: None) -> None:
        ended(queue, "asks", "waiting", "", "before train: look at it")
        ended(queue, "broken", "failed", "needs you", "base 'pony' is not there")
        refused(queue, "void", "no_images", "There is no picture in it\nnotes.txt: not an image")
        queue.space.inbox.mkdir()
        before = states(queue)
        served: Served = serve(anna)
        page = served.visit("night").page
        sections = [found.get_attribute("aria-label") for found in page.locator("#night section").all()]
        assert sections == ["Waits for you", "Went wrong", "Not taken"]
        page.click("[data-name=void] summary")
        assert "notes.txt: not an image" in page.inner_text("[data-name=void]")
        page.click("[data-name=asks] >> text=go on")
        expect(page.locator("#said")).to_have_text("asks: queued")
        page.click("[data-name=broken] >> text=give up")
        expect(page.locator("#said")).to_have_text("broken: given up")
        page.click("[data-name=void] >> text=try again")
        expect(page.locator("#said")).to_contain_text("back in the inbox")
        assert (queue.space.inbox / "void").exists()
        for said in ("try again", "give up", "go on"):
            page.keyboard.press("u")
            expect(page.locator("#said")).to_contain_text(f"took back {said}")
        assert states(queue) == before
        expect(page.locator("#night section")).to_have_count(3)
        with page.expect_navigation():
            page.click("[data-name=asks] >> text=look at the pictures")
        assert page.url.endswith("/set/asks/images")
