"""Run on a bare machine: loads the gateway with one kind of request, and prints JSON.

A step has a rate and seconds. At a given rate each request leaves when it is due, whether or not
earlier ones were answered, on one more connection where all are taken; its time counts from when it
was due, so that a slow answer shows in those behind it too. wrk, hey and h2load wait for answers,
and so leave out just the requests that would have met the trouble. A rate of 0 is as fast as it
goes: each connection asks again once it has its answer.

One thread, without asyncio: what this takes, the stack lacks.
"""

from __future__ import annotations

import argparse
import errno
import gc
import json
import os
import re
import select
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import probe

# How long a client would wait for an answer, in seconds.
TIMEOUT = 10.0
# A little less than the gateway takes in all.
MOST_CONNECTIONS = 1800
# Shares no factor with a power of ten: steps through all of so many numbers, far apart.
STRIDE = 7919

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
SOURCE = re.compile(rb"\r\nx-source: *(\w+)", re.IGNORECASE)
LAST_CHUNK = b"\r\n0\r\n\r\n"


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Load the gateway, and print JSON.")
    parser.add_argument("steps", nargs="+", metavar="RATE:SECONDS")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--method", default="GET")
    parser.add_argument("--path", required=True, help="{} stands for an item's number")
    parser.add_argument("--first", type=int, default=1, help="the first item's number")
    parser.add_argument("--items", type=int, default=1, help="how many items there are")
    parser.add_argument("--skip", type=int, default=0, help="how many were asked for already")
    parser.add_argument("--body", default="", help="JSON")
    parser.add_argument("--connections", type=int, default=32, help="for a rate of 0")
    parser.add_argument("--warm-up", type=float, default=0, help="seconds that do not count")
    return parser.parse_args()


def percentiles(took: list[float]) -> dict[str, float]:
    """Return p50, p99 and the longest of sorted times in seconds, in milliseconds."""
    if not took:
        return {}
    at = {"p50_ms": len(took) // 2, "p99_ms": len(took) * 99 // 100, "longest_ms": len(took) - 1}
    return {name: round(took[index] * 1000, 2) for name, index in at.items()}


@dataclass
class Step:
    """A part of a load, and what came of each of its requests."""

    rate: float
    seconds: float
    start: float = 0.0
    end: float = 0.0
    # When it was due in seconds from the start, the seconds that it took, and the status.
    answers: list[tuple[float, float, int]] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)

    def report(self) -> dict[str, Any]:
        """Return counts and times: of all, by status, and by the second in which they were due."""
        by_status: dict[int, list[float]] = {}
        good: list[list[float]] = [[] for _ in range(max(int(self.seconds), 1))]
        due = [0] * len(good)
        for at, took, status in sorted(self.answers, key=lambda answer: answer[1]):
            by_status.setdefault(status, []).append(took)
            second = min(int(at), len(good) - 1)
            due[second] += 1
            if 200 <= status < 300:
                good[second].append(took)
        return {
            "rate": self.rate,
            "seconds": self.end - self.start,
            "answered": len(self.answers),
            **percentiles(sorted(took for _, took, _ in self.answers)),
            "statuses": {
                status: {"count": len(took), **percentiles(took)}
                for status, took in by_status.items()
            },
            "failures": self.failures,
            "sources": self.sources,
            "each_second": [
                {"answered": count, "good": len(took), **percentiles(took)}
                for count, took in zip(due, good, strict=True)
            ],
        }


