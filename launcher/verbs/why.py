"""`why RUN`: one verdict on a run, joined from what the scheduler says, what the batch shell said and what the processes left."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from launcher.clusters import kinds, queues
from launcher.clusters.protocol import Cluster
from launcher.doctor.findings import expand
from launcher.errors import ClusterError, ConfigError, LaunchError, RunError
from launcher.rundir import lookup, origin, progress
from launcher.rundir.rundir import RunDir
from launcher.trust import reading, terminal
from launcher.verdict import evidence, flaws, signatures, standing
from launcher.verdict.diagnose import REST, Diagnosis, by_state, diagnose
from launcher.verdict.evidence import Shown
from launcher.verdict.jobs import Job
from launcher.verdict.signatures import CAUSE, SCHEDULER
from launcher.verdict.standing import Standing

SILENT_SECONDS = 600.0
"""Without a new line in rank 0's log: said of a run that goes on."""
_MOST_ATTEMPTS = 10

_ENDED = {
    "done": "all steps done",
    "requeued-limit": "requeued before the time limit",
    "requeued-preempted": "told to stop: saved and requeued",
    "requeued-node": "requeued: a node no longer answered",
    "requeued-doctor": "requeued without the nodes that the doctor named",
    "fenced": "a newer attempt has taken over",
    "interrupted": "interrupted: told to stop, it ended before it had saved",
}
"""The batch shell's last word on an attempt -> how it ended, where there is no more to find out."""
_STOPPED = {
    "file": "as the STOP file asked, which Ctrl-C and a signal to the launcher write",
    "signal": "as a signal asked",
    "deadline": "before the time limit",
}
_WAITS_AGAIN = ("preempted", "node_failure", "requeued")  # signatures


@dataclass(frozen=True)
class Answer:
    verdict: str
    next: str
    where: str = ""
    because: Sequence[str] = ()


