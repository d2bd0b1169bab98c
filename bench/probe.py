"""Run on a bare machine: what each container of the stack has used, as JSON.

Asked of the engine, which knows it for either version of control groups. CPU time in nanoseconds
since the container's start; memory in bytes without the page cache that could be given back, as
`docker stats` shows it.
"""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

SOCKET = "/var/run/docker.sock"


class Engine(http.client.HTTPConnection):
    """A connection to the engine's socket."""

    def connect(self) -> None:
        """Connect to the socket in the place of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(SOCKET)

    def ask(self, path: str) -> Any:
        """Return the answer to a GET request."""
        self.request("GET", path)
        return json.loads(self.getresponse().read())


def used_by(engine: Engine, container: dict[str, Any]) -> dict[str, Any]:
    """Return service, cpu_ns and memory_bytes of a container."""
    stats = engine.ask(f"/containers/{container['Id']}/stats?stream=false&one-shot=true")
    memory = stats["memory_stats"]
    details = memory["stats"]
    reclaimable = details.get("total_inactive_file", details.get("inactive_file", 0))
    return {
        "service": container["Labels"]["com.docker.compose.service"],
        "cpu_ns": stats["cpu_stats"]["cpu_usage"]["total_usage"],
        "memory_bytes": memory["usage"] - reclaimable,
        "memory_limit_bytes": memory["limit"],
    }


def usage() -> list[dict[str, Any]]:
    """Return an entry for each running container."""
    engine = Engine("localhost")
    containers = [
        container
        for container in engine.ask("/containers/json")
        if "com.docker.compose.service" in container["Labels"]
    ]
    return [used_by(engine, container) for container in containers]


if __name__ == "__main__":
    print(json.dumps(usage()))
