"""Items on two replicas: what one of them has written, both show, whatever meets whatever."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st
from redis.asyncio import Redis
from stackyard_api import schema
from stackyard_api.cache import PAUSE
from stackyard_api.items import Draft, Entity, Item
from stackyard_api.problems import Problem, Unavailable

from .conftest import Replica, Surroundings
from .scheduling import Schedule, held_after
from .servers import Servers, free_port, frozen

pytestmark = pytest.mark.anyio

Replicas = tuple[Replica, Replica]

DRAFT = Draft("a name", "a note")
OTHER = Draft("another name", None)
SELECTS = """
    SELECT coalesce(sum(calls), 0)::int FROM pg_stat_statements
    JOIN pg_database ON pg_database.oid = dbid
    WHERE datname = current_database() AND query LIKE 'SELECT % FROM items WHERE id = $1'
"""
OTHERS_CONNECTIONS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND usename = 'api'
"""


async def status_of(asked: Awaitable[object]) -> int:
    """Return the status of the problem that this ends with, 200 if with none."""
    try:
        await asked
    except Problem as problem:
        return problem.status
    except Unavailable:
        return 503
    return 200


def version_of(entity: Entity) -> int:
    """Return the version that an entity's tag names."""
    return int(entity.etag.strip('"').partition(".")[2])


async def seen(replica: Replica, number: int) -> float:
    """Return the version of an item that a replica shows, infinity for one that is gone."""
    try:
        return version_of(await replica.items.read(number))
    except Problem as problem:
        if problem.status != 404:
            raise
        return math.inf


@asynccontextmanager
async def without_right(onlooker: Redis, command: str) -> AsyncIterator[None]:
    """Take the right to a command from the api's user in the cache for a while."""
    await onlooker.execute_command("ACL", "SETUSER", "api", f"-{command}")
    try:
        yield
    finally:
        await onlooker.execute_command("ACL", "SETUSER", "api", f"+{command}")


@contextmanager
def within(seconds: float, what: str) -> Iterator[None]:
    """Fail if the block takes longer."""
    begin = time.monotonic()
    yield
    took = time.monotonic() - begin
    assert took < seconds, f"{what} took {took:.2f} s"


# What all replicas show


async def test_item_that_one_replica_creates_is_read_by_both(replicas: Replicas) -> None:
    one, two = replicas
    item = await one.items.create(DRAFT, None)
    assert (await two.items.read(item.id)).source == "database"
    entity = await one.items.read(item.id)
    assert (entity.source, version_of(entity)) == ("cache", 1)


async def test_write_shows_on_the_other_replica_at_once(replicas: Replicas) -> None:
    one, two = replicas
    item = await one.items.create(DRAFT, None)
    for version in range(2, 7):
        writer, reader = (one, two) if version % 2 else (two, one)
        await reader.items.read(item.id)
        await writer.items.replace(item.id, Draft(f"name {version}"), None)
        assert await seen(reader, item.id) == version
    await one.items.delete(item.id, None)
    assert await seen(two, item.id) == math.inf


async def test_absent_item_is_remembered_until_it_is_created(
    replicas: Replicas, admin: asyncpg.Connection
) -> None:
    one, two = replicas
    number = (await one.items.create(DRAFT, None)).id + 1
    assert await seen(one, number) == math.inf
    before = await admin.fetchval(SELECTS)
    assert await seen(two, number) == math.inf
    assert await admin.fetchval(SELECTS) == before
    assert (await two.items.create(DRAFT, None)).id == number
    assert await seen(one, number) == 1


async def test_item_found_absent_while_it_is_created_is_not_kept_as_absent(
    replicas: Replicas,
) -> None:
    one, two = replicas
    number = (await one.items.create(DRAFT, None)).id + 1
    with held_after(one.database, "run") as hold:
        reading = asyncio.create_task(seen(one, number))
        await hold.reached.wait()
        assert (await two.items.create(DRAFT, None)).id == number
        hold.go.set()
        assert await reading == math.inf
    assert await seen(one, number) == 1
    assert await seen(two, number) == 1


