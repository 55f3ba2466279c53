"""The server process: sockets, slow clients, signals, and a shutdown that answers every accepted request."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import mmap
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click
import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ov_minilm.serve.errors import ApiError
from ov_minilm.serve.openai import error_response
from ov_minilm.serve.service import Service
from ov_minilm.serve.workers import STOPPED, STOPPING

HEAD_TIMEOUT_S = 10.0  # first line and headers of a request must arrive within this time
BODY_TIMEOUT_S = 30.0  # the body of a request must arrive within this time
# limit of first line and headers together, of a trailer, and of the extensions of chunks
MAX_HEAD_BYTES = 65_536
HEAD_TOO_LARGE = f"the head or the trailer of the request is over {MAX_HEAD_BYTES} bytes"
WRITE_TIMEOUT_S = 60.0  # a client that reads nothing of its response for this time is disconnected
KEEP_ALIVE_S = 75  # clients close unused connections earlier, so that no request is lost
SWITCH_INTERVAL_S = 0.0003  # a Python thread must yield after this time, so that batches start without delay
# new objects between two garbage collections; a high number suffices, as requests leave no cycles
GC_THRESHOLD = 20_000
IDLE_AFTER_S = 0.5  # at shutdown, an open connection is closed after this time without a request
STATUS_LINES = {
    400: "Bad Request",
    405: "Method Not Allowed",
    408: "Request Timeout",
    501: "Not Implemented",
    505: "HTTP Version Not Supported",
}
HTTP_1_ONLY = "and this port speaks HTTP/1.1: configure the client for HTTP/1.1"
# headers of a request that offers an upgrade; they are ignored
UPGRADE_HEADERS = {b"upgrade", b"http2-settings"}
# values of the header Connection that are ignored
CONNECTION_UPGRADE_TOKENS = {b"upgrade", b"http2-settings"}

ReloadKeys = Callable[[], tuple[str, ...]]

log = logging.getLogger("ov_minilm.serve")


class JoinedWrites:
    """A transport that sends the head and the body of a response at once, so that the client wakes up once.

    uvicorn writes the head and then the body, and uvloop sends each write by itself. Here a write is held
    until the next one, or until the event loop goes on.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        """Use the transport itself for everything else."""
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send the data together with held data; if no data is held, hold this data."""
        if self._held:
            data, self._held = self._held + data, b""
            self._transport.write(data)
        elif data:
            self._held = data
            self._loop.call_soon(self._send_held)

    def close(self) -> None:
        """Send held data, and close the connection."""
        self._send_held()
        self._transport.close()

    def _send_held(self) -> None:
        if self._held:
            self.write(b"")


class Protocol(HttpToolsProtocol):
    """Uvicorn's HTTP/1.1 protocol with limits.

    Offers to upgrade are ignored, as RFC 9110, 7.8 allows. The time and size of a request's head and the time
    of its body are limited. A malformed request is answered after the requests that came before it.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._read_timer: asyncio.TimerHandle | None = None  # ends a request that does not become complete
        self._write_timer: asyncio.TimerHandle | None = None  # disconnects a client that does not read
        self._head_bytes = 0  # bytes received of an incomplete head, or of other data outside of a body
        self._counted_bytes = 0  # number of the latest bytes that may belong to a head
        self._begun = False  # the first byte of a request has arrived
        self._in_body = False
        self._ended = False  # a request was completed by the latest bytes
        self._refusal: ApiError | None = None  # the error of a request whose head is invalid
        # an error that is sent after the earlier responses; then the connection closes
        self._final_response = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timeout for the first request."""
        super().connection_made(JoinedWrites(transport, self.loop))  # type: ignore[arg-type]
        self._start_timer(HEAD_TIMEOUT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timers."""
        self._cancel_read_timer()
        self._cancel_write_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse bytes, and limit the time and the size of a request's head."""
        if self._final_response or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self._ended = False
        self._counted_bytes = len(data)
        self._feed(data)
        if self.transport.is_closing() or self._final_response:
            return
        if self._in_body and self._read_timer is None:
            self._start_timer(BODY_TIMEOUT_S)
        answered = self.cycle is None or self.cycle.response_complete
        if self._ended:
            return
        self._begun = True
        self._head_bytes += self._counted_bytes
        if self._head_bytes > MAX_HEAD_BYTES:
            self._end(ApiError("bad_http", HEAD_TOO_LARGE))
        elif self._read_timer is None and answered:
            self._start_timer(HEAD_TIMEOUT_S)

    def _feed(self, data: bytes) -> None:
        """Parse bytes. A request that offers an upgrade is parsed again, without the offer."""
        rest: bytes | None = data
        while rest is not None:
            rest = self._feed_until_offer(rest)

    def _feed_until_offer(self, data: bytes) -> bytes | None:
        """Parse bytes; if a request offers an upgrade, return the bytes to parse again."""
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
                    one
                    for token in value.split(b",")
                    if (one := token.strip()).lower() not in CONNECTION_UPGRADE_TOKENS
                )
            if name not in UPGRADE_HEADERS and (name, value) != (b"connection", b""):
                lines.append(name + b": " + value)
        return b"\r\n".join([*lines, b"", b""])

    def on_headers_complete(self) -> None:
        """Start the request. A body that did not arrive with its head gets BODY_TIMEOUT_S."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(ApiError("bad_method", "this server is not a proxy: it does not accept CONNECT"))
        if self.parser.should_upgrade():
            return
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            self._refuse(ApiError("bad_http_version", f"this is HTTP/{version}, {HTTP_1_ONLY}"))
        if sum(len(name) + len(value) + 4 for name, value in self.headers) + len(self.url) > MAX_HEAD_BYTES:
            self._refuse(ApiError("bad_http", HEAD_TOO_LARGE))
        coding = b", ".join(value.lower() for name, value in self.headers if name == b"transfer-encoding")
        if coding.endswith(b"chunked") and coding != b"chunked":  # the parser refuses other endings
            message = (
                f"the transfer encoding is {coding.decode('latin-1')!r}; send chunked alone, and gzip as "
            )
            self._refuse(ApiError("not_implemented", f"{message}the content encoding"))
        if version == "1.0":
            self.expect_100_continue = False
        elif sum(name == b"host" for name, _ in self.headers) != 1:
            self._refuse(ApiError("bad_http", "the request must have exactly one Host header"))
        # a request about the server as a whole
        if self.url == b"*" and method == b"OPTIONS":
            self.url = b"/"
        if not self.url.startswith(b"/"):
            self.url = self._without_host(self.url)
        self._cancel_read_timer()
        super().on_headers_complete()
        self._in_body = True
        self.headers = []  # the fields of a trailer must not become headers (RFC 9110, 6.5.1)

    def _without_host(self, target: bytes) -> bytes:
        """Return an absolute target, as proxies get it, without its host; an empty path is /."""
        try:
            found = httptools.parse_url(target)
        except httptools.HttpParserInvalidURLError:
            found = None
        if found is None or not target.startswith((b"http://", b"https://")):
            self._refuse(ApiError("bad_http", "the target of the request must begin with /"))
        return (found.path or b"/") + (b"?" + found.query if found.query else b"")

    def on_body(self, body: bytes) -> None:
        """Receive a part of the body."""
        if not self.parser.should_upgrade():
            self._head_bytes = self._counted_bytes = 0
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Remember that the request is complete."""
        if self.parser.should_upgrade():
            return
        self._in_body = False
        self._begun = False
        self._ended = True
        self._cancel_read_timer()
        super().on_message_complete()

    def _refuse(self, error: ApiError) -> NoReturn:
        """Stop parsing an invalid head."""
        self._refusal = error
        raise ValueError(error.message)

    def _end(self, error: ApiError) -> None:
        """Send an error after the responses to the requests before it, and close the connection."""
        status, body = error_response(error)
        self._final_response = (
            f"HTTP/1.1 {status} {STATUS_LINES[status]}\r\ncontent-type: application/json\r\n"
            f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        self._cancel_read_timer()
        if self._in_body and not self.cycle.response_complete:  # the invalid request is being answered
            if self.pipeline and self.pipeline[0][0] is self.cycle:
                self.pipeline.popleft()
            elif self.cycle.response_started:
                self.transport.close()
                return
            else:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
                self._send_final_response()
                return
        if self.cycle is None or self.cycle.response_complete:
            self._send_final_response()

    def on_response_complete(self) -> None:
        """Start the next request, or send the error that ends the connection."""
        last = not self.pipeline
        super().on_response_complete()
        if self._final_response and last and not self.transport.is_closing():
            self._send_final_response()

    def _send_final_response(self) -> None:
        self.transport.write(self._final_response)
        self.transport.close()

    def pause_writing(self) -> None:
        """Wait at most WRITE_TIMEOUT_S for a client that does not read its response."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(WRITE_TIMEOUT_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the timeout, because the client reads again."""
        super().resume_writing()
        self._cancel_write_timer()

    def _start_timer(self, seconds: float) -> None:
        self._read_timer = self.loop.call_later(seconds, self._close_slow_client, seconds)

    def _close_slow_client(self, seconds: float) -> None:
        """Close a connection without a request; answer 408 to a request that is not complete."""
        if self._begun or self._in_body:
            part = "body" if self._in_body else "head"
            message = f"the {part} of the request did not arrive within {seconds:.0f} s"
            self._end(ApiError("too_slow", message))
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
    """Return the error for bytes that are not an HTTP/1.1 request; its message says what to do."""
    if first and data.startswith(b"\x16\x03"):
        return ApiError(
            "bad_http", "this is TLS, and this port speaks plain HTTP: use a URL that begins with http://"
        )
    if first and data.startswith(b"PRI * HTTP/2"):
        return ApiError("bad_http_version", f"this is HTTP/2, {HTTP_1_ONLY}")
    return ApiError("bad_http", f"this is not an HTTP/1.1 request: {reason}")


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """The application, sockets and callbacks of a server."""

    config: uvicorn.Config  # see `configuration`
    service: Service  # answers the requests
    listeners: list[socket.socket]  # bound sockets to accept connections from
    reload_keys: ReloadKeys | None  # called at SIGHUP: returns the new API keys; None: SIGHUP is not handled


class Server(uvicorn.Server):
    """Uvicorn's server with a shutdown in which every connected client still gets a response."""

    def __init__(self, options: ServerOptions) -> None:
        super().__init__(options.config)
        self.listeners = options.listeners
        self._service = options.service
        self._reload_keys = options.reload_keys

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Shut down at the first signal, without waiting at the second. The exit code is 0."""
        del frame
        self.report_signal(sig)
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and log the addresses and how the model runs."""
        await super().startup(sockets)
        if not self.started:
            return
        if self._reload_keys is not None and hasattr(signal, "SIGHUP"):
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, self._replace_keys, self._reload_keys)
        self.report_ready()

    def description(self) -> str:
        """Return the addresses, the model and how it runs, in one line."""
        first, *others = map(url, self.listeners)
        also = "".join(f", and {other}" for other in others)
        info = self._service.info
        return (
            f"ready: {first}/v1 serves {', '.join(self._service.names)}{also}; {info.model} {info.weights} "
            f"on {info.device}, {info.precision}, kernel {info.kernel}, {info.threads} threads{_memory()}"
        )

    def report_ready(self) -> None:
        """Log that the server is ready, unless it was stopped during its start."""
        if not self.should_exit:
            log.info(self.description())

    def report_signal(self, number: int) -> None:
        """Log that the server shuts down."""
        log.info(STOPPING, number)

    def report_work(self) -> None:
        """Log the counts of requests, texts and tokens."""
        log.info(STOPPED, time.time() - self._service.started, *self.work_done())

    def work_done(self) -> tuple[int, int, int]:
        """Return the requests, texts and tokens since the start."""
        metrics = self._service.metrics
        return self.server_state.total_requests, metrics.texts, metrics.tokens

    def _replace_keys(self, reload_keys: ReloadKeys) -> None:
        """Read the keys again; the old ones stay valid if the file cannot be read."""
        try:
            self._service.replace_keys(reload_keys())
        except (OSError, ValueError, click.UsageError) as error:
            log.error("SIGHUP: the old keys stay valid: %s", error)
        else:
            log.info("SIGHUP: %d keys are valid now", len(self._service.settings.api_keys))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no new connections, answer requests on the open ones until they are idle, and stop.

        Every response now closes its connection: clients reconnect elsewhere, and no request on an open
        connection is lost.
        """
        await asyncio.sleep(0)  # first accept the connections that wait in the kernel's backlog
        for server in self.servers:
            server.close()
        for listener in sockets or ():
            listener.close()
        # closed only at the end, so that a client that reconnects does not reach this server again
        self._service.draining = True
        deadline = time.monotonic() + (self.config.timeout_graceful_shutdown or 0)
        quiet = time.monotonic()
        while self.server_state.connections and not self.force_exit and time.monotonic() < deadline:
            if self.server_state.tasks:
                quiet = time.monotonic()
            elif time.monotonic() - quiet > IDLE_AFTER_S:
                break
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)
        if self.force_exit:  # otherwise all requests are answered, and uvicorn has told the application
            for task in self.server_state.tasks:
                task.cancel()
            await self.lifespan.shutdown()


def listen(host: str, port: int) -> socket.socket:
    """Return a bound socket, made before the model is loaded so that a busy port fails at once.

    Raises:
        OSError: the address is in use, or does not belong to this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # on Windows this option would allow a second server on a port that is in use
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        hint = "; choose another with --port" if error.errno == errno.EADDRINUSE else ""
        raise OSError(f"cannot listen on {host} port {port}: {error.strerror or error}{hint}") from error
    return listener


def url(listener: socket.socket) -> str:
    """Return the URL of a socket, for a browser on this machine."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _memory() -> str:
    """Return the resident memory of this process as text, empty where /proc does not exist."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return ""
    return f", {pages * mmap.PAGESIZE / 1e6:.0f} MB"


def configuration(app: ASGIApp, drain_seconds: int) -> uvicorn.Config:
    """Return uvicorn's configuration. `drain_seconds`: how long a shutdown waits for open requests."""
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
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=drain_seconds,
    )


def serve(server: Server) -> bool:
    """Serve until a signal arrives. Return False if the server could not start; the log says why."""
    gc.collect()
    # the garbage collector need not scan modules, which stay loaded; scanning took 8 % of the event loop's
    # time
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    server.run(sockets=server.listeners)
    if server.started:
        server.report_work()
    return server.started
