"""Requests per second, latency and CPU time through the gateway, on the prod stack in its limits.

The load comes from the same machine, and takes its share of the cores.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from bench.figures import Figure
from bench.machine import CHECKOUT, Machine
from bench.shell import BenchError, say
from bench.stack import STACK, usage

GATEWAY = "http://127.0.0.1:8080"
CONNECTIONS = 32
WARM_UP_SECONDS = 2
SETTLE_SECONDS = 2


@dataclass
class Load:
    """A load on one address: what wrk saw, and the CPU time of each service in seconds."""

    seen: dict[str, int]
    cpu: dict[str, float]
    memory: dict[str, int]

    @property
    def per_second(self) -> float:
        """Requests a second."""
        return self.seen["requests"] / self.seen["duration_us"] * 1e6

    @property
    def errors(self) -> int:
        """Requests that were refused, broken, late, or answered with an error."""
        return sum(self.seen[kind] for kind in ("refused", "broken", "late", "status"))

    def figures(self, name: str) -> list[Figure]:
        """Return rate, latency and CPU time per request."""
        cost = {service: spent / self.seen["requests"] * 1e6 for service, spent in self.cpu.items()}
        parts = ", ".join(f"{service} {spent:.0f}" for service, spent in sorted(cost.items()))
        return [
            Figure(f"{name}: rate", self.per_second, "/s", note=f"{CONNECTIONS} connections"),
            Figure(f"{name}: p50", self.seen["p50_us"] / 1e3, "ms"),
            Figure(f"{name}: p99", self.seen["p99_us"] / 1e3, "ms"),
            Figure(f"{name}: CPU time a request", sum(cost.values()), "us", note=parts),
            Figure(f"{name}: errors", self.errors, ""),
        ]


def measure(machine: Machine, seconds: int) -> tuple[list[Figure], dict[str, Any]]:
    """Load a cached read of one item, then the page, for so many seconds each."""
    machine.do("apt-get", "install", "-q", "-y", "--no-install-recommends", "wrk", timeout=300)
    machine.do("docker", "compose", "up", "-d", "--wait", directory=STACK, timeout=300)
    item = _item(machine)
    loads = {
        "cached read": _load(machine, f"{GATEWAY}/api/items/{item}", seconds),
        "page": _load(machine, f"{GATEWAY}/", seconds),
    }
    figures = [figure for name, load in loads.items() for figure in load.figures(name)]
    for service, used in sorted(loads["page"].memory.items()):
        figures.append(Figure(f"memory after the load: {service}", used / 2**20, "MiB"))
    return figures, {
        name: {"wrk": load.seen, "cpu_s": load.cpu, "memory_bytes": load.memory}
        for name, load in loads.items()
    }


def _item(machine: Machine) -> int:
    """Store an item and read it until it comes from the cache; return its number."""
    stored = _ask(machine, "/api/items", json.dumps({"name": "bench", "note": "x" * 100}))
    number = stored["id"]
    for _ in range(10):
        if _ask(machine, f"/api/items/{number}").get("source") == "cache":
            return number
    raise BenchError("Ten reads of one item, and none came from the cache.")


def _ask(machine: Machine, path: str, body: str | None = None) -> dict[str, Any]:
    code = (
        "import sys, urllib.request as r; body = sys.stdin.buffer.read() or None;"
        "q = r.Request(sys.argv[1], body, {'Content-Type': 'application/json'});"
        "sys.stdout.write(r.urlopen(q, timeout=10).read().decode())"
    )
    return json.loads(machine.do("python3", "-c", code, GATEWAY + path, stdin=body or ""))


def _load(machine: Machine, url: str, seconds: int) -> Load:
    _wrk(machine, url, WARM_UP_SECONDS)
    time.sleep(SETTLE_SECONDS)
    before = _cpu(machine)
    seen = _wrk(machine, url, seconds)
    after = _cpu(machine)
    memory: dict[str, int] = {}
    for container in usage(machine):
        service = container["service"]
        memory[service] = memory.get(service, 0) + container["memory_bytes"]
    load = Load(seen, {name: after[name] - before[name] for name in after}, memory)
    say(f"  {url}: {load.per_second:,.0f} a second, p99 {seen['p99_us'] / 1e3:.1f} ms")
    return load


def _cpu(machine: Machine) -> dict[str, float]:
    """Return the seconds of CPU time that each service has used so far."""
    spent: dict[str, float] = {}
    for container in usage(machine):
        service = container["service"]
        spent[service] = spent.get(service, 0.0) + container["cpu_ns"] / 1e9
    return spent


def _wrk(machine: Machine, url: str, seconds: int) -> dict[str, int]:
    printed = machine.do(
        *("wrk", "--latency", f"--connections={CONNECTIONS}", "--threads=1"),
        *(f"--duration={seconds}s", "--timeout=5s", f"--script={CHECKOUT}/bench/wrk.lua", url),
        timeout=seconds + 60,
    )
    for line in printed.splitlines():
        if line.startswith("@wrk "):
            return json.loads(line.removeprefix("@wrk "))
    raise BenchError(f"wrk printed no result:\n{printed}")