async def test_what_was_read_before_a_write_is_not_kept_after_it(
    replicas: Replicas, onlooker: Redis
) -> None:
    one, two = replicas
    item = await one.items.create(DRAFT, None)
    with held_after(one.database, "run") as hold:
        reading = asyncio.create_task(seen(one, item.id))
        await hold.reached.wait()
        await two.items.replace(item.id, OTHER, None)
        hold.go.set()
        assert await reading == 1
    assert await onlooker.get(f"item:{item.id}") is None
    assert await seen(two, item.id) == 2


async def test_what_was_read_before_a_write_does_not_end_a_later_readers_lease(
    replicas: Replicas,
) -> None:
    one, two = replicas
    item = await one.items.create(DRAFT, None)
    with held_after(one.database, "run") as early, held_after(two.cache, "claim_item") as late:
        first = asyncio.create_task(seen(one, item.id))
        await early.reached.wait()
        await two.items.replace(item.id, OTHER, None)
        # Has the lease by now, and what the first keeps must not take its place.
        second = asyncio.create_task(seen(two, item.id))
        await late.reached.wait()
        early.go.set()
        assert await first == 1
        late.go.set()
        assert await second == 2
    assert await seen(one, item.id) == 2


async def test_reader_that_comes_after_a_write_does_not_join_a_look_from_before_it(
    replicas: Replicas,
) -> None:
    one, _ = replicas
    item = await one.items.create(DRAFT, None)
    with held_after(one.database, "run") as hold:
        first = asyncio.create_task(seen(one, item.id))
        await hold.reached.wait()
        await one.items.replace(item.id, OTHER, None)
        second = asyncio.create_task(seen(one, item.id))
        await asyncio.sleep(0.01)
        hold.go.set()
        assert (await first, await second) == (1, 2)


@hypothesis.given(
    operations=st.lists(
        st.tuples(st.sampled_from(["read", "read", "read", "replace", "delete"]), st.booleans()),
        min_size=2,
        max_size=6,
    ),
    choices=st.lists(st.integers(0, 20), min_size=10, max_size=60),
)
async def test_read_that_begins_after_a_write_has_returned_never_shows_less(
    gated: tuple[Replicas, Schedule],
    operations: list[tuple[str, bool]],
    choices: list[int],
) -> None:
    replicas, schedule = gated
    item = await replicas[0].items.create(DRAFT, None)
    moments = iter(range(1_000_000))
    # When it had returned, and what it wrote; when it began, and what it saw.
    written: list[tuple[int, float]] = []
    reads: list[tuple[int, float, str]] = []

    async def read(replica: Replica, name: str) -> None:
        begun = next(moments)
        reads.append((begun, await seen(replica, item.id), name))

    async def write(replica: Replica, name: str, kind: str) -> None:
        version = math.inf
        try:
            if kind == "delete":
                await replica.items.delete(item.id, None)
            else:
                draft = Draft(name)
                version = (await replica.items.replace(item.id, draft, None)).version
        except Problem as problem:
            if problem.status != 404:
                raise
        written.append((next(moments), version))

    def operation(index: int) -> Callable[[], Coroutine[Any, Any, None]]:
        kind, second = operations[index]
        name = f"{kind} {index} on {2 if second else 1}"
        if kind == "read":
            return lambda: read(replicas[second], name)
        return lambda: write(replicas[second], name, kind)

    await schedule.run([operation(index) for index in range(len(operations))], choices)
    newest = max([1, *(version for _, version in written)])
    for begun, version, name in reads:
        least = max([1, *(of for returned, of in written if returned < begun)])
        assert least <= version <= newest, f"{name} showed {version}, {least} was written"
    # What a late one may have kept would be shown now.
    assert [await seen(replica, item.id) for replica in replicas] == [newest, newest]


@pytest.fixture
def gated(replicas: Replicas) -> tuple[Replicas, Schedule]:
    """Return replicas whose every question to a server is a moment at which others may go on."""
    schedule = Schedule()
    for replica in replicas:
        for method in ("claim_item", "keep_item", "forget_item"):
            schedule.gate(replica.cache, method)
        schedule.gate(replica.database, "run")
    return replicas, schedule


# How often the database is asked


