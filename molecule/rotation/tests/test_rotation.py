"""Passwords are replaced under load; afterwards the old ones are refused and found nowhere."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.load import missing_writes, steady_load
from tests.acceptance.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.acceptance.stack import Stack
    from tests.controller import Controller

PLAY = "playbooks/rotate_secrets.yml"
FILES = [each.name for each in Settings({}, {}).secret_files() if "certificate" not in each.name]
OLD = "/run/stackyard-old-secrets"
GIVEN = "given-'by\"the$vault-0123456789"
# As the api does it, with the passwords that it has just then.
CONNECT = """
import asyncio
from stackyard_api.connection import connect
from stackyard_api.settings import Settings
async def ask():
    connection = await connect(Settings.from_environment())
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()
asyncio.run(ask())
"""
# What the run prints after each of its steps but the last.
STEPS = [
    "choose new passwords",
    "have the clients know both",
    "have the servers take the new ones",
    "leave the new ones alone",
]


@pytest.fixture(autouse=True)
def _old_values(stack: Stack) -> Iterator[None]:
    """Keep the old values, out of the stack's reach, for as long as a check lasts."""
    stack.machine.run("rm", "-rf", OLD)
    stack.machine.run("cp", "-a", f"{stack.directory}/secrets", OLD)
    yield
    stack.machine.run("rm", "-rf", OLD)


def assert_rotated(stack: Stack) -> None:
    """The new ones are taken, the old ones refused and nowhere; files are whole, and theirs."""
    directories = {"old": OLD, "new": f"{stack.directory}/secrets"}
    request = {"api": stack.one("api").id, "directories": directories}
    assert stack.machine.program("logins", request) == {
        "old": {"database": False, "cache": False},
        "new": {"database": True, "cache": True},
    }
    request = {"directory": stack.directory, "label": stack.label, "files": FILES}
    found = stack.machine.program("secrets_scan", {**request, "values": OLD})
    assert found["blind"] == []
    assert [f for place in found["places"].values() for f in place["findings"]] == []
    # In the secrets themselves, on the machine and as the containers have them mounted.
    # A pattern that begins with a dash is none of grep's options.
    script = (
        'cd "$1"; for f in "$2"/*_password; do grep -rlF -f "$f" secrets /run/*.lock 2>/dev/null; '
        'for c in $(docker compose ps -q); do docker exec "$c" sh -c "cat /run/secrets/*" '
        '2>/dev/null | grep -qF -f "$f" && echo "in $c"; done; done; true'
    )
    assert stack.machine.run("sh", "-c", script, "sh", stack.directory, OLD).lines() == []
    names = stack.machine.run("ls", "-A", f"{stack.directory}/secrets").lines()
    assert sorted(names) == sorted(stack.machine.run("ls", "-A", OLD).lines())
    shown = ("stat", "-c", "%u %g %a %n", *names)
    now = stack.machine.run(*shown, folder=f"{stack.directory}/secrets").out
    assert now == stack.machine.run(*shown, folder=OLD).out


@pytest.mark.disruptive
def test_no_request_fails_while_passwords_are_replaced(
    stack: Stack, controller: Controller
) -> None:
    lives = {each.name: each.life for each in stack.containers()}
    with steady_load(stack, rate=120, least=1000) as load:
        run = controller.play(PLAY, "-vvv")
    assert run.code == 0, run.output
    assert not load.failures(), load.failures()
    assert missing_writes(stack, load) == []
    assert {each.name: each.life for each in stack.containers()} == lives
    assert_rotated(stack)
    shown = [
        name
        for directory in (OLD, f"{stack.directory}/secrets")
        for name in FILES
        if name != "cache_users" and stack.machine.read(f"{directory}/{name}").strip() in run.output
    ]
    assert shown == [], "values stand in the output"
    # What starts anew gets the new ones.
    stack.compose("restart", "cache", "api", seconds=120)
    stack.wait_healthy()
    assert controller.deploy("prod").changed == 0


@pytest.mark.disruptive
@pytest.mark.parametrize("step", STEPS)
def test_a_rotation_that_was_killed_is_finished_by_the_next(
    stack: Stack, controller: Controller, step: str
) -> None:
    """Nothing fails in between either, and a deploy says what to do first."""
    with steady_load(stack, rate=60) as load:
        controller.play_killed_at(PLAY, step)
        # Connections of before are no proof: what connects anew has to get in. To end those of
        # before would leave the writes on them in doubt, and fail one now and then.
        for api in stack.of("api"):
            stack.machine.run("docker", "exec", api.id, "python3", "-c", CONNECT)
        refused = controller.play("site.yml", "-e", "env=prod")
        run = controller.play(PLAY)
    assert refused.code != 0
    assert "was begun and is not finished: type make rotate-secrets." in refused.errors[0]
    assert run.code == 0, run.output
    assert "Taking over a lock" in refused.output + run.output
    assert not load.failures(), load.failures()
    assert_rotated(stack)


@pytest.mark.disruptive
def test_the_next_value_can_come_from_a_vault(stack: Stack, controller: Controller) -> None:
    values = dict.fromkeys(("database_superuser", "database_api", "cache_api"), GIVEN)
    given = ("-e", json.dumps({"stack_secrets_values": values}))
    short = ("-e", json.dumps({"stack_secrets_values": {"cache_api": "short"}}))
    refused = controller.play(PLAY, *short)
    assert "The value given for cache_api has 5 characters: give 12 or more" in refused.errors[0]
    before = stack.machine.run("sh", "-c", "sha256sum secrets/*", folder=stack.directory).out
    assert ".next" not in before, "half a rotation was begun"
    run = controller.play(PLAY, *given)
    assert run.code == 0, run.output
    assert GIVEN not in run.output
    assert_rotated(stack)
    again = controller.play(PLAY, *given)
    assert "is the one in use: give another one, or none." in again.errors[0], again.output
    assert controller.deploy("prod", *given).changed == 0
