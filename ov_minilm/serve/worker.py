"""The server in a worker process: shares sockets with other workers and reports to its parent."""

from __future__ import annotations

import asyncio
import logging
import socket

from ov_minilm.serve.server import Server, ServerOptions
from ov_minilm.serve.workers import Link

UPDATE_TICKS = 10  # the metrics are updated after this many ticks of uvicorn, 0.1 s each
# a worker with more connections waits this time, so that another worker can accept the next one
YIELD_S = 0.005

log = logging.getLogger("ov_minilm.serve")


class WorkerServer(Server):
    """Accepts one connection at a time, so that connections spread evenly over the workers."""

    def __init__(self, options: ServerOptions, link: Link) -> None:
        super().__init__(options)
        self._link = link
        self._connecting: set[asyncio.Task[object]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start without uvicorn's own listeners: connections are accepted here."""
        del sockets
        await super().startup([])

    def report_ready(self) -> None:
        """Accept connections, and tell the parent, which logs when all workers are ready."""
        for listener in self.listeners:
            listener.setblocking(False)
            listener.listen(self.config.backlog)
            self._listen(listener)
        asyncio.get_running_loop().add_reader(self._link.parent, self._leave_with_parent)
        self._count()
        self._link.report_ready(self.description())

    def _listen(self, listener: socket.socket) -> None:
        if not self.should_exit:
            asyncio.get_running_loop().add_reader(listener, self._accept_or_yield, listener)

    def _accept_or_yield(self, listener: socket.socket) -> None:
        """Accept a connection.

        If another worker has fewer connections, first wait YIELD_S so that it can accept.
        """
        if not self._link.has_more_than_another():
            self._accept(listener)
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)
        loop.call_later(YIELD_S, self._accept, listener)
        loop.call_later(YIELD_S, self._listen, listener)

    def _accept(self, listener: socket.socket) -> bool:
        """Accept a connection; return False if no connection waits."""
        try:
            connection, _ = listener.accept()
        # another worker accepted it first, the client disconnected, or the listener is closed
        except OSError:
            return False
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        task: asyncio.Task[object] = loop.create_task(
            loop.connect_accepted_socket(self._protocol, connection)
        )
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        self._count()
        return True

    def _protocol(self) -> asyncio.BaseProtocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    def _count(self) -> None:
        self._link.report_connections(len(self.server_state.connections) + len(self._connecting))

    def _leave_with_parent(self) -> None:
        asyncio.get_running_loop().remove_reader(self._link.parent)
        log.error("the parent process has ended: answering the requests already received, then stopping")
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Publish the number of connections, and every UPDATE_TICKS the metrics."""
        self._count()
        if counter % UPDATE_TICKS == 0:
            self._service.metrics.update()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept the connections in the kernel's backlog, then shut down as Server does."""
        for listener in self.listeners:
            asyncio.get_running_loop().remove_reader(listener)
            while self._accept(listener):
                pass
        await asyncio.gather(*self._connecting, return_exceptions=True)
        await super().shutdown(sockets)

    def report_signal(self, number: int) -> None:
        """Log nothing: the parent has logged the signal."""

    def report_work(self) -> None:
        """Send the parent the counts of requests, texts and tokens."""
        self._service.metrics.update()
        self._link.report_work(*self.work_done())
