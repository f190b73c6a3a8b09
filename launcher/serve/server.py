"""The server itself: uvicorn, with a patience for clients that say nothing."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from collections.abc import Sequence
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from launcher.errors import ConfigError, RunError
from launcher.predict.predictor import Predictor
from launcher.serve.app import Limits, application

KEEP_ALIVE_SECONDS = 5
_CONNECTIONS = 512
_HEADER_BYTES = 16 << 10
LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")


def serve(predictors: Sequence[Predictor], host: str, port: int, limits: Limits) -> None:
    """Until it is told to end (Ctrl-C, TERM): what is being answered is answered first. Prints its address once it listens. Raises
    ConfigError where it cannot, RunError where nobody would learn where it is."""
    listening = _listening(host, port)
    at = listening.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    app = application(predictors, limits, ["*"] if host not in LOOPBACK else LOOPBACK)
    config = uvicorn.Config(
        app,
        http=_patient_for(limits.seconds),
        ws="none",
        loop="asyncio",
        log_level="warning",
        access_log=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(limits.seconds) + 1,
        h11_max_incomplete_event_size=_HEADER_BYTES,
        server_header=False,
    )
    server = _Announced(config, f"http://{shown}:{at}/   (POST pictures or JSON to /predict; /health, /metrics; Ctrl-C ends it)")
    try:
        server.run(sockets=[listening])
    except KeyboardInterrupt:
        print("ended", file=sys.stderr)
    finally:
        listening.close()
    if server.unheard is not None:
        why = server.unheard.strerror or server.unheard
        raise RunError(f"its address cannot be written to where its output goes ({why}); make room, or send the output elsewhere")


class _Announced(uvicorn.Server):
    """Says where it is once it answers, and heeds signals: one that came earlier would be lost among the imports."""

    def __init__(self, config: uvicorn.Config, line: str) -> None:
        super().__init__(config)
        self._line = line
        self.unheard: OSError | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        try:
            print(self._line, flush=True)
        except OSError as error:
            self.unheard, self.should_exit = error, True
            await self.shutdown(sockets)  # uvicorn does not, of one that is to end before it has begun


def _listening(host: str, port: int) -> socket.socket:
    """Raises ConfigError."""
    made = None
    try:
        made = socket.socket(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0])
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(1024)
    except socket.gaierror as error:
        raise ConfigError(f"host={host}: there is no such address ({error.strerror}); type host=127.0.0.1") from error
    except OSError as error:
        if made is not None:
            made.close()
        key = "host" if error.errno == errno.EADDRNOTAVAIL else "port"
        value = host if key == "host" else port
        other = "host=127.0.0.1" if key == "host" else "another, or port=0 for any that is free"
        raise ConfigError(f"{key}={value}: nobody can listen there ({error.strerror}); type {other}") from error
    return made


def _patient_for(seconds: float) -> type[asyncio.Protocol]:
    """uvicorn waits for ever for the head of a request that has begun, the first one or a later one; here for as long as for a body."""

    class Patient(H11Protocol):
        _end: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._rest()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            self._wait()
            super().data_received(data)

        def on_response_complete(self) -> None:
            self._rest()
            super().on_response_complete()

        def _wait(self) -> None:
            """From the first byte on: one that comes now and then wins nothing."""
            if self._end is None:
                self._end = self.loop.call_later(seconds, self._give_up)

        def _rest(self) -> None:
            if self._end is not None:
                self._end.cancel()
                self._end = None

        def _give_up(self) -> None:
            self._end = None
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

    return Patient
