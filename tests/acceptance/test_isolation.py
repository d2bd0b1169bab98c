"""Promises 5 and 6: each service reaches its neighbours, and nothing else.

Everything is tried from everywhere at once, from inside each container's network, and compared
with the drawing. So each 'cannot' is asked by the same probe, in the same place and the same go as
a 'can', and of servers and listeners that others reach in that very moment.
"""

from __future__ import annotations

import re
from itertools import starmap
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from .settings import DEBUG_NETWORK, DEBUGGED, NETWORKS, PORTS, SERVICES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .machine import Result
    from .stack import Container, Stack

INTERNAL = [service for service in SERVICES if service != "gateway"]
# What on_machine/reach.py calls the places that are no containers.
MACHINE, WORLD = "machine", "world"
LOOPBACK = "127.0.0.1"
# A sample of what nobody in the stack listens on, and other programs often do.
CLOSED = [22, 53, 80, 443, 2375, 65535]
OUTSIDE = [("1.1.1.1", 53), ("1.1.1.1", 443), ("9.9.9.9", 53)]
OUTSIDE_NAME = "example.org"
# How many lines of a failure's message tell of attempts.
SHOWN = 30
# How long an answer may take: enough for a second SYN on a busy machine.
SECONDS = 3

REACHED = {"answered", "heard"}
# No route, or one on which nothing comes back.
NO_WAY = {"unreachable"}
NO_ANSWER = NO_WAY | {"silent"}
# Who has a way out may be told anything out there, though not by who was meant.
ELSEWHERE = NO_ANSWER | {"refused", "foreign"}

# In the words of ping.
NAME_UNKNOWN = "name resolution|not known|No address associated"
NO_ROUTE = "Network is unreachable"

BY_SERVICE = [
    pytest.param(service, marks=pytest.mark.promise(5 if service == "frontend" else 6))
    for service in INTERNAL
]
ALL_SERVICES = [
    pytest.param(service, marks=pytest.mark.promise(5 if service in ("gateway", "frontend") else 6))
    for service in SERVICES
]


class Attempt(NamedTuple):
    """One try to get from a place to another, and its verdict: see on_machine/reach.py."""

    source: str
    target: str
    kind: str
    address: str
    port: int
    verdict: str


