"""One node of a batch job: `python -m launcher.node RUN_DIR COMMAND…`, started by the scheduler once per node; becomes COMMAND (torchrun).

What only the node knows is found here: the address and the interface that reach the first node, and whether it is the first node.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

from launcher.errors import ClusterError, LaunchError
from launcher.node.interfaces import addresses
from launcher.rundir.rundir import RunDir, umask_of
from launcher.trust import writing
from launcher.verdict import headway

_ANY_PORT = 9  # discard; nothing is sent


def main(argv: list[str]) -> int:
    run, command = RunDir(argv[1]), argv[2:]
    os.umask(umask_of(run))
    try:
        if not run.plan.is_file():
            raise ClusterError(f"{socket.gethostname()} does not see {run.plan}; put runs_dir=… on a file system that every node shares")
        number = _number(run)
        limit = os.environ.get("LAUNCHER_LIMIT") if number == 0 else None  # where the batch host has no Python that could judge
        if limit and (why := headway.of_job(run, int(os.environ["LAUNCHER_ATTEMPT"]), float(limit))):
            raise ClusterError(why)
        head = os.environ["LAUNCHER_HEAD"]
        address = head if number == 0 else address_towards(head)
    except LaunchError as error:
        print(f"launcher: {error}", file=sys.stderr)
        return error.exit_code
    attempt = int(os.environ["LAUNCHER_ATTEMPT"])
    os.environ.update(settings(number, address, interface_of(address)))
    os.environ["LAUNCHER_MEETING"] = str(run.attempt(attempt))  # where the key is
    _redirect(run.agent_log(attempt, number))
    # Schedulers send TERM, and users USR1 or USR2, to every process of the job. The workers save and stop; torchrun, which would kill
    # them after a grace of its own or die at once and leave them, is not to notice. A worker sets handlers of its own.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    os.execvp(command[0], command)
    raise AssertionError("exec does not return")


def _number(run: RunDir) -> int:
    """Of this node in the job. Raises ClusterError, or RunError where the plan cannot be read."""
    if not (word := run.read_plan().hear("number")).isdecimal():
        raise ClusterError(f"{socket.gethostname()} is not told which node of the job it is; start it by the run's job.sh")
    return int(word)


def address_towards(head: str) -> str:
    """This node's address on the route to `head`; no packet leaves. Raises ClusterError where there is no route or only a loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((head, _ANY_PORT))
        except OSError as error:
            raise ClusterError(
                f"{socket.gethostname()} has no route to the first node at {head} ({error.strerror}); name the interface between the nodes "
                "with cluster.interface=…"
            ) from error
        address = str(probe.getsockname()[0])
    if address.startswith("127."):
        raise ClusterError(
            f"{socket.gethostname()} reaches the first node at {head} by loopback only; name an interface: cluster.interface=…"
        )
    return address


def interface_of(address: str) -> str | None:
    """Name of the interface that has `address`, None where the kernel does not tell."""
    return next((name for name, found in addresses() if found == address), None)


def settings(number: int, address: str, interface: str | None) -> dict[str, str]:
    """What torchrun and the communication libraries read. Nobody has to resolve a host name."""
    found = {
        "LAUNCHER_AGENT_PID": str(os.getpid()),  # kept by exec: each worker compares its parent with it
        "PET_LOCAL_ADDR": address,
        "PET_RDZV_CONF": f"is_host={'true' if number == 0 else 'false'},join_timeout=300",
        "PET_SIGNALS_TO_HANDLE": "SIGQUIT",
    }
    if interface is not None and "GLOO_SOCKET_IFNAME" not in os.environ:  # the site's cluster yaml knows better
        found["GLOO_SOCKET_IFNAME"] = interface
    if (named := os.environ.get("LAUNCHER_INTERFACE")) and "NCCL_SOCKET_IFNAME" not in os.environ:
        found["NCCL_SOCKET_IFNAME"] = f"={named}"  # exactly: without the sign, eth1 is eth10 too. Else NCCL chooses, and knows InfiniBand
    return found


def _redirect(log: Path) -> None:
    """stdout and stderr into this node's log of this attempt."""
    descriptor = writing.to_append(log)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
