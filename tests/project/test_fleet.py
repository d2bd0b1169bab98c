"""Runs on many machines: batches, failures that others survive, and the last lines of a run.

The plays here stand for the real ones, with their batches and their gate, on machines that are all
this one and cost nothing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.sources import load

from .conftest import ROOT

# Each is a run of ansible-playbook.
pytestmark = pytest.mark.slow

PLAYS = """
- hosts: lab
  gather_facts: false
  vars_files: [{root}/playbooks/vars/fleet.yml]
  any_errors_fatal: true
  tasks:
    - import_tasks: {root}/playbooks/tasks/fleet.yml
    - import_tasks: {root}/playbooks/tasks/environment.yml
    - raw: echo
      any_errors_fatal: false
    - assert: {{that: setting is not defined, fail_msg: "a bad setting", quiet: true}}
    - assert: {{that: machine is not defined, fail_msg: "a bad machine", quiet: true}}
      any_errors_fatal: false
- hosts: lab
  gather_facts: false
  vars_files: [{root}/playbooks/vars/fleet.yml]
  serial: "{{{{ ansible_play_hosts_all | batches(batch) }}}}"
  tasks:
    - import_tasks: {root}/playbooks/tasks/batch.yml
    - block:
        - command: sh -c 'echo the disk is full >&2; exit 3'
          when: broken is defined
        - debug: {{msg: "DONE {{{{ inventory_hostname }}}}"}}
      always:
        - debug: {{msg: "given back"}}
