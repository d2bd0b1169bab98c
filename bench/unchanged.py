"""A run that changes nothing, against the least that such a run has to do."""

from __future__ import annotations

from typing import Any

from bench.figures import Figure, median_of
from bench.machine import CHECKOUT, USER, Machine
from bench.shell import say
from bench.stack import STACK, changed, make_up, steps

# Times the baseline.
TARGET_RATIO = 3.0


def measure(machine: Machine, runs: int) -> tuple[list[Figure], dict[str, Any]]:
    """Run make up and the baseline in turn on an unchanged stack.

    The baseline is Compose's own look at the stack plus Ansible's bare gathering of facts.
    """
    # The first one finds cold caches of its own.
    make_up(machine)
    up, compose, setup, changes = [], [], [], []
    took: dict[str, float] = {}
    for number in range(1, runs + 1):
        run = make_up(machine)
        took = steps(run.output)
        up.append(run.seconds)
        changes.append(changed(run.output))
        compose.append(
            machine.time("docker", "compose", "up", "-d", "--wait", directory=STACK).seconds
        )
        setup.append(
            machine.time(
                *(".venv/bin/ansible", "localhost", "-m", "setup"), user=USER, directory=CHECKOUT
            ).seconds
        )
        say(
            f"  Unchanged {number} of {runs}: make up {up[-1]:.1f} s, changed={changes[-1]};"
            f" compose {compose[-1]:.1f} s, setup {setup[-1]:.1f} s"
        )
    baseline = [sum(pair) for pair in zip(compose, setup, strict=True)]
    ratios = [run / base for run, base in zip(up, baseline, strict=True)]
    figures = [
        Figure("unchanged: tasks changed", max(changes), "", 0),
        median_of("unchanged: make up", up, "s"),
        median_of("unchanged: compose up + setup", baseline, "s"),
        median_of("unchanged: ratio", ratios, "x", TARGET_RATIO),
    ]
    return figures, {
        "make_up_s": up,
        "changed": changes,
        "compose_s": compose,
        "setup_s": setup,
        "steps": took,
    }
