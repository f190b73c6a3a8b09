"""What is true of all clusters where the launcher stays with its run: it starts a script here, shows the first rank, waits for the end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from launcher.clusters.protocol import Cluster

if TYPE_CHECKING:
    from launcher.errors import LaunchError
    from launcher.plan import Plan
    from launcher.rundir.rundir import RunDir


class Attended(Cluster, Protocol):
    """Beside the options: `world`, `threads` and `render`. The script makes the attempt's directory and writes its own process into
    `agent.pid` there; whatever it has started ends with that process."""

    attached: ClassVar[bool] = True
    grace: ClassVar[float] = 0.0
    """Seconds, from TERM on, in which the script ends what it has started on other machines."""

    def submit_argv(self, plan: Plan) -> list[str]:
        """`-p`: what BASH_ENV and exported functions of the user's shell would change, they do not; what is started has them still."""
        return ["bash", "-p", f"{plan.run_dir}/job.sh"]

    def stay(self, here: RunDir) -> contextlib.AbstractContextManager[None]:
        from launcher.clusters import attend

        return attend.alone(here)

    def start(self, here: RunDir, when: str = "") -> dict[str, Any] | None:
        from launcher.clusters.attend import attend

        return attend(here, here.read_plan(), self)

    def again(self, here: RunDir, is_asked: Callable[[], bool]) -> None:
        """Before another attempt, after one that was lost: wait for what it needs, until that `is_asked` to stop. Raises ClusterError where
        it does not come, Fewer where the run is to go on without."""

    def explained(self, here: RunDir, attempt: int, error: LaunchError) -> LaunchError:
        """`error` is what the files of an attempt say of its end: that, or what is behind it. RankLost: another attempt may follow. Of an
        attempt that could not begin it leaves nothing."""
        return error

    def see_through(self, here: RunDir) -> dict[str, Any]:
        from launcher.clusters import through

        return through.see(here, self)

    def examination(self) -> Mapping[str, Any]:
        return {"max_restarts": 0}

    def examine(self, here: RunDir, when: str) -> int:
        from launcher.clusters import examined

        return examined.here_and_now(here, self.submit_argv(here.read_plan()), self.grace)
