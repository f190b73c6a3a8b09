"""Downloads from a server on the loopback that speaks as much of the hub's protocol as the client asks for, and misbehaves on request.

In processes of their own, because the hub's client reads `HF_ENDPOINT` when it is imported.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import socket
import struct
import subprocess
import termios
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(60)

REVISION = "0123456789abcdef0123456789abcdef01234567"
BODIES = {"plain_text/train.parquet": bytes(range(256)) * 400, "plain_text/test.parquet": b"test" * 5000}
PINNED = {name: hashlib.sha256(body).hexdigest() for name, body in BODIES.items()}

DOWNLOAD = f"""
import sys
from pathlib import Path
from data.store import hub
try:
    print("at", hub.download("some/set", "{REVISION}", {PINNED!r}, Path(sys.argv[1])))
except (OSError, ValueError) as error:
    print(type(error).__name__, error)
"""


class Hub(ThreadingHTTPServer):
    """`bodies` are what it serves; `fault`: None, cut (the first answer stops half way), gone (cut, then 503), missing, broken (500)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.bodies, self.fault, self.pause = dict(BODIES), "", 0.0
        self.gets: Counter[str] = Counter()

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is part of the tests."""


class Answer(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        hub, get = self.server, self.command == "GET"
        name = self.path.removeprefix(f"/datasets/some/set/resolve/{REVISION}/")
        if hub.fault in ("missing", "broken") or name not in hub.bodies:
            return self._fail(404 if hub.fault != "broken" else 500)
        hub.gets[name] += get
        if get and hub.fault == "gone" and hub.gets[name] > 1:
            return self._fail(503)
        body, wanted = hub.bodies[name], re.match(r"bytes=(\d+)-$", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        for key, value in (("ETag", f'"{PINNED[name]}"'), ("X-Repo-Commit", REVISION), ("Content-Length", len(body) - start)):
            self.send_header(key, str(value))
        self.end_headers()
        if get:
            time.sleep(hub.pause)
            broken = hub.fault in ("cut", "gone") and hub.gets[name] == 1
            self.wfile.write(body[start : len(body) // 2 if broken else None])
            self.close_connection = broken
        return None

    def _fail(self, code: int) -> None:
        self.send_response(code)
        if code == 404:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


Fetch = Callable[..., tuple[str, str]]


@pytest.fixture
def begin(hub: Hub, start: Callable[..., subprocess.Popen[str]]) -> Callable[..., subprocess.Popen[str]]:
    address = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HUB_DISABLE_XET": "1", "PYTHONWARNINGS": "default"}
    return lambda into, **options: start(DOWNLOAD, into, env=address, **options)


@pytest.fixture
def fetch(begin: Callable[[Path], subprocess.Popen[str]]) -> Callable[[Path], tuple[str, str]]:
    """(last line of stdout, stderr) of one download."""

    def call(into: Path) -> tuple[str, str]:
        out, err = begin(into).communicate(timeout=40)
        assert "Traceback" not in err, err
        assert len(out.splitlines()) == 1, (out, err)
        return out.strip(), err

    return call


def left(into: Path) -> set[str]:
    """Files below `into`, and beside it all but the lock."""
    return {str(path.relative_to(into.parent)) for path in into.parent.rglob("*") if path.is_file() and path.suffix != ".lock"}


def whole(into: Path) -> bool:
    return all((into / name).read_bytes() == body for name, body in BODIES.items()) and len(left(into)) == 2


def test_a_download_is_whole_and_happens_once(tmp_path: Path, hub: Hub, fetch: Fetch) -> None:
    into = tmp_path / "cache" / "set"
    answer, err = fetch(into)
    assert answer == f"at {into}"
    assert whole(into)
    assert err.splitlines() == [f"Downloading {name} of some/set into {into}" for name in BODIES]
    assert fetch(into) == (f"at {into}", "")
    assert set(hub.gets.values()) == {1}


def test_a_terminal_gets_a_progress_bar(tmp_path: Path, begin: Callable[..., subprocess.Popen[str]]) -> None:
    terminal, end = os.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = begin(tmp_path / "cache" / "set", stderr=end)
    os.close(end)
    seen = b""
    with contextlib.suppress(OSError):  # EIO: the other end is closed
        while piece := os.read(terminal, 65536):
            seen += piece
    os.close(terminal)
    assert process.wait(timeout=40) == 0
    assert re.search(rb"train\.parquet: +100%", seen), seen


def test_a_download_that_is_cut_is_resumed(tmp_path: Path, hub: Hub, fetch: Fetch) -> None:
    hub.fault, into = "cut", tmp_path / "cache" / "set"
    assert fetch(into)[0] == f"at {into}"
    assert whole(into)
    assert set(hub.gets.values()) == {2}


def test_a_download_that_stays_cut_is_one_line_and_leaves_nothing(tmp_path: Path, hub: Hub, fetch: Fetch) -> None:
    hub.fault, into = "gone", tmp_path / "cache" / "set"
    answer, _ = fetch(into)
    assert answer.startswith(f"OSError some/set: downloading plain_text/train.parquet into {into} failed (")
    assert "run the same command again" in answer
    assert left(into) == set()
    hub.fault = ""
    assert fetch(into)[0] == f"at {into}"


def test_other_bytes_than_the_pinned_are_deleted(tmp_path: Path, hub: Hub, fetch: Fetch) -> None:
    name, into = "plain_text/test.parquet", tmp_path / "cache" / "set"
    hub.bodies[name] = b"TEST" * 5000
    answer, _ = fetch(into)
    assert answer.startswith(f"ValueError some/set: {name} of revision 0123456789ab came with sha256 ")
    assert f"pinned is {PINNED[name][:16]}" in answer
    assert left(into) == {"set/plain_text/train.parquet"}, "the good one stays"
    hub.bodies[name] = BODIES[name]
    assert fetch(into)[0] == f"at {into}"
    assert hub.gets == {"plain_text/train.parquet": 1, name: 2}


def test_a_file_that_rots_is_downloaded_again(tmp_path: Path, hub: Hub, fetch: Fetch) -> None:
    into = tmp_path / "cache" / "set"
    fetch(into)
    (into / "plain_text" / "test.parquet").write_bytes(b"rot")
    assert fetch(into)[0] == f"at {into}"
    assert whole(into)


def test_two_processes_at_once_download_once(tmp_path: Path, hub: Hub, begin: Callable[[Path], subprocess.Popen[str]]) -> None:
    hub.pause, into = 0.8, tmp_path / "cache" / "set"
    answers = [process.communicate(timeout=40) for process in [begin(into), begin(into)]]
    assert [out.strip() for out, _ in answers] == [f"at {into}"] * 2, answers
    assert set(hub.gets.values()) == {1}
    assert "Waiting for another process that is downloading some/set" in "".join(err for _, err in answers)
    assert whole(into)


def test_what_another_program_has_downloaded_is_used_without_a_network(
    tmp_path: Path, hub: Hub, fetch: Fetch, start: Callable[..., subprocess.Popen[str]]
) -> None:
    snapshot = tmp_path / "hf" / "hub" / "datasets--some--set" / "snapshots" / REVISION
    for name, body in BODIES.items():
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).write_bytes(body)
    hub.fault, into = "broken", tmp_path / "cache" / "set"
    assert fetch(into)[0] == f"at {snapshot}"
    (snapshot / "plain_text" / "test.parquet").write_bytes(b"other")
    assert fetch(into)[0].startswith("ConnectionError ")


@pytest.mark.parametrize(("fault", "kind"), [("missing", "FileNotFoundError http://127.0.0.1:"), ("broken", "ConnectionError ")])
def test_a_hub_without_the_data_is_not_a_missing_network(tmp_path: Path, hub: Hub, fetch: Fetch, fault: str, kind: str) -> None:
    hub.fault, into = fault, tmp_path / "cache" / "set"
    answer, _ = fetch(into)
    assert answer.startswith(kind)
    assert left(into) == set()


@pytest.mark.parametrize("environment", [{"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}])
def test_no_network_is_known_within_seconds(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]], environment: dict[str, str]
) -> None:
    began = time.monotonic()
    out, err = start(DOWNLOAD, tmp_path / "cache" / "set", env=environment).communicate(timeout=40)
    assert time.monotonic() - began < 8, "the client's own retries take 23 s"
    assert out.startswith("ConnectionError ")
    assert len(out.splitlines()) == 1
    assert err == ""
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("resolver", ["", "import socket, time; socket.getaddrinfo = lambda *_, **__: time.sleep(60)"])
def test_a_hub_or_a_resolver_that_never_answers_is_given_up(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]], resolver: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        patience = DOWNLOAD.replace("try:", f"{resolver}\nhub.PATIENCE = 1.0\ntry:", 1)
        address = {"HF_ENDPOINT": f"http://localhost:{silent.getsockname()[1]}"}
        began = time.monotonic()
        out, _ = start(patience, tmp_path / "cache" / "set", env=address).communicate(timeout=40)
    assert out.startswith("ConnectionError ")
    assert time.monotonic() - began < 6