class Case:
    """A run and what is known of it. Nothing read here is trusted to be what the launcher once wrote."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.newest = run.newest_attempt()
        self.events = run.read_events()
        self.jobs = origin.own_jobs(run)
        self.newest_job = [job.partition(";")[0] for job in self.jobs[-1:]]  # without its cluster
        self.summary: dict[str, Any] = run.read_summary() or {}
        self.word = shlex.quote(str(run))
        self.resume = f"python -m launcher resume {self.word}"
        self.now, self.excuse = self._look()
        self.kind = self._kind()

    def _look(self) -> tuple[Standing, str]:
        queue = queues.ask([self.run])
        return standing.standing(self.run, queue), f"the scheduler does not say: {queue.excuse}" if queue.excuse else ""

    def _kind(self) -> type[Cluster]:
        try:
            return kinds.of(self.run)
        except RunError:  # which the queue's excuse has said of one that was handed over
            return kinds.Unknown

    @property
    def is_batch(self) -> bool:
        return bool(self.jobs) or not self.kind.attached

    def began(self, attempt: int) -> tuple[str, str]:
        """Its job, and its nodes as the scheduler names them; a dash where there are none."""
        said = [event for event in self.events if event["event"] == "attempt" and event.get("attempt") == attempt]
        job = evidence.tail(self.run.attempt(attempt) / "job")[:1]
        return job[0] if job else "-", str(said[-1].get("reason")).removeprefix("nodes ") if said else "-"

    def nodes(self, attempt: int) -> list[str]:
        try:
            return expand(self.began(attempt)[1].strip("-"))
        except ValueError:
            return []

    def diagnose(self, attempt: int, state: str = "") -> Diagnosis:
        return diagnose(self.run, attempt, self.nodes(attempt), state, self.kind.words())

    def shown(self, line: Shown) -> str:
        """With its path as one finds it from the run directory."""
        return f"{line.path.relative_to(self.run.path)}: {line.text}"


def why(words: list[str]) -> int:
    """Print what happened, where, what shows it and what to type next. Raises ConfigError for a run that is not there."""
    words, everywhere = lookup.asked(words)
    if len(words) != 1:
        raise ConfigError("why takes one run: a path, an id or a name; for example: python -m launcher why cifar")
    case = Case(lookup.find(words[0], everywhere=everywhere))
    for problem in filter(None, (case.excuse, flaws.of(case.run))):
        print(f"launcher: warning: {problem}", file=sys.stderr)
    answer = _answer(case)
    because = [("" if number else "because", line) for number, line in enumerate(answer.because[:5])]
    told = ("prelude", evidence.prelude(case.events))
    for name, text in (("verdict", answer.verdict), ("where", answer.where), *because, told, ("next", answer.next)):
        if text:
            print(f"{name:<11}{terminal.one_line(text)}")
    _print_attempts(case)
    print(f"{'directory':<11}{case.run}")
    return 0


def _answer(case: Case) -> Answer:
    word, job = case.now.word, case.now.job
    if case.now.waits and job is not None:
        return _pending(case, job)
    if word == "done":
        return _done(case)
    if evidence.ended_by_prelude(case.events) and not (job is not None and job.active):
        words = f"the prelude ended the job: {evidence.prelude(case.events)}"
        return Answer(words, f"in a new run: a prelude without that; if it was a node's fault: {case.resume}")
    if case.is_batch and not case.jobs and (source := origin.original(case.run)):
        return Answer(f"a copy of {source}, which has not gone on by itself yet: the jobs in its ledger are that one's", case.resume)
    if case.newest is None or case.began(case.newest)[0] not in ("-", *case.newest_job):
        return _never_began(case)
    if word in ("starting", "running", "unknown"):
        return _going_on(case, case.newest)
    return _over(case, case.newest)


# ---------------------------------------------------------------- it goes on, or went well


def _pending(case: Case, job: Job) -> Answer:
    words, advice = case.kind.waits(job, case.word)
    start = "no estimate of its start" if job.start in ("N/A", "") else f"estimated start {job.start}"
    because = f"{case.kind.asked}: job {job.id} {job.state} ({job.reason}) since {job.submitted}, {start}"
    return Answer(f"it waits: {words} ({job.reason})", advice, because=(because,))


def _done(case: Case) -> Answer:
    steps, attempts = case.summary.get("steps", "?"), case.summary.get("attempts", "?")
    figures = ", ".join(f"{name} {_figure(value)}" for name, value in case.summary.items() if name.startswith("test_"))
    because = [f"summary.json: {figures}"] if figures else []
    return Answer(
        f"done: all {steps} steps, in {attempts} attempt{'' if attempts == 1 else 's'}", standing.after(case.run) or "nothing", "", because
    )


def _figure(value: object) -> object:
    number = reading.number(value)
    return value if number is None else f"{number:.6g}"


def _going_on(case: Case, attempt: int) -> Answer:
    job, log = case.now.job, case.run.rank_log(attempt, 0)
    step, silent = evidence.step(case.run, attempt), time.time() - evidence.changed(log)
    verdict = "it runs" if step is None else f"it runs, at step {step}"
    verdict = {"unknown": "not known: nobody says whether it still runs", "starting": "its processes start"}.get(case.now.word, verdict)
    if job is not None:
        verdict += f", on {job.nodes} for {job.elapsed} as job {job.id}"
    there = dict(evidence.agent_logs(case.run, attempt))
    absent = [name for number, name in enumerate(case.nodes(attempt)) if number not in there]
    if absent and case.now.word == "starting":
        verdict += f"; nothing has come of {', '.join(absent)} yet"
    elif log.exists() and silent > SILENT_SECONDS:
        verdict += f"; rank 0 has written nothing for {progress.duration(silent)}"
    because = [case.shown(Shown(log, line)) for line in evidence.tail(log) if line.strip()][-1:]
    return Answer(verdict, f"python -m launcher logs {case.word} -f", "", because)


# ---------------------------------------------------------------- it is over


def _never_began(case: Case) -> Answer:
    """Neither the run, nor the job it was given last."""
    if not case.jobs:
        begins = Answer("no attempt of it has begun; whatever started it is at it, or is dead", case.resume)
        return _refused(case) if case.is_batch else begins
    job, number = case.now.job, case.jobs[-1].partition(";")[0]
    if case.excuse or (case.now.alive and job is not None):
        return Answer(f"submitted as job {number}; nothing has come of it yet", f"python -m launcher status {case.word}")
    state, shown = (job.state, f"{case.kind.asked}: job {number} {job.state} ({job.reason})") if job is not None else ("", "")
    if job is None and (account := case.kind.accounted(case.jobs[-1])) is not None:
        state, shown = account.state, account.shown
        if not account.is_over:
            words = f"job {number} is {state}, and {case.kind.asked} does not know it"
            return Answer(words, f"python -m launcher status {case.word}", "", [shown])
    diagnosis = case.diagnose(0, state) if case.newest is None else by_state(state, case.kind.words()) or Diagnosis(REST, "")
    because = [*(case.shown(line) for line in diagnosis.lines), *([shown] if shown else [])]
    if case.now.word == "cancelled" or state == "CANCELLED":
        return Answer(f"job {number} was cancelled before it began", case.resume, "", because)
    if diagnosis.kind != REST:
        return Answer(diagnosis.verdict, _advice(case, diagnosis), "", because)
    if not case.run.log.exists() and state == "FAILED":
        blind = next(each for each in signatures.SIGNATURES if each.name == "not_visible" and "{" not in each.verdict)
        return Answer(f"job {number} ended as {state} and wrote nothing: {blind.verdict}, it seems", blind.advice, "", because)
    return Answer(f"job {number} is no longer in the queue, and nothing came of it", case.resume, "", because)


def _refused(case: Case) -> Answer:
    """A batch run without a job: ask what the scheduler has against it."""
    try:
        start = case.kind.estimate(case.run)
    except ClusterError as error:
        match = signatures.find([str(error)], CAUSE, words=case.kind.words())
        advice = match.advice(run=case.word, python="", job="") if match else case.resume
        return Answer(f"not submitted: {match.verdict if match else error}", advice, "", [str(error)] if match else [])
    except RunError as error:
        return Answer(f"not submitted: {error}", "start a new run")
    return Answer(f"not submitted; the scheduler would take it now and start it at {start}", case.resume)


def _over(case: Case, attempt: int) -> Answer:
    job, state, shown = case.now.job, "CANCELLED" if case.now.word == "cancelled" else "", ""
    if job is not None and not job.active:
        state, shown = job.state, f"{case.kind.asked}: job {job.id} {job.state} ({job.reason})"
    diagnosis = _ending(case, attempt, state)
    if diagnosis.kind == REST and job is None and case.jobs and not case.excuse:
        account = case.kind.accounted(case.jobs[-1])
        state, shown = (account.state, account.shown) if account is not None else ("", "")
        diagnosis = _ending(case, attempt, state)
    by_us = any(event["event"] == "cancelled" and event.get("job") in case.newest_job for event in case.events)
    if by_us and diagnosis.match and diagnosis.match.signature.name == "cancelled":
        diagnosis = replace(diagnosis, verdict="cancelled with `launcher cancel`")
    because = [case.shown(line) for line in diagnosis.lines]
    if shown and diagnosis.kind in (SCHEDULER, REST):
        because = [*because[:4], shown]
    rank = [] if diagnosis.rank is None else [f"rank {diagnosis.rank}"]
    step = evidence.step(case.run, attempt, diagnosis.rank)
    who = " on ".join([*rank, *([diagnosis.host] if diagnosis.host else [])])
    place = ", ".join([*([who] if who else []), f"attempt {attempt}", *([] if step is None else [f"step {step}"])])
    return Answer(diagnosis.verdict, _advice(case, diagnosis), place, because)


def _ending(case: Case, attempt: int, state: str) -> Diagnosis:
    """How an attempt ended. `state`: the scheduler's word for how the job did, where that was its last attempt."""
    word, line = evidence.last_word(case.run, attempt)
    shown = (Shown(case.run.log, line),) if line else ()
    found, stated = case.diagnose(attempt, state), by_state(state, case.kind.words())
    left = word.startswith("requeued") or (word == "taken" and found.match and found.match.signature.name in _WAITS_AGAIN)
    if left and stated is not None:
        return replace(stated, verdict=f"{stated.verdict} while it waited for its next attempt", lines=shown)
    if word in _ENDED:
        return Diagnosis("", _ENDED[word], shown)
    if word == "stopped" and line:
        return Diagnosis("", f"stopped: {_reason(line)}", shown)
    if word == "stuck":
        before = case.diagnose(attempt - 1) if attempt else found
        verdict, match = (
            f"stuck: {_reason(line)}; the last of them: {before.verdict}",
            signatures.find([line], CAUSE, words=case.kind.words()) or before.match,
        )
        return replace(before, verdict=verdict, lines=(*shown, *before.lines), match=match)
    outcome, by = _outcome(case, attempt)
    if word == "stopped" or (word == "" and outcome in ("stopped", "done") and (not case.jobs or found.kind == REST)):
        return Diagnosis("", _ENDED["done"] if outcome == "done" else f"stopped and saved {_STOPPED.get(by, '')}".strip())
    silent = {"": "killed: no process of it is left, and none could say why", "taken": "the scheduler took the job off its nodes"}
    return replace(found, verdict=silent.get(word, found.verdict)) if found.kind == REST else found