class Connection:
    """A connection to the gateway, and the request that is under way on it."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        status = self.socket.connect_ex(address)
        if status not in (0, errno.EINPROGRESS):
            raise OSError(status, os.strerror(status))
        self.number = self.socket.fileno()
        self.connected = False
        self.received = b""
        # None while it is idle.
        self.step: Step | None = None
        self.due = 0.0
        self.request = b""


class Load:
    """Sends the requests of one step after the other."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.asked = options.skip
        self.poll = select.epoll()
        self.open: dict[int, Connection] = {}
        self.idle: list[Connection] = []
        self.looked = 0.0
        body = options.body.encode()
        # As a browser does.
        headers = [f"Host: {options.host}:{options.port}", "Accept: */*", "Accept-Encoding: gzip"]
        if body:
            headers += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        before, self.numbered, after = options.path.partition("{}")
        self.before = f"{options.method} {before}".encode()
        self.after = "\r\n".join([f"{after} HTTP/1.1", *headers, "", ""]).encode() + body

    def run(self, step: Step) -> None:
        """Send a step's requests; at a rate, return when the last has left."""
        step.start = time.monotonic()
        if step.rate:
            self.at_rate(step)
        else:
            self.at_full_speed(step)

    def at_rate(self, step: Step) -> None:
        """Send each request when it is due; give up those that found no connection by the end."""
        total, sent = int(step.rate * step.seconds), 0
        end = step.start + step.seconds
        while sent < total:
            now = time.monotonic()
            while sent < total and (due := step.start + sent / step.rate) <= now:
                if not self.idle and len(self.open) >= MOST_CONNECTIONS:
                    break
                self.send(step, due)
                sent += 1
            if now >= end:
                break
            # poll counts in whole milliseconds: a time is up to one too long.
            self.receive(max(step.start + sent / step.rate - time.monotonic(), 0.001))
        if sent < total:
            step.failures["never sent, since all connections waited"] += total - sent
        step.end = time.monotonic()

    def at_full_speed(self, step: Step) -> None:
        """Keep each connection busy, then wait for the last answers."""
        end = step.start + step.seconds
        while (now := time.monotonic()) < end:
            for _ in range(self.options.connections - len(self.open) + len(self.idle)):
                self.send(step, now)
            self.receive(0.1)
        self.drain()
        step.end = time.monotonic()

    def drain(self) -> None:
        """Wait for the answers that are still to come."""
        while len(self.open) > len(self.idle):
            self.receive(0.1)

    def next_request(self) -> bytes:
        """Return the next request."""
        if not self.numbered:
            return self.before + self.after
        number = self.options.first + self.asked * STRIDE % self.options.items
        self.asked += 1
        return b"%s%d%s" % (self.before, number, self.after)

    def send(self, step: Step, due: float) -> None:
        """Send a request on an idle connection, else on a new one."""
        if self.idle:
            connection = self.idle.pop()
        else:
            try:
                connection = Connection(self.options.address)
            except OSError as error:
                step.failures[error.strerror] += 1
                return
            self.open[connection.number] = connection
            self.poll.register(connection.number, select.EPOLLOUT)
        connection.step, connection.due = step, due
        connection.request = self.next_request()
        if connection.connected:
            self.write(connection)

    def write(self, connection: Connection) -> None:
        """Send the request; it is far smaller than what a socket takes at once."""
        try:
            connection.socket.send(connection.request)
        except OSError as error:
            self.fail(connection, error.strerror)

    def receive(self, seconds: float) -> None:
        """Take what arrives within so many seconds."""
        for number, _ in self.poll.poll(seconds):
            connection = self.open.get(number)
            if connection is None:
                continue
            if not connection.connected:
                self.connected(connection)
                continue
            try:
                data = connection.socket.recv(65536)
            except OSError as error:
                self.fail(connection, error.strerror)
                continue
            if not data:
                self.fail(connection, "closed without an answer")
                continue
            connection.received = connection.received + data if connection.received else data
            self.take_answer(connection)
        now = time.monotonic()
        if now > self.looked + 0.25:
            self.looked = now
            for connection in list(self.open.values()):
                if connection.step is not None and now - connection.due > TIMEOUT:
                    self.fail(connection, "no answer in time")

    def connected(self, connection: Connection) -> None:
        """Send what waited for the connection."""
        if status := connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.fail(connection, os.strerror(status))
            return
        connection.connected = True
        self.poll.modify(connection.number, select.EPOLLIN)
        self.write(connection)

    def take_answer(self, connection: Connection) -> None:
        """Note an answer, once all of it is there."""
        received = connection.received
        head_end = received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        status = int(received[9:12])
        length = LENGTH.search(received, 0, head_end)
        if length:
            whole = len(received) >= head_end + 4 + int(length[1])
        else:
            whole = status in (204, 304) or received.endswith(LAST_CHUNK)
        step = connection.step
        if not whole or step is None:
            return
        now = time.monotonic()
        step.answers.append((connection.due - step.start, now - connection.due, status))
        if source := SOURCE.search(received, 0, head_end):
            step.sources[source[1].decode()] += 1
        if CLOSE.search(received, 0, head_end):
            self.close(connection)
        else:
            connection.step, connection.received = None, b""
            self.idle.append(connection)

    def fail(self, connection: Connection, reason: str) -> None:
        """Give a connection up; its request, if it has one, failed."""
        if connection.step is not None:
            connection.step.failures[reason] += 1
        else:
            self.idle.remove(connection)
        self.close(connection)

    def close(self, connection: Connection) -> None:
        """Close a connection that is not idle."""
        del self.open[connection.number]
        connection.socket.close()


def services() -> tuple[dict[str, float], dict[str, int]]:
    """Return by service the CPU time used so far, in seconds, and the memory, in bytes."""
    spent: dict[str, float] = {}
    memory: dict[str, int] = {}
    for used in probe.usage():
        name = used["service"]
        spent[name] = spent.get(name, 0.0) + used["cpu_ns"] / 1e9
        memory[name] = memory.get(name, 0) + used["memory_bytes"]
    return spent, memory


def machine_ticks() -> tuple[int, int]:
    """Return the ticks that the cores were busy so far, and all of them."""
    cores = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
    ticks = [int(text) for text in cores.split()[1:9]]
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, sum(ticks)


def engine_seconds() -> float:
    """Return the CPU time that the engine used so far: it keeps each line that a service logs."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text(encoding="utf-8").rpartition(") ")
        except OSError:
            continue  # It has ended.
        if name.endswith("(dockerd"):
            ticks += sum(int(text) for text in rest.split()[11:13])
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Warm up, run the steps with the services' use of CPU time around them, print all."""
    options = parse()
    options.address = (options.host, options.port)
    load = Load(options)
    if options.warm_up:
        load.run(Step(0, options.warm_up))
    steps = [Step(*map(float, text.split(":"))) for text in options.steps]
    gc.disable()
    before, busy = services()[0], machine_ticks()
    engine, own = engine_seconds(), time.process_time()
    for step in steps:
        load.run(step)
    load.drain()
    own, engine = time.process_time() - own, engine_seconds() - engine
    busy = [after - ticks for after, ticks in zip(machine_ticks(), busy, strict=True)]
    after, memory = services()
    spent = {name: seconds - before.get(name, 0.0) for name, seconds in after.items()}
    elsewhere = busy[0] - (sum(spent.values()) + engine + own) * os.sysconf("SC_CLK_TCK")
    report = {
        "steps": [step.report() for step in steps],
        "asked": load.asked,
        "cpu_s": spent,
        "memory_bytes": memory,
        "engine_cpu_s": engine,
        "load_cpu_s": own,
        # Of all cores' time.
        "busy": busy[0] / max(busy[1], 1),
        "busy_elsewhere": elsewhere / max(busy[1], 1),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
