"""Small programs for `script=`: none of them knows the launcher, and few need torch."""

from __future__ import annotations

from pathlib import Path

SAYS = """
import json, os, sys
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LAUNCHER_ATTEMPT", "LAUNCHER_RUN_DIR", "LAUNCHER_CHECKPOINT_DIR")
print("said", json.dumps({"argv": sys.argv[1:], "cwd": os.getcwd(), **{name: os.environ[name] for name in names}}))
"""

COUNTS = """
import os, signal, sys, time
from pathlib import Path
stops = []
signal.signal(getattr(signal, "SIG" + sys.argv[1]), lambda *_: stops.append(1))
saved = Path(os.environ["LAUNCHER_CHECKPOINT_DIR"], "step." + os.environ["RANK"])
step = int(saved.read_text()) if "--resume" in sys.argv and saved.exists() else 0
print("begins at", step)
while step < int(sys.argv[2]):
    time.sleep(0.05)
    step += 1
    print(f"iter {step}/{sys.argv[2]} loss {1 / step:.4f}")
    if stops:
        saved.write_text(str(step))
        print("saved at", step)
        break
"""

MEETS = """
import torch
import torch.distributed as dist
dist.init_process_group("gloo")
one = torch.ones(1)
dist.all_reduce(one)
print("met", int(one.item()))
dist.destroy_process_group()
"""

FAILS = """
import os, sys, time
if os.environ["RANK"] == "1":
    raise ValueError("no such column: price")
time.sleep(30)
"""

DEAF = """
import time
print("deaf", flush=True)
time.sleep(60)
"""


def written(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name
