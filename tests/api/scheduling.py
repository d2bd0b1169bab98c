"""Who goes on when: calls of the real methods are held back and let go one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

# Seconds. Longer than a server's answer takes, if it is one of ours and does not wait for us.
SETTLED = 0.03
LONGEST = 20.0


@dataclass
class Hold:
    """One call that is held back once it is done, before its caller has the answer."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)


@contextmanager
def held_after(target: object, method: str) -> Iterator[Hold]:
    """Hold back the next call of the method; those after it are left alone."""
    original = getattr(target, method)
    hold = Hold()

    async def held(*arguments: object, **named: object) -> object:
        setattr(target, method, original)
        result = await original(*arguments, **named)
        hold.reached.set()
        await hold.go.wait()
        return result

    setattr(target, method, held)
    try:
        yield hold
    finally:
        setattr(target, method, original)
        hold.go.set()


class Schedule:
    """Runs tasks that stop at gates, in the order that it is given."""

    def __init__(self) -> None:
        """Begin with all gates open."""
        self._active = False
        self._held: dict[asyncio.Task[Any], asyncio.Event] = {}

    def gate(self, target: object, method: str) -> None:
        """Have callers of the method wait before the call and after it."""
        original: Callable[..., Awaitable[object]] = getattr(target, method)

        async def gated(*arguments: object, **named: object) -> object:
            await self._stop()
            try:
                return await original(*arguments, **named)
            finally:
                await self._stop()

        setattr(target, method, gated)

    async def _stop(self) -> None:
        if not self._active:
            return
        task = asyncio.current_task()
        assert task
        self._held[task] = asyncio.Event()
        try:
            await self._held[task].wait()
        finally:
            self._held.pop(task, None)

    async def run(
        self, operations: Sequence[Callable[[], Coroutine[Any, Any, None]]], choices: Sequence[int]
    ) -> None:
        """Begin the operations in their order and run all to their end.

        Each choice picks who goes on: the next operation begins, or one that is held is let go.
        When they are used up, whoever was held first.
        """
        self._active = True
        tasks: list[asyncio.Task[None]] = []
        picks = iter(choices)
        end = asyncio.get_running_loop().time() + LONGEST
        try:
            while len(tasks) < len(operations) or not all(task.done() for task in tasks):
                assert asyncio.get_running_loop().time() < end, "an operation does not end"
                may_begin = len(tasks) < len(operations)
                able = len(self._held) + may_begin
                if not able:
                    await asyncio.sleep(0.002)
                    continue
                pick = next(picks, 0) % able
                if may_begin and pick == able - 1:
                    task = asyncio.create_task(operations[len(tasks)]())
                    tasks.append(task)
                else:
                    task = list(self._held)[pick]
                    self._held.pop(task).set()
                await self._settle(task)
        finally:
            self._active = False
            for event in self._held.values():
                event.set()
        for task in tasks:
            task.result()

    async def _settle(self, task: asyncio.Task[Any]) -> None:
        """Wait until the task is held again or done; one that waits for another is left waiting."""
        loop = asyncio.get_running_loop()
        end = loop.time() + SETTLED
        while task not in self._held and not task.done() and loop.time() < end:
            await asyncio.sleep(0)
