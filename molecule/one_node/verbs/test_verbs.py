"""The verbs on a swarm of one machine, one after another; at the end it is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance.settings import Settings
from tests.acceptance.stack import Stack
from tests.acceptance.swarm_stack import SwarmStack

if TYPE_CHECKING:
    from testinfra.host import Host

    from tests.controller import Controller

SWARM = ("-e", "orchestrator=swarm")
PROD = ("-e", "env=prod")
NAME = "one node: kept"


def secrets(stack: Stack) -> str:
    """What tells whether any of the secrets' files is another one; not what is in them."""
    files = 'stat -c "%n %Y %s" "$1"/secrets/*'
    return stack.machine.run("sh", "-c", files, "sh", stack.directory).out


def rows(stack: Stack) -> list[list[str]]:
    """The row that is to be kept."""
    return stack.sql(f"SELECT name FROM items WHERE name = '{NAME}'")


def test_plan_ends_well_and_changes_nothing(stack: SwarmStack, controller: Controller) -> None:
    before = [each.life for each in stack.containers()]
    run = controller.play("site.yml", *PROD, *SWARM, "--check", "--diff")
    assert (run.code, run.changed) == (0, 0), run.output
    assert [each.life for each in stack.containers()] == before


def test_status_and_logs_know_it(controller: Controller) -> None:
    status = controller.play("playbooks/status.yml", *SWARM)
    assert status.code == 0, status.output
    assert "has the database" in status.output
    logs = controller.play("playbooks/logs.yml", *SWARM, "-e", "service=api", "-e", "lines=5")
    assert logs.code == 0, logs.output
    assert "api-2" in logs.output


@pytest.mark.parametrize(("playbook", "more"), [
    ("site.yml", PROD),
    ("playbooks/down.yml", ()),
    ("playbooks/destroy.yml", ("-e", "confirm=stackyard")),
])  # fmt: skip
def test_verb_that_means_composes_stack_is_refused(
    stack: SwarmStack, controller: Controller, playbook: str, more: tuple[str, ...]
) -> None:
    before = [each.life for each in stack.containers()]
    run = controller.play(playbook, *more)
    assert (run.code, run.changed) == (2, 0), run.output
    (said,) = run.errors
    assert "Docker Swarm runs stackyard on " in said
    assert "ORCHESTRATOR=swarm" in said
    assert [each.life for each in stack.containers()] == before


@pytest.mark.parametrize(("setting", "says"), [
    ("env=dev", "-e env=prod"),
    ("stack_compose_bind_address=127.0.0.1", "leave it out"),
])  # fmt: skip
def test_what_a_swarm_cannot_do_is_refused(controller: Controller, setting: str, says: str) -> None:
    run = controller.play("site.yml", *PROD, *SWARM, "-e", setting)
    assert (run.code, run.changed) == (2, 0), run.output
    (said,) = run.errors
    assert says in said


@pytest.mark.parametrize("verb", ["backup", "restore", "restore_drill"])
def test_verb_that_a_swarm_has_not_is_refused(controller: Controller, verb: str) -> None:
    run = controller.play(f"playbooks/{verb}.yml", *SWARM)
    assert (run.code, run.changed) == (2, 0), run.output
    assert run.errors[0].startswith(f"make {verb.replace('_', '-')} is for Compose's stacks")


def test_rows_and_secrets_are_kept_down_on_compose_and_on_a_swarm_again(
    host: Host, stack: SwarmStack, controller: Controller
) -> None:
    stack.create_item(NAME)
    before = secrets(stack)
    down = controller.play("playbooks/down.yml", *SWARM)
    assert down.code == 0, down.output
    assert stack.machine.run("docker", "ps", "-aq", "--filter", f"label={stack.label}").out == ""

    controller.deploy("prod")
    composed = Stack(host, Settings({}, {}))
    composed.wait_healthy()
    assert (rows(composed), secrets(composed)) == ([[NAME]], before)
    assert controller.deploy("prod").changed == 0

    # Its containers end with an engine that is still a swarm's.
    composed.machine.run("systemctl", "restart", "docker", seconds=180)
    composed.wait_healthy()
    assert rows(composed) == [[NAME]]

    controller.deploy("prod", *SWARM)
    assert composed.containers() == []
    stack.wait_healthy()
    assert (rows(stack), secrets(stack)) == ([[NAME]], before)
    assert controller.deploy("prod", *SWARM).changed == 0


def test_destroy_leaves_neither_stack_nor_swarm(stack: SwarmStack, controller: Controller) -> None:
    run = controller.play("playbooks/destroy.yml", *SWARM, "-e", "confirm=stackyard")
    assert run.code == 0, run.output
    for kind in ("container", "network", "volume"):
        left = stack.machine.run("docker", kind, "ls", "-q", "--filter", f"label={stack.label}")
        assert left.out == "", f"{kind}: {left}"
    state = stack.machine.run("docker", "info", "--format", "{{.Swarm.LocalNodeState}}")
    assert state.out.strip() == "inactive"
    assert stack.machine.try_run("ls", f"{stack.directory}/secrets").code != 0
