"""On what machine it was measured."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.machine import Machine
from bench.shell import run

# Load average a core above which other work shows in the figures.
BUSY = 0.25


def describe(root: Path) -> dict[str, Any]:
    """Return processor, cores, memory, kernel, distribution, engine, date, commit and load."""
    load = os.getloadavg()[0]
    cores = len(os.sched_getaffinity(0))
    return {
        "processor": _processor(),
        "cores": cores,
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "distribution": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
        "engine": run(["docker", "version", "--format", "{{.Server.Version}}"]).text,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(root),
        "load_average": load,
        "busy": load > BUSY * cores,
    }


def engine_of(machine: Machine) -> dict[str, str]:
    """Return the versions of the bare machine's own engine, Compose and Buildx."""
    return {
        "engine": machine.do("docker", "version", "--format", "{{.Server.Version}}"),
        "compose": machine.do("docker", "compose", "version", "--short"),
        "buildx": machine.do("docker", "buildx", "version").split()[1],
    }


def lines(about: dict[str, Any]) -> str:
    """Return the description as two lines, and a third where other work was going on."""
    text = (
        f"{about['processor']}, {about['cores']} cores,"
        f" {about['memory_bytes'] / 2**30:.0f} GiB, {about['distribution']},"
        f" Linux {about['kernel']} {about['architecture']}, engine {about['engine']}\n"
        f"{about['date']}, commit {about['commit']}, load average {about['load_average']:.2f}"
    )
    if about["busy"]:
        text += "\nWARNING: this machine was busy when the bench began; expect figures to be worse."
    return text


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith(("model name", "Model")):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown processor"


def _commit(root: Path) -> str:
    git = ["git", "-C", str(root)]
    commit = run([*git, "rev-parse", "--short=12", "HEAD"])
    if commit.status != 0:
        return "unknown"
    changed = run([*git, "status", "--porcelain"]).text
    return f"{commit.text} with uncommitted changes" if changed else commit.text
