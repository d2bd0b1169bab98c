"""Unpause containers, also where the engine cannot: [ids] in, those that it could not out.

A health check that was about to start when its container was frozen is frozen with it, and the
engine waits for the one before it does the other, for good. Thawed behind its back, the check gets
to start; frozen again, the container is as the engine believes.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

SECONDS = 5


def unpause(container: str) -> bool:
    """Ask the engine; whether it did."""
    try:
        command = ["docker", "unpause", container]
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def freezer(container: str) -> "tuple[Path, str, str]":
    """Return the kernel's own switch, and what to write to freeze and to thaw; v2 or v1."""
    command = ["docker", "inspect", "--format", "{{.State.Pid}}", container]
    pid = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
    paths = {kind: path for _, kind, path in (line.split(":", 2) for line in lines)}
    root = Path("/sys/fs/cgroup")
    if "freezer" in paths:
        return root / f"freezer{paths['freezer']}" / "freezer.state", "FROZEN", "THAWED"
    return root / paths[""].lstrip("/") / "cgroup.freeze", "1", "0"


stuck = []
for each in json.loads(sys.argv[1]):
    if unpause(each):
        continue
    stuck.append(each)
    switch, freeze, thaw = freezer(each)
    switch.write_text(thaw, encoding="utf-8")
    time.sleep(1)
    switch.write_text(freeze, encoding="utf-8")
    if not unpause(each):
        raise SystemExit(f"{each} cannot be unpaused: docker rm -f it, and docker compose up -d")
print(json.dumps(stuck))
