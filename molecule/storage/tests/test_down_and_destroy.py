"""Down keeps the data; destroy removes it, and only when told so by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.acceptance.stack import Stack
    from tests.controller import Controller


def belongings(stack: Stack) -> dict[str, list[str]]:
    """Return the ids of containers and networks and the names of volumes that are the stack's."""
    mine = ("-q", "--filter", f"label=com.docker.compose.project={stack.project}")
    return {
        "containers": stack.machine.run("docker", "ps", "-a", *mine).lines(),
        "networks": stack.machine.run("docker", "network", "ls", *mine).lines(),
        "volumes": stack.machine.run("docker", "volume", "ls", *mine).lines(),
    }


@pytest.mark.disruptive
def test_down_keeps_the_data_and_up_brings_it_back(stack: Stack, controller: Controller) -> None:
    item = stack.create_item("kept while down")
    down = controller.play("playbooks/down.yml")
    try:
        assert down.code == 0, down.output
        left = belongings(stack)
        assert (left["containers"], left["networks"]) == ([], [])
        assert left["volumes"] == [f"{stack.project}_database-data"]
        again = controller.play("playbooks/down.yml")
        assert (again.code, again.changed) == (0, 0), again.output
    finally:
        controller.deploy("prod")
    answer = stack.get(item)
    assert answer.status == 200, f"{answer}\n{stack.logs('database')}"
    stack.send("DELETE", item)


@pytest.mark.parametrize("confirm", ["", "yes", "stack"])
def test_destroy_without_the_name_changes_nothing(
    stack: Stack, controller: Controller, confirm: str
) -> None:
    before = belongings(stack)
    run = controller.play("playbooks/destroy.yml", "-e", f"confirm={confirm}")
    assert run.code != 0
    assert f"make destroy CONFIRM={stack.project}" in run.output, run.output
    assert run.changed == 0
    assert belongings(stack) == before
    assert stack.problems() == []


@pytest.mark.disruptive
def test_destroy_leaves_only_what_is_not_ours(stack: Stack, controller: Controller) -> None:
    machine = stack.machine
    named = ("playbooks/destroy.yml", "-e", f"confirm={stack.project}")
    try:
        machine.run("touch", f"{stack.directory}/notes.txt")
        run = controller.play(*named)
        assert run.code == 0, run.output
        assert belongings(stack) == {"containers": [], "networks": [], "volumes": []}
        assert machine.run("ls", "-A", stack.directory).lines() == ["notes.txt"]
        machine.run("rm", f"{stack.directory}/notes.txt")
        assert controller.play(*named).code == 0
        assert machine.try_run("test", "-e", stack.directory).code == 1
        again = controller.play(*named)
        assert (again.code, again.changed) == (0, 0), again.output
    finally:
        controller.deploy("prod")


@pytest.mark.disruptive
def test_destroy_finds_what_is_left_of_a_removed_directory(
    stack: Stack, controller: Controller
) -> None:
    """Its secrets are gone, so nothing can go on from that volume; a run says what to type."""
    try:
        stack.machine.run("rm", "-r", stack.directory)
        refused = controller.play("site.yml", "-e", "env=prod")
        assert refused.code != 0
        assert "make destroy" in refused.output, refused.output
        run = controller.play("playbooks/destroy.yml", "-e", f"confirm={stack.project}")
        assert run.code == 0, run.output
        assert belongings(stack) == {"containers": [], "networks": [], "volumes": []}
    finally:
        controller.deploy("prod")
