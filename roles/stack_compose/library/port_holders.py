#!/usr/bin/python
"""Ansible module: who listens on which TCP port of this machine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: port_holders
short_description: Who listens on which TCP port of this machine
description:
  - For each port that cannot be listened on, names who holds it. Changes nothing.
options:
  ports:
    description: TCP ports.
    type: list
    elements: int
    required: true
  project:
    description: A Compose project whose own containers do not count.
    type: str
    required: true
  stack:
    description: A stack on a swarm whose own containers do not count either.
    type: str
    default: ""
attributes:
  check_mode: {support: full}
"""

RETURN = r"""
holders:
  description: By port, as text, who holds it; a port that is free or the project's own is absent.
  returned: always
  type: dict
on_a_swarm:
  description: Whether a swarm's stack of the project's name runs here.
  returned: always
  type: bool
"""

import errno
import re
import shutil
import socket
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

LISTEN = "0A"


def containers(module: AnsibleModule) -> list[list[str]]:
    """Return name, Compose project, stack and ports of each container that runs."""
    if shutil.which("docker") is None:
        return []
    labels = ("com.docker.compose.project", "com.docker.stack.namespace")
    columns = "\t".join(
        ("{{.Names}}", *(f'{{{{.Label "{each}"}}}}' for each in labels), "{{.Ports}}")
    )
    _, output, _ = module.run_command(["docker", "ps", "--format", columns])
    return [line.split("\t") for line in output.splitlines()]


def published_ports(there: list[list[str]]) -> dict[int, tuple[str, str, str]]:
    """Return container name, Compose project and stack by published TCP port."""
    published = {}
    for name, project, stack, ports in there:
        for first, last in re.findall(r":(\d+)(?:-(\d+))?->[\d-]+/tcp", ports):
            for port in range(int(first), int(last or first) + 1):
                published[port] = (name, project, stack)
    return published


def is_free(port: int) -> bool:
    """Tell whether a server could listen on the port."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("0.0.0.0", port))  # noqa: S104 - closed at once, never listened on
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def listening_program(port: int) -> str:
    """Return name and process number of the program that listens on the port, if it shows."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if Path(table).exists():
            for row in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                fields = row.split()
                if fields[3] == LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(link.readlink()) in inodes:
                process = link.parts[2]
                name = Path("/proc", process, "comm").read_text(encoding="utf-8").strip()
                return f"{name} (process {process})"
        except OSError:
            continue
    return "another program"


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "ports": {"type": "list", "elements": "int", "required": True},
            "project": {"type": "str", "required": True},
            "stack": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    there = containers(module)
    published = published_ports(there)
    on_a_swarm = any(stack == module.params["project"] for _, _, stack, _ in there)
    holders = {}
    for port in module.params["ports"]:
        container, project, stack = published.get(port, ("", "", ""))
        if container:
            own = module.params["stack"]
            if project != module.params["project"] and not (own and stack == own):
                holders[str(port)] = f"container {container}"
        elif not is_free(port):
            holders[str(port)] = listening_program(port)
    module.exit_json(changed=False, holders=holders, on_a_swarm=on_a_swarm)


if __name__ == "__main__":
    main()
