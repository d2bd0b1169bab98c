"""Migrations: from nothing and from before, by two at once, by one that is killed."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator

import asyncpg
import pytest
from stackyard_api import schema
from stackyard_api.database import Database
from stackyard_api.problems import Unavailable

from .conftest import Surroundings

pytestmark = pytest.mark.anyio

# As it was before Alembic kept the version.
BEFORE = """
    SET ROLE api;
    CREATE TABLE items (
        id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        name       text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
        note       text CHECK (char_length(note) <= 2000),
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE TABLE schema_migrations (version int PRIMARY KEY);
    INSERT INTO schema_migrations VALUES (1);
    INSERT INTO items (name, note) SELECT 'item ' || n, 'note' FROM generate_series(1, 5) AS n;
    RESET ROLE;
"""
TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND usename = 'api' AND wait_event_type = 'Lock'
"""
FINAL = ["idempotency_keys", "items", schema.TABLE]


@pytest.fixture
async def superuser(bare: Surroundings) -> AsyncIterator[asyncpg.Connection]:
    """Return a superuser's connection."""
    connection = await bare.superuser()
    try:
        yield connection
    finally:
        await connection.close(timeout=5)


async def output_of(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a migration's end; return its exit code and what it wrote."""
    output, _ = await asyncio.to_thread(process.communicate, timeout=20)
    return process.returncode, output


async def tables(connection: asyncpg.Connection) -> list[str]:
    """Return the names of the tables in the schema public."""
    return [row[0] for row in await connection.fetch(TABLES)]


async def wait_for(connection: asyncpg.Connection, waiting: int) -> None:
    """Wait until so many of the api's connections wait for a lock."""
    async with asyncio.timeout(15):
        while await connection.fetchval(WAITING) != waiting:
            await asyncio.sleep(0.02)


async def test_empty_database_gets_the_schema(
    bare: Surroundings, superuser: asyncpg.Connection
) -> None:
    assert await schema.found(superuser) == ""
    assert (await output_of(bare.migrate()))[0] == 0
    assert await tables(superuser) == FINAL
    assert await schema.found(superuser) == schema.NEEDED
    # Once more changes nothing.
    assert (await output_of(bare.migrate()))[0] == 0
    assert await tables(superuser) == FINAL


async def test_rows_from_before_are_taken_over(
    bare: Surroundings, superuser: asyncpg.Connection
) -> None:
    await superuser.execute(BEFORE)
    before = await superuser.fetch("SELECT * FROM items ORDER BY id")
    code, output = await output_of(bare.migrate())
    assert code == 0, output
    assert await tables(superuser) == FINAL
    rows = await superuser.fetch(
        "SELECT id, name, note, created_at, updated_at FROM items ORDER BY id"
    )
    assert rows == before
    assert {row[0] for row in await superuser.fetch("SELECT version FROM items")} == {1}


async def test_two_at_once_bring_it_up_once(
    bare: Surroundings, superuser: asyncpg.Connection
) -> None:
    # Both have to be at work before either can go on.
    holder = superuser.transaction()
    await holder.start()
    await superuser.execute("CREATE TABLE items ()")
    processes = [bare.migrate(), bare.migrate()]
    observer = await bare.superuser()
    try:
        await wait_for(observer, 2)
    finally:
        await observer.close()
        await holder.rollback()
    results = [await output_of(process) for process in processes]
    assert [code for code, _ in results] == [0, 0], results
    assert await tables(superuser) == FINAL
    assert await superuser.fetchval(f"SELECT count(*) FROM {schema.TABLE}") == 1


async def test_migration_that_is_killed_leaves_nothing_and_the_next_completes(
    bare: Surroundings, superuser: asyncpg.Connection
) -> None:
    await superuser.execute(BEFORE)
    observer = await bare.superuser()
    try:
        async with superuser.transaction():
            # The first migration gets by, the second has to wait.
            await superuser.execute("LOCK TABLE items IN ACCESS SHARE MODE")
            process = bare.migrate()
            await wait_for(observer, 1)
            process.kill()
            await output_of(process)
        async with asyncio.timeout(10):
            while await observer.fetchval(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE datname = current_database() AND usename = 'api'"
            ):
                await asyncio.sleep(0.02)
    finally:
        await observer.close()
    assert await tables(superuser) == ["items", "schema_migrations"]
    code, output = await output_of(bare.migrate())
    assert code == 0, output
    assert await tables(superuser) == FINAL
    assert await superuser.fetchval("SELECT count(*) FROM items") == 5


async def test_database_that_is_newer_than_the_api_is_refused_and_left_alone(
    bare: Surroundings, superuser: asyncpg.Connection
) -> None:
    assert (await output_of(bare.migrate()))[0] == 0
    await superuser.execute(f"UPDATE {schema.TABLE} SET version_num = '9999'")
    database = Database(bare.settings())
    database.start()
    try:
        with pytest.raises(Unavailable, match="at version 9999.*deploy the newer api"):
            await database.run(schema.found)
    finally:
        await database.stop()
    assert await schema.found(superuser) == "9999"


async def test_migration_that_cannot_be_done_says_why(
    bare: Surroundings, superuser: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in bare.environment().items():
        monkeypatch.setenv(name, value)
    await superuser.execute("CREATE TABLE idempotency_keys ()")
    with pytest.raises(schema.SchemaError, match="idempotency_keys"):
        await schema.bring_up(superuser)
    assert await tables(superuser) == ["idempotency_keys"]


async def test_two_replicas_on_an_empty_database_are_both_ready(
    bare: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in bare.environment().items():
        monkeypatch.setenv(name, value)
    databases = [Database(bare.settings(f"api-{number}")) for number in (1, 2)]
    for database in databases:
        database.start()
    try:
        for database in databases:
            async with asyncio.timeout(15):
                while True:
                    try:
                        assert await database.run(schema.found) == schema.NEEDED
                        break
                    except Unavailable:
                        await asyncio.sleep(0.1)
    finally:
        for database in databases:
            await database.stop()
