"""Items: in the database, single ones read through the cache."""

import asyncio
import contextlib
import hashlib
import re
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, NamedTuple, TypeVar

import asyncpg
import msgspec

from stackyard_api import metrics
from stackyard_api.cache import ABSENT, Cache
from stackyard_api.database import Database
from stackyard_api.flights import Flights
from stackyard_api.problems import FieldError, Problem, Unavailable

T = TypeVar("T")

# PostgreSQL's bigint; no item can have a larger number.
LARGEST_ID = 2**63 - 1
LONGEST_NAME = 200
LONGEST_NOTE = 2000
NOT_BLANK = r"^[^\x00]*[^\s\x00][^\x00]*$"
WITHOUT_NUL = r"^[^\x00]*$"
COLUMNS = "id, name, note, version, created_at, updated_at"

# What LIKE gives a meaning.
SPECIAL = re.compile(r"([%_\\])")
NOT_SPECIAL = r"\\\1"

# Seconds: between two looks at what another replica is fetching, and for all of them.
LOOK = 0.005
LOOKS = 0.5


class Draft(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client may say about an item. PostgreSQL has no way to keep U+0000."""

    name: Annotated[str, msgspec.Meta(max_length=LONGEST_NAME, pattern=NOT_BLANK)]
    note: Annotated[str, msgspec.Meta(max_length=LONGEST_NOTE, pattern=WITHOUT_NUL)] | None = None


# The same for people.
RULES = {
    "name": f"The name must be text of 1 to {LONGEST_NAME} characters, not blanks alone.",
    "note": f"The note may be text of {LONGEST_NOTE} characters at most.",
}


class Item(msgspec.Struct, frozen=True):
    """An item as it is stored; the times are in UTC, `version` counts its changes from 1."""

    id: int
    name: str
    note: str | None
    version: int
    created_at: datetime
    updated_at: datetime

    @property
    def etag(self) -> str:
        """The entity tag, quotes included."""
        return etag(self.id, self.version)


class Page(msgspec.Struct, frozen=True):
    """Some items, newest first; `next` is the `after` of the following page, if there is one."""

    items: list[Item]
    next: int | None


class Entity(NamedTuple):
    """An item as JSON, its entity tag, and its source: `cache` or `database`."""

    body: bytes
    etag: str
    source: str


class Listing(NamedTuple):
    """A page as JSON, its entity tag, its source, `database` or `stale`, and its age in seconds."""

    body: bytes
    etag: str
    source: str
    age: int


def etag(number: int, version: int | str) -> str:
    """An item's entity tag, quotes included; it changes with each change of the item."""
    return f'"{number}.{version}"'


def parse_draft(body: bytes) -> Draft:
    """A request's body as a draft, its name without blanks around it; Problem 400 or 422."""
    try:
        draft = msgspec.json.decode(body, type=Draft)
    except msgspec.ValidationError as error:
        # msgspec names the field in its text, and only there.
        named = re.search(r"(?:at `\$\.|field `)(\w+)`$", str(error))
        field = named[1] if named else ""
        # The name of an unknown field may hold anything.
        detail = RULES.get(field, " ".join(f"{error}.".split()))
        pointer = f"#/{field}" if field else "#"
        raise Problem(422, detail, errors=[FieldError(pointer, detail)]) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(400, f"The body is not valid JSON: {error}.") from error
    return Draft(draft.name.strip(), draft.note)


def not_found(number: int) -> Problem:
    """The problem for an item that does not exist."""
    return Problem(404, f"There is no item {number}.")


class Items:
    """All that can be done with items; methods raise Unavailable without a database."""

    def __init__(self, database: Database, cache: Cache) -> None:
        self._database = database
        self._cache = cache
        self._reads: Flights[int, Entity | None] = Flights()

    async def page(self, limit: int, after: int | None, search: str) -> Listing:
        """Up to `limit` items, newest first, from behind item `after`.

        With a `search`, those whose name or note holds it, in upper or lower case. Any write may
        change any list, so lists come from the database; the cache keeps the last answer to each
        for the time without one.
        """
        condition = ""
        arguments: list[object] = [LARGEST_ID if after is None else after, limit + 1]
        if search:
            condition = "AND (name ILIKE $3 OR note ILIKE $3)"
            arguments.append(f"%{SPECIAL.sub(NOT_SPECIAL, search)}%")

        async def work(connection: asyncpg.Connection) -> list[asyncpg.Record]:
            rows: list[asyncpg.Record] = await connection.fetch(
                f"SELECT {COLUMNS} FROM items WHERE id < $1 {condition} ORDER BY id DESC LIMIT $2",
                *arguments,
            )
            return rows

        name = f"{limit}:{arguments[0]}:{search}"
        try:
            rows = await self._database.run(work)
        except Unavailable:
            kept = await self._kept_page(name)
            if kept is None:
                raise
            return kept
        items = [Item(*row) for row in rows[:limit]]
        page = Page(items, items[-1].id if len(rows) > limit else None)
        body = msgspec.json.encode(page)
        with contextlib.suppress(Unavailable):
            await self._cache.keep_page(name, b"%d %b" % (time.time(), body))
        return Listing(body, _tag_of(body), "database", 0)

    async def _kept_page(self, name: str) -> Listing | None:
        with contextlib.suppress(Unavailable):
            if kept := await self._cache.page(name):
                since, _, body = kept.partition(b" ")
                age = max(0, int(time.time()) - int(since))
                return Listing(body, _tag_of(body), "stale", age)
        return None

    async def create(self, draft: Draft, key: str | None) -> Item:
        """Store a new item; with a key, once, however often it is asked for within a day.

        The key is that of draft-ietf-httpapi-idempotency-key-header.
        Problem 422 where the key came with another draft before.
        """

        async def insert(connection: asyncpg.Connection) -> Item:
            row = await connection.fetchrow(
                f"INSERT INTO items (name, note) VALUES ($1, $2) RETURNING {COLUMNS}",
                draft.name,
                draft.note,
            )
            return Item(*row)

        async def insert_once(connection: asyncpg.Connection) -> Item:
            asked = hashlib.sha256(msgspec.json.encode(draft)).digest()
            async with connection.transaction():
                # Waits for whoever stores under this key at the moment.
                claimed = await connection.fetchval(
                    "INSERT INTO idempotency_keys (key, request) VALUES ($1, $2) "
                    "ON CONFLICT DO NOTHING RETURNING true",
                    key,
                    asked,
                )
                if not claimed:
                    known = await connection.fetchrow(
                        "SELECT request, answer FROM idempotency_keys WHERE key = $1", key
                    )
                    if known["request"] != asked:
                        raise Problem(422, "This Idempotency-Key came with another item before.")
                    return msgspec.json.decode(known["answer"], type=Item)
                item = await insert(connection)
                await connection.execute(
                    "UPDATE idempotency_keys SET answer = $2 WHERE key = $1",
                    key,
                    msgspec.json.encode(item),
                )
                # Two for each that comes: there are never many more than a day's.
                await connection.execute(
                    "DELETE FROM idempotency_keys WHERE key IN ("
                    "SELECT key FROM idempotency_keys WHERE created_at < now() - interval '1 day' "
                    "ORDER BY created_at LIMIT 2 FOR UPDATE SKIP LOCKED)"
                )
                return item

        if key is None:
            item = await self._database.run(insert, writes=True)
        else:
            item = await self._database.run(insert_once, writes=True, repeatable=True)
        # Somebody may have asked for this number before, and the cache know that it is absent.
        await self._cache.forget_item(item.id)
        return item

    async def read(self, number: int) -> Entity:
        """An item; Problem 404. Those who ask at the same time share one look."""
        entity = await self._reads.share(number, lambda: self._read(number))
        if entity is None:
            raise not_found(number)
        metrics.READS.labels(entity.source).inc()
        return entity

    async def _read(self, number: int) -> Entity | None:
        value, lease = await self._claim(number)
        if value == ABSENT:
            return None
        if value is not None:
            version, _, body = value.partition(b" ")
            return Entity(body, etag(number, version.decode()), "cache")

        async def work(connection: asyncpg.Connection) -> asyncpg.Record | None:
            return await connection.fetchrow(f"SELECT {COLUMNS} FROM items WHERE id = $1", number)

        try:
            row = await self._database.run(work)
        except Unavailable:
            if lease is not None:
                # Or those who ask next would wait for it.
                await self._cache.forget_item(number)
            raise
        item = Item(*row) if row else None
        body = msgspec.json.encode(item)
        if lease is not None:
            value = b"%d %b" % (item.version, body) if item else ABSENT
            with contextlib.suppress(Unavailable):
                await self._cache.keep_item(number, value, lease)
        return Entity(body, item.etag, "database") if item else None

    async def _claim(self, number: int) -> tuple[bytes | None, bytes | None]:
        """The item's entry in the cache, or the right to make one, or neither.

        Waits a little for another replica that is fetching it; with neither, the database has to
        be asked and the answer is not kept.
        """
        end = time.monotonic() + LOOKS
        with contextlib.suppress(Unavailable):
            while True:
                value, lease = await self._cache.claim_item(number)
                if value is not None or lease is not None or time.monotonic() > end:
                    return value, lease
                await asyncio.sleep(LOOK)
        return None, None

    async def replace(self, number: int, draft: Draft, expected: list[int] | None) -> Item:
        """Give an item a new name and note; Problem 404, or 412 for another version (RFC 9110).

        `expected` has the versions that may be replaced, None means any.
        """

        async def work(connection: asyncpg.Connection) -> Item:
            row = await connection.fetchrow(
                "UPDATE items SET name = $2, note = $3, version = version + 1, updated_at = now() "
                "WHERE id = $1 AND ($4::bigint[] IS NULL OR version = ANY ($4)) "
                f"RETURNING {COLUMNS}",
                number,
                draft.name,
                draft.note,
                expected,
            )
            if row is None:
                item = await _present(connection, number)
                # What a proxy repeats was done already: it gets the same answer.
                if Draft(item.name, item.note) == draft and item.version - 1 in (expected or ()):
                    return item
                raise _changed(item)
            return Item(*row)

        return await self._write(number, work)

    async def delete(self, number: int, expected: list[int] | None) -> None:
        """Remove an item; Problem 404, or 412 for another version than those expected."""

        async def work(connection: asyncpg.Connection) -> None:
            gone = await connection.fetchval(
                "DELETE FROM items WHERE id = $1 "
                "AND ($2::bigint[] IS NULL OR version = ANY ($2)) RETURNING true",
                number,
                expected,
            )
            if not gone:
                raise _changed(await _present(connection, number))

        await self._write(number, work)

    async def _write(self, number: int, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        try:
            return await self._database.run(work, writes=True)
        finally:
            # Also after a failure: the database may have committed before it was lost.
            await self._cache.forget_item(number)


async def _present(connection: asyncpg.Connection, number: int) -> Item:
    row = await connection.fetchrow(f"SELECT {COLUMNS} FROM items WHERE id = $1", number)
    if row is None:
        raise not_found(number)
    return Item(*row)


def _changed(item: Item) -> Problem:
    detail = f"Item {item.id} was changed meanwhile: it is at version {item.version} now."
    return Problem(412, detail, {"ETag": item.etag})


def _tag_of(body: bytes) -> str:
    return f'"{hashlib.blake2b(body, digest_size=8).hexdigest()}"'
