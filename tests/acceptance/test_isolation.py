"""Promises 5 and 6: each service reaches its neighbours, and nothing else.

Every 'cannot' is asked by the same probe, in the same container and the same go as a 'can'.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from .settings import DEBUG_NETWORK, DEBUGGED, NETWORKS, PORTS, SERVICES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .stack import Container, Stack

Target = tuple[str, str, int]

INTERNAL = [service for service in SERVICES if service != "gateway"]
# Beside what anything here listens on: what else a server may be found by.
OTHER_PORTS = [22, 53, 80, 443, 2375, 5433, 16379, 65535]
EVERY_PORT = sorted({*PORTS.values(), 8443, 8404, *OTHER_PORTS})
OUTSIDE = "1.1.1.1"

BY_SERVICE = [
    pytest.param(service, marks=pytest.mark.promise(5 if service == "frontend" else 6))
    for service in INTERNAL
]
ALL_SERVICES = [
    pytest.param(service, marks=pytest.mark.promise(5 if service in ("gateway", "frontend") else 6))
    for service in SERVICES
]


@pytest.fixture(scope="module")
def first(containers: list[Container]) -> dict[str, Container]:
    """One container of each service."""
    by_service = {each.service: each for each in reversed(containers)}
    assert sorted(by_service) == sorted(SERVICES)
    return by_service


@pytest.fixture(scope="module")
def networks(stack: Stack) -> dict[str, dict[str, Any]]:
    """The project's networks, by their short names."""
    label = f"label=com.docker.compose.project={stack.project}"
    names = stack.machine.run(
        "docker", "network", "ls", "--filter", label, "--format", "{{.Name}}"
    ).lines()
    found = json.loads(stack.machine.run("docker", "network", "inspect", *names).out)
    return {each["Labels"]["com.docker.compose.network"]: each for each in found}


def _neighbours(service: str) -> set[str]:
    return {other for other in SERVICES if other != service and NETWORKS[service] & NETWORKS[other]}


def _wrong(verdicts: Mapping[Target, str], allowed: set[str]) -> dict[Target, str]:
    return {target: verdict for target, verdict in verdicts.items() if verdict not in allowed}


# As drawn


@pytest.mark.parametrize("service", ALL_SERVICES)
def test_service_is_on_its_networks_alone(
    stack: Stack, containers: list[Container], service: str
) -> None:
    """Each of its containers is attached to exactly the networks that are drawn."""
    found = {each.name: set(each.addresses) for each in containers if each.service == service}
    assert found, f"{service} has no container"
    # A debug port needs one network more: an internal one cannot publish.
    more = 1 if stack.env == "dev" and service in DEBUGGED else 0
    for name, networks in found.items():
        debug = {network for network in networks if stack.is_debug(network)}
        assert networks - debug == stack.drawn_networks(service), f"{name}: {networks}"
        assert len(debug) == more, f"{name}: {networks}"


@pytest.mark.promise(5, 6)
def test_only_ingress_leads_anywhere(stack: Stack, networks: dict[str, dict[str, Any]]) -> None:
    """All networks but ingress are internal, and dev's for debugging lead no further."""
    debug = {name for name in networks if name.startswith(DEBUG_NETWORK)}
    # Compose leaves dev's behind when prod follows; then nobody is on it.
    used = {name for name in debug if networks[name]["Containers"]}
    assert bool(used) == (stack.env == "dev"), sorted(networks)
    assert set(networks) - debug == set().union(*NETWORKS.values())
    for name in debug:
        options = networks[name]["Options"]
        assert options.get("com.docker.network.bridge.enable_ip_masquerade") == "false", options
        assert options.get("com.docker.network.bridge.enable_icc") == "false", options
    open_ones = {name for name, about in networks.items() if not about["Internal"]}
    assert open_ones == {"ingress"} | debug


@pytest.mark.promise(5, 6)
def test_only_the_stacks_containers_are_on_its_networks(
    containers: list[Container], networks: dict[str, dict[str, Any]]
) -> None:
    """No foreign container was connected; on ingress there is the gateway alone."""
    names = {each.id: each.name for each in containers}
    for network, about in networks.items():
        there = {
            names.get(each, f"foreign {about['Containers'][each]}") for each in about["Containers"]
        }
        debug = network.startswith(DEBUG_NETWORK)
        drawn = {
            each.name
            for each in containers
            if network in NETWORKS[each.service] or (debug and each.service in DEBUGGED)
        }
        assert there <= drawn, f"{network}: {there - drawn}"
        assert debug or there == drawn, f"{network} lacks {drawn - there}"