class Matrix:
    """What was tried, from everywhere to everywhere, and what the drawing has for it."""

    def __init__(self, stack: Stack, containers: list[Container]) -> None:
        """Try it all; a few seconds."""
        self.stack = stack
        self.containers = {each.name: each for each in containers}
        down = [each.name for each in containers if not each.pid]
        assert not down, f"not running: {down}\n{stack.trouble()}"
        names = {name for each in containers for name in (each.service, each.name, each.hostname)}
        request = {
            "places": {each.name: each.pid for each in containers} | {MACHINE: "self"},
            "ports": sorted({*PORTS.values(), *CLOSED}),
            "published": [*self._gateway_ports(), *self.debug_ports()],
            "world": OUTSIDE,
            "outside_name": OUTSIDE_NAME,
            "names": sorted({*names, OUTSIDE_NAME}),
            "seconds": SECONDS,
        }
        self._report = stack.machine.program("reach", request)
        self.attempts = list(starmap(Attempt, self._report["attempts"]))

    def of(self, service: str) -> list[Container]:
        """The containers of a service."""
        return [each for each in self.containers.values() if each.service == service]

    @property
    def gateway(self) -> str:
        """The gateway's container."""
        return self.of("gateway")[0].name

    def _gateway_ports(self) -> list[tuple[int, str, int]]:
        number = self.stack.settings.number
        return [
            (number("stack_compose_http_port"), self.gateway, 8080),
            (number("stack_compose_https_port"), self.gateway, 8443),
        ]

    def debug_ports(self) -> list[tuple[int, str, int]]:
        """Each a port of the machine, with the container and the port that it leads to in dev."""
        found = []
        for service in sorted(DEBUGGED):
            first = self.stack.settings.number(f"stack_compose_{service}_debug_port")
            for number, each in enumerate(self.of(service)):
                ports = {port for _, port, _ in each.published} or {first + number}
                found += [(port, each.name, PORTS[service]) for port in sorted(ports)]
        return found

    @property
    def addresses(self) -> dict[str, list[str]]:
        """The addresses of each place, as its kernel has them."""
        return self._report["addresses"]

    def listens(self, place: str, kind: str, address: str, port: int) -> bool:
        """Whether anything there listens where the address leads."""
        found = self._report["listening"][place][kind]
        everywhere = [[each, port] for each in ("0.0.0.0", "::", address)]  # noqa: S104
        return port == self._report["port"] or any(each in found for each in everywhere)

    def is_probe(self, attempt: Attempt) -> bool:
        """Whether it was to what every place answers meanwhile, rather than to a server."""
        return attempt.kind == "icmp" or attempt.port == self._report["port"]

    def told(self, container: Container, name: str) -> set[str] | None:
        """Return the addresses that the container was told for a name; null: nobody knew."""
        told = self._report["names"][container.name][name]
        return None if told is None else set(told)

    def between(self, source: str, targets: Iterable[str]) -> list[Attempt]:
        """All that was tried from one place to addresses of those."""
        there = {address for target in targets for address in self.addresses[target]}
        return [each for each in self.attempts if each.source == source and each.address in there]

    def out_of(self, source: str) -> list[Attempt]:
        """All that was tried from one place to the world."""
        return [each for each in self.attempts if (each.source, each.target) == (source, WORLD)]

    # As drawn

    def has_debug_port(self, container: Container) -> bool:
        """Whether it is one that dev gives a debug port."""
        return bool(_debug_networks(self.stack, container.service))

    def shared(self, source: str, container: Container) -> set[str]:
        """The addresses under which the drawing lets one place reach a container."""
        both = self.stack.drawn_networks(container.service)
        if source == MACHINE:
            # The other end of what can be published. On a debug network nobody else is met.
            both &= {self.stack.outer_network}
            both |= _debug_networks(self.stack, container.service)
        else:
            both &= self.stack.drawn_networks(self.containers[source].service)
        return {address for network, address in container.addresses.items() if network in both}

    def no_way(self, source: str) -> set[str]:
        """The verdicts that say that there is no way for a place."""
        if source in (MACHINE, self.gateway):
            return ELSEWHERE
        return NO_ANSWER if self.has_debug_port(self.containers[source]) else NO_WAY

    def drawn(self, attempt: Attempt) -> set[str]:
        """The verdicts that an attempt at a container may have."""
        target = self.containers[attempt.target]
        if attempt.address not in self.shared(attempt.source, target):
            return self.no_way(attempt.source)
        if attempt.kind == "icmp":
            return {"answered"}
        if self.listens(target.name, attempt.kind, attempt.address, attempt.port):
            return {"answered"}
        # The kernel rations how often it says that nobody listens on UDP.
        return {"refused"} if attempt.kind == "tcp" else {"refused", "silent"}

    def compare(self, drawn: Mapping[Attempt, set[str]]) -> None:
        """Fail with all attempts whose verdict is none of those they may have."""
        assert drawn, "nothing was tried"
        wrong = {each: may for each, may in drawn.items() if each.verdict not in may}
        if not wrong:
            return
        shown = [
            f"{each.source} -> {each.target} {each.kind} {each.address}:{each.port}"
            f" {each.verdict}, not {' or '.join(sorted(may))}"
            for each, may in list(wrong.items())[:SHOWN]
        ]
        if len(wrong) > SHOWN:
            shown.append(f"and {len(wrong) - SHOWN} more")
        # Who should have answered may say why it did not.
        lost = {each.target for each, may in wrong.items() if may == {"answered"}}
        logs = [self.stack.logs(name) for name in sorted(lost)[:2]]
        text = "\n".join([f"{len(wrong)} of {len(drawn)} not as drawn:", *shown, *logs])
        pytest.fail(text, pytrace=False)


@pytest.fixture(scope="module")
def networks(stack: Stack) -> dict[str, dict[str, Any]]:
    """The project's networks, by their short names."""
    return stack.networks()


@pytest.fixture(scope="module")
def matrix(stack: Stack, containers: list[Container]) -> Matrix:
    """Everything tried from everywhere, once a file."""
    return Matrix(stack, containers)


def _debug_networks(stack: Stack, service: str) -> set[str]:
    """The network that a debug port needs in dev: an internal one cannot publish."""
    if stack.env != "dev" or service not in DEBUGGED:
        return set()
    return {f"{stack.project}_{DEBUG_NETWORK}-{service}"}


def _neighbours(service: str) -> set[str]:
    return {other for other in SERVICES if other != service and NETWORKS[service] & NETWORKS[other]}


# As drawn


