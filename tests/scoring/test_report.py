"""The report stands alone, and nothing that a person's files bring gets out of its place."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser

import pytest
from PIL import Image

from lorafactory import pages
from lorafactory.pages import duration, number, picture
from lorafactory.scoring.charts import Mark, loss_curve, smoothed, thinned
from lorafactory.scoring.report import Noticed, Report, Setting, Shown, render
from tests.compared import DRAWINGS, FULL, scores, verdict

HOSTILE = " ".join(
    (
        "</script><script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "' onmouseover='alert(1)",
        "{{ 7 * 7 }}{% raw %}",
        "</style></table></main>&amp;<!--",
        "\u202egnp.exe \u2028 日本語 ü 🙂",
    )
)
VOID = {"meta", "img", "link", "br", "source", "input", "rect"}


def data_url(colour: str = "red") -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def report(text: str = "", url: str | None = None, *, passed: bool = True) -> Report:
    url = data_url() if url is None else url
    told = scores(text=text, bases=("pony",), strengths=(1.0,), prompts=3, seeds=2)
    return Report(
        name=f"anna{text}",
        trigger=f"4nna{text}",
        scores=told,
        verdict=verdict(text, passed=passed),
        kind=f"person{text}",
        preview=url,
        cells={f"cells/{i:02}.png": url for i in range(DRAWINGS)},
        losses=[(i, 1 / i) for i in range(1, 500)],
        pictures=[Shown("0001.png", url, f"4nna{text}"), Shown(f"0004{text}.png", url)],
        noticed=[Noticed(f"IMG{text}.jpg", url, f"flagged{text}", text), Noticed("x", "", "set aside", "truncated")],
        settings=[Setting("train", "base", text, text), Setting("train", "epochs", "6")],
        facts=[("base", text)],
        timings=[(f"train{text}", "today", 61.0)],
    )


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that every element is closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str, name: str) -> list[str]:
        return [value for t, n, value in self.attributes if (t, n) == (tag, name)]


@cache
def made(text: str = "") -> str:
    return render(report(text))


def test_what_files_bring_stays_text() -> None:
    page, plain = Page(made(HOSTILE)), Page(made())
    assert page.tags == plain.tags
    assert [(tag, name) for tag, name, _ in page.attributes] == [(tag, name) for tag, name, _ in plain.attributes]
    assert page.text.count(HOSTILE) >= 15


@pytest.mark.parametrize("text", ["", HOSTILE])
def test_it_loads_nothing_and_runs_only_its_own(text: str) -> None:
    html = made(text)
    page = Page(html)
    assert not re.search(r"https?:|url\(|@import", html)
    assert not {"link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name == "style"]
    assert all(value.startswith("data:image/") for tag in ("img", "source") for value in page.of(tag, "src"))
    style, script = (re.search(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL) for tag in ("style", "script"))
    assert style and script and len(re.findall(r"<(?:style|script)\b", html)) == 3  # the third is the data
    allowed = f"style-src {pages.digest(style[1])}; script-src {pages.digest(script[1])};"
    policy = page.of("meta", "content")[0]
    assert policy.startswith("default-src 'none'; img-src data:; ") and allowed in policy and "unsafe" not in policy


def test_the_data_are_the_same_whatever_is_in_them() -> None:
    html = made(HOSTILE)
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert block and "<" not in block[1]
    told = json.loads(block[1])
    assert [c["save"] for c in told["columns"]] == [None, "epoch 1", "epoch 2", "epoch 3", "epoch 4"]
    cell = told["cells"]["3.0.2"]
    assert ["prompt", f"4nna, scene 0{HOSTILE}"] in cell["facts"] and cell["said"].endswith("counted as a copy")
    assert told["cells"]["1.0.2"]["command"] == FULL + HOSTILE and told["cells"]["1.0.2"]["file"] == ""
    assert told["cells"]["0.0.1"]["near"] == 0  # 0001.png is the first of the set


ELSEWHERE = (
    "",
    "http://example.org/x.png",
    "javascript:alert(1)",
    "data:text/html;base64,PHNjcmlwdD4=",
    'data:image/png;base64,AAAA" onerror="x',
)


def test_only_pictures_within_the_page_are_shown() -> None:
    assert [picture(url) for url in ELSEWHERE] == [""] * 5
    page = Page(render(report(url=ELSEWHERE[1])))
    assert all(value.startswith("data:image/svg+xml;") for value in page.of("img", "src") if value)
    assert page.text.count("not drawn") == 5 * 6 and "0001.png" in page.text


def test_it_says_what_was_chosen_and_how_to_get_another() -> None:
    text = Page(made()).text
    assert "<lora:anna:1> 4nna" in text and "lora pick anna anna-000002" in text and "The best." in text
    assert "the best of saves that do not pass" not in text and "--more" not in text
    failed = Page(render(report(passed=False))).text
    assert "epoch 3, the best of saves that do not pass" in failed and "lora train anna --more 3" in failed


def test_scores_over_different_cells_say_so() -> None:
    text = Page(made()).text
    assert "over 6 cells" in text and "over 3 cells" in text and "compares two saves over the cells" in text
    even = scores(bases=("pony",), strengths=(1.0,), prompts=1, seeds=2)
    for cell in even["columns"][1]["cells"]:
        cell["file"] = "cells/01.png"
    assert "over 2 cells" not in Page(render(Report("x", "x", even))).text


def test_a_comparison_without_a_choice_is_a_page_too() -> None:
    page = Page(render(Report("x", "x", scores(bases=("pony",), saves=1, strengths=(1.0,)))))
    assert "lora pick x" in page.text and "picture" not in page.tags  # one save is no curve
    assert "lora pick anna" in Page(render(replace(report(), verdict={}))).text  # without verdict.json


def test_it_is_the_same_every_time() -> None:
    assert render(report()) == made()


def test_what_is_read() -> None:
    assert [number(v) for v in (None, math.nan, math.inf, 0.12345)] == ["–", "–", "–", "0.123"]
    assert [duration(s) for s in (0.24, 42, 250, 7500)] == ["0.2 s", "42 s", "4 min 10 s", "2 h 05 min"]


def test_charts_are_drawn_for_every_page_without_dates_scripts_or_addresses() -> None:
    chart = loss_curve(
        [(i, math.nan if i == 5 else 0.2 + 0.1 / i) for i in range(1, 1001)], [Mark(300, "$epoch 3$", True)]
    )
    assert [media.count("max-width") + 2 * media.count("dark") for media, _ in chart] == [3, 1, 2, 0]
    drawn = [base64.b64decode(address.partition(",")[2]).decode() for _, address in chart]
    assert all("$epoch 3$" in svg and "script" not in svg and "<dc:date>" not in svg for svg in drawn)
    assert all(re.findall(r'href="(?!#)', svg) == [] for svg in drawn)
    assert len(set(drawn)) == 4


@pytest.mark.parametrize("losses", [[], [(1, 0.5)], [(1, math.nan), (2, math.inf)]])
def test_too_little_to_draw_is_no_chart(losses: list[tuple[int, float]]) -> None:
    assert loss_curve(losses, []) == []


def test_smoothing_and_thinning_keep_the_level() -> None:
    assert smoothed([0.3] * 50) == pytest.approx([0.3] * 50)
    assert len(thinned([(i, 2.0) for i in range(1000)])) <= 240
    assert thinned([(i, 2.0) for i in range(1000)])[0] == (2, 2.0)
    assert thinned([(1, 0.5), (2, 0.7)]) == [(1, 0.5), (2, 0.7)]
