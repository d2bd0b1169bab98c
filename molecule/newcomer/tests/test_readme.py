"""The README's commands, typed by a user with sudo in a checkout on a bare machine, in its order.

The checks build on each other, in the order of the file.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.machine import PROGRAMS, Result, wait_until
from tests.acceptance.promises import TITLES
from tests.acceptance.settings import PORTS, SERVICES
from tests.acceptance.stack import Response
from tests.controller import ROOT

if TYPE_CHECKING:
    from testinfra.host import Host

    from tests.acceptance.machine import Machine
    from tests.acceptance.stack import Stack

README = (ROOT / "README.md").read_text(encoding="utf-8")
FIRST_PAGE = README.partition("\n## ")[0]
TERMINAL = (Path(__file__).parent / "terminal.py").read_text(encoding="utf-8")
LONGEST_SECONDS = 600
ITEM = "kept while down"
BANNER = "A newcomer's lab"
# Control with C, and in nano with backslash, O and X.
INTERRUPT, REPLACE, SAVE, EXIT = "\x03", "\x1c", "\x0f", "\x18"


# What people type, and where


def typed(host: Host, line: str) -> Result:
    """Type a line in the checkout, as who logged in."""
    done = host.run("cd stackyard && timeout -k 5 %s sh -c %s", str(LONGEST_SECONDS), line)
    return Result(line, done.rc, done.stdout, done.stderr)


def typed_well(host: Host, line: str) -> Result:
    """Type a line of the README; it has to succeed."""
    assert line in README, f"the README does not tell anybody to type {line}"
    result = typed(host, line)
    assert result.code == 0, str(result)
    return result


def changed(result: Result) -> int:
    """How many tasks of a playbook changed something."""
    return sum(int(count) for count in re.findall(r"changed=(\d+)", result.out))


class RootsTerminal:
    """Where the lines of the README's section on the lab machine are typed, one after another."""

    def __init__(self, machine: Machine) -> None:
        """Take the lines from the README."""
        section = README.partition("\n## On the lab machine\n")[2]
        block = section.partition("\n```\n")[2].partition("\n```\n")[0]
        self._machine = machine
        self._lines = deque(block.splitlines())
        self._folder = self._lines.popleft().removeprefix("cd ")

    def type(self, command: str, *dialogue: tuple[str, str], seconds: int = 60) -> Result:
        """Type the next line, comment and all: it has to be this command.

        Each part of the dialogue: what has to be shown first, and what is typed then.
        """
        line = self._lines.popleft() if self._lines else "no more"
        assert line.partition("#")[0].strip() == command, f"the README says {line}"
        asked = {"command": line, "dialogue": dialogue, "seconds": seconds}
        done = self._machine.try_run(
            "python3", "-c", TERMINAL, json.dumps(asked), folder=self._folder, seconds=seconds + 10
        )
        assert done.code == 0, f"no terminal for {line}: {done.text}"
        code, shown = json.loads(done.out)
        return Result(line, code, shown, "")

    @property
    def left(self) -> list[str]:
        """The lines that were not typed yet."""
        return list(self._lines)


@pytest.fixture(scope="module")
def first_up(host: Host) -> Result:
    """The first line of all, typed once."""
    return typed_well(host, "make up")


@pytest.fixture(scope="module")
def terminal(stack: Stack) -> RootsTerminal:
    """One for the whole section."""
    return RootsTerminal(stack.machine)


# The first page


def test_help_lists_every_verb(host: Host) -> None:
    result = typed(host, "make help")
    listed = re.findall(r"(?m)^  make (\w+) +\w", result.out)
    verbs = re.findall(r"(?m)^\| `make (\w+)` \|", README)
    assert verbs
    assert set(verbs) <= set(listed), str(result)


def test_up_ends_with_where_to_open_the_page(first_up: Result) -> None:
    end = first_up.out.rpartition("TASK [")[2]
    (page,) = re.findall(r"<(http://\S+)>", FIRST_PAGE)
    assert page in end, str(first_up)


