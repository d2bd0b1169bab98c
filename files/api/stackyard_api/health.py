"""Is everything there that a request needs?"""

import asyncio
import time
from collections.abc import Awaitable

import asyncpg

from stackyard_api.cache import Cache
from stackyard_api.database import Database
from stackyard_api.problems import Unavailable

# Seconds for both checks together; who asks gives up after two.
LIMIT = 1.6

Report = dict[str, object]


async def _schema(connection: asyncpg.Connection) -> int:
    # More than SELECT 1: a database that was swapped for an empty one fails here.
    version: int = await connection.fetchval("SELECT max(version) FROM schema_migrations")
    return version


async def _timed(check: Awaitable[object]) -> Report:
    start = time.perf_counter()
    try:
        async with asyncio.timeout(LIMIT):
            await check
    except (Unavailable, TimeoutError) as error:
        return {"status": "away", "reason": str(error) or "no answer in time"}
    return {"status": "ok", "ms": round((time.perf_counter() - start) * 1000, 1)}


async def check(database: Database, cache: Cache) -> tuple[bool, Report, Report]:
    """Ask database and cache at the same time, 1.6 s at most.

    Returns whether both answered, and for each a report: `status` (`ok` or `away`),
    then `ms` it took or the `reason`. A database that can be read and not written is ok, with
    `last_write` to say so.
    """
    about_database, about_cache = await asyncio.gather(
        _timed(database.run(_schema, repeatable=True)), _timed(cache.ping())
    )
    about_database |= {
        "schema": database.schema_version,
        "connections": database.connections,
    }
    if database.refusal:
        about_database["last_write"] = f"refused: {database.refusal}"
    healthy = about_database["status"] == about_cache["status"] == "ok"
    return healthy, about_database, about_cache
