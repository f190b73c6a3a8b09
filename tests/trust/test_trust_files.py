"""One bad file stops nothing but what it belongs to: every file of a run directory, damaged or made by somebody who meant harm."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import TOY, Answer
from hostile import HUGE, MOST_BYTES, MOST_SECONDS, STUFF, measured, pipe, sparse, zero

from launcher.compose.compose import compose
from launcher.compose.freeze import Frozen, freeze
from launcher.doctor import findings
from launcher.plan import Mesh, World
from launcher.rundir.rundir import RunDir, create
from launcher.rundir.tail import Tail
from launcher.trust import reading

Command = Callable[..., Answer]
Plant = Callable[[RunDir], None]

SUMMARY = {"state": "done", "steps": 6, "samples": 96, "seconds": 2.0, "attempts": 1, "attempt": 0, "test_accuracy": 0.5}
BESIDE = {"samples_per_second": 9.0, "effective": 0.5, "wall_seconds": 3.0, "evaluation_seconds": 0.1, "save_seconds": 0.1}
BESIDE |= {"lost_seconds": 0.1, "restarts": {}, "replayed_steps": 0}


PLACES = ("plan.json", "events.jsonl", "summary.json", "config.yaml", "metrics.jsonl", "attempts/000/rank_0.log", "attempts/000/error.json")
MORE = ("attempts/000/ended", "attempts/000/outcome", "attempts/000/agent_0.log", "attempts/000/agent.pid", "job.sh", ".lock", "job.log")


def damage(stuff: Callable[[Path], None], place: str) -> Plant:
    return lambda run: stuff(run.path / place)


def events(*lines: object) -> Plant:
    def plant(run: RunDir) -> None:
        with run.events.open("a") as file:
            file.write("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))

    return plant


def summary(**values: object) -> Plant:
    return lambda run: run.summary.write_text(json.dumps({**SUMMARY, **BESIDE, **values}))


def raw(place: str, text: str) -> Plant:
    return lambda run: (run.path / place).write_text(text)


def plan(**values: object) -> Plant:
    def plant(run: RunDir) -> None:
        run.plan.write_text(json.dumps({**json.loads(run.plan.read_text()), **values}))

    return plant


def world(nodes: object, processes: object = 1, device: object = "cpu") -> Plant:
    return plan(world={"nodes": nodes, "processes_per_node": processes, "device": device})


def emptied(run: RunDir) -> None:
    for path in sorted(run.path.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def far_attempt(run: RunDir) -> None:
    (run.attempts / "999999999").mkdir()


def other_logs(run: RunDir) -> None:
    for name in ("rank_x.log", "rank_.log", "rank_\udcff.log", "rank_²3.log", "rank_9999999999999999999.log"):
        (run.attempt(0) / name).write_text("step 1/2\n")


def looped(run: RunDir) -> None:
    for place in (run.path, run.attempts, run.attempt(0)):
        (place / "again").symlink_to(place)


KINDS: dict[str, Plant] = {
    **{f"{stuff.__name__} as {place}": damage(stuff, place) for stuff in STUFF for place in PLACES},
    **{f"{stuff.__name__} as {place}": damage(stuff, place) for stuff in (pipe, zero, sparse) for place in MORE},
    "an empty event": events({}),
    "events of wrong types": events({"event": 3}, {"event": ["started"]}, [], 7, "null", '"started"', {"event": "started", "steps": "six"}),
    "an event with numbers beyond all": events(f'{{"event": "started", "steps": {HUGE}, "attempt": {HUGE}, "time": {HUGE}}}'),
    "an event with NaN": events('{"event": "started", "steps": NaN, "time": Infinity}'),
    "a number of five thousand digits": events(f'{{"event": "started", "steps": {"9" * 5000}}}'),
    "a job that is an option": events({"event": "queued", "job": "--user=root", "cluster": "a b"}, {"event": "queued", "job": {"a": 1}}),
    "a list of 10^9 nodes": events({"event": "attempt", "attempt": 0, "reason": "nodes n[1-1000000000]"}),
    "a product of nodes": events({"event": "attempt", "attempt": 0, "reason": "nodes n[1-999][1-999][1-999]"}),
    "a summary of wrong types": summary(steps="six", seconds=[], samples={}, test_accuracy="high", restarts=7, attempts=None),
    "a summary with numbers beyond all": raw(
        "summary.json", f'{{"state": "done", "steps": {HUGE}, "test_accuracy": {HUGE}, "attempt": 1e999}}'
    ),
    "a state that is a list": summary(state=["done"]),
    "metrics of wrong types": raw("metrics.jsonl", '{"split": "train", "step": "x", "loss": []}\n[]\n7\n'),
    "metrics beyond all": raw("metrics.jsonl", f'{{"split": "train", "step": {HUGE}, "loss": {HUGE}}}\n'),
    "a report of wrong types": raw("attempts/000/error.json", f'{{"rank": {HUGE}, "step": [], "message": {{}}}}'),
    "a world of 10^9 nodes": world(10**9),
    "a world of 10^9 processes": world(1, 10**9),
    "a world that is a text": world("two"),
    "a world of -1": world(-1),
    "a world of a device that is none": world(1, 1, ["cpu"]),
    "a plan whose texts are none": plan(run_dir=7, name={"a": 1}),
    "a plan with a zero in its path": plan(run_dir="/srv/\0/run"),
    "a plan that is a list": raw("plan.json", "[]"),
    "a config that is a number": raw("config.yaml", "7\n"),
    "a directory without files": emptied,
    "an attempt 999999999": far_attempt,
    "logs of no rank": other_logs,
    "links to where they are": looped,
    "attempts that are a file": lambda run: (run.attempts.rename(run.path / "old"), run.attempts.write_text(""))[0] and None,
}


QUIET = {
    *(f"{stuff} as {place}" for stuff in ("sparse", "no_text", "deep", "wide") for place in ("config.yaml", "attempts/000/rank_0.log")),
    *(f"sparse as {place}" for place in MORE),
    *("a config that is a number", "a list of 10^9 nodes", "a product of nodes"),
    *("an attempt 999999999", "logs of no rank", "links to where they are"),
}
"""Of which `status` takes no notice: it needs them for nothing, or a run may have written them."""


@pytest.fixture(scope="module")
def toy_frozen() -> Frozen:
    found: list[Frozen] = []
    compose([*TOY, "cluster.processes_per_node=1"], lambda config, overrides: found.append(freeze(config, overrides)))
    return found[0]


@pytest.fixture
def made(tmp_path: Path, toy_frozen: Frozen) -> Callable[[str], RunDir]:
    """A run that is done. Its plan is of another world than its cluster makes, so that no `resume` begins to train."""

    def call(name: str) -> RunDir:
        run = create(tmp_path / "runs" / "toy" / name)
        planned = dataclasses.replace(toy_frozen.plan, name="toy", id=name, run_dir=str(run), world=World(1, 3, "cpu"), mesh=Mesh(3))
        run.freeze(planned, toy_frozen.config, toy_frozen.script, sync=False)
        run.log_event("submitted")
        run.attempt(0).mkdir()
        run.log_event("started", attempt=0, steps=6)
        run.rank_log(0, 0).write_text("step 6/6  100.0%  loss 1  9 samples/s  eta 0:00\n")
        run.metrics.write_text('{"split": "train", "step": 6, "loss": 1.5}\n')
        summary()(run)
        return run

    return call


def test_status_shows_every_other_run_and_names_the_bad_ones(
    made: Callable[[str], RunDir], tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a hundred runs, one of each kind among them."""
    monkeypatch.chdir(tmp_path)
    good = [made(f"good-{number}").path.name for number in range(20)]
    bad = {f"bad-{number}": plant for number, plant in enumerate(KINDS.values())}
    for name, plant in bad.items():
        plant(made(name))
    code, out, err, seconds, memory = measured(tmp_path, cache, "status", "--all")
    assert (code, "Traceback" in err) == (0, False), err
    rows = {line.split()[0]: line.split()[1] for line in out.splitlines()[1:]}
    assert {rows.get(f"toy/{name}") for name in good} == {"done"}
    told = {kind: err.count(f"/{name}: ") for name, kind in zip(bad, KINDS, strict=True)}
    assert {kind for kind, lines in told.items() if lines > 1} == set()
    assert {kind for kind, lines in told.items() if lines == 0} == QUIET
    assert (seconds < 5, memory < MOST_BYTES) == (True, True), (seconds, memory)


