"""How large the images are."""

from __future__ import annotations

import json
from typing import Any

from bench.figures import Figure
from bench.machine import Machine
from bench.stack import SERVICES, sizes

# Megabytes (powers of ten) of the five together, shared layers counted once.
TARGET_MEGABYTES = 500


def measure(machine: Machine) -> tuple[list[Figure], dict[str, Any]]:
    """Return the base's size, what each image adds to it, and the total, in 10^6 bytes."""
    found = sizes(machine)
    base = found["base"]
    added = {name: found[name] - base for name in SERVICES}
    note = "base and five images, shared layers once"
    if shared := layers_in_common(machine):
        note += f"; {shared} layers besides the base's are shared and counted more than once"
    figures = [
        Figure("image: base", base / 1e6, "MB"),
        *(Figure(f"image: {name}, on top", size / 1e6, "MB") for name, size in added.items()),
        Figure("images together", (base + sum(added.values())) / 1e6, "MB", TARGET_MEGABYTES, note),
    ]
    return figures, {"bytes": found}


def layers_in_common(machine: Machine) -> int:
    """Return how many layers two or more services share besides those of the base."""
    layers = {
        name: json.loads(
            machine.do(
                *("docker", "image", "inspect", "--format={{json .RootFS.Layers}}"), reference
            )
        )
        for name, reference in references(machine).items()
    }
    base = set(layers.pop("base"))
    seen: set[str] = set()
    common: set[str] = set()
    for own in layers.values():
        common |= (seen & set(own)) - base
        seen |= set(own)
    return len(common)


def references(machine: Machine) -> dict[str, str]:
    """Return a reference for the base image and for each service's."""
    listed = machine.do(
        *("docker", "image", "ls", "--filter=dangling=false"),
        "--format={{.Repository}} {{.Repository}}:{{.Tag}}",
    )
    found = {}
    for line in listed.splitlines():
        repository, reference = line.split()
        found[repository.rsplit("/", 1)[-1]] = reference
    return {name: found[name] for name in ("base", *SERVICES)}
