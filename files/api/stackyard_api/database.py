"""PostgreSQL: a pool that comes up by itself, and bounds on every wait."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import asyncpg

from stackyard_api import schema
from stackyard_api.connection import connect
from stackyard_api.problems import Unavailable
from stackyard_api.settings import Settings

log = logging.getLogger("stackyard.database")

T = TypeVar("T")

# Seconds. Together below nginx's patience, so that the reason gets through.
CONNECT = 1.5
ACQUIRE = 1.5
QUERY = 2.0
# Requests that may wait for a connection.
QUEUE = 64

# What means "not now" rather than "a defect here". RuntimeError's subclass
# InterfaceError is what asyncpg raises on a connection that has just gone.
AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.ReadOnlySQLTransactionError,
)
# After these nothing is known of what the server did with the last statement.
LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    ConnectionError,
)


def explain(error: BaseException) -> str:
    """One line about what is wrong with the database."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, asyncpg.InvalidPasswordError):
        return "the password is refused"
    if isinstance(error, asyncpg.DiskFullError):
        return "its disk is full"
    if isinstance(error, socket.gaierror):
        return "its name is not known: it is not running, or cut off from the network"
    if isinstance(error, OSError) and error.filename:
        return f"cannot read {error.filename}: {error.strerror}"
    if isinstance(error, ConnectionRefusedError):
        return "the connection is refused"
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:160]}" if text else type(error).__name__


async def _keep_session(_connection: object) -> None:
    pass


class Database:
    """Connections to the database, whether it is there or not."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool: asyncpg.Pool | None = None
        self._opening: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()
        self._reason = "not connected yet"
        self._away = False
        self._waiting = 0
        self.refusal = ""

    @property
    def connections(self) -> dict[str, int]:
        """How many connections are open, how many of them are idle, and how many there may be."""
        pool = self._pool
        return {
            "open": pool.get_size() if pool else 0,
            "idle": pool.get_idle_size() if pool else 0,
            "most": self._settings.database_pool_size,
        }

    def start(self) -> None:
        """Begin to connect and migrate in the background, for as long as it takes."""
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open())

    async def stop(self) -> None:
        """Close the pool: in good order if that works at once, else abruptly."""
        if self._opening:
            self._opening.cancel()
        if self._pool:
            try:
                async with asyncio.timeout(1):
                    await self._pool.close()
            except (TimeoutError, *AWAY):
                self._pool.terminate()

    async def run(
        self,
        work: Callable[[asyncpg.Connection], Awaitable[T]],
        *,
        writes: bool = False,
        repeatable: bool | None = None,
    ) -> T:
        """Do `work` on a connection within 3.5 s, or raise Unavailable.

        Repeatable work (reads, and writes that say so) gets a second try when its connection
        turns out to be dead, as all pooled ones are after the database has restarted. At most
        QUEUE wait for a connection; for more the database counts as busy.
        """
        if repeatable is None:
            repeatable = not writes
        try:
            try:
                result = await self._once(work)
            except LOST:
                if not repeatable:
                    raise
                result = await self._once(work)
        except asyncpg.UndefinedTableError as error:
            # Someone put an empty database in place of ours.
            self._discard("the schema is gone, creating it again")
            raise Unavailable("the schema is gone, creating it again") from error
        except AWAY as error:
            reason = explain(error)
            if isinstance(error, asyncpg.DiskFullError) and writes:
                # Reads go on: the database is not away.
                self._note_refusal(reason)
                raise Unavailable(reason) from error
            if not self._away:
                log.warning("database away: %s", reason)
            self._away = True
            raise Unavailable(reason) from error
        if self._away:
            log.info("database back")
        self._away = False
        if writes:
            self._note_refusal("")
        return result

    def _note_refusal(self, reason: str) -> None:
        """Keep why the last write was refused, nothing if it was not, for /health to say."""
        if reason and not self.refusal:
            log.warning("database refuses writes: %s", reason)
        elif self.refusal and not reason:
            log.info("database accepts writes again")
        self.refusal = reason

    async def _once(self, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        if self._pool is None:
            # A replica that has just started is asked at once: its first attempt to
            # connect is about to succeed.
            async with asyncio.timeout(ACQUIRE):
                await self._tried.wait()
        pool = self._pool
        if pool is None:
            raise Unavailable(self._reason)
        if self._waiting >= QUEUE:
            raise Unavailable(f"{QUEUE} requests wait for it already")
        self._waiting += 1
        try:
            connection = await pool.acquire(timeout=ACQUIRE)
        finally:
            self._waiting -= 1
        try:
            async with asyncio.timeout(QUERY):
                return await work(connection)
        except (TimeoutError, asyncio.CancelledError):
            # A frozen server does not answer a cancel request either: hang up.
            connection.terminate()
            raise
        finally:
            # The answer is in: trouble while tidying up must not turn it into an error.
            with contextlib.suppress(*AWAY):
                if connection.is_closed():
                    # By the server, just now: asyncpg would count its place as taken for good.
                    connection.terminate()
                await pool.release(connection, timeout=1)

    def _discard(self, reason: str) -> None:
        if self._pool:
            self._pool.terminate()
        self._pool = None
        self._reason = reason
        self._tried.clear()
        self.start()

    async def _open(self) -> None:
        while self._pool is None:
            delay = 0.5
            try:
                await self._bring_up_schema()
                self._pool = await self._create_pool()
            except schema.SchemaError as error:
                reason, delay = str(error), 5.0
            except (*AWAY, asyncpg.PostgresError) as error:
                reason = explain(error)
            else:
                log.info("database ready, schema version %s", schema.NEEDED)
                self._tried.set()
                return
            self._tried.set()
            if reason != self._reason:
                log.warning("database not ready: %s", reason)
            self._reason = reason
            await asyncio.sleep(delay)

    async def _bring_up_schema(self) -> None:
        connection = await self._connect(statement_cache_size=0)
        try:
            await schema.bring_up(connection)
        finally:
            connection.terminate()

    async def _create_pool(self) -> asyncpg.Pool:
        pool = asyncpg.create_pool(
            connect=self._connect,
            min_size=1,
            max_size=self._settings.database_pool_size,
            max_inactive_connection_lifetime=60,
            # No request leaves anything behind in its session: asyncpg's own reset would be one
            # more question for each.
            reset=_keep_session,
        )
        return await pool

    async def _connect(self, *_arguments: object, **options: Any) -> asyncpg.Connection:
        return await connect(
            self._settings,
            **options,
            timeout=CONNECT,
            server_settings={
                "application_name": f"stackyard-api {self._settings.replica}",
                # The server's own bound, should we hang up without its noticing.
                "statement_timeout": "30000",
                "idle_in_transaction_session_timeout": "30000",
            },
        )
