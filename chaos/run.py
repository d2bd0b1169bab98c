"""One machine: load on it, faults one after another, and every row read back at the end."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from .faults import FAULTS, SERVICES, Lab, change_disk, left_behind
from .report import Strike, lost

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.acceptance.stack import Stack

RATE = 60
CLIENTS = 8
# Until all is healthy again.
SETTLE_SECONDS = 180.0
# Then nothing is done for so long: what still fails is this fault's, not the next one's.
CALM_SECONDS = 5.0
# No run is longer, whatever a fault takes.
LONGEST_SECONDS = 3600
BROKEN = (AssertionError, RuntimeError, pytest.fail.Exception)


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)


class Load:
    """The requests: from the machine itself, until the run is over."""

    def __init__(self, stack: Stack, name: str) -> None:
        self.stack = stack
        self.until = f"/run/{stack.unit}.chaos-over"
        self.name = name
        self.answer: dict[str, Any] = {}
        self.error = ""
        stack.machine.run("rm", "-f", self.until)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        request = {
            "url": self.stack.url(""),
            "until": self.until,
            "seconds": LONGEST_SECONDS,
            "rate": RATE,
            "clients": CLIENTS,
            "name": self.name,
        }
        try:
            self.answer = self.stack.machine.program("ledger", request, LONGEST_SECONDS + 60)
        except BROKEN as error:
            self.error = str(error)

    def end(self) -> dict[str, Any]:
        """End it and return what it recorded."""
        self.stack.machine.run("touch", self.until)
        self.thread.join(timeout=60)
        self.stack.machine.run("rm", "-f", self.until)
        assert self.answer, f"the load ended early: {self.error}"
        return self.answer


def begin(lab: Lab, kinds: list[str]) -> list[str]:
    """Mend what a killed run left; return the kinds of fault that this machine can have."""
    stack = lab.stack
    for each in stack.containers():
        if each.state["Status"] == "running":
            stack.machine.try_run("kill", "-CONT", *map(str, stack.servers(each)))
            stack.machine.program("links", {"pids": [each.pid], "state": "up"})
    if left_behind(stack):
        say("  a run before this one was killed: putting the database back on its own disk")
        change_disk(stack, "lift")
    stack.wait_healthy()
    able = list(kinds)
    if stack.machine.try_run("test", "-d", "/run/systemd/system").code:
        say("  no systemd: without engine restart and hang")
        able = [kind for kind in able if kind not in ("engine restart", "hang")]
    if "full disk" in able:
        try:
            change_disk(stack, "lay")
        except BROKEN as error:
            say(f"  without full disk: {str(error).splitlines()[-1]}")
            able.remove("full disk")
    return able


def order(lab: Lab, kinds: list[str]) -> Iterator[str]:
    """All kinds in a random order, and again."""
    while True:
        shuffled = list(kinds)
        lab.random.shuffle(shuffled)
        yield from shuffled


def moment(stack: Stack) -> float:
    """Read the machine's clock, which the load's record is of too."""
    return float(stack.machine.run("date", "+%s.%N").out)


def strikes(lab: Lab, kinds: list[str], seconds: float, *, once: bool) -> list[Strike]:
    """Strike until the time is over, or once with each; wait until all is well in between."""
    done: list[Strike] = []
    start = time.monotonic()
    for kind in order(lab, kinds):
        if len(done) == len(kinds) if once else time.monotonic() - start > seconds:
            return done
        say(f"  {time.monotonic() - start:4.0f} s  {kind} ...")
        began = moment(lab.stack)
        error, what = "", ""
        try:
            what = FAULTS[kind](lab)
        except BROKEN as problem:
            error = str(problem)
        ended = moment(lab.stack)
        try:
            lab.stack.wait_healthy(SETTLE_SECONDS)
        except BROKEN as problem:
            error = f"{error}\n{problem}".strip()
        healthy = moment(lab.stack)
        time.sleep(CALM_SECONDS)
        done.append(Strike(kind, what, began, ended, healthy, moment(lab.stack), error))
        took = f"{ended - began:.0f} s, all healthy {healthy - began:.0f} s after its begin"
        say(f"  {time.monotonic() - start:4.0f} s  {kind}: {what or 'failed'}, {took}")
        if error:
            say(error)
            return done
    return done


def read_back(stack: Stack, name: str, items: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Ask the database for every item that was written, remove them, and return the lost ones."""
    rows = stack.sql(f"SELECT id, note FROM items WHERE name = '{name}'")
    missing = lost(items, {number: note for number, note in rows})
    stack.sql(f"DELETE FROM items WHERE name = '{name}'")
    return missing


def run(lab: Lab, kinds: list[str], seconds: float, name: str, *, once: bool) -> dict[str, Any]:
    """Break one machine's stack for that long; return what came of it."""
    able = begin(lab, kinds)
    try:
        load = Load(lab.stack, name)
        time.sleep(CALM_SECONDS)
        try:
            done = strikes(lab, able, seconds, once=once)
        finally:
            record = load.end()
        missing = read_back(lab.stack, name, record["items"])
    finally:
        if "full disk" in able:
            change_disk(lab.stack, "lift")
    there = {each.service for each in lab.stack.containers()}
    problems = lab.stack.problems() + [f"no {each}" for each in SERVICES if each not in there]
    return {"strikes": done, "record": record, "lost": missing, "problems": problems}
