"""The command line: which mutations, on which stack; exit code 1 when one was not noticed."""

from __future__ import annotations

import argparse
import fnmatch
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .checks import ROOT, CannotTell, Copy, Verdict
from .lab import Lab
from .mutation import DoesNotApply, Mutation, load
from .report import Result, summary, write, write_table

if TYPE_CHECKING:
    from collections.abc import Callable

UNNOTICED, UNTOLD, INTERRUPTED = 1, 2, 130


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutation",
        description="Break one promise at a time, and see which check notices. The stack has to "
        "be up, in prod, and none that somebody uses; it is left as it was.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutations, * in them; all")
    parser.add_argument("--hosts", default="ansible://lab", help="as pytest's (ansible://lab)")
    parser.add_argument("--inventory", default="tests/inventory.yml", help="(tests/inventory.yml)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="given")
    parser.add_argument("--templates", action="store_true", help="without a running stack")
    parser.add_argument("--json", type=Path, default=ROOT / "build/mutate.json", help="result file")
    parser.add_argument("--list", action="store_true", help="list the mutations and end")
    parser.add_argument(
        "--markdown", action="store_true", help="write the result file into tests/README.md and end"
    )
    return parser.parse_args(arguments)


def chosen(patterns: list[str]) -> list[Mutation]:
    """Return the mutations that somebody asked for."""
    mutations = load()
    for pattern in patterns:
        if not fnmatch.filter([each.name for each in mutations], pattern):
            raise CannotTell(f"no mutation is named {pattern}: see --list")
    return [
        each
        for each in mutations
        if not patterns or any(fnmatch.fnmatch(each.name, pattern) for pattern in patterns)
    ]


def told(judge: Callable[[Mutation], Verdict], mutation: Mutation) -> Verdict:
    """Return the verdict, also where there is nothing to judge."""
    start = time.monotonic()
    try:
        return judge(mutation)
    except DoesNotApply as reason:
        return Verdict("inapplicable", message=str(reason), seconds=time.monotonic() - start)


def run(options: argparse.Namespace, results: list[Result]) -> None:
    """Break, ask and mend, mutation by mutation."""
    mutations = chosen(options.names)
    lab = None
    with Copy() as copy, ThreadPoolExecutor(1) as pool:
        try:
            if not options.templates and any(each.noticed_by for each in mutations):
                given = dict(word.split("=", 1) for word in options.given)
                lab = Lab(options.hosts, options.inventory, given)
            found = copy.failing() + (lab.failing(mutations) if lab else [])
            if found:
                lines = "\n".join(found)
                raise CannotTell(f"these fail without a mutation, so they tell nothing:\n{lines}")
            for each in mutations:
                start = time.monotonic()
                # The machine mostly waits for health: time for the checks without one.
                templates = None
                if each.sources or each.rendered:
                    templates = pool.submit(told, copy.judge, each)
                promises = told(lab.judge, each) if lab and each.noticed_by else None
                seen = templates.result() if templates else None
                if seen or promises:
                    results.append(Result(each, seen, promises, time.monotonic() - start))
                    print(results[-1].lines(), flush=True)
        finally:
            if lab:
                lab.close()


def main(arguments: list[str]) -> int:
    """Do what was asked for; return the exit code."""
    options = parse(arguments)
    # Ended in whatever way, the stack is mended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    start = time.monotonic()
    results: list[Result] = []
    try:
        if options.markdown:
            write_table(options.json)
            return 0
        if options.list:
            for each in chosen(options.names):
                print(f"{each.breaks[0]!s:>2}  {each.name}")
            return 0
        run(options, results)
    except (CannotTell, AssertionError, pytest.fail.Exception) as reason:
        print(reason, file=sys.stderr)
        return UNTOLD
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        if results:
            seconds = time.monotonic() - start
            write(options.json, results, seconds)
            print(summary(results, seconds))
    return 0 if all(result.noticed for result in results) else UNNOTICED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
