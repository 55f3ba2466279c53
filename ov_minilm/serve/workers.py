"""Several server processes that share sockets: forked, supervised, restarted, and stopped together.

The parent imports what the workers need, copies the weights, and forks; modules and weights are in memory
once. The parent never uses OpenVINO itself, because OpenVINO does not work in the fork of a process that used
it. uvicorn's own supervisor is not used: it starts new interpreters, which share no memory, and it supports
neither our Server nor a second signal.
"""

from __future__ import annotations

import gc
import logging
import mmap
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ov_minilm.artefact.manifest import WEIGHTS

if TYPE_CHECKING:
    from multiprocessing.context import ForkProcess

RESTART_DELAY_S = 1.0  # delay before a worker that ended before it was ready is started again
SIGNALS = (signal.SIGINT, signal.SIGTERM)
# variable that names a folder in memory, where each process writes its counts
METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"

STOPPING = "signal %d: answering the requests already received, then stopping"
STOPPED = "stopped after %d s: %d requests, %d texts and %d tokens embedded"

log = logging.getLogger("ov_minilm.serve")


@dataclass(frozen=True, slots=True)
class Link:
    """A worker's connection to its parent and to the other workers."""

    number: int  # number of the worker, from 0
    cpus: frozenset[int]  # the CPUs of the worker
    parent: int  # a file descriptor that reaches end of file when the parent has ended
    _connections: memoryview  # for each worker: 0 until it is ready, then 1 + its open connections
    _pipe: Connection

    def report_connections(self, count: int) -> None:
        """Tell the other workers that this worker is ready and how many connections it has."""
        self._connections[self.number] = count + 1

    def has_more_than_another(self) -> bool:
        """Return whether another ready worker has fewer connections than this worker."""
        return any(0 < count < self._connections[self.number] for count in self._connections)

    def report_ready(self, line: str) -> None:
        """Tell the parent that this worker is ready; `line` is for the log."""
        self._pipe.send(line)

    def report_work(self, requests: int, texts: int, tokens: int) -> None:
        """Send the parent the counts for the last line of its log."""
        self._pipe.send((requests, texts, tokens))

    def all_ready(self) -> bool:
        """Return whether every worker is ready."""
        return all(self._connections)


@dataclass(slots=True)
class _Worker:
    number: int
    process: ForkProcess
    pipe: Connection  # reaches end of file when the process has ended
    ready: bool = False


