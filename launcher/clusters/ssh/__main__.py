"""`python -m launcher.clusters.ssh RUN …`, as job.sh has it: one attempt (supervise.py)."""

from __future__ import annotations

import argparse
import os
import sys

from launcher.clusters.ssh.hosts import Host
from launcher.clusters.ssh.supervise import Asked, supervise
from launcher.rundir.rundir import RunDir


def main(argv: list[str]) -> int:
    words = argparse.ArgumentParser(prog="python -m launcher.clusters.ssh", allow_abbrev=False)
    words.add_argument("run")
    words.add_argument("--device", required=True)
    words.add_argument("--busy", required=True)
    words.add_argument("--watch", type=float, required=True)
    words.add_argument("--answer", type=float, required=True)
    words.add_argument("--interface")
    words.add_argument("--port", type=int)
    words.add_argument("--ssh-config")
    words.add_argument("--host", action="append", nargs="+", required=True)
    given = words.parse_args(argv)
    asked = Asked(
        hosts=[Host(name, int(slots)) for name, slots, *_ in given.host],
        pythons=[python[0] if python else sys.executable for _, _, *python in given.host],
        device=given.device,
        interface=given.interface,
        port=given.port,
        busy=given.busy,
        watch=given.watch,
        answer=given.answer,
        config=given.ssh_config,
    )
    return supervise(RunDir(given.run), int(os.environ["LAUNCHER_ATTEMPT"]), asked)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
