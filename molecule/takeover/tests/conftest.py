"""A stack that an earlier commit deployed, and what must outlive its takeover by this one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import earlier
from tests.acceptance.machine import Machine
from tests.acceptance.settings import Settings
from tests.acceptance.stack import Stack
from tests.controller import Controller

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testinfra.host import Host

    from tests.controller import Run

# One container each: to recreate one is an interruption.
SINGLE = ("database", "cache", "gateway")


@dataclass(frozen=True)
class Snapshot:
    """What a takeover must leave as it is."""

    rows: set[tuple[str, ...]]
    # Name, owner, mode and checksum of each secret file.
    secrets: list[str]
    # What people edited, by path.
    edited: dict[str, str]
    # By service, for those of one container.
    lives: dict[str, tuple[str, str, int]]
    # The volume's name and when it was created.
    volume: str
    # Name and state of each systemd unit.
    units: set[str]
    # Paths below stack_dir, but for releases.
    paths: set[str]


def snapshot(stack: Stack) -> Snapshot:
    """Return the stack's snapshot as of now."""
    shell = ("sh", "-c")
    volume = ("docker", "volume", "inspect", "--format", "{{.Name}} {{.CreatedAt}}")
    units = "systemctl list-unit-files --no-legend 'stackyard*' | awk '{print $1, $2}'"
    edited = [f"{stack.directory}/config/{each}" for each in EDITED]
    return Snapshot(
        {tuple(row) for row in stack.sql("SELECT id, name FROM items")},
        stack.machine.run(
            *shell, "stat -c '%n %u %g %a' secrets/*; sha256sum secrets/*", folder=stack.directory
        ).lines(),
        {path: stack.machine.read(path) for path in edited},
        {each.service: each.life for each in stack.containers() if each.service in SINGLE},
        stack.machine.run(*volume, f"{stack.project}_database-data").out,
        set(stack.machine.run(*shell, units).lines()),
        set(
            stack.machine.run(
                *shell, "find . -maxdepth 3 -not -path './releases/*'", folder=stack.directory
            ).lines()
        ),
    )


EDITED = ("api/app.toml", "gateway/maintenance.html")


def edit(stack: Stack) -> None:
    """Edit what is people's own, as an editor does."""
    for each in EDITED:
        end = ("<!-- ", " -->") if each.endswith("html") else ("# ", "")
        text = f"{end[0]}ours, and to be kept{end[1]}"
        path = f"{stack.directory}/config/{each}"
        stack.machine.run(
            "sh", "-c", f'cp "$1" "$1~" && echo "{text}" >>"$1~" && mv "$1~" "$1"', "sh", path
        )


def announced(run: Run) -> set[str]:
    """Return the services for which a run said INTERRUPTION."""
    return {each for each in SINGLE if re.search(rf"\b{each}\b.*INTERRUPTION", run.output)}


def interrupted(before: Snapshot, after: Snapshot) -> set[str]:
    """Return the services whose one container was recreated or restarted in between."""
    assert set(before.lives) == set(after.lives) == set(SINGLE)
    return {each for each in SINGLE if before.lives[each] != after.lives[each]}


def assert_rejected_in_one_line(run: Run) -> None:
    """The run ended with an error of one line, and had changed nothing."""
    assert run.code != 0, run.output
    assert len(run.errors) == 1, run.output
    assert "\n" not in run.errors[0], run.errors
    assert run.changed == 0, run.output


@pytest.fixture(scope="module")
def old(host: Host, pytestconfig: pytest.Config) -> Controller:
    """Return runs of the earlier commit's playbooks, by this checkout's Ansible."""
    try:
        root = earlier.checkout()
    except earlier.MissingCommitError as error:
        pytest.fail(str(error), pytrace=False)
    inventory = Path(pytestconfig.getoption("--ansible-inventory")).resolve()
    return Controller(inventory, host.backend.host, root)


def remove_stack(host: Host, controller: Controller) -> bool:
    """Remove the machine's stack with its backups; return whether there was one."""
    settings = Settings(host.ansible.get_variables(), {})
    if Machine(host).try_run("test", "-e", f"{settings.directory}/.env").code != 0:
        return False
    run = controller.play(
        "playbooks/destroy.yml", "-e", f"confirm={settings.project}", "-e", "backups=remove"
    )
    assert run.code == 0, run.output
    return True


@pytest.fixture(scope="module")
def stack(host: Host, old: Controller, controller: Controller) -> Iterator[Stack]:
    """Return a new stack, deployed by the earlier commit; nothing of it is left to others."""
    remove_stack(host, controller)
    old.deploy()
    yield Stack(host, Settings(host.ansible.get_variables(), {}))
    remove_stack(host, controller)
