"""The log: one line for each request, as text or as JSON.

The log never contains texts, keys or query strings.
"""

from __future__ import annotations

import logging
import re
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TextIO

import msgspec
from starlette.types import Scope

from ov_minilm.serve.settings import AccessLog as LogForm

log = logging.getLogger("ov_minilm.access")
request_context: ContextVar[tuple[str, str]] = ContextVar("request", default=("", ""))  # its id, traceparent

TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(slots=True)
class Outcome:
    """The counts and times of a request, filled in while the request is answered."""

    texts: int = 0
    tokens: int = 0
    truncated: int = 0
    refused: int = 0  # status of the error in OpenAI's API; 0: no error
    # phase -> its begin and end, in seconds of perf_counter
    phases: dict[str, tuple[float, float]] = field(default_factory=dict)


class AccessLog:
    """Writes a line for each request."""

    def __init__(self, form: LogForm) -> None:
        self._form = form

    def write(self, scope: Scope, status: int, seconds: float, request_id: str, outcome: Outcome) -> None:
        """Log a request. Status 499: the client disconnected before the response."""
        if self._form == "off" or not log.isEnabledFor(logging.INFO):
            return
        line = {
            "client": scope["client"][0] if scope.get("client") else "-",
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "ms": round(1000 * seconds, 2),
            "texts": outcome.texts,
            "tokens": outcome.tokens,
            "truncated": outcome.truncated,
            "request_id": request_id,
        }
        if self._form == "json":
            log.info("%s", msgspec.json.encode(line).decode(), extra={"fields": line})
        else:
            log.info(
                "%(client)s %(method)s %(path)r %(status)d %(ms).2f ms, %(texts)d texts, %(tokens)d tokens, "
                "%(truncated)d truncated, %(request_id)s",
                line,
                extra={"fields": line},
            )


class TextLines(logging.Formatter):
    """Writes every record as a line of text, with the request's id at the end."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and the traceback after it."""
        request_id, _ = request_context.get()
        line = super().format(record)
        if not request_id or hasattr(record, "fields"):
            return line
        first, *trace = line.split("\n")
        return "\n".join([f"{first} (request {request_id})", *trace])


class JsonLines(logging.Formatter):
    """Writes every record as one line of JSON: time, level, logger, message, request id and traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line. Lines of the access log have the fields of the request instead of a message."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        fields = getattr(record, "fields", None)
        line |= {"message": record.getMessage()} if fields is None else fields
        request_id, traceparent = request_context.get()
        if request_id:
            line["request_id"] = request_id
        if TRACEPARENT.fullmatch(traceparent):
            line["traceparent"] = traceparent
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def configure_logging(level: str, *, as_json: bool, stream: TextIO) -> None:
    """Send all lines of this process to a stream, in one format; Python's warnings too."""
    # Lines show no thread, process or task, so logging need not look them up (its HOWTO, "Optimization").
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines() if as_json else TextLines("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    logging.captureWarnings(True)
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, logging.getLogger().level))
