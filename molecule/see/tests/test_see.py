"""make status, make logs and the page of make verify, as people type them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.acceptance.machine import Machine
from tests.acceptance.report import Check, Command, NotWrittenError, Section, write
from tests.acceptance.settings import SERVICES
from tests.controller import ROOT

if TYPE_CHECKING:
    from tests.acceptance.stack import Container, Stack
    from tests.controller import Controller

COLUMNS = 100
LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (\S+) +(\S+) +\| ")
# An address at which nobody answers, and this machine with a stack that it does not have.
OTHERS = {
    "away": {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_user": "nobody"},
    "empty": {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "stack_dir": "/opt/no-such-stack",
        "stack_project": "no-such-stack",
    },
}


@dataclass
class Said:
    """A verb that came to its end."""

    code: int
    out: str
    err: str


class Verbs:
    """make, in the checkout, with an inventory."""

    def __init__(self, inventory: Path, limit: str) -> None:
        """Take the inventory, and the machines of it that are meant."""
        self._given = [f"INVENTORY={inventory}", *([f"ARGS=--limit={limit}"] if limit else [])]

    def make(self, *words: str) -> Said:
        """Type it."""
        done = subprocess.run(
            ["make", "-s", *words, *self._given],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env={**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"},
        )
        return Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def verbs(controller: Controller) -> Verbs:
    """For the machine at hand alone."""
    return Verbs(controller.inventory, controller.machine)


@pytest.fixture(scope="module")
def course(controller: Controller, stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Verbs:
    """For the machine at hand beside one that is away and one without a stack."""
    known = stack.machine._host.ansible.get_variables()
    mine = {name: value for name, value in known.items() if name.startswith(("ansible_", "stack_"))}
    # Of those who wait for an answer, one waits in vain.
    given = {"lab": {"hosts": {controller.machine: mine, **OTHERS}}}
    path = tmp_path_factory.mktemp("course") / "hosts.yml"
    path.write_text(yaml.safe_dump(given))
    return Verbs(path, "")


def short(stack: Stack, container: Container) -> str:
    """Return a replica's name as the verbs print it."""
    return container.name.removeprefix(f"{stack.project}-")


def test_status_of_a_healthy_stack(stack: Stack, controller: Controller, verbs: Verbs) -> None:
    """The table and the JSON say what is there; the JSON stands alone, and in a file too."""
    table = verbs.make("status")
    assert table.code == 0, table
    assert max(map(len, table.out.splitlines())) <= COLUMNS, table.out
    assert "1 of 1 well" in table.out
    for service, count in stack.settings.counts.items():
        assert re.search(rf"^  {service} +{count}/{count}  healthy +0 ", table.out, re.M), table.out
    said = verbs.make("status", "JSON=1")
    assert said.code == 0, said
    (about,) = json.loads(said.out)["machines"]
    kept = json.loads((ROOT / "build/status.json").read_text())["machines"]
    assert [each["machine"] for each in kept] == [controller.machine]
    assert (about["machine"], about["state"], about["env"]) == (controller.machine, "well", "prod")
    assert about["problems"] == []
    services = {each["name"]: each for each in about["services"]}
    assert list(services) == list(SERVICES)
    for name, service in services.items():
        assert service["memory_limit_bytes"] == stack.settings.memory(name)
        assert service["cpus_limit"] == stack.settings.cpus(name)
        assert 0 < service["memory_bytes"] < service["memory_limit_bytes"]
    served = stack.machine.run(
        *("openssl", "x509", "-noout", "-checkend", str(about["certificate"]["left_seconds"] - 60)),
        *("-in", f"{stack.directory}/secrets/gateway_certificate"),
    )
    assert "will not expire" in served.out


@pytest.mark.disruptive
def test_status_of_a_half_broken_stack_among_machines_that_are_not_there(
    stack: Stack, controller: Controller, course: Verbs
) -> None:
    """Each is shown as what it is, in the table and in words, and hides no other."""
    frontend = stack.of("frontend")[1]
    stack.machine.run("docker", "rm", "--force", stack.of("api")[1].id)
    stack.machine.run("docker", "pause", frontend.id)
    try:
        said = course.make("status")
    finally:
        stack.unpause([frontend])
        # Compose starts nothing that needs one that still counts as unhealthy.
        stack.wait_healthy()
    assert said.code != 0, said
    assert max(map(len, said.out.partition("\n\naway: ")[0].splitlines())) <= COLUMNS, said.out
    name = controller.machine
    for words in (
        rf"^{name} +ill +prod ",
        r"^away +unreachable ",
        r"^empty +no stack ",
        r"^  frontend +2/3  2 healthy, 1 paused ",
        r"^  api +1/2  healthy ",
        r"^  database +1/1  healthy ",
        rf"^{name}: {short(stack, frontend)} is paused$",
        rf"^{name}: api has 1 of 2 containers$",
        r"^away: cannot be reached: ",
        r"^empty: no stack: make up makes one$",
        r"^0 of 3 well$",
    ):
        assert re.search(words, said.out, re.M), f"{words} in\n{said.out}"
    assert set(re.findall(r"Not well: (.*)\.$", said.err, re.M)[0].split(", ")) == {name, *OTHERS}


@pytest.mark.disruptive
def test_status_and_logs_of_a_stack_that_is_down(controller: Controller, verbs: Verbs) -> None:
    """make down is no error there, and no stack that is well either."""
    assert verbs.make("down").code == 0
    said, logs = verbs.make("status"), verbs.make("logs", "SERVICE=api")
    again = verbs.make("up", "ENV=prod")
    assert said.code != 0
    assert re.search(rf"^{controller.machine} +down +prod ", said.out, re.M), said.out
    assert f"{controller.machine}: the stack is down: make up brings it back" in said.out
    assert logs.code != 0
    assert (logs.out, f"{controller.machine}: no container of api" in logs.err) == ("", True), logs
    assert again.code == 0, again.out


