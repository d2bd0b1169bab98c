"""Machines of a swarm that go away without a word, and a database that moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance.machine import wait_until
from tests.controller import ROOT
from tests.swarm import PROJECT

if TYPE_CHECKING:
    from tests.swarm import Swarm

# Three heartbeats that do not come, and the start of containers: 17 seconds on an idle machine.
# An engine that joins a network may wait 30 more for a peer that is gone (docs/facts.md), and these
# machines share two cores with other checks.
LIMIT_SECONDS = 120
THREE_MANAGERS = ROOT / "molecule/swarm/inventory/three_managers.yml"


def databases(swarm: Swarm, nodes: list[str]) -> list[str]:
    """Nodes with a container of the database, or a volume of it that holds anything."""
    volume = f"/var/lib/docker/volumes/{PROJECT}_database-data/_data/PG_VERSION"
    found = [
        name for name in nodes if swarm.nodes[name].try_run("test", "-e", volume).code == 0
    ]  # fmt: skip
    return sorted({*found, *(task.node for task in swarm.tasks("database", nodes))})


def keep_off(swarm: Swarm, service: str, node: str) -> None:
    """Have no task of a service on a node, until the next run of site.yml."""
    name = f"{PROJECT}_{service}"
    swarm.manage(
        "service", "update", "--detach", "--constraint-add", f"node.hostname!={node}", name
    )
    wait_until(
        lambda: node not in swarm.where(service), LIMIT_SECONDS, f"{service} has left {node}"
    )
    swarm.wait_settled()


def test_replicas_of_a_worker_without_power_are_elsewhere_soon(swarm: Swarm) -> None:
    item = swarm.ask("lab1", "/api/items", "POST", {"name": "written before"})
    # One that has some: Swarm moves nothing back to a node that was drained.
    victim = next(each for each in ("lab3", "lab2") if each in swarm.where("frontend"))
    rest = [each for each in swarm.nodes if each != victim]
    name = swarm.stop_hard(victim)
    try:
        waited = wait_until(
            lambda: (
                len(swarm.where("frontend")) == 3
                and len(swarm.where("api")) == 2
                and victim not in swarm.where("frontend") + swarm.where("api")
                and all(swarm.answers(node) for node in rest)
            ),
            LIMIT_SECONDS,
            "its replicas are elsewhere",
            lambda: swarm.manage("stack", "ps", PROJECT),
        )
        print(f"replicas elsewhere after {waited:.1f} s")
        assert swarm.ask("lab1", f"/api/items/{item['id']}")["name"] == "written before"
        run = swarm.play("playbooks/status.yml", "--limit", ",".join([*rest, "localhost"]))
        assert run.code != 0
        assert f"{victim} is down" in run.output, run.output
    finally:
        swarm.start_again(victim, name)
    wait_until(lambda: victim in swarm.where("gateway"), LIMIT_SECONDS, "it has its gateway again")
    wait_until(lambda: swarm.answers(victim), LIMIT_SECONDS, "it answers again")
    swarm.wait_settled()


@pytest.mark.parametrize("node", ["lab2", "lab3"])
def test_engine_restarted_in_place_runs_containers_again(swarm: Swarm, node: str) -> None:
    """Its networks of before are still there, and were once in the way of what it starts."""
    swarm.nodes[node].run("systemctl", "restart", "docker", seconds=90)
    wait_until(lambda: node in swarm.where("gateway"), LIMIT_SECONDS, "it has its gateway again")
    wait_until(lambda: swarm.answers(node), LIMIT_SECONDS, "it answers again")
    swarm.wait_settled()
    # Where one is left, no container gets to its network from there on.
    left = swarm.nodes[node].run("ip", "-brief", "link", "show", "type", "vxlan")
    assert not left.out, left.out


def test_database_is_moved_with_its_rows(swarm: Swarm) -> None:
    item = swarm.ask("lab1", "/api/items", "POST", {"name": "moves along"})
    run = swarm.play("playbooks/move_database.yml", "-e", "to=lab2")
    assert run.code == 0, run.output
    assert swarm.where("database") == ["lab2"]
    assert databases(swarm, list(swarm.nodes)) == ["lab2"]
    rows = swarm.sql(f"SELECT name FROM items WHERE id = '{item['id']}'")
    assert rows == [["moves along"]]
    wait_until(lambda: swarm.answers("lab3"), LIMIT_SECONDS, "the apis have found it")
    assert swarm.ask("lab3", "/api/items", "POST", {"name": "written there"})
    again = swarm.play("playbooks/move_database.yml", "-e", "to=lab2")
    assert again.code == 0, again.output
    assert again.changed == 0, again.output
    assert swarm.deploy().changed == 0


def test_database_whose_node_is_gone_is_nowhere_else(swarm: Swarm) -> None:
    """It is said, reads go on with what the cache has, and it is back with its node."""
    # What goes away with the database cannot stand in for it.
    if swarm.where("cache") == ["lab2"]:
        keep_off(swarm, "cache", "lab2")
    if set(swarm.where("api")) == {"lab2"}:
        keep_off(swarm, "api", "lab2")
    wait_until(lambda: swarm.answers("lab1"), LIMIT_SECONDS, "all is well before")
    item = swarm.ask("lab1", "/api/items", "POST", {"name": "survives"})
    assert swarm.ask("lab1", "/api/items")
    name = swarm.stop_hard("lab2")
    try:
        wait_until(
            lambda: "Down" in swarm.manage("node", "ls", "--format", "{{.Hostname}}{{.Status}}"),
            LIMIT_SECONDS,
            "the manager notices",
        )
        # An api that starts anew waits for the database: one that has seen it answers.
        for node in ("lab1", "lab3"):
            wait_until(
                lambda at=node: swarm.answers(at, "/api/items"),
                LIMIT_SECONDS,
                f"{node} reads on",
                lambda: swarm.manage("stack", "ps", PROJECT),
            )
        assert databases(swarm, ["lab1", "lab3"]) == []
        assert not swarm.where("database")
        run = swarm.play("playbooks/status.yml", "--limit", "lab1,lab3,localhost")
        assert run.code != 0
        assert "The database is away with lab2, which has its volume" in run.output, run.output
        more = swarm.play("site.yml", "-e", "env=prod", "-e", "stack_deploy_timeout=20",
                          "--limit", "lab1,lab3,localhost")  # fmt: skip
        assert more.code != 0, more.output
        assert databases(swarm, ["lab1", "lab3"]) == []
    finally:
        swarm.start_again("lab2", name)
    wait_until(
        lambda: swarm.where("database") == ["lab2"], LIMIT_SECONDS, "it is back with its node"
    )
    swarm.wait_settled()
    assert swarm.sql(f"SELECT name FROM items WHERE id = '{item['id']}'") == [["survives"]]


def test_one_of_three_managers_without_power_takes_nothing_along(swarm: Swarm) -> None:
    """The leader, which has the project's directory: the others decide, and serve."""
    swarm.deploy(groups=THREE_MANAGERS)
    item = swarm.ask("lab1", "/api/items", "POST", {"name": "decided by three"})
    name = swarm.stop_hard("lab1")
    try:
        wait_until(
            lambda: swarm.nodes["lab2"].try_run("docker", "node", "ls").code == 0,
            LIMIT_SECONDS,
            "the other two decide",
        )
        wait_until(
            lambda: (
                len(swarm.where("frontend", "lab2")) == 3
                and len(swarm.where("api", "lab2")) == 2
                and swarm.answers("lab2")
                and swarm.answers("lab3")
            ),
            LIMIT_SECONDS,
            "all serves again",
            lambda: swarm.manage("stack", "ps", PROJECT, via="lab2"),
        )
        assert swarm.ask("lab3", f"/api/items/{item['id']}")["name"] == "decided by three"
        swarm.manage("service", "scale", "--detach", f"{PROJECT}_api=3", via="lab3")
        wait_until(
            lambda: len(swarm.where("api", "lab3")) == 3, LIMIT_SECONDS, "they decide something"
        )
    finally:
        swarm.start_again("lab1", name)
    wait_until(
        lambda: swarm.nodes["lab1"].try_run("docker", "node", "ls").code == 0,
        LIMIT_SECONDS,
        "it is back",
    )
    swarm.deploy(groups=THREE_MANAGERS)
    assert len(swarm.where("api")) == 2
    swarm.deploy()
    roles = swarm.manage("node", "ls", "--filter", "role=manager", "--format", "{{.Hostname}}")
    assert roles.split() == ["lab1"]
