"""Redis: items for a while, and sessions. All of it may be lost at any time.

Leases on items are those of Nishtala et al., "Scaling Memcache at Facebook" (NSDI 2013), 3.2.1.
"""

import asyncio
import contextlib
import itertools
import logging
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from stackyard_api.problems import Unavailable
from stackyard_api.settings import Settings, read_passwords

log = logging.getLogger("stackyard.cache")

T = TypeVar("T")

# Seconds.
ANSWER = 0.4
WHOLE = 1.0
# After a failure the cache is left alone for so long, so that a frozen one slows down
# one request a second and not all of them.
PAUSE = 1.0
# Longer than the api takes over any database read.
LEASE = 5
# Seconds that the last answer to a list is kept for the time without a database.
KEPT_PAGE = 3600
# What an entry begins with; anything else is an item: its version, a space, its JSON.
LEASE_MARK = b"?"
ABSENT = b"-"

# Atomic, so that no reader ever sees what came too late.
KEEP = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
"""


class _Credentials(CredentialProvider):
    """User and password, the latter read from its file at each new connection."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def get_credentials(self) -> tuple[str, str]:
        # While it is rotated, the cache takes the old one and the new one.
        password = read_passwords(self._settings.cache_password_file)[0]
        return self._settings.cache_user, password

    async def get_credentials_async(self) -> tuple[str, str]:
        return self.get_credentials()


def explain(error: BaseException) -> str:
    """One line about what is wrong with the cache."""
    if isinstance(error, TimeoutError | RedisTimeoutError):
        return "no answer in time"
    if isinstance(error, AuthenticationError):
        return "the password is refused"
    if isinstance(error.__context__, ConnectionRefusedError):
        return "the connection is refused"
    if isinstance(error.__context__, socket.gaierror):
        return "its name is not known: it is not running, or cut off from the network"
    if isinstance(error, OSError) and error.filename:
        return f"cannot read {error.filename}: {error.strerror}"
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:160]}" if text else type(error).__name__


class Cache:
    """The cache; every method either returns in about a second or raises Unavailable."""

    def __init__(self, settings: Settings) -> None:
        self._ttl = settings.cache_ttl
        self._session_ttl = settings.session_ttl
        self._resume_at = 0.0
        self._away = False
        # Items whose removal failed: their entries must not be believed.
        self._stale: dict[int, object] = {}
        self._redis = Redis(
            connection_pool=BlockingConnectionPool(
                host=settings.cache_host,
                port=settings.cache_port,
                credential_provider=_Credentials(settings),
                max_connections=16,
                # Annotated as whole seconds, and any will do.
                timeout=ANSWER,  # type: ignore[arg-type]
                socket_timeout=ANSWER,
                socket_connect_timeout=ANSWER,
                # One more try, for a connection that died unnoticed; none after a timeout.
                retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
                # Would need a right that serves nothing else.
                lib_name=None,
                lib_version=None,
            )
        )
        self._keep = self._redis.register_script(KEEP)

    async def stop(self) -> None:
        """Close all connections."""
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(WHOLE):
                await self._redis.aclose(close_connection_pool=True)

    async def ping(self) -> None:
        """Ask for a sign of life, also in the pause after a failure, and make up for the latter."""
        await self._call(self._redis.ping)
        self._resume_at = 0.0
        await self._forget_stale()

    async def claim_item(self, number: int) -> tuple[bytes | None, bytes | None]:
        """An item's entry; when there is none, a lease to hand to `keep_item`.

        Both are None while somebody else has the lease: they fetch the item already.
        """
        await self._forget_stale()
        lease = LEASE_MARK + secrets.token_bytes(9)
        value = cast(
            bytes | None,
            await self._use(
                lambda: self._redis.set(f"item:{number}", lease, nx=True, get=True, ex=LEASE)
            ),
        )
        if value is None:
            return None, lease
        return (None, None) if value.startswith(LEASE_MARK) else (value, None)

    async def keep_item(self, number: int, value: bytes, lease: bytes) -> None:
        """Keep what was read from the database, unless the item changed meanwhile.

        A write removes the lease with the entry, and a lease is never given twice. So what was
        read before the write finds a lease that is not its own, or none, and is not kept.
        """
        arguments = [lease, value, self._ttl]
        await self._use(lambda: self._keep(keys=[f"item:{number}"], args=arguments))

    async def forget_item(self, number: int) -> None:
        """Remove an item's entry: now, or before the cache is believed again."""
        # Bounded: beyond it entries live to the end of their time, CACHE_TTL seconds.
        if len(self._stale) < 10_000:
            self._stale[number] = object()
        with contextlib.suppress(Unavailable):
            await self._forget_stale()

    async def keep_page(self, name: str, value: bytes) -> None:
        """Keep the last answer to a list, for the time without a database."""
        await self._use(lambda: self._redis.set(f"page:{name}", value, ex=KEPT_PAGE))

    async def page(self, name: str) -> bytes | None:
        """The last answer to a list, however old, or None."""
        value = await self._use(lambda: self._redis.get(f"page:{name}"))
        return cast(bytes | None, value)

    async def visit(self, session: str | None) -> tuple[str, int]:
        """Count a visit; return the session's id, a new one if it was unknown, and count."""
        if session is not None:
            key = f"session:{session}"
            # The client's own incr() sends INCRBY, one more command to allow.
            count = await self._use(lambda: self._redis.execute_command("INCR", key))
            if count > 1:
                await self._use(lambda: self._redis.expire(key, self._session_ttl))
                return session, count
            # Expired, or never ours: an id that a client chose is not adopted.
            await self._use(lambda: self._redis.delete(key))
        session = secrets.token_urlsafe(24)
        await self._use(lambda: self._redis.set(f"session:{session}", 1, ex=self._session_ttl))
        return session, 1

    async def _forget_stale(self) -> None:
        while self._stale:
            batch = dict(itertools.islice(self._stale.items(), 100))
            keys = [f"item:{number}" for number in batch]
            await self._use(partial(self._redis.delete, *keys))
            for number, mark in batch.items():
                # Changed once more in the meantime: stays until that is removed too.
                if self._stale.get(number) is mark:
                    del self._stale[number]

    async def _use(self, command: Callable[[], Awaitable[T]]) -> T:
        if time.monotonic() < self._resume_at:
            raise Unavailable("failed a moment ago")
        return await self._call(command)

    async def _call(self, command: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(WHOLE):
                result = await command()
        except (RedisError, OSError, TimeoutError) as error:
            self._resume_at = time.monotonic() + PAUSE
            reason = explain(error)
            if not self._away:
                log.warning("cache away: %s", reason)
            self._away = True
            raise Unavailable(reason) from error
        if self._away:
            log.info("cache back")
        self._away = False
        return result
