"""The benchmarks run: what they measure is for benchmarks/README.md, that they can measure is for here."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import REPO


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_the_step_benchmark_trains_ours_and_the_plain_loop_to_the_same_weights() -> None:
    script = REPO / "benchmarks" / "step_overhead.py"
    words = [sys.executable, script, "--model", "tiny", "--rounds", "2", "--block", "5", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["equal_weights"] is True


@pytest.mark.slow
def test_the_loader_benchmark_measures_ours_beside_a_dataloader() -> None:
    words = ["--count", "64", "--size", "128", "--batch-size", "32", "--rounds", "2", "--block", "20", "--settle", "0"]
    done = subprocess.run(
        [sys.executable, REPO / "benchmarks" / "loader_workers.py", *words], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\| A   loader=workers +\| \d+ +\| \d\.\d{4} \[", done.stdout, re.MULTILINE), done.stdout


def gpu_table(*words: str) -> subprocess.CompletedProcess[str]:
    script = REPO / "benchmarks" / "gpu.py"
    return subprocess.run([sys.executable, script, *words], capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here: make gpu")
def test_where_there_is_no_gpu_the_table_says_so_in_one_line() -> None:
    done = gpu_table()
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "sees no CUDA device" in done.stderr


def test_the_table_of_a_gpu_works_where_a_cpu_stands_in() -> None:
    done = gpu_table("--device", "cpu", "save", "aside", "hardware", "sharded", "workers")
    assert done.returncode == 0, done.stdout + done.stderr
    save, aside, hardware, sharded, workers = done.stdout.splitlines()[1:]
    assert re.match(r"save +holds .*device 0\.0 ms", save)
    assert re.match(r"aside +holds ", aside)
    assert re.match(r"hardware +not here", hardware)
    assert re.match(r"sharded +holds .*gloo: losses", sharded)
    assert re.match(r"workers +holds .*32 batches equal to the bit", workers)


@pytest.mark.parametrize(
    ("body", "seconds", "verdict", "said"),
    [("return 'fine'", 30, "holds", "fine"), ("assert False, 'not so'", 30, "FAILS", "AssertionError: not so"),
     ("time.sleep(60)", 0.5, "FAILS", "took more than 0 s"), ("", 900, "no time", "may take")],
)  # fmt: skip
def test_a_row_that_fails_ends_or_hangs_is_told(tmp_path: Path, body: str, seconds: float, verdict: str, said: str) -> None:
    """The table with one more row, as anybody adds one."""
    driver = f"""
import os, sys, time
sys.path.insert(0, {str(REPO)!r})
from benchmarks import gpu, gpu_rows
@gpu_rows.row("it is so", {seconds}, on_cpu=True)
def mine(device):
    {body or "pass"}
gpu.__file__ = __file__
if __name__ == "__main__":
    sys.exit(gpu.main())
"""
    (tmp_path / "mine.py").write_text(driver)
    done = subprocess.run(
        [sys.executable, tmp_path / "mine.py", "--device", "cpu", "mine"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == int(verdict != "holds"), done.stdout + done.stderr
    assert re.match(rf"mine +{verdict} .*it is so: .*{re.escape(said)}", done.stdout.splitlines()[-1]), done.stdout


def test_false_alarms_are_counted_and_no_data_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = REPO / "benchmarks" / "guards.py"
    monkeypatch.syspath_prepend(str(script.parent))
    made = runpy.run_path(str(script))
    answers = [{"guards": each} for each in (["far from: a", "size: b"], ["unsure: 0.1"], [], ["far from: c", "unsure: 0.2"])]
    assert made["alarms"](answers) == [("false alarms", 2), ("far from", 2), ("size", 1)]
    assert made["wilson"](0, 100) == pytest.approx((0, 0.0370), abs=1e-4)
    assert made["wilson"](5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    done = subprocess.run(
        [sys.executable, script, "--export", tmp_path, "--root", tmp_path], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("skipped: the real CIFAR-10 is not in ")
