"""A boolean is one however it is given: as YAML, as JSON, or as text with -e."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

from .conftest import ROLES, ROOT, read_yaml, role_files
from .test_failures import played
from .test_roles import options

if TYPE_CHECKING:
    from pathlib import Path

BOOLEANS = [
    (role, name)
    for role in ROLES
    for name, about in options(role).items()
    if about["type"] == "bool"
]
# Its one place is an action plugin, which takes text.
BY_PLUGIN = {"stack_deploy_take_lock"}
# Those of no role.
OTHERS = {"swarm_encrypted", "json"}


def checked() -> dict[str, set[str]]:
    """Return the names that each playbook has checked."""
    found = {}
    for path in sorted((ROOT / "playbooks").glob("*.yml")):
        for play in read_yaml(path):
            for task in play.get("tasks", []):
                if task.get("ansible.builtin.import_tasks") == "tasks/booleans.yml":
                    found[path.stem] = set(task["vars"]["booleans"])
    return found


def test_every_boolean_is_checked_before_it_is_used() -> None:
    assert set().union(*checked().values()) == {name for _, name in BOOLEANS} | OTHERS


@pytest.mark.parametrize(("role", "name"), BOOLEANS)
def test_boolean_enters_its_role_in_one_place(role: str, name: str) -> None:
    reads = [
        (path.name, line.strip())
        for path in role_files(role)
        if path.suffix in (".yml", ".j2", ".py") and path.parent.name not in ("meta", "defaults")
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(rf"\b{name}\b(?!=)", line)
    ]
    if name in BY_PLUGIN:
        assert {line for place, line in reads if place.endswith(".yml")} == {
            f'force: "{{{{ {name} }}}}"'
        }
        return
    private = name.replace(f"{role}_", f"{role}__", 1)
    assert reads == [("main.yml", f'{private}: "{{{{ {name} | bool }}}}"')]


@pytest.mark.parametrize(("given", "meant"), [
    ("false", False), ("False", False), ("no", False), ("0", False), (False, False), (0, False),
    ("true", True), ("yes", True), ("1", True), (True, True),
])  # fmt: skip
@pytest.mark.parametrize(("role", "name"), [each for each in BOOLEANS if each[1] not in BY_PLUGIN])
def test_boolean_given_as_text_is_that_boolean(
    role: str, name: str, given: Any, meant: bool
) -> None:
    loader = DataLoader()
    variables = loader.load_from_file(
        str(ROOT / "roles" / role / "vars/main.yml"), trusted_as_template=True
    )
    private = name.replace(f"{role}_", f"{role}__", 1)
    templar = Templar(loader=loader, variables={name: given})
    assert templar.template(variables[private]) is meant


CHECK = """
- hosts: lab
  gather_facts: false
  tasks:
    - import_tasks: {tasks}
      vars: {{booleans: [{names}]}}
"""


def test_what_is_no_boolean_is_rejected_in_a_line_each(tmp_path: Path) -> None:
    names = sorted({name for _, name in BOOLEANS} | OTHERS)
    plays = CHECK.format(tasks=ROOT / "playbooks/tasks/booleans.yml", names=", ".join(names))
    bad = [word for name in names for word in ("-e", f"{name}=maybe")]
    done = played(tmp_path, plays, *bad)
    assert done.returncode == 2, done.stdout
    for name in names:
        line = f"{name} is 'maybe': give true or false, such as -e {name}=true."
        assert line in " ".join(done.stdout.split()), f"{line}\n{done.stdout}"
    for good in ("False", "1"):
        fine = [word for name in names for word in ("-e", f"{name}={good}")]
        assert played(tmp_path, plays, *fine).returncode == 0, good


LOCK = """
- hosts: lab
  gather_facts: false
  roles: []
  tasks:
    - include_role: {{name: stack_deploy, tasks_from: {tasks}}}
      vars: {{stack_deploy_project: {project}, stack_deploy_orchestrator: swarm}}
"""
HOLDER = '{"run": "elsewhere/1/1", "by": "ann", "on": "desk", "since": "noon", "for": "deploy"}'


@pytest.mark.parametrize(("given", "code", "says"), [
    ("false", 2, "ann on desk holds the stack since noon for deploy. Wait until that run has"),
    ("maybe", 2, "stack_deploy_take_lock is 'maybe': give true or false, such as -e"),
    ("true", 0, "Taking the lock from a run that may still change the stack: ann on desk holds the"
     " stack since noon for deploy."),
])  # fmt: skip
def test_lock_is_taken_by_force_only_where_that_was_said_and_from_whom(
    tmp_path: Path, given: str, code: int, says: str
) -> None:
    """A run of another controller's may still be there."""
    lock = tmp_path / "held.lock"
    lock.write_text(HOLDER)
    project = f"../{lock.with_suffix('').relative_to('/')}"
    plays = LOCK.format(tasks="lock", project=project)
    done = played(tmp_path, plays, "-e", f"stack_deploy_take_lock={given}")
    assert done.returncode == code, done.stdout
    assert says in " ".join(done.stdout.split()), done.stdout
    assert "that run has ended." not in done.stdout.replace("Wait until that run has ended.", "")
    assert ('"by": "ann"' in lock.read_text()) is (code != 0)
