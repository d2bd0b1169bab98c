"""Filters for runs on many machines: their batches, and how many of them may fail."""

from __future__ import annotations

import math
import re
from typing import Any

from ansible.errors import AnsibleFilterError

SHARE = re.compile(r"([1-9][0-9]?|100)%")
NUMBER = re.compile(r"0|[1-9][0-9]{0,5}")


def of_machines(given: object, machines: int, *, least: int) -> int:
    """Return a number of machines, given as such or as a share, which is rounded up."""
    text = str(given).strip()
    if share := SHARE.fullmatch(text):
        return max(least, math.ceil(machines * int(share[1]) / 100))
    if NUMBER.fullmatch(text) and int(text) >= least:
        return int(text)
    raise AnsibleFilterError(f"'{text}': give a whole number from {least}, or a share such as 25%.")


def batches(machines: list[str], size: object) -> list[int]:
    """Return the sizes of even batches of at most so many machines.

    Ansible ends a run where a whole batch failed. So that no single machine does that, a batch
    has two of them at least, unless a size of 1 asks for it.
    """
    total = len(machines)
    most = of_machines(size, total, least=1)
    if most == 1 and str(size).strip() == "1":
        return [1]
    number = max(1, min(math.ceil(total / most), total // 2))
    return [total * (each + 1) // number - total * each // number for each in range(number)]


def bearable(machines: list[str], share: object) -> int:
    """Return how many of the machines may fail before the next batch does not begin."""
    return of_machines(share, len(machines), least=0)


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"batches": batches, "bearable": bearable}
