"""torchrun, with two places of ours to meet: `python -m launcher.train.torchrun` and torchrun's own words.

`--rdzv-backend=one-node` needs no port (`one-node-port` has one, for scripts), `--rdzv-backend=sealed` a key
(launcher/train/world/meeting.py). torch's own listens on every interface, asks nobody who he is, and unpickles what it finds. torch would
also load a handler by its entry point: that takes a launcher which is installed, and a job runs a copy of its code, in a container maybe.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from pathlib import Path
from typing import Any

from torch.distributed import HashStore, TCPStore, run  # pyright: ignore[reportPrivateImportUsage]  # documented as public
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)
from torch.distributed.elastic.rendezvous.c10d_rendezvous_backend import C10dRendezvousBackend, create_backend
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import create_handler

from launcher.errors import LaunchError
from launcher.train.world import meeting
from launcher.train.world.sealed import Sealed


class OneNode(RendezvousHandler):
    """There is nobody to wait for; the workers meet in files, or where those cannot be locked at a sealed port of the loopback."""

    def __init__(self, parameters: RendezvousParameters) -> None:
        if parameters.max_nodes != 1:
            raise ValueError(f"--rdzv-backend=one-node is for one node, not for {parameters.max_nodes}")
        self._run_id = parameters.run_id
        self._tcp = None if meeting.make() else _on_loopback()

    def get_backend(self) -> str:
        return "one-node"

    def next_rendezvous(self) -> RendezvousInfo:
        # MASTER_ADDR and MASTER_PORT of the workers: port 0 is nobody's, so that nothing is reached by mistake
        return RendezvousInfo(HashStore(), 0, 1, RendezvousStoreInfo("127.0.0.1", self._tcp.port if self._tcp else 0))

    def is_closed(self) -> bool:
        return False

    def set_closed(self) -> None:
        pass

    def num_nodes_waiting(self) -> int:
        return 0

    def get_run_id(self) -> str:
        return self._run_id

    def shutdown(self) -> bool:
        return True


class OneNodePort(OneNode):
    """Its workers know nothing of ours: the agent's store listens for them on the loopback, as torchrun's own does on all interfaces."""

    def get_backend(self) -> str:
        return "one-node-port"

    def next_rendezvous(self) -> RendezvousInfo:
        self._tcp = _on_loopback()  # another at each restart: what the processes before have left in one would mislead the next
        return super().next_rendezvous()

    @property
    def use_agent_store(self) -> bool:
        return True


class _SealedBackend(C10dRendezvousBackend):
    @property
    def name(self) -> str:
        """torch compares it with the word of the command."""
        return "sealed"


def _on_loopback() -> Any:
    """torch's own listens on every interface, unless it is given a socket that does not."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    return TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())


def sealed(parameters: RendezvousParameters) -> RendezvousHandler:
    """torch's own handler over a store that is sealed: what it unpickles was written by who has the key."""
    _, tcp = create_backend(parameters)
    store = Sealed(tcp, meeting.secret(), "nodes")
    backend = _SealedBackend(store, f"sealed.{parameters.run_id}")  # create_backend has left a plain word under the plain name
    return create_handler(store, backend, parameters)


def keep_compiled() -> None:
    """What torch compiles it would look for in TMPDIR, below the user's name, and run, whoever has put it there: not in one's home.
    Where there is no home it stays so.
    """
    with contextlib.suppress(OSError, RuntimeError):
        place = Path("~/.cache/launcher/torchinductor").expanduser().absolute()
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        if place.stat().st_uid == os.geteuid() and os.access(place, os.W_OK):
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(place))


def register() -> None:
    rendezvous_handler_registry.register("one-node", OneNode)
    rendezvous_handler_registry.register("one-node-port", OneNodePort)
    rendezvous_handler_registry.register("sealed", sealed)


def main(words: list[str]) -> int:
    os.environ.pop("TORCH_GLOO_LAZY_INIT", None)  # a connection that is made later is not proven (launcher/train/world/proof.py)
    register()
    keep_compiled()
    try:
        # Without an endpoint torch warns of an address that nobody gave. Without the other it makes a directory in TMPDIR at each start,
        # for logs and errors that ours write into the run, and leaves it there.
        run.main(["--rdzv-endpoint=none", f"--log-dir={os.devnull}", *words])
    except LaunchError as error:
        print(f"launcher: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