def test_page_and_api_answer_there_and_from_outside(
    host: Host, stack: Stack, first_up: Result
) -> None:
    said = re.findall(r"https?://localhost:\d+", first_up.out)
    assert {url.partition(":")[0] for url in said} == {"http", "https"}, str(first_up)
    urls = [url + path for url in said for path in ("/", "/api/health")]
    address = host.ansible.get_variables()["ansible_host"]
    from_outside = [{"url": url.replace("localhost", address)} for url in urls]
    answers = stack.ask([{"url": url} for url in urls]) + ask_from_here(from_outside)
    wrong = [str(answer) for answer in answers if answer.status != 200]
    assert not wrong, "\n".join(wrong)
    assert all("<title>" in answer.body for answer in answers[::2]), str(answers[0])
    assert all(answer.json()["status"] == "ok" for answer in answers[1::2])


def ask_from_here(requests: list[dict[str, str]]) -> list[Response]:
    """Send requests as the machine's own do, from where the checks run."""
    # Not from the program's own directory: there its name would hide the module http.
    program = [sys.executable, "-P", PROGRAMS / "http.py", json.dumps(requests)]
    answers = subprocess.run(program, capture_output=True, check=True, timeout=60).stdout
    return [Response(**answer) for answer in json.loads(answers)]


def test_what_up_says_to_type_next_lists_the_containers(host: Host, first_up: Result) -> None:
    (line,) = re.findall(r"sudo sh -c '.*'", first_up.out)
    result = typed(host, line)
    assert result.code == 0, str(result)
    assert all(service in result.out for service in SERVICES), str(result)


def test_verify_shows_that_every_promise_holds(host: Host) -> None:
    result = typed_well(host, "make verify")
    missing = [
        title
        for number, title in TITLES.items()
        if not re.search(rf"(?m)^✓ +{number} +{re.escape(title)} ", result.out)
    ]
    assert not missing, f"no ✓ before {missing}: {result}"
    assert "The evidence, as a page to keep: build/verify.html" in result.out


@pytest.mark.parametrize("line", ["make up", "make plan"])
def test_nothing_is_left_to_change(host: Host, line: str) -> None:
    result = typed_well(host, line)
    assert "changed=" in result.out, str(result)
    assert changed(result) == 0, str(result)


def test_day_two_begins_with_a_look(host: Host) -> None:
    assert "1 of 1 well" in typed_well(host, "make status").out
    assert re.search(r"(?m)^\* \d{8}-\d{6} ", typed_well(host, "make releases").out)
    rotated = typed_well(host, "make rotate-secrets")
    assert "The old ones are refused." in " ".join(rotated.out.split()), str(rotated)


def at_debug_ports(stack: Stack) -> set[str]:
    """Who answers there, on the machine itself. Each api has one of ten ports."""
    ports = [("api", PORTS["api"] + number) for number in range(10)]
    ports += [(service, PORTS[service]) for service in ("cache", "database")]
    asked = [(service, "127.0.0.1", port) for service, port in ports]
    return set(stack.machine.program("talk", asked)) - {""}


def all_with_debug_ports(stack: Stack) -> set[str]:
    """Who has to answer there in dev: an api by its replica's name."""
    return {"cache", "database"} | {each.hostname for each in stack.of("api")}


def test_dev_opens_the_debug_ports(host: Host, stack: Stack) -> None:
    assert at_debug_ports(stack) == set()
    result = typed_well(host, "make up ENV=dev")
    assert at_debug_ports(stack) == all_with_debug_ports(stack), str(result)


def test_down_stops_it_and_up_brings_it_back_with_its_data(host: Host, stack: Stack) -> None:
    item = stack.create_item(ITEM)
    down = typed_well(host, "make down")
    assert stack.containers() == [], str(down)
    up = typed_well(host, "make up")
    answer = stack.get(item)
    assert answer.status == 200, f"{answer}\n{up}\n{stack.logs('database')}"
    assert answer.json()["name"] == ITEM
    assert at_debug_ports(stack) == set(), f"dev's debug ports are still open: {up}"


