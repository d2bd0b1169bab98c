"""Three machines that differ, and runs in which one of them fails."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.machine import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Fleet

PORT = 18090
LISTENER = "fleet-listener"


@pytest.fixture
def taken(fleet: Fleet) -> Iterator[None]:
    """Have another program listen where lab2's stack is to listen, until the check stops it."""
    machine = fleet.stacks["lab2"].machine
    machine.try_run("systemctl", "stop", LISTENER)
    server = ["python3", "-m", "http.server", str(PORT)]
    machine.run("systemd-run", "--quiet", "--collect", f"--unit={LISTENER}", *server)
    wait_until(lambda: str(PORT) in machine.run("ss", "-tln").out, 10, "somebody listens there")
    yield
    machine.try_run("systemctl", "stop", LISTENER)


def test_each_machine_is_what_its_variables_say(fleet: Fleet) -> None:
    """Two Debians; counts, ports and limits of their own, as make status sees them at once."""
    release = {
        name: stack.machine.read("/etc/debian_version")[:2] for name, stack in fleet.stacks.items()
    }
    assert release == {"lab1": "13", "lab2": "12", "lab3": "13"}
    found = fleet.status()
    assert {name: each["state"] for name, each in found.items()} == dict.fromkeys(found, "well")
    service = {
        name: {each["name"]: each for each in about["services"]} for name, about in found.items()
    }
    counts = {
        name: (each["frontend"]["there"], each["api"]["there"]) for name, each in service.items()
    }
    assert counts == {"lab1": (2, 1), "lab2": (1, 1), "lab3": (1, 1)}
    memory = {name: each["api"]["memory_limit_bytes"] >> 20 for name, each in service.items()}
    assert memory == {"lab1": 512, "lab2": 512, "lab3": 384}
    cpus = {name: each["cache"]["cpus_limit"] for name, each in service.items()}
    assert cpus == {"lab1": 0.25, "lab2": 0.25, "lab3": 0.2}
    answers = {
        (name, port) for name in found for port in (8080, 18080) if fleet.answers(name, port)
    }
    assert answers == {("lab1", 8080), ("lab2", 18080), ("lab3", 8080)}


def test_pinned_machine_refuses_another_environment(fleet: Fleet) -> None:
    """In one line with both ways out, and nothing is changed on any machine."""
    said = fleet.make("up ENV=dev")
    assert said.code != 0
    assert (
        "lab3 is pinned to 'prod' by stack_env in the inventory, and env is 'dev':"
        " type -e env=prod, or leave this machine out, --limit 'all:!lab3'."
    ) in said.summary
    assert re.search(r"^  lab1, lab2 +not done +the run ended before$", said.summary, re.M), (
        said.out
    )
    assert all(" changed=0 " in each for each in said.recap.values()), said.out
    assert {each["env"] for each in fleet.status().values()} == {"prod"}


@pytest.mark.usefixtures("taken")
def test_machine_that_fails_leaves_the_others_done_and_is_done_by_the_next_run(
    fleet: Fleet,
) -> None:
    """All are to move to a port that is taken on lab2; what the summary says does the rest."""
    said = fleet.make(f"up SET=stack_compose_http_port={PORT}")
    assert said.code != 0
    assert said.summary.startswith("\n2 of 3 machines are done."), said.summary
    row = rf"^  lab2  failed +Port {PORT} is held by python3.* -e stack_compose_http_port=\.\.\.$"
    assert re.search(row, said.summary, re.M), said.summary
    assert not re.search(r"^  lab[13]\b", said.summary, re.M), said.summary
    assert fleet.answers("lab1", PORT)
    assert fleet.answers("lab3", PORT)
    # It serves on as before.
    assert fleet.answers("lab2", 18080)

    again = said.to_type
    assert again.startswith("make up "), said.summary
    fleet.stacks["lab2"].machine.run("systemctl", "stop", LISTENER)
    mended = fleet.type(again)
    assert mended.code == 0, mended.out
    assert set(mended.recap) == {"lab2"}, mended.out
    assert fleet.answers("lab2", PORT)
    assert not fleet.answers("lab2", 18080)
    # Where nobody is missing, there is nothing to take up again.
    assert fleet.type(again).code != 0


def test_machine_that_is_away_is_named_and_too_many_failures_stop_the_run(fleet: Fleet) -> None:
    """Its sshd is down; with MAX_FAILURES=0 no batch begins, and the others are named too."""
    machine = fleet.stacks["lab3"].machine
    # Its sessions end with it, and this one: so it comes back by itself.
    script = "systemctl stop ssh; pkill -KILL sshd; sleep 20; systemctl start ssh"
    machine.run("systemd-run", "--quiet", "--collect", "--on-active=1s", "sh", "-c", script)
    wait_until(lambda: not listening(fleet, "lab3"), 15, "lab3 is away")
    said = fleet.make("plan BATCH=1 MAX_FAILURES=0 ARGS='--tags always'")
    assert said.code != 0
    assert said.summary.startswith("\n0 of 3 machines are done."), said.summary
    assert re.search(r"^  lab3 +unreachable  .*Connection refused$", said.summary, re.M), said.out
    why = "Not begun, since 1 of 3 machines have failed and MAX_FAILURES=0 bears 0"
    assert re.search(rf"^  lab1 +failed +{why}$", said.summary, re.M), said.summary
    assert re.search(r"^  lab2 +not done +the run ended before$", said.summary, re.M), said.summary
    wait_until(lambda: listening(fleet, "lab3"), 40, "lab3 is back")


def listening(fleet: Fleet, name: str) -> bool:
    """Tell whether sshd takes connections there."""
    return fleet.type(f"exec 3<>/dev/tcp/{fleet.address(name)}/22").code == 0
