"""What is true of all clusters on which a scheduler starts the jobs: a run is handed over once, with the code as it is now."""

from __future__ import annotations

import shlex
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol

from launcher.clusters.protocol import Cluster, Part
from launcher.errors import ClusterError, NoAnswer, RunError
from launcher.verdict import standing

if TYPE_CHECKING:
    from launcher.compose.freeze import Frozen
    from launcher.rundir.rundir import RunDir
    from launcher.rundir.sweep import Sweep
    from launcher.verdict.jobs import Job


class Batch(Cluster, Protocol):
    """Beside the options: `world`, `threads`, `render`, `submit`, `jobs` and `cancel`. All else has a meaning here."""

    attached: ClassVar[bool] = False
    max_restarts: int = 0
    requeue: bool = False

    @abstractmethod
    def submit(self, here: RunDir) -> str:
        """Give the script to the scheduler. Returns the job's id, or `id;cluster`.

        Raises ClusterError where it was refused, NoAnswer where it is not known whether there is a job now.
        """
        ...

    def prepare(self, frozen: Frozen, here: RunDir) -> None:
        if frozen.code is not None and frozen.code.place is None:
            frozen.code.source.copy_to(here.code)

    def start(self, here: RunDir, when: str = "") -> None:
        """Raises RunError where it is queued or running already, whatever `submit` raises."""
        from launcher.rundir import lock

        with lock.in_turn(
            here.path / ".submit"
        ):  # of two `resume`s at once the second looks at the queue when the first one's job is there
            try:
                if (job := self.job_of(here)) is not None:
                    raise RunError(already(here, job))
                if here.log.is_symlink():
                    here.log.unlink()  # the scheduler would write where it leads: it may be a copy of somebody else's run
                given = self.submit(here)
            except NoAnswer as error:
                kept = f"the script is kept in {here}, and nothing is submitted twice by trying again: python -m launcher resume {here}"
                raise NoAnswer(f"{error}; {kept}") from error
            note(here, given)
        print(_told(here, given, when))

    def array(self, here: Sweep, parts: Sequence[Part]) -> list[str]:
        """One job for each, one after the other."""
        numbers: list[str] = []
        for part in parts:
            try:
                given = self.submit(part.run)
            except NoAnswer as error:
                missing = f"the sweep is kept, submit what is missing of it with: python -m launcher resume {here.id}"
                raise ClusterError(f"{error}; {missing}") from error
            note(part.run, given)
            numbers.append(given.partition(";")[0])
        return numbers

    def job_of(self, here: RunDir) -> Job | None:
        if not standing.job_ids(here):
            return None
        queue = self.jobs([here])
        if not queue.answers_for(here):
            raise NoAnswer(queue.excuse)
        job = queue.jobs.get(here.path)
        return job if job is not None and job.active else None

    def examine(self, here: RunDir, when: str) -> int:
        from launcher.clusters import examined

        return examined.in_queue(self, here, when)


def note(here: RunDir, given: str) -> None:
    """The ledger's line on a job."""
    number, _, cluster = given.partition(";")
    here.log_event("queued", job=number, **({"cluster": cluster} if cluster else {}))


def already(here: RunDir, job: Job) -> str:
    return (
        f"{here} is {job.state.lower()} as job {job.id} already; watch it with: python -m launcher logs {here} -f, end it with: "
        f"python -m launcher cancel {here}"
    )


def _told(here: RunDir, given: str, when: str) -> str:
    run, number = shlex.quote(str(here)), given.partition(";")[0]
    rows = [
        ("job", f"{number}{f' (estimated start {when})' if when else ''}"),
        ("watch", f"python -m launcher logs {run} -f"),
        ("state", f"python -m launcher status {run}"),
        ("cancel", f"python -m launcher cancel {run}"),
    ]
    return "\n".join(f"{name:<8}{value}" for name, value in rows)
