"""The page of an evaluation: names from data stay text, it asks for nothing; in Chromium, where there is one, no chart is empty."""

from __future__ import annotations

import functools
import re
import shutil
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from launcher.answers.finder import Finder
from launcher.evaluation import boxes, classes, numbers, pictures, pngs, svg, tokens
from launcher.evaluation.findings import Chart, Findings, Series, Texts
from launcher.evaluation.page import page
from launcher.evaluation.taken import Rows

HOSTILE = ("<script>alert(1)</script>", "a & b", '"quoted" onload=x', "</title><img src=x>", "x" * 60)
CHROMIUM = shutil.which("chromium")


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@functools.cache
def of_classes(count: int = 5, names: tuple[str, ...] = HOSTILE) -> Findings:
    taker = classes.Taker()
    images, labels = drawn(200, 3, 8, 8), (drawn(200, seed=1) * count).long()
    scores = 3 * drawn(200, count, seed=2) + 2 * torch.nn.functional.one_hot(labels, count)
    taker.add(scores, (images, labels), 0)
    return classes.findings(taker.rows(), {"accuracy": float((scores.argmax(1) == labels).float().mean()), "samples": 200}, names)


@functools.cache
def of_numbers() -> Findings:
    taker = numbers.Taker(lambda found, wanted: (found - wanted).square().mean(1))
    wanted = drawn(150, 2)
    taker.add(wanted + 0.1 * drawn(150, 2, seed=1), (None, wanted), 0)
    return numbers.findings(taker.rows(), {"mae": 0.05, "rmse": 0.06, "samples": 150}, ())


@functools.cache
def of_tokens() -> Findings:
    taker = tokens.Taker()
    given = (drawn(40, 16) * 90 + 33).long()
    taker.add(drawn(40, 16, 128, seed=1), (given, given.roll(-1, 1)), 0)
    result = tokens.findings(taker.rows(), {"loss": 4.9, "perplexity": 134.0, "samples": 40}, ())
    result.parts.append(Texts("text", [("", "what it goes on with <b>")]))
    return result


@functools.cache
def of_boxes() -> Findings:
    taker = boxes.Taker(Finder(0.05, 0.6, 10))
    targets = {"boxes": torch.tensor([[[4.0, 4.0, 40.0, 40.0]]]).repeat(6, 1, 1), "labels": torch.tensor([[0], [1], [0], [1], [0], [1]])}
    targets["ignored"] = torch.zeros(6, 1, dtype=torch.bool)
    points = torch.tensor([[22.0, 22.0], [50.0, 50.0]])
    outputs = {"scores": 4 * drawn(6, 2, 2) - 1, "centres": torch.ones(6, 2), "points": points, "strides": torch.ones(2)}
    outputs["distances"] = torch.full((6, 2, 4), 18.0)
    taker.add(outputs, (drawn(6, 3, 64, 64), targets), 0)
    return boxes.findings(taker.rows(), {"map50": 0.5, "map": 0.4, "samples": 6}, HOSTILE)


KINDS = {"classes": of_classes, "numbers": of_numbers, "tokens": of_tokens, "boxes": of_boxes}


