"""swarm_services, short of a swarm: what it makes of what an Engine API of a manager answers.

The engine that these checks run on is no manager, and is not theirs to make one. So the answers are
written down here, with the fields of the Engine API's own description; the scenario swarm asks a
real one.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

from tests.sources import load

from .conftest import ROOT, Module, docker

if TYPE_CHECKING:
    from pathlib import Path

PATH = ROOT / "library/swarm_services.py"
swarm_services = Module(PATH)
NODES = {"node1": "lab1", "node2": "lab2"}
TEMPLATE: dict[str, Any] = {
    "ContainerSpec": {
        "Image": "stackyard/api:1",
        "Env": ["LOG_LEVEL=info"],
        "Secrets": [{"SecretName": "stackyard_one-1", "File": {"Mode": 256}}],
    },
    "Resources": {"Limits": {"NanoCPUs": 1000000000, "MemoryBytes": 536870912}},
    "RestartPolicy": {"Condition": "any", "Delay": 1000000000},
    "Placement": {"MaxReplicas": 1},
    "Networks": [{"Target": "network1", "Aliases": ["api"]}],
    "ForceUpdate": 0,
    "Runtime": "container",
}


module = load(PATH)


def asked(replicas: int | None = 2, **more: Any) -> dict[str, Any]:
    """Return a service, as the API has it; without a count it is on every node."""
    mode = {"Global": {}} if replicas is None else {"Replicated": {"Replicas": replicas}}
    spec = {"Name": "stackyard_api", "TaskTemplate": copy.deepcopy(TEMPLATE), "Mode": mode}
    return {"ID": "service1", "Spec": spec, **more}


def task(number: int = 1, state: str = "running", wanted: str = "running", **more: Any) -> Any:
    """Return a task, as the API has it. Of its service's template it does not have the runtime."""
    spec = {name: value for name, value in copy.deepcopy(TEMPLATE).items() if name != "Runtime"}
    return {
        "ID": f"task{number}",
        "CreatedAt": f"2026-01-02T03:04:0{number}.000000001Z",
        "Spec": spec,
        "ServiceID": "service1",
        "Slot": number,
        "NodeID": "node1",
        "Status": {"Timestamp": "2026-01-02T03:04:05Z", "State": state, "Message": "started"},
        "DesiredState": wanted,
        **more,
    }


def found(service: dict[str, Any], *tasks: dict[str, Any], open_nodes: int = 0) -> dict[str, Any]:
    """Return what the module says of a service with these tasks."""
    told = module.about_tasks(service, list(tasks), NODES)
    return module.about_service(service, told, open_nodes)


def updated(state: str, at: str = "2026-01-02T03:04:05.678901234Z") -> dict[str, Any]:
    """Return what the API says of a service's last update."""
    return {"UpdateStatus": {"State": state, "StartedAt": at, "Message": "update said so"}}


def test_service_that_runs_all_its_tasks_is_well() -> None:
    service = found(asked(), task(1), task(2))
    assert (service["wanted"], service["running"], service["image"]) == (2, 2, "stackyard/api:1")
    assert module.problem("api", service) == ""
    assert module.is_settled(service)


def test_task_that_is_not_healthy_yet_does_not_count() -> None:
    service = found(asked(), task(1), task(2, state="starting"))
    assert module.problem("api", service) == "api has 1 of 2."
    assert not module.is_settled(service)


def test_why_a_task_failed_is_said_of_the_newest() -> None:
    old = task(1, state="failed", wanted="shutdown", Status={"State": "failed", "Err": "old news"})
    new = task(2, state="rejected", Status={"State": "rejected", "Err": "no suitable node"})
    service = found(asked(), task(3), old, new)
    assert module.problem("api", service) == "api has 1 of 2 (no suitable node)."
    assert [each["id"] for each in service["tasks"]] == ["task3", "task2", "task1"]


@pytest.mark.parametrize(("way", "value"), [
    (("ContainerSpec", "Image"), "stackyard/api:0"),
    (("ContainerSpec", "Env"), ["LOG_LEVEL=debug"]),
    (("ContainerSpec", "Secrets"), [{"SecretName": "stackyard_one-0"}]),
    (("Resources", "Limits"), {"NanoCPUs": 1}),
    (("Networks",), []),
    (("ForceUpdate",), 1),
])  # fmt: skip
def test_task_of_another_template_does_not_count(way: tuple[str, ...], value: Any) -> None:
    old = task(2)
    node = old["Spec"]
    for step in way[:-1]:
        node = node[step]
    node[way[-1]] = value
    service = found(asked(), task(1), old)
    assert service["running"] == 1
    assert not module.is_settled(service)


def test_more_tasks_than_wanted_have_not_settled() -> None:
    service = found(asked(1), task(1), task(2))
    assert module.problem("api", service) == "api has 2 of 1."
    assert not module.is_settled(service)


def test_one_more_that_starts_has_not_settled() -> None:
    """As in an update that starts the new one first."""
    assert not module.is_settled(found(asked(1), task(1), task(2, state="starting")))