async def test_fifty_readers_on_two_replicas_cost_one_select(
    replicas: Replicas, admin: asyncpg.Connection
) -> None:
    item = await replicas[0].items.create(DRAFT, None)
    before = await admin.fetchval(SELECTS)
    entities = await asyncio.gather(
        *(replicas[index % 2].items.read(item.id) for index in range(50))
    )
    assert {version_of(entity) for entity in entities} == {1}
    assert await admin.fetchval(SELECTS) - before == 1


# If-Match


async def test_of_ten_replaces_of_one_version_exactly_one_wins(replicas: Replicas) -> None:
    item = await replicas[0].items.create(DRAFT, None)
    results = await asyncio.gather(
        *(
            replicas[index % 2].items.replace(item.id, Draft(f"by {index}"), [1])
            for index in range(10)
        ),
        return_exceptions=True,
    )
    (won,) = [result for result in results if isinstance(result, Item)]
    lost = [result for result in results if isinstance(result, Problem)]
    assert [(each.status, each.headers) for each in lost] == [(412, {"ETag": won.etag})] * 9
    entity = await replicas[1].items.read(item.id)
    assert (entity.etag, won.name.encode() in entity.body) == (won.etag, True)


async def test_replace_that_a_proxy_repeats_gets_the_same_answer(replicas: Replicas) -> None:
    item = await replicas[0].items.create(DRAFT, None)
    first = await replicas[0].items.replace(item.id, OTHER, [1])
    assert await replicas[1].items.replace(item.id, OTHER, [1]) == first


async def test_deletes_of_another_version_are_refused(replicas: Replicas) -> None:
    item = await replicas[0].items.create(DRAFT, None)
    assert await status_of(replicas[1].items.delete(item.id, [2, 3])) == 412
    assert await status_of(replicas[1].items.delete(item.id, [])) == 412
    assert await seen(replicas[1], item.id) == 1
    assert await status_of(replicas[1].items.delete(item.id, [2, 1])) == 200
    assert await status_of(replicas[0].items.delete(item.id, [1])) == 404


# Idempotency-Key


async def rows(admin: asyncpg.Connection) -> int:
    """Return how many items there are."""
    count: int = await admin.fetchval("SELECT count(*) FROM items")
    return count


async def test_twenty_creates_with_one_key_make_one_item(
    replicas: Replicas, admin: asyncpg.Connection
) -> None:
    items = await asyncio.gather(
        *(replicas[index % 2].items.create(DRAFT, "a key") for index in range(20))
    )
    assert len(set(items)) == 1
    assert await rows(admin) == 1


async def test_key_that_came_with_another_item_is_refused(
    replicas: Replicas, admin: asyncpg.Connection
) -> None:
    await replicas[0].items.create(DRAFT, "a key")
    assert await status_of(replicas[1].items.create(OTHER, "a key")) == 422
    assert await rows(admin) == 1


async def test_creates_with_other_keys_or_none_make_items_of_their_own(
    replicas: Replicas, admin: asyncpg.Connection
) -> None:
    for key in ("a key", "another", None, None):
        await replicas[0].items.create(DRAFT, key)
    assert await rows(admin) == 4


async def test_key_is_good_for_a_day_and_then_goes(
    replicas: Replicas, admin: asyncpg.Connection
) -> None:
    await replicas[0].items.create(DRAFT, "a key")
    await admin.execute("UPDATE idempotency_keys SET created_at = now() - interval '25 hours'")
    await replicas[0].items.create(DRAFT, "another")
    assert [row[0] for row in await admin.fetch("SELECT key FROM idempotency_keys")] == ["another"]


async def test_create_whose_connection_is_killed_makes_one_item(
    replicas: Replicas, surroundings: Surroundings, admin: asyncpg.Connection
) -> None:
    await replicas[0].items.create(OTHER, None)
    holder = await surroundings.superuser()
    async with holder.transaction():
        # The key is stored by then, and the item waits.
        await holder.execute("LOCK TABLE items IN EXCLUSIVE MODE")
        creating = asyncio.create_task(replicas[0].items.create(DRAFT, "a key"))
        async with asyncio.timeout(5):
            while not await admin.fetchval(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE usename = 'api' AND datname = current_database() "
                "AND wait_event_type = 'Lock' LIMIT 1"
            ):
                await asyncio.sleep(0.01)
    await holder.close()
    item = await creating
    assert await replicas[1].items.create(DRAFT, "a key") == item
    assert await rows(admin) == 2


