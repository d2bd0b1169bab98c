"""On a lab machine: watch which ports are opened, and ask who is behind them, until it is told.

Takes the file to write to. Every port that was not there at the start gets a record there: the
addresses at which it listens, what answers to a reader and to a writer on loopback, and whether it
can be reached at the machine's own address.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

PAUSE = 0.02
PATIENCE = 2.0


def listening() -> dict[int, list[str]]:
    """Addresses by port."""
    command = ["ss", "--no-header", "--listening", "--tcp", "--numeric"]
    found: dict[int, list[str]] = {}
    for line in subprocess.run(command, capture_output=True, text=True).stdout.splitlines():
        address, _, port = line.split()[3].rpartition(":")
        found.setdefault(int(port), []).append(address)
    return found


def own_address() -> str:
    """The address that others reach this machine at."""
    command = ["ip", "-4", "-o", "addr", "show", "dev", "eth0"]
    out = subprocess.run(command, capture_output=True, text=True).stdout
    return out.split()[3].partition("/")[0]


def status(port: int, request: str) -> str:
    """The first words of the answer on loopback; empty without one."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.sendall(f"{request} HTTP/1.0\r\nContent-Length: 0\r\n\r\n".encode())
        return client.recv(12).decode(errors="replace")
    return ""


def reached(address: str, port: int) -> bool:
    """Tell whether somebody answers there."""
    with suppress(OSError), socket.create_connection((address, port), PATIENCE):
        return True
    return False


def main() -> None:
    """Watch until SIGTERM."""
    record = Path(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    before, own = set(listening()), own_address()
    found: dict[int, dict[str, Any]] = {}
    record.write_text("{}")
    while True:
        for port, addresses in listening().items():
            if port in before or found.get(port, {}).get("reads", "").endswith("200"):
                continue
            found[port] = {
                "at": addresses,
                "reads": status(port, "GET /v2/"),
                "writes": status(port, "POST /v2/stackyard-shipped/other/blobs/uploads/"),
                "from outside": reached(own, port),
            }
            record.write_text(json.dumps(found))
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()
