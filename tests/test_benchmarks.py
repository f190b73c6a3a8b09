"""The benchmarks run: what they measure is for benchmarks/README.md, that they can measure is for here."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
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
