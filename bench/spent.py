"""Run a command and say, as JSON on the last line, what it cost this machine.

    python -m bench.spent ADDRESS,... COMMAND...

CPU seconds are those of the command and of all that it started, connections left in the background
included: these are ended first. Bytes are what SSH connections to each address carried, as the
kernel counts them, so that what a machine fetches elsewhere is not among them.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
SENT = re.compile(r"\bbytes_sent:(\d+)")
RECEIVED = re.compile(r"\bbytes_received:(\d+)")


def carried(address: str) -> tuple[int, int]:
    """Return the bytes sent to and received from an address, by connections that still stand."""
    command = ["ss", "-tinHO", "state", "established", "dst", address, "dport", "=", ":22"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    sent, received = (sum(map(int, each.findall(shown))) for each in (SENT, RECEIVED))
    return sent, received


def end_children() -> None:
    """End what was left in the background, and wait for it: its CPU seconds count then."""
    own = f"/proc/{os.getpid()}/task/{os.getpid()}/children"
    for child in Path(own).read_text(encoding="ascii").split():
        os.kill(int(child), signal.SIGTERM)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


def main(addresses: list[str], command: list[str]) -> int:
    """Run the command; return its exit status."""
    # What loses its parent becomes this process' child.
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    start = time.monotonic()
    status = subprocess.run(command, check=False).returncode
    seconds = time.monotonic() - start
    bytes_by_address = {each: carried(each) for each in addresses}
    end_children()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "bytes": bytes_by_address,
    }
    print(json.dumps(spent), flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1].split(","), sys.argv[2:]))
