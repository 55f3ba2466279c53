"""The life of the server process: sockets, slow clients, signals, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import gc
import logging
import mmap
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import click
import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ov_minilm.serve.errors import ApiError
from ov_minilm.serve.openai import error_answer
from ov_minilm.serve.service import Service
from ov_minilm.serve.workers import STOPPED

HEAD_SECONDS = 10.0  # for a request's first line and headers to come
BODY_SECONDS = 30.0  # and for the rest
HEAD_BYTES = 65_536
STALL_SECONDS = 60.0  # for a client to go on reading its answer
KEEP_ALIVE_SECONDS = 75  # longer than the pools of clients keep a connection, so that they close it
SWITCH_INTERVAL_S = 0.0003  # of Python for one thread while others wait: the loop must not hold up a batch
GC_THRESHOLD = 20_000  # objects made and not freed, after which cycles are looked for: requests leave none
QUIET_SECONDS = 0.5  # without a request, after which open connections are taken to be idle
STATUS_LINES = {
    400: "Bad Request",
    405: "Method Not Allowed",
    408: "Request Timeout",
    505: "HTTP Version Not Supported",
}
OFFER_HEADERS = {b"upgrade", b"http2-settings"}  # of an upgrade that is not taken up
OFFER_TOKENS = {b"upgrade", b"http2-settings"}  # of the header Connection

ReloadKeys = Callable[[], tuple[str, ...]]

log = logging.getLogger("ov_minilm.serve")


class Protocol(HttpToolsProtocol):
    """Uvicorn's HTTP/1.1, made strict about what it must refuse and patient about what it may ignore.

    It ignores offers to upgrade, as a server may (RFC 9110, 7.8), limits clients that are slow or too
    talkative before a request is one, and answers what is not HTTP after the requests before it.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._read_timer: asyncio.TimerHandle | None = None  # for a request that has begun and is not whole
        self._write_timer: asyncio.TimerHandle | None = None  # for a client that does not read
        self._head_bytes = 0
        self._begun = False  # a request has, with its first byte
        self._in_body = False
        self._ended = False  # a request did, in the bytes that came last
        self._refusal: ApiError | None = None  # of a request that is wrong in its head
        self._farewell = b""  # the last answer, when those before it are sent

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give a new connection some seconds to ask something."""
        super().connection_made(transport)
        self._expect(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._cancel_read_timer()
        self._cancel_write_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; those of a request's head must end in time and somewhere."""
        if self._farewell or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self._ended = False
        self._feed(data)
        if self.transport.is_closing() or self._farewell:
            return
        if self._in_body and self._read_timer is None:
            self._expect(BODY_SECONDS)
        answered = self.cycle is None or self.cycle.response_complete
        if self._in_body or self._ended or not answered:
            return
        self._head_bytes += len(data)
        self._begun = True
        if self._head_bytes > HEAD_BYTES:
            self._end(ApiError("bad_http", f"the head of the request is over {HEAD_BYTES} bytes"))
        elif self._read_timer is None:
            self._expect(HEAD_SECONDS)

    def _feed(self, data: bytes) -> None:
        """Parse bytes. A request that offers an upgrade is parsed again, without the offer."""
        rest: bytes | None = data
        while rest is not None:
            rest = self._feed_until_offer(rest)

    def _feed_until_offer(self, data: bytes) -> bytes | None:
        """Parse bytes; return those to parse again, if a request offers an upgrade."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            rest = self._head_without_offer() + data[offer.args[0] :]
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            return rest
        except httptools.HttpParserError as error:
            self._end(self._refusal or _not_http(data, str(error), first=self.cycle is None))
        return None

    def _head_without_offer(self) -> bytes:
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/1.1"]
        for name, value in self.headers:
            if name == b"connection":
                value = b", ".join(
                    one for token in value.split(b",") if (one := token.strip()).lower() not in OFFER_TOKENS
                )
            if name not in OFFER_HEADERS and (name, value) != (b"connection", b""):
                lines.append(name + b": " + value)
        return b"\r\n".join([*lines, b"", b""])

    def on_headers_complete(self) -> None:
        """Start the request; a body that did not come with its head has a time of its own."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(ApiError("bad_method", "this is no proxy: CONNECT is not for it"))
        if self.parser.should_upgrade():
            return
        if self.parser.get_http_version() == "1.0":
            self.expect_100_continue = False
        elif sum(name == b"host" for name, _ in self.headers) != 1:
            self._refuse(ApiError("bad_http", "the request has no header Host, or several; send one"))
        if self.url == b"*" and method == b"OPTIONS":  # about the server as a whole
            self.url = b"/"
        if not self.url.startswith((b"/", b"http://", b"https://")):
            self._refuse(ApiError("bad_http", "the request is not for a path: its target must begin with /"))
        self._in_body = True
        self._cancel_read_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        if not self.parser.should_upgrade():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the whole request is there."""
        if self.parser.should_upgrade():
            return
        self._in_body = False
        self._begun = False
        self._ended = True
        self._cancel_read_timer()
        super().on_message_complete()

    def _refuse(self, error: ApiError) -> None:
        """End the parsing of a head that is wrong."""
        self._refusal = error
        raise ValueError(error.message)

    def _end(self, error: ApiError) -> None:
        """Answer an error after the requests before it, and close the connection."""
        status, body = error_answer(error)
        self._farewell = (
            f"HTTP/1.1 {status} {STATUS_LINES[status]}\r\ncontent-type: application/json\r\n"
            f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        self._cancel_read_timer()
        if self._in_body and not self.cycle.response_complete:  # the wrong request has begun
            if self.pipeline and self.pipeline[0][0] is self.cycle:
                self.pipeline.popleft()
            elif self.cycle.response_started:
                self.transport.close()
                return
            else:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
                self._say_farewell()
                return
        if self.cycle is None or self.cycle.response_complete:
            self._say_farewell()

    def on_response_complete(self) -> None:
        """Start the next request, or answer the last error."""
        last = not self.pipeline
        super().on_response_complete()
        if self._farewell and last and not self.transport.is_closing():
            self._say_farewell()

    def _say_farewell(self) -> None:
        self.transport.write(self._farewell)
        self.transport.close()

    def pause_writing(self) -> None:
        """Wait for a client that does not read its answer, but not for ever."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the client reads again."""
        super().resume_writing()
        self._cancel_write_timer()

    def _expect(self, seconds: float) -> None:
        self._read_timer = self.loop.call_later(seconds, self._too_slow, seconds)

    def _too_slow(self, seconds: float) -> None:
        """Close a connection on which nothing was asked; tell a client that stopped in its request."""
        if self._begun or self._in_body:
            part = "body" if self._in_body else "head"
            self._end(ApiError("too_slow", f"the {part} of the request did not come within {seconds:.0f} s"))
        else:
            self.transport.close()

    def _cancel_read_timer(self) -> None:
        self._head_bytes = 0
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def _cancel_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


