"""The running stack, as the checks see it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from .machine import Machine, Result, wait_until
from .settings import DEBUG_NETWORK, NETWORKS, RESTART, SERVERS, SERVICES, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from testinfra.host import Host

HEALTHY_SECONDS = 90
# What Swarm adds to a container's name, so that the next in its place has another.
TASK = re.compile(r"[.][a-z0-9]{25}$")


@dataclass(frozen=True)
class Container:
    """A container of the stack, as `docker inspect` saw it."""

    data: dict[str, Any] = field(repr=False)

    @property
    def id(self) -> str:
        """The long id."""
        return self.data["Id"]

    @property
    def name(self) -> str:
        """The name that people type."""
        return self.data["Name"].lstrip("/")

    @property
    def service(self) -> str:
        """The service, as people call it."""
        labels = self.data["Config"]["Labels"]
        if "com.docker.compose.service" in labels:
            return labels["com.docker.compose.service"]
        stack = labels["com.docker.stack.namespace"]
        return labels["com.docker.swarm.service.name"].removeprefix(f"{stack}_")

    @property
    def place(self) -> str:
        """The name that it shares with what comes in its place."""
        return place(self.name)

    @property
    def hostname(self) -> str:
        """What the container calls itself: its replica's name in answers."""
        return self.data["Config"]["Hostname"]

    @property
    def host_config(self) -> dict[str, Any]:
        """What it is held to."""
        return self.data["HostConfig"]

    @property
    def state(self) -> dict[str, Any]:
        """How it fares."""
        return self.data["State"]

    @property
    def health(self) -> str:
        """starting, healthy, unhealthy; none without a health check."""
        return self.state.get("Health", {}).get("Status", "none")

    @property
    def pid(self) -> int:
        """The main process, in the machine's own numbers."""
        return self.state["Pid"]

    @property
    def life(self) -> tuple[str, str, int]:
        """Changes exactly when the container is replaced or restarted."""
        return self.id, self.state["StartedAt"], self.data["RestartCount"]

    @property
    def command(self) -> list[str]:
        """What the image's entry point was given."""
        return self.data["Config"]["Cmd"] or []

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables."""
        return dict(entry.split("=", 1) for entry in self.data["Config"]["Env"])

    @property
    def mounts(self) -> dict[str, dict[str, Any]]:
        """Mounts by their place in the container; the tmpfs are in the host config."""
        return {mount["Destination"]: mount for mount in self.data["Mounts"]}

    @property
    def tmpfs(self) -> list[str]:
        """The places of its tmpfs, whichever way the engine was told."""
        mounts = self.host_config.get("Mounts") or []
        return [
            *(self.host_config.get("Tmpfs") or {}),
            *(mount["Target"] for mount in mounts if mount["Type"] == "tmpfs"),
        ]

    @property
    def published(self) -> set[tuple[str, int, int]]:
        """Address and port on the machine, and port in the container."""
        return {
            (binding["HostIp"], int(binding["HostPort"]), int(port.partition("/")[0]))
            for port, bindings in self.data["NetworkSettings"]["Ports"].items()
            for binding in bindings or []
        }

    @property
    def addresses(self) -> dict[str, str]:
        """IPv4 address by the network's full name."""
        networks = self.data["NetworkSettings"]["Networks"]
        return {name: about["IPAddress"] for name, about in networks.items()}


def place(name: str) -> str:
    """A container's name without what tells it from those before it in its place."""
    return TASK.sub("", name)


@dataclass(frozen=True)
class Response:
    """An HTTP answer; status 0 and an error where there was none."""

    url: str
    status: int
    headers: dict[str, str]
    body: str
    error: str
    certificate: str

    def json(self) -> Any:  # noqa: ANN401
        """The body's content."""
        try:
            return json.loads(self.body)
        except ValueError:
            pytest.fail(f"not JSON: {self}", pytrace=False)

    def __str__(self) -> str:
        """For messages."""
        return f"{self.url} -> {self.status or self.error} {self.headers}\n{self.body[:600]}"


def _containers(inspected: str) -> list[Container]:
    found = [Container(data) for data in json.loads(inspected or "[]")]
    return sorted(found, key=lambda container: container.name)


