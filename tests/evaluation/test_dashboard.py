"""TensorBoard's own dashboard on what a run and its evaluation wrote, in Chromium: no chart is empty, no picture is missing or a speck."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import free_port, wait_for
from small_runs import SPLIT, SmallRuns

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
CHROMIUM = shutil.which("chromium")
ALL = pytest.mark.full
CASES = [
    pytest.param("digits", "(loss|confusion)", (1280,)),
    *(pytest.param(exp, ".*", (1280, 400), marks=ALL) for exp in ("digits", "detection", "shakespeare", "regression")),
]
"""Which cards, and how wide the window is: each card takes Chromium a second and more."""


@contextlib.contextmanager
def dashboard(logs: Path) -> Iterator[str]:
    """Its address, once it answers; its process has ended when the block is left."""
    port = free_port()
    words = ["--logdir", str(logs), "--host", "127.0.0.1", "--port", str(port), "--load_fast", "false", "--reload_interval", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=logs
    )
    address = f"http://127.0.0.1:{port}"

    def runs() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/data/runs", timeout=5) as answer:
            return answer.read().strip() != b"[]"
        return False

    try:
        wait_for(runs, 60, "TensorBoard's answer")
        yield address
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no chromium")
    with sync_api.sync_playwright() as playwright:
        # Without WebGL its charts are SVG, of which a line can be asked where it is.
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-3d-apis"])
        yield opened
        opened.close()


LOOK = """() => [...document.querySelectorAll('card-view')].filter(card => card.querySelector('[title]')).map(card => {
    const found = {title: card.querySelector('tb-truncated-path').title, run: '', kind: 'scalar', marks: 0, width: 0, ink: 1};
    const ink = [...card.querySelectorAll('.series-view > svg > :not(.triangle)')].map(mark => mark.getBoundingClientRect());
    found.marks = ink.filter(box => box.width + box.height > 2).length;
    if (!card.querySelector('image-card')) return found;
    const image = card.querySelector('img');
    Object.assign(found, {kind: 'image', width: image ? image.naturalWidth : 0, run: card.querySelector('card-run-name-component')?.title});
    if (!found.width) return found;
    const canvas = document.createElement('canvas'), side = 200;
    canvas.width = canvas.height = side;
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0, side, side);
    const pixels = context.getImageData(0, 0, side, side).data;
    const columns = [...Array(side).keys()].filter(x => [...Array(side).keys()].some(y => pixels[4 * (y * side + x)] < 200));
    found.ink = columns.length ? (columns.at(-1) - columns[0]) / side : 0;
    return found;
})"""
"""Of each card of the page that is shown: what is drawn in it, and over which share of its width."""
DONE = """() => {
    const cards = [...document.querySelectorAll('card-view')];
    return cards.length && cards.every(card => card.querySelector('[title]')) && !document.querySelector('card-view mat-spinner')
        && [...document.images].every(image => image.complete);
}"""


def faults(cards: list[dict[str, Any]]) -> list[str]:
    """What nobody should see."""
    found = [f"{card['title']}: empty" for card in cards if card["kind"] == "scalar" and not card["marks"]]
    found += [f"{card['title']}: no picture" for card in cards if card["kind"] == "image" and not card["width"]]
    return found + [f"{card['title']}: a speck" for card in cards if card["kind"] == "image" and card["width"] and card["ink"] < 0.5]


def looked_at(browser: Any, address: str, width: int, tags: str) -> list[dict[str, Any]]:
    """The cards of `tags` in the dashboard that opens first, leaf by leaf."""
    page = browser.new_page(viewport={"width": width, "height": 9000})  # a card is drawn when it comes into sight
    page.goto(f"{address}/?tagFilter={tags}#timeseries")
    seen: list[dict[str, Any]] = []
    try:
        while True:
            with contextlib.suppress(Exception):  # what never comes is told by `faults`
                page.wait_for_function(DONE, timeout=20_000)
            page.wait_for_timeout(1000)  # lines come in
            seen += page.evaluate(LOOK)
            following = page.locator("button.next:visible").first
            if not following.count() or following.is_disabled():
                return seen
            following.click()
    finally:
        page.close()


@pytest.mark.parametrize(("exp", "cards_of", "widths"), CASES)
def test_no_chart_of_the_dashboard_is_empty(browser: Any, small_runs: SmallRuns, exp: str, cards_of: str, widths: tuple[int, ...]) -> None:
    run, split = small_runs.evaluated(exp), SPLIT[exp]
    pictures = {f"{split}/{path.stem}" for path in (run / "evaluation" / split).glob("*.png") if re.fullmatch(cards_of, path.stem)}
    with dashboard(run / "tb") as address:
        for width in widths:
            cards = looked_at(browser, address, width, f"^({split}|train)/{cards_of}$")
            print(f"{exp} at {width}: {[card['title'] for card in cards]}")
            assert faults(cards) == []
            assert {"train/loss", f"{split}/loss"} | pictures <= {card["title"] for card in cards}


def test_an_empty_board_would_be_seen(browser: Any, tmp_path: Path) -> None:
    """A chart without a number, a picture that is white but for a corner, and one whose bytes are none."""
    from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]  # made at run time
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_scalar("test/good", 1.0, 1)
        corner = torch.ones(3, 80, 80)
        corner[:, :8, :8] = 0
        writer.add_image("test/corner", corner, 1)
        broken = Summary.Image(height=8, width=8, colorspace=3, encoded_image_string=b"no picture")
        assert writer.file_writer is not None
        writer.file_writer.add_summary(Summary(value=[Summary.Value(tag="test/none", image=broken)]), 1)
        writer.add_scalar("test/nothing", float("nan"), 1)
    with dashboard(tmp_path) as address:
        cards = looked_at(browser, address, 1280, "^test/")
    print(cards)
    assert faults(cards) == ["test/nothing: empty", "test/none: no picture", "test/corner: a speck"]
