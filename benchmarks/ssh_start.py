"""From Enter to the first step on three hosts by `cluster=ssh`, beside torchrun with a world of three here: whole processes, in turn.

    python benchmarks/ssh_start.py [--rounds 7]      as root: the hosts are namespaces with an sshd each (tests/hosts.py)

Three programs do the same step of DDP: torchrun's, a script under the launcher by ssh, and that script under the launcher here. Each notes
when its first step is done. The time until all hosts are looked at (preflight) is in the run's ledger of files: from its nonce to the key
of the meeting.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hosts import Hosts, why_not  # pyright: ignore[reportMissingImports]  # of the tests

from benchmarks.measure import load, machine, one_line, ratios, rotated, versions
from launcher.rundir.rundir import RunDir

SCRIPT = """
import sys, time
from pathlib import Path
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
model = DistributedDataParallel(torch.nn.Linear(64, 8))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
model(torch.randn(16, 64)).square().mean().backward()
optimizer.step()
dist.barrier()
if dist.get_rank() == 0:
    Path(sys.argv[1]).write_text(repr(time.time()))
dist.destroy_process_group()
"""
WANTED, PREFLIGHT = 1.5, 5.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    if why := why_not():
        print(f"skipped: {why}")
        return 0
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name, Hosts(Path(name) / "machines", 3) as hosts:
        place = Path(name)
        (place / "first.py").write_text(SCRIPT)
        seconds: dict[str, list[float]] = {"torchrun": [], "ssh": [], "here": []}
        looked: list[float] = []
        for turn in range(rounds + 1):
            for contender in rotated([*seconds], turn):
                taken = _once(contender, hosts, place, turn)
                if turn:  # the first fills caches
                    seconds[contender].append(taken)
            if turn:
                looked.append(_preflight(RunDir(place / "runs" / "first" / f"ssh-{turn}")))
    for contender in ("ssh", "here"):
        found = ratios(seconds[contender], seconds["torchrun"])
        verdict = "" if contender == "here" else f"; {'PASS' if found.median <= WANTED else 'over'} ({WANTED})"
        print(f"{contender} / torchrun: {found.as_ratio()}, n={rounds}{verdict}")
    print(f"torchrun: {statistics.median(seconds['torchrun']):.2f} s; ssh: {statistics.median(seconds['ssh']):.2f} s")
    verdict = "PASS" if max(looked) <= PREFLIGHT else "over"
    print(f"preflight of 3 hosts: {statistics.median(looked):.2f} s, {max(looked):.2f} at most; {verdict} ({PREFLIGHT})")
    print(f"{one_line(machine())}; load {load()}; {one_line(versions('torch'))}")
    return 0


def _once(contender: str, hosts: Hosts, place: Path, turn: int) -> float:
    noted = place / f"{contender}-{turn}"
    began = time.time()
    if contender == "torchrun":
        words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3", str(place / "first.py"), str(noted)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=100, cwd=place)
    else:
        words = [f"script={place}/first.py", f"script.args=[{noted}]", f"id={contender}-{turn}", f"runs_dir={place}/runs"]
        words += hosts.words() if contender == "ssh" else ["cluster.device=cpu"]
        done = hosts.launcher(place, [*words, f"cluster.processes_per_node={1 if contender == 'ssh' else 3}"])
    assert noted.exists(), done.stderr  # when gloo's threads are torn down a process may abort; its step is done by then
    return float(noted.read_text()) - began


def _preflight(run: RunDir) -> float:
    place = run.attempt(0)
    return (place / "meeting.key").stat().st_mtime - (place / "nonce").stat().st_mtime


if __name__ == "__main__":
    sys.exit(main())
