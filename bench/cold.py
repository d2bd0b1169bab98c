"""A cold run: `make up` on a bare machine, side by side with the same in a plain shell script."""

from __future__ import annotations

import operator
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.figures import Figure, median_of
from bench.labels import SCRATCH
from bench.machine import CHECKOUT, Machine, Timed, bare_machine
from bench.shell import say
from bench.stack import STACK, make_up, sizes, steps

# Times the plain script's.
TARGET_RATIO = 1.3
# Both should have built the same; a larger share apart says that they did not.
TOLERANCE = 0.01

# What is rendered is no part of the contest: the plain script takes it from here. The secrets stay,
# but for the form of one.
RENDERED = f"""
set -euo pipefail
install -d /root/rendered
cd {STACK}
cp -R docker-compose*.yml .env config /etc/docker/daemon.json /root/rendered
users=$(<secrets/cache_users) password=$(<secrets/api_cache_password)
printf '%s\\n' "${{users//"$password"/@PASSWORD@}}" >/root/rendered/cache_users.in
"""


@dataclass
class Cold:
    """Seconds of each pair of cold runs, what they built, and where their time went."""

    ansible: list[float] = field(default_factory=list)
    environment: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    steps: dict[str, float] = field(default_factory=dict)

    def figures(self) -> list[Figure]:
        """Return the figures: both times, the share of .venv, the ratio."""
        if not self.plain:
            return []
        # Up to the shortest: of a pair that failed, one half may be missing.
        ratios = list(map(operator.truediv, self.ansible, self.plain))
        without = map(operator.sub, self.ansible, self.environment)
        bare = statistics.median(map(operator.truediv, without, self.plain))
        ratio = median_of("cold: make up / plain script", ratios, "x", TARGET_RATIO)
        notes = [ratio.note, f"{bare:.2f} without .venv", *self.differences]
        ratio.note = "; ".join(note for note in notes if note)
        return [
            median_of("cold: make up", self.ansible, "s"),
            median_of("cold: of that, .venv", self.environment, "s"),
            median_of("cold: plain script", self.plain, "s"),
            ratio,
        ]

    def details(self) -> dict[str, Any]:
        """Return all that was measured."""
        return dict(vars(self))


def environment_seconds(machine: Machine, up: Timed) -> float:
    """Return how long the run's .venv took: make touches a file when it is ready."""
    ready = machine.do("stat", "--format=%.9Y", f"{CHECKOUT}/.venv/ready")
    return float(ready) - up.start


def run_pairs(
    cold: Cold, pairs: int, checkout: Path, logs: Path, look: Callable[[Machine], None] | None
) -> None:
    """Run make up and the plain script in turn, each on a machine of its own.

    `cold` takes what is measured, also of pairs before one that fails. `look` is given the last
    machine that make up made, while nothing else runs.
    """
    with tempfile.TemporaryDirectory(prefix=SCRATCH) as scratch:
        rendered = Path(scratch) / "rendered.tar"
        for number in range(1, pairs + 1):
            with bare_machine("ansible", checkout) as machine:
                say(f"Pair {number} of {pairs}: make up")
                up = make_up(machine, logs / f"cold-{number}-make-up.log")
                cold.ansible.append(up.seconds)
                cold.environment.append(environment_seconds(machine, up))
                cold.steps = steps(up.output)
                ours = sizes(machine)
                machine.do("bash", "-c", RENDERED)
                machine.get("/root/rendered", rendered)
                say(f"  {up.seconds:.1f} s, of which .venv {cold.environment[-1]:.1f} s")
                if look is not None and number == pairs:
                    look(machine)
            with bare_machine("plain", checkout) as machine:
                say(f"Pair {number} of {pairs}: the plain script")
                machine.put("/root/rendered", rendered, "root")
                plain = machine.time(
                    *("bash", "bench/plain_up.sh", "files", "/root/rendered"),
                    directory=CHECKOUT,
                    log=logs / f"cold-{number}-plain.log",
                )
                cold.plain.append(plain.seconds)
                say(f"  {plain.seconds:.1f} s: ratio {up.seconds / plain.seconds:.2f}")
                cold.differences = differences(ours, sizes(machine))


def differences(ours: dict[str, int], theirs: dict[str, int]) -> list[str]:
    """Return a line for each image whose size tells that the two did not build the same."""
    return [
        f"{name} differs: {ours[name] / 1e6:.1f} MB, the script's {theirs[name] / 1e6:.1f} MB"
        for name in ours
        if abs(ours[name] - theirs[name]) > TOLERANCE * theirs[name]
    ]


def bring_up(checkout: Path, logs: Path, look: Callable[[Machine], None]) -> None:
    """Bring one machine up without measuring it, for the parts that need one."""
    with bare_machine("ansible", checkout) as machine:
        say("make up, for what is measured on it")
        make_up(machine, logs / "make-up.log")
        look(machine)
