"""CPU-seconds that lab machines spend, as the kernel accounts for their control groups.

A busy machine stretches seconds; these it does not stretch.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

SAMPLE_SECONDS = 5
CONTROL_GROUPS = Path("/sys/fs/cgroup")
# In /proc/PID/cgroup: controllers, and the container's own control group without those inside it.
CONTAINER = re.compile(r"^\d+:([^:]*):(/.*docker[-/][0-9a-f]{64}(?:\.scope)?)", re.MULTILINE)


def busy_seconds() -> float:
    """Return the CPU-seconds that all processors of this machine have spent since it booted."""
    fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def container_seconds(process: int) -> float:
    """Return the CPU-seconds of the container that a process is in, on cgroup v1 or v2.

    Raises OSError where the process or its control group is gone.
    """
    text = Path(f"/proc/{process}/cgroup").read_text(encoding="utf-8")
    groups = {
        name: path.lstrip("/")
        for names, path in CONTAINER.findall(text)
        for name in names.split(",")
    }
    if "cpuacct" in groups:
        usage = CONTROL_GROUPS / "cpuacct" / groups["cpuacct"] / "cpuacct.usage"
        return int(usage.read_text(encoding="ascii")) / 1e9
    statistics = CONTROL_GROUPS / groups.get("", "none") / "cpu.stat"
    found = re.search(r"^usage_usec (\d+)", statistics.read_text(encoding="ascii"), re.MULTILINE)
    return int(found[1]) / 1e6 if found else 0.0


class ContainerMeter:
    """Sums the CPU-seconds of containers while they are created, rebooted and removed."""

    def __init__(self, names: list[str]) -> None:
        """Start to sample the containers of these names."""
        self.seconds = 0.0
        self._names = names
        self._last: dict[str, float] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._sample()
        self.seconds = 0.0
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> float:
        """Stop sampling and return the CPU-seconds since the start."""
        self._stopped.set()
        self._sample()
        return self.seconds

    def _run(self) -> None:
        while not self._stopped.wait(SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> None:
        shown = "{{.Name}} {{.State.Pid}}"
        done = subprocess.run(
            ["docker", "inspect", "--type=container", f"--format={shown}", *self._names],
            capture_output=True,
            text=True,
            check=False,
        )
        with self._lock:
            for line in filter(None, done.stdout.splitlines()):
                name, process = line.split()
                with suppress(OSError):
                    now = container_seconds(int(process))
                    before = self._last.get(name, 0.0)
                    # A new container, or one that was started again, counts from zero.
                    self.seconds += now - before if now >= before else now
                    self._last[name] = now
