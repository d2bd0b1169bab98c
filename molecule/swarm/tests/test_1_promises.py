"""What a stack on a swarm promises, seen from outside and in its containers, on all nodes."""

from __future__ import annotations

import json
import ssl
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.drawing import NETWORKS, SERVICES
from tests.swarm import DIRECTORY, PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.swarm import Swarm, Task

NODES = ["lab1", "lab2", "lab3"]
# How many each has.
SECRETS = {"gateway": 1, "frontend": 0, "api": 2, "database": 2, "cache": 1}
VOICE = 4711
# Python of the node, in the network of a container: no image has to have tools for this.
SPEAK = """
import socket, sys
with socket.create_server(("", int(sys.argv[1]))) as server:
    while True:
        with server.accept()[0] as client:
            client.sendall(sys.argv[2].encode())
"""
# What answers is told apart by what it says: some network may let every connection succeed.
LISTEN = """
import concurrent.futures, json, socket, sys
def hear(address):
    try:
        with socket.create_connection((address, int(sys.argv[1])), 2) as client:
            client.settimeout(2)
            return client.recv(99).decode(errors="replace")
    except OSError:
        return ""
with concurrent.futures.ThreadPoolExecutor(32) as pool:
    print(json.dumps(list(pool.map(hear, json.loads(sys.argv[2])))))
"""


def in_network(task: Task, program: str, *arguments: str) -> list[str]:
    """Return how to run a Python program in the network of a container."""
    enter = ["nsenter", "--net", "--target", task.process, "python3", "-c", program]
    return [*enter, str(VOICE), *arguments]


def heard(swarm: Swarm, task: Task, addresses: list[str]) -> list[str]:
    """What is said at each address to who asks from the network of a container."""
    command = in_network(task, LISTEN, json.dumps(addresses))
    return json.loads(swarm.nodes[task.node].run(*command).out)


@pytest.fixture(scope="module")
def voices(swarm: Swarm) -> Iterator[list[Task]]:
    """All containers; each says its own id to who reaches it."""
    tasks = [task for service in SERVICES for task in swarm.tasks(service)]
    units = []
    for task in tasks:
        unit = f"voice-{task.id[:12]}"
        start = ["systemd-run", "--quiet", "--collect", f"--unit={unit}", "-p", "RuntimeMaxSec=300"]
        swarm.nodes[task.node].run(*start, *in_network(task, SPEAK, task.id))
        units.append((task.node, unit))
    yield tasks
    for node, unit in units:
        swarm.nodes[node].run("systemctl", "stop", unit)


def test_compose_has_left_its_data_and_nothing_that_runs(swarm: Swarm) -> None:
    """prepare made a stack with Compose on lab1; its rows and passwords are the swarm's."""
    left = swarm.nodes["lab1"].run(
        "docker", "ps", "-aq", "--filter", f"label=com.docker.compose.project={PROJECT}"
    )
    assert not left.out, left
    begun = swarm.nodes["lab1"].run("stat", "-c", "%Y", f"{DIRECTORY}/secrets/cache_users").out
    initialised = swarm.sql("SELECT extract(epoch FROM pg_postmaster_start_time())::bigint")
    created = swarm.sql(
        "SELECT extract(epoch FROM (pg_stat_file('PG_VERSION')).modification)::bigint"
    )
    assert int(created[0][0]) < int(initialised[0][0]) - 20, "the database was initialised anew"
    assert int(begun) < int(initialised[0][0]) - 20, "the secrets were made anew"


def test_replicas_are_as_many_as_promised_and_spread(swarm: Swarm) -> None:
    assert swarm.where("gateway") == NODES
    assert swarm.where("frontend") == NODES
    assert len(set(swarm.where("api"))) == 2
    assert swarm.where("database") == ["lab1"]
    assert len(swarm.where("cache")) == 1


@pytest.mark.parametrize("node", NODES)
def test_page_and_api_answer_through_each_node(swarm: Swarm, node: str) -> None:
    with urllib.request.urlopen(swarm.url(node, "/"), timeout=5) as page:
        assert b"<title>" in page.read()
    assert swarm.ask(node, "/api/health")["status"] == "ok"
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    secure = f"https://{swarm.addresses[node]}:8443/api/health"
    with urllib.request.urlopen(secure, timeout=5, context=context) as answer:
        assert json.load(answer)["status"] == "ok"


def test_status_knows_replicas_on_all_nodes(swarm: Swarm) -> None:
    status = swarm.ask("lab3", "/api/status")
    assert len(status["frontends"]) == 3
    assert len(status["apis"]) == 2
    assert {each["status"] for each in status["frontends"] + status["apis"]} == {"ok"}


@pytest.mark.parametrize("service", SERVICES)
def test_service_is_on_its_networks_alone(swarm: Swarm, service: str) -> None:
    for task in swarm.tasks(service):
        assert set(task.addresses) == NETWORKS[service], f"{task.node}: {task.addresses}"


