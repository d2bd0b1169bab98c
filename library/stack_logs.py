#!/usr/bin/python
"""Ansible module: what the stack's containers on this machine logged."""

from __future__ import annotations

DOCUMENTATION = r"""
module: stack_logs
short_description: What the stack's containers on this machine logged
description:
  - The last log lines of all replicas, in the order of their times. Changes nothing.
options:
  project:
    description: Name of the Compose project.
    type: str
    required: true
  services:
    description: Whose logs; all services' where it is empty.
    type: list
    elements: str
    default: []
  lines:
    description: How many lines at most, of all replicas together.
    type: int
    required: true
  since:
    description: From when on, as docker logs takes it; from the beginning where it is empty.
    type: str
    default: ""
attributes:
  check_mode: {support: full}
"""

RETURN = r"""
lines:
  description:
    - Time (RFC 3339, UTC, always as long), replica and text of each line. In the text, characters
      that a terminal would obey stand as escapes.
  returned: always
  type: list
  elements: list
containers:
  description: How many containers were asked.
  returned: always
  type: int
"""

import re
import shutil
from concurrent.futures import ThreadPoolExecutor

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.root_cause import root_cause

LABEL = "com.docker.compose."
COLUMNS = rf'{{{{.ID}}}}\t{{{{.Label "{LABEL}service"}}}}\t{{{{.Label "{LABEL}container-number"}}}}'
STACK = "com.docker.stack.namespace"
TASKS = r'{{.ID}}\t{{.Label "com.docker.swarm.task.name"}}'
# What a client wrote into a request may stand in a log.
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def harmless(text: str) -> str:
    """Return a text that a terminal shows and does not obey."""
    return CONTROLS.sub(lambda match: f"\\x{ord(match[0]):02x}", text.rstrip("\r"))


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "project": {"type": "str", "required": True},
            "services": {"type": "list", "elements": "str", "default": []},
            "lines": {"type": "int", "required": True},
            "since": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    given = module.params
    if not shutil.which("docker"):
        module.fail_json(msg="no engine: make up installs one")

    def asked(*command: str) -> tuple[str, str]:
        code, out, err = module.run_command(["docker", *command], errors="replace")
        if code != 0:
            cause = root_cause(err, f"exit status {code}")
            module.fail_json(msg=f"docker {command[0]}: {cause}")
        return out, err

    filters = [f"label={LABEL}project={given['project']}", f"label={LABEL}oneoff=False"]
    options = [word for each in filters for word in ("--filter", each)]
    rows = [
        row.split("\t") for row in asked("ps", "-a", *options, "--format", COLUMNS)[0].splitlines()
    ]
    # On a swarm, what runs of it on this machine.
    mine = ("--filter", f"label={STACK}={given['project']}")
    for row in asked("ps", "-a", *mine, "--format", TASKS)[0].splitlines():
        container, task = row.split("\t")
        service, slot, _ = task.removeprefix(f"{given['project']}_").rsplit(".", 2)
        # A service that every node has once has no number.
        rows.append([container, service, slot if slot.isdecimal() else "1"])
    services = [service for _, service, _ in rows]
    wanted = [row for row in rows if row[1] in (given["services"] or services)]
    limits = [
        "--tail",
        str(given["lines"]),
        *(["--since", given["since"]] if given["since"] else []),
    ]

    def of(row: list[str]) -> list[tuple[str, str, str]]:
        name = f"{row[1]}-{row[2]}" if services.count(row[1]) > 1 else row[1]
        found = []
        for output in asked("logs", "--timestamps", *limits, row[0]):
            # Not splitlines, which also ends a line at what is none, such as U+2028.
            for line in output.split("\n"):
                when, space, text = line.partition(" ")
                if space or when:
                    found.append((when, name, harmless(text)))
        return found

    with ThreadPoolExecutor(4) as pool:
        lines = sorted(
            (line for found in pool.map(of, wanted) for line in found), key=lambda line: line[0]
        )
    module.exit_json(changed=False, containers=len(wanted), lines=lines[-given["lines"] :])


if __name__ == "__main__":
    main()
