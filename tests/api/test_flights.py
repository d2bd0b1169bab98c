"""Shared work: whoever asks gets work begun after the question, one piece at a time."""

from __future__ import annotations

import asyncio
import itertools

import hypothesis
from hypothesis import strategies as st
from stackyard_api.flights import Flights


class WorkError(Exception):
    """What a piece of work may end with."""


class Table:
    """Askers and pieces of work, all of whose moments are counted by one clock."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self.flights: Flights[str, int] = Flights()
        self.clock = itertools.count()
        self.running: dict[str, asyncio.Future[None]] = {}
        self.askers: list[asyncio.Task[None]] = []
        self.begun = 0

    def ask(self, key: str) -> None:
        """Let one more ask for the key."""
        self.askers.append(asyncio.create_task(self._ask(key)))

    async def _ask(self, key: str) -> None:
        asked = next(self.clock)
        try:
            begun = await self.flights.share(key, lambda: self._work(key))
        except WorkError as error:
            begun = error.args[0]
        assert begun > asked, "work from before the question"

    async def _work(self, key: str) -> int:
        begun = next(self.clock)
        self.begun += 1
        assert key not in self.running, "two at once"
        self.running[key] = asyncio.get_running_loop().create_future()
        try:
            await self.running[key]
        except WorkError as error:
            raise WorkError(begun) from error
        finally:
            del self.running[key]
        return begun

    def end(self, key: str, well: bool) -> None:
        """Let the work for the key end, if there is any."""
        work = self.running.get(key)
        if work and not work.done():
            if well:
                work.set_result(None)
            else:
                work.set_exception(WorkError())

    async def settle(self) -> None:
        """End all work until nobody waits; nobody may be forgotten and nothing left behind."""
        for _ in range(20 + 4 * len(self.askers)):
            for key in list(self.running):
                self.end(key, well=True)
            for _ in range(4):
                await asyncio.sleep(0)
        assert all(asker.done() for asker in self.askers), "somebody waits for ever"
        for asker in self.askers:
            if not asker.cancelled():
                asker.result()
        left = {name: value for name, value in vars(self.flights).items() if value}
        assert left == {}


STEPS = st.one_of(
    st.tuples(st.just("ask"), st.sampled_from("ab"), st.just(0)),
    st.tuples(st.just("ask"), st.just("a"), st.just(0)),
    st.tuples(st.just("cancel"), st.just(""), st.integers(0, 30)),
    st.tuples(st.just("end"), st.sampled_from("aab"), st.integers(0, 3)),
    st.tuples(st.just("pass"), st.just(""), st.integers(1, 4)),
)


@hypothesis.settings(max_examples=hypothesis.settings().max_examples * 8)
@hypothesis.given(st.lists(STEPS, max_size=40))
def test_every_asker_gets_work_begun_after_the_question(steps: list[tuple[str, str, int]]) -> None:
    async def play() -> None:
        table = Table()
        for step, key, number in steps:
            if step == "ask":
                table.ask(key)
            elif step == "cancel" and table.askers:
                table.askers[number % len(table.askers)].cancel()
            elif step == "end":
                table.end(key, well=number > 0)
            elif step == "pass":
                for _ in range(number):
                    await asyncio.sleep(0)
        await table.settle()

    asyncio.run(play())


def test_those_who_ask_meanwhile_share_one_piece() -> None:
    async def play() -> int:
        table = Table()
        for _ in range(50):
            table.ask("a")
        await table.settle()
        return table.begun

    assert asyncio.run(play()) == 2


def test_error_is_everybodys_who_shared_the_work() -> None:
    async def play() -> list[object]:
        flights: Flights[str, None] = Flights()

        async def fail() -> None:
            await asyncio.sleep(0)
            raise WorkError

        asked = [flights.share("a", fail) for _ in range(5)]
        return await asyncio.gather(*asked, return_exceptions=True)

    assert [type(result) for result in asyncio.run(play())] == [WorkError] * 5
