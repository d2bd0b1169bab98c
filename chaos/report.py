"""What the record of a run says: by kind of fault, requests, failures, recovery, and rows."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import Any

# From the first moment on from which this long every request succeeds, all is well again.
STEADY_SECONDS = 3.0


@dataclass(frozen=True)
class Strike:
    """One fault; moments are of the machine's clock."""

    kind: str
    what: str
    began: float
    ended: float
    healthy: float
    over: float
    error: str


def failed(request: list[Any]) -> bool:
    """Tell whether a request had no answer, or one that says that it was not served."""
    return not 200 <= request[3] < 400


def recovery(strike: Strike, requests: list[list[Any]]) -> float:
    """Return the seconds from the strike to the last failure after which all is steady."""
    bad = [each[0] for each in requests if failed(each)]
    candidates = [strike.began, *(moment + 0.001 for moment in bad)]
    for moment in candidates:
        if not any(moment <= other < moment + STEADY_SECONDS for other in bad):
            return moment - strike.began
    raise AssertionError("nothing comes after the last failure")


def lost(items: dict[str, dict[str, Any]], rows: dict[str, str]) -> list[dict[str, Any]]:
    """Return each item that is not in the database as it was acknowledged."""
    return [
        {"id": number, "found": rows.get(number), **about}
        for number, about in items.items()
        if rows.get(number) not in about["allowed"]
    ]


def lines(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a line for each kind of fault, one for what was between them, and the sum."""
    requests = sorted(result["record"]["requests"])
    kinds: dict[str, dict[str, Any]] = {}
    for strike in result["strikes"]:
        mine = [each for each in requests if strike.began <= each[0] < strike.over]
        line = kinds.setdefault(
            strike.kind,
            {
                "fault": strike.kind,
                "times": 0,
                "requests": 0,
                "failed": 0,
                "recovery": [],
                "lost": 0,
            },
        )
        line["times"] += 1
        line["requests"] += len(mine)
        line["failed"] += sum(map(failed, mine))
        line["recovery"].append(round(recovery(strike, mine), 1))
        line["lost"] += sum(strike.began <= each["moment"] < strike.over for each in result["lost"])
    found = list(kinds.values())
    total = {"requests": len(requests), "failed": sum(map(failed, requests))}
    between = {name: total[name] - sum(line[name] for line in found) for name in total}
    rows = len(result["lost"])
    rest = {"times": 0, "recovery": []}
    return [
        *found,
        {"fault": "(none)", **rest, **between, "lost": rows - sum(line["lost"] for line in found)},
        {"fault": "all", **rest, **total, "lost": rows, "times": len(result["strikes"])},
    ]


def table(found: list[dict[str, Any]]) -> str:
    """Return the lines as a table for people."""
    shown = [
        "| fault | times | requests | failed | steady again after, median and worst | rows lost |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for line in found:
        times = line["recovery"]
        back = f"{statistics.median(times):.1f} s, {max(times):.1f} s" if times else ""
        share = f" ({line['failed'] / line['requests']:.1%})" if line["failed"] else ""
        shown.append(
            f"| {line['fault']} | {line['times'] or ''} | {line['requests']}"
            f" | {line['failed']}{share} | {back} | {line['lost']} |"
        )
    return "\n".join(shown)


def as_json(result: dict[str, Any]) -> dict[str, Any]:
    """Return what is kept of a run: without the single requests."""
    return {
        "faults": lines(result),
        "strikes": [asdict(strike) for strike in result["strikes"]],
        "failures": result["record"]["reasons"],
        "items": len(result["record"]["items"]),
        "lost": result["lost"],
        "problems": result["problems"],
    }
