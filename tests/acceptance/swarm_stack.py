"""The running stack on a Docker Swarm of one node: what is otherwise there than with Compose."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from tests.sources import load

from .machine import Result, wait_until
from .settings import ROOT, SERVICES
from .stack import Container, Stack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from testinfra.host import Host

    from .settings import Settings

# The bridge by which a container on an overlay network meets its machine.
BRIDGE = "docker_gwbridge"
FILTER = ROOT / "roles/stack_deploy/filter_plugins/stack_file.py"
# As the role lists what becomes a secret or config.
LISTING = r"""
find config/api config/database config/gateway secrets -maxdepth 1 -type f -not -name '.*' \
  -printf '%p %m %TY%Tm%Td%TH%TM%TS\n'
"""
# The rules of a container's own network, which nothing else has any in: what comes and what goes by
# the interfaces of these addresses is dropped.
CUT = r"""
in="nsenter --net --target $1"; shift
for address; do
  name=$($in ip -o -4 address | awk -v a="$address/" 'index($4, a) == 1 {print $2}')
  $in iptables -A INPUT -i "$name" -j DROP && $in iptables -A OUTPUT -o "$name" -j DROP || exit
done
"""
JOIN = 'nsenter -n -t "$1" iptables -F INPUT && nsenter -n -t "$1" iptables -F OUTPUT'


class SwarmStack(Stack):
    """One stack on one lab machine, as a swarm of that machine alone runs it."""

    overrides = r":docker-compose\.swarm\.yml"
    replaces = True

    def __init__(self, host: Host, settings: Settings) -> None:
        """Read what is active; fails where no stack is, and where there are other nodes."""
        super().__init__(host, settings)
        self._bridged: dict[str, str] = {}
        nodes = self.machine.run("docker", "node", "ls", "--quiet").lines()
        if len(nodes) > 1:
            pytest.fail(
                f"This swarm has {len(nodes)} nodes, and these checks look at one: they are "
                "for a swarm of one. How this one fares: make status ORCHESTRATOR=swarm.",
                pytrace=False,
            )

    def _named(self, service: str) -> str:
        return f"{self.project}_{service}"

    def _spec(self, service: str) -> dict[str, Any]:
        shown = self.machine.run("docker", "service", "inspect", self._named(service)).out
        return json.loads(shown)[0]["Spec"]

    @staticmethod
    def _container(spec: dict[str, Any]) -> dict[str, Any]:
        return spec["TaskTemplate"]["ContainerSpec"]

    # What there is

    @property
    def label(self) -> str:
        """The label that all containers and networks of the stack have."""
        return f"com.docker.stack.namespace={self.project}"

    def _listing(self, service: str) -> list[str]:
        """Those that run: of those before them Swarm keeps some, which are nobody's concern."""
        labels = [self.label]
        labels += [f"com.docker.swarm.service.name={self._named(service)}"] * bool(service)
        return [f"--filter=label={label}" for label in labels]

    def containers(self, service: str = "") -> list[Container]:
        """All containers of the stack or of one service, the gateway with its way out."""
        found = super().containers(service)
        gateways = [each for each in found if each.service == "gateway"]
        if any(each.id not in self._bridged for each in gateways):
            ask = ("docker", "network", "inspect", "-f", "{{json .Containers}}", BRIDGE)
            there = json.loads(self.machine.run(*ask).out)
            self._bridged = {name: about["IPv4Address"] for name, about in there.items()}
        for each in gateways:
            address = self._bridged.get(each.id, "").partition("/")[0]
            each.data["NetworkSettings"]["Networks"][BRIDGE] = {"IPAddress": address}
        return found

    def overview(self) -> Result:
        """What people type to see what there is."""
        return self.machine.try_run("docker", "stack", "ps", "--no-trunc", self.project)

    def _replicas(self) -> dict[str, tuple[int, int]]:
        """How many tasks of each service run, and how many are to."""
        shown = self.machine.run(
            *("docker", "service", "ls", "--filter", f"label={self.label}"),
            *("--format", "{{.Name}} {{.Replicas}}"),
        )
        found = {}
        for line in shown.lines():
            name, counts = line.split()[:2]
            now, _, wanted = counts.partition("/")
            found[name.removeprefix(f"{self.project}_")] = int(now), int(wanted)
        return found

    def listed(self) -> dict[str, dict[str, tuple[str, str]]]:
        """What runs, by service each container's state and health."""
        found: dict[str, dict[str, tuple[str, str]]] = {name: {} for name in self._replicas()}
        for each in self.containers():
            found.setdefault(each.service, {})[each.name] = each.state["Status"], each.health
        return found

    def attached(self, network: Mapping[str, Any]) -> dict[str, Any]:
        """Who is on a network, by id; a network's own end on the node is nobody."""
        found = network["Containers"]
        return {name: about for name, about in found.items() if not name.startswith("lb-")}

    def drawn_binds(self, service: str) -> set[str]:
        """None: what Compose mounts from the machine are secrets and configs here."""
        del service
        return set()

    def secrets(self, container: Container) -> set[str]:
        """The names of the secrets that its service was given, for its own user alone."""
        given = [
            each["File"]
            for each in self._container(self._spec(container.service)).get("Secrets", [])
        ]
        uid = str(self.settings.uids[container.service])
        assert all((each["UID"], each["Mode"]) == (uid, 0o400) for each in given), given
        return {each["Name"].removeprefix("/run/secrets/") for each in given}

    def no_new_privileges(self, container: Container) -> bool:
        """A service cannot ask for it, so the engine gives it to all."""
        del container
        options = self.machine.run("docker", "info", "--format", "{{json .SecurityOptions}}").out
        return "name=no-new-privileges" in json.loads(options)

    def stop_seconds(self, service: str) -> float:
        """How long a service's containers have to end by themselves."""
        return self._container(self._spec(service)).get("StopGracePeriod", 10e9) / 1e9

    def restart_policies(self, service: str) -> dict[str, dict[str, Any]]:
        """The service's own: a container's is none."""
        return {service: self._spec(service)["TaskTemplate"]["RestartPolicy"]}

    def promised_restart(self, service: str) -> dict[str, Any]:
        """Whatever it ended with, and any number of times."""
        del service
        return {"Condition": "any", "Delay": 1_000_000_000, "MaxAttempts": 0}

    def stale(self) -> list[str]:
        """The services that are told something else than the files say now."""
        listing = self.machine.run("sh", "-c", LISTING, folder=self.directory).lines()
        text = load(FILTER).stack_file(self.compose_config(), self.directory, listing)
        return [name for name in SERVICES if not self._is_as(text, name)]

    def _is_as(self, text: dict[str, Any], name: str) -> bool:
        service, spec = text["services"][name], self._spec(name)
        told, limits = self._container(spec), spec["TaskTemplate"]["Resources"]["Limits"]
        wanted = service["deploy"]["resources"]["limits"]
        environment = service.get("environment") or {}
        # A secret or config has its version in its name, so another content is another one.
        versions = [
            text[kind][each["source"]]["name"]
            for kind in ("secrets", "configs")
            for each in service.get(kind) or []
        ]
        given = [
            each[f"{kind}Name"]
            for kind in ("Secret", "Config")
            for each in told.get(f"{kind}s", [])
        ]
        return (
            told["Image"] == service["image"]
            and told.get("Args", []) == (service.get("command") or [])
            and sorted(told.get("Env", [])) == sorted(f"{k}={v}" for k, v in environment.items())
            and sorted(given) == sorted(versions)
            and limits["MemoryBytes"] == int(wanted["memory"])
            and limits["NanoCPUs"] == float(wanted["cpus"]) * 1e9
        )

    def drawn_networks(self, service: str) -> set[str]:
        """The networks that the drawing has for the service, and the gateway's way out."""
        return super().drawn_networks(service) | {BRIDGE for _ in [0] if service == "gateway"}

    @property
    def outer_network(self) -> str:
        """The network on which the machine itself reaches what is published."""
        return BRIDGE

    def problems(self) -> list[str]:
        """What keeps the stack from being healthy, each in a line; nothing when it is."""
        return super().problems() + [
            f"{name} has {now} of {wanted}"
            for name, (now, wanted) in self._replicas().items()
            if now != wanted
        ]

    def logs(self, name: str, lines: int = 15) -> str:
        """The last log lines of a service or of one container."""
        if name not in SERVICES:
            return super().logs(name, lines)
        asked = ("docker", "service", "logs", "--tail", str(lines), self._named(name))
        return f"log of {name}:\n{self.machine.try_run(*asked).text}"

    def log_since(self, container: Container, since: str) -> str:
        """What a container, and what came in its place, has logged since a moment."""
        script = 'for id in $(docker ps -aq --filter "$1"); do docker logs --since "$2" "$id"; done'
        service = f"label=com.docker.swarm.service.name={self._named(container.service)}"
        return self.machine.run("sh", "-c", script, "sh", service, since).text

    # What people do

    def typed_in(self, service: str, *command: str) -> Result:
        """Run a command in a container of a service."""
        return self.try_exec(self.one(service), *command)

    def _scale(self, counts: Mapping[str, int]) -> list[str]:
        # Of the gateway each node has one.
        return [f"{self._named(name)}={n}" for name, n in counts.items() if name != "gateway"]

    def stop(self, service: str) -> None:
        """Stop a service of one container."""
        self.machine.run("docker", "service", "scale", "--detach", *self._scale({service: 0}))
        what = f"{service} has ended"
        wait_until(lambda: not self.containers(service), 90, what, lambda: str(self.overview()))

    def start(self, service: str) -> None:
        """Start it again."""
        self.machine.run("docker", "service", "scale", "--detach", *self._scale({service: 1}))

    def restart(self, service: str) -> None:
        """Have another container in the place of the service's."""
        command = ("docker", "service", "update", "--force", "--quiet", self._named(service))
        self.machine.run(*command, seconds=120)

    def renew(self) -> None:
        """Have all containers made anew, each service at its own pace."""
        before = {each.id for each in self.containers()}
        for service in SERVICES:
            command = ("docker", "service", "update", "--force", "--detach", self._named(service))
            self.machine.run(*command)

        def renewed() -> bool:
            return before.isdisjoint(each.id for each in self.containers())

        wait_until(renewed, 180, "all containers are new", lambda: str(self.overview()), pause=1)

    def scale_command(self, counts: Mapping[str, int]) -> list[str]:
        """What is typed for another number of frontends and apis; it ends when they are there."""
        wanted = {name: counts[name] for name in ("frontend", "api")}
        return ["docker", "service", "scale", *self._scale(wanted)]

    def ask_for_two_databases(self, way: str) -> Result:
        """Try to have a second one, by scale or update; the answer says why there is none."""
        name = self._named("database")
        if way == "scale":
            self.machine.run("docker", "service", "scale", "--detach", f"{name}=2")
        else:
            self.machine.run("docker", "service", "update", "--detach", "--replicas=2", name)
        asked = ("docker", "service", "ps", "--no-trunc", "--format", "{{.Name}}: {{.Error}}", name)

        def refused() -> bool:
            return "no suitable node" in self.machine.run(*asked).out

        wait_until(refused, 20, "a second database is refused", lambda: str(self.overview()))
        # As Compose does: not an error, and said.
        return Result(f"a second by {way}", 1, "", self.machine.run(*asked).out)

    def take_back(self, databases: Sequence[Container]) -> None:
        """Have one database, whatever was asked for."""
        del databases
        # Of the two Swarm may end the one that runs, and start the other instead: wait for that.
        name = self._named("database")
        self.machine.run("docker", "service", "scale", f"{name}=1", seconds=120)

    def single_by(self) -> str:
        """What keeps it the only one; nothing where that is missing."""
        placement = self._spec("database")["TaskTemplate"]["Placement"]
        wanted = f"node.labels.{self.project}.database == true"
        (node,) = json.loads(self.machine.run("docker", "node", "inspect", "self").out)
        labelled = node["Spec"]["Labels"].get(f"{self.project}.database") == "true"
        single = placement.get("MaxReplicas") == 1 and placement["Constraints"] == [wanted]
        return wanted if single and labelled else ""

    # Breaking things

    def successor(self, container: Container) -> Container:
        """What runs in a container's place, or that one as it is now."""
        there = [each for each in self.containers(container.service)
                 if each.place == container.place]  # fmt: skip
        return there[-1] if there else self.refreshed(container)

    def restarts(self, container: Container) -> int:
        """How many there were in its place since it was looked at."""
        mine = ("--filter", f"name={container.place}[.]", "--format", "{{.Names}}")
        # The newest first.
        names = self.machine.run("docker", "ps", "--all", *mine).lines()
        return names.index(container.name) if container.name in names else len(names)

    def until_back(self, container: Container) -> str:
        """A shell's line that waits until another one runs in its place."""
        ask = f"docker ps -q --no-trunc --filter name={container.place}[.]"
        return f"until {ask} | grep -qv {container.id}; do :; done"

    def start_again(self, container: Container) -> None:
        """Nothing is to be done: another one comes by itself."""

    def cutting_off(self, containers: Sequence[Container]) -> str:
        """A shell's lines that take containers off all their networks."""
        return " && ".join(
            shlex.join(["sh", "-c", CUT, "sh", str(each.pid), *each.addresses.values()])
            for each in containers
        )

    def cut_off(self, container: Container, *networks: str) -> None:
        """Have nothing come or go on these networks, given by their short names, or on all."""
        named = {f"{self.project}_{name}" for name in networks}
        if "ingress" in networks:
            named.add(BRIDGE)
        found = container.addresses
        addresses = [found[name] for name in found if not networks or name in named]
        self.machine.run("sh", "-c", CUT, "sh", str(container.pid), *addresses)

    def rejoin(self, container: Container) -> None:
        """Let everything come and go again."""
        if self.refreshed(container).pid == container.pid:
            self.machine.run("sh", "-c", JOIN, "sh", str(container.pid))

    def bring_back(self, counts: Mapping[str, int]) -> None:
        """Have as many containers run as there were."""
        wanted = {name: count or 1 for name, count in counts.items()}
        self.machine.run("docker", "service", "scale", "--detach", *self._scale(wanted))