class Stack:
    """One stack on one lab machine, as Compose runs it; SwarmStack is one that Swarm runs."""

    overrides = ""
    # Whether a container is replaced for being unhealthy, and so is not, for those that it needs.
    replaces = False

    def __init__(self, host: Host, settings: Settings) -> None:
        """Read which environment is active; fails where no stack is."""
        self.machine = Machine(host)
        self.settings = settings
        self.directory = settings.directory
        self.project = settings.project
        found = self.machine.try_run("cat", f"{self.directory}/.env")
        files = re.search(r"^COMPOSE_FILE=(.*)$", found.out, re.MULTILINE)
        self.files = (files[1] if files else "").split(":")
        match = re.fullmatch(
            rf"docker-compose\.yml:docker-compose\.(dev|prod)\.yml{self.overrides}",
            ":".join(self.files),
        )
        if not match:
            swarms = self.files[-1] == "docker-compose.swarm.yml"
            pytest.fail(
                f"{self.directory}/.env does not name the files of dev or prod:\n{found}\n"
                + (
                    "Docker Swarm runs this one: make verify ORCHESTRATOR=swarm."
                    if swarms
                    else "Deploy first: make up. A directory of your own: --set stack_dir=PATH."
                ),
                pytrace=False,
            )
        self.env = match[1]

    # Commands

    def try_compose(self, *arguments: str, seconds: float = 120) -> Result:
        """Run `docker compose` as people do, in the stack's directory."""
        return self.machine.try_run(
            "docker", "compose", *arguments, folder=self.directory, seconds=seconds
        )

    def compose(self, *arguments: str, seconds: float = 120) -> Result:
        """Run `docker compose`; it has to succeed."""
        result = self.try_compose(*arguments, seconds=seconds)
        assert result.code == 0, str(result)
        return result

    def compose_config(self, env: str = "", *files: str) -> dict[str, Any]:
        """What Compose makes of the rendered files: the active ones, an environment's, or these."""
        named = ["docker-compose.yml", f"docker-compose.{env}.yml"] if env else files
        options = [word for file in named for word in ("-f", file)]
        return json.loads(self.compose(*options, "config", "--format", "json").out)

    def try_exec(self, container: Container, *command: str) -> Result:
        """Run a command in a container, as the service's own user."""
        return self.machine.try_run("docker", "exec", container.id, *command)

    def exec(self, container: Container, *command: str) -> Result:
        """Run a command in a container; it has to succeed."""
        return self.machine.run("docker", "exec", container.id, *command)

    def sql(self, statement: str) -> list[list[str]]:
        """Rows of a statement, asked as the superuser on the server's own socket."""
        psql = ["psql", "-X", "-At", "-U", "postgres", "-d", "stackyard", "-c", statement]
        rows = self.exec(self.one("database"), *psql).lines()
        return [row.split("|") for row in rows]

    # What there is

    @property
    def label(self) -> str:
        """The label that all containers and networks of the stack have."""
        return f"com.docker.compose.project={self.project}"

    def _listing(self, service: str) -> list[str]:
        """What `docker ps` has to be told for the containers of the stack, or of one service."""
        labels = [self.label, "com.docker.compose.oneoff=False"]
        labels += [f"com.docker.compose.service={service}"] * bool(service)
        return ["--all", *(f"--filter=label={label}" for label in labels)]

    def containers(self, service: str = "") -> list[Container]:
        """All containers of the stack or of one service, ordered by name; one look for all."""
        script = 'ids=$(docker ps -q --no-trunc "$@") && [ -z "$ids" ] || docker inspect $ids'
        result = self.machine.run(
            *("sh", "-c", script, "sh", *self._listing(service)),
            shown=f"docker inspect, of all of {service or self.project}; in short",
            short=lambda out: "\n".join(
                f"{each.name} {each.state['Status']} {each.health}" for each in _containers(out)
            ),
        )
        return _containers(result.out)

    def of(self, service: str) -> list[Container]:
        """The containers of a service; at least one, so that no loop over them is empty."""
        found = self.containers(service)
        assert found, f"{service} has no container:\n{self.overview()}"
        return found

    def overview(self) -> Result:
        """What people type to see what there is."""
        return self.try_compose("ps", "-a")

    def listed(self) -> dict[str, dict[str, tuple[str, str]]]:
        """What that lists: by service each container's state and health."""
        output = self.compose("ps", "-a", "--format", "json").out.strip()
        # A list in older releases, a line each in newer ones.
        entries = (
            json.loads(output)
            if output.startswith("[")
            else [json.loads(line) for line in output.splitlines()]
        )
        found: dict[str, dict[str, tuple[str, str]]] = {}
        for entry in entries:
            about = entry["State"], entry["Health"]
            found.setdefault(entry["Service"], {})[entry["Name"]] = about
        return found

    def networks(self) -> dict[str, dict[str, Any]]:
        """The project's networks, by their short names."""
        mine = ("--filter", f"label={self.label}", "--format", "{{.Name}}")
        names = self.machine.run("docker", "network", "ls", *mine).lines()
        found = json.loads(self.machine.run("docker", "network", "inspect", *names).out)
        return {each["Name"].removeprefix(f"{self.project}_"): each for each in found}

    def attached(self, network: Mapping[str, Any]) -> dict[str, Any]:
        """Who is on a network, by id."""
        return network["Containers"]

    def drawn_binds(self, service: str) -> set[str]:
        """What of the machine is mounted into a service's containers, but for backups."""
        configured = {"api", "database", "gateway"} & {service}
        files = [each.name for each in self.settings.secret_files() if each.service == service]
        return {f"{self.directory}/config/{name}" for name in configured} | {
            f"{self.directory}/secrets/{name}" for name in files
        }

    def secrets(self, container: Container) -> set[str]:
        """The names of the secrets that a container was given, none of them to be written."""
        folder = f"{self.directory}/secrets/"
        found = {
            mount["Source"].removeprefix(folder): mount["RW"]
            for mount in container.mounts.values()
            if mount["Source"].startswith(folder)
        }
        assert not any(found.values()), f"{container.name}: {container.mounts}"
        return set(found)

    def no_new_privileges(self, container: Container) -> bool:
        """Whether the engine was told that no process may gain any."""
        options = container.host_config["SecurityOpt"]
        return options in (["no-new-privileges:true"], ["no-new-privileges"])

    def stop_seconds(self, service: str) -> float:
        """How long a service's containers have to end by themselves."""
        return self.one(service).data["Config"].get("StopTimeout") or 10

    def restart_policies(self, service: str) -> dict[str, dict[str, Any]]:
        """What restarts the containers of a service, by name."""
        return {each.name: each.host_config["RestartPolicy"] for each in self.of(service)}

    def promised_restart(self, service: str) -> dict[str, Any]:
        """The policy that each of them has to have."""
        return {"Name": RESTART[service], "MaximumRetryCount": 0}

    def stale(self) -> list[str]:
        """The containers that were made from something else than the files say now."""
        hashes = dict(line.split() for line in self.compose("config", "--hash", "*").lines())
        label = "com.docker.compose.config-hash"
        return [
            each.name
            for each in self.containers()
            if each.data["Config"]["Labels"][label] != hashes[each.service]
        ]

    def one(self, service: str) -> Container:
        """The first container of a service."""
        return self.of(service)[0]

    def refreshed(self, container: Container) -> Container:
        """The same container, as it is now."""
        inspected = self.machine.run("docker", "inspect", container.id).out
        return Container(json.loads(inspected)[0])

    def kernel(self, containers: Sequence[Container]) -> dict[str, dict[str, Any]]:
        """What the kernel knows about each container, by its name."""
        return self.machine.program("kernel", {each.name: each.pid for each in containers})

    def servers(self, container: Container) -> list[int]:
        """Process numbers of the server's own processes, eldest first."""
        processes = self.kernel([container])[container.name]["processes"]
        pids = [each["pid"] for each in processes if each["comm"] == SERVERS[container.service]]
        assert pids, f"{container.name} runs no {SERVERS[container.service]}: {processes}"
        return pids

    def is_debug(self, network: str) -> bool:
        """Whether a network, by its full name, is one that dev's debug ports need."""
        return network.startswith(f"{self.project}_{DEBUG_NETWORK}")

    def drawn_networks(self, service: str) -> set[str]:
        """The networks that the drawing has for the service, by their full names."""
        return {f"{self.project}_{name}" for name in NETWORKS[service]}

    @property
    def outer_network(self) -> str:
        """The network on which the machine itself reaches what is published."""
        return f"{self.project}_ingress"

    # Asking over HTTP, on the machine

    def url(self, path: str, scheme: str = "http") -> str:
        """An address that the gateway answers at on its own machine."""
        address = self.settings.value("stack_compose_bind_address")
        if address == "0.0.0.0":  # noqa: S104
            address = "127.0.0.1"
        return f"{scheme}://{address}:{self.settings.number(f'stack_compose_{scheme}_port')}{path}"

    def ask(self, requests: Sequence[Mapping[str, Any]]) -> list[Response]:
        """Send the requests one after another. Keys: url; method, headers, body, timeout."""
        seconds = sum(request.get("timeout", 5) for request in requests) + 10
        return [Response(**answer) for answer in self.machine.program("http", requests, seconds)]

    def get(self, path: str, scheme: str = "http", timeout: float = 5) -> Response:
        """Ask the gateway for a path."""
        return self.ask([{"url": self.url(path, scheme), "timeout": timeout}])[0]

    def send(self, method: str, path: str, content: object = None) -> Response:
        """Send JSON to the gateway."""
        request = {"url": self.url(path), "method": method}
        if content is not None:
            request |= {
                "headers": {"Content-Type": "application/json"},
                "body": json.dumps(content),
            }
        return self.ask([request])[0]

    def create_item(self, name: str) -> str:
        """Store an item and return its path; who calls deletes it."""
        answer = self.send("POST", "/api/items", {"name": name})
        assert answer.status == 201, f"cannot store an item: {answer}\n{self.logs('api')}"
        return f"/api/items/{answer.json()['id']}"

    # Health

    def problems(self) -> list[str]:
        """What keeps the stack from being healthy, each in a line; nothing when it is."""
        containers = self.containers()
        found = [
            f"{each.name} is {each.state['Status']}, {each.health}"
            for each in containers
            if each.state["Status"] != "running" or each.health != "healthy"
        ]
        there = {each.service for each in containers}
        return found + [
            f"{service} has no container" for service in SERVICES if service not in there
        ]

    def wait_healthy(self, seconds: float = HEALTHY_SECONDS) -> float:
        """Wait until every container is healthy and the page answers; return the seconds."""

        def settled() -> bool:
            return not self.problems() and self.get("/api/health").status == 200

        return wait_until(settled, seconds, "the stack is healthy", self.trouble)

    def trouble(self) -> str:
        """The unhealthy containers with their health checks' last words and log lines."""
        parts = [*self.problems(), str(self.get("/api/health"))]
        for each in self.containers():
            if each.health != "healthy":
                log = each.state.get("Health", {}).get("Log") or []
                parts += [f"health: {entry['Output'].strip()[:300]}" for entry in log[-2:]]
                parts.append(self.logs(each.name))
        return "\n".join(parts)

    def logs(self, name: str, lines: int = 15) -> str:
        """The last log lines of a service or of one container."""
        if name in SERVICES:
            return f"log of {name}:\n{self.try_compose('logs', '--tail', str(lines), name).text}"
        result = self.machine.try_run("docker", "logs", "--tail", str(lines), name)
        return f"log of {name}:\n{result.text}"

    def log_since(self, container: Container, since: str) -> str:
        """What a container, and what came in its place, has logged since a moment."""
        return self.machine.run("docker", "logs", "--since", since, container.id).text

    # What people do

    def typed_in(self, service: str, *command: str) -> Result:
        """Run a command in a container of a service, as people type it."""
        return self.try_compose("exec", "-T", service, *command)

    def stop(self, service: str) -> None:
        """Stop a service of one container."""
        self.compose("stop", service)

    def start(self, service: str) -> None:
        """Start it again."""
        self.compose("start", service)

    def restart(self, service: str) -> None:
        """Restart a service."""
        self.compose("restart", service)

    def renew(self) -> None:
        """Have all containers made anew, after all have gone."""
        counts = self.counts()
        self.compose("down")
        assert self.containers() == []
        self.compose("up", "-d", "--wait", "--wait-timeout", "120", *_scale(counts), seconds=180)

    def scale_command(self, counts: Mapping[str, int]) -> list[str]:
        """What is typed for another number of frontends and apis; it ends when they are there."""
        return ["docker", "compose", "up", "-d", "--no-recreate", "--wait", *_scale(counts)]

    def ask_for_two_databases(self, way: str) -> Result:
        """Try to have a second one, by scale or up."""
        if way == "scale":
            return self.try_compose("scale", "database=2", seconds=60)
        return self.try_compose("up", "-d", "--no-recreate", "--scale", "database=2", seconds=60)

    def take_back(self, databases: Sequence[Container]) -> None:
        """Remove those that were made beside the one."""
        for each in databases:
            self.machine.run("docker", "rm", "-f", each.id)

    def single_by(self) -> str:
        """What keeps it the only one; nothing where that is missing."""
        name = f"{self.project}-database"
        return name if [each.name for each in self.of("database")] == [name] else ""

    # Breaking things

    def successor(self, container: Container) -> Container:
        """What is in a container's place: with Compose it is the same one."""
        return self.refreshed(container)

    def restarts(self, container: Container) -> int:
        """How often it has come back since it was looked at."""
        return self.refreshed(container).data["RestartCount"] - container.data["RestartCount"]

    def until_back(self, container: Container) -> str:
        """A shell's line that waits until it has come back."""
        ask = f"docker inspect --format '{{{{.RestartCount}}}}' {container.id}"
        return f"until [ $({ask}) != {container.data['RestartCount']} ]; do :; done"

    def start_again(self, container: Container) -> None:
        """Have what was stopped back."""
        self.machine.run("docker", "start", container.id)

    def cutting_off(self, containers: Sequence[Container]) -> str:
        """A shell's lines that take containers off all their networks."""
        return ";".join(
            f"docker network disconnect {name} {each.id}"
            for each in containers
            for name in each.addresses
        )

    def cut_off(self, container: Container, *networks: str) -> None:
        """Take the container off these networks, given by their short names, or off all."""
        for name in container.addresses:
            if not networks or name.removeprefix(f"{self.project}_") in networks:
                self.machine.run("docker", "network", "disconnect", name, container.id)

    def rejoin(self, container: Container) -> None:
        """Put the container back on what it was on when it was looked at, by the same names."""
        there = self.refreshed(container).addresses
        for name, about in container.data["NetworkSettings"]["Networks"].items():
            if name not in there:
                aliases = [f"--alias={alias}" for alias in about["Aliases"]]
                self.machine.run("docker", "network", "connect", *aliases, name, container.id)

    def unpause(self, containers: Sequence[Container]) -> None:
        """Unpause those of the containers that are paused."""
        now = [self.refreshed(each) for each in containers]
        self.machine.program("unpause", [each.id for each in now if each.state["Paused"]])

    def strain(
        self, steps: Sequence[Mapping[str, Any]], paths: Sequence[str] = (), rate: float = 20
    ) -> dict[str, Any]:
        """Take steps while clients ask for the paths: see on_machine/strain.py.

        A step is a command and the seconds to watch after it. `rate` is in requests a second.
        """
        request = {
            "urls": [self.url(path) for path in paths],
            "rate": rate,
            "folder": self.directory,
            "label": self.label,
            "containers": {each.name: each.pid for each in self.containers()},
            "steps": steps,
        }
        seconds = 60 + sum(step["watch"] for step in steps)
        return self.machine.program("strain", request, seconds)

    # The watchdog

    @property
    def unit(self) -> str:
        """The systemd unit that boots the stack, without its ending."""
        own = self.project.startswith("stackyard")
        return self.project if own else f"stackyard-{self.project}"

    def hold(self) -> None:
        """Have the watchdog leave the stack alone, for an hour at most."""
        self.machine.run("touch", f"/run/{self.unit}.hold")

    def release(self) -> None:
        """Let the watchdog do its work again."""
        self.machine.run("rm", "-f", f"/run/{self.unit}.hold")

    # As it was found

    def counts(self) -> dict[str, int]:
        """How many containers each service has now."""
        services = [container.service for container in self.containers()]
        return {service: services.count(service) for service in SERVICES}

    def restore(self, counts: Mapping[str, int]) -> None:
        """Bring back what a check stopped, froze, removed or added; wait until all is healthy."""
        containers = self.containers()
        paused = [each.id for each in containers if each.state["Paused"]]
        if paused:
            self.machine.run("docker", "unpause", *paused)
        stopped = any(each.state["Status"] not in ("running", "paused") for each in containers)
        if stopped or self.counts() != counts:
            self.bring_back(counts)
        self.wait_healthy()

    def bring_back(self, counts: Mapping[str, int]) -> None:
        """Have as many containers run as there were."""
        self.compose("up", "-d", "--no-recreate", *_scale(counts), seconds=180)


def _scale(counts: Mapping[str, int]) -> list[str]:
    return [f"--scale={name}={counts[name] or 1}" for name in ("frontend", "api")]