# On the lab machine: each line as it is written there


def test_ps_lists_what_is_healthy(terminal: RootsTerminal, stack: Stack) -> None:
    result = terminal.type("docker compose ps")
    assert result.code == 0, str(result)
    assert result.out.count("(healthy)") == sum(stack.settings.counts.values()), str(result)


def test_frontend_has_no_way_to_the_database(terminal: RootsTerminal) -> None:
    result = terminal.type("docker compose exec frontend ping -c 1 database")
    assert result.code != 0, str(result)
    assert "ping: database: " in result.out, f"failed otherwise: {result}"


def test_api_has_one(terminal: RootsTerminal) -> None:
    result = terminal.type("docker compose exec api ping -c 1 database")
    assert result.code == 0, str(result)
    assert " 0% packet loss" in result.out, str(result)


def test_frontends_follow_as_many_apis_as_asked_for(terminal: RootsTerminal, stack: Stack) -> None:
    result = terminal.type("docker compose up -d --no-recreate --scale api=4", seconds=120)
    assert result.code == 0, str(result)
    replicas = {each.hostname for each in stack.of("api")}
    assert len(replicas) == 4, str(result)
    stack.wait_healthy()

    def reached() -> set[str]:
        answers = stack.ask([{"url": stack.url("/api/whoami")}] * 40)
        return {answer.headers.get("x-replica", str(answer)) for answer in answers}

    wait_until(lambda: reached() == replicas, 20, f"{replicas} answer", lambda: str(reached()))


def test_log_is_followed_until_interrupted(terminal: RootsTerminal) -> None:
    result = terminal.type("docker compose logs -f api", ("| {", INTERRUPT))
    assert result.code == 130, str(result)


def test_psql_shows_the_items(terminal: RootsTerminal) -> None:
    result = terminal.type(
        "docker compose exec database psql -U postgres stackyard",
        ("stackyard=#", "SELECT name FROM items;\r"),
        (ITEM, "\\q\r"),
    )
    assert result.code == 0, str(result)


def test_page_follows_what_is_saved_in_an_editor(terminal: RootsTerminal, stack: Stack) -> None:
    result = terminal.type(
        "nano config/api/app.toml",
        ("^X", f"{REPLACE}Stackyard lab\r{BANNER}\rA{SAVE}\r{EXIT}"),
    )
    assert result.code == 0, str(result)
    answer = stack.get("/api/config")
    assert answer.json()["config"]["banner"] == BANNER, f"{answer}\n{result}"


def test_dev_comes_up_by_hand(terminal: RootsTerminal, stack: Stack) -> None:
    result = terminal.type(
        "docker compose -f docker-compose.yml -f docker-compose.dev.yml up -d", seconds=180
    )
    assert result.code == 0, str(result)
    stack.wait_healthy()
    assert at_debug_ports(stack) == all_with_debug_ports(stack), str(result)


def test_no_line_of_the_section_was_left_out(terminal: RootsTerminal) -> None:
    assert terminal.left == []


# The end


def test_destroy_says_how_to_mean_it(host: Host, stack: Stack) -> None:
    result = typed(host, "make destroy")
    assert result.code != 0, str(result)
    assert "make destroy CONFIRM=stackyard" in result.text, str(result)
    stack.wait_healthy(5)


def test_destroy_removes_stack_and_data_and_leaves_the_engine(host: Host, stack: Stack) -> None:
    result = typed_well(host, "make destroy CONFIRM=stackyard")
    listings = [["ps", "-aq"], ["volume", "ls", "-q"], ["network", "ls", "-q", "-f", "type=custom"]]
    left = [str(found) for each in listings if (found := stack.machine.run("docker", *each)).out]
    assert not left, f"{left}\n{result}"
    assert stack.machine.try_run("ls", "-A", stack.directory).code != 0, str(result)
    assert stack.machine.run("docker", "image", "ls", "-q", "stackyard/*").out, str(result)
