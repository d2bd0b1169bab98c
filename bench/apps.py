"""The api and the plain reference, in turn the one and the other in the same stack."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.images import references
from bench.labels import SCRATCH
from bench.machine import CHECKOUT, Machine
from bench.shell import check, say
from bench.stack import STACK

# So many that the uncached read comes to none twice within the cache's time to live.
ITEMS = 200_000
REFERENCE_IMAGE = "stackyard-bench/reference:bench"
COMPOSE = ("docker", "compose", "-f", "docker-compose.yml", "-f", "docker-compose.prod.yml")
# Longer than nginx and the gateway remember an address.
SETTLE_SECONDS = 2.5


@dataclass
class App:
    """An api in the stack: its image, none for the stack's own, and what it is asked for.

    `first` is the number of the first of its ITEMS rows, `asked` how many of them were asked for.
    """

    name: str
    image: str | None
    page: str
    first: int
    asked: int = 0
    compose: tuple[str, ...] = field(default=COMPOSE)

    def start(self, machine: Machine, apis: int = 2) -> None:
        """Have this app, and no other, serve the stack's requests."""
        if self.image:
            override = {"services": {"api": {"image": self.image}}}
            path = f"/root/{self.name}.yml"
            machine.do("dd", "status=none", f"of={path}", stdin=json.dumps(override))
            self.compose = (*COMPOSE, "-f", path)
        machine.do(
            # With the others, Compose would recreate all that depends on the api.
            *(*self.compose, "up", "--detach", "--wait", "--no-deps", f"--scale=api={apis}", "api"),
            directory=STACK,
            timeout=300,
        )
        time.sleep(SETTLE_SECONDS)


def prepare(machine: Machine, api_image: str | None) -> tuple[App, App]:
    """Return the api and the reference, each with its rows; an image is taken from the host."""
    started = time.monotonic()
    machine.do(
        *("docker", "buildx", "build", "--quiet", "--tag", REFERENCE_IMAGE),
        *("--build-arg", f"BASE={references(machine)['base']}"),
        *("--build-context", f"page={CHECKOUT}/files/frontend/page"),
        f"{CHECKOUT}/bench/reference",
        timeout=600,
    )
    say(f"  The reference's image took {time.monotonic() - started:.0f} s")
    if api_image:
        _load_image(machine, api_image)
    machine.do(*COMPOSE, "up", "--detach", "--wait", directory=STACK, timeout=300)
    printed = machine.do(
        *(*COMPOSE, "exec", "-T", "database", "psql", "-XqAt", "-U", "postgres", "-d", "stackyard"),
        *("--set=ON_ERROR_STOP=1", f"--set=items={ITEMS}"),
        directory=STACK,
        stdin=Path(__file__).with_name("seed.sql"),
        timeout=300,
    )
    last = json.loads(printed.splitlines()[-1])
    say(f"  Database seeded: {last}")
    return (
        App("api", api_image, "/", last["api"] - ITEMS + 1),
        App("reference", REFERENCE_IMAGE, "/api/page/", last["reference"] - ITEMS + 1),
    )


def _load_image(machine: Machine, image: str) -> None:
    """Copy an image of the host's engine to the machine's."""
    with tempfile.TemporaryDirectory(prefix=SCRATCH) as scratch:
        archive = Path(scratch) / "image.tar"
        check(["docker", "save", "--output", str(archive), image], timeout=300)
        machine.do("docker", "load", "--quiet", stdin=archive, timeout=300)
