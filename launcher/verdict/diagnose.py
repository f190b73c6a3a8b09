"""Why an attempt ended: what its ranks, torchrun on each node, the batch shell and the scheduler wrote, joined into one diagnosis."""

from __future__ import annotations

import math
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import BY_EXIT_CODE, LaunchError, RankLost, RunError, TrainingFailed
from launcher.rundir.progress import FAILED
from launcher.rundir.rundir import RunDir
from launcher.verdict import evidence
from launcher.verdict.evidence import Death, Shown, tail
from launcher.verdict.signatures import CAUSE, ENDS, LOST_PEER, NONE, SCHEDULER, SIGNATURES, SYMPTOM, Match, Words, find

HINT, DEATH, EXIT, REST = "hint", "death", "exit", "rest"
"""Words in the log of a rank that did not say it failed; a process killed, or gone without a word; nothing but that the attempt ended."""

_ORDER = (CAUSE, SCHEDULER, HINT, DEATH, EXIT, SYMPTOM, REST)
_LAST_WORDS = 40
"""Lines at the end of a rank's log that may belong to its death, where it did not say that it failed."""

_RESTART = re.compile(r"--- restart (\d{1,9}) of attempt")
_FROM_NODE = re.compile(r"^launcher: (?!warning: |doctor: )(.*)", re.MULTILINE)
"""What launcher/node/__main__.py says before its output goes into a log of its own; the batch shell writes the time before it."""
_ONLY_THAT = ("a rank failed", "the step ended")
"""The batch shell's reasons that say no more than that others know more."""


@dataclass(frozen=True)
class Diagnosis:
    kind: str
    verdict: str
    lines: tuple[Shown, ...] = ()
    """That show it."""
    match: Match | None = None
    rank: int | None = None
    host: str = ""
    time: float = 0.0
    """Seconds since the epoch; 0 where the log has none."""

    @property
    def order(self) -> tuple[int, int, float, int]:
        """A cause before what follows from it, then the first in time; of symptoms the most telling."""
        telling = SIGNATURES.index(self.match.signature) if self.match and self.kind == SYMPTOM else 0
        return _ORDER.index(self.kind), telling, self.time, -1 if self.rank is None else self.rank


def failure(run: RunDir, attempt: int, status: int) -> LaunchError:
    """The error of the rank that failed first, for whoever stayed with a run. `status` is torchrun's own exit status."""
    report = evidence.newest_report(run, attempt)
    killed = next((death for death in evidence.deaths(run, attempt) if death.code < 0), None)
    if report is not None and not (killed and LOST_PEER.search(report.message)):
        kind = RankLost if report.exception in ("Hang", "HostLost") else BY_EXIT_CODE.get(report.exit_code, TrainingFailed)
        if not report.traceback:
            return kind(report.message)
        where = f"rank {report.rank} on {report.host} failed at step {report.step}"
        return kind(f"{where}: {report.raised} (log: {run.rank_log(attempt, report.rank)})")
    if killed and (fault := _hardware(tail(run.rank_log(attempt, killed.rank)))):
        words = f"rank {killed.rank} on {killed.host} {_death(killed.code)}: {fault.verdict} ({fault.line.strip()})"
        return TrainingFailed(f"{words}; it would break again here, so nothing is tried again (log: {run.rank_log(attempt, killed.rank)})")
    if killed and (vain := _in_vain(tail(run.rank_log(attempt, killed.rank)))):
        words = f"rank {killed.rank} on {killed.host} hangs in a collective that NCCL gave up ({vain[:200]})"
        return RankLost(f"{words} (log: {run.rank_log(attempt, killed.rank)})")
    if killed:
        return RankLost(f"rank {killed.rank} {_death(killed.code)} (log: {run.rank_log(attempt, killed.rank)})")
    last = [line for line in tail(run.agent_log(attempt)) if line.strip()] or ["it wrote nothing"]
    kind = RankLost if status < 0 else TrainingFailed
    return kind(f"torchrun {_death(status)}: {last[-1]} (log: {run.agent_log(attempt)})")


def _hardware(lines: list[str]) -> Match | None:
    """What says that a GPU broke, where a process was ended by it and could not say so itself."""
    match = find(_outer(lines[-_LAST_WORDS:]), CAUSE)
    return match if match is not None and match.signature.name == "gpu_fault" else None


