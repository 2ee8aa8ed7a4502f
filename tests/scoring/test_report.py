"""The report stands alone, and nothing that a person's files bring gets out of its place."""

from __future__ import annotations

import base64
import io
import itertools
import math
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from PIL import Image

from lorafactory.scoring.report import (
    Mark,
    Noticed,
    Report,
    Row,
    Setting,
    Shown,
    bounds,
    chart,
    number,
    picture,
    render,
    smoothed,
    thinned,
)

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "</style></table></main>&amp;<!--",
    "\u202egnp.exe \u0000 日本語 ü 🙂",
)
VOID = {"meta", "img", "polyline", "link", "br"}


def data_url(colour: str = "red") -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def report(text: str = "plain", url: str | None = None) -> Report:
    url = data_url() if url is None else url
    return Report(
        name=text,
        trigger=text,
        file=f"{text}.safetensors",
        pick=text,
        passed=True,
        reason=text,
        kind=text,
        another=text,
        preview=url,
        grid=url,
        scores=[Row("baseline", 0.4, 0.01), Row(text, 0.7, 0.01, 0.75, 0.3, 0.4, 0.0, 1.2, 0.01, text, chosen=True)],
        ceiling=0.8,
        losses=[(i, 1 / i) for i in range(1, 500)],
        marks=[Mark(100, text), Mark(200, text, chosen=True)],
        pictures=[Shown(text, url, text, text), Shown("0002.png", url)],
        noticed=[Noticed(text, url, text, text), Noticed("x", "", "set aside", "truncated")],
        settings=[Setting(text, text, text, text), Setting("train", "epochs", "6")],
        facts=[(text, text)],
        remarks=[text],
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


PLAIN = Page(render(report()))


@pytest.mark.parametrize("text", HOSTILE)
def test_what_files_bring_stays_text(text: str) -> None:
    page = Page(render(report(text)))
    assert page.tags == PLAIN.tags
    assert [(tag, name) for tag, name, _ in page.attributes] == [(tag, name) for tag, name, _ in PLAIN.attributes]
    assert page.text.count(text) >= 15


@pytest.mark.parametrize("text", ["plain", *HOSTILE])
def test_it_needs_and_loads_nothing(text: str) -> None:
    html = render(report(text))
    page = Page(html)
    assert "http:" not in html
    assert "https:" not in html
    assert "url(" not in html
    assert "@import" not in html
    assert not {"script", "link", "iframe", "object", "embed", "base", "form", "a"} & set(page.tags)
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name in {"href", "srcset"}]
    assert all(value.startswith("data:image/") for _, name, value in page.attributes if name == "src")
    assert page.tags.count("style") == 1
    policy = next(value for tag, name, value in page.attributes if (tag, name) == ("meta", "content"))
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://example.org/x.png",
        "javascript:alert(1)",
        "data:text/html;base64,PHNjcmlwdD4=",
        "data:image/svg+xml;base64,PHN2Zz4=",
        'data:image/png;base64,AAAA" onerror="x',
    ],
)
def test_only_pictures_within_the_page_are_shown(url: str) -> None:
    assert picture(url) == ""
    page = Page(render(report(url=url)))
    assert "img" not in page.tags
    assert "0002.png" in page.text


def test_it_says_what_was_chosen_and_how_to_get_another() -> None:
    told = replace(
        report(),
        name="anna",
        file="anna.safetensors",
        trigger="4nna",
        pick="epoch 4",
        weight=0.8,
        another="lora pick anna --epoch N",
    )
    text = Page(render(told)).text
    assert "<lora:anna:0.8> 4nna" in text
    assert "lora pick anna --epoch N" in text
    assert "the best of saves that do not pass" not in text
    assert "epoch 4, the best of saves that do not pass" in Page(render(replace(told, passed=False))).text
    assert "epoch 4, chosen by hand" in Page(render(replace(told, by_hand=True))).text


def test_a_report_of_almost_nothing_is_a_page() -> None:
    page = Page(render(Report("x", "x", "x.safetensors", "epoch 1", passed=False, reason="why")))
    assert "section" not in page.tags


def test_it_is_the_same_every_time() -> None:
    assert render(report()) == render(report())


def test_unknown_numbers_are_a_dash() -> None:
    assert [number(v) for v in (None, math.nan, math.inf, 0.12345)] == ["–", "–", "–", "0.123"]


def test_the_chart_stays_in_its_frame_and_knows_its_saves() -> None:
    losses = [(i, 5.0 if i == 77 else math.nan if i == 5 else 0.2 + 0.1 / i) for i in range(1, 1001)]
    marks = [Mark(i, f"epoch {i // 100}", chosen=i == 300) for i in range(100, 1001, 100)]
    found = chart(losses, [*marks, Mark(9999, "elsewhere")])
    assert found is not None
    points = [tuple(map(float, point.split(","))) for point in found.raw.split()]
    assert len(points) <= 240
    assert all(0 <= x <= 100 and 0 <= y <= 100 for x, y in points)
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [t.label for t in found.x] == [f"epoch {i}" for i in range(1, 11)]
    shown = [t for t in found.x if t.shown]
    assert [t.label for t in shown if t.chosen] == ["epoch 3"]
    assert all(b.at - a.at >= 18 for a, b in itertools.pairwise(shown))
    assert float(found.y[0].label) < 0.25 < float(found.y[2].label) < 0.9  # one outlier does not flatten it


@pytest.mark.parametrize("losses", [[], [(1, 0.5)], [(1, math.nan), (2, math.inf)]])
def test_too_little_to_draw_is_no_chart(losses: list[tuple[int, float]]) -> None:
    assert chart(losses, []) is None


def test_smoothing_and_thinning_keep_the_level() -> None:
    assert smoothed([0.3] * 50) == pytest.approx([0.3] * 50)
    assert thinned([(i, 2.0) for i in range(1000)])[0] == (2, 2.0)
    assert thinned([(1, 0.5), (2, 0.7)]) == [(1, 0.5), (2, 0.7)]
    low, high = bounds([0.5, 0.5], [0.5, 0.5])
    assert low < 0.5 < high
