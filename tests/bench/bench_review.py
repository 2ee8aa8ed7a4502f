"""What a person feels of `lora review` with 1 000 pictures, measured in the browser, and what the server holds.

Told: milliseconds until the page shows anything, until the first screen has all its pictures (made for the first time,
and from the cache), and until a key's act is seen; how long frames take while the whole grid scrolls by; megabytes of
the server over 10 000 requests.

    .venv/bin/python tests/bench/bench_review.py
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
from PIL import Image

from lorafactory import dataset, images
from lorafactory.past import snapshot
from lorafactory.store import Store
from lorafactory.workspace import Workspace

PICTURES, REQUESTS, ACTS = 1000, 10_000, 20
SIDE = (832, 1216)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SEEN = """() => [...document.querySelectorAll(".cell img")].filter((img) => {
  const at = img.getBoundingClientRect();
  return at.top < innerHeight && at.bottom > 0;
}).every((img) => img.complete && img.naturalWidth > 0)"""
SCROLL = """(seconds) => new Promise((done) => {
  const frames = [], began = performance.now(), end = document.documentElement.scrollHeight - innerHeight;
  let last = began;
  const step = (now) => {
    frames.push(now - last);
    last = now;
    scrollTo(0, end * Math.min(1, (now - began) / 1000 / seconds));
    if (now - began < 1000 * seconds) requestAnimationFrame(step); else done(frames.slice(1));
  };
  requestAnimationFrame(step);
})"""


def fill(space: Workspace, count: int) -> None:
    """A set of soft noise, each picture about a megabyte as PNG, with captions and a record."""
    place = space.lora("anna")
    folder = place.images / "1_4nna"
    folder.mkdir(parents=True)
    place.settings.write_text('base = "pocket"\ntrigger = "4nna"\n[train]\nresolution = 1024\n', encoding="utf-8")
    for i in range(count):
        small = np.random.default_rng(i).integers(0, 255, (SIDE[1] // 8, SIDE[0] // 8, 3), dtype=np.uint8)
        soft = Image.fromarray(small).resize(SIDE, Image.Resampling.BILINEAR)
        (folder / f"{i + 1:04}.png").write_bytes(images.png(soft))
        (folder / f"{i + 1:04}.txt").write_text(f"4nna, a woman in a garden, number {i}\n", encoding="utf-8")
    with Store(space.record) as store, store.run("anna", "caption", version=1, key="k", settings={}) as run:
        snapshot(dataset.read_set(place.root, place.images), run)


def start(space: Workspace) -> tuple[subprocess.Popen[str], str]:
    line = [sys.executable, "-m", "lorafactory", "review", "anna", "--no-browser", "--port", "0"]
    server = subprocess.Popen([*line, "--workspace", str(space.root)], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    return server, server.stdout.readline().strip()


def opened(browser: Any, url: str) -> tuple[Any, dict[str, float]]:
    """A page with its times, in milliseconds since the address was asked for."""
    page = browser.new_page()
    began = time.perf_counter()
    page.goto(url)
    page.wait_for_url("**/images")
    page.wait_for_selector(".cell")
    cells = 1000 * (time.perf_counter() - began)
    while not page.evaluate(SEEN):
        time.sleep(0.01)
    whole = 1000 * (time.perf_counter() - began)
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    return page, {"first paint": paint, "all cells": cells, "first screen whole": whole}


def acts(page: Any) -> list[float]:
    """Milliseconds from a key to what comes of it on the page."""
    took = []
    for i in range(ACTS):
        before = page.inner_text("#said")
        began = time.perf_counter()
        page.keyboard.press("x" if i < ACTS // 2 else "u")
        while page.inner_text("#said") == before:
            pass
        took.append(1000 * (time.perf_counter() - began))
    return took


def asked(url: str, pid: int, count: int) -> list[tuple[int, float]]:
    """Ask for everything a page asks for; (requests so far, megabytes of the server)."""
    told = urlsplit(url)
    link = http.client.HTTPConnection(told.hostname or "", told.port or 0)

    def get(path: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        link.request("GET", path, headers=headers)
        answer = link.getresponse()
        return answer, answer.read()

    cookie = get(f"/?{told.query}")[0].headers["set-cookie"].partition(";")[0]
    pictures = json.loads(get("/set/anna/set", cookie=cookie)[1])["pictures"]
    found, process = [], psutil.Process(pid)
    for i in range(count):
        picture = pictures[i % len(pictures)]
        paths = (f"/set/anna/thumb/{picture['sha']}", f"/set/anna/set?name={picture['name']}", "/set/anna/images",
                 "/static/images.js", "/set/anna/comparison")  # fmt: skip
        answer, _ = get(paths[i % len(paths)], cookie=cookie)
        assert answer.status == 200, answer.status
        if (i + 1) % (count // 10) == 0:
            found.append((i + 1, process.memory_info().rss / 1e6))
    link.close()
    return found


def say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    asked_for = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked_for.add_argument("--pictures", type=int, default=PICTURES)
    asked_for.add_argument("--requests", type=int, default=REQUESTS)
    told_to = asked_for.parse_args()
    count, requests = told_to.pictures, told_to.requests
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        space = Workspace(Path(folder), "bench")
        fill(space, count)
        server, url = start(space)
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        browser = chromium.new_context(viewport={"width": 1280, "height": 850})
        say(f"review: {count} pictures of {SIDE[0]} x {SIDE[1]}, on {psutil.cpu_count()} cores, no graphics card")
        for how in ("for the first time", "again"):
            page, times = opened(browser, url)
            say(f"    {how:18}  " + ", ".join(f"{what} {ms:.0f} ms" for what, ms in times.items()))
        while page.locator("#check").is_hidden():
            time.sleep(0.5)  # the check-up has decoded every picture; small ones are made by then
        for what in ("all of it scrolls by in 5 s", "and back up at once, and by again"):
            frames = page.evaluate(SCROLL, 5)
            slow = sum(ms > 50 for ms in frames) / len(frames)
            middle, late = statistics.median(frames), sorted(frames)[int(0.95 * len(frames))]
            told = f"{len(frames)} frames, median {middle:.0f} ms, 95 % within {late:.0f} ms"
            say(f"    {what}: {told}, {slow:.1%} longer than 50 ms")
        took = acts(page)
        culled, undone = statistics.median(took[: ACTS // 2]), statistics.median(took[ACTS // 2 :])
        say(f"    a key to its act seen: set aside {culled:.0f} ms, undo {undone:.0f} ms (medians of {ACTS // 2})")
        chromium.close()
        assert server.stdout is not None
        other = server.stdout.readline().split()[-1]  # the address for another browser
        memory = asked(other, server.pid, requests)
        say("    megabytes of the server: " + ", ".join(f"{mb:.0f} after {n:,}" for n, mb in memory))
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