def _outcome(case: Case, attempt: int) -> tuple[str, str]:
    """Rank 0's own words for the end of an attempt, which stay beside its logs: done, failed, hung, or stopped and by what."""
    words = (evidence.tail(case.run.outcome(attempt))[:1] or [""])[0].split()
    if not words and not case.jobs and case.summary.get("attempt") == attempt:
        words = [str(case.summary.get("state")), str(case.summary.get("stopped_by"))]
    return words[0] if words else "", words[1] if len(words) > 1 else ""


def _reason(line: str) -> str:
    """What the batch shell says behind its word, without what to type."""
    return line.partition(" launcher: ")[2].partition(": ")[2].partition("; ")[0]


def _advice(case: Case, diagnosis: Diagnosis) -> str:
    if case.now.alive:
        return "nothing: it goes on by itself"
    if diagnosis.match is not None:
        try:
            python = case.run.read_plan().python
        except LaunchError:
            python = "the python of the run"
        return diagnosis.match.advice(run=case.word, python=python, job="".join(case.newest_job))
    if diagnosis.kind == CAUSE:
        copied = f"correct it and start a new run; {case.resume} goes on with the code as it was submitted"
        here = f"correct it, then: {case.resume}; where the config is wrong, start a new run, for this one goes on with its own"
        return copied if case.is_batch else here
    return case.resume


# ---------------------------------------------------------------- every attempt


def _print_attempts(case: Case) -> None:
    """Where there was more than one: how each of them ended."""
    if not case.newest:
        return
    rows = [("attempt", "job", "nodes", "ended")]
    for attempt in range(max(0, case.newest + 1 - _MOST_ATTEMPTS), case.newest + 1):
        goes_on = attempt == case.newest and case.now.word in ("starting", "running", "unknown") and not case.run.how_it_ended(attempt)
        ended = "goes on" if goes_on else _ending(case, attempt, "").verdict
        rows.append((str(attempt), *case.began(attempt), ended))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    print()
    for row in rows:
        print(terminal.one_line("  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)).rstrip()))
    print()
