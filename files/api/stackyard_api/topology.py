"""Who is there: all frontends and apis that Docker's DNS knows, each asked for its health."""

import asyncio
import io
import socket
import time
from http.client import HTTPMessage, parse_headers

import msgspec

from stackyard_api.flights import Flights

# Seconds: for a name, for a replica's answer, and how long a look at all of them is good.
NAME = 0.5
ANSWER = 0.8
FRESH = 0.5
# What a frontend and an api call themselves in their answers.
HEADERS = ("x-replica", "x-served-by")


class Node(msgspec.Struct, omit_defaults=True):
    """A replica: `ok`, `degraded`, `draining` or `away`, with milliseconds or the reason.

    Its name is its container's; its address, as long as it has never answered.
    """

    name: str
    status: str
    ms: float | None = None
    reason: str = ""


class Topology(msgspec.Struct):
    """All frontends and all apis, in the order of their names."""

    frontends: list[Node]
    apis: list[Node]


class Observer:
    """Looks at the neighbours on the network that frontends and apis share."""

    def __init__(self, frontends: tuple[str, int], apis: tuple[str, int]) -> None:
        """Take the names and ports under which all of a kind are found."""
        # Of an api, what it found last: a look of its own takes longer than anyone waits here.
        self._kinds = ((*frontends, "/health"), (*apis, "/live"))
        # By kind and address: what one leaves, another kind may get.
        self._names: dict[tuple[str, str], str] = {}
        self._looks: Flights[str, Topology] = Flights()
        self._last: tuple[float, Topology] | None = None

    async def look(self) -> Topology:
        """Ask all of them at once, 1.3 s at most; a look half a second old will do."""
        if self._last and time.monotonic() - self._last[0] < FRESH:
            return self._last[1]
        return await self._looks.share("", self._look)

    async def _look(self) -> Topology:
        # Those who waited for the look before this one.
        if self._last and time.monotonic() - self._last[0] < FRESH:
            return self._last[1]
        frontends, apis = await asyncio.gather(*(self._all(*kind) for kind in self._kinds))
        topology = Topology(frontends, apis)
        self._last = time.monotonic(), topology
        return topology

    async def _all(self, name: str, port: int, path: str) -> list[Node]:
        try:
            async with asyncio.timeout(NAME):
                found = await asyncio.get_running_loop().getaddrinfo(
                    name, port, family=socket.AF_INET, type=socket.SOCK_STREAM
                )
        except (OSError, TimeoutError):
            return []
        addresses = {str(each[4][0]) for each in found}
        for known in [key for key in self._names if key[0] == name and key[1] not in addresses]:
            del self._names[known]
        nodes = await asyncio.gather(
            *(self._node((name, address), port, path) for address in addresses)
        )
        return sorted(nodes, key=lambda node: node.name)

    async def _node(self, key: tuple[str, str], port: int, path: str) -> Node:
        _, address = key
        start = time.perf_counter()
        try:
            async with asyncio.timeout(ANSWER):
                status, headers, body = await _get(address, port, path)
        except TimeoutError:
            return Node(self._names.get(key, address), "away", reason="no answer in time")
        except (OSError, ValueError) as error:
            return Node(self._names.get(key, address), "away", reason=_reason(error))
        name = next((headers[each] for each in HEADERS if headers[each]), address)
        self._names[key] = name
        ms = round((time.perf_counter() - start) * 1000, 1)
        if body.startswith(b"draining"):
            return Node(name, "draining", ms)
        return Node(name, "ok" if status == 200 and b"degraded" not in body else "degraded", ms)


async def _get(address: str, port: int, path: str) -> tuple[int, HTTPMessage, bytes]:
    """Ask one replica and no other; HTTP/1.0, so that the connection's end is the answer's."""
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n".encode())
        answer = io.BytesIO(await reader.read(-1))
    finally:
        writer.close()
    words = answer.readline().split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/"):
        raise ValueError("its answer is no HTTP")
    return int(words[1]), parse_headers(answer), answer.read()


def _reason(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "the connection is refused"
    return str(error) or type(error).__name__