@pytest.mark.parametrize("service", SERVICES)
def test_service_reaches_its_neighbours_on_any_node_and_nobody_else(
    swarm: Swarm, voices: list[Task], service: str
) -> None:
    """Every replica, by every address that any other one has, on its own node and the others."""
    for task in [each for each in voices if each.service == service]:
        others = [each for each in voices if each.service != service]
        doors = [(each, *door) for each in others for door in each.addresses.items()]
        said = heard(swarm, task, [address for _, _, address in doors])
        wrong = [
            f"on {task.node} {service} and {other.service} on {other.node} by {network}: {words!r}"
            for (other, network, _), words in zip(doors, said, strict=True)
            if (words == other.id) != (network in NETWORKS[service])
        ]
        assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("service", SERVICES)
def test_service_knows_the_names_of_its_neighbours_alone(swarm: Swarm, service: str) -> None:
    neighbours = {other for other in SERVICES if NETWORKS[other] & NETWORKS[service]}
    task = swarm.tasks(service)[0]
    for other in SERVICES:
        done = swarm.nodes[task.node].try_run("docker", "exec", task.id, "getent", "hosts", other)
        assert (done.code == 0) == (other in neighbours), f"{service} asks for {other}: {done}"


@pytest.mark.parametrize("service", [each for each in SERVICES if each != "gateway"])
def test_no_service_but_the_gateway_has_a_way_out(swarm: Swarm, service: str) -> None:
    """No node answers, and there is no route to anywhere else."""
    for task in swarm.tasks(service):
        assert heard(swarm, task, list(swarm.addresses.values())) == ["", "", ""]
        command = ["nsenter", "--net", "--target", task.process, "ip", "route", "show", "default"]
        assert not swarm.nodes[task.node].run(*command).out


@pytest.mark.parametrize("service", SERVICES)
def test_container_has_no_capability_no_new_privilege_and_no_writable_root(
    swarm: Swarm, service: str
) -> None:
    for task in swarm.tasks(service):
        read = swarm.nodes[task.node].read(f"/proc/{task.process}/status")
        status = dict(line.split(":\t", 1) for line in read.splitlines() if ":\t" in line)
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        assert "0" not in status["Uid"].split()
        assert task.about["HostConfig"]["ReadonlyRootfs"]
        assert task.about["HostConfig"]["Init"]


@pytest.mark.parametrize("service", SERVICES)
def test_container_has_its_limits(swarm: Swarm, service: str) -> None:
    shown = swarm.nodes["lab1"].run(
        "docker", "compose", "config", "--format", "json", folder=str(DIRECTORY)
    )
    limits = json.loads(shown.out)["services"][service]["deploy"]["resources"]["limits"]
    for task in swarm.tasks(service):
        config = task.about["HostConfig"]
        assert config["Memory"] == int(limits["memory"])
        assert config["NanoCpus"] == float(limits["cpus"]) * 1e9
        assert config["PidsLimit"] == limits["pids"]


def secret_values(swarm: Swarm) -> set[str]:
    """Passwords, and lines of the certificate and its key, from the first manager's files."""
    names = swarm.nodes["lab1"].run("ls", f"{DIRECTORY}/secrets").out.split()
    words = {
        word.lstrip(">")
        for name in names
        for word in swarm.nodes["lab1"].read(f"{DIRECTORY}/secrets/{name}").split()
    }
    return {word for word in words if len(word) >= 40 and "|" not in word}


def test_secrets_show_nowhere(swarm: Swarm) -> None:
    """Not in what managers, engines and kernels tell, and in no file on a worker."""
    values = secret_values(swarm)
    assert len(values) > 3
    services = swarm.manage("service", "ls", "--quiet").split()
    secrets = swarm.manage("secret", "ls", "--quiet").split()
    told = swarm.manage("service", "inspect", *services)
    told += swarm.manage("secret", "inspect", *secrets)
    for service in SERVICES:
        for task in swarm.tasks(service):
            told += json.dumps(task.about)
            told += swarm.nodes[task.node].read(f"/proc/{task.process}/environ")
            told += swarm.nodes[task.node].read(f"/proc/{task.process}/cmdline")
    assert not [value for value in values if value in told], "a secret shows"
    for node in ("lab2", "lab3"):
        held = swarm.nodes[node].try_run("ls", f"{DIRECTORY}/secrets")
        assert held.code != 0, f"{node} has files of secrets"


@pytest.mark.parametrize("service", SERVICES)
def test_secret_is_its_readers_alone(swarm: Swarm, service: str) -> None:
    for task in swarm.tasks(service):
        listed = ["docker", "exec", task.id, "find", "/run", "-path", "*/secrets/*", "-type", "f"]
        shown = swarm.nodes[task.node].run(*listed, "-exec", "stat", "-c", "%a %u", "{}", "+")
        uid = task.about["Config"]["User"].partition(":")[0]
        assert shown.lines() == [f"400 {uid}"] * SECRETS[service]


def test_second_run_changes_nothing(swarm: Swarm) -> None:
    before = {each.id for service in SERVICES for each in swarm.tasks(service)}
    run = swarm.deploy()
    assert run.changed == 0, run.output
    assert {each.id for service in SERVICES for each in swarm.tasks(service)} == before


def test_status_shows_nodes_and_services(swarm: Swarm) -> None:
    run = swarm.play("playbooks/status.yml")
    assert run.code == 0, run.output
    assert "has the database" in run.output
