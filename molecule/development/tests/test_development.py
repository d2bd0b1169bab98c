"""dev, prod over it, dev again, and back: each is what it promises, and nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.settings import Settings
from tests.acceptance.stack import Stack
from tests.controller import ROOT

if TYPE_CHECKING:
    from testinfra.host import Host

    from tests.controller import Controller

# Those in which dev and prod differ: ports and verbosity, networks, limits.
FILES = ("environments", "isolation", "limits", "services")


def assert_promises_hold(controller: Controller) -> None:
    """Run the checks of what differs between the environments, as the machine is now."""
    program = Path(sys.executable).parent / "pytest"
    done = subprocess.run(
        [
            *(
                program,
                "-q",
                "-p",
                "no:cacheprovider",
                "--hosts",
                f"ansible://{controller.machine}",
            ),
            *("--ansible-inventory", controller.inventory),
            *(f"tests/acceptance/test_{name}.py" for name in FILES),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(done.stdout, pytrace=False)


def test_each_environment_over_the_other(host: Host, controller: Controller) -> None:
    settings = Settings(host.ansible.get_variables(), {})
    item = Stack(host, settings).create_item("kept through dev and prod")
    assert Stack(host, settings).env == "dev"
    for env in ("prod", "dev"):
        controller.deploy(env)
        stack = Stack(host, settings)
        assert stack.env == env
        answer = stack.get(item)
        assert answer.status == 200, f"lost on the way to {env}: {answer}\n{stack.logs('database')}"
        assert_promises_hold(controller)
        again = controller.deploy(env)
        assert again.changed == 0, f"a second run in {env}:\n{again.output}"
        networks = stack.machine.run(
            *(
                "docker",
                "network",
                "ls",
                "-q",
                "--filter",
                f"label=com.docker.compose.project={stack.project}",
            )
        ).lines()
        assert len(networks) == (7 if env == "dev" else 4), networks
    stack.send("DELETE", item)


def test_a_database_initialised_in_dev_logs_statements_and_no_password(
    host: Host, controller: Controller
) -> None:
    settings = Settings(host.ansible.get_variables(), {})
    project = settings.project
    assert controller.play("playbooks/destroy.yml", "-e", f"confirm={project}").code == 0
    controller.deploy("dev")
    stack = Stack(host, settings)
    stack.create_item("logged")
    files = stack.machine.run("ls", f"{stack.directory}/secrets").lines()
    values = [stack.machine.read(f"{stack.directory}/secrets/{name}").strip() for name in files]
    logs = {
        each.name: stack.machine.run("sh", "-c", f"docker logs {each.name} 2>&1").out
        for each in stack.containers()
    }
    assert "INSERT INTO items" in logs[f"{project}-database"], "no statement: nothing was looked at"
    for name, log in logs.items():
        shown = sum(word in log for value in values for word in value.split() if len(word) > 20)
        assert shown == 0, f"{shown} secret values stand in the log of {name}"
    controller.deploy("prod")