def test_logs_of_all_replicas_by_time(stack: Stack, controller: Controller, verbs: Verbs) -> None:
    """Merged by time, each with machine and replica, as many as asked for, and no noise."""
    for _ in range(20):
        assert stack.get("/api/items").status == 200
    said = verbs.make("logs", "SERVICE=frontend api", "LINES=30", "SINCE=10m")
    assert said.code == 0, said
    found = [LINE.match(line) for line in said.out.splitlines()]
    assert all(found), said.out
    rows = [match.groups() for match in found if match]
    assert len(rows) == 30
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert {row[1] for row in rows} == {controller.machine}
    # A replica that was rolled has another number.
    there = stack.of("frontend") + stack.of("api")
    assert {row[2] for row in rows} == {short(stack, each) for each in there}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("SERVICE=apo", "SERVICE is 'apo': give one or more of gateway, frontend, api, database, "),
        ("SERVICE=it's", "SERVICE is 'it's': give one or more of "),
        ("LINES=many", "LINES is 'many': give a whole number from 1 to 99999"),
        ("SINCE=2d", "SINCE is '2d': give a time such as 10m"),
    ],
)
def test_logs_refuse_what_they_cannot_give(verbs: Verbs, given: str, says: str) -> None:
    """In a line that says what to type, and without asking a machine."""
    said = verbs.make("logs", given)
    assert (said.code != 0, said.out) == (True, ""), said
    assert said.err.startswith(says), said.err
    assert "Collect the logs" not in said.err


# The page of make verify


def values(machine: Machine, stack: Stack) -> list[str]:
    """Return what is secret on the machine: the lines of its files, but for what all PEM have."""
    text = machine.run("sh", "-c", 'cat "$1"/*', "sh", f"{stack.directory}/secrets").out
    private = re.sub(r"-----BEGIN CERTIFICATE.*?END CERTIFICATE-----", "", text, flags=re.DOTALL)
    words = [word.lstrip(">") for word in private.split() if "-----" not in word]
    return [word for word in words if len(word) >= 20]


def section(stack: Stack, controller: Controller, *commands: str) -> Section:
    """Return a page's part with one check that ran these."""
    machine = stack.machine
    seen = [Command.of(machine.run("sh", "-c", each), secret=False) for each in commands]
    check = Check("a check", "What it is.", (1,), secret=False, outcome="passed", commands=seen)
    return Section(controller.machine, machine, stack.settings, [check])


def test_page_has_evidence_and_no_secret(
    stack: Stack, controller: Controller, tmp_path: Path
) -> None:
    """A run of checks with --report; then all values of the secrets are looked for in the page."""
    path = tmp_path / "page.html"
    done = subprocess.run(
        [
            *(Path(sys.executable).parent / "pytest", "-q", "-p", "no:cacheprovider"),
            *("--hosts", f"ansible://{controller.machine}", "--report", path),
            *("--ansible-inventory", controller.inventory),
            *("tests/acceptance/test_secrets.py", "tests/acceptance/test_services.py"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert f"The evidence, as a page to keep: {path}" in done.stdout
    page = path.read_text(encoding="utf-8")
    for words in (
        "✓ holds",
        "– left out",
        "service is healthy: database",
        "docker compose ps -a --format json",
        f"Docker {stack.machine.run('docker', 'version', '-f', '{{.Server.Version}}').out.strip()}",
        "<dd>prod</dd>",
        "exit 0, ",
        "(output not shown)",
    ):
        assert words in page, words
    secrets = values(stack.machine, stack)
    assert len(secrets) >= 8, "five passwords and the lines of a key"
    assert not [each for each in secrets if each in page], "a secret's value is in the page"


@pytest.mark.parametrize(
    "command",
    [
        "cat {}/api_database_password",
        "sed -n '/PRIVATE KEY/,/PRIVATE KEY/p' {}/gateway_certificate | sed -n 2p",
        "cut -d' ' -f4 {}/cache_users | base64 -w0",
    ],
)
def test_output_that_holds_a_secret_is_not_in_the_page(
    stack: Stack, controller: Controller, tmp_path: Path, command: str
) -> None:
    """The machine finds it, and all that came from there is left out."""
    path = tmp_path / "page.html"
    secret = section(stack, controller, command.format(f"{stack.directory}/secrets"), "echo more")
    shown = (secret.checks[0].commands[0].output or "").strip()
    assert len(shown) > 20
    write(path, [secret])
    page = path.read_text(encoding="utf-8")
    assert "An output held a secret (" in page
    assert shown not in page
    assert "echo more" not in page
    assert not [each for each in values(stack.machine, stack) if each in page]


def test_page_without_a_look_for_secrets_is_not_written(
    stack: Stack, controller: Controller, tmp_path: Path
) -> None:
    """What nobody could look for may be in it."""
    path = tmp_path / "page.html"
    path.write_text("an older one")
    blind = section(stack, controller, "echo harmless")
    write(path, [blind])
    assert "echo harmless" in path.read_text(encoding="utf-8")
    older = path.read_text(encoding="utf-8")
    blind.settings = type(stack.settings)({"stack_dir": "/opt/no-such-stack"}, {})
    with pytest.raises(NotWrittenError, match="no secret of"):
        write(path, [blind])
    assert path.read_text(encoding="utf-8") == older
