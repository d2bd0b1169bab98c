"""What became of each mutation: lines as they come, a JSON file, and the table for people."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .checks import ROOT, CannotTell, Verdict
from .mutation import Mutation, load

if TYPE_CHECKING:
    from pathlib import Path

KINDS = ("templates", "promises")
README = ROOT / "tests" / "README.md"
BEGIN = "<!-- Made by `python -m tests.mutation --markdown`. -->\n"


@dataclass
class Result:
    """One mutation, and what the checks of both kinds said; none where there are none."""

    mutation: Mutation
    templates: Verdict | None
    promises: Verdict | None
    seconds: float

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """The verdicts that there are."""
        both = zip(KINDS, (self.templates, self.promises), strict=True)
        return {kind: verdict for kind, verdict in both if verdict}

    @property
    def noticed(self) -> bool:
        """Whether all who should have noticed did."""
        return all(verdict.noticed for verdict in self.verdicts.values())

    def lines(self) -> str:
        """The report's lines: what was broken, then who noticed."""
        sign = "✓" if self.noticed else "✗"
        numbers = ", ".join(map(str, self.mutation.breaks))
        head = f"{sign} {numbers:>6}  {self.mutation.name}  ({self.seconds:.0f} s)"
        tails = [f"            {kind}: {each}" for kind, each in self.verdicts.items()]
        return "\n".join([head, *tails])

    def data(self) -> dict[str, Any]:
        """For the JSON file."""
        verdicts = {
            kind: asdict(verdict) | {"seconds": round(verdict.seconds, 1)}
            for kind, verdict in self.verdicts.items()
        }
        about = {"name": self.mutation.name, "breaks": self.mutation.breaks}
        return {**about, **verdicts, "seconds": round(self.seconds, 1)}


def summary(results: list[Result], seconds: float) -> str:
    """The last line."""
    counts = {"killed": 0, "refused by Compose": 0, "SURVIVED": 0}
    for result in results:
        if not result.noticed:
            counts["SURVIVED"] += 1
        elif result.promises and result.promises.outcome == "refused":
            counts["refused by Compose"] += 1
        else:
            counts["killed"] += 1
    told = ", ".join(f"{count} {what}" for what, count in counts.items())
    return f"{len(results)} mutations in {seconds:.0f} s: {told}"


def write(path: Path, results: list[Result], seconds: float) -> None:
    """Write the JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {"seconds": round(seconds), "mutations": [result.data() for result in results]}
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _cell(verdict: dict[str, Any] | None) -> str:
    if verdict is None:
        return "–"
    if verdict["outcome"] == "killed":
        # Without parameters: a service's name or a machine's.
        file, _, check = verdict["check"].partition("[")[0].partition("::")
        return f"`{file}`: {check.removeprefix('test_').replace('_', ' ')}"
    return str(Verdict(verdict["outcome"]))


def write_table(path: Path) -> None:
    """Write the table of the JSON file into tests/README.md, in place of the one there."""
    data = json.loads(path.read_text(encoding="utf-8"))["mutations"]
    if [each["name"] for each in data] != [each.name for each in load()]:
        raise CannotTell(f"{path} is not of a run of all mutations: python -m tests.mutation")
    rows = ["| # | broken | noticed in the templates by | noticed on the running stack by |"]
    rows.append("| --- | --- | --- | --- |")
    for each in data:
        numbers = ", ".join(map(str, each["breaks"]))
        cells = [
            numbers,
            each["name"],
            *(_cell(each.get(kind)) for kind in KINDS),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    text = README.read_text(encoding="utf-8")
    head, found, _ = text.partition(BEGIN)
    if not found:
        raise CannotTell(f"{README} has no line {BEGIN}")
    README.write_text(head + BEGIN + "\n".join(rows) + "\n", encoding="utf-8")
