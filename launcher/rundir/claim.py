"""Which attempt may write: the newest one to have claimed the run. An attempt that a scheduler gave up for dead may still be running.

    .claim    the number of that attempt, replaced atomically

Why two looks and the removal of old temporaries are enough without a lock: an attempt claims first and removes every `tmp.*` then. An
older one looks at the claim when it makes its temporary directory and again just before the rename. If it saw itself as the holder at the
second look, its directory was made before the claim, or removed with the others: its rename fails, or came before anybody else began.
"""

from __future__ import annotations

from launcher.errors import RunError
from launcher.rundir.rundir import RunDir, read_text, write_atomic


class Claim:
    def __init__(self, run: RunDir, attempt: int) -> None:
        self._run = run
        self._attempt = attempt

    def take(self) -> None:
        """Raises RunError where the run directory cannot be written."""
        write_atomic(self._run.claim, f"{self._attempt:03d}\n")

    def check(self) -> None:
        """Raises RunError where another attempt has claimed the run since."""
        holder = read_text(self._run.claim).strip()  # opened anew each time: NFS looks at the server when a file is opened
        if holder != f"{self._attempt:03d}":
            raise RunError(f"attempt {holder} has taken over from attempt {self._attempt:03d}, which writes no more")