@pytest.mark.parametrize("kind", KINDS)
def test_each_verb_says_something_of_it_and_ends(kind: str, made: Callable[[str], RunDir], command: Command) -> None:
    run = made("1")
    KINDS[kind](run)
    for verb in ("status", "why", "logs", "resume", "cancel"):
        begun = time.monotonic()
        answer = command(verb, str(run))
        spent = time.monotonic() - begun
        assert answer.code in (0, 2, 3), (verb, answer)
        assert "Traceback" not in answer.err
        assert len(answer.lines) <= 1, (verb, answer.err)
        assert answer.out or answer.err or verb == "logs"
        assert max(map(len, answer.err.splitlines()), default=0) < 2000
        assert spent < 2 * MOST_SECONDS, (verb, spent)


# ---------------------------------------------------------------- what is not a run by itself


@pytest.mark.parametrize(
    "nodes", ["n[1-1000000000]", "n[1-99999][1-99999]", "n[1-9][1-9][1-9][1-9][1-9][1-9][1-9]", "n[" + "1" * 5000 + "]", "n" * 10**6]
)
def test_a_list_of_more_nodes_than_there_are_is_refused(nodes: str) -> None:
    begun = time.monotonic()
    with pytest.raises(ValueError, match="nodes"):
        findings.expand(nodes)
    assert time.monotonic() - begun < MOST_SECONDS


