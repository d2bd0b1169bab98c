"""The command line: what to measure, the table at the end, and the JSON file."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import cold, fleet, images, recover, requests, unchanged
from bench.debian import machine_image, remove_images
from bench.figures import Figure, table
from bench.host import describe, engine_of, lines
from bench.labels import SCRATCH, only_bench, remove_leftovers, stop_in_order
from bench.machine import Machine, pack_checkout
from bench.shell import BenchError, check, say

ROOT = Path(__file__).resolve().parent.parent
PARTS = {
    "cold": "make up on a bare machine, against a plain shell script",
    "unchanged": "make up again, with nothing to change",
    "recover": "time to healthy after docker compose down",
    "images": "image sizes",
    "requests": "requests through the gateway, against a plain FastAPI app in the api's place",
    "fleet": "what a further machine costs the controller; only where it is named",
}
DEFAULT_PARTS = [name for name in PARTS if name != "fleet"]


def sizes(text: str) -> list[int]:
    """Read the sizes of fleets."""
    found = sorted({int(each) for each in text.split(",")})
    if found[0] < 1:
        raise ValueError
    return found


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    described = "\n".join(f"  {name:10} {text}" for name, text in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Measure how fast Stackyard is, on bare machines made for that.",
        epilog=f"parts:\n{described}\n  clean      remove what the bench keeps",
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="all by default")
    parser.add_argument("--pairs", type=int, default=2, help="pairs of cold runs (2)")
    parser.add_argument("--runs", type=int, default=5, help="pairs of unchanged runs (5)")
    parser.add_argument("--recoveries", type=int, default=3, help="times down and up (3)")
    parser.add_argument("--seconds", type=int, default=4, help="length of each load (4)")
    parser.add_argument("--load-pairs", type=int, default=3, help="pairs of loads (3)")
    parser.add_argument("--sizes", type=sizes, default=[1, 2, 4, 8], help="of fleets (1,2,4,8)")
    parser.add_argument("--api-image", help="load this image of the host's in the api's place")
    parser.add_argument("--json", type=Path, default=ROOT / "build/bench.json", help="result file")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - {*PARTS, "clean"}:
        parser.error(f"no part {', '.join(sorted(unknown))}: there are {', '.join(PARTS)}, clean")
    for name in ("pairs", "runs", "recoveries", "seconds", "load_pairs"):
        value = getattr(options, name)
        if value < 1:
            option = name.replace("_", "-")
            parser.error(f"--{option} is {value}: give a whole number from 1")
    return options


class Bench:
    """One run of the bench: what was asked for, and what was measured so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.parts = [name for name in PARTS if name in (options.parts or DEFAULT_PARTS)]
        self.about = describe(ROOT)
        self.figures: list[Figure] = []
        self.details: dict[str, Any] = {}
        self.failures: list[str] = []

    def run(self) -> None:
        """Measure all parts that were asked for; a part that fails does not stop the others."""
        logs = self.options.json.parent / "bench"
        if "fleet" in self.parts:
            say(PARTS["fleet"][0].upper() + PARTS["fleet"][1:])
            self.figures, self.details["fleet"] = fleet.measure(
                ROOT, self.options.sizes, min(self.options.runs, 3), logs
            )
        if self.parts != ["fleet"]:
            self.run_stack(logs)

    def run_stack(self, logs: Path) -> None:
        """Measure what one machine with a checkout is needed for."""
        with tempfile.TemporaryDirectory(prefix=SCRATCH) as scratch:
            checkout = Path(scratch) / "checkout.tar"
            pack_checkout(ROOT, checkout)
            machine_image()
            inside = self.look if set(self.parts) - {"cold", "fleet"} else None
            if "cold" in self.parts:
                result = cold.Cold()
                try:
                    cold.run_pairs(result, self.options.pairs, checkout, logs, inside)
                finally:
                    self.figures[:0] = result.figures()
                    self.details["cold"] = result.details()
            else:
                cold.bring_up(checkout, logs, self.look)

    def look(self, machine: Machine) -> None:
        """Measure, on a machine with a healthy stack, what needs one."""
        self.about["bare_machine"] = engine_of(machine)
        options = self.options
        measures: dict[str, Callable[[], tuple[list[Figure], dict[str, Any]]]] = {
            "unchanged": lambda: unchanged.measure(machine, options.runs),
            "recover": lambda: recover.measure(machine, options.recoveries),
            "images": lambda: images.measure(machine),
            "requests": lambda: requests.measure(
                machine, options.seconds, options.load_pairs, options.api_image
            ),
        }
        for name, measure in measures.items():
            if name not in self.parts:
                continue
            say(PARTS[name][0].upper() + PARTS[name][1:])
            try:
                figures, self.details[name] = measure()
            except BenchError as error:
                self.failures.append(f"{name}: {error}")
                say(f"  failed: {error}")
            else:
                self.figures += figures

    def report(self) -> None:
        """Print the table and write the JSON file."""
        data = {
            "machine": self.about,
            "figures": [figure.as_data() for figure in self.figures],
            "details": self.details,
            "failures": self.failures,
        }
        path = self.options.json
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
        print(f"\n{table(self.figures)}\n\n{lines(self.about)}\nAs JSON: {path}", flush=True)


def main(arguments: list[str]) -> int:
    """Run the bench; return 1 where something could not be measured, never for a missed target."""
    options = parse(arguments)
    stop_in_order()
    try:
        with only_bench():
            check(["docker", "version"])
            remove_leftovers()
            if "clean" in options.parts:
                remove_images()
                return 0
            bench = Bench(options)
            say(lines(bench.about).replace("\n", "\n          "))
            try:
                bench.run()
            except BenchError as error:
                bench.failures.append(str(error))
            if bench.figures:
                bench.report()
            for failure in bench.failures:
                print(f"\nNot measured: {failure}", file=sys.stderr)
            return 1 if bench.failures else 0
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print(f"\nInterrupted{f' by {interrupt}' if str(interrupt) else ''}.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
