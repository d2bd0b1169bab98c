"""The first line of a failure is its cause: no conditional, rescue or summary takes its place."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.sources import load

from .conftest import ROOT, read_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

root_cause = load(ROOT / "module_utils/root_cause.py").root_cause
reason = load(ROOT / "filter_plugins/failure.py").reason

PLACES = [
    ROOT / "site.yml",
    *sorted((ROOT / "playbooks").rglob("*.yml")),
    *sorted((ROOT / "roles").glob("*/tasks/*.yml")),
    *sorted((ROOT / "roles").glob("*/handlers/*.yml")),
    *sorted((ROOT / "molecule").rglob("*.yml")),
]
PARTS = ("tasks", "pre_tasks", "post_tasks", "handlers", "block", "rescue", "always")
# Their result has output and status, whether or not they failed.
COMMANDS = ("command", "shell", "raw", "script")


def tasks(entries: Any) -> Iterator[dict[str, Any]]:
    """Yield every task below plays, blocks and lists of tasks."""
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict):
            yield entry
            for part in PARTS:
                yield from tasks(entry.get(part))


def all_tasks() -> list[tuple[str, dict[str, Any]]]:
    """Return every task of the project, with its file."""
    return [
        (str(path.relative_to(ROOT)), task) for path in PLACES for task in tasks(read_yaml(path))
    ]


def conditions(task: dict[str, Any], kind: str) -> list[str]:
    """Return a task's conditions of a kind."""
    given = task.get(kind, task.get("loop_control", {}).get(kind, []))
    return [str(each) for each in (given if isinstance(given, list) else [given])]


def masks(condition: str, result: str) -> bool:
    """Tell whether a condition is an error where the module failed and left out what it reads."""
    sure = re.search(rf"\b{result} is (success and|not failed and|failed or)\b", condition)
    reads = re.findall(rf"\b{result}\.[\w.]+(?:\[[^]]*\])?(.{{0,12}})", condition)
    expected = ("| default(", "is defined")
    return not sure and any(not rest.lstrip().startswith(expected) for rest in reads)


def is_command(task: dict[str, Any]) -> bool:
    """Tell whether a task runs a command, whose result has its output whether or not it failed."""
    return any(name.rpartition(".")[2] in COMMANDS for name in task)


def test_no_until_hides_why_a_module_failed() -> None:
    """Of these an error is all that is shown: ansible-core forgets the result."""
    wrong = [
        f"{place}: {task['name']}: until {each}"
        for place, task in all_tasks()
        if "until" in task
        for each in conditions(task, "until")
        if masks(each, task.get("register", "-"))
    ]
    assert not wrong, "write `until: result is success and ...`:\n" + "\n".join(wrong)


@pytest.mark.parametrize("kind", ["failed_when", "changed_when", "break_when"])
def test_no_condition_reads_what_a_failed_module_leaves_out(kind: str) -> None:
    wrong = [
        f"{place}: {task['name']}: {kind} {each}"
        for place, task in all_tasks()
        for each in conditions(task, kind)
        if not is_command(task) and masks(each, task.get("register", "-"))
    ]
    assert not wrong, "\n".join(wrong)


def test_what_follows_a_failure_that_is_passed_over_expects_it() -> None:
    """After failed_when: false or ignore_errors, whatever is read of the result may be missing."""
    wrong = []
    for place in PLACES:
        found = list(tasks(read_yaml(place)))
        tolerant = [
            task["register"]
            for task in found
            if "register" in task
            and (task.get("failed_when") is False or task.get("ignore_errors"))
            and not any(name.rpartition(".")[2] == "raw" for name in task)
        ]
        for task in found:
            words = {**task, **(task.get("ansible.builtin.assert") or {})}
            for kind in ("when", "that"):
                wrong += [
                    f"{place.relative_to(ROOT)}: {task['name']}: {each}"
                    for each in conditions(words, kind)
                    for result in tolerant
                    if masks(each, result)
                ]
    assert not wrong, "\n".join(wrong)


def test_each_rescue_says_why_or_notes_it() -> None:
    """It ends in a failure of its own, or notes the error for the one who asked."""
    for place, task in all_tasks():
        if last := (task.get("rescue") or [{}])[-1]:
            words = yaml.safe_dump(last)
            path = ROOT / place
            if included := last.get("ansible.builtin.include_tasks"):
                words = yaml.safe_dump(read_yaml(path.with_name(included))[-1])
            known = ("ansible.builtin.fail", "ansible_failed_result | reason")
            assert any(each in words for each in known), place


ENGINE = (
    "Error response from daemon: Cannot update container "
    + "5e" * 32
    + ": runc did not terminate successfully: exit status 1: failed to write: invalid argument\n"
    ": unknown\n"
)
BUILD = """\
#0 building with "default" instance using docker driver
#6 [2/3] RUN apt-get install luck
#6 0.211 Reading package lists...
#6 0.532 E: Unable to locate package luck
#6 ERROR: process "/bin/sh -c apt-get install luck" did not complete successfully: exit code: 100
------
 > [2/3] RUN apt-get install luck:
0.211 Reading package lists...
0.532 E: Unable to locate package luck
------
Dockerfile:2
--------------------
   1 |     FROM base
   2 | >>> RUN apt-get install luck
--------------------
ERROR: failed to solve: process "/bin/sh -c apt-get install luck" did not complete successfully
"""


