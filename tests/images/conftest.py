"""Containers of the images under test: started with a label, removed whatever happens."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

LABEL = "stackyard.test.images"
LONGEST_WAIT_SECONDS = 40.0


@dataclass(frozen=True)
class Result:
    """What a command came to: its exit code and its two outputs."""

    code: int
    out: str
    err: str


def docker(
    *arguments: str, stdin: str | None = None, timeout: float = LONGEST_WAIT_SECONDS
) -> Result:
    """Run a docker command to its end; raises TimeoutExpired after `timeout` seconds."""
    done = subprocess.run(
        ["docker", *arguments],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def docker_ok(*arguments: str, stdin: str | None = None) -> str:
    """Run a docker command that has to succeed and return its output, stripped."""
    result = docker(*arguments, stdin=stdin)
    assert result.code == 0, f"docker {' '.join(arguments)}: {result.err or result.out}"
    return result.out.strip()


def wait_until(
    condition: Callable[[], bool], what: str, seconds: float = LONGEST_WAIT_SECONDS
) -> None:
    """Poll `condition` until it holds; fails, saying `what`, when `seconds` have passed."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain for {what}"
        time.sleep(0.2)


@dataclass(frozen=True)
class Container:
    """A started container."""

    name: str

    def execute(
        self,
        *command: str,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        user: str = "",
    ) -> Result:
        """`docker exec`; stdin is passed on where given."""
        options = ["--interactive"] if stdin is not None else []
        options += [f"--user={user}"] if user else []
        for name, value in (env or {}).items():
            options += ["--env", f"{name}={value}"]
        return docker("exec", *options, self.name, *command, stdin=stdin)

    def execute_detached(self, *command: str) -> None:
        """`docker exec --detach`."""
        docker_ok("exec", "--detach", self.name, *command)

    def output_of(self, *command: str, stdin: str | None = None) -> str:
        """Output, stripped, of a command that has to succeed in the container."""
        result = self.execute(*command, stdin=stdin)
        assert result.code == 0, f"{command}: {result.err or result.out}"
        return result.out.strip()

    def logs(self) -> str:
        """All that the container has written, both outputs."""
        result = docker("logs", self.name)
        return result.out + result.err

    def state(self) -> dict[str, Any]:
        """`State` of `docker inspect`."""
        state: dict[str, Any] = json.loads(
            docker_ok("inspect", "--format={{json .State}}", self.name)
        )
        return state

    def address(self) -> str:
        """IPv4 address on the default bridge."""
        return docker_ok(
            "inspect",
            "--format={{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
            self.name,
        )

    def wait_for_log(self, text: str) -> None:
        """Wait until the container has written `text`."""
        self.wait_while_running(lambda: text in self.logs(), f"{text!r} in the log")

    def wait_while_running(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for `condition`; a container that ends meanwhile fails at once, with its log."""

        def holds() -> bool:
            if condition():
                return True
            assert self.state()["Running"], f"{self.name} ended:\n{self.logs()}"
            return False

        wait_until(holds, f"{what} of {self.name}")

    def ending(self, seconds: float = LONGEST_WAIT_SECONDS) -> int:
        """Wait for the container to end and return its exit code."""
        wait_until(lambda: not self.state()["Running"], f"the end of {self.name}", seconds)
        code: int = self.state()["ExitCode"]
        return code

    def stop(self) -> tuple[int, float]:
        """`docker stop`; returns the exit code and the seconds that it took."""
        begin = time.monotonic()
        docker_ok("stop", "--time=20", self.name)
        taken = time.monotonic() - begin
        return self.ending(), taken

    def kill(self) -> None:
        """End it as a crash of the machine would."""
        docker_ok("kill", self.name)
        self.ending()

    def start(self) -> None:
        """Start it again."""
        docker_ok("start", self.name)


@dataclass
class Yard:
    """Makes containers and volumes of one label value, and removes all of them."""

    mark: str = field(default_factory=lambda: f"stackyard-images-{uuid.uuid4().hex[:10]}")
    count: int = 0
    containers: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)
    networks: list[str] = field(default_factory=list)

    def _name(self) -> str:
        self.count += 1
        return f"{self.mark}-{self.count}"

    def volume(self) -> str:
        """Make a named volume."""
        self.volumes.append(self._name())
        return docker_ok("volume", "create", f"--label={LABEL}={self.mark}", self.volumes[-1])

    def network_of(self, container: Container) -> str:
        """Make a network and put the container on it: on the default bridge, an engine that is
        configured with care lets no two containers meet.
        """
        self.networks.append(self._name())
        docker_ok("network", "create", f"--label={LABEL}={self.mark}", self.networks[-1])
        docker_ok("network", "connect", self.networks[-1], container.name)
        return self.networks[-1]

    def _arguments(
        self, name: str, image: str, options: Sequence[str], env: Mapping[str, str] | None
    ) -> list[str]:
        values = [part for item in (env or {}).items() for part in ("--env", "=".join(item))]
        return [f"--name={name}", f"--label={LABEL}={self.mark}", *options, *values, image]

    def start(
        self,
        image: str,
        *command: str,
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> Container:
        """`docker run --detach`."""
        name = self._name()
        self.containers.append(name)
        docker_ok("run", "--detach", *self._arguments(name, image, options, env), *command)
        return Container(name)

    def run(
        self,
        image: str,
        *command: str,
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
    ) -> Result:
        """`docker run --rm` to its end."""
        extra = ["--interactive"] if stdin is not None else []
        name = self._name()
        self.containers.append(name)
        arguments = self._arguments(name, image, [*extra, *options], env)
        result = docker("run", "--rm", *arguments, *command, stdin=stdin)
        self.containers.remove(name)
        return result

    def clear(self) -> None:
        """Remove everything made so far."""
        if self.containers:
            docker("rm", "--force", "--volumes", *self.containers)
        if self.volumes:
            docker("volume", "rm", "--force", *self.volumes)
        if self.networks:
            docker("network", "rm", "--force", *self.networks)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the caller say which images are meant."""
    parser.addoption(
        "--image",
        action="append",
        default=[],
        metavar="NAME=REFERENCE",
        help="image to test, such as database=stackyard/database:1a2b (repeatable); "
        "without it the newest local stackyard/NAME",
    )


def image_reference(config: pytest.Config, name: str) -> str:
    """Return the reference given for `name`, or the newest local stackyard/`name`."""
    given = dict(item.split("=", 1) for item in config.getoption("--image"))
    if name in given:
        return str(given[name])
    # Newest first, which is how the engine lists them.
    found = docker_ok(
        "image", "ls", "--filter=dangling=false", "--format={{.Repository}}:{{.Tag}}",
        f"stackyard/{name}",
    ).split()  # fmt: skip
    if not found:
        pytest.fail(
            f"no local image stackyard/{name}: build it, or name one with --image {name}=REFERENCE",
            pytrace=False,
        )
    return found[0]


@pytest.fixture
def yard() -> Iterator[Yard]:
    """Containers and volumes of one test."""
    made = Yard()
    try:
        yield made
    finally:
        made.clear()


@pytest.fixture(scope="session")
def shared_yard() -> Iterator[Yard]:
    """Containers and volumes that tests share and leave as they are."""
    made = Yard()
    try:
        yield made
    finally:
        made.clear()


@dataclass(frozen=True)
class Image:
    """An image's reference and what `docker image inspect` says about it."""

    reference: str

    def config(self) -> dict[str, Any]:
        """`Config` of `docker image inspect`."""
        config: dict[str, Any] = json.loads(
            docker_ok("image", "inspect", "--format={{json .Config}}", self.reference)
        )
        return config

    def bytes_on_top_of_base(self) -> int:
        """Size of all layers but the first, which is the base that images share."""
        sizes = docker_ok("history", "--human=false", "--format={{.Size}}", self.reference).split()
        layers = [int(size) for size in sizes if int(size)]
        return sum(layers[:-1])


@pytest.fixture(scope="session")
def database_image(request: pytest.FixtureRequest) -> Image:
    """Find the database image under test."""
    return Image(image_reference(request.config, "database"))


@pytest.fixture(scope="session")
def cache_image(request: pytest.FixtureRequest) -> Image:
    """Find the cache image under test."""
    return Image(image_reference(request.config, "cache"))


# Prints one line for each thing that a finished image has no use for.
LEFTOVERS = r"""
find /var/lib/apt/lists /var/cache/apt/archives -type f ! -name lock
find /usr/share/doc -type f ! -name copyright
find /usr/share/man /usr/share/info /usr/share/locale -type f ! -name dir 2>/dev/null
find /var/log /tmp /root -type f -size +0 ! -name .bashrc ! -name .profile
for program in pip pip3 gcc cc g++ make clang; do command -v "$program"; done
find / -xdev \( -name 'libLLVM*' -o -name '*.bc' -o -name '__pycache__' \)
true
"""


@pytest.fixture(scope="session")
def leftovers(shared_yard: Yard) -> Callable[[Image], list[str]]:
    """Return a function that lists what should not be in an image."""

    def listing(image: Image) -> list[str]:
        result = shared_yard.run(image.reference, "sh", "-c", LEFTOVERS)
        assert result.code == 0, result.err
        return result.out.split()

    return listing