# Lists


async def names(replica: Replica, search: str) -> list[str]:
    """Return the names of the items that a search finds, without the quotes of JSON."""
    body = (await replica.items.page(100, None, search)).body.decode()
    return [part.partition('"')[0] for part in body.split('"name":"')[1:]]


@pytest.mark.parametrize(("search", "found"), [
    ("%", ["100%"]),
    ("_", ["a_b"]),
    ("\\", ["back\\\\slash"]),
    ("A_B", ["a_b"]),
    ("ÄRGER", ["Ärger"]),
    ("note", ["with a note"]),
    ("'; DROP TABLE items; --", []),
    ("", ["with a note", "Ärger", "back\\\\slash", "axb", "a_b", "100%"]),
])  # fmt: skip
async def test_search_finds_what_it_says_and_nothing_else(
    replicas: Replicas, search: str, found: list[str]
) -> None:
    for name in ("100%", "a_b", "axb", "back\\slash", "Ärger"):
        await replicas[0].items.create(Draft(name), None)
    await replicas[0].items.create(Draft("with a note", "a Note"), None)
    assert await names(replicas[1], search) == found


async def test_pages_hold_each_item_once_and_the_last_says_so(replicas: Replicas) -> None:
    created = [(await replicas[0].items.create(DRAFT, None)).id for _ in range(7)]
    after, listed = None, []
    while True:
        page = msgspec.json.decode((await replicas[1].items.page(3, after, "")).body)
        listed.append([item["id"] for item in page["items"]])
        after = page["next"]
        if after is None:
            break
    assert listed == [created[:3:-1], created[3:0:-1], created[:1]]


# Without the cache, and without the database


async def test_frozen_cache_slows_down_the_first_read_alone(
    replicas: Replicas, servers: Servers
) -> None:
    one, two = replicas
    item = await one.items.create(DRAFT, None)
    await one.items.read(item.id)
    with frozen(servers.cache):
        with within(1.5, "the first read without a cache"):
            assert (await one.items.read(item.id)).source == "database"
        with within(0.3, "five reads after it"):
            for _ in range(5):
                assert (await one.items.read(item.id)).source == "database"
        with within(2.5, "a write without a cache"):
            await two.items.replace(item.id, OTHER, None)
    async with asyncio.timeout(5):
        while (await two.items.read(item.id)).source != "cache":
            await asyncio.sleep(0.05)
    assert await seen(two, item.id) == 2


async def test_lost_removals_are_made_up_for_by_the_next_request(
    replicas: Replicas, onlooker: Redis
) -> None:
    one, two = replicas
    *lost, other = [(await one.items.create(DRAFT, None)).id for _ in range(4)]
    for number in lost:
        await two.items.read(number)
    async with without_right(onlooker, "del"):
        for number in lost:
            await one.items.replace(number, OTHER, None)
            # Who wrote it knows that the entry is not to be believed.
            assert await seen(one, number) == 2
    # Longer than the cache is left alone after a failure.
    await asyncio.sleep(PAUSE + 0.1)
    await one.items.read(other)
    assert [await seen(two, number) for number in lost] == [2, 2, 2]


async def test_lost_removal_is_made_up_for_without_a_request(
    replicas: Replicas, onlooker: Redis
) -> None:
    one, two = replicas
    item = await one.items.create(DRAFT, None)
    await two.items.read(item.id)
    async with without_right(onlooker, "del"):
        await one.items.replace(item.id, OTHER, None)
    async with asyncio.timeout(4):
        while await seen(two, item.id) != 2:
            # All that a replica without requests is asked is its health.
            await one.cache.ping()
            await asyncio.sleep(0.2)


