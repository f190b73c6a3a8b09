"""`serve EXPORT`: answers, refusals, limits, a crowd, clients that mean harm, and the page in a browser."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from helpers import REPO, Answer, refused
from PIL import Image
from processes import needs_root, small_disk
from served import Server, serving

Command = Callable[..., Answer]
pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")
from starlette.requests import Request  # noqa: E402 - behind the skip

from launcher.serve.app import Limits, Service  # noqa: E402 - behind the skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]

CROWD, AT_ONCE, MALFORMED = 2_000, 50, 40
"""Of the quick test; with --full ten thousand and two hundred."""


@pytest.fixture(scope="module")
def server(digits: Path) -> Iterator[Server]:
    with serving(digits, "seconds=3", "max_mb=1") as found:
        yield found


def picture(number: int) -> bytes:
    from sklearn.datasets import load_digits  # pyright: ignore[reportMissingImports]

    found: Any = load_digits()
    file = io.BytesIO()
    Image.fromarray(np.rint(found.images[number] * 255 / 16).astype(np.uint8)).save(file, "png")
    return file.getvalue()


def test_a_picture_gets_what_predict_says_of_it(tmp_path: Path, digits: Path, server: Server, command: Command) -> None:
    raw = picture(3)
    (tmp_path / "three.png").write_bytes(raw)
    wanted = json.loads(command("predict", str(digits), str(tmp_path / "three.png"), "top=5").out)
    status, answer = server.ask(raw)
    assert status == 200
    assert {**answer, "input": wanted["input"]} == wanted
    assert answer["class"] == "3"


def test_health_and_metrics(server: Server) -> None:
    assert server.ask(None, "/health")[1]["status"] == "ok"
    before = _counted(server)
    assert server.ask(picture(0))[0] == 200
    assert server.ask(b"no picture")[0] == 422
    after = _counted(server)
    assert after["200"] - before["200"] == 1
    assert after["422"] - before["422"] == 1
    text = server.ask(None, "/metrics")[1]
    assert 'launcher_request_seconds_bucket{le="+Inf"}' in text
    assert all(line.startswith("#") or len(line.split()) == 2 for line in text.splitlines())


def _counted(server: Server) -> Counter[str]:
    lines = server.ask(None, "/metrics")[1].splitlines()
    return Counter({line.split('"')[1]: int(line.split()[1]) for line in lines if line.startswith("launcher_requests_total{")})


@pytest.mark.parametrize(
    ("body", "kind", "status", "said"),
    [
        (b"", "image/png", 400, "there is no body"),
        (b"hello", "image/png", 422, "it is no picture that can be read"),
        (b"{", "application/json", 400, "the body is no JSON object"),
        (b"[]", "application/json", 400, "the body is no JSON object"),
        (b"{}", "application/json", 422, "this model takes a picture, as its bytes: curl --data-binary @picture.png http://"),
        (b'{"rows": [[1, 2]]}', "application/json", 422, "this model takes a picture"),
        (b'{"text": "hello"}', "application/json", 422, "this model takes a picture"),
        (b"--x", "multipart/form-data; boundary=x", 422, "it is a form (curl -F), which is not read here; this model takes a picture"),
        (b"PNG", "application/x-www-form-urlencoded", 422, "JPEG, PNG and such); this model takes a picture, as its bytes: curl --data-"),
        (b"[" * 100_000, "application/json", 400, "the body is no JSON object"),
        (bytes(2 << 20), "image/png", 413, "are more than 1,048,576"),
    ],
    ids=["empty", "words", "half", "list", "nothing", "row", "text", "form", "cut", "deep", "large"],
)
def test_what_is_no_request_is_said(server: Server, body: bytes, kind: str, status: int, said: str) -> None:
    found, answer = server.ask(body, kind=kind)
    assert found == status, answer
    assert said in answer["error"]


def test_a_page_that_was_led_here_is_refused(server: Server) -> None:
    assert server.ask(picture(0), host="evil.example")[0] == 400
    assert server.ask(picture(0), host="localhost")[0] == 200


def test_a_crowd_is_answered_and_takes_no_memory(server: Server, full: bool) -> None:
    """Malformed ones among them, clients that hang at every stage, and a body of a gigabyte."""
    count, bad = (10_000, 200) if full else (CROWD, MALFORMED)
    good = [picture(number) for number in range(20)]
    wanted = [server.ask(each)[1]["class"] for each in good]
    process = psutil.Process(server.process.pid)

    def one(number: int) -> str:
        if number % (count // bad) == 0:
            return str(server.ask([b"junk", b"", b"{", good[0][:40]][number // (count // bad) % 4])[0])
        status, answer = server.ask(good[number % 20])
        return "right" if status == 200 and answer["class"] == wanted[number % 20] else f"{status} {answer}"

    hanging = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(5)]
    hanging[1].sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\n")
    hanging[2].sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        [*pool.map(one, range(1, count // 4))]  # what threads and caches take
        began, before = time.monotonic(), process.memory_info().rss
        seen = Counter(pool.map(one, range(count)))
        taken, after = time.monotonic() - began, process.memory_info().rss
    batches = server.ask(None, "/metrics")[1]
    inputs, made = (float(batches.split(f"\n{name} ")[1].split()[0]) for name in ("launcher_inputs_total", "launcher_batches_total"))
    print(f"{count:,} requests in {taken:.1f} s, {seen}; {inputs / made:.1f} inputs a batch; memory {before >> 20} -> {after >> 20} MiB")
    assert seen["right"] == count - bad
    assert set(seen) <= {"right", "400", "422"}
    assert after - before < 40 << 20
    for each in hanging:
        each.settimeout(10)
        assert b"HTTP/1.1 200" not in each.recv(4096), "each is let go of, with a word or without"
        each.close()
    assert _gigabyte(server.port) == 413
    assert process.memory_info().rss - after < 40 << 20
    assert server.ask(good[0])[0] == 200


def test_the_head_of_a_later_request_is_not_waited_for_without_end(server: Server) -> None:
    """A connection that was good once may hold its place no longer than a new one."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        for _ in range(2):
            client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}"):
                answer += client.recv(4096)
            assert answer.startswith(b"HTTP/1.1 200")
            time.sleep(2)  # of the three seconds, and no request's patience is that of the one before
        client.sendall(b"POST /pre")
        began = time.monotonic()
        assert client.recv(4096) == b""
        assert 2 < time.monotonic() - began < 8


