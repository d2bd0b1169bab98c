"""One run at a time changes a machine's stack."""

from __future__ import annotations

import getpass
import json
import os
import socket
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.machine import wait_until

if TYPE_CHECKING:
    from tests.acceptance.stack import Stack
    from tests.controller import Controller

MEMORY_MIB = (500, 512)


def change(stack: Stack) -> tuple[str, int]:
    """Return a setting that has the apis replaced, and the memory in bytes that they have then."""
    now = stack.one("api").host_config["Memory"]
    memory = next(each for each in MEMORY_MIB if each * 2**20 != now)
    return f"stack_compose_api_memory={memory}M", memory * 2**20


def lock(stack: Stack) -> str:
    """The lock's file on the machine."""
    return f"/run/{stack.project}.lock"


@pytest.mark.disruptive
def test_the_second_of_two_runs_stops_at_once_and_says_why(
    stack: Stack, controller: Controller
) -> None:
    setting, _ = change(stack)
    first = controller.start("site.yml", "-e", "env=prod", "-e", setting)
    try:
        there = ("test", "-e", lock(stack))
        wait_until(
            lambda: stack.machine.try_run(*there).code == 0, 60, "the first run has the lock"
        )
        held = json.loads(stack.machine.read(lock(stack)))
        second = controller.play("site.yml", "-e", "env=prod", "-e", setting)
        rotation = controller.play("playbooks/rotate_secrets.yml")
        assert first.poll() is None, "the first run ended before the second could meet it"
    finally:
        output, _ = first.communicate(timeout=300)
    who = f"{os.environ.get('SUDO_USER') or getpass.getuser()} on {socket.gethostname()}"
    line = f"{who} holds the stack since {held['since']} for deploy. Wait until that run has ended."
    for run in (second, rotation):
        assert run.code != 0
        assert run.errors[0].startswith(line), run.output
        assert run.changed == 0, run.output
    assert first.returncode == 0, output
    assert stack.machine.try_run(*there).code != 0, "the lock is still there"


@pytest.mark.disruptive
def test_the_lock_of_a_killed_run_is_taken_over(stack: Stack, controller: Controller) -> None:
    """Killed in the middle of a rolling update; the next run says so and finishes it."""
    setting, memory = change(stack)
    controller.play_killed_at("site.yml", "1 of 2", "-e", "env=prod", "-e", setting)
    assert stack.machine.try_run("test", "-e", lock(stack)).code == 0
    run = controller.deploy("prod", "-e", setting)
    assert "Taking over a lock: " in run.output, run.output
    assert {each.host_config["Memory"] for each in stack.of("api")} == {memory}
    assert len(stack.of("api")) == 2


@pytest.mark.disruptive
def test_a_lock_of_another_controller_is_respected_unless_it_is_taken(
    stack: Stack, controller: Controller
) -> None:
    """Whether its run is still there cannot be seen from here."""
    holder = {"run": "elsewhere/1/1", "by": "somebody", "on": "another", "since": "now", "for": "x"}
    stack.machine.run("sh", "-c", f"echo '{json.dumps(holder)}' >{lock(stack)}")
    try:
        refused = controller.play("site.yml", "-e", "env=prod")
        assert refused.code != 0
        assert refused.errors[0].startswith("somebody on another holds the stack"), refused.output
        for given, says in (
            ("false", "somebody on another holds"),
            ("maybe", "give true or false"),
        ):
            refused = controller.play(
                "site.yml", "-e", "env=prod", "-e", f"stack_deploy_take_lock={given}"
            )
            assert refused.code != 0
            assert says in refused.errors[0], refused.output
        taken = controller.deploy("prod", "-e", "stack_deploy_take_lock=true")
        story = "somebody on another holds the stack since now for x"
        line = f"Taking the lock from a run that may still change the stack: {story}."
        assert line in " ".join(taken.output.split()), taken.output
        assert "has ended" not in taken.output
    finally:
        stack.machine.run("rm", "-f", lock(stack))
