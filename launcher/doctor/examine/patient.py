"""One process that is examined: what it has found, how long it may take, and what becomes of the others where it hangs."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import threading
import time
from typing import Any

from launcher.doctor.findings import ALONE, drills, left_behind, node_name, nonce_file, publish, rank_file, report_file, report_of
from launcher.errors import LaunchError
from launcher.node.place import Place
from launcher.plan import Plan
from launcher.rundir.rundir import RunDir, write_atomic
from launcher.trust.secret import mask

START_SECONDS = 120.0
"""To import torch, which hundreds of nodes do from the same shared disk."""
JOIN_SECONDS = 60.0
"""To wait for the others."""
EXAMINE_SECONDS = 60.0
GRACE_SECONDS = 3.0
"""From the first process that gives up to the report: all others notice within one."""
OVER = "doctor/over"
"""Key in torchrun's store: somebody has given up."""


class Patient:
    """This process: what it has found so far, and how long it may take for what it does now."""

    def __init__(self, run: RunDir, plan: Plan, place: Place) -> None:
        self.run, self.plan, self.place = run, plan, place
        self.node = node_name(plan)
        self.drills = drills(self.node)
        self.store: Any = None
        """A connection of the thread's own, as soon as there is one."""
        self.facts: dict[str, Any] = {
            "rank": place.rank,
            "local_rank": place.local_rank,
            "node": self.node,
            "allotted": plan.hear("nodes"),
            "stage": "start",
            "stopped": "",
            "raised": False,
        }
        self._deadline = time.monotonic() + START_SECONDS
        self._seconds = START_SECONDS
        self._ending = threading.Lock()
        self.write()
        threading.Thread(target=self._watch, daemon=True).start()
        # Where a C call keeps the interpreter's lock, no thread of ours runs.
        faulthandler.dump_traceback_later(START_SECONDS + JOIN_SECONDS + EXAMINE_SECONDS, exit=True)

    def enter(self, stage: str, seconds: float | None = None) -> None:
        """Say what is done now. `seconds` sets a new limit for it and all that follows."""
        if seconds is not None:
            self._seconds, self._deadline = seconds, time.monotonic() + seconds
        self.facts["stage"] = stage
        self.write()

    def write(self) -> None:
        write_atomic(rank_file(self.run, self.place.attempt, self.place.rank), json.dumps(mask.everywhere(self.facts)))

    def _watch(self) -> None:
        while True:
            time.sleep(0.5)
            if time.monotonic() > self._deadline:
                self.give_up(f"no end within {self._seconds:.0f} s")
            elif self.store is not None:
                try:
                    over = self.store.check([OVER])
                except RuntimeError as error:
                    self.give_up(f"Connection closed: torchrun's store is gone ({error})")
                else:
                    if over:
                        self.give_up("others had given up")

    def give_up(self, why: str, *, raised: bool = False) -> None:
        """Write why, leave a report of what everybody wrote unless another process does, and end."""
        self._ending.acquire()  # for good: the other thread shall not end differently
        print(f"gave up in stage {self.facts['stage']}: {why}", flush=True)
        self.facts.update(stopped=" ".join(why.split())[:500], raised=raised)
        with contextlib.suppress(LaunchError):
            self.write()
        with contextlib.suppress(Exception):
            self.store.set(OVER, "1")
        time.sleep(GRACE_SECONDS * (1 + min(self.place.rank, 8)))
        if not report_file(self.run, self.place.attempt).exists():
            with contextlib.suppress(LaunchError):
                self.finish(left_behind(self.run, self.place.attempt, self.plan))
        nonce_file(self.run.attempt(self.place.attempt), self.place.rank).unlink(missing_ok=True)
        os._exit(0)

    def end(self, gathered: list[dict[str, Any]] | None) -> None:
        """Rank 0 has everybody's findings."""
        self._ending.acquire()
        if gathered is not None:
            allotted = str(self.facts["allotted"])
            self.finish(report_of(self.run, self.place.attempt, gathered, allotted, complete=True))
        os._exit(0)  # not sys.exit: gloo and NCCL wait in their destructors for whoever has left already

    def finish(self, report: dict[str, Any]) -> None:
        verdict = publish(self.run, self.place.attempt, self.plan, report)
        print(f"doctor: {verdict}", *verdict.warnings, sep="\n", flush=True)
        if os.environ.get(ALONE):
            write_atomic(self.run.outcome(self.place.attempt), "done\n")