@pytest.mark.parametrize("service", ALL_SERVICES)
def test_service_is_on_its_networks_alone(
    stack: Stack, containers: list[Container], service: str
) -> None:
    """Each of its containers is attached to exactly the networks that are drawn."""
    found = {each.name: set(each.addresses) for each in containers if each.service == service}
    assert found, f"{service} has no container"
    drawn = stack.drawn_networks(service) | _debug_networks(stack, service)
    assert found == dict.fromkeys(found, drawn)


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
    stack: Stack, containers: list[Container], networks: dict[str, dict[str, Any]]
) -> None:
    """No foreign container was connected; on ingress there is the gateway alone."""
    names = {each.id: each.name for each in containers}
    for network, about in networks.items():
        there = {names.get(each, f"foreign {who}") for each, who in stack.attached(about).items()}
        drawn = {
            each.name
            for each in containers
            if network in NETWORKS[each.service]
            or about["Name"] in _debug_networks(stack, each.service)
        }
        assert there == drawn, f"on {network}: {there - drawn}; not there: {drawn - there}"


@pytest.mark.promise(5, 6)
def test_addresses_are_what_the_engine_gave(matrix: Matrix) -> None:
    """An IPv4 address a network, and no IPv6 at all: so there is no other way to be tried."""
    found = {name: set(matrix.addresses[name]) for name in matrix.containers}
    six = {name for name, addresses in found.items() if ":" in "".join(addresses)}
    assert not six, f"these have IPv6, which nothing here keeps apart: {six}"
    assert found == {name: set(each.addresses.values()) for name, each in matrix.containers.items()}


# By trying


@pytest.mark.parametrize("service", ALL_SERVICES)
def test_service_reaches_its_neighbours_and_nothing_else(matrix: Matrix, service: str) -> None:
    """Every address of every other container: what listens, what does not, ping, TCP and UDP."""
    near = _neighbours(service)
    for source in matrix.of(service):
        tried = matrix.between(source.name, matrix.containers)
        drawn = {each: matrix.drawn(each) for each in tried}
        can = [each for each, may in drawn.items() if may == {"answered"}]
        met = {(matrix.containers[each.target].service, each.kind) for each in can}
        wanted = {(name, kind) for name in near for kind in ("tcp", "udp", "icmp")}
        assert wanted <= met, f"{source.name} was not tried towards {wanted - met}"
        servers = {(each.target, each.port) for each in can}
        lacking = {(each.name, PORTS[name]) for name in near for each in matrix.of(name)} - servers
        assert not lacking, f"nothing listens where {service}'s neighbours should: {lacking}"
        assert len(can) < len(drawn), f"{source.name} has nobody to keep away from"
        matrix.compare(drawn)


@pytest.mark.parametrize("service", ALL_SERVICES)
def test_service_knows_the_names_of_its_neighbours_alone(matrix: Matrix, service: str) -> None:
    """Service, container and id lead where the drawing has a way, and no other name anywhere."""
    containers = matrix.containers.values()
    everybody = {address for each in containers for address in matrix.addresses[each.name]}

    def near(source: Container, other: Container) -> set[str]:
        # Two of a kind have every network in common, and any of them may come first.
        of_a_kind = source.service == other.service
        return set(other.addresses.values()) if of_a_kind else matrix.shared(source.name, other)

    for source in matrix.of(service):
        right: dict[str, set[str]] = {}
        for other in containers:
            right[other.name] = right[other.hostname] = near(source, other)
            right[other.service] = right.get(other.service, set()) | near(source, other)
        for name, addresses in right.items():
            told = (matrix.told(source, name) or set()) & everybody
            drawn = f"drawn: {sorted(addresses)}"
            assert told <= addresses, f"{source.name} is told {told} for {name}, {drawn}"
            assert bool(told) == bool(addresses), (
                f"{source.name} is told {told} for {name}, {drawn}"
            )


@pytest.mark.parametrize("service", BY_SERVICE)
def test_service_has_no_way_out(stack: Stack, matrix: Matrix, service: str) -> None:
    """No TCP, UDP or ping to the world, and nobody who asks the world for a name."""
    resolvers = re.findall(r"(?m)^nameserver\s+(\S+)", stack.machine.read("/etc/resolv.conf"))
    own_resolver = any(
        each.startswith("127.") or each in matrix.addresses[MACHINE] for each in resolvers
    )
    for source in matrix.of(service):
        tried = matrix.out_of(source.name)
        assert {each.kind for each in tried} == {"tcp", "icmp", "dns"}
        matrix.compare(dict.fromkeys(tried, matrix.no_way(source.name)))
        # A resolver on the machine is one of the machine's own ports, which dev leaves open.
        if not (own_resolver and matrix.has_debug_port(source)):
            told = matrix.told(source, OUTSIDE_NAME)
            assert told is None, f"{source.name} had {OUTSIDE_NAME} asked for outside: {told}"


