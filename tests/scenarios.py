"""Run Molecule's scenarios: all of them on sets of machines side by side, or those that are named.

A set is some lab machines with the scenarios that share them, one after another. How many sets run
at a time follows the machine's cores and memory. Each scenario's output goes to a file; a line
says when it begins, another its result, and of one that fails the end is shown.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import yaml

from tests.cpu import ContainerMeter, busy_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

ROOT = Path(__file__).parents[1]
LOGS = ROOT / "build/scenarios"
# The machines' names stand in molecule/resources/vars/machines.yml. The longest set comes first,
# and the next is of another Debian, whose image is made meanwhile.
SETS = {
    "debian13": [
        "provision",
        "isolation",
        "scaling",
        "secrets",
        "storage",
        "limits",
        "interrupted",
        "rolling",
        "rotation",
        "see",
        "boot",
        "browser",
    ],
    "debian12": ["takeover", "health", "development", "backup", "refusals"],
    "lab1 lab2 lab3": ["fleet", "swarm"],
    "newcomer": ["newcomer"],
}
# What make test-long runs on the same machines besides, and the checks that are marked long.
LONG = {"debian13": ["one_node", "chaos"], "debian12": ["provision", "boot"]}
# After these there is no stack in prod on the machines.
NO_STACK_LEFT = {"takeover", "newcomer", "fleet", "swarm"}
# Of a set while it runs, with room for a browser or a load.
MEMORY_OF_A_SET_GIB = 4
# What a further machine costs is gained by so many scenarios.
SHORTEST_DIVIDED = 4
LINES_SHOWN = 120
# Of one scenario, twice what the longest takes: one that hangs says where.
LIMIT_SECONDS = 2400
CHECKED = re.compile(r"^=+ (.*\d+ passed.*) in [\d.]+s", re.MULTILINE)
COLOURS = re.compile(r"\x1b\[[0-9;]*m")

stopped = threading.Event()
# The process groups of the Molecules that are not done.
running: set[int] = set()


class Result(NamedTuple):
    """A scenario on a set of machines: whether all passed, what pytest counted, and its cost."""

    machines: str
    scenario: str
    passed: bool
    checks: str
    seconds: float
    cpu_seconds: float

    def __str__(self) -> str:
        sign = "✓" if self.passed else "✗"
        cost = f"{self.seconds:.0f} s, {self.cpu_seconds:.0f} CPU-seconds"
        return f"{sign} {self.machines} {self.scenario}: {cost}, {self.checks}"


def say(text: str) -> None:
    """Print at once, whoever else prints."""
    print(text, flush=True)


class Machines:
    """A set of lab machines, and Molecule's state of them."""

    def __init__(self, names: str, *, show: bool) -> None:
        """Take the machines' names, with spaces between; `show` prints all output."""
        self.names = names
        self.show = show
        self.state = ROOT / "build/molecule" / names.replace(" ", "-")
        # As machines__prefix of molecule/resources/vars/machines.yml has them.
        checkout = hashlib.sha256(str(ROOT / "molecule/default").encode()).hexdigest()[:8]
        self.containers = [f"stackyard-{checkout}-{each}" for each in names.split()]
        # Whether the last scenario left a healthy stack in prod behind.
        self.converged = False

    def molecule(self, *arguments: str, log: Path) -> tuple[int, str, float]:
        """Run Molecule to its end; return exit status, output without colours, CPU-seconds."""
        programs = Path(sys.executable).parent
        process = subprocess.Popen(
            [programs / "molecule", *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={
                **os.environ,
                "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
                "LAB_MACHINES": self.names,
                # Its own would be keyed by the checkout's folder name alone.
                "MOLECULE_EPHEMERAL_DIRECTORY": str(self.state),
                "MOLECULE_COMMAND_BORDERS": "false",
            },
            # Its own group: what it started ends with it.
            start_new_session=True,
        )
        running.add(process.pid)
        limit = threading.Timer(LIMIT_SECONDS, end, [process.pid])
        limit.start()
        output = []
        assert process.stdout
        with process.stdout, log.open("w", buffering=1, encoding="utf-8") as stream:
            for line in process.stdout:
                output.append(COLOURS.sub("", line))
                stream.write(output[-1])
                if self.show:
                    sys.stdout.write(line)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        limit.cancel()
        running.discard(process.pid)
        return process.returncode, "".join(output), usage.ru_utime + usage.ru_stime

    def run(self, scenario: str) -> Result:
        """Run one scenario and leave the machines to the next."""
        log = LOGS / f"{self.names.replace(' ', '-')}-{scenario}.log"
        say(f"  {self.names} {scenario} ...")
        start = time.monotonic()
        meter = ContainerMeter(self.containers)
        if self.converged and converges_prod(scenario):
            command = ["verify", "-s", scenario]
        else:
            command = ["test", "-s", scenario, "--destroy=never"]
        code, output, cpu_seconds = self.molecule(*command, log=log)
        seconds = time.monotonic() - start
        cpu_seconds += meter.stop()
        checks = CHECKED.findall(output)
        # Molecule counts as success that it found no check to run.
        passed = code == 0 and bool(checks)
        self.converged = passed and scenario not in NO_STACK_LEFT
        counted = ", then ".join(checks) or "no check"
        result = Result(self.names, scenario, passed, counted, seconds, cpu_seconds)
        if passed:
            say(str(result))
        else:
            report = "" if self.show else excerpt(output)
            say(f"{report}\n{result}; all of it: {log.relative_to(ROOT)}")
        return result

    def run_all(self, scenarios: Sequence[str], *, keep: bool) -> list[Result]:
        """Run scenarios one after another, on new machines that are removed at the end."""
        if not keep:
            # What a killed run knew of its machines; create removes the machines themselves.
            shutil.rmtree(self.state, ignore_errors=True)
        try:
            return [self.run(each) for each in scenarios if not stopped.is_set()]
        finally:
            if not keep:
                self.molecule("destroy", log=LOGS / f"{self.names.replace(' ', '-')}-destroy.log")


def all_sets() -> dict[str, list[str]]:
    """Return the scenarios of make test-long by set."""
    return {names: scenarios + LONG.get(names, []) for names, scenarios in SETS.items()}


def converges_prod(scenario: str) -> bool:
    """Tell whether a scenario only converges site.yml in prod, as the one before it leaves it."""
    about = yaml.safe_load((ROOT / f"molecule/{scenario}/molecule.yml").read_text()) or {}
    return not {"scenario", "ansible"} & about.keys()


def side_by_side(cores: int, memory_gib: float) -> int:
    """Return how many sets run at a time: one for each core, if there is memory for them.

    More take longer: each stack's health checks cost CPU for as long as it is there.
    """
    return max(1, min(cores, int(memory_gib / MEMORY_OF_A_SET_GIB)))


def divided(sets: dict[str, list[str]], number: int) -> dict[str, list[str]]:
    """Return at least so many sets, where halves of the longest have a machine of their own."""
    result = dict(sets)
    while len(result) < number:
        names = max(result, key=lambda each: len(result[each]))
        scenarios = result[names]
        if len(scenarios) < SHORTEST_DIVIDED:
            break
        middle = len(scenarios) // 2
        debian = names.partition("-")[0]
        result[names] = scenarios[:middle]
        taken = sum(each.partition("-")[0] == debian for each in result)
        result[f"{debian}-{taken + 1}"] = scenarios[middle:]
    return result


def this_machine() -> tuple[int, float]:
    """Return this machine's cores, and its memory in GiB."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return len(os.sched_getaffinity(0)), memory_gib


def excerpt(output: str) -> str:
    """Return what a person needs of a failure: pytest's report and summary, or the last lines."""
    failures = output.partition("= FAILURES =")[2] or output.partition("= ERRORS =")[2]
    report, _, summary = failures.partition("= short test summary info =")
    lines = (report or output).splitlines()
    shown = lines[:LINES_SHOWN] if report else lines[-LINES_SHOWN:]
    return "\n".join([*shown, *summary.splitlines()[1:LINES_SHOWN]])


def end(group: int) -> None:
    """End a Molecule and all that it started; what it said until then is shown."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)


def stop(number: int, _frame: FrameType | None) -> None:
    """End what is running, so that machines are removed on the way out."""
    stopped.set()
    say(f"Stopping at {signal.Signals(number).name}: removing the machines")
    for group in tuple(running):
        end(group)


def main() -> int:
    """Run what was asked for; return 1 where something failed."""
    known = sorted({each for scenarios in all_sets().values() for each in scenarios})
    parser = argparse.ArgumentParser(prog="tests.scenarios", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(known))
    parser.add_argument("--machines", help="run on these: 'debian12 debian13'")
    parser.add_argument("--keep", action="store_true", help="keep machines, and use kept ones")
    parser.add_argument("--long", action="store_true", help="also run what takes long")
    parser.add_argument("--side-by-side", type=int, help="how many sets; by cores and memory")
    options = parser.parse_args()
    for name in options.scenarios:
        if name not in known:
            parser.error(f"no scenario {name}: there are {', '.join(known)}")
    sets = all_sets() if options.long else SETS
    if options.scenarios:
        first = next(names for names, found in all_sets().items() if options.scenarios[0] in found)
        sets = {options.machines or first: options.scenarios}
    workers = options.side_by_side or side_by_side(*this_machine())
    sets = divided(sets, workers) if not options.scenarios else sets
    if options.long:
        os.environ["PYTEST_ADDOPTS"] = "--long"
    LOGS.mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    start, busy = time.monotonic(), busy_seconds()
    with ThreadPoolExecutor(max_workers=workers) as pool:
        runs = [
            pool.submit(Machines(names, show=len(sets) == 1).run_all, scenarios, keep=options.keep)
            for names, scenarios in sets.items()
        ]
        results = [result for run in runs for result in run.result()]
    say("")
    for result in results:
        say(str(result))
    seconds, cpu_seconds = time.monotonic() - start, busy_seconds() - busy
    say(f"{seconds:.0f} s; this machine spent {cpu_seconds:.0f} CPU-seconds")
    complete = len(results) == sum(len(scenarios) for scenarios in sets.values())
    return 0 if complete and all(result.passed for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
