"""The server in a worker: it shares sockets with other workers, and reports to its parent."""

from __future__ import annotations

import asyncio
import logging
import socket

import uvicorn

from ov_minilm.serve.server import ReloadKeys, Server
from ov_minilm.serve.service import Service
from ov_minilm.serve.workers import Link

UPDATE_TICKS = 10  # of uvicorn, of 0.1 s each, after which metrics are brought up to date
YIELD_S = 0.005  # for a worker with fewer connections to take the next one

log = logging.getLogger("ov_minilm.serve")


class WorkerServer(Server):
    """Takes connections one by one: one that took all that wait would leave other workers without any."""

    def __init__(
        self,
        config: uvicorn.Config,
        service: Service,
        listeners: list[socket.socket],
        reload_keys: ReloadKeys | None,
        link: Link,
    ) -> None:
        super().__init__(config, service, listeners, reload_keys)
        self._link = link
        self._connecting: set[asyncio.Task[object]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start without the event loop's own servers: connections are accepted here."""
        del sockets
        await super().startup([])

    def report_ready(self) -> None:
        """Accept connections, and tell the parent, which logs it when all workers do."""
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
        """Accept a connection, unless others have fewer: those get a moment to take it."""
        if not self._link.has_most_connections():
            self._accept(listener)
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)
        loop.call_later(YIELD_S, self._accept, listener)
        loop.call_later(YIELD_S, self._listen, listener)

    def _accept(self, listener: socket.socket) -> bool:
        """Accept a connection if there still is one."""
        try:
            connection, _ = listener.accept()
        except OSError:  # another worker was faster, or the client left, or the listener is closed
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
        log.error("the parent process is gone: answering what has come, then ending")
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Tell what the other workers should know."""
        self._count()
        if counter % UPDATE_TICKS == 0:
            self._service.metrics.update()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take in the connections that the kernel holds, and end as any server does."""
        for listener in self.listeners:
            asyncio.get_running_loop().remove_reader(listener)
            while self._accept(listener):
                pass
        await asyncio.gather(*self._connecting, return_exceptions=True)
        await super().shutdown(sockets)

    def report_signal(self, number: int) -> None:
        """Log nothing: the parent did, and passed it on."""

    def report_work(self) -> None:
        """Tell the parent what was done."""
        self._service.metrics.update()
        self._link.report_work(*self.work_done())
