"""PostgreSQL and Redis as the stack has them: its images, arguments, roles and secrets."""

from __future__ import annotations

import secrets
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml
from redis.asyncio import Redis

from tests.images.conftest import Container, Yard, docker, docker_ok
from tests.templates.conftest import Combination, Renderer

ROOT = Path(__file__).parents[2]
SECRETS = ROOT / "playbooks" / "group_vars" / "all" / "stack_secrets.yml"
# Somebody to look on and to intervene; the stack has nobody who may.
ONLOOKER = "user onlooker on >{value} ~* &* +@all"


def newest_image(name: str) -> str:
    """Return the newest local stackyard/`name`, which the engine lists first."""
    found = docker_ok(
        "image", "ls", "--filter=dangling=false", "--format={{.Repository}}:{{.Tag}}",
        f"stackyard/{name}",
    ).split()  # fmt: skip
    if not found:
        pytest.fail(f"no local image stackyard/{name}: make up builds it", pytrace=False)
    return found[0]


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def published_port(container: Container, port: int) -> int:
    """Return the port of 127.0.0.1 that leads to the container's."""
    return int(docker_ok("port", container.name, f"{port}/tcp").rpartition(":")[2])


class Stack:
    """What the roles would write on a lab machine."""

    def __init__(self) -> None:
        """Render the project and make up its secrets."""
        # Prod's files without limits are what the base file says.
        self.files = {
            name: content
            for name, (content, _) in Renderer().render(Combination("prod")).files.items()
        }
        self.services = yaml.safe_load(self.files["docker-compose.yml"])["services"]
        self.superuser = secrets.token_urlsafe(24)
        self.database = secrets.token_urlsafe(24)
        self.cache = secrets.token_urlsafe(24)
        self.onlooker = secrets.token_urlsafe(24)

    @cached_property
    def cache_users(self) -> str:
        """The cache's users, and the onlooker."""
        wired = yaml.safe_load(SECRETS.read_text(encoding="utf-8"))["stack__cache_users"]
        return "\n".join((wired.format(value=self.cache), ONLOOKER.format(value=self.onlooker), ""))

    def environment(self, service: str) -> dict[str, str]:
        """Return what the compose file sets for a service."""
        return dict(self.services[service]["environment"])


@dataclass
class Servers:
    """Both servers, and how the checks reach into them."""

    stack: Stack
    database: Container
    database_port: int
    cache: Container
    cache_port: int

    async def superuser(self, database: str = "postgres") -> asyncpg.Connection:
        """Connect to a database as its superuser."""
        return await asyncpg.connect(
            host="127.0.0.1",
            port=self.database_port,
            user="postgres",
            password=self.stack.superuser,
            database=database,
            ssl=False,
            timeout=10,
        )

    def onlooker(self) -> Redis:
        """Return a client that may do anything in the cache."""
        client: Redis = Redis(
            host="127.0.0.1",
            port=self.cache_port,
            username="onlooker",
            password=self.stack.onlooker,
        )
        return client

    async def copy_of(self, template: str) -> str:
        """Make a database like `template`, to which nobody may be connected; return its name."""
        name = f"checks_{uuid.uuid4().hex[:10]}"
        connection = await self.superuser()
        try:
            await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        finally:
            await connection.close()
        return name

    async def drop(self, database: str) -> None:
        """Remove a database and whoever is connected to it."""
        connection = await self.superuser()
        try:
            await connection.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
        finally:
            await connection.close()


@contextmanager
def frozen(container: Container) -> Iterator[None]:
    """Let a server neither answer nor hang up, as one on a machine that hangs."""
    docker_ok("pause", container.name)
    try:
        yield
    finally:
        docker_ok("unpause", container.name)


def write(directory: Path, name: str, content: str, mode: int) -> None:
    """Write a file for a container's user, in a directory that is mounted whole."""
    directory.mkdir(exist_ok=True)
    directory.chmod(0o755)
    path = directory / name
    path.write_text(content, encoding="utf-8")
    path.chmod(mode)


@contextmanager
def running(directory: Path) -> Iterator[Servers]:
    """Run both servers, their files below `directory`."""
    stack = Stack()
    setup, known = directory / "setup", directory / "secrets"
    for name, content in stack.files.items():
        if name.startswith("config/database/"):
            write(setup, Path(name).name, content, 0o755)
    write(known, "database_superuser_password", stack.superuser, 0o444)
    write(known, "database_api_password", stack.database, 0o444)
    write(known, "cache_users", stack.cache_users, 0o444)
    common = [f"--volume={known}:/run/secrets:ro", "--user=999:999", "--init"]
    yard = Yard(mark=f"stackyard-apitest-{uuid.uuid4().hex[:8]}")
    try:
        database = yard.start(
            newest_image("database"),
            *command(stack.services["database"]),
            # Which statements ran, and how often.
            "--shared_preload_libraries=pg_stat_statements",
            "--pg_stat_statements.track_utility=off",
            options=[
                *common,
                f"--volume={setup}:/docker-entrypoint-initdb.d:ro",
                "--publish=127.0.0.1::5432",
                "--tmpfs=/var/lib/postgresql/data:mode=0700,uid=999,gid=999",
                "--tmpfs=/var/run/postgresql:mode=0700,uid=999,gid=999",
                "--shm-size=64m",
            ],
            env=stack.environment("database"),
        )
        cache = yard.start(
            newest_image("cache"),
            *command(stack.services["cache"]),
            options=[*common, "--publish=127.0.0.1::6379", "--tmpfs=/data:uid=999,gid=999"],
        )
        cache.wait_while_running(
            lambda: cache.execute("redis-cli", "ping").out.strip() == "PONG", "the server"
        )
        database.wait_while_running(
            lambda: database.execute("pg_isready", "--quiet", "--host=127.0.0.1").code == 0,
            "the server",
        )
        yield Servers(
            stack,
            database,
            published_port(database, 5432),
            cache,
            published_port(cache, 6379),
        )
    finally:
        # One that is paused cannot be removed by every engine.
        docker("unpause", *yard.containers)
        yard.clear()


def command(service: dict[str, Any]) -> list[str]:
    """Return a service's command as arguments."""
    return [str(word) for word in service["command"]]
