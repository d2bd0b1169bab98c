#!/usr/bin/python
"""Ansible module: how a stack's services fare on a Docker Swarm, now or once they have settled."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_services
short_description: How a stack's services fare on a Docker Swarm, now or once settled
description:
  - Asks the manager that it runs on. Changes nothing.
  - With O(wait) it returns once every service runs all its tasks as it was last told, and fails as
    soon as Swarm has rolled a service back, or when the time is over, with what those tasks that
    did not become healthy say.
options:
  stack: {description: Name of the stack., type: str, required: true}
  wait:
    description: Seconds until all has to have settled; 0 does not wait.
    type: int
    default: 0
  since:
    description: When it was told anything, in ISO 8601 and UTC; older rollbacks do not count.
    type: str
    default: ""
  log_lines: {description: Log lines that a failure shows of a task., type: int, default: 20}
attributes:
  check_mode: {support: full}
"""

RETURN = r"""
services:
  description:
    - By name, C(image), C(wanted) and C(running) tasks, C(update) and its C(message),
      C(problem) in words, and C(tasks) with C(name), C(node), C(state) and C(error).
  type: dict
nodes:
  description: By name, C(state), C(availability), C(role), C(reachability) and C(labels).
  type: dict
settled: {description: Whether every service runs all its tasks as it was last told., type: bool}
"""

import json
import subprocess
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.root_cause import root_cause

# What Swarm calls an update that did not end well.
UNDONE = ("rollback_started", "rollback_completed", "rollback_paused", "paused")
CONTAINER = (
    *("Image", "Command", "Args", "Env", "Labels", "User", "ReadOnly", "Init", "CapabilityDrop"),
    *("Mounts", "Secrets", "Configs", "Healthcheck"),
)
UNDER_WAY = ("updating", "rollback_started")
SECONDS_TO_ANSWER = 60
SECONDS_TO_SHOW_LOGS = 10


class SwarmError(Exception):
    """One line about a swarm that cannot be asked, or a stack that has not settled."""


def ran(command: list[str], seconds: float = SECONDS_TO_ANSWER) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; SwarmError where that does not come in time."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        asked = " ".join(command[:3])
        raise SwarmError(
            f"{asked} gave no answer in {seconds:g} s: are the node and most managers up?"
        ) from None


def docker(*arguments: str) -> str:
    """Return what docker prints; SwarmError with its own words where it fails."""
    try:
        done = ran(["docker", *arguments])
    except FileNotFoundError:
        raise SwarmError("no engine: make up installs one") from None
    if done.returncode != 0:
        raise SwarmError(root_cause(done.stderr, f"docker {arguments[0]} failed"))
    return done.stdout


def inspect(kind: str, ids: list[str]) -> list[dict[str, Any]]:
    """Return what the swarm knows of nodes, services or tasks; without those that just went."""
    if not ids:
        return []
    return json.loads(ran(["docker", "inspect", "--type", kind, *ids]).stdout or "[]")


def name_of(node: dict[str, Any]) -> str:
    """Return what people call a node."""
    return node["Description"]["Hostname"]


def about_node(node: dict[str, Any]) -> dict[str, Any]:
    """Return what matters of a node."""
    manager = node.get("ManagerStatus") or {}
    return {
        "state": node["Status"]["State"],
        "availability": node["Spec"]["Availability"],
        "role": "leader" if manager.get("Leader") else node["Spec"]["Role"],
        "reachability": manager.get("Reachability", ""),
        "labels": node["Spec"].get("Labels") or {},
    }


def look_at_nodes() -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Return all nodes by name, and their names by id."""
    nodes = inspect("node", docker("node", "ls", "--quiet").split())
    names = {node["ID"]: name_of(node) for node in nodes}
    return {name_of(node): about_node(node) for node in nodes}, names


def told(template: dict[str, Any]) -> list[Any]:
    """Return what makes one task another: a task does not repeat all of its service's template."""
    parts = ("Resources", "Networks", "Placement", "ForceUpdate")
    container = template["ContainerSpec"]
    return [*map(container.get, CONTAINER), *map(template.get, parts)]


def about_tasks(
    service: dict[str, Any], tasks: list[dict[str, Any]], nodes: dict[str, str]
) -> list[dict[str, Any]]:
    """Return what matters of a service's tasks, the newest first."""
    name = service["Spec"]["Name"]
    return [
        {
            "id": task["ID"],
            "name": f"{name}.{task.get('Slot') or nodes.get(task.get('NodeID', ''), '')}",
            "node": nodes.get(task.get("NodeID", ""), ""),
            "wanted": task["DesiredState"],
            "state": task["Status"]["State"],
            "error": task["Status"].get("Err", ""),
            "current": told(task["Spec"]) == told(service["Spec"]["TaskTemplate"]),
        }
        for task in sorted(tasks, key=lambda task: task["CreatedAt"], reverse=True)
    ]


def is_open(node: dict[str, Any]) -> bool:
    """Tell whether a node is given tasks."""
    return node["state"] == "ready" and node["availability"] == "active"


def wanted(service: dict[str, Any], meant: int, open_nodes: int) -> int:
    """Return how many tasks a service is to have.

    `meant` are those that Swarm has for it: one that is on every node loses a node where it cannot
    start, and goes on as if that were not there.
    """
    if replicated := service["Spec"]["Mode"].get("Replicated"):
        return replicated["Replicas"]
    placement = service["Spec"]["TaskTemplate"].get("Placement") or {}
    return meant if placement.get("Constraints") else max(meant, open_nodes)