def _in_vain(lines: list[str]) -> str:
    """NCCL's own words for a collective that did not end, where its watchdog ended the process: a hang, and no crash."""
    match = find(lines[-_LAST_WORDS:], SYMPTOM)
    return match.line.strip() if match is not None and match.signature.name == "collective_timeout" else ""


def diagnose(run: RunDir, attempt: int, nodes: Sequence[str] = (), state: str = "", words: Words = NONE) -> Diagnosis:
    """What explains the end of an attempt. `nodes` by their number in the job; `state` is the scheduler's word for the job's end, `words`
    are what it says in logs."""
    dead = evidence.deaths(run, attempt)
    ranks = list(_ranks(run, attempt, {death.rank: death.host for death in dead}))
    silent = [death for death in dead if death.rank not in {each.rank for each in ranks}]
    found = [*ranks, *map(_of_death, silent), *_agents(run, attempt, nodes), *_job(run, attempt, words)]
    found += [stated] if (stated := by_state(state, words)) else []
    first = min(found, key=lambda each: each.order)
    if first.kind == CAUSE and first.match is None:  # an exception that came after the job was ended came of that
        earlier = [each for each in found if each.kind == SCHEDULER and 0 < each.time < first.time - 1]
        first = min(earlier, key=lambda each: each.order, default=first)
    return first


# ---------------------------------------------------------------- ranks


def _ranks(run: RunDir, attempt: int, hosts: Mapping[int, str]) -> Iterator[Diagnosis]:
    """Of each rank that left a word of its failure."""
    logs = {rank: (path, *_newest_start(tail(path))) for rank, path in evidence.rank_logs(run, attempt)}
    report = evidence.newest_report(run, attempt)
    if report is not None and report.restart < max((restart for _, restart, _ in logs.values()), default=0):
        report = None  # of a start before the last one
    alone = _world(run) == 1
    for rank, (path, _, lines) in logs.items():
        if report is None or rank != report.rank:
            yield from _of_rank(path, lines, rank, hosts.get(rank, ""), alone)
    if report is not None:
        path = logs[report.rank][0] if report.rank in logs else run.error(attempt)
        lines = [*report.traceback.splitlines(), report.raised]
        yield _said(path, lines, report.raised, report.rank, report.host, report.time, alone)


def _newest_start(lines: list[str]) -> tuple[int, list[str]]:
    """torchrun's number of the last start within the attempt, and its lines."""
    marks = [(index, int(mark[1])) for index, line in enumerate(lines) if (mark := _RESTART.match(line))]
    return (marks[-1][1], lines[marks[-1][0] :]) if marks else (0, lines)


def _world(run: RunDir) -> int | None:
    try:
        return run.read_plan().world.size
    except RunError:
        return None


def _of_rank(path: Path, lines: list[str], rank: int, host: str, alone: bool) -> Iterator[Diagnosis]:
    time = evidence.changed(path)
    if FAILED in lines:
        lines = lines[len(lines) - lines[::-1].index(FAILED) :]
        yield _said(path, lines, _raised(lines), rank, host, time, alone)
        return
    words = _outer(lines[-_LAST_WORDS:])
    match = find(words, CAUSE) or find(words, SYMPTOM)
    if match is not None and not (alone and match.signature.kind == SYMPTOM):
        kind = HINT if match.signature.kind == CAUSE else SYMPTOM
        yield Diagnosis(kind, match.verdict, (Shown(path, match.line),), match, rank, host, time)


def _said(path: Path, lines: Sequence[str], raised: str, rank: int, host: str, time: float, alone: bool) -> Diagnosis:
    """`lines` are a traceback, or one line. A cause may be in what was raised first, a symptom only in what was raised last."""
    match = find([raised], CAUSE) or find(_outer(lines), CAUSE) or (None if alone else find([raised], SYMPTOM))
    frames = [line.strip() for line in lines if re.match(r'\s+File "', line)]
    own = [line for line in frames if "-packages" not in line and "<frozen" not in line] or frames
    shown: list[str] = [*own[-1:], *([match.line] if match and match.line != raised else []), raised]
    kind = CAUSE if match is None else match.signature.kind
    return Diagnosis(kind, match.verdict if match else raised, tuple(Shown(path, line) for line in shown), match, rank, host, time)


def _raised(lines: Sequence[str]) -> str:
    """The line that names the exception: the first below the last traceback; without one, the first of all."""
    below = [index for index, line in enumerate(lines) if line.startswith("Traceback (")][-1:]
    words = _outer(lines[below[0] + 1 :] if below else lines)
    return words[0] if words else "it failed, and its log does not say of what"


