"""One log line per event, as JSON or as text, on standard output."""

import asyncio
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TextIO

import msgspec

# What a log call may attach as `extra={"fields": {...}}`.
FIELDS = "fields"
# The id of the request that is being answered, on every line that is written meanwhile.
request_id: ContextVar[str] = ContextVar("request_id", default="")


def _fields(record: logging.LogRecord) -> dict[str, object]:
    identity = request_id.get()
    return ({"request_id": identity} if identity else {}) | getattr(record, FIELDS, {})


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


class JsonFormatter(logging.Formatter):
    """A record as one JSON object on one line, a traceback included."""

    def __init__(self, replica: str) -> None:
        super().__init__()
        self._replica = replica

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        line: dict[str, object] = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "service": "api",
            "replica": self._replica,
            "message": record.getMessage(),
        }
        line |= _fields(record)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class TextFormatter(logging.Formatter):
    """A record as a line to read, with its fields as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        line = f"{_moment(record)} {record.levelname:<7} {record.getMessage()}"
        line += "".join(f" {name}={value}" for name, value in _fields(record).items())
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class BatchingHandler(logging.StreamHandler[TextIO]):
    """Writes what accumulated in a twentieth of a second at once.

    A write for each line costs more than making the line, here and in the engine that reads it.
    Without a running event loop, and for errors, it writes at once.
    """

    _waiting = False

    def emit(self, record: logging.LogRecord) -> None:
        """Add the record's line, and see that it gets written."""
        super().emit(record)
        if record.levelno >= logging.ERROR:
            self.stream.flush()

    def flush(self) -> None:
        """Write soon; emit asks for it after each line."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.stream.flush()
            return
        if not self._waiting:
            self._waiting = True
            loop.call_later(0.05, self._write)

    def _write(self) -> None:
        self._waiting = False
        self.stream.flush()


def configure(level: str, form: str, replica: str) -> None:
    """Send every logger to standard output; `form` is `json` or `text`."""
    handler = BatchingHandler(sys.stdout)
    handler.setFormatter(JsonFormatter(replica) if form == "json" else TextFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # What no line shows need not be found out for each.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # Only our own: the libraries' debug lines show what is sent, passwords included.
    logging.getLogger("stackyard").setLevel(level.upper())
