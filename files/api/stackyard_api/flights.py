"""One piece of work per key at a time, however many ask for it."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Flights(Generic[K, T]):
    """Work that those who ask for the same key at the same time share.

    Who asks while work is under way shares the piece that begins after it, never the one that
    runs: that may have looked before something changed of which the asker knows.
    """

    def __init__(self) -> None:
        self._running: dict[K, asyncio.Future[T]] = {}
        self._following: dict[K, asyncio.Future[T]] = {}

    async def share(self, key: K, work: Callable[[], Awaitable[T]]) -> T:
        """Return what `work` returns, or raise what it raises; it began after this was called."""
        while following := self._following.get(key):
            try:
                # Who leaves must not take the work away from the others.
                return await asyncio.shield(following)
            except asyncio.CancelledError:
                # Either we are to leave, or who did the work has left: then we begin afresh.
                if not following.cancelled():
                    raise
        mine: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if running := self._running.get(key):
            await self._until(running, key, mine)
        self._running[key] = mine
        try:
            result = await work()
        except asyncio.CancelledError:
            mine.cancel()
            raise
        except BaseException as error:
            mine.set_exception(error)
            # Looked at, or asyncio would report an error that nobody else had asked for.
            mine.exception()
            raise
        else:
            mine.set_result(result)
            return result
        finally:
            # With somebody waiting, the place stays taken until it is theirs.
            if key not in self._following:
                del self._running[key]

    async def _until(self, running: asyncio.Future[T], key: K, mine: asyncio.Future[T]) -> None:
        self._following[key] = mine
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError:
            mine.cancel()
            if running.done():
                del self._running[key]
            raise
        finally:
            del self._following[key]