def about_service(
    service: dict[str, Any], tasks: list[dict[str, Any]], open_nodes: int
) -> dict[str, Any]:
    """Return what matters of a service and its tasks."""
    meant = [task for task in tasks if task["wanted"] == "running"]
    update = service.get("UpdateStatus") or {}
    return {
        "image": service["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"],
        "wanted": wanted(service, len(meant), open_nodes),
        "running": sum(task["state"] == "running" and task["current"] for task in meant),
        "update": update.get("State", ""),
        "started": update.get("StartedAt", ""),
        "message": update.get("Message", ""),
        "tasks": tasks,
    }


def look_at_services(
    stack: str, nodes: dict[str, str], open_nodes: int
) -> dict[str, dict[str, Any]]:
    """Return the services of a stack by their names in it."""
    label = f"label=com.docker.stack.namespace={stack}"
    found = {}
    for service in inspect(
        "service", docker("service", "ls", "--quiet", "--filter", label).split()
    ):
        listed = docker("service", "ps", "--quiet", "--no-trunc", service["ID"]).split()
        tasks = about_tasks(service, inspect("task", listed), nodes)
        name = service["Spec"]["Name"].removeprefix(f"{stack}_")
        found[name] = about_service(service, tasks, open_nodes)
        found[name]["problem"] = problem(name, found[name])
    return found


def problem(name: str, service: dict[str, Any]) -> str:
    """Return what is not well with a service, in words; nothing where it is."""
    if service["update"] in UNDER_WAY:
        return f"{name} is being updated: {service['running']} of {service['wanted']} are new."
    if service["wanted"] == 0:
        return f"{name} has none, and is to have none: make up ORCHESTRATOR=swarm brings it back."
    if service["running"] == service["wanted"]:
        return ""
    errors = [task["error"] for task in service["tasks"] if task["error"]]
    why = f" ({errors[0]})" if errors else ""
    return f"{name} has {service['running']} of {service['wanted']}{why}."


def is_settled(service: dict[str, Any]) -> bool:
    """Tell whether it runs all its tasks as it was last told."""
    meant = sum(task["wanted"] == "running" for task in service["tasks"])
    return (
        service["update"] not in UNDER_WAY
        and service["running"] == service["wanted"] == meant
        and service["wanted"] > 0
    )


def is_undone(service: dict[str, Any], since: str) -> bool:
    """Tell whether Swarm has taken back what it was told since then."""
    # The swarm tells parts of a second, which as text would come before the Z.
    return service["update"] in UNDONE and service["started"].rstrip("Z") >= since.rstrip("Z")


def report(services: dict[str, dict[str, Any]], names: list[str], lines: int) -> str:
    """Return what people need of services that are not as they should be."""
    said = []
    for name in names:
        service = services[name]
        update = f", {service['update']}: {service['message']}" if service["message"] else ""
        said.append(f"== {name}: {service['running']} of {service['wanted']} run{update}")
        ill = [
            task for task in service["tasks"] if task["error"] or task["state"] != task["wanted"]
        ]
        for task in ill[:3]:
            node = f" on {task['node']}" if task["node"] else ""
            said.append(f"{task['name']}{node}: {task['state']} {task['error']}".rstrip())
        for task in ill[:1]:
            command = ["docker", "service", "logs", "--raw", "--tail", str(lines), task["id"]]
            # A node that is away has them, and does not say so.
            try:
                done = ran(command, SECONDS_TO_SHOW_LOGS)
            except SwarmError as error:
                said.append(str(error))
            else:
                said.append((done.stdout + done.stderr).rstrip())
    return "\n".join(line for line in said if line)


def look(stack: str) -> dict[str, Any]:
    """Return nodes, services and whether these have settled."""
    nodes, names = look_at_nodes()
    services = look_at_services(stack, names, sum(map(is_open, nodes.values())))
    settled = bool(services) and all(is_settled(each) for each in services.values())
    return {"nodes": nodes, "services": services, "settled": settled}


def wait_until_settled(given: dict[str, Any]) -> dict[str, Any]:
    """Return nodes and services once they have settled; SwarmError where that does not come."""
    deadline = time.monotonic() + given["wait"]
    while True:
        found = look(given["stack"])
        services = found["services"]
        undone = [name for name, each in services.items() if is_undone(each, given["since"])]
        if given["wait"] and undone:
            raise SwarmError(
                f"Swarm has rolled back {', '.join(undone)}:\n"
                f"{report(services, undone, given['log_lines'])}"
            )
        if found["settled"] or not given["wait"]:
            return found
        if time.monotonic() > deadline:
            late = [name for name, each in services.items() if not is_settled(each)]
            raise SwarmError(
                f"{', '.join(late) or 'The stack'} did not settle in {given['wait']} s:\n"
                f"{report(services, late, given['log_lines'])}"
            )
        time.sleep(1)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "stack": {"type": "str", "required": True},
            "wait": {"type": "int", "default": 0},
            "since": {"type": "str", "default": ""},
            "log_lines": {"type": "int", "default": 20},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(changed=False, **wait_until_settled(module.params))
    except SwarmError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
