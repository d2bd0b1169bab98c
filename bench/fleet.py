"""What a further machine costs the controller: CPU seconds, bytes and time, first and unchanged."""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.figures import Figure
from bench.labels import SCRATCH
from bench.machine import USER, Machine, booted
from bench.shell import BenchError, check, run, say, tail
from bench.stack import changed

# CPU seconds of the controller.
TARGET_SECONDS = 1.5
# Stacks that are small, since they share the controller's cores: five containers each.
SMALL = {"stack_compose_frontend_replicas": 1, "stack_compose_api_replicas": 1}


@dataclass
class Spent:
    """What a run cost: seconds, CPU seconds of the controller, bytes to and from each machine."""

    seconds: float
    cpu_seconds: float
    sent: float
    received: float
    changed: int


class Fleet:
    """Lab machines that are reached over SSH, and runs of site.yml on all of them."""

    def __init__(self, root: Path, scratch: Path, machines: Sequence[Machine]) -> None:
        """Take the checkout, a directory with the key, and the machines."""
        self.root = root
        self.scratch = scratch
        self.addresses = [machine.address() for machine in machines]
        hosts = {
            f"lab{number}": {"ansible_host": address}
            for number, address in enumerate(self.addresses, 1)
        }
        every = {
            "ansible_user": USER,
            "ansible_ssh_private_key_file": str(scratch / "key"),
            "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o LogLevel=ERROR"
            " -o UserKnownHostsFile=/dev/null",
            # Built once, by this machine, for all.
            "stack_images_distribution": "archive",
            **SMALL,
        }
        self.inventory = scratch / f"fleet-{len(machines)}.yml"
        inventory = {"lab": {"hosts": hosts, "vars": every}}
        self.inventory.write_text(json.dumps(inventory), encoding="utf-8")

    def run(self, log: Path) -> Spent:
        """Run site.yml on all machines; raises BenchError where it fails."""
        # Connections of its own: a run finds none that an earlier one left.
        with tempfile.TemporaryDirectory(prefix=SCRATCH) as connections:
            output = run(
                [
                    *("env", "-C", str(self.root), f"ANSIBLE_SSH_CONTROL_PATH_DIR={connections}"),
                    *("LANG=C.UTF-8", sys.executable, "-m", "bench.spent"),
                    *(
                        ",".join(self.addresses),
                        str(Path(sys.executable).parent / "ansible-playbook"),
                    ),
                    *("-i", str(self.inventory), "site.yml", "-e", "env=prod"),
                ],
                timeout=1800,
            )
        output.save(log)
        if output.status != 0:
            raise BenchError(
                f"Status {output.status} of {len(self.addresses)}: {log}\n{tail(output)}"
            )
        spent = json.loads(output.lines[-1][1])
        sent, received = (
            statistics.mean(pair[column] for pair in spent["bytes"].values()) for column in (0, 1)
        )
        return Spent(spent["seconds"], spent["cpu_seconds"], sent, received, changed(output))


@contextmanager
def fleet_of(number: int, root: Path) -> Iterator[Fleet]:
    """Make so many bare machines that this one reaches over SSH; remove them on the way out."""
    with tempfile.TemporaryDirectory(prefix=SCRATCH) as directory, ExitStack() as stack:
        scratch = Path(directory)
        check(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(scratch / "key")])
        public = (scratch / "key.pub").read_text(encoding="utf-8")
        machines = []
        for each in range(1, number + 1):
            machine = stack.enter_context(booted(f"stackyard-bench-fleet{each}"))
            machine.do("install", "-d", "-m", "0700", f"/home/{USER}/.ssh", user=USER)
            keys = f"/home/{USER}/.ssh/authorized_keys"
            machine.do("dd", "status=none", f"of={keys}", stdin=public, user=USER)
            machines.append(machine)
        yield Fleet(root, scratch, machines)


def measure(
    root: Path, sizes: Sequence[int], runs: int, logs: Path
) -> tuple[list[Figure], dict[str, Any]]:
    """Run site.yml on new fleets of these sizes: on bare machines, then with nothing to do."""
    if missing := [each for each in ("ss", "ssh", "ssh-keygen") if not shutil.which(each)]:
        raise BenchError(f"No {missing[0]} here: apt-get install iproute2 openssh-client")
    first: dict[int, Spent] = {}
    unchanged: dict[int, list[Spent]] = {}
    for size in sizes:
        say(f"A fleet of {size}")
        with fleet_of(size, root) as fleet:
            first[size] = fleet.run(logs / f"fleet-{size}-first.log")
            say(f"  First: {shown(first[size])}")
            unchanged[size] = []
            for number in range(1, runs + 1):
                spent = fleet.run(logs / f"fleet-{size}-unchanged-{number}.log")
                say(f"  Unchanged {number} of {runs}: {shown(spent)}, changed={spent.changed}")
                unchanged[size].append(spent)
    details = {
        "first": {size: vars(spent) for size, spent in first.items()},
        "unchanged": {size: [vars(each) for each in spent] for size, spent in unchanged.items()},
    }
    return figures(first, unchanged), details


def shown(spent: Spent) -> str:
    """Return a run's cost in words."""
    return (
        f"{spent.seconds:.1f} s, CPU {spent.cpu_seconds:.1f} s, {spent.sent / 1e6:.2f} MB a machine"
    )


def figures(first: dict[int, Spent], unchanged: dict[int, list[Spent]]) -> list[Figure]:
    """Return the figures; the target is for what one more machine adds to an unchanged run."""
    found = []
    for size in unchanged:
        once, runs = first[size], unchanged[size]
        found += [
            Figure(f"{size}: first run", once.seconds, "s"),
            Figure(f"{size}: first run, CPU of the controller", once.cpu_seconds, "s"),
            Figure(f"{size}: first run, sent to a machine", once.sent / 1e6, "MB"),
            Figure(f"{size}: unchanged", statistics.median(each.seconds for each in runs), "s"),
            Figure(f"{size}: unchanged, CPU of the controller", cpu(runs), "s"),
            Figure(f"{size}: unchanged, sent to a machine", runs[0].sent / 1e3, "kB"),
            Figure(f"{size}: unchanged, tasks changed", max(each.changed for each in runs), "", 0),
        ]
    few, many = min(unchanged), max(unchanged)
    if few != many:
        further = (cpu(unchanged[many]) - cpu(unchanged[few])) / (many - few)
        note = f"from {few} to {many}"
        found.append(
            Figure(
                "a further machine, unchanged, CPU of the controller",
                further,
                "s",
                TARGET_SECONDS,
                note,
            )
        )
    return found


def cpu(runs: list[Spent]) -> float:
    """Return the median of the CPU seconds."""
    return statistics.median(each.cpu_seconds for each in runs)
