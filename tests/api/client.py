"""A client that says what it means: one connection each, any bytes, whole answers."""

from __future__ import annotations

import asyncio
import io
import json
from dataclasses import dataclass
from http.client import HTTPMessage, parse_headers
from typing import Any

LONGEST = 20.0


@dataclass(frozen=True)
class Reply:
    """An answer; `text` is its body."""

    status: int
    headers: HTTPMessage
    text: str

    def json(self) -> Any:
        """Return the body's data."""
        return json.loads(self.text)

    def problem(self) -> tuple[int, str]:
        """Check that this is an error as errors have to be; return its status and detail."""
        body = self.json()
        assert self.headers["content-type"] == "application/problem+json"
        assert body.keys() <= {"type", "title", "status", "detail", "errors"}
        assert (body["type"], body["status"]) == ("about:blank", self.status)
        assert body["title"]
        assert len(body["detail"].splitlines()) == 1, body["detail"]
        assert (self.headers["retry-after"] is not None) == (self.status == 503)
        return self.status, body["detail"]


class Connection:
    """A connection on which bytes are sent as they are."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take the two ends; `open` makes them."""
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> Connection:
        """Connect to a port of 127.0.0.1."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def send(self, data: bytes) -> None:
        """Send some bytes."""
        self._writer.write(data)
        await self._writer.drain()

    async def reply(self, *, head: bool = False) -> Reply:
        """Read one answer; the answer to a HEAD has no body."""
        async with asyncio.timeout(LONGEST):
            start = await self._reader.readuntil(b"\r\n\r\n")
            line, _, rest = start.partition(b"\r\n")
            headers = parse_headers(io.BytesIO(rest))
            length = 0 if head else int(headers["content-length"] or 0)
            body = await self._reader.readexactly(length)
        return Reply(int(line.split()[1]), headers, body.decode())

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


def request(
    method: str, path: str, body: object = None, headers: dict[str, str] | None = None
) -> bytes:
    """Return a request's bytes; a body that is not bytes goes as JSON."""
    lines = {"Host": "api"}
    data = b""
    if body is not None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines |= {"Content-Type": "application/json", "Content-Length": str(len(data))}
    lines |= headers or {}
    text = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    return f"{method} {path} HTTP/1.1\r\n{text}\r\n".encode() + data


async def ask(
    port: int,
    method: str,
    path: str,
    body: object = None,
    headers: dict[str, str] | None = None,
) -> Reply:
    """Ask once, on a connection of its own."""
    connection = await Connection.open(port)
    try:
        await connection.send(request(method, path, body, headers))
        return await connection.reply(head=method == "HEAD")
    finally:
        connection.close()
