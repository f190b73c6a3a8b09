"""Whether the process that made something still lives: of one that was killed it is known, of one elsewhere it is not."""

from __future__ import annotations

import os
import subprocess
import sys

from launcher.trust import living


def _child() -> subprocess.Popen[str]:
    words = "from launcher.trust import living; print(living.mark(), flush=True); input()"
    return subprocess.Popen([sys.executable, "-c", words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_one_that_lives_does_and_one_that_was_killed_does_not() -> None:
    assert living.lives(living.mark())
    with _child() as child:
        assert child.stdout is not None
        mark = child.stdout.readline().strip()
        assert mark.split("-")[3] == str(child.pid)
        assert living.lives(mark)
        child.kill()
        child.wait()
        assert not living.lives(mark)


def test_its_number_alone_is_not_enough() -> None:
    """A later process may have it."""
    *machine, pid, began = living.mark().split("-")
    assert pid == str(os.getpid())
    assert not living.lives("-".join((*machine, pid, f"{began}1")))


def test_of_another_machine_nothing_is_known_and_of_this_one_before_its_start_all_is() -> None:
    host, boot, space, _, began = living.mark().split("-")
    gone = "4194305"  # no process has so large a number
    assert not living.lives(f"{host}-{boot}-{space}-{gone}-{began}")
    assert living.lives(f"{'0' * 8}-{'0' * 8}-{space}-{gone}-{began}"), "another machine"
    assert living.lives(f"{host}-{boot}-{'0' * 8}-{gone}-{began}"), "a container of this machine"
    assert not living.lives(f"{host}-{'0' * 8}-{space}-{gone}-{began}"), "this machine, started again since"
    assert living.lives("whatever")
