"""`serve EXPORT` of each kind of model: what a request of another kind is told to send, and what a person sees on the page."""

from __future__ import annotations

import json
import shlex
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import made_exports
import numpy as np
import pytest
from PIL import Image

from launcher.predict.predictor import Asked, Predictor

uvicorn = pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("starlette", reason="the extra serve is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

LONG = "a_run_of_which_the_name_is_longer_than_a_screen_of_four_hundred_pixels"
KINDS = (*made_exports.KINDS, "table", "nothing")
"""`nothing`: a detector that is asked for scores of 1."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Kind -> host and port, each a server in a thread of this process."""
    from launcher.serve.app import Limits, application

    place = tmp_path_factory.mktemp("made")
    running: list[tuple[Any, threading.Thread]] = []
    found: dict[str, str] = {}
    for kind in KINDS:
        predicts = {"table": "numbers", "nothing": "boxes"}.get(kind, kind)
        export = made_exports.write(place / kind, predicts, made_exports.TABLE if kind == "table" else None, LONG)
        asked = Asked(unsure={"boxes": 0.0, "nothing": 1.0, "classes": 1.0}.get(kind, 0.5), top=5, tokens=20)
        app = application([Predictor(export, None, asked)], Limits(), ["127.0.0.1"])
        listening = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        running.append((server, thread))
        found[kind] = f"127.0.0.1:{listening.getsockname()[1]}"
    while not all(server.started for server, _ in running):
        time.sleep(0.01)
    yield found
    for server, _ in running:
        server.should_exit = True
    for _, thread in running:
        thread.join(20)
        assert not thread.is_alive()


def ask(at: str, body: bytes, kind: str) -> tuple[int, Any]:
    connection = HTTPConnection(at, timeout=30)
    connection.request("POST", "/predict", body, {"Content-Type": kind})
    reply = connection.getresponse()
    found = reply.status, json.loads(reply.read())
    connection.close()
    return found


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("boxes", "nothing")])
def test_what_another_model_takes_is_told_what_to_send_and_that_is_answered(served: dict[str, str], kind: str) -> None:
    bodies = {"application/x-www-form-urlencoded": b"To be", "multipart/form-data; boundary=x": b"--x", "image/png": b"\x89PNG"}
    wrong = [*bodies.items(), ("application/json", b"{}"), ("application/json", b'{"text": 3, "rows": null}')]
    for form, body in wrong:
        status, told = ask(served[kind], body, form)
        assert status == 422, told
        assert told["error"].startswith("this model takes "), told
        assert "\n" not in told["error"]
    status, told = ask(served[kind], b"To be", "application/json")
    assert status == 400
    words = shlex.split(told["error"].partition(": curl ")[2])
    assert (words[:3], words[4]) == (["-H", "Content-Type: application/json", "-d"], f"http://{served[kind]}/predict")
    status, told = ask(served[kind], words[3].encode(), "application/json")
    assert status == 200, "the line itself is answered"
    assert told.get("answers") or told["prediction"]


def test_a_detector_is_told_its_line_for_a_form(served: dict[str, str]) -> None:
    status, told = ask(served["boxes"], b"--x", "multipart/form-data; boundary=x")
    line = f"this model takes a picture, as its bytes: curl --data-binary @picture.png http://{served['boxes']}/predict"
    assert (status, told["error"]) == (422, f"it is a form (curl -F), which is not read here; {line}")


# ---------------------------------------------------------------- in Chromium

LOOK = """() => ({
    wide: document.documentElement.scrollWidth,
    images: [...document.images].filter(each => each.offsetParent !== null).map(each => each.naturalWidth),
    answer: document.getElementById('answer').innerText,
    list: [...document.querySelectorAll('#list li')].map(each => each.innerText.replace(/\\s+/g, ' ')),
    bars: [...document.querySelectorAll('#list .bar')].map(each => [each.offsetWidth, getComputedStyle(each).backgroundColor]),
    boxes: [...document.querySelectorAll('#seen rect')].map(each => each.getAttribute('stroke')),
    folded: !document.querySelector('details').open,
    whole: document.getElementById('whole').textContent,
})"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api: Any = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium here")
    with api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


def seen(browser: Any, at: str, given: Any, width: int) -> dict[str, Any]:
    """`given` a picture, a text, or nothing but the button."""
    page = browser.new_page(viewport={"width": width, "height": 800})
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(f"http://{at}/")
    if isinstance(given, Path):
        page.set_input_files("#file", str(given))
    else:
        if given:
            page.fill("#typed", given)
        page.click("#send")
    page.locator("#whole:not(:empty)").wait_for(state="attached")
    found: dict[str, Any] = page.evaluate(LOOK)
    page.close()
    assert wrong == []
    assert found["wide"] <= width, "it scrolls sideways"
    assert found["folded"]
    assert 0 not in found["images"], "a picture is broken"
    return {**found, "told": json.loads(found["whole"])}


@pytest.mark.parametrize("width", [1280, 400])
def test_a_person_sees_what_each_kind_of_model_found(served: dict[str, str], browser: Any, tmp_path: Path, width: int) -> None:
    picture = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)).save(picture)

    found = seen(browser, served["tokens"], "To <b>be", width)
    assert found["answer"] == "To <b>be" + found["told"]["prediction"]
    assert found["images"] == []

    found = seen(browser, served["classes"], "[1, 2, 3, 4]", width)
    first = found["told"]["answers"][0]
    assert first["prediction"] == "unsure", "the model of this test is not sure of anything"
    assert found["answer"] == f"unsure: perhaps {first['class']} ({100 * first['confidence']:.1f} %)"
    assert found["list"] == [f"{name} {100 * share:.1f} %" for name, share in first["top"]]
    assert found["bars"][0][0] > found["bars"][1][0]

    found = seen(browser, served["boxes"], picture, width)
    assert found["answer"] == f"{len(found['told']['prediction'])} found"
    assert len(found["boxes"]) == len(found["told"]["prediction"]) > 0
    assert len(found["list"]) == len({each["class"] for each in found["told"]["prediction"]}) == len({*found["boxes"]})
    assert found["images"] == [64]

    found = seen(browser, served["nothing"], picture, width)
    assert (found["answer"], found["boxes"], found["list"]) == ("nothing found with a score of 1 or more", [], [])

    found = seen(browser, served["table"], None, width)
    assert found["answer"] == "   ".join(f"{value:.6g}" for value in found["told"]["answers"][0]["prediction"])
    found = seen(browser, served["tensors"], "[1, 2, 3, 4]", width)
    assert json.loads(found["answer"]) == found["told"]["answers"][0]["prediction"]


def test_a_table_has_a_field_for_each_column_and_what_is_wrong_is_said(served: dict[str, str], browser: Any) -> None:
    page = browser.new_page(viewport={"width": 400, "height": 800})
    page.goto(f"http://{served['table']}/")
    assert page.locator("#fields label").all_inner_texts()[:2] == ["age", "a 'b' <i>"]
    assert page.locator("#fields option").all_inner_texts() == ["blue", "<red>"]
    assert page.input_value("input[name=age]") == "40"
    page.fill("input[name=age]", "")
    page.click("#send")
    page.locator("#answer.wrong", has_text="it has no value in column 'age'").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    page.fill("input[name=age]", "33")
    page.select_option("select", "<red>")
    page.click("#send")
    page.locator("#answer:not(.wrong)").filter(has_not_text="…").wait_for()
    page.close()
