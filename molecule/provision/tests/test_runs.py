"""Further runs of site.yml on a machine that has its stack."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.acceptance.stack import Stack
    from tests.controller import Controller


def test_check_mode_agrees_that_nothing_changes(controller: Controller) -> None:
    run = controller.deploy("prod", "--check", "--diff")
    assert run.changed == 0, run.output


def test_check_mode_shows_a_change_and_does_not_make_it(
    stack: Stack, controller: Controller
) -> None:
    path = f"{stack.directory}/docker-compose.prod.yml"
    before = stack.machine.read(path)
    lives = [each.life for each in stack.containers()]
    run = controller.deploy("prod", "--check", "--diff", "-e", "stack_compose_api_memory=640M")
    assert "+          memory: 640M" in run.output, run.output
    assert stack.machine.read(path) == before
    assert [each.life for each in stack.containers()] == lives


def test_a_tag_runs_its_role_alone(stack: Stack, controller: Controller) -> None:
    """The files are rendered anew; nobody has brought them up."""
    counts = stack.counts()
    with_more = ("-e", f"stack_compose_api_replicas={counts['api'] + 1}")
    run = controller.deploy("prod", "--tags", "stack_compose", *with_more)
    try:
        assert run.changed == 1, run.output
        assert stack.counts() == counts
    finally:
        controller.deploy("prod", "--tags", "stack_compose")


def test_what_people_edited_stays(stack: Stack, controller: Controller) -> None:
    path = f"{stack.directory}/config/api/app.toml"
    stack.machine.run("sed", "-i.shipped", "s/Stackyard lab/Edited by hand/", path)
    try:
        edited = stack.machine.read(path)
        assert "Edited by hand" in edited, "there was nothing to edit"
        run = controller.deploy("prod")
        assert stack.machine.read(path) == edited
        assert run.changed == 0, run.output
    finally:
        stack.machine.run("mv", f"{path}.shipped", path)
