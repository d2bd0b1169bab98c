"""What is promised, and the lines that say which promises hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

TITLES = {
    1: "Gateway, frontend, api, database and cache are healthy and answer",
    2: "As many frontends as set, followed without a restart",
    3: "As many apis as set, followed without a restart",
    4: "One database, and no way to a second",
    5: "The frontend reaches the api and nothing behind it",
    6: "Only the api reaches database and cache; these have no way out",
    7: "The database is on a named volume and outlives its containers",
    8: "The api's configuration is a mounted directory; an edit is seen at once",
    9: "The cache is in memory, fits its limit and forgets at a restart",
    10: "Each service has its limits and is configured to live within them",
    11: "What is killed comes back by itself",
    12: "A health check fails when its service fails",
    13: "Each service starts when those it needs are healthy",
    14: "Base, dev and prod files; debug ports in dev and only on this machine",
    15: "Secrets are files that their reader alone can read, and are nowhere else",
}
# What is asked of every container besides; it has no number in the list of promises.
HARDENING = "+"
LINES: dict[int | str, str] = {**TITLES, HARDENING: "Every container is held to the least"}


@dataclass
class Tally:
    """The checks of one promise on one machine, by what became of them."""

    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    # By the reason, of a stack that Docker Swarm runs.
    not_on_a_swarm: dict[str, list[str]] = field(default_factory=dict)

    @property
    def sign(self) -> str:
        """✗ when any check failed, ✓ when some ran and all passed, – when none ran.

        ~ instead of ✓ where others cannot hold on a swarm.
        """
        if self.failed:
            return "✗"
        if not self.passed:
            return "–"
        return "~" if self.not_on_a_swarm else "✓"

    @property
    def remark(self) -> str:
        """How many checks stand behind the sign."""
        ran = len(self.passed) + len(self.failed)
        if not ran:
            if self.left_out:
                return "left out: --disruptive"
            return "does not hold on a swarm" if self.not_on_a_swarm else "no check ran"
        text = f"{ran} check{'s' * (ran != 1)}"
        return f"{text}, {len(self.left_out)} left out" if self.left_out else text


def summary(tallies: dict[int | str, Tally]) -> Iterator[tuple[str, bool]]:
    """Yield each line to print, and whether it tells of a failure."""
    for key, title in LINES.items():
        tally = tallies.get(key, Tally())
        yield f"{tally.sign} {key!s:>2}  {title}  ({tally.remark})", bool(tally.failed)
        yield from ((f"        {name}", True) for name in _unique(tally.failed))
        for reason, names in tally.not_on_a_swarm.items():
            what = f"{len(names)} check{'s' * (len(names) != 1)}"
            yield f"        not on a swarm: {reason} ({what})", False


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