# By trying


@pytest.mark.parametrize("service", BY_SERVICE)
def test_service_reaches_its_neighbours_by_name(
    stack: Stack, first: dict[str, Container], service: str
) -> None:
    """Names of neighbours resolve and answer on their port; other names are not known."""
    near = _neighbours(service)
    far = set(SERVICES) - near - {service}
    container = first[service]
    names = sorted(near | far)
    targets = [("tcp", name, PORTS[name]) for name in names] + [("name", each, 0) for each in names]
    if service in ("frontend", "api"):
        targets += [("icmp", each, 0) for each in names]
    # Also with the names that Docker gives, and the containers' own.
    for other in far:
        alias = first[other]
        targets += [("name", name, 0) for name in (alias.name, alias.hostname)]
    verdicts = stack.probe(container, targets)
    reached = {target: verdicts[target] for target in targets if target[1] in near}
    assert not _wrong(reached, {"open"}), f"{service} cannot reach {_wrong(reached, {'open'})}"
    kept = {target: verdicts[target] for target in targets if target[1] not in near}
    # Where the engine asks on for names it does not know, dev's debug network brings no answer.
    wrong = _wrong(kept, {"unknown-name"} | ({"silent"} if _debugged(stack, container) else set()))
    assert not wrong, f"{container.name} should not know these names: {wrong}"


@pytest.mark.parametrize("service", BY_SERVICE)
def test_service_reaches_nothing_but_its_neighbours_by_address(
    stack: Stack, containers: list[Container], first: dict[str, Container], service: str
) -> None:
    """Every address of every other container, on the ports of all: only shared networks answer."""
    container = first[service]
    shared = stack.drawn_networks(service)
    can: list[Target] = []
    cannot: list[Target] = []
    for other in containers:
        if other.service == service:
            continue
        for network, address in other.addresses.items():
            if network in shared:
                can.append(("tcp", address, PORTS[other.service]))
            else:
                cannot += [("tcp", address, port) for port in PORTS.values()]
                if service in ("frontend", "api"):
                    cannot.append(("icmp", address, 0))
    assert can, f"{service} has no neighbour at all"
    verdicts = stack.probe(container, [*dict.fromkeys(can + cannot)])
    wrong = _wrong({target: verdicts[target] for target in can}, {"open"})
    assert not wrong, f"{container.name} cannot reach its neighbours: {wrong}"
    wrong = _wrong({target: verdicts[target] for target in cannot}, _away(stack, container))
    assert not wrong, f"{container.name} should not reach {wrong}"


@pytest.mark.promise(5)
@pytest.mark.parametrize("target", ["database", "cache"])
def test_frontend_reaches_no_port_of(
    stack: Stack, first: dict[str, Container], target: str
) -> None:
    """Database and cache are out of the frontend's reach by name, address, any port and ping."""
    frontend, api = first["frontend"], first["api"]
    address = first[target].addresses[f"{stack.project}_backend"]
    listening = stack.exec(first[target], "cat", "/proc/net/tcp").lines()[1:]
    ports = {int(row.split()[1].split(":")[1], 16) for row in listening if row.split()[3] == "0A"}
    assert PORTS[target] in ports, f"{target} listens on {ports}"
    tried: list[Target] = [("tcp", address, port) for port in sorted({*ports, *EVERY_PORT})]
    tried += [("icmp", address, 0)]
    by_name: list[Target] = [("tcp", target, port) for port in (PORTS[target], 80)]
    by_name += [("icmp", target, 0), ("name", target, 0)]

    can = [("tcp", "api", 8000), ("icmp", "api", 0), ("name", "api", 0)]
    verdicts = stack.probe(frontend, [*can, *tried, *by_name])
    wrong = _wrong({each: verdicts[each] for each in can}, {"open"})
    assert not wrong, f"the frontend cannot even reach the api: {wrong}"
    wrong = _wrong({each: verdicts[each] for each in tried}, {"unreachable"})
    assert not wrong, f"{frontend.name} reaches {target}: {wrong}"
    wrong = _wrong({each: verdicts[each] for each in by_name}, {"unknown-name"})
    assert not wrong, f"{frontend.name} knows {target}: {wrong}"

    # The very same targets are there for who may reach them.
    can = [("tcp", address, PORTS[target]), ("icmp", address, 0), ("name", target, 0)]
    can += [("tcp", target, PORTS[target]), ("icmp", target, 0)]
    wrong = _wrong(stack.probe(api, can), {"open"})
    assert not wrong, f"{api.name} cannot reach {target}: {wrong}"
    closed = ("tcp", address, 65535)
    assert stack.probe(api, [closed])[closed] == "refused", "the probe cannot tell closed from away"