async def test_cache_that_has_lost_everything_is_filled_again(
    replicas: Replicas, onlooker: Redis
) -> None:
    one, two = replicas
    item = await one.items.create(DRAFT, None)
    await one.items.read(item.id)
    await onlooker.flushall()
    assert (await two.items.read(item.id)).source == "database"
    assert (await one.items.read(item.id)).source == "cache"


async def test_frozen_database_leaves_cached_items_and_the_last_lists(
    replicas: Replicas, servers: Servers
) -> None:
    one, two = replicas
    item, other = [await one.items.create(DRAFT, None) for _ in range(2)]
    await one.items.read(item.id)
    listing = await one.items.page(10, None, "")
    with frozen(servers.database), within(4.5, "all answers without a database"):
        assert (await two.items.read(item.id)).source == "cache"
        stale, *statuses = await asyncio.gather(
            two.items.page(10, None, ""),
            status_of(two.items.page(10, None, "never asked before")),
            status_of(two.items.read(other.id)),
            status_of(two.items.replace(item.id, OTHER, None)),
            status_of(two.items.create(DRAFT, "a key")),
        )
        assert (stale.body, stale.etag, stale.source) == (listing.body, listing.etag, "stale")
        assert 0 <= stale.age <= 5
        assert statuses == [503] * 4
    async with asyncio.timeout(5):
        while await status_of(two.items.read(other.id)) == 503:
            await asyncio.sleep(0.1)


async def test_reads_survive_the_end_of_all_connections(
    replicas: Replicas, admin: asyncpg.Connection
) -> None:
    one, two = replicas
    item = await one.items.create(DRAFT, None)
    for turn in range(5):
        await asyncio.gather(*(two.items.page(10, None, f"{turn} {n}") for n in range(8)))
        await admin.execute(OTHERS_CONNECTIONS)
        pages = (two.items.page(10, None, f"{turn} {n}") for n in range(20))
        assert {each.source for each in await asyncio.gather(*pages)} == {"database"}
    assert await seen(one, item.id) == 1


async def test_pool_is_whole_after_connections_were_killed_under_load(
    replicas: Replicas, admin: asyncpg.Connection
) -> None:
    one, _ = replicas
    most = one.settings.database_pool_size

    loaded = asyncio.Event()

    async def load() -> None:
        while not loaded.is_set():
            # What becomes of these is another check's.
            with contextlib.suppress(Exception):
                await one.items.page(10, None, "")
            await asyncio.sleep(0)

    loading = [asyncio.create_task(load()) for _ in range(2 * most)]
    for _ in range(10):
        await asyncio.sleep(0.1)
        await admin.execute(OTHERS_CONNECTIONS)
    loaded.set()
    async with asyncio.timeout(10):
        await asyncio.gather(*loading)
    # As many at once as there may be connections: one that is lost would make the last one wait.
    async with asyncio.timeout(5):
        await asyncio.gather(*(one.database.run(meet(most)) for _ in range(most)))


