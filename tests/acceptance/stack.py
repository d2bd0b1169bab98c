"""The running stack, as the checks see it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from .machine import Machine, Result, wait_until
from .settings import DEBUG_NETWORK, NETWORKS, SERVERS, SERVICES, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from testinfra.host import Host

HEALTHY_SECONDS = 90


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
        """The Compose service."""
        return self.data["Config"]["Labels"]["com.docker.compose.service"]

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
    """One stack on one lab machine."""

    def __init__(self, host: Host, settings: Settings) -> None:
        """Read which environment is active; fails where no stack is."""
        self.machine = Machine(host)
        self.settings = settings
        self.directory = settings.directory
        self.project = settings.project
        found = self.machine.try_run("cat", f"{self.directory}/.env")
        files = re.search(r"^COMPOSE_FILE=(.*)$", found.out, re.MULTILINE)
        match = re.fullmatch(
            r"docker-compose\.yml:docker-compose\.(dev|prod)\.yml", files[1] if files else ""
        )
        if not match:
            pytest.fail(
                f"{self.directory}/.env does not name the files of dev or prod:\n{found}\n"
                "Deploy first: make up. A directory of your own: --set stack_dir=PATH.",
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

    def compose_config(self, env: str = "") -> dict[str, Any]:
        """What Compose makes of the rendered files, of the active or a named environment."""
        files = ["-f", "docker-compose.yml", "-f", f"docker-compose.{env}.yml"] if env else []
        return json.loads(self.compose(*files, "config", "--format", "json").out)

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

    def containers(self, service: str = "") -> list[Container]:
        """All containers of the stack or of one service, ordered by name; one look for all."""
        labels = [f"label=com.docker.compose.project={self.project}"]
        labels.append("label=com.docker.compose.oneoff=False")
        if service:
            labels.append(f"label=com.docker.compose.service={service}")
        script = 'ids=$(docker ps -aq --no-trunc "$@") && [ -z "$ids" ] || docker inspect $ids'
        filters = [word for label in labels for word in ("--filter", label)]
        result = self.machine.run(
            *("sh", "-c", script, "sh", *filters),
            shown=f"docker inspect, of all of {service or self.project}; in short",
            short=lambda out: "\n".join(
                f"{each.name} {each.state['Status']} {each.health}" for each in _containers(out)
            ),
        )
        return _containers(result.out)

    def of(self, service: str) -> list[Container]:
        """The containers of a service; at least one, so that no loop over them is empty."""
        found = self.containers(service)
        assert found, f"{service} has no container:\n{self.try_compose('ps', '-a')}"
        return found

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

    # Breaking things

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
            "project": self.project,
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
            scale = [f"--scale={name}={counts[name] or 1}" for name in ("frontend", "api")]
            self.compose("up", "-d", "--no-recreate", *scale, seconds=180)
        self.wait_healthy()
