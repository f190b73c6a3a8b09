"""A CPU of another generation: put this directory on PYTHONPATH and /proc/cpuinfo has the flags that UNLIKE_FLAGS gives for
"attempt.rank" ("*" for all others). The shim of one system's file, for there are no two kinds of processors in one machine."""

import json
import os
import pathlib

_FLAGS = json.loads(os.environ.get("UNLIKE_FLAGS", "{}"))
_read_text = pathlib.Path.read_text


def _cpuinfo_or(self, *args, **kwargs):
    if str(self) != "/proc/cpuinfo":
        return _read_text(self, *args, **kwargs)
    place = f"{os.environ.get('LAUNCHER_ATTEMPT')}.{os.environ.get('RANK', '0')}"
    return f"flags : fpu {_FLAGS.get(place, _FLAGS.get('*', ''))}\n"


pathlib.Path.read_text = _cpuinfo_or