def meet(count: int) -> Callable[[asyncpg.Connection], Awaitable[None]]:
    """Return work that ends when so many connections of the api do it at the same time."""

    async def work(connection: asyncpg.Connection) -> None:
        await connection.execute("SELECT pg_advisory_lock_shared(1)")
        while (
            await connection.fetchval(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 1 "
                "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
            < count
        ):
            await asyncio.sleep(0.01)

    return work


async def test_servers_that_are_not_there_are_told_apart(surroundings: Surroundings) -> None:
    settings = surroundings.settings()
    nowhere = free_port()
    reasons = {
        "the connection is refused": dataclasses.replace(
            settings, database_port=nowhere, cache_port=nowhere
        ),
        "the password is refused": dataclasses.replace(
            settings,
            database_password_file=surroundings.config,
            cache_password_file=surroundings.config,
        ),
        "cannot read /nonexistent: No such file or directory": dataclasses.replace(
            settings,
            database_password_file=Path("/nonexistent"),
            cache_password_file=Path("/nonexistent"),
        ),
        "its name is not known": dataclasses.replace(
            settings, database_host="nobody.invalid", cache_host="nobody.invalid"
        ),
    }
    for reason, wrong in reasons.items():
        replica = Replica.start(wrong)
        try:
            with within(4.0, reason):
                with pytest.raises(Unavailable, match=reason):
                    await replica.database.run(schema.found)
                # Anybody may ask the cache whether it lives, the api's password or not.
                with pytest.raises(Unavailable, match=reason):
                    await replica.cache.visit(None)
        finally:
            await replica.stop()


async def test_replica_without_a_cache_answers_from_the_database(
    surroundings: Surroundings,
) -> None:
    replica = Replica.start(dataclasses.replace(surroundings.settings(), cache_port=free_port()))
    try:
        item = await replica.items.create(DRAFT, None)
        with within(2, "all answers without a cache"):
            for version in range(2, 8):
                await replica.items.replace(item.id, Draft(f"name {version}"), [version - 1])
                entity = await replica.items.read(item.id)
                assert (entity.source, version_of(entity)) == ("database", version)
            assert (await replica.items.page(10, None, "")).source == "database"
    finally:
        await replica.stop()


# Sessions


async def test_session_is_counted_by_both_replicas(replicas: Replicas) -> None:
    one, two = replicas
    session, visits = await one.cache.visit(None)
    assert visits == 1
    assert await two.cache.visit(session) == (session, 2)
    assert await one.cache.visit(session) == (session, 3)


async def test_session_that_the_cache_lost_gets_a_new_id(
    replicas: Replicas, onlooker: Redis
) -> None:
    one, two = replicas
    lost, _ = await one.cache.visit(None)
    await onlooker.flushall()
    session, visits = await two.cache.visit(lost)
    assert (visits, session != lost) == (1, True)
    assert [key.decode() for key in await onlooker.keys("session:*")] == [f"session:{session}"]


async def test_sessions_end_by_themselves(
    replicas: Replicas, onlooker: Redis, surroundings: Surroundings
) -> None:
    session, _ = await replicas[0].cache.visit(None)
    await replicas[0].cache.visit(session)
    assert 0 < await onlooker.ttl(f"session:{session}") <= surroundings.settings().session_ttl


# Passwords that are rotated


async def test_new_database_password_is_used_by_new_connections(
    replicas: Replicas, surroundings: Surroundings, admin: asyncpg.Connection
) -> None:
    one, _ = replicas
    old = surroundings.servers.stack.database
    answered = 0
    stop = asyncio.Event()

    async def ask() -> None:
        nonlocal answered
        while not stop.is_set():
            # Without a database the cache would answer.
            assert (await one.items.page(10, None, "")).source == "database"
            answered += 1

    await one.items.page(10, None, "")
    asking = asyncio.create_task(ask())
    try:
        # First both are in the file; then the server changes; then the old one leaves the file.
        for step in (
            lambda: surroundings.database_password.write_text(f"{old}\nrotated\n"),
            lambda: None,
            lambda: surroundings.database_password.write_text("rotated\n"),
        ):
            step()
            await admin.execute(OTHERS_CONNECTIONS)
            before = answered
            while answered < before + 10:
                assert not asking.done(), asking.exception()
                await asyncio.sleep(0.01)
            await admin.execute("ALTER ROLE api PASSWORD 'rotated'")
        await admin.execute(OTHERS_CONNECTIONS)
        before = answered
        while answered < before + 10:
            assert not asking.done(), asking.exception()
            await asyncio.sleep(0.01)
        stop.set()
        await asking
    finally:
        await admin.execute(f"ALTER ROLE api PASSWORD '{old}'")


async def test_new_cache_password_is_used_by_new_connections(
    replicas: Replicas, surroundings: Surroundings, onlooker: Redis
) -> None:
    one, _ = replicas
    old = surroundings.servers.stack.cache
    session, _ = await one.cache.visit(None)
    try:
        await onlooker.execute_command("ACL", "SETUSER", "api", "resetpass", ">rotated")
        surroundings.cache_password.write_text("rotated\n", encoding="utf-8")
        assert (await one.cache.visit(session))[1] == 2
        await onlooker.execute_command("CLIENT", "KILL", "USER", "api")
        assert (await one.cache.visit(session))[1] == 3
    finally:
        await onlooker.execute_command("ACL", "SETUSER", "api", "resetpass", f">{old}")
