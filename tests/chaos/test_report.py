"""What a record of requests and rows comes to."""

from __future__ import annotations

from typing import Any

import pytest

from chaos.report import Strike, lines, lost, recovery, table

STRIKE = Strike("kill", "api", 100.0, 101.0, 105.0, 110.0, "")


def requests(*failures: float) -> list[list[Any]]:
    """A request every tenth of a second, from 95 to 115; those at these moments fail."""
    moments = [95 + tenth / 10 for tenth in range(200)]
    return [[moment, 0.01, False, 503 if moment in failures else 200] for moment in moments]


@pytest.mark.parametrize(("failures", "seconds"), [
    ((), 0),
    ((100.0, 100.5, 102.5), 2.5),
    # Three steady seconds in between: what fails later is another story.
    ((100.5, 104.0), 0.5),
    ((99.5,), 0),
])  # fmt: skip
def test_recovery_is_the_moment_from_which_three_seconds_succeed(
    failures: tuple[float, ...], seconds: float
) -> None:
    mine = [each for each in requests(*failures) if 100 <= each[0] < 110]
    assert recovery(STRIKE, mine) == pytest.approx(seconds, abs=0.01)


@pytest.mark.parametrize(("row", "allowed", "is_lost"), [
    ("3", ["3"], False),
    ("2", ["3"], True),
    (None, ["3"], True),
    ("3", ["2", "3"], False),
    (None, [None], False),
    # What was deleted is back.
    ("5", [None], True),
    (None, ["5", None], False),
])  # fmt: skip
def test_row_is_lost_when_it_is_not_as_acknowledged(
    row: str | None, allowed: list[str | None], is_lost: bool
) -> None:
    rows = {} if row is None else {"7": row}
    assert bool(lost({"7": {"allowed": allowed, "moment": 100.0}}, rows)) is is_lost


def test_failures_and_lost_rows_are_counted_by_fault_and_in_between() -> None:
    result = {
        "strikes": [STRIKE],
        "record": {"requests": requests(96.0, 100.5, 101.0)},
        "lost": [{"moment": 101.0}, {"moment": 97.0}],
    }
    kill, between, everything = lines(result)
    assert (kill["requests"], kill["failed"], kill["lost"]) == (100, 2, 1)
    assert (between["requests"], between["failed"], between["lost"]) == (100, 1, 1)
    assert (everything["requests"], everything["failed"], everything["lost"]) == (200, 3, 2)
    assert "| kill | 1 | 100 | 2 (2.0%) | 1.0 s, 1.0 s | 1 |" in table([kill])