def _outer(lines: Sequence[str]) -> list[str]:
    """Without the frames of a traceback: they quote code, which may name any failure. C++ indents what it died of."""
    return [line for line in lines if line and (not line[0].isspace() or line.lstrip().startswith("what():"))]


# ---------------------------------------------------------------- torchrun


def _of_death(death: Death) -> Diagnosis:
    crash = -death.code in (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
    kind = CAUSE if crash else DEATH if death.code < 0 else EXIT
    time = death.time + 1 if crash else death.time  # torchrun has whole seconds: what a rank says within the same one came before
    return Diagnosis(kind, f"rank {death.rank} {_death(death.code)}", (death.shown,), None, death.rank, death.host, time)


def _agents(run: RunDir, attempt: int, nodes: Sequence[str]) -> Iterator[Diagnosis]:
    """Of each node whose torchrun failed itself; the failures of its workers are in its table."""
    there = dict(evidence.agent_logs(run, attempt))
    for number, path in there.items():
        lines = tail(path)
        if any("ChildFailedError" in line for line in lines):
            continue
        raised = next((index for index, line in enumerate(lines) if line.startswith("Traceback (")), None)
        words = _outer(lines[raised or 0 :])
        words = words if raised is not None else [line for line in words if line[0] != "["]  # [W…: a warning
        match = find(words, CAUSE) or find(words, SYMPTOM)
        host = nodes[number] if number < len(nodes) else ""
        if match is not None:
            verdict, absent = match.verdict, [name for index, name in enumerate(nodes) if index not in there]
            if match.signature.name == "rendezvous" and absent:
                verdict, host = verdict.replace("a node", ", ".join(absent), 1), absent[0]
            shown = (Shown(path, match.line),)
            yield Diagnosis(match.signature.kind, verdict, shown, match, None, host, evidence.changed(path))
        elif raised is not None:
            yield Diagnosis(CAUSE, f"torchrun failed: {words[-1]}", (Shown(path, words[-1]),), None, None, host, evidence.changed(path))


# ---------------------------------------------------------------- the batch shell and the scheduler


def _job(run: RunDir, attempt: int, words: Words) -> Iterator[Diagnosis]:
    lines, path = evidence.job_lines(run, attempt), run.log
    text = "\n".join(lines)
    for match in (find(lines, CAUSE, words=words), find(lines, SCHEDULER, words=words)):
        if match is not None:
            host, at = match.groups.get("host", ""), match.groups.get("at", "")
            if match.signature.kind == CAUSE and not host and words.host and (named := words.host.match(match.line)):
                host = named["host"]
            yield Diagnosis(match.signature.kind, match.verdict, (Shown(path, match.line),), match, None, host, evidence.seconds(at))
    word, line = evidence.last_word(run, attempt)
    reason = line.partition(f" {word}: ")[2]
    if word == "failed" and reason and not reason.startswith(_ONLY_THAT):
        yield Diagnosis(CAUSE, reason, (Shown(path, line),))
    if (said := _FROM_NODE.search(text)) and not find([said[0]], CAUSE, words=words):
        yield Diagnosis(CAUSE, said[1], (Shown(path, said[0]),))
    task = words.task.search(text) if words.task else None  # the first one: the others are ended because of it
    if task is not None and task["how"]:
        shown = (Shown(path, task[0]),)
        yield Diagnosis(DEATH, f"torchrun on {task['host']} was ended: {task['how']}", shown, None, None, task["host"])
    last = [line for line in lines if line.strip()][-3:]
    yield Diagnosis(REST, "it ended and left no word of why", tuple(Shown(path, line) for line in last))


def by_state(state: str, words: Words = NONE) -> Diagnosis | None:
    """What the scheduler's word for the end of a job says; None where it says no more than that it ended."""
    if state not in ENDS:
        return None
    plain = ENDS[state]
    known = next((each for each in words.signatures if each.name == plain.name and "{" not in each.verdict), plain)
    # lines that say the same come first: they can be shown
    return Diagnosis(known.kind, known.verdict, (), Match(known, "", {}), time=math.inf if known.kind == SCHEDULER else 0)


def _death(code: int) -> str:
    if code >= 0:
        return f"exited with status {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    guess = ", which is what running out of memory looks like" if name == "SIGKILL" else ""
    return f"was killed by {name}{guess}"