def _not_http(data: bytes, reason: str, *, first: bool) -> ApiError:
    """Return the error for bytes that are no request of HTTP/1.1, with what to do."""
    if first and data.startswith(b"\x16\x03"):
        return ApiError(
            "bad_http", "this is TLS, and this port speaks plain HTTP: the URL begins with http://"
        )
    if first and data.startswith(b"PRI * HTTP/2"):
        message = "this is HTTP/2, and this port speaks HTTP/1.1: turn prior knowledge of HTTP/2 off"
        return ApiError("bad_http_version", message)
    return ApiError("bad_http", f"this is not a request of HTTP/1.1: {reason}")


class Server(uvicorn.Server):
    """Uvicorn's, with an end in which every connected client still gets an answer."""

    def __init__(
        self,
        config: uvicorn.Config,
        service: Service,
        listeners: list[socket.socket],
        reload_keys: ReloadKeys | None,
    ) -> None:
        """Make a server for bound sockets; `reload_keys` gives the keys that are valid from a SIGHUP on."""
        super().__init__(config)
        self._service = service
        self.listeners = listeners
        self._reload_keys = reload_keys

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the end at the first signal, hurry at the second. Ending as asked is no failure: exit 0."""
        del frame
        self.report_signal(sig)
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and log once what runs where."""
        await super().startup(sockets)
        if not self.started:
            return
        if self._reload_keys is not None and hasattr(signal, "SIGHUP"):
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, self._replace_keys, self._reload_keys)
        self.report_ready()

    def description(self) -> str:
        """Return what runs where, in one line."""
        first, *others = map(url, self.listeners)
        also = "".join(f", and {other}" for other in others)
        info = self._service.info
        return (
            f"ready: {first}/v1 serves {', '.join(self._service.names)}{also}; {info.model} {info.weights} "
            f"on {info.device}, {info.precision}, kernel {info.kernel}, {info.threads} threads{_memory()}"
        )

    def report_ready(self) -> None:
        """Log that it answers."""
        log.info(self.description())

    def report_signal(self, number: int) -> None:
        """Log that it is about to end."""
        log.info("signal %d: answering what has come, then ending", number)

    def report_work(self) -> None:
        """Log what was done."""
        log.info(STOPPED, time.time() - self._service.started, *self.work_done())

    def work_done(self) -> tuple[int, int, int]:
        """Return the requests, texts and tokens since the start."""
        metrics = self._service.metrics
        return self.server_state.total_requests, metrics.texts, metrics.tokens

    def _replace_keys(self, reload_keys: ReloadKeys) -> None:
        """Read the keys again; those that were valid stay, if the file cannot be read."""
        try:
            self._service.replace_keys(reload_keys())
        except (OSError, ValueError, click.UsageError) as error:
            log.error("SIGHUP: the keys stay as they were: %s", error)
        else:
            log.info("SIGHUP: %d keys are valid now", len(self._service.settings.api_keys))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no new connections, answer what comes on the old ones until they are quiet, and end.

        From here on every answer closes its connection, so a client that keeps asking is served and leaves,
        and no request meets a closed door on a connection that it was right to use.
        """
        await asyncio.sleep(0)  # connections that the kernel holds are taken in first
        for server in self.servers:
            server.close()
        for listener in sockets or ():
            listener.close()
        self._service.draining = True  # not before: clients that are sent away must find the door closed
        deadline = time.monotonic() + (self.config.timeout_graceful_shutdown or 0)
        quiet = time.monotonic()
        while self.server_state.connections and not self.force_exit and time.monotonic() < deadline:
            if self.server_state.tasks:
                quiet = time.monotonic()
            elif time.monotonic() - quiet > QUIET_SECONDS:
                break
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)
        if self.force_exit:  # else all have been answered, and the application has been told
            for task in self.server_state.tasks:
                task.cancel()
            await self.lifespan.shutdown()


def listen(host: str, port: int) -> socket.socket:
    """Return a bound socket: whether the address is free is known before the model is loaded.

    Raises:
        OSError: the address is taken or not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # on Windows it would take the port from a server that runs
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error
    return listener


def url(listener: socket.socket) -> str:
    """Return what a browser on this machine opens."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _memory() -> str:
    """Return how much memory this process has, where the system tells."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return ""
    return f", {pages * mmap.PAGESIZE / 1e6:.0f} MB"


def configuration(app: ASGIApp, drain_seconds: int) -> uvicorn.Config:
    """Return what uvicorn is told."""
    return uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        proxy_headers=False,
        lifespan="on",
        log_config=None,
        log_level=None,
        access_log=False,
        server_header=False,
        date_header=True,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=drain_seconds,
    )


def serve(server: Server) -> bool:
    """Serve until a signal ends it. False: it could not start, and the log says why."""
    gc.collect()
    gc.freeze()  # what is loaded stays; going through it again and again took 8 % of the loop's time
    gc.set_threshold(GC_THRESHOLD)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    server.run(sockets=server.listeners)
    if server.started:
        server.report_work()
    return server.started
