"""`make guards`: each guard of the tables beside this file is taken out in a copy of the tree, and each of its tests has to turn red there.

A test is red where one of its cases fails, and not for a name or a syntax that the cut has broken. With all guards in, every one has to be
green. Without its guard a test meets what the guard is there for: all are run below a temporary directory, with 4 GiB of address space and
forty seconds for each case.

    python tests/guards_out.py [WORD…]     only the guards with such a number or word
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import guards_of_keys
import guards_of_places
import guards_of_runs
import guards_of_text
import psutil
from guards import Guard, node_id

TABLES = (guards_of_text, guards_of_places, guards_of_runs, guards_of_keys)
GUARDS: list[Guard] = sorted((row for table in TABLES for row in table.GUARDS), key=lambda row: row.door)
REPO = Path(__file__).resolve().parents[1]
COPIES = 4
MOST_BYTES = 4 << 30
CASE_SECONDS, SECONDS = 40, 900
BROKEN = re.compile(r"\b(Name|Syntax|Indentation|UnboundLocal)Error\b")
"""In a failure that says nothing of the guard."""

Cases = dict[str, list[str]]
"""The function's name -> what became of each case: green, red, broken or skipped."""


def main(words: Sequence[str]) -> int:
    wanted = [guard for guard in GUARDS if not words or {*words} & {str(guard.door), *guard.what.split()}]
    with _copies() as trees, ThreadPoolExecutor(COPIES) as pool:
        every = sorted({test for guard in wanted for test in guard.tests})
        halves = filter(None, (every[::2], every[1::2]))  # of no test at all pytest makes the whole suite
        before = dict(each for some in pool.map(lambda part: _run(trees, None, {*part}), halves) for each in some.items())
        wrong = [f"{name}: {states.count('green')} of {len(states)} cases are green with all guards in" for name, states in before.items()
                 if {*states} - {"green", "skipped"}]  # fmt: skip
        print(*wrong, f"{len(before)} tests with all guards in; door | guard | cases that are red without it", sep="\n", flush=True)
        missed = sum(pool.map(lambda guard: _is_missed(guard, _run(trees, guard, {*guard.tests})), wanted))
    print(f"{missed} of {len(wanted)} guards are missed by each of their tests")
    return 0 if before and not wrong and missed == len(wanted) else 1


def _is_missed(guard: Guard, cases: Cases) -> bool:
    """Prints its line of the table."""
    names = {_function(test) for test in guard.tests}
    counted = [state for states in cases.values() for state in states if state != "skipped"]
    skipped = {name for name, states in cases.items() if {*states} == {"skipped"}}
    blind = {name for name in names - skipped if "red" not in cases.get(name, ())}
    word = "BROKEN" if "broken" in counted else f"NOT MISSED by {', '.join(sorted(blind))}" if blind else "skipped" if not counted else ""
    print(f"{guard.door:>4} | {guard.what:<60} | {counted.count('red'):>3}/{len(counted):<4} {word}".rstrip(), flush=True)
    return not word or word == "skipped"


def _function(test: str) -> str:
    return node_id(test).partition("[")[0].rpartition("::")[2]


@contextlib.contextmanager
def _copies() -> Iterator[queue.Queue[Path]]:
    """Of what git lists; a thread takes one and puts it back."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=REPO, capture_output=True, check=True
    )
    names = [name for name in os.fsdecode(listed.stdout).split("\0") if (REPO / name).is_file()]
    with tempfile.TemporaryDirectory(prefix="guards-") as base:
        Path(base).chmod(0o755)  # another account takes part in some tests
        trees: queue.Queue[Path] = queue.Queue()
        for number in range(COPIES):
            for place in ("tree", "tmp", "home"):
                Path(base, str(number), place).mkdir(parents=True)
            for name in names:
                target = Path(base, str(number), "tree", name)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPO / name, target, follow_symlinks=False)
            trees.put(Path(base, str(number)))
        yield trees


def _run(trees: queue.Queue[Path], guard: Guard | None, tests: set[str]) -> Cases:
    place = trees.get()
    paths = {cut.file: place / "tree" / cut.file for cut in (guard.cuts if guard else ())}
    whole = {file: (path.read_text(encoding="utf-8"), path.stat().st_mtime) for file, path in paths.items()}
    try:
        for file, (text, _) in whole.items():
            _write(paths[file], without(guard, file, text), next(_TIMES))
        return _pytest(place, sorted(map(node_id, tests)))
    finally:
        for file, (text, when) in whole.items():
            _write(paths[file], text, when)
        trees.put(place)


_TIMES = itertools.count(1e9)
"""Of files with a cut, each another: Python takes what it has compiled for a file of that time and size."""


def _write(path: Path, text: str, when: float) -> None:
    path.write_text(text, encoding="utf-8")
    os.utime(path, (when, when))


def without(guard: Guard | None, file: str, text: str) -> str:
    """Raises ValueError where what stands in the table is not there, or not only there."""
    for cut in guard.cuts if guard else ():
        if cut.file == file:
            if text.count(cut.text) != 1:
                raise ValueError(f"{file} has {text.count(cut.text)} times, and not once: {cut.text!r}")
            text = text.replace(cut.text, cut.instead)
    return text


def _pytest(place: Path, ids: list[str]) -> Cases:
    report = place / "report.xml"
    report.unlink(missing_ok=True)
    env = {**os.environ, "HOME": str(place / "home"), "TMPDIR": str(place / "tmp"), "PYTHONPATH": str(place / "tree")}
    env |= {"OMP_NUM_THREADS": "1"}
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--timeout={CASE_SECONDS}", f"--junitxml={report}", *ids]
    with (place / "said").open("wb") as said:
        process = subprocess.Popen(
            argv, cwd=place / "tree", env=env, stdin=subprocess.DEVNULL, stdout=said, stderr=said, preexec_fn=_bounded
        )
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            for each in (*psutil.Process(process.pid).children(recursive=True), process):
                with contextlib.suppress(psutil.Error):
                    each.kill()
            process.wait()
    return _cases(report) if report.exists() else {}


def _bounded() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))


def _cases(report: Path) -> Cases:
    found: Cases = defaultdict(list)
    for case in ET.parse(report).iter("testcase"):
        ends = {child.tag: f"{child.get('message')}{child.text}" for child in case if child.tag in ("failure", "error", "skipped")}
        said = ends.get("failure", ends.get("error", ""))
        state = "green" if not ends else "skipped" if "skipped" in ends else "broken" if BROKEN.search(said) else "red"
        found[case.get("name", "").partition("[")[0]].append(state)
    return dict(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
