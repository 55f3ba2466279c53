"""The life of the server process: sockets, slow clients, signals, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import sys
import time
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ov_minilm.serve.app import Service
from ov_minilm.serve.wire import ApiError

HEAD_SECONDS = 10.0  # for a request's first line and headers to come
BODY_SECONDS = 30.0  # and for the rest
HEAD_BYTES = 65_536
STALL_SECONDS = 60.0  # for a client to go on reading its answer
KEEP_ALIVE_SECONDS = 75  # longer than the pools of clients keep a connection, so that they close it
TURN_SECONDS = 0.0003  # of Python for one thread while others wait: the loop must not hold up a batch
GARBAGE = 20_000  # objects made and not freed, after which cycles are looked for: requests leave none
QUIET_SECONDS = 0.5  # without a request, after which open connections are taken to be idle

log = logging.getLogger("ov_minilm.serve")


class Protocol(HttpToolsProtocol):
    """Uvicorn's, with limits for clients that are slow or too talkative before a request is one."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._patience: asyncio.TimerHandle | None = None  # with a request that has begun and not come
        self._head_bytes = 0
        self._in_body = False
        self._ended = False  # a request did, in the bytes that came last
        self._stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give a new connection some seconds to ask something."""
        super().connection_made(transport)
        self._expect(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._came()
        self._reader_goes_on()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; those of a request's head must end in time and somewhere."""
        self._ended = False
        super().data_received(data)
        if self._in_body and self._patience is None:
            self._expect(BODY_SECONDS)
        answered = self.cycle is None or self.cycle.response_complete
        if self.transport.is_closing() or self._in_body or self._ended or not answered:
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES:
            self.send_400_response(f"the head of the request is over {HEAD_BYTES} bytes")
        elif self._patience is None:
            self._expect(HEAD_SECONDS)

    def on_headers_complete(self) -> None:
        """Start the request; a body that did not come with its head has a time of its own."""
        self._in_body = True
        self._came()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that the whole request is there."""
        self._in_body = False
        self._ended = True
        self._came()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, in the shape of every other error."""
        body = ApiError(400, msg).body()
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(body), body)
        )
        self.transport.close()

    def pause_writing(self) -> None:
        """Wait for a client that does not read its answer, but not for ever."""
        super().pause_writing()
        self._stall_timer = self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the client reads again."""
        super().resume_writing()
        self._reader_goes_on()

    def _expect(self, seconds: float) -> None:
        self._patience = self.loop.call_later(seconds, self.transport.close)

    def _came(self) -> None:
        self._head_bytes = 0
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _reader_goes_on(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None


class Server(uvicorn.Server):
    """Uvicorn's, with an end in which whoever is connected still gets an answer."""

    def __init__(self, config: uvicorn.Config, service: Service, ready: str) -> None:
        super().__init__(config)
        self._service = service
        self._ready = ready

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the end at the first signal, hurry at the second. Ending as asked is no failure: exit 0."""
        del frame
        log.info("signal %d: answering what has come, then ending", sig)
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so once."""
        await super().startup(sockets)
        if self.started:
            log.warning("%s", self._ready)

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


def serve(app: ASGIApp, service: Service, listener: socket.socket, drain_seconds: int) -> bool:
    """Serve until a signal ends it. False: it could not start, and the log says why."""
    names = ", ".join(service.names)
    ready = f"ready: {url(listener)}/v1 serves {names}"
    config = uvicorn.Config(
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
    server = Server(config, service, ready)
    gc.collect()
    gc.freeze()  # what is loaded stays; going through it again and again took 8 % of the loop's time
    gc.set_threshold(GARBAGE)
    sys.setswitchinterval(TURN_SECONDS)
    server.run(sockets=[listener])
    return server.started
