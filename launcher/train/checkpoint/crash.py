"""Named points in a save where a test may have this process killed, as a node that loses power would end it, or stopped, as one that
is taken for dead and is not.

LAUNCHER_CRASH_AT=<point>:<rank>:<n> ends that rank by SIGKILL when it comes to <point> for the <n>-th time; with :STOP behind it, by
SIGSTOP. Unset, `here` compares two strings.
"""

from __future__ import annotations

import os
import signal

POINTS = (
    "before_save",  # nothing is there yet
    "room_made",  # rank 0: an empty temporary directory
    "in_shard",  # some bytes of a file are written
    "before_fsync",  # all bytes of a file, none of them sure to be on the disk
    "after_shard",  # one file is on the disk
    "shards_agreed",  # all files of all ranks are
    "in_manifest",  # rank 0: from here on
    "before_rename",
    "after_rename",  # the checkpoint has its name, the disk may not know yet
    "after_commit",
    "before_prune",
    "in_prune",  # an old one has lost its name and still has its files
    "after_prune",
    "save_agreed",  # every rank knows
)
"""In the order in which a save comes to them."""

_point, _, _rest = os.environ.get("LAUNCHER_CRASH_AT", "").partition(":")
_rank, _, _rest = _rest.partition(":")
_count, _, _signal = _rest.partition(":")
_passed = 0


def here(point: str) -> None:
    global _passed
    if point != _point or os.environ.get("RANK", "0") != _rank:
        return
    _passed += 1
    if _passed == int(_count):
        os.kill(os.getpid(), signal.SIGSTOP if _signal == "STOP" else signal.SIGKILL)