class Supervisor:
    """Keeps one worker running for each set of CPUs until a signal."""

    def __init__(
        self,
        cpu_sets: list[frozenset[int]],
        work: Callable[[Link], None],
        listeners: list[socket.socket],
        on_hangup: Callable[[], bool] | None,
    ) -> None:
        """Store the arguments; `run` forks the workers.

        Args:
            cpu_sets: the CPUs of each worker.
            work: runs in each worker until SIGTERM; raises SystemExit if it cannot start.
            listeners: sockets that the workers accept from; closed here at shutdown.
            on_hangup: called at SIGHUP; if it returns true, the workers get the signal too.
        """
        self._cpu_sets = cpu_sets
        self._work = work
        self._listeners = listeners
        self._on_hangup = on_hangup
        shared = mmap.mmap(-1, 4 * len(cpu_sets))  # shared with all forked workers
        self._connections = memoryview(shared).cast("I")
        self._parent_end, self._keep_open = os.pipe()
        self._workers: dict[Connection, _Worker] = {}
        self._started = False  # every worker has been ready
        self._ending = False
        self._failed = 0  # exit code of a worker that could not start
        self._totals = (0, 0, 0)

    def run(self) -> int:
        """Run until a signal arrives. Return 0, or the exit code of a worker that could not start."""
        began = time.monotonic()
        gc.collect()
        gc.freeze()  # a garbage collection would write to pages that the workers share
        with self._signal_socket() as woken:
            for number in range(len(self._cpu_sets)):
                self._start(number)
            while self._workers:
                for ready in wait([woken, *self._workers]):
                    if ready is woken:
                        for number in woken.recv(4096):
                            self._handle_signal(number)
                    else:
                        self._listen(self._workers[ready])  # type: ignore[index]  # a Connection
        if self._started:
            log.info(STOPPED, time.monotonic() - began, *self._totals)
        return self._failed

    @contextmanager
    def _signal_socket(self) -> Iterator[socket.socket]:
        """Yield a socket that delivers the numbers of the signals received."""
        woken, wake = socket.socketpair()
        with woken, wake:
            wake.setblocking(False)
            signal.set_wakeup_fd(wake.fileno())
            for number in (*SIGNALS, *((signal.SIGHUP,) if self._on_hangup else ())):
                signal.signal(number, lambda *_: None)
            yield woken
            signal.set_wakeup_fd(-1)

    def _start(self, number: int) -> None:
        """Fork a worker, with signals blocked until it has its own handlers."""
        receiver, sender = multiprocessing.Pipe(duplex=False)
        link = Link(number, self._cpu_sets[number], self._parent_end, self._connections, sender)
        process = multiprocessing.get_context("fork").Process(target=self._run_worker, args=(link,))
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*SIGNALS, signal.SIGHUP})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        sender.close()  # only the worker keeps its end of the pipe open, so the pipe ends with the worker
        self._workers[receiver] = _Worker(number, process, receiver)

    def _run_worker(self, link: Link) -> None:
        os.setpgid(0, 0)  # Ctrl-C reaches only the parent, which ends the workers
        os.close(self._keep_open)
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {*SIGNALS, signal.SIGHUP})
        os.sched_setaffinity(0, link.cpus)
        self._work(link)

    def _listen(self, worker: _Worker) -> None:
        """Handle a worker's message: its counts, its line when ready, or end of file when it has ended."""
        try:
            message: Any = worker.pipe.recv()
        except EOFError:
            self._replace(worker)
            return
        if isinstance(message, tuple):
            self._totals = tuple(map(sum, zip(self._totals, message, strict=True)))  # type: ignore[assignment]
            return
        worker.ready = True
        if self._ending:
            return
        if self._started:
            log.info("worker %d is ready again, as process %d", worker.number + 1, worker.process.pid)
        elif all(self._connections):
            self._started = True
            log.info("%s, in each of %d workers", message, len(self._cpu_sets))

    def _replace(self, worker: _Worker) -> None:
        """Replace a worker that ended, unless the server shuts down or workers cannot start."""
        from prometheus_client.multiprocess import mark_process_dead

        del self._workers[worker.pipe]
        worker.pipe.close()
        worker.process.join()
        self._connections[worker.number] = 0
        # Removes the gauges of the worker that ended; its counters stay.
        mark_process_dead(worker.process.pid)  # type: ignore[no-untyped-call]
        if self._ending:
            return
        code = worker.process.exitcode or 0
        if not worker.ready and not self._started:
            self._failed = code if code > 0 else 1
            self._end()
            return
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        log.error("worker %d (process %d) %s; starting another", worker.number + 1, worker.process.pid, how)
        if not worker.ready:
            time.sleep(RESTART_DELAY_S)  # avoids a busy loop; signals are handled after the delay
        self._start(worker.number)

    def _handle_signal(self, number: int) -> None:
        if number != signal.SIGHUP:
            log.info(STOPPING, number)
            self._end()
        elif self._on_hangup is not None and self._on_hangup():
            self._signal_workers(signal.SIGHUP)

    def _end(self) -> None:
        """Send the workers SIGTERM: the first signal shuts them down, a second signal does not wait."""
        self._ending = True
        for listener in self._listeners:
            listener.close()
        self._signal_workers(signal.SIGTERM)

    def _signal_workers(self, number: int) -> None:
        for worker in self._workers.values():
            if worker.process.pid is not None and worker.process.is_alive():
                os.kill(worker.process.pid, number)


def split_cpus(
    count: int, threads: int, topology: Path = Path("/sys/devices/system/cpu")
) -> list[frozenset[int]]:
    """Split the CPUs of this process among workers: hyper-threads of a core, and cores of a socket, together.

    Args:
        count: of workers.
        threads: that all workers may use together.
        topology: the folder in which Linux describes its CPUs.

    Raises:
        ValueError: there are more workers than CPUs or threads.
    """
    allowed = os.sched_getaffinity(0)
    if count > (most := min(len(allowed), threads)):
        raise ValueError(f"{count} workers, but {most} CPUs are available: pass --workers {most} or fewer")

    def place(cpu: int) -> tuple[int, ...]:
        names = ("physical_package_id", "core_id")
        try:
            return *(int((topology / f"cpu{cpu}/topology/{name}").read_text()) for name in names), cpu
        except OSError:  # some containers hide these files
            return 0, cpu, cpu

    ordered = sorted(allowed, key=place)
    bounds = [len(ordered) * number // count for number in range(count + 1)]
    return [frozenset(ordered[start:end]) for start, end in pairwise(bounds)]


@contextmanager
def summing_metrics() -> Iterator[None]:
    """Let processes forked within this context share their metrics, through files in memory."""
    from prometheus_client import values

    memory = "/dev/shm"  # noqa: S108  # folders in it get random names and are private to this user
    with tempfile.TemporaryDirectory(
        prefix="ov_minilm-", dir=memory if os.access(memory, os.W_OK) else None
    ) as folder:
        os.environ[METRICS_FOLDER] = folder
        # prometheus_client chooses at its import how it stores values; this makes it choose again.
        values.ValueClass = values.get_value_class()  # type: ignore[no-untyped-call]
        yield


def check_system() -> None:
    """Raise ValueError on systems other than Linux, where a process cannot safely be forked."""
    if sys.platform != "linux":
        raise ValueError("--workers needs Linux; start several servers on different ports behind a proxy")


def share_weights(folder: Path) -> None:
    """Copy an artefact's weights into memory that is shared with processes forked afterwards."""
    from ov_minilm.runtime.weights import shared_copy  # imports OpenVINO, which only --workers needs here

    shared_copy(folder / WEIGHTS)