def test_the_lines_of_a_log_are_no_longer_than_one_can_be(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"first\n" + b"x" * (3 << 20) + b" end\nlast\ntor")
    tail = Tail(path)
    begun, long, *rest = tail.lines()
    assert (begun, long, rest) == ("first", "x" * 1000 + " …", ["last"])
    with path.open("ab") as file:
        file.write(b"n\n")
    assert list(tail.lines()) == ["torn"]


@pytest.mark.parametrize("depth", [reading.DEPTH + 1, 900, 100_000])
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_json_that_is_too_deep_is_no_json(opening: str, depth: int) -> None:
    with pytest.raises(ValueError, match=r"too deep|Expecting"):
        reading.parsed(opening * depth + "1" + ("]" if opening == "[" else "}") * depth)


def test_collect_is_not_stopped_by_members_that_are_damaged(made: Callable[[str], RunDir], tmp_path: Path, command: Command) -> None:
    runs = {kind: made(str(number)) for number, kind in enumerate(KINDS)}
    good = made("good")
    for kind, run in runs.items():
        KINDS[kind](run)
    place = tmp_path / "runs" / ".sweeps" / "s1"
    place.mkdir(parents=True)
    members = [{"number": n, "overrides": [f"seed={n}"], "run": str(run)} for n, run in enumerate([*runs.values(), good])]
    (place / "sweep.json").write_text(json.dumps({"objective": "test_accuracy", "members": members}))
    answer = command("collect", "s1")
    assert (answer.code, answer.err) == (0, "")
    rows = json.loads((place / "collected.json").read_text())
    assert {row["run"]: row.get("test_accuracy") for row in rows}[str(good)] == 0.5
    assert len(rows) == len(members)
