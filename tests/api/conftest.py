"""Servers for all checks, a database of its own for each, and replicas of the api."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import hypothesis
import pytest
import stackyard_api
from redis.asyncio import Redis
from stackyard_api.cache import Cache
from stackyard_api.database import Database
from stackyard_api.items import Items
from stackyard_api.settings import Settings

from .servers import Servers, running

# Where the api under test is; `-o pythonpath` names another than the project's.
API = Path(stackyard_api.__file__).parents[1]

# The same examples each time, and as many as a minute allows: EXAMPLES=1000 looks further.
hypothesis.settings.register_profile(
    "checks",
    max_examples=int(os.environ.get("EXAMPLES", "60")),
    derandomize="EXAMPLES" not in os.environ,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile("checks")


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Let asynchronous checks run on the event loop that the api runs on."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Start PostgreSQL and Redis for all checks."""
    with running(tmp_path_factory.mktemp("servers")) as started:
        yield started


@dataclass(frozen=True)
class Surroundings:
    """What one api is given: a database of its own, an empty cache, and its files."""

    servers: Servers
    database: str
    directory: Path

    @property
    def database_password(self) -> Path:
        """The file with the password for the database."""
        return self.directory / "database_password"

    @property
    def cache_password(self) -> Path:
        """The file with the password for the cache."""
        return self.directory / "cache_password"

    @property
    def config(self) -> Path:
        """The file that people edit."""
        return self.directory / "app.toml"

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment that the stack gives, with this machine's places."""
        return self.servers.stack.environment("api") | {
            "API_HOST": "127.0.0.1",
            "FRONTEND_HOST": "127.0.0.1",
            "DATABASE_HOST": "127.0.0.1",
            "DATABASE_PORT": str(self.servers.database_port),
            "DATABASE_NAME": self.database,
            "DATABASE_PASSWORD_FILE": str(self.database_password),
            "CACHE_HOST": "127.0.0.1",
            "CACHE_PORT": str(self.servers.cache_port),
            "CACHE_PASSWORD_FILE": str(self.cache_password),
            "CONFIG_FILE": str(self.config),
            "PYTHONPATH": str(API),
            "PYTHONUNBUFFERED": "1",
            "PATH": os.environ["PATH"],
            **more,
        }

    def settings(self, replica: str = "api-1") -> Settings:
        """Return the settings of one replica."""
        return dataclasses.replace(Settings.from_environment(self.environment()), replica=replica)

    def migrate(self) -> subprocess.Popen[str]:
        """Start the process that brings the schema up."""
        return subprocess.Popen(
            [sys.executable, "-m", "stackyard_api.schema"],
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    async def superuser(self) -> asyncpg.Connection:
        """Connect to the database as its superuser."""
        return await self.servers.superuser(self.database)


def surroundings_on(servers: Servers, database: str, directory: Path) -> Surroundings:
    """Write the files that an api reads."""
    made = Surroundings(servers, database, directory)
    made.database_password.write_text(servers.stack.database + "\n", encoding="utf-8")
    made.cache_password.write_text(servers.stack.cache + "\n", encoding="utf-8")
    made.config.write_text('banner = "Checks"\n', encoding="utf-8")
    return made


@pytest.fixture(scope="session")
def migrated(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a database that has the schema and that nobody is connected to."""
    name = asyncio.run(servers.copy_of("stackyard"))
    process = surroundings_on(servers, name, tmp_path_factory.mktemp("migrated")).migrate()
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    return name


@pytest.fixture
async def onlooker(servers: Servers) -> AsyncIterator[Redis]:
    """Return a client that may do anything in the cache, which is empty at first."""
    client = servers.onlooker()
    await client.flushall()
    try:
        yield client
    finally:
        await client.aclose()


@pytest.fixture
async def bare(servers: Servers, tmp_path: Path) -> AsyncIterator[Surroundings]:
    """Return surroundings with a database as it is after its first start."""
    name = await servers.copy_of("stackyard")
    try:
        yield surroundings_on(servers, name, tmp_path)
    finally:
        await servers.drop(name)


@pytest.fixture
async def surroundings(
    servers: Servers,
    migrated: str,
    onlooker: Redis,  # noqa: ARG001 - empties the cache
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Surroundings]:
    """Return surroundings with the schema in place and no items."""
    name = await servers.copy_of(migrated)
    made = surroundings_on(servers, name, tmp_path)
    # The api's own processes inherit it.
    for variable, value in made.environment().items():
        monkeypatch.setenv(variable, value)
    try:
        yield made
    finally:
        await servers.drop(name)


@pytest.fixture
async def admin(surroundings: Surroundings) -> AsyncIterator[asyncpg.Connection]:
    """Return the superuser's connection to the database of the check."""
    connection = await surroundings.superuser()
    await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    try:
        yield connection
    finally:
        await connection.close(timeout=5)


@dataclass(frozen=True, repr=False)
class Replica:
    """One api without its HTTP."""

    settings: Settings
    database: Database
    cache: Cache
    items: Items

    @classmethod
    def start(cls, settings: Settings) -> Replica:
        """Start it; it connects in the background."""
        database, cache = Database(settings), Cache(settings)
        database.start()
        return cls(settings, database, cache, Items(database, cache))

    async def stop(self) -> None:
        """Close what it has open."""
        await self.database.stop()
        await self.cache.stop()


@pytest.fixture
async def replicas(surroundings: Surroundings) -> AsyncIterator[tuple[Replica, Replica]]:
    """Return two replicas of the api on the same servers."""
    one, two = (Replica.start(surroundings.settings(f"api-{number}")) for number in (1, 2))
    try:
        yield one, two
    finally:
        await one.stop()
        await two.stop()
