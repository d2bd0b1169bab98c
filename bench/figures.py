"""A figure that was measured, and the table of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Figure:
    """One measured value; its target, in the same unit, is the most or the least to be."""

    name: str
    value: float
    unit: str
    target: float | None = None
    note: str = ""
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the value is within its target; None where there is none."""
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target

    def as_data(self) -> dict[str, Any]:
        """Return the figure for JSON."""
        return asdict(self) | {"met": self.met}


def median_of(name: str, values: Sequence[float], unit: str, target: float | None = None) -> Figure:
    """Return the median as a figure that notes the single values."""
    note = f"median of {', '.join(shown(value) for value in values)}" if len(values) > 1 else ""
    return Figure(name, statistics.median(values), unit, target, note)


def shown(value: float) -> str:
    """Return a value with the digits that mean something: three, and all before the point."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.3g}"


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as lines: name, value, unit, target with its verdict, note."""
    rows = [("", "value", "", "target", "")]
    for figure in figures:
        target = ""
        if figure.target is not None:
            bound = "at least" if figure.at_least else "at most"
            target = f"{'met' if figure.met else 'MISSED'}, {bound} {shown(figure.target)}"
        rows.append((figure.name, shown(figure.value), figure.unit, target, figure.note))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    aligned = ["<", ">", "<", "<", "<"]
    return "\n".join(
        "  ".join(
            f"{cell:{side}{width}}" for cell, side, width in zip(row, aligned, widths, strict=True)
        ).rstrip()
        for row in rows
    )