@pytest.mark.parametrize("service", BY_SERVICE)
def test_service_reaches_the_machine_only_from_a_debug_network(
    matrix: Matrix, service: str
) -> None:
    """By none of the machine's addresses. In dev, a debug port needs a bridge to it, which does."""
    heard = {
        place: {
            (each.kind, each.address)
            for each in matrix.between(place, [MACHINE])
            if matrix.is_probe(each) and each.verdict in REACHED
        }
        for place in (MACHINE, matrix.gateway)
    }
    assert {kind for kind, _ in heard[MACHINE]} == {"tcp", "udp", "icmp"}, "nobody listened"
    for source in matrix.of(service):
        tried = matrix.between(source.name, [MACHINE])
        if not matrix.has_debug_port(source):
            matrix.compare(dict.fromkeys(tried, NO_WAY))
            continue
        # As the gateway does, since it is the same machine that lets them in; but no further.
        near = heard[matrix.gateway]
        drawn = {
            each: REACHED if (each.kind, each.address) in near else NO_ANSWER | {"refused"}
            for each in tried
            if matrix.is_probe(each)
        }
        matrix.compare(drawn | {each: ELSEWHERE for each in tried if each.target != MACHINE})


@pytest.mark.promise(6)
def test_machine_reaches_what_is_published_alone(matrix: Matrix) -> None:
    """Its own programs and users are on no internal network either."""
    drawn = {each: matrix.drawn(each) for each in matrix.between(MACHINE, matrix.containers)}
    assert matrix.gateway in {each.target for each, may in drawn.items() if may == {"answered"}}
    matrix.compare(drawn)


@pytest.mark.promise(5, 6)
def test_debug_ports_are_on_no_address_of_the_machine(stack: Stack, matrix: Matrix) -> None:
    """None leads to api, database or cache, but in dev on 127.0.0.1."""
    ports = {port: name for port, name, _ in matrix.debug_ports()}
    addresses = [each for each in matrix.addresses[MACHINE] if ":" not in each]
    kept = addresses if stack.env == "dev" else [*addresses, LOOPBACK]
    tried = [
        each
        for each in matrix.attempts
        if each.source in (MACHINE, matrix.gateway) and each.port in ports and each.address in kept
    ]
    lacking = {(port, address) for port in ports for address in kept} - {
        (each.port, each.address) for each in tried if each.source == MACHINE
    }
    assert not lacking, f"not tried: {lacking}"
    matrix.compare(dict.fromkeys(tried, ELSEWHERE))
    if stack.env == "dev":
        # In the server's own language, whoever carries the words there.
        questions = [
            (matrix.containers[name].service, address, port)
            for port, name in ports.items()
            for address in [LOOPBACK, *addresses]
        ]
        answers = stack.machine.program("talk", questions)
        answered = {each for each, answer in zip(questions, answers, strict=True) if answer}
        assert answered == {each for each in questions if each[1] == LOOPBACK}


def _ping(stack: Stack, service: str, where: str) -> Result:
    return stack.typed_in(service, "ping", "-c", "1", "-W", "2", where)


@pytest.mark.promise(5)
@pytest.mark.parametrize("target", ["database", "cache"])
def test_ping_from_frontend_fails_as_people_type_it(
    stack: Stack, matrix: Matrix, target: str
) -> None:
    """Inside the container and with its own tool, by name and by address; to the api it works."""
    for where, reason in [
        (target, NAME_UNKNOWN),
        *((address, NO_ROUTE) for address in matrix.of(target)[0].addresses.values()),
    ]:
        result = _ping(stack, "frontend", where)
        assert result.code != 0, f"the frontend reaches {target}: {result}"
        assert re.search(reason, result.text), f"failed otherwise: {result}"
    result = _ping(stack, "frontend", "api")
    assert result.code == 0, f"{result}\n{stack.logs('api')}"


@pytest.mark.promise(6)
@pytest.mark.parametrize("target", ["database", "cache"])
def test_ping_from_api_works_as_people_type_it(stack: Stack, target: str) -> None:
    """What the frontend cannot ping is there, and answers who may."""
    result = _ping(stack, "api", target)
    assert result.code == 0, f"{result}\n{stack.logs(target)}"


@pytest.mark.promise(5, 6)
def test_only_the_gateway_has_a_default_route(
    stack: Stack, matrix: Matrix, containers: list[Container]
) -> None:
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
        each.name for each in containers if each.service == "gateway" or matrix.has_debug_port(each)
    }
    assert leads == allowed, f"default routes in {sorted(leads)}, expected in {sorted(allowed)}"
    assert all(facts[each.name]["routes"] for each in containers), "a container has no network"
