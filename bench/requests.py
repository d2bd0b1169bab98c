"""Requests through the gateway to the prod stack in its limits, against a plain reference.

The reference takes the api's place in the same stack: same gateway and frontends, networks, limits,
database, cache, pool. The page, which our frontends serve themselves, it serves as the templates
do, by StaticFiles behind the same proxies. The load comes from the same machine, and takes its
share of the cores: what counts is the CPU time that a request costs.
"""

from __future__ import annotations

import json
import os
import statistics
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from bench.apps import ITEMS, App, prepare
from bench.figures import Figure, median_of, shown
from bench.machine import CHECKOUT, Machine
from bench.shell import BenchError, say

# By kind: times the reference's requests per CPU-second.
TARGETS = {"cached read": 2.0, "uncached read": 1.5, "write": 1.5, "page": 1.5}
# Milliseconds, at half of the rate that saturates.
TARGET_P99 = 50
# Times the rate of one api, on machines that have the cores: two for the apis, as much for gateway
# and frontends, one for the load and one for the rest.
TARGET_SCALING = 1.8
CORES_TO_SCALE = 6
# Milliseconds until the answer that there is no room.
TARGET_REFUSAL_P99 = 1000
# Seconds until a rate that is half of saturation is served again as before.
TARGET_RECOVERY = 5
WARM_UP_SECONDS = 1
OVERLOAD_SECONDS = 8
RECOVERY_SECONDS = 6
# Of the answers to reads. The cached item expires now and then.
SHARE_FROM_SOURCE = 0.95
BODY = json.dumps({"name": "bench", "note": "x" * 100})


@dataclass
class Seen:
    """What load.py reports of one load of one step or more."""

    data: dict[str, Any]

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The steps' reports."""
        return self.data["steps"]

    @property
    def good(self) -> int:
        """How many answers were 2xx."""
        return sum(good_of(step) for step in self.steps)

    @property
    def errors(self) -> int:
        """How many requests had another answer, or none."""
        return sum(step["answered"] + sum(step["failures"].values()) for step in self.steps) - (
            self.good
        )

    @property
    def per_second(self) -> float:
        """Good answers a second in the first step."""
        return good_of(self.steps[0]) / self.steps[0]["seconds"]

    @property
    def per_cpu_second(self) -> float:
        """Good answers for each second of CPU time of the five services."""
        return self.good / sum(self.data["cpu_s"].values())

    def cost(self) -> dict[str, float]:
        """Return microseconds of CPU time a good answer, by service, dearest first."""
        costs = {name: spent / self.good * 1e6 for name, spent in self.data["cpu_s"].items()}
        return dict(sorted(costs.items(), key=lambda item: -item[1]))


def good_of(step: dict[str, Any]) -> int:
    """Return how many answers of a step were 2xx."""
    return sum(by["count"] for status, by in step["statuses"].items() if status.startswith("2"))


def measure(
    machine: Machine, seconds: int, pairs: int, api_image: str | None
) -> tuple[list[Figure], dict[str, Any]]:
    """Load the reference and the api in turn, so many pairs of loads of so many seconds a kind.

    The last pair is loaded at half of saturation too; then the api alone with one replica and two,
    and at twice what saturates it.
    """
    api, reference = prepare(machine, api_image)
    contest = Contest(machine, seconds)
    for pair in range(1, pairs + 1):
        for app in (reference, api):
            app.start(machine)
            for kind in TARGETS:
                say(f"  Pair {pair} of {pairs}, {app.name}, {kind}: {contest.saturate(app, kind)}")
            if pair == pairs:
                for kind in TARGETS:
                    say(f"  Half of it, {app.name}, {kind}: {contest.halve(app, kind)}")
    scaling = contest.scale(api, max(2, pairs - 1))
    overload = contest.overload(api)
    figures = [figure for kind in TARGETS for figure in contest.figures(kind)]
    figures += [*contest.memory(), scaling, *overload]
    return figures, contest.details()


