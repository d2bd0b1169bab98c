"""The database's schema: which version this code needs, and the way there, by Alembic.

Alembic and SQLAlchemy are loaded by a process of their own, which ends when it has done its work:
`python3 -m stackyard_api.schema`.
"""

import asyncio
import logging
import sys
from pathlib import Path

import asyncpg

from stackyard_api import logs
from stackyard_api.connection import connect
from stackyard_api.settings import Settings

log = logging.getLogger("stackyard.schema")

MIGRATIONS = Path(__file__).parent / "migrations"
TABLE = "schema_version"
# The files in migrations/versions are named by it: 0001_items.py.
NEEDED = max(path.stem[:4] for path in MIGRATIONS.glob("versions/[0-9]*.py"))
# Any number will do, as long as every replica and every version uses the same.
LOCK = 7_239_114


class SchemaError(Exception):
    """Database and code do not fit together; the text says how and what to do."""


async def found(connection: asyncpg.Connection) -> str:
    """The version that the database has, empty before the first migration."""
    if await connection.fetchval("SELECT to_regclass($1)", TABLE) is None:
        return ""
    return await connection.fetchval(f"SELECT max(version_num) FROM {TABLE}") or ""


async def bring_up(connection: asyncpg.Connection) -> None:
    """Have the database at the version NEEDED; SchemaError where it is newer, or no way leads."""
    version = await found(connection)
    if version > NEEDED:
        raise SchemaError(
            f"the database's schema is at version {version}, this api knows up to {NEEDED}: "
            "deploy the newer api, or restore an older backup"
        )
    if version == NEEDED:
        return
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stackyard_api.schema"), stderr=asyncio.subprocess.PIPE
    )
    try:
        _, complaint = await process.communicate()
    except asyncio.CancelledError:
        # The database takes back what was begun.
        process.kill()
        raise
    if process.returncode != 0:
        # Behind it may be an address to read more at.
        lines = [
            line for line in complaint.decode(errors="replace").splitlines() if "Error" in line
        ]
        raise SchemaError(f"migrating to {NEEDED} failed: {''.join(lines[-1:])[:300]}")
    log.info("schema brought from version %s to %s", version or "none", NEEDED)


async def _migrate(settings: Settings) -> None:
    # Here, so that the api itself has no part of them in its memory.
    import sqlalchemy
    from alembic import command
    from alembic.config import Config
    from sqlalchemy.ext.asyncio import create_async_engine

    def upgrade(connection: sqlalchemy.Connection) -> None:
        # Held until the end of the transaction that all migrations share, whatever becomes of us.
        connection.execute(sqlalchemy.text(f"SELECT pg_advisory_xact_lock({LOCK})"))
        config = Config(attributes={"connection": connection, "table": TABLE})
        config.set_main_option("script_location", str(MIGRATIONS))
        command.upgrade(config, "head")

    engine = create_async_engine("postgresql+asyncpg://", async_creator=lambda: connect(settings))
    async with engine.begin() as connection:
        await connection.run_sync(upgrade)
    await engine.dispose()


if __name__ == "__main__":
    given = Settings.from_environment()
    logs.configure(given.log_level, given.log_format, given.replica)
    asyncio.run(_migrate(given))
