"""A server of an export, and clients of it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from helpers import REPO


class Server(NamedTuple):
    port: int
    process: subprocess.Popen[str]

    def ask(self, body: bytes | None, path: str = "/predict", kind: str = "image/png", host: str = "127.0.0.1") -> tuple[int, Any]:
        """Status, and what was said: JSON where it is that."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET" if body is None else "POST", path, body, {"Content-Type": kind, "Host": host})
            reply = connection.getresponse()
            text = reply.read().decode()
            return reply.status, json.loads(text) if reply.headers["Content-Type"] == "application/json" else text
        finally:
            connection.close()


@contextlib.contextmanager
def serving(export: Path, *words: str) -> Iterator[Server]:
    """On any port that is free; told to end, and waited for."""
    argv = [sys.executable, "-m", "launcher", "serve", str(export), "port=0", *words]
    process = subprocess.Popen(argv, cwd=REPO, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), line
        yield Server(int(line.split("/")[2].split(":")[1]), process)
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()
            process.stdout.close()
