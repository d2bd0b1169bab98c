"""The command line: which machines, for how long, with what seed; the table and the JSON file."""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from pathlib import Path

import pytest
import testinfra
import yaml

from tests.acceptance.settings import Settings
from tests.acceptance.stack import Stack
from tests.controller import Controller

from .faults import FAULTS, Lab
from .report import as_json, lines, table
from .run import BROKEN, run, say

ROOT = Path(__file__).parents[1]


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--inventory", required=True, help="the machines: its group lab")
    parser.add_argument("--limit", default="lab", help="one machine of it alone")
    parser.add_argument("--confirm", default="", help="the project that is to be broken")
    parser.add_argument("--duration", default="120", help="seconds, for each machine")
    parser.add_argument("--seed", default="", help="an earlier run's, to repeat it")
    parser.add_argument("--faults", default="", help=f"some of: {', '.join(FAULTS)}")
    parser.add_argument("--once", action="store_true", help="each fault once, however long")
    parser.add_argument("--set", action="append", default=[], help="a setting of the deploy")
    parser.add_argument("--json", type=Path, default=ROOT / "build/chaos.json", help="result file")
    options = parser.parse_args(arguments)
    if not options.duration.isdecimal() or not 10 <= int(options.duration) <= 3000:
        parser.error(f"the duration is '{options.duration}': give seconds, DURATION=10 to 3000")
    if options.seed and not options.seed.isdecimal():
        parser.error(f"the seed is '{options.seed}': give a whole number, such as SEED=4711")
    options.kinds = [kind.strip() for kind in options.faults.split(",") if kind.strip()]
    if unknown := set(options.kinds) - set(FAULTS):
        parser.error(f"no fault {', '.join(unknown)}: there are {', '.join(FAULTS)}")
    if wrong := [each for each in options.set if "=" not in each]:
        parser.error(f"SET is '{wrong[0]}': write NAME=VALUE")
    return options


def main() -> int:
    """Break every machine of the inventory, one after another; 1 where something was lost."""
    options = parse(sys.argv[1:])
    here = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join([here, os.environ.get("PATH", os.defpath)])
    seed = int(options.seed or random.SystemRandom().randint(1, 99999))
    pairs = [each.partition("=") for each in options.set]
    given = {name: yaml.safe_load(value) for name, _, value in pairs}
    hosts = testinfra.get_hosts([f"ansible://{options.limit}"], ansible_inventory=options.inventory)
    if not hosts:
        say(
            f"The inventory {options.inventory} has no machine in the group lab. Name one that has."
        )
        return 2
    found, bad = {}, False
    for host in hosts:
        name = host.backend.host
        settings = Settings(host.ansible.get_variables(), given)
        if options.confirm != settings.project:
            say(f"This breaks {settings.project} on {name} on purpose, for {options.duration} s.")
            say(f"To do that, type: make chaos CONFIRM={settings.project}")
            return 2
        say(f"{name}: seed {seed}; make chaos SEED={seed} repeats it")
        words = tuple(word for each in options.set for word in ("-e", each))
        controller = Controller(Path(options.inventory).resolve(), name)
        try:
            lab = Lab(Stack(host, settings), controller, random.Random(seed), words)
            result = run(
                lab,
                options.kinds or list(FAULTS),
                float(options.duration),
                f"chaos {seed} {os.getpid()}",
                once=options.once,
            )
        except BROKEN as error:
            say(f"{name}: {error}")
            found[name] = {"seed": seed, "problems": [str(error)]}
            bad = True
            continue
        found[name] = {"seed": seed, **as_json(result)}
        say(f"\n{table(lines(result))}\n")
        for each in result["lost"]:
            say(f"LOST: item {each['id']} is {each['found']}, not one of {each['allowed']}")
        for problem in [
            *result["problems"],
            *(each.error for each in result["strikes"] if each.error),
        ]:
            say(f"NOT WELL: {problem}")
            bad = True
        bad = bad or bool(result["lost"])
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    say(f"All of it: {options.json}")
    return 1 if bad else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except pytest.fail.Exception as failure:
        sys.exit(str(failure))
