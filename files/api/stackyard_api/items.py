"""Items: in the database, single ones read through the cache."""

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated

import asyncpg
import msgspec

from stackyard_api.cache import Cache
from stackyard_api.database import Database
from stackyard_api.problems import Problem, Unavailable

log = logging.getLogger("stackyard.items")

# PostgreSQL's bigint; no item can have a larger number.
LARGEST_ID = 2**63 - 1
COLUMNS = "id, name, note, created_at, updated_at"


class Draft(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client may say about an item."""

    name: str
    note: Annotated[str, msgspec.Meta(max_length=2000)] | None = None


class Item(msgspec.Struct, frozen=True):
    """An item as it is stored; the times are in UTC."""

    id: int
    name: str
    note: str | None
    created_at: datetime
    updated_at: datetime


def parse_draft(body: bytes) -> Draft:
    """A request's body as a draft with its name stripped; Problem 400 or 422."""
    try:
        draft = msgspec.json.decode(body, type=Draft)
    except msgspec.ValidationError as error:
        raise Problem(422, str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(400, f"The body is not valid JSON: {error}.") from error
    name = draft.name.strip()
    if not 1 <= len(name) <= 200:
        raise Problem(422, f"The name must have 1 to 200 characters, not {len(name)}.")
    if "\0" in name or "\0" in (draft.note or ""):
        raise Problem(422, "Name and note must not hold the character U+0000.")
    return Draft(name, draft.note)


class Items:
    """All that can be done with items; methods raise Unavailable without a database."""

    def __init__(self, database: Database, cache: Cache) -> None:
        self._database = database
        self._cache = cache

    async def page(self, limit: int, after: int | None) -> tuple[list[Item], int | None]:
        """Up to `limit` items, newest first, from behind item `after`.

        Returns them with the `after` of the next page, None when there is no more.
        """

        async def work(connection: asyncpg.Connection) -> list[asyncpg.Record]:
            return await connection.fetch(
                f"SELECT {COLUMNS} FROM items WHERE id < $1 ORDER BY id DESC LIMIT $2",
                LARGEST_ID if after is None else after,
                limit + 1,
            )

        rows = await self._database.run(work, repeatable=True)
        items = [Item(*row) for row in rows[:limit]]
        return items, items[-1].id if len(rows) > limit else None

    async def create(self, draft: Draft) -> Item:
        """Store a new item."""

        async def work(connection: asyncpg.Connection) -> asyncpg.Record:
            return await connection.fetchrow(
                f"INSERT INTO items (name, note) VALUES ($1, $2) RETURNING {COLUMNS}",
                draft.name,
                draft.note,
            )

        return Item(*await self._database.run(work, repeatable=False))

    async def read(self, number: int) -> tuple[Item, str]:
        """An item and its source, `cache` or `database`; Problem 404."""
        lease = None
        try:
            value, lease = await self._cache.item(number)
            if value is not None:
                return msgspec.json.decode(value, type=Item), "cache"
        except Unavailable:
            pass
        except msgspec.DecodeError:
            # Written by another version of this code, or by hand.
            log.warning("cache entry not readable", extra={"fields": {"item": number}})
            await self._cache.forget_item(number)

        async def work(connection: asyncpg.Connection) -> asyncpg.Record | None:
            return await connection.fetchrow(f"SELECT {COLUMNS} FROM items WHERE id = $1", number)

        row = await self._database.run(work, repeatable=True)
        if row is None:
            raise not_found(number)
        item = Item(*row)
        if lease is not None:
            try:
                await self._cache.keep_item(number, msgspec.json.encode(item), lease)
            except Unavailable:
                # Should the value have arrived after all, it may be outdated by now.
                await self._cache.forget_item(number)
        return item, "database"

    async def replace(self, number: int, draft: Draft) -> Item:
        """Give an item a new name and note; Problem 404."""

        async def work(connection: asyncpg.Connection) -> asyncpg.Record | None:
            return await connection.fetchrow(
                "UPDATE items SET name = $2, note = $3, updated_at = now() "
                f"WHERE id = $1 RETURNING {COLUMNS}",
                number,
                draft.name,
                draft.note,
            )

        row = await self._write(number, work)
        return Item(*row)

    async def delete(self, number: int) -> None:
        """Remove an item; Problem 404."""

        async def work(connection: asyncpg.Connection) -> asyncpg.Record | None:
            return await connection.fetchrow("DELETE FROM items WHERE id = $1 RETURNING id", number)

        await self._write(number, work)

    async def _write(
        self,
        number: int,
        work: Callable[[asyncpg.Connection], Awaitable[asyncpg.Record | None]],
    ) -> asyncpg.Record:
        try:
            row = await self._database.run(work, repeatable=False)
        finally:
            # Also after a failure: the database may have committed before it was lost.
            await self._cache.forget_item(number)
        if row is None:
            raise not_found(number)
        return row


def not_found(number: int) -> Problem:
    """The problem for an item that does not exist."""
    return Problem(404, f"There is no item {number}.")
