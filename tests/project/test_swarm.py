"""docs/swarm.md and the checks agree on what does not hold on a swarm, and why."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from .conftest import ROOT

# As the page lists them: `| 2, 3 | promise | on a swarm |`.
ROW = re.compile(r"^\| ([0-9, ]+) \| .* \| (.*) \|$", re.MULTILINE)
PROMISE = re.compile(r"^\S +([0-9+]+)  ")
REASON = re.compile(r"^ +not on a swarm: (.*) \(\d+ checks?\)$")


def listed() -> dict[str, str]:
    """What the page says of each promise."""
    text = (ROOT / "docs/swarm.md").read_text(encoding="utf-8")
    return {each: said for numbers, said in ROW.findall(text) for each in numbers.split(", ")}


@pytest.fixture(scope="module")
def marked() -> dict[str, set[str]]:
    """By promise, why some of its checks are not for a swarm, as make verify says it."""
    command = [sys.executable, "-m", "pytest", "tests/acceptance", "--collect-only", "-q"]
    options = ["-p", "no:cacheprovider", "--hosts=local://", "--set=orchestrator=swarm"]
    done = subprocess.run(
        [*command, *options], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found: dict[str, set[str]] = {}
    promise = ""
    for line in done.stdout.splitlines():
        if match := PROMISE.match(line):
            promise = match[1]
        elif match := REASON.match(line):
            found.setdefault(promise, set()).add(match[1])
    return found


def test_every_reason_of_a_check_is_listed(marked: dict[str, set[str]]) -> None:
    rows = listed()
    missing = {
        number: reason
        for number, reasons in marked.items()
        for reason in reasons
        if reason not in rows.get(number, "")
    }
    assert not missing, f"docs/swarm.md does not say {missing}"


def test_what_is_listed_as_not_holding_has_a_check_that_says_so(
    marked: dict[str, set[str]],
) -> None:
    not_holding = {number for number, said in listed().items() if "does not hold" in said}
    assert not_holding
    assert not_holding <= set(marked)


def test_every_promise_is_listed() -> None:
    assert sorted(map(int, listed())) == list(range(1, 16))