def test_a_text_is_not_gone_on_with_for_who_has_left() -> None:
    """Else its thread is taken from those who come, and the server does not end."""
    drawn: list[int] = []

    def text(_: str) -> Iterator[str]:
        for number in range(3_000):
            drawn.append(number)
            yield "x"
            time.sleep(0.01)

    predictor: Any = SimpleNamespace(text=text, preprocessing={"kind": "text"})
    service = Service([predictor], Limits(seconds=0.3))

    async def ask() -> int:
        answer = await service._answered(_request(b'{"text": "hello"}'))  # pyright: ignore[reportPrivateUsage]
        return answer.status_code

    assert asyncio.run(ask()) == 504
    time.sleep(0.2)
    count = len(drawn)
    time.sleep(0.2)
    assert 0 < len(drawn) == count < 100


def _request(body: bytes) -> Request:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request({"type": "http", "method": "POST", "headers": [(b"content-type", b"application/json")]}, receive)


def _gigabyte(port: int) -> int:
    """The status that comes while a body without an end is being sent."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        piece = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
        for _ in range(1024):
            try:
                client.sendall(piece)
            except OSError:
                break
            client.settimeout(0.001)
            try:
                return int(client.recv(4096).split()[1])
            except TimeoutError:
                client.settimeout(30)
            except OSError:
                break
        return 413  # it hung up on us


def test_it_ends_when_it_is_told_to(digits: Path) -> None:
    for how in (signal.SIGINT, signal.SIGTERM):
        with serving(digits) as found:
            found.process.send_signal(how)
            assert found.process.wait(20) in (0, 130, -signal.SIGTERM, -signal.SIGINT)


def test_what_cannot_be_served_is_one_line(tmp_path: Path, digits: Path, server: Server, command: Command) -> None:
    refused(command("serve"), 2, "serve takes one export")
    refused(command("serve", str(digits), "prot=1"), 2, "serve prot=: there is no such option; did you mean port=?")
    refused(command("serve", str(digits), "port=99999"), 2, "port=99999: type a whole number from 0 to 65535")
    refused(command("serve", str(digits), "tokens=9"), 2, "tokens=9: that is for models that predict tokens, and this one predicts classes")
    refused(command("serve", str(digits), "seconds=soon"), 2, "seconds=soon: type a number from 0.1 to 3600")
    refused(command("serve", str(digits), f"port={server.port}"), 2, "nobody can listen there")
    refused(command("serve", str(tmp_path)), 3, "is no export")


@needs_root
def test_a_full_disk_is_nothing_to_a_server(tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes no file: with no byte left where temporary files, caches and its export are, it answers as before."""
    with small_disk(tmp_path / "disk", "size=16m") as disk:
        shutil.copytree(digits, disk / "export")
        with (disk / "full").open("wb") as file:
            space = os.statvfs(disk)
            file.write(bytes(space.f_bavail * space.f_frsize))
        before = {path: path.stat().st_mtime_ns for path in disk.rglob("*")}
        for name in ("TMPDIR", "HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "LAUNCHER_CACHE"):
            monkeypatch.setenv(name, str(disk))
        with pytest.raises(OSError, match="No space left"):
            (disk / "more").write_bytes(bytes(1 << 16))
        (disk / "more").unlink()
        with serving(disk / "export") as found:
            large = io.BytesIO()
            Image.effect_noise((1200, 1200), 90).save(large, "png")
            assert len(large.getvalue()) > 1 << 20, "more than a server might keep in memory"
            assert [found.ask(raw)[0] for raw in (picture(3), large.getvalue(), b"no picture")] == [200, 200, 422]
        assert {path: path.stat().st_mtime_ns for path in disk.rglob("*")} == before


@needs_root
def test_an_address_that_cannot_be_written_is_one_line(tmp_path: Path, digits: Path) -> None:
    """Where its output goes to a file on a disk that is full, nobody would learn where it listens."""
    with small_disk(tmp_path / "disk", "size=8k") as disk:
        (disk / "full").write_bytes(bytes(8 << 10))
        with (disk / "log").open("w") as log:
            words = [sys.executable, "-m", "launcher", "serve", str(digits), "port=0"]
            done = subprocess.run(words, cwd=REPO, stdout=log, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        refused(Answer(done.returncode, (disk / "log").read_text(), done.stderr), 3, "No space left on device")


def test_an_export_that_cannot_be_opened_is_one_line(tmp_path: Path, digits: Path, command: Command) -> None:
    for number, (told, said) in enumerate(
        [({"version": 7}, "an export of version 7, and this launcher reads version 1"), ({"sealed": {"key": "ab" * 8}}, "needs a key")]
    ):
        copy = tmp_path / str(number)
        shutil.copytree(digits, copy)
        (copy / "export.json").write_text(json.dumps({**json.loads((copy / "export.json").read_text()), **told}))
        refused(command("serve", str(copy)), 3, said)
    copy = tmp_path / "nameless"
    shutil.copytree(digits, copy)
    (copy / "labels.json").unlink()
    refused(command("serve", str(copy)), 3, "labels.json is not there")


@pytest.mark.parametrize("width", [1280, 400])
def test_a_person_drops_a_picture_and_sees_the_answer(tmp_path: Path, server: Server, width: int) -> None:
    api: Any = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium here")
    (tmp_path / "three.png").write_bytes(picture(3))
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 800})
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.set_input_files("#file", str(tmp_path / "three.png"))
        page.locator("#answer", has_text="%").wait_for()  # no eval: the page forbids it
        assert page.inner_text("#answer").startswith("3 (")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate("document.getElementById('shown').naturalWidth") == 8
        assert wrong == []
        browser.close()