@pytest.mark.parametrize(("output", "cause"), [
    (ENGINE, "Error response from daemon: Cannot update container 5e5e5e5e5e5e: runc did not"
     " terminate successfully: exit status 1: failed to write: invalid argument"),
    (BUILD, "E: Unable to locate package luck"),
    (BUILD.replace("E: Unable", "unable"), "unable to locate package luck"),
    ('invalid argument "-1" for "-m, --memory" flag\n\nUsage:  docker update\n\nRun --help\n',
     'invalid argument "-1" for "-m, --memory" flag'),
    (" Container a-cache-1  Created\n Container a-api-1  Error\n"
     "dependency failed to start: container a-cache-1 is unhealthy\n",
     "dependency failed to start: container a-cache-1 is unhealthy"),
    ('time="2026-01-01" level=warning msg="no such variable"\nno configuration file provided\n',
     "no configuration file provided"),
    ("I: chroot architecture amd64\nW: no lists\nE: cannot fetch\nE: mmdebstrap failed\n",
     "E: cannot fetch"),
    ("psql: error: connection refused\n\tIs the server up?\n", "psql: error: connection refused"),
    ('time=x level=info msg="begin"\ntime=x level=fatal msg="address already in use"\n',
     'time=x level=fatal msg="address already in use"'),
    ("#1 only progress\n", "#1 only progress"),
    ("", "exit status 3"),
])  # fmt: skip
def test_cause_is_found_in_what_a_command_printed(output: str, cause: str) -> None:
    assert root_cause(output, "exit status 3") == cause


@pytest.mark.parametrize(("result", "line"), [
    ({"msg": "the cause\nand more"}, "the cause"),
    ({"msg": "non-zero return code", "rc": 3, "stderr": "error: the disk\nso nothing"},
     "non-zero return code: error: the disk"),
    ({"msg": "non-zero return code", "rc": 3, "stderr": "", "stdout": "on stdout"},
     "non-zero return code: on stdout"),
    ({"msg": "non-zero return code", "rc": -9}, "Pack it: ended by signal 9"),
    ({"msg": "", "attempts": 90, "rc": 0, "stdout": "4f1c"},
     "Pack it: not so after 90 attempts, and the last one said 4f1c"),
    ({"msg": "", "attempts": 9, "rc": 0, "stdout": "x" * 999}, "Pack it: not so after 9 attempts"),
    ({"msg": "Module result deserialization failed", "module_stderr": "Traceback\nOSError: full"},
     "Module result deserialization failed: OSError: full"),
    ({"msg": "Error executing command.", "rc": 2, "cmd": "/none"},
     "/none: No such file or directory"),
    ({"msg": "Warning: added\nConnection refused", "unreachable": True}, "Connection refused"),
    ({}, "for no known reason"),
])  # fmt: skip
def test_reason_is_one_line(result: dict[str, Any], line: str) -> None:
    assert reason(result, "Pack it") == line


PLAYS = """
- hosts: lab
  gather_facts: false
  tasks:
    - block:
        - stat: {path: /dev/null/none/, get_mime: "{{ broken }}"}
          name: Look
          register: looked
          until: looked is success and looked.stat.missing
          retries: 1
          delay: 0
      rescue:
        - fail: {msg: "a consequence"}
      always:
        - command: sh -c 'echo another consequence >&2; exit 1'
        - command: "false"
          ignore_errors: true
"""


def played(folder: Path, plays: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run plays on this machine, as the project runs its own."""
    (folder / "lab.yml").write_text(yaml.safe_dump({"lab": {"hosts": {"m1": {
        "ansible_connection": "local", "ansible_python_interpreter": sys.executable,
    }}}}))  # fmt: skip
    (folder / "plays.yml").write_text(plays)
    return subprocess.run(
        [f"{os.path.dirname(sys.executable)}/ansible-playbook", "-i", folder / "lab.yml",
         folder / "plays.yml", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=100,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
    )  # fmt: skip


def test_summary_names_the_first_failure_whatever_rescue_and_always_meet(tmp_path: Path) -> None:
    done = played(tmp_path, PLAYS, "-e", "broken=neither")
    assert done.returncode == 2, done.stdout
    summary = done.stdout.partition("PLAY RECAP")[2]
    assert re.search(r"^  m1 +failed +.*'neither'.*not a valid boolean", summary, re.M), done.stdout
    assert "consequence" not in summary
    (ROOT / "build/failed").joinpath(
        re.sub(r"[^\w.-]+", "-", str(tmp_path / "lab")).strip("-")
    ).unlink(missing_ok=True)
