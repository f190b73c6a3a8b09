"""What it is worth that `serve` computes together what comes together: requests a second beside a server that computes one at a time.

    python benchmarks/serve.py EXPORT FOLDER [--rounds 5]      FOLDER: pictures, some hundreds of them

Both servers run for the whole time; fifty clients ask one and then the other, in rounds.
"""

from __future__ import annotations

import http.client
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measure import export_and_folder, load, machine, one_line, ratios, versions

CLIENTS = 50


def started(export: Path, *words: str) -> tuple[subprocess.Popen[str], int]:
    argv = [sys.executable, "-m", "launcher", "serve", str(export.absolute()), "port=0", *words]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parents[1])
    assert process.stdout is not None
    return process, int(process.stdout.readline().split("/")[2].split(":")[1])


def ask(port: int, raw: bytes) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/predict", raw)
    reply = connection.getresponse()
    reply.read()
    connection.close()
    assert reply.status == 200, reply.status


def main() -> int:
    asked = export_and_folder(__doc__, rounds=5)
    pictures = [path.read_bytes() for path in sorted(asked.folder.iterdir())[:400]]
    servers = {"together": started(asked.export), "one at a time": started(asked.export, "batch_size=1", "wait_ms=0")}
    seconds: dict[str, list[float]] = {name: [] for name in servers}
    try:
        with ThreadPoolExecutor(CLIENTS) as pool:
            for turn in range(asked.rounds + 1):
                for name, (_, port) in servers.items():
                    began = time.perf_counter()
                    [*pool.map(lambda raw, port=port: ask(port, raw), pictures)]
                    if turn:  # the first warms up
                        seconds[name].append(time.perf_counter() - began)
    finally:
        for process, _ in servers.values():
            process.terminate()
            process.wait(60)
    print(
        f"requests a second, together / one at a time: {ratios(seconds['one at a time'], seconds['together']).as_ratio()}, n={asked.rounds}"
    )
    for name, each in seconds.items():
        print(f"{name}: {len(pictures) / sorted(each)[len(each) // 2]:,.0f} requests a second, {CLIENTS} at a time")
    print(f"{one_line(machine())}; load {load()}; {one_line(versions('torch', 'uvicorn', 'starlette'))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