class Contest:
    """All loads so far, by app and kind."""

    def __init__(self, machine: Machine, seconds: int) -> None:
        self.machine = machine
        self.seconds = seconds
        self.saturated: dict[tuple[str, str], list[Seen]] = defaultdict(list)
        self.halved: dict[tuple[str, str], Seen] = {}
        self.scaled: dict[int, list[Seen]] = {1: [], 2: []}
        self.overloaded: Seen | None = None

    def load(self, app: App, kind: str, *steps: str) -> Seen:
        """Load an app with one kind of request; each step is RATE:SECONDS."""
        arguments = {
            "cached read": ["--path=/api/items/{}", f"--first={app.first}"],
            "uncached read": [
                *("--path=/api/items/{}", f"--first={app.first}"),
                *(f"--items={ITEMS}", f"--skip={app.asked}"),
            ],
            "write": ["--method=POST", "--path=/api/items", f"--body={BODY}"],
            "page": [f"--path={app.page}"],
        }[kind]
        printed = self.machine.do(
            *("python3", f"{CHECKOUT}/bench/load.py", *arguments),
            *(f"--warm-up={WARM_UP_SECONDS}", *steps),
            timeout=120 + 2 * self.seconds,
        )
        seen = Seen(json.loads(printed.splitlines()[-1]))
        if kind == "uncached read":
            app.asked = seen.data["asked"]
        return seen

    def saturate(self, app: App, kind: str) -> str:
        """Load an app as fast as it goes; return a line about it."""
        seen = self.load(app, kind, f"0:{self.seconds}")
        check_answers(seen, kind)
        self.saturated[app.name, kind].append(seen)
        data = seen.data
        return (
            f"{seen.per_second:,.0f}/s, {seen.per_cpu_second:,.0f} a CPU-second,"
            f" p99 {seen.steps[0]['p99_ms']:.0f} ms, {seen.errors} errors; us: {shares(seen)};"
            f" cores {data['busy']:.0%} busy, {data['busy_elsewhere']:.0%} with other work"
        )

    def rate(self, app: App, kind: str) -> float:
        """Return the rate that saturates an app, in requests a second."""
        return statistics.median(seen.per_second for seen in self.saturated[app.name, kind])

    def halve(self, app: App, kind: str) -> str:
        """Load an app with half of what saturates it; return a line about it."""
        rate = self.rate(app, kind) / 2
        seen = self.load(app, kind, f"{rate:.1f}:{self.seconds}")
        check_answers(seen, kind)
        self.halved[app.name, kind] = seen
        step = seen.steps[0]
        return (
            f"{rate:,.0f}/s, p50 {step['p50_ms']:.1f} ms, p99 {step['p99_ms']:.1f} ms,"
            f" {seen.errors} errors"
        )

    def scale(self, app: App, pairs: int) -> Figure:
        """Return how much more two replicas of an app answer than one."""
        for _ in range(pairs):
            for apis, loads in self.scaled.items():
                app.start(self.machine, apis)
                seen = self.load(app, "cached read", f"0:{self.seconds}")
                check_answers(seen, "cached read")
                loads.append(seen)
                say(f"  {apis} of the api, cached read: {seen.per_second:,.0f}/s")
        one, two = ([seen.per_second for seen in loads] for loads in self.scaled.values())
        figure = median_of(
            "2 apis / 1 api: rate of cached reads",
            [more / less for less, more in zip(one, two, strict=True)],
            "x",
        )
        figure.at_least = True
        cores = len(os.sched_getaffinity(0))
        busy = statistics.median(seen.data["busy"] for seen in self.scaled[2])
        figure.note += (
            f"; {shown(statistics.median(two))}/s against {shown(statistics.median(one))}"
        )
        if cores >= CORES_TO_SCALE:
            figure.target = TARGET_SCALING
        else:
            figure.note += (
                f"; no target on {cores} cores, which the load shares: {busy:.0%} busy with 2 apis"
            )
        return figure

    def overload(self, app: App) -> list[Figure]:
        """Load an app with twice what saturates it and then with half; return what was seen."""
        rate = self.rate(app, "cached read")
        seen = self.overloaded = self.load(
            app,
            "cached read",
            f"{2 * rate:.1f}:{OVERLOAD_SECONDS}",
            f"{rate / 2:.1f}:{RECOVERY_SECONDS}",
        )
        twice, half = seen.steps
        statuses = dict(twice["statuses"])
        refused = statuses.pop("503", {"count": 0})
        good = good_of(twice)
        if not good:
            raise BenchError(f"Nothing was answered at {2 * rate:,.0f}/s: {twice}")
        failed = twice["answered"] - good - refused["count"] + sum(twice["failures"].values())
        reasons = {
            **{status: by["count"] for status, by in statuses.items() if status[0] != "2"},
            **twice["failures"],
        }
        figures = [
            Figure("twice saturation: offered", 2 * rate, "/s", note="cached reads"),
            Figure("twice saturation: answered well", good / OVERLOAD_SECONDS, "/s"),
            Figure("twice saturation: p99 of these", twice["statuses"]["200"]["p99_ms"], "ms"),
            Figure("twice saturation: 503", refused["count"] / OVERLOAD_SECONDS, "/s"),
            Figure(
                *("twice saturation: failed otherwise", failed, "", 0),
                ", ".join(f"{count} {reason}" for reason, count in reasons.items()),
            ),
            Figure("after it: normal again after", recovery(half), "s", TARGET_RECOVERY),
        ]
        if refused["count"]:
            name = "twice saturation: p99 of these 503"
            figures.insert(4, Figure(name, refused["p99_ms"], "ms", TARGET_REFUSAL_P99))
        for figure in figures:
            say(f"  {figure.name}: {shown(figure.value)} {figure.unit} {figure.note}")
        return figures

    def figures(self, kind: str) -> list[Figure]:
        """Return the figures of one kind of request."""
        ours, theirs = self.saturated["api", kind], self.saturated["reference", kind]
        ratio = median_of(
            f"{kind}: requests per CPU-second / reference's",
            [
                our.per_cpu_second / their.per_cpu_second
                for our, their in zip(ours, theirs, strict=True)
            ],
            "x",
            TARGETS[kind],
        )
        ratio.at_least = True

        def both(what: str, unit: str, values: list[list[float]]) -> Figure:
            own, other = map(statistics.median, values)
            return Figure(f"{kind}: {what}", own, unit, note=f"reference {shown(other)}")

        halves = [[self.halved[name, kind]] for name in ("api", "reference")]
        contests = {"at saturation": [ours, theirs], "at half of it": halves}
        times = [
            both(
                f"{at} {when}",
                "ms",
                [[seen.steps[0][f"{at}_ms"] for seen in loads] for loads in contestants],
            )
            for when, contestants in contests.items()
            for at in ("p50", "p99")
        ]
        times[-1].target = TARGET_P99
        errors = sum(seen.errors for loads in (ours, theirs, *halves) for seen in loads)
        return [
            ratio,
            both(
                *("requests per CPU-second", "/s"),
                [[seen.per_cpu_second for seen in loads] for loads in (ours, theirs)],
            ),
            *(self.cost(name, kind) for name in ("api", "reference")),
            both(
                *("rate at saturation", "/s"),
                [[seen.per_second for seen in loads] for loads in (ours, theirs)],
            ),
            *times,
            Figure(f"{kind}: errors", errors, "", 0),
        ]

    def cost(self, name: str, kind: str) -> Figure:
        """Return the CPU time of a request, by service in the note."""
        seen = sorted(self.saturated[name, kind], key=lambda seen: seen.per_cpu_second)
        middle = seen[len(seen) // 2]
        whose = "" if name == "api" else f", {name}"
        return Figure(
            *(f"{kind}: CPU time a request{whose}", sum(middle.cost().values()), "us"),
            note=shares(middle),
        )

    def memory(self) -> list[Figure]:
        """Return the most memory of each service after any of the loads at saturation."""
        most: dict[str, dict[str, float]] = {"api": {}, "reference": {}}
        for (name, _), loads in self.saturated.items():
            for seen in loads:
                for service, used in seen.data["memory_bytes"].items():
                    most[name][service] = max(most[name].get(service, 0.0), used / 2**20)
        figures = []
        for service in sorted(most["api"]):
            other = most["reference"][service]
            note = f"reference {shown(other)}"
            figures.append(Figure(f"memory: {service}", most["api"][service], "MiB", note=note))
        return figures

    def details(self) -> dict[str, Any]:
        """Return all that was measured."""
        found: dict[str, Any] = {
            f"{kind}, {name}": {
                "saturated": [seen.data for seen in loads],
                "half": self.halved[name, kind].data,
            }
            for (name, kind), loads in self.saturated.items()
        }
        found["apis"] = {apis: [seen.data for seen in loads] for apis, loads in self.scaled.items()}
        found["overload"] = self.overloaded.data if self.overloaded else None
        return found


def check_answers(seen: Seen, kind: str) -> None:
    """Raise BenchError where what was measured is not what it is called."""
    if not seen.good:
        raise BenchError(f"No {kind} was answered well: {seen.steps}")
    expected = {"cached read": "cache", "uncached read": "database"}.get(kind)
    if expected is None:
        return
    sources: dict[str, int] = defaultdict(int)
    for step in seen.steps:
        for source, count in step["sources"].items():
            sources[source] += count
    if sources[expected] < SHARE_FROM_SOURCE * seen.good:
        raise BenchError(f"Of {seen.good} {kind}s, X-Source names: {dict(sources)}.")


def shares(seen: Seen) -> str:
    """Return the microseconds of CPU time a good answer: by service, and what is not counted."""
    parts = [f"{service} {spent:.0f}" for service, spent in seen.cost().items()]
    besides = {"the engine's logs": "engine_cpu_s", "the load": "load_cpu_s"}
    uncounted = [f"{name} {seen.data[key] / seen.good * 1e6:.0f}" for name, key in besides.items()]
    return f"{', '.join(parts)}; besides {', '.join(uncounted)}"


def recovery(step: dict[str, Any]) -> int:
    """Return after how many seconds all requests were answered well, half of them within 50 ms."""
    found = 0
    # Of a rate that is no whole number, a second may have one less.
    expected = int(step["rate"]) - 1
    for number, second in enumerate(step["each_second"], start=1):
        whole = second["good"] == second["answered"] and second["good"] >= expected
        if not (whole and second["p50_ms"] <= TARGET_P99):
            found = number
    return found
