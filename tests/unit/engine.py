"""An engine in memory: a clock, containers and images, and what docker's commands do to them."""

from __future__ import annotations

import ipaddress
import itertools
import json
import math
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PROJECT = "lab"
LABEL = "com.docker.compose."
HEALTHY_SECONDS = 2.0


class Clock:
    """Time that passes while somebody sleeps; it stands in for the module `time`."""

    def __init__(self) -> None:
        """Begin at a moment that is not zero."""
        self.now = 1_000.0
        self._events: list[tuple[float, Callable[[], None]]] = []

    def monotonic(self) -> float:
        """Return the seconds that have passed."""
        return self.now

    time = monotonic

    def at(self, seconds: float, event: Callable[[], None]) -> None:
        """Have something happen so many seconds from now."""
        self._events.append((self.now + seconds, event))

    def sleep(self, seconds: float) -> None:
        """Let time pass, and all happen that is due."""
        end = self.now + seconds
        while due := sorted((each for each in self._events if each[0] <= end), key=lambda e: e[0]):
            self._events.remove(due[0])
            self.now = max(self.now, due[0][0])
            due[0][1]()
        self.now = end


@dataclass(eq=False)
class Container:
    """A container of a Compose service."""

    service: str
    number: int
    hash: str
    image: str
    id: str
    address: str
    status: str = "running"
    health: str = "healthy"
    restarts: int = 0
    healthy_since: float = 0.0
    # How long it takes to discover a healthy replica of a service that it uses.
    discovers: float = 1.0
    limits: dict[str, Any] = field(default_factory=dict)
    project: str = PROJECT

    @property
    def name(self) -> str:
        """Return the name that people type."""
        return f"{self.project}-{self.service}-{self.number}"

    @property
    def serves(self) -> bool:
        """Tell whether it answers requests."""
        return self.status == "running" and self.health in ("healthy", "none")

    def described(self) -> dict[str, Any]:
        """Return it as docker inspect does."""
        check = {"Status": self.health, "Log": [{"ExitCode": 1, "Output": f"{self.health}\n"}]}
        health = {} if self.health == "none" else {"Health": check}
        none = {"memory": 0, "memory-swap": 0, "cpus": 0, "pids-limit": None, "restart": "no"}
        given = none | self.limits
        policy, _, most = str(given["restart"]).partition(":")
        return {
            "Id": self.id,
            "Name": f"/{self.name}",
            "Image": self.image,
            "RestartCount": self.restarts,
            "State": {"Status": self.status, "ExitCode": 0, **health},
            "Config": {
                "Labels": {
                    f"{LABEL}project": self.project,
                    f"{LABEL}service": self.service,
                    f"{LABEL}container-number": str(self.number),
                    f"{LABEL}config-hash": self.hash,
                    f"{LABEL}oneoff": "False",
                }
            },
            "HostConfig": {
                "Memory": int(given["memory"]),
                "MemorySwap": int(given["memory-swap"]),
                "NanoCpus": round(float(given["cpus"]) * 1e9),
                "PidsLimit": given["pids-limit"] and int(given["pids-limit"]),
                "RestartPolicy": {"Name": policy, "MaximumRetryCount": int(most or 0)},
            },
            "NetworkSettings": {"Networks": {"inner": {"IPAddress": self.address}}},
        }