"""
AWAY = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}


class Fleet:
    """Machines with variables, all of them this one, and runs on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = ""

    def run(self, machines: list[dict[str, Any]], *arguments: str, **environment: str) -> int:
        """Run the plays on m1, m2, ... and return the exit status."""
        hosts = {f"m{number}": each for number, each in enumerate(machines, 1)}
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        inventory = yaml.safe_dump({"lab": {"hosts": hosts, "vars": local}})
        (self.folder / "course.yml").write_text(inventory)
        (self.folder / "plays.yml").write_text(PLAYS.format(root=ROOT))
        program = Path(sys.executable).parent / "ansible-playbook"
        given = ["-i", self.folder / "course.yml", self.folder / "plays.yml", "-e", "env=prod"]
        config = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
        done = subprocess.run(
            [program, *given, *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
            check=False,
            env={**os.environ, **config, **environment},
        )
        self.output = done.stdout
        return done.returncode

    @property
    def done(self) -> set[str]:
        """The machines that a run came to the end with."""
        return set(re.findall(r"DONE (m\d+)", self.output))

    @property
    def summary(self) -> str:
        """What stands after Ansible's own recap."""
        recap = self.output.partition("PLAY RECAP")[2]
        return re.split(r"^m\d+ +: .*\n", recap, flags=re.MULTILINE)[-1]

    @property
    def kept(self) -> Path:
        """The file for --limit."""
        name = re.sub(r"[^\w.-]+", "-", str(self.folder / "course")).strip("-")
        return ROOT / "build/failed" / name


@pytest.fixture
def fleet(tmp_path: Path) -> Any:
    """Return a fleet, and leave nothing of it."""
    fleet = Fleet(tmp_path)
    yield fleet
    fleet.kept.unlink(missing_ok=True)


@pytest.mark.parametrize(("machines", "size", "batches"), [
    (1, 20, [1]), (2, 20, [2]), (20, 20, [20]), (21, 20, [10, 11]), (100, "25%", [25] * 4),
    (3, "25%", [3]), (7, "25%", [2, 2, 3]), (6, 5, [3, 3]), (5, 1, [1]), (1, "10%", [1]),
    (0, 20, [0]),
])  # fmt: skip
def test_batches_are_even_and_no_machine_is_alone_in_one(
    machines: int, size: object, batches: list[int]
) -> None:
    names = [f"m{each}" for each in range(machines)]
    assert load(ROOT / "filter_plugins/fleet.py").batches(names, size) == batches


@pytest.mark.parametrize(("machines", "share", "most"), [
    (3, "25%", 1), (20, "25%", 5), (21, "25%", 6), (8, 0, 0), (8, "3", 3), (8, "100%", 8),
])  # fmt: skip
def test_so_many_machines_may_fail(machines: int, share: object, most: int) -> None:
    names = [f"m{each}" for each in range(machines)]
    assert load(ROOT / "filter_plugins/fleet.py").bearable(names, share) == most


def test_machines_that_fail_leave_the_others_done_and_are_named(fleet: Fleet) -> None:
    """One cannot be reached, one is refused, one breaks in the middle: three others are done."""
    machines = [{}, AWAY, {"machine": "bad"}, {}, {"broken": True}, {}]
    code = fleet.run(machines, "-e", "batch=2", "-e", "max_failures=50%")
    assert code not in (0, 1), fleet.output
    assert fleet.done == {"m1", "m4", "m6"}, fleet.output
    assert "Batch 3, to 6 of 6 machines, 2 failed so far: m5, m6" in fleet.output
    assert fleet.summary.splitlines()[1] == "3 of 6 machines are done."
    for row in (
        r"^  m2 +unreachable  ssh: connect to host 127\.0\.0\.1 port 1: Connection refused$",
        r"^  m3 +failed       a bad machine$",
        r"^  m5 +failed       non-zero return code: the disk is full$",
    ):
        assert re.search(row, fleet.summary, re.M), f"{row} in\n{fleet.summary}"
    assert fleet.kept.read_text().split() == ["m2", "m3", "m5"]
    typed = fleet.summary.split("Mend that, then type:")[1].strip()
    assert typed.endswith(f"--limit @{fleet.kept.relative_to(ROOT)}"), typed


def test_command_of_the_summary_takes_just_those_that_failed(fleet: Fleet) -> None:
    fleet.run([{}, {"machine": "bad"}, {}])
    typed = fleet.summary.split("Mend that, then type:")[1].split()
    limit = typed[typed.index("--limit") + 1]
    assert fleet.run([{}, {}, {}], "--limit", limit) == 0, fleet.output
    assert fleet.done == {"m2"}
    assert "machines are done" not in fleet.output
    assert not fleet.kept.exists()


def test_too_many_failures_keep_the_next_batch_from_beginning(fleet: Fleet) -> None:
    machines: list[dict[str, Any]] = [{"broken": 1}, {}, {"broken": 1}, {}, {}, {}]
    code = fleet.run(machines, "-e", "batch=2")
    assert code == 2, fleet.output
    # 25% of six are two: the third batch begins all the same.
    assert fleet.done == {"m2", "m4", "m5", "m6"}
    fleet.run(machines, "-e", "batch=2", "-e", "max_failures=1")
    assert fleet.done == {"m2", "m4"}
    words = "Not begun, since 2 of 6 machines have failed and MAX_FAILURES=1 bears 1"
    assert re.search(rf"^  m5 +failed +{words}$", fleet.summary, re.M), fleet.summary
    assert re.search(r"^  m6 +not done +the run ended before$", fleet.summary, re.M), fleet.summary
    assert fleet.kept.read_text().split() == ["m1", "m3", "m5", "m6"]


def test_swarm_is_of_all_its_machines_or_not_begun(fleet: Fleet) -> None:
    code = fleet.run([{}, {"machine": "bad"}, {}], "-e", "orchestrator=swarm")
    assert code == 2, fleet.output
    assert fleet.done == set()
    words = "Not begun, since 1 of 3 machines have failed and one stack on all of them bears 0"
    assert words in fleet.summary, fleet.summary


def test_bad_setting_of_one_machine_stops_the_run_for_all(fleet: Fleet) -> None:
    code = fleet.run([{}, {"setting": "bad"}, {}])
    assert code == 2, fleet.output
    assert fleet.done == set()
    assert re.search(r"^  m2 +failed +a bad setting$", fleet.summary, re.M), fleet.summary
    assert re.search(r"^  m1, m3 +not done +the run ended before$", fleet.summary, re.M)
    assert "--limit" not in fleet.summary, "nobody is done: the same again"


@pytest.mark.parametrize(("given", "says"), [
    ("batch=0", "BATCH is '0': give a number of machines or a share"),
    ("max_failures=some", "MAX_FAILURES is 'some': give a number of machines or a share"),
    ("max_failures=101%", "MAX_FAILURES is '101%': give"),
])  # fmt: skip
def test_batches_that_cannot_be_made_are_refused(fleet: Fleet, given: str, says: str) -> None:
    assert fleet.run([{}, {}], "-e", given) == 2, fleet.output
    assert says in fleet.summary
    assert fleet.done == set()


def test_machine_that_is_pinned_refuses_another_environment(fleet: Fleet) -> None:
    """Named for what it is, with both ways out; the command line does not override a pin."""
    pinned = [{}, {"stack_env": "prod"}, {"stack_env": "dev"}]
    assert fleet.run(pinned, "-e", "env=dev") == 2, fleet.output
    assert "m2 is pinned to 'prod' by stack_env in the inventory, and env is 'dev'" in fleet.summary
    assert "type -e env=prod, or leave this machine out, --limit 'all:!m2'." in fleet.summary
    assert fleet.done == set()
    assert fleet.run(pinned, "-e", "env=dev", "--limit", "all:!m2") == 0, fleet.output
    assert fleet.done == {"m1", "m3"}


def test_command_is_the_one_that_was_typed_to_make(fleet: Fleet) -> None:
    """As make hands its variables on; without what may be a secret."""
    code = fleet.run(
        [{}, {"machine": "bad"}],
        STACKYARD_TYPED="up",
        MAKEFLAGS=r"s --no-print-directory -- ENV=dev SET=a=1\ b=2"
        r" ARGS=--limit\ m1,m2\ -e\ my_password=hidden",
    )
    assert code == 2
    limit = f"--limit @{fleet.kept.relative_to(ROOT)}"
    assert f"  make up ENV=dev SET='a=1 b=2' ARGS='-e ... {limit}'" in fleet.summary
    assert "hidden" not in fleet.output
