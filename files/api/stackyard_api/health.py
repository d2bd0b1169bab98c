"""Is everything there that a request needs?"""

import asyncio
import time
from collections.abc import Awaitable

import msgspec

from stackyard_api import metrics, schema
from stackyard_api.cache import Cache
from stackyard_api.config import ConfigError
from stackyard_api.database import Database
from stackyard_api.flights import Flights
from stackyard_api.problems import Unavailable

# Seconds for both checks together; who asks gives up after two.
LIMIT = 1.6


class Dependency(msgspec.Struct, omit_defaults=True):
    """Database or cache: `ok` with the milliseconds its answer took, or `away` with the reason.

    A database that can be read and not written is ok, with `last_write` to say so.
    """

    status: str
    ms: float | None = None
    reason: str = ""
    last_write: str = ""
    connections: dict[str, int] = {}


class Health(msgspec.Struct):
    """`ok` when database and cache answer, else `degraded`; `config` is null or what is wrong."""

    status: str
    database: Dependency
    cache: Dependency
    config: ConfigError | None
    replica: str


async def _timed(check: Awaitable[object]) -> Dependency:
    start = time.perf_counter()
    try:
        async with asyncio.timeout(LIMIT):
            await check
    except (Unavailable, TimeoutError) as error:
        return Dependency("away", reason=str(error) or "no answer in time")
    return Dependency("ok", round((time.perf_counter() - start) * 1000, 1))


class HealthCheck:
    """Looks at database and cache, at most once at a time; `last` says what came of it."""

    def __init__(self, database: Database, cache: Cache) -> None:
        self._database = database
        self._cache = cache
        self._looks: Flights[str, tuple[Dependency, Dependency]] = Flights()
        self.last = "unknown"

    async def look(self) -> tuple[Dependency, Dependency]:
        """Ask database and cache at the same time, 1.6 s at most; those who ask then share it."""
        return await self._looks.share("", self._look)

    async def _look(self) -> tuple[Dependency, Dependency]:
        # More than SELECT 1: a database that was swapped for an empty one fails here.
        database, cache = await asyncio.gather(
            _timed(self._database.run(schema.found)), _timed(self._cache.ping())
        )
        database.connections = self._database.connections
        if self._database.refusal:
            database.last_write = f"refused: {self._database.refusal}"
        self.last = "ok" if database.status == cache.status == "ok" else "degraded"
        metrics.DEPENDENCY.labels("database").set(database.status == "ok")
        metrics.DEPENDENCY.labels("cache").set(cache.status == "ok")
        for state, count in database.connections.items():
            metrics.CONNECTIONS.labels(state).set(count)
        return database, cache