class Engine:
    """Containers of one project, images by their references, and Compose's idea of the project."""

    def __init__(self, services: dict[str, dict[str, Any]] | None = None) -> None:
        """Take what Compose makes of the project's files, by service, each with its `hash`."""
        self.clock = Clock()
        self.services = services or {}
        self.containers: list[Container] = []
        # What each reference names; an image goes when its last name does.
        self.images: dict[str, str] = {}
        # What a command fails with, by the words that it begins with.
        self.failures: dict[str, str] = {}
        # What becomes of a new container of a service.
        self.fates: dict[str, Callable[[Container], None]] = {}
        # The fewest of each service that served once one of it was stopped.
        self.least: dict[str, int] = {}
        # What a service answers to exec.
        self.said: dict[str, str] = {}
        # What is sent to and fetched from registries, by name.
        self.registry: Registry = Registry()
        # Where each project is on disk.
        self.folders: dict[str, str] = {}
        self.commands: list[str] = []
        self._ids = (f"{number:064x}" for number in itertools.count(1))
        self._addresses = (str(each) for each in ipaddress.ip_network("10.0.0.0/16").hosts())

    # What a check arranges and looks at.

    def add(self, service: str, **about: Any) -> Container:
        """Have one more container of a service, with the lowest number that is free."""
        model = self.services.get(service, {})
        taken = {each.number for each in self.of(service)}
        number = next(number for number in itertools.count(1) if number not in taken)
        given = {
            "hash": model.get("hash", "none"),
            "image": self.images.get(model.get("image", ""), "sha256:none"),
            "limits": wanted_limits(model),
        }
        made = Container(
            service, number, id=next(self._ids), address=next(self._addresses), **(given | about)
        )
        self.containers.append(made)
        return made

    def of(self, service: str) -> list[Container]:
        """Return a service's containers."""
        return [each for each in self.containers if each.service == service]

    def serving(self, service: str) -> int:
        """Return how many of a service answer requests."""
        return sum(each.serves for each in self.of(service))

    def find(self, name: str) -> Container | None:
        """Return a container by its name or id."""
        return next((each for each in self.containers if name in (each.name, each.id)), None)

    def become(self, container: Container, health: str, after: float = 0.0) -> None:
        """Change a container's health after so many seconds."""

        def change() -> None:
            container.health, container.healthy_since = health, self.clock.now

        self.clock.at(after, change)

    # What docker's commands do. Each returns its output; a Failure is its error.

    def run_command(self, command: Sequence[str]) -> tuple[int, str, str]:
        """Run a command as AnsibleModule does."""
        program, verb, *words = command
        assert program == "docker", command
        self.commands.append(" ".join([verb, *words]))
        for start, error in self.failures.items():
            if self.commands[-1].startswith(start):
                return 1, "", error
        try:
            return 0, getattr(self, f"_{verb}")(words), ""
        except FailureError as failure:
            return 1, failure.output, str(failure)

    def run(self, command: Sequence[str], **_: Any) -> subprocess.CompletedProcess[str]:
        """Run a command as subprocess does."""
        code, output, error = self.run_command(command)
        return subprocess.CompletedProcess(command, code, output, error)

    def _ps(self, words: list[str]) -> str:
        if "--format" in words:
            assert "project.working_dir" in words[-1]
            return "".join(f"{self.folders.get(each.project, '')}\n" for each in self.containers)
        filters = dict(word.removeprefix("label=").split("=") for word in words if "label=" in word)
        return "".join(
            f"{each.id}\n"
            for each in self.containers
            if filters.items() <= each.described()["Config"]["Labels"].items()
        )

    def _inspect(self, words: list[str]) -> str:
        found = {word: self.find(word) for word in words}
        output = json.dumps([each.described() for each in found.values() if each])
        missing = [word for word, each in found.items() if each is None]
        if missing:
            raise FailureError(f"Error: No such object: {missing[0]}", output)
        return output

    def _info(self, words: list[str]) -> str:
        assert words[-1] == "{{.SwapLimit}}"
        return "true\n"

    def _logs(self, words: list[str]) -> str:
        return f"last words of {words[-1]}\n"

    def _rm(self, words: list[str]) -> str:
        """As of Docker 20.10, with --force nothing is an error."""
        found = self.find(words[-1])
        if found:
            self.containers.remove(found)
        return ""

    def _stop(self, words: list[str]) -> str:
        found = self.find(words[-1])
        if found is None:
            raise FailureError(f"Error response from daemon: No such container: {words[-1]}")
        found.status = "exited"
        served = self.serving(found.service)
        self.least[found.service] = min(served, self.least.get(found.service, served))
        return ""

    def _exec(self, words: list[str]) -> str:
        """Say which replicas of other services the container knows, or what was arranged."""
        client = self.find(words[0])
        if client is None or client.status != "running":
            raise FailureError(f"Error response from daemon: container {words[0]} is not running")
        if client.service in self.said:
            return self.said[client.service]
        return "".join(
            f"server {each.address}:8000 up\n"
            for each in self.containers
            if each.serves and self.clock.now >= each.healthy_since + client.discovers
        )

    def _update(self, words: list[str]) -> str:
        found = self.find(words[-1])
        assert found
        options = dict(word.removeprefix("--").split("=") for word in words[:-1])
        limits = found.limits | options
        swap = int(limits.get("memory-swap", 0))
        if swap != -1 and int(limits.get("memory", 0)) > swap:
            raise FailureError("Memory limit should be smaller than already set memoryswap limit")
        found.limits = limits
        return ""

    def _image(self, words: list[str]) -> str:
        verb, *rest = words
        references = [word for word in rest if not word.startswith(("-", "{{"))]
        if verb == "inspect":
            missing = [each for each in references if each not in self.images]
            there = [each for each in references if each in self.images]
            ids = [self.images[each] for each in there]
            named = [[json.dumps([each]), "[]"] for each in there]
            wide = any("RepoTags" in word for word in rest)
            lines = [
                " ".join([*(names if wide else []), image])
                for names, image in zip(named, ids, strict=True)
            ]
            if missing:
                raise FailureError(f"Error: No such image: {missing[0]}", "\n".join(lines))
            return "\n".join(lines)
        if verb == "tag":
            self.images[references[1]] = self.images[references[0]]
        elif verb == "ls":
            digests = "--digests" in rest
            return "".join(listed(each, digests=digests) for each in self.images)
        elif verb == "rm":
            (name,) = references
            if name not in self.images:
                raise FailureError(f"Error response from daemon: No such image: {name}")
            image = self.images[name]
            used = any(each.image == image for each in self.containers)
            if used and list(self.images.values()).count(image) == 1:
                raise FailureError("conflict: unable to remove: container is using its image")
            del self.images[name]
        return ""

    def _push(self, words: list[str]) -> str:
        self.registry.receive(words[-1], self.images[words[-1]])
        return ""

    def _pull(self, words: list[str]) -> str:
        self.images[words[-1]] = self.registry.send(words[-1])
        return ""

    def _compose(self, words: list[str]) -> str:
        if "config" in words:
            if "--hash" in words:
                return "".join(f"{each} {model['hash']}\n" for each, model in self.services.items())
            return json.dumps({"services": self.services})
        assert "up" in words
        assert "--no-recreate" in words, "it would replace containers at once"
        scales = dict(
            word.removeprefix("--scale=").split("=") for word in words if word.startswith("--scale")
        )
        self._up(words[-1], {name: int(count) for name, count in scales.items()})
        return ""

    def _up(self, service: str, scales: dict[str, int]) -> None:
        """Bring a service and all that it depends on to their counts, as Compose does."""
        order, look = [service], [service]
        while look:
            for name in self.services[look.pop()].get("depends_on", {}):
                if name not in order:
                    order.append(name)
                    look.append(name)
        for name in reversed(order):
            model = self.services[name]
            count = scales.get(name, model.get("deploy", {}).get("replicas", 1))
            if name in scales and model.get("container_name"):
                raise FailureError(f"service {name} has a container_name and cannot be scaled")
            for surplus in self.of(name)[count:]:
                self.containers.remove(surplus)
            for _ in range(count - len(self.of(name))):
                made = self.add(name, health="starting", healthy_since=math.inf)
                self.fates.get(name, self.starts_well)(made)

    def starts_well(self, container: Container) -> None:
        """Have a new container become healthy after a moment."""
        self.become(container, "healthy", HEALTHY_SECONDS)


