"""An export behind HTTP: `/predict`, `/health`, `/metrics`, and a page for a person."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import threading
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from launcher.errors import RunError
from launcher.predict.images import Refused
from launcher.predict.predictor import Predictor, Ready
from launcher.serve import example
from launcher.serve.batcher import Batcher, Full
from launcher.serve.metrics import Metrics
from launcher.serve.page import page
from launcher.trust import reading


class Limits(NamedTuple):
    batch: int = 32
    """Inputs that are computed at once."""
    wait: float = 0.002
    """Seconds that a batch is held open for those on their way."""
    queue: int = 1024
    """Inputs that may wait; one more is told to come again (503)."""
    bytes: int = 16 << 20
    """Of a request's body; more are not read (413)."""
    seconds: float = 30.0
    """For a body to come, and for an answer (408, 504)."""
    rows: int = 1024
    """In one request."""


def application(predictors: Sequence[Predictor], limits: Limits, hosts: Sequence[str]) -> Starlette:
    """`hosts`: names that a client may have this server by; another's is a page that was led here (DNS rebinding)."""
    service = Service(predictors, limits)
    routes = [
        Route("/", service.page),
        Route("/predict", service.predict, methods=["POST"]),
        Route("/health", service.health),
        Route("/metrics", service.metrics),
    ]
    return Starlette(routes=routes, lifespan=service.lifespan, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[*hosts])])


class Service:
    def __init__(self, predictors: Sequence[Predictor], limits: Limits) -> None:
        self._predictors, self._limits, self._counted = predictors, limits, Metrics()
        self._readers = ThreadPoolExecutor()
        self._batcher: Batcher | None = None

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self._batcher = Batcher(self._predictors, self._limits.batch, self._limits.wait, self._limits.queue)
        try:
            yield
        finally:
            await self._batcher.close()
            self._readers.shutdown(wait=True, cancel_futures=True)

    async def page(self, _: Request) -> Response:
        return HTMLResponse(page(self._predictors[0]), headers={"Content-Security-Policy": _POLICY})

    async def health(self, _: Request) -> Response:
        first = self._predictors[0]
        run = first.told["run"]
        return JSONResponse({"status": "ok", "predicts": first.predicts, "run": f"{run['name']}/{run['id']}", "step": run["step"]})

    async def metrics(self, _: Request) -> Response:
        return PlainTextResponse(self._counted.text(self._running), media_type="text/plain; version=0.0.4")

    async def predict(self, request: Request) -> Response:
        began = time.perf_counter()
        self._running.on_the_way += 1
        try:
            response = await self._answered(request)
        except ClientDisconnect:
            response = _error(499, "the client has gone")
        finally:
            self._running.on_the_way -= 1
        self._counted.took(response.status_code, time.perf_counter() - began)
        return response

    @property
    def _running(self) -> Batcher:
        assert self._batcher is not None, "the application is up"
        return self._batcher

    async def _answered(self, request: Request) -> Response:
        limits = self._limits
        try:
            body = await asyncio.wait_for(self._body(request), limits.seconds)
        except asyncio.TimeoutError:
            return _error(408, f"the body did not come within {limits.seconds:g} s")
        except HTTPException as error:
            return _error(error.status_code, error.detail)
        if not body:
            return _error(400, "there is no body; send a picture, or JSON")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        at = request.headers.get("host", "127.0.0.1")
        try:
            if kind == "application/json":
                return await asyncio.wait_for(self._of_json(body, at), limits.seconds)
            return await self._of_picture(body, kind, at)
        except Refused as error:
            return _error(422, str(error))
        except Full:
            return _error(503, "too many are waiting; come again", {"Retry-After": "1"})
        except asyncio.TimeoutError:
            return _error(504, f"there was no answer within {limits.seconds:g} s")
        except RunError as error:
            return _error(500, str(error))

    async def _body(self, request: Request) -> bytes:
        """Raises HTTPException: of what is too long no more is read than may be."""
        most = self._limits.bytes
        said = request.headers.get("content-length", "0")
        if said.isdecimal() and int(said) > most:
            raise HTTPException(413, f"{int(said):,} bytes are more than {most:,}")
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > most:
                raise HTTPException(413, f"it has more than {most:,} bytes")
        return bytes(body)

    async def _of_picture(self, body: bytes, kind: str, at: str) -> Response:
        """`at`: this server's address, as the client knows it. Raises Refused, Full, TimeoutError."""
        first = self._predictors[0]
        if first.images is None:
            raise Refused(example.takes(first, at))
        if kind == "multipart/form-data":
            raise Refused(f"it is a form (curl -F), which is not read here; {example.takes(first, at)}")
        try:
            ready = await asyncio.get_running_loop().run_in_executor(self._readers, first.picture, body)
        except Refused as error:
            if kind == _FORM:  # of curl -d, which leaves line breaks out
                raise Refused(f"{error}; {example.takes(first, at)}") from error
            raise
        return self._told(await asyncio.wait_for(self._running.answer(ready), self._limits.seconds))

    async def _of_json(self, body: bytes, at: str) -> Response:
        """`{"rows": […]}` or `{"text": …}`. Raises Refused, Full."""
        first = self._predictors[0]
        try:
            given = reading.record(body)
        except ValueError as error:
            return _error(400, f"the body is no JSON object ({error}); {example.takes(first, at)}")
        if first.preprocessing["kind"] == "text":
            if not isinstance(given.get("text"), str):
                raise Refused(example.takes(first, at))
            return await self._of_text(given["text"])
        rows = given.get("rows")
        if first.rows is None or rows is None:
            raise Refused(example.takes(first, at))
        if not isinstance(rows, list) or not 1 <= len(rows) <= self._limits.rows:
            return _error(400, f'"rows" is to be a list, from 1 to {self._limits.rows:,} of them; {example.takes(first, at)}')
        ready: list[Ready] = [first.row(row) for row in rows]
        found = await asyncio.gather(*(self._running.answer(each) for each in ready), return_exceptions=True)
        if failed := next((each for each in found if isinstance(each, BaseException)), None):
            raise failed
        answers: list[dict[str, Any]] = [each for each in found if isinstance(each, dict)]
        self._counted.guarded += sum(bool(each["guards"]) for each in answers)
        return JSONResponse({"answers": answers})

    async def _of_text(self, text: str) -> Response:
        """One after the other: a text is many batches of one. Nothing more of it is drawn when nobody waits for it any longer, so that
        neither the next request nor the end of the server does."""
        is_over = threading.Event()

        def going_on() -> str:
            return "".join(itertools.takewhile(lambda _: not is_over.is_set(), self._predictors[0].text(text)))

        try:
            went_on = await asyncio.get_running_loop().run_in_executor(self._readers, going_on)
        finally:
            is_over.set()
        return JSONResponse({"prediction": went_on, "guards": []})

    def _told(self, answer: dict[str, Any]) -> Response:
        self._counted.guarded += bool(answer["guards"])
        return JSONResponse(answer)


_FORM = "application/x-www-form-urlencoded"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src blob: data:"


def _error(status: int, why: str, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps({"error": why}), status, headers, "application/json")