def test_task_that_goes_is_none_of_those_wanted() -> None:
    service = found(asked(1), task(1), task(2, wanted="shutdown"))
    assert module.is_settled(service)


def test_service_of_every_node_wants_as_many_as_it_is_given() -> None:
    service = asked(None)
    here = task(1, Slot=0)
    there = task(2, Slot=0, NodeID="node2", state="starting")
    told = found(service, here, there)
    assert (told["wanted"], told["running"]) == (2, 1)
    # It has no number there: its name is the node's.
    assert [each["name"] for each in told["tasks"]] == ["stackyard_api.lab2", "stackyard_api.lab1"]


def test_service_of_every_node_lacks_a_node_that_swarm_gave_up() -> None:
    told = found(asked(None), task(1, Slot=0), open_nodes=2)
    assert module.problem("api", told) == "api has 1 of 2."
    assert not module.is_settled(told)


def test_service_of_some_nodes_does_not_want_all() -> None:
    service = asked(None)
    service["Spec"]["TaskTemplate"]["Placement"] = {"Constraints": ["node.labels.edge==true"]}
    each = task(1, Slot=0)
    each["Spec"]["Placement"] = service["Spec"]["TaskTemplate"]["Placement"]
    assert module.is_settled(found(service, each, open_nodes=2))


def test_node_that_is_drained_or_away_is_given_nothing() -> None:
    node = {"state": "ready", "availability": "active"}
    assert module.is_open(node)
    assert not module.is_open({**node, "availability": "drain"})
    assert not module.is_open({**node, "state": "down"})


@pytest.mark.parametrize("replicas", [0, None])
def test_service_that_is_to_have_none_is_a_problem(replicas: int | None) -> None:
    """As the database is where a move was cut short."""
    service = found(asked(replicas))
    assert "api has none, and is to have none: make up" in module.problem("api", service)
    assert not module.is_settled(service)


@pytest.mark.parametrize("state", ["updating", "rollback_started"])
def test_update_that_is_under_way_has_not_settled(state: str) -> None:
    service = found(asked(**updated(state)), task(1), task(2))
    assert module.problem("api", service) == "api is being updated: 2 of 2 are new."
    assert not module.is_settled(service)


def test_update_that_is_done_has_settled() -> None:
    service = found(asked(**updated("completed")), task(1), task(2))
    assert module.is_settled(service)
    assert not module.is_undone(service, "2026-01-02T03:04:05Z")


@pytest.mark.parametrize("state", ["rollback_started", "rollback_completed", "rollback_paused",
                                   "paused"])  # fmt: skip
@pytest.mark.parametrize(("since", "undone"), [
    ("2026-01-02T03:04:04Z", True),
    # Of the same second: the swarm tells its parts.
    ("2026-01-02T03:04:05Z", True),
    ("2026-01-02T03:04:06Z", False),
    ("9999", False),
])  # fmt: skip
def test_rollback_counts_from_when_something_was_told(state: str, since: str, undone: bool) -> None:
    service = found(asked(**updated(state)), task(1), task(2))
    assert module.is_undone(service, since) == undone


def test_report_says_how_many_run_and_how_the_update_ended() -> None:
    service = found(asked(**updated("rollback_completed")), task(1))
    lines = module.report({"api": service}, ["api"], 5).splitlines()
    assert lines == ["== api: 1 of 2 run, rollback_completed: update said so"]


def test_nodes_part_is_told() -> None:
    worker = {
        "ID": "node2",
        "Spec": {"Role": "worker", "Availability": "drain"},
        "Description": {"Hostname": "lab2"},
        "Status": {"State": "down", "Addr": "192.0.2.12"},
    }
    leader = {
        **worker,
        "Spec": {"Role": "manager", "Availability": "active", "Labels": {"a": "true"}},
        "Status": {"State": "ready"},
        "ManagerStatus": {"Leader": True, "Reachability": "reachable"},
    }
    assert module.about_node(worker) == {
        "state": "down",
        "availability": "drain",
        "role": "worker",
        "reachability": "",
        "labels": {},
    }
    assert module.about_node(leader) == {
        "state": "ready",
        "availability": "active",
        "role": "leader",
        "reachability": "reachable",
        "labels": {"a": "true"},
    }


def test_engine_that_is_no_manager_says_so_in_one_line() -> None:
    if docker("info", "--format", "{{.Swarm.ControlAvailable}}") == "true":
        pytest.fail("this engine is a manager, which no check here makes it", pytrace=False)
    assert "not a swarm manager" in swarm_services(stack="stackyard").message
    # And does not wait for what cannot come.
    assert "not a swarm manager" in swarm_services(stack="stackyard", wait=60).message


def test_machine_without_an_engine(tmp_path: Path) -> None:
    result = swarm_services(stack="stackyard", path=str(tmp_path))
    assert result.message == "no engine: make up installs one"


def test_command_without_an_answer_is_given_up() -> None:
    with pytest.raises(module.SwarmError, match=r"sleep 30 gave no answer in 0.2 s: are the node"):
        module.ran(["sleep", "30"], 0.2)