def _debugged(stack: Stack, container: Container) -> bool:
    return any(stack.is_debug(network) for network in container.addresses)


def _away(stack: Stack, container: Container) -> set[str]:
    """What counts as not reached. Dev's debug network swallows what the others refuse to carry."""
    return {"unreachable", "silent"} if _debugged(stack, container) else {"unreachable"}


@pytest.mark.parametrize("service", BY_SERVICE)
def test_service_has_no_way_out(stack: Stack, first: dict[str, Container], service: str) -> None:
    """No connection to the world, nor to this machine by any of its addresses.

    The machine itself is within reach of a service with a debug port, which is dev's alone: what
    publishes the port is the machine's own end of that network.
    """
    container = first[service]
    ours = stack.machine.program("addresses", {})
    assert ours["main"], f"this machine has no route out to compare with: {ours}"
    addresses = set(ours["interfaces"].values()) - {"127.0.0.1"} | {ours["main"]}
    ports = [22, stack.settings.number("stack_compose_http_port")]
    tried: list[Target] = []
    if not _debugged(stack, container):
        tried += [("tcp", each, port) for each in sorted(addresses) for port in ports]
    tried += [("tcp", OUTSIDE, 53), ("tcp", OUTSIDE, 443)]
    neighbour = sorted(_neighbours(service))[0]
    can = ("tcp", neighbour, PORTS[neighbour])
    verdicts = stack.probe(container, [can, *tried])
    assert verdicts.pop(can) == "open", f"{container.name} reaches nobody, so this tells nothing"
    wrong = _wrong(verdicts, _away(stack, container))
    assert not wrong, f"{container.name} has a way out: {wrong}"


@pytest.mark.promise(5, 6)
def test_only_the_gateway_has_a_default_route(stack: Stack, containers: list[Container]) -> None:
    """A packet to the world has nowhere to go, in the kernel's own table."""
    facts = stack.kernel(containers)
    leads = {
        each.name
        for each in containers
        if any(row.split()[1] == "00000000" for row in facts[each.name]["routes"])
        or any(
            row.startswith("0" * 32 + " 00 ") and not row.endswith(" lo")
            for row in facts[each.name]["routes6"]
        )
    }
    allowed = {
        each.name for each in containers if each.service == "gateway" or _debugged(stack, each)
    }
    assert leads == allowed, f"default routes in {sorted(leads)}, expected in {sorted(allowed)}"
    assert all(facts[each.name]["routes"] for each in containers), "a container has no network"


@pytest.mark.promise(5)
def test_what_the_gateway_reaches_is_its_neighbours(
    stack: Stack, first: dict[str, Container], containers: list[Container]
) -> None:
    """Even who comes in from the world gets no further than the frontends."""
    gateway = first["gateway"]
    by_name: list[Target] = [("tcp", name, PORTS[name]) for name in ("api", "database", "cache")]
    can: list[Target] = [("tcp", "frontend", PORTS["frontend"])]
    # The gateway has a default route, and where that leads somebody may answer for any address.
    # So the servers are spoken to: it is them, or it is not.
    by_address: list[Target] = [
        ("talk", each.addresses[f"{stack.project}_backend"], PORTS[each.service])
        for each in containers
        if each.service in ("api", "database", "cache")
    ]
    verdicts = stack.probe(gateway, [*can, *by_name, *by_address])
    assert verdicts[can[0]] == "open"
    wrong = _wrong({each: verdicts[each] for each in by_name}, {"unknown-name"})
    assert not wrong, f"the gateway knows {wrong}"
    reached = [each for each in by_address if verdicts[each] == "answered"]
    assert not reached, f"the gateway should not reach {reached}"
    # The same words find them where they are.
    wrong = _wrong(stack.probe(first["database"], by_address), {"answered"})
    assert not wrong, f"not even their neighbour gets an answer: {wrong}"
