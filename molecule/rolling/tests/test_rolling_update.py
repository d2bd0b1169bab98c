"""A change rolls through the replicas under load, and no request fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance.load import missing_writes, steady_load

if TYPE_CHECKING:
    from tests.acceptance.stack import Stack
    from tests.controller import Controller

# What the run says before it does it.
ANNOUNCEMENT = "INTERRUPTION"


def lives(stack: Stack, *services: str) -> dict[str, tuple[str, str, int]]:
    """Who is there, and since when."""
    return {each.name: each.life for each in stack.containers() if each.service in services}


@pytest.mark.disruptive
def test_ten_thousand_requests_and_none_fails(stack: Stack, controller: Controller) -> None:
    """Reads, writes, and requests of five seconds, over connections kept and new."""
    rolled = lives(stack, "frontend", "api")
    alone = lives(stack, "gateway", "database", "cache")
    with steady_load(stack, rate=120, least=10_000) as load:
        run = controller.deploy(
            *("prod", "-e", "stack_compose_api_memory=480M"),
            *("-e", "stack_compose_frontend_memory=240M"),
        )
    assert not load.failures(), load.failures()
    assert load.requests >= 10_000
    assert load.slow >= 20, "too few long requests to tell"
    assert missing_writes(stack, load) == []
    now = lives(stack, "frontend", "api")
    assert len(now) == len(rolled)
    assert not now.keys() & rolled.keys(), f"not replaced: {now.keys() & rolled.keys()}"
    assert lives(stack, "gateway", "database", "cache") == alone
    assert ANNOUNCEMENT not in run.output
    assert {each.host_config["Memory"] for each in stack.of("api")} == {480 * 2**20}


@pytest.mark.disruptive
def test_only_what_changed_is_rolled(stack: Stack, controller: Controller) -> None:
    others = lives(stack, "gateway", "api", "database", "cache")
    before = lives(stack, "frontend")
    controller.deploy(
        *("prod", "-e", "stack_compose_api_memory=480M"),
        *("-e", "stack_compose_frontend_memory=256M"),
    )
    assert lives(stack, "gateway", "api", "database", "cache") == others
    assert not before.keys() & lives(stack, "frontend").keys()
    again = controller.deploy("prod", "-e", "stack_compose_api_memory=480M")
    assert again.changed == 0, again.output


@pytest.mark.disruptive
def test_a_change_of_the_database_is_announced_and_ridden_out(
    stack: Stack, controller: Controller
) -> None:
    """503 and no other answer meanwhile; the apis stay, and all that was acknowledged is there."""
    others = lives(stack, "gateway", "frontend", "api", "cache")
    with steady_load(stack, rate=30, slow=0) as load:
        run = controller.deploy(
            *("prod", "-e", "stack_compose_api_memory=480M"),
            *("-e", "stack_compose_database_memory=960M"),
        )
    announced = run.output.index(f"{ANNOUNCEMENT}: what needs it gets 503")
    assert announced < run.output.index("Roll | Replace database or cache")
    assert set(load.report["failures"]) <= {"503"}, load.failures()
    assert lives(stack, "gateway", "frontend", "api", "cache") == others
    assert stack.get("/api/health").status == 200
    assert missing_writes(stack, load) == []


@pytest.mark.disruptive
def test_the_gateways_configuration_is_reloaded_and_nothing_is_dropped(
    stack: Stack, controller: Controller
) -> None:
    """What is loaded has a name; the next run finds that it is not the file's."""
    controller.deploy("prod")
    before = lives(stack, "gateway")
    path = f"{stack.directory}/config/gateway/haproxy.cfg"
    stack.machine.run(
        "sed",
        "-i",
        's/string "[0-9a-f]*" if { path .loaded }/string "0123" if { path \\/loaded }/',
        path,
    )
    assert '"0123" if { path /loaded }' in stack.machine.read(path)
    gateway = stack.one("gateway")
    with steady_load(stack, rate=120) as load:
        stack.exec(gateway, "reload")
        run = controller.deploy("prod")
    assert "told to load its configuration again" in run.output
    assert not load.failures(), load.failures()
    assert load.requests > 500
    assert lives(stack, "gateway") == before
    again = controller.deploy("prod")
    assert again.changed == 0, again.output


@pytest.mark.disruptive
def test_maintenance_answers_everybody_and_ends(stack: Stack, controller: Controller) -> None:
    before = lives(stack, "gateway")
    run = controller.play("playbooks/maintenance.yml", "-e", "on=1")
    try:
        assert run.code == 0, run.output
        page, api = stack.get("/"), stack.get("/api/items")
        assert (page.status, api.status) == (503, 503)
        assert int(page.headers["retry-after"]) > 0
        assert "Nothing that you saved is lost" in page.body
        assert api.json()["detail"] == "Down for maintenance; try again later."
        assert stack.problems() == []
        assert controller.deploy("prod").changed == 0
        assert stack.get("/").status == 503, "a deploy ended it"
    finally:
        over = controller.play("playbooks/maintenance.yml", "-e", "on=0")
    assert over.code == 0, over.output
    assert stack.get("/").status == 200
    assert controller.play("playbooks/maintenance.yml", "-e", "on=0").changed == 0
    assert lives(stack, "gateway") == before
    wrong = controller.play("playbooks/maintenance.yml", "-e", "on=maybe")
    assert wrong.errors == [
        "on is 'maybe': type make maintenance ON=1 or make maintenance ON=0."
    ], wrong.output