class Seen(HTMLParser):
    """Which elements there are, and what they would ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.asks: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.asks += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        self.asks += [name for name, _ in attrs if name.startswith("on")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_one_file_without_script_and_names_stay_text(kind: str) -> None:
    text = page("a & <b>", {"run": "<i>x</i>"}, KINDS[kind](), "not the real data")
    seen = Seen()
    seen.feed(text)
    assert not seen.names & {"script", "i", "b2", "iframe", "link", "object"}
    assert all(each.startswith("data:image/png;base64,") for each in seen.asks)
    assert "a &amp; &lt;b&gt;" in text
    assert not re.search(r"url\(|@import|https?://", text)


def test_a_chart_of_nothing_is_refused_and_not_drawn_empty() -> None:
    with pytest.raises(ValueError, match="has no value"):
        svg.chart(Chart("a", "a", "x", "y", [Series("s", [], [])]))
    with pytest.raises(ValueError, match="has no value"):
        svg.chart(Chart("a", "a", "x", "y", [Series("s", [1.0], [float("nan")])]))
    one = svg.chart(Chart("a", "a", "x", "y", [Series("s", [2.0], [2.0], "bars")]))
    assert float(re.findall(r'class="mark bar c0"[^>]* height="([0-9.]+)"', one)[0]) > 10


def test_bars_of_classes_have_their_names_and_colours_are_shown() -> None:
    chart = next(part for part in of_boxes().parts if isinstance(part, Chart))
    assert list(chart.names) == list(HOSTILE[:2])
    drawn_ = svg.chart(chart)
    assert len(re.findall(r'class="mark bar c0"', drawn_)) == 2
    assert "a &amp; b" in drawn_
    text = page("runs/a, test", {"data": "data.voc.VOC"}, of_boxes())
    assert re.findall(r'<li><span style="background:(#[0-9a-f]{6})"></span>([^<]*)</li>', text)[1] == ("#004aff", "a &amp; b")
    assert "data VOC<" in text


def test_rows_of_pictures_come_out_even() -> None:
    assert [pictures.even(count) for count in (1, 7, 8, 9, 12, 16, 24)] == [1, 7, 8, 5, 6, 8, 8]


def test_a_hundred_classes_have_a_table_of_what_is_mixed_up_and_no_matrix() -> None:
    titles = [part.title for part in of_classes(100, ()).parts]
    assert "Confusion matrix" not in titles
    assert "Mixed up most" in titles


def test_without_matplotlib_a_line_says_so_once_and_the_pictures_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    whole = pngs.pngs(of_classes(), said.append)
    assert {"confusion.png", "reliability.png", "confidence.png", "worst_mistakes.png"} <= {*whole}
    assert said == []
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert {*pngs.pngs(of_classes(), said.append)} == {"worst_mistakes.png", "most_confident_mistakes.png"}
    assert said == [pngs.MISSING]


# ---------------------------------------------------------------- in Chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no chromium")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


LOOK = """() => ({
    wide: document.documentElement.scrollWidth - innerWidth,
    charts: [...document.querySelectorAll('svg')].map(svg => {
        const marks = [...svg.querySelectorAll('.mark')].map(mark => mark.getBoundingClientRect());
        const ink = marks.filter(box => box.width + box.height > 2);
        const all = svg.getBoundingClientRect();
        return {title: svg.querySelector('title').textContent, role: svg.getAttribute('role'), ink: ink.length, width: all.width,
            inside: ink.every(box => box.left >= all.left - 1 && box.right <= all.right + 1)};
    }),
    pictures: [...document.images].map(image => image.naturalWidth),
    texts: [...document.querySelectorAll('pre')].map(pre => pre.textContent.trim().length),
    rows: [...document.querySelectorAll('table')].map(table => table.rows.length),
    stubs: [...document.querySelectorAll('.gallery')].map(all => {
        const tops = [...all.children].map(each => each.getBoundingClientRect().top);
        return tops.filter(top => top === tops[0]).length - tops.filter(top => top === tops.at(-1)).length;
    }),
    swatches: [...document.querySelectorAll('.keys span')].map(each => each.getBoundingClientRect().width),
})"""


def faults(seen: dict[str, Any]) -> list[str]:
    """What nobody should see."""
    found = [f"{chart['title']}: empty" for chart in seen["charts"] if not chart["ink"]]
    found += [f"{chart['title']}: beyond its frame" for chart in seen["charts"] if not chart["inside"]]
    found += [f"{chart['title']}: {chart['width']} pixels" for chart in seen["charts"] if chart["width"] < 250]
    found += ["a picture is broken"] * (0 in seen["pictures"]) + ["a text is empty"] * (0 in seen["texts"])
    found += ["a row of pictures is a stub"] * any(seen["stubs"]) + ["a colour is not shown"] * any(each < 5 for each in seen["swatches"])
    found += ["a table has no row"] * any(rows < 2 for rows in seen["rows"])
    return found + ["it is wider than the screen"] * (seen["wide"] > 0)


def looked_at(browser: Any, path: Path, width: int, scheme: str = "light") -> dict[str, Any]:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    asked: list[str] = []
    page_ = context.new_page()
    page_.on("request", lambda request: asked.append(request.url))
    page_.goto(path.as_uri())
    seen: dict[str, Any] = page_.evaluate(LOOK)
    context.close()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    return seen


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("kind", KINDS)
def test_no_chart_is_empty_at_any_width(browser: Any, tmp_path: Path, kind: str, width: int) -> None:
    path = tmp_path / "report.html"
    path.write_text(page("runs/a, test", {"run": "toy/a"}, KINDS[kind]()), encoding="utf-8")
    seen = looked_at(browser, path, width, "dark" if width == 400 else "light")
    assert seen["charts"] or kind == "own"
    assert faults(seen) == []


def test_an_empty_chart_would_be_seen(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    text = page("runs/a, test", {}, of_classes())
    path.write_text(re.sub(r'<rect class="mark bar[^>]*>(<title>[^<]*</title>)?</rect>', "", text), encoding="utf-8")
    assert faults(looked_at(browser, path, 1280)) == ["How sure it is: empty"]
    path.write_text(text.replace("<body>", '<body><div style="width:1400px">.</div>'), encoding="utf-8")
    assert faults(looked_at(browser, path, 1280)) == ["it is wider than the screen"]


def test_rows_of_processes_are_joined_and_places_count_on() -> None:
    from launcher.evaluation.taken import fingerprint, joined

    def rows(first: int, count: int) -> Rows:
        digest = torch.arange(first, first + count, dtype=torch.uint8)[:, None].expand(-1, 16).contiguous()
        return {"digest": digest, "worst_place": torch.tensor([0, count - 1]), "loss": torch.ones(count)}

    whole = joined([rows(0, 3), rows(3, 4)])
    assert whole["worst_place"].tolist() == [0, 2, 3, 6]
    assert len(whole["loss"]) == 7
    assert fingerprint(whole) == fingerprint(joined([rows(0, 7)])) != fingerprint(rows(0, 6))
    assert np.all(whole["digest"].numpy()[:, 0] == np.arange(7))