class Registry:
    """A registry that takes and has everything."""

    def receive(self, name: str, image: str) -> None:
        """Keep an image under a name."""

    def send(self, name: str) -> str:
        """Return the id of an image by its name; a FailureError where it does not come."""
        return f"sha256:{name.rpartition(':')[2]}"


class FailureError(Exception):
    """What a command says on its standard error, and what it had said before."""

    def __init__(self, message: str, output: str = "") -> None:
        """Take both."""
        super().__init__(message)
        self.output = output


def wanted_limits(model: dict[str, Any]) -> dict[str, Any]:
    """Return the limits that Compose gives to a new container of a service."""
    limits = model.get("deploy", {}).get("resources", {}).get("limits", {})
    names = {"memory": "memory", "cpus": "cpus", "pids": "pids-limit"}
    given = {names[name]: value for name, value in limits.items()}
    if "memory" in given:
        # The engine's own choice.
        given["memory-swap"] = 2 * int(given["memory"])
    return given | {"restart": model.get("restart", "no")}


def listed(reference: str, *, digests: bool) -> str:
    """Return an image's line of docker image ls, as the modules ask for it."""
    name, _, digest = reference.partition("@")
    repository, colon, tag = name.rpartition(":")
    if "/" in tag or not colon:
        repository, tag = name, ""
    tagged = f"{repository}:{tag or '<none>'}"
    return f"{tagged} {repository}@{digest or '<none>'}\n" if digests else f"{tagged}\n"


@dataclass
class Module:
    """An Ansible module's parameters and its way to the engine."""

    engine: Engine
    params: dict[str, Any]
    check_mode: bool = False

    def run_command(self, command: Sequence[str]) -> tuple[int, str, str]:
        """Run a command on the engine in memory."""
        return self.engine.run_command(command)
