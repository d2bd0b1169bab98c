"""Steady load on a stack while something is done to it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .stack import Stack

UNTIL = "/run/stackyard-steady-until"
LONGEST_SECONDS = 420


class Load:
    """What came of the load; empty until it has ended."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self.report: dict[str, Any] = {}

    @property
    def requests(self) -> int:
        """How many were sent."""
        return self.report["requests"]

    @property
    def slow(self) -> int:
        """How many of them took five seconds."""
        return self.report["slow"]

    @property
    def items(self) -> dict[str, list[str]]:
        """Path of each item that was acknowledged, and the names that it may have."""
        return self.report["items"]

    def failures(self) -> str:
        """What failed, for messages; empty where nothing did."""
        if not self.report["failed"]:
            return ""
        lines = [f"{self.report['failed']} of {self.requests} requests failed"]
        for reason, cases in self.report["failures"].items():
            lines += [f"  {reason}", *(f"    {case}" for case in cases)]
        return "\n".join(lines)


@contextmanager
def steady_load(stack: Stack, rate: int = 100, slow: int = 4, least: int = 0) -> Iterator[Load]:
    """Keep asking, `rate` times a second, and with `slow` requests of five seconds under way.

    Ends with the block, and not before `least` requests were sent; see on_machine/steady.py.
    """
    load = Load()
    request = {
        "url": stack.url(""),
        "until": UNTIL,
        "seconds": LONGEST_SECONDS,
        "rate": rate,
        "slow": slow,
        "least": least,
    }
    stack.machine.run("rm", "-f", UNTIL)
    with ThreadPoolExecutor(max_workers=1) as pool:
        running = pool.submit(stack.machine.program, "steady", request, LONGEST_SECONDS + 60)
        try:
            yield load
        finally:
            stack.machine.run("touch", UNTIL)
            load.report = running.result()


def missing_writes(stack: Stack, load: Load) -> list[str]:
    """Acknowledged writes that the database does not have as they were."""
    rows = dict(stack.sql("SELECT id, name FROM items"))
    wanted = {path.rpartition("/")[2]: names for path, names in load.items.items()}
    return [
        f"item {number} is {rows.get(number, 'lost')!r}, not {' or '.join(names)!r}"
        for number, names in wanted.items()
        if rows.get(number) not in names
    ]
