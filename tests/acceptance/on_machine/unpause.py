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
TRIES = 3


def docker(*words: str) -> str:
    """Return what the engine says, nothing where it does not do it or does not answer."""
    try:
        done = subprocess.run(
            ["docker", *words], capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def freezer(container: str) -> "tuple[Path, str, str]":
    """Return the kernel's own switch, and what to write to freeze and to thaw; v2 or v1."""
    pid = docker("inspect", "--format", "{{.State.Pid}}", container)
    lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
    paths = {kind: path for _, kind, path in (line.split(":", 2) for line in lines)}
    root = Path("/sys/fs/cgroup")
    if "freezer" in paths:
        return root / f"freezer{paths['freezer']}" / "freezer.state", "FROZEN", "THAWED"
    return root / paths[""].lstrip("/") / "cgroup.freeze", "1", "0"


def free(container: str) -> bool:
    """Free a container that the engine cannot unpause; whether that worked."""
    switch, freeze, thaw = switches[container]
    for _ in range(TRIES):
        switch.write_text(thaw, encoding="utf-8")
        time.sleep(1)
        switch.write_text(freeze, encoding="utf-8")
        docker("unpause", container)
        # The request that the engine could not serve before may have done it by now.
        if docker("inspect", "--format", "{{.State.Paused}}", container) == "false":
            switch.write_text(thaw, encoding="utf-8")
            return True
    return False


containers = json.loads(sys.argv[1])
# Now: while it cannot unpause a container, the engine says nothing about it either.
switches = {each: freezer(each) for each in containers}
stuck = [each for each in containers if not docker("unpause", each)]
lost = [each for each in stuck if not free(each)]
if lost:
    raise SystemExit(f"cannot be unpaused: docker rm -f {' '.join(lost)}, then compose up -d")
print(json.dumps(stuck))
