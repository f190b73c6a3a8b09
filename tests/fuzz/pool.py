"""All texts, on several processes; the figures."""

from __future__ import annotations

import gc
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from pathlib import Path
from unittest import mock

from fake_slurm import FakeSlurm

from fuzz.config import Config
from fuzz.fields import Field, all_fields
from fuzz.sandbox import Sandbox
from fuzz.stored import Stored
from fuzz.tally import Tally
from launcher.clusters import submit
from launcher.clusters.slurm import scheduler
from launcher.code.snapshot import Source
from launcher.compose import freeze
from launcher.node.deathsig import die_with_parent

_STUB = '#!/bin/bash\nfor last; do :; done\nenv -0 >"$last/seen"\nexit 1\n'
"""In place of Python, for a run on this machine: what torchrun would be started with."""


def _no_copy(source: Source, place: Path) -> None:
    """Which code is copied has nothing to do with a text, and takes as long as all the rest: tests/code/test_snapshot.py."""
    place.mkdir()


@contextmanager
def place() -> Generator[tuple[Sandbox, FakeSlurm]]:
    """A sandbox to be in, with a scheduler that answers and a Python that does nothing."""
    root, here = Path(tempfile.mkdtemp(prefix="launcher-fuzz-")), Path.cwd()
    sandbox, fake = Sandbox(root / "sandbox"), FakeSlurm(root / "fake")
    fake.scontrol(":")  # any partition is one
    stub = root / "python"
    stub.write_text(_STUB)
    stub.chmod(0o755)
    environment, code = sandbox.environment(), freeze.Code.now({"trust": []})
    environment |= {"FUZZ_PATH": environment["PATH"], "PATH": f"{fake.bin}:{environment['PATH']}"}
    with ExitStack() as patched:
        for one in (
            mock.patch.dict(os.environ, environment, clear=True),
            mock.patch.object(sys, "executable", str(stub)),
            mock.patch.object(submit, "prepare_data", return_value=submit.Found({}, {})),
            mock.patch.object(scheduler, "PATIENCE", (0.01,)),
            mock.patch.object(Source, "copy_to", _no_copy),
            mock.patch.object(freeze.Code, "now", return_value=code),
        ):
            patched.enter_context(one)
        patched.callback(shutil.rmtree, root, ignore_errors=True)
        patched.callback(os.chdir, here)
        os.chdir(sandbox.home)
        yield sandbox, fake


def of_texts(texts: Sequence[str], fields: Sequence[Field], seed: int) -> Tally:
    """In this process."""
    tally = Tally()
    with place() as (sandbox, fake):
        for text in texts:
            chance = random.Random(f"{seed} {text!r}")
            try:
                Config(sandbox, fake, text, tally, chance).all([*fields])
                Stored(sandbox, fake, text, tally, chance).all()
            except Exception as error:  # what tries a text is no judge of it: the others are still tried
                tally.fault("what tries it", text, "", repr(error))
                sandbox.clean()
            gc.collect()
    return tally


def fuzz(texts: Sequence[str], fields: Sequence[Field], seed: int, processes: int = 2, said: bool = False) -> Tally:
    """Of all of them together."""
    total, begun = Tally(), time.monotonic()
    parts = [texts[start : start + 5] for start in range(0, len(texts), 5)]
    with ProcessPoolExecutor(processes, get_context("spawn"), die_with_parent) as pool:
        for number, done in enumerate(as_completed([pool.submit(of_texts, part, fields, seed) for part in parts]), 1):
            total.add(done.result())
            if said:
                print(f"{number * 5}/{len(texts)} texts, {time.monotonic() - begun:.0f} s, {len(total.found)} faults", flush=True)
    return total


__all__ = ["all_fields", "fuzz", "of_texts", "place"]
