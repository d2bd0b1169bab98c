"""Bringing the database's schema to the version that this code was written for."""

import hashlib
import logging
import re
from dataclasses import dataclass
from pathlib import Path

import asyncpg

log = logging.getLogger("stackyard.migrations")

FOLDER = Path(__file__).parent / "migrations"
# Any number will do, as long as every replica and every version uses the same.
LOCK = 7_239_114

REGISTER = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""


class SchemaError(Exception):
    """Database and code do not fit together; the text says how and what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered SQL file."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the SQL text, as hex digits."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def load(folder: Path = FOLDER) -> list[Migration]:
    """The files `NNNN_name.sql` in order; SchemaError unless numbered 1, 2, 3, ..."""
    found = []
    for path in sorted(folder.glob("*.sql")):
        match = re.fullmatch(r"(\d{4})_(\w+)\.sql", path.name)
        if not match:
            raise SchemaError(f"migration {path.name} is not named NNNN_name.sql")
        found.append(Migration(int(match[1]), match[2], path.read_text(encoding="utf-8")))
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise SchemaError("the migrations are not numbered 0001, 0002, ... without a gap")
    return found


async def migrate(connection: asyncpg.Connection, migrations: list[Migration]) -> int:
    """Apply what is missing, all or nothing, and return the schema's version.

    Replicas that start together wait for each other at the advisory lock, which ends
    with the transaction whatever becomes of its holder. Raises SchemaError when the
    database is newer than the code, or was built by other migrations.
    """
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
        # Asked first: CREATE IF NOT EXISTS needs the right to create even when it exists.
        if await connection.fetchval("SELECT to_regclass('schema_migrations')") is None:
            await connection.execute(REGISTER)
        applied = {
            row["version"]: row["checksum"]
            for row in await connection.fetch("SELECT version, checksum FROM schema_migrations")
        }
        newest = migrations[-1].version
        if applied and max(applied) > newest:
            raise SchemaError(
                f"the database's schema is at version {max(applied)}, this api knows up to "
                f"{newest}: deploy the newer api, or restore an older backup"
            )
        for migration in migrations:
            known = applied.get(migration.version)
            if known is None:
                await connection.execute(migration.sql)
                await connection.execute(
                    "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)",
                    migration.version,
                    migration.name,
                    migration.checksum,
                )
                log.info("applied migration %04d_%s", migration.version, migration.name)
            elif known != migration.checksum:
                raise SchemaError(
                    f"migration {migration.version:04d}_{migration.name} was changed after it "
                    "was applied: undo the change and add a new migration"
                )
        return newest
