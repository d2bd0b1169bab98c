"""Start the backup program, kill it and all it started at a point, and say how far it was.

Request: directory of the stack; arguments for the program; point, one of
restoring (its first container runs), recovering (its server runs), switching (the journal says so),
exchanged (the restored directory is in place). Answer: killed, whether it came to that point;
output, what it said until then.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

request = json.loads(sys.argv[1])
directory = Path(request["directory"])
journal = directory / "restore.json"
live = Path("/var/lib/docker/volumes/stackyard_database-data/_data")


def entry() -> dict:
    """Return what the journal says."""
    try:
        return json.loads(journal.read_text())
    except (OSError, ValueError):
        return {}


def container(wanted: str) -> bool:
    """Tell whether the restore's container runs the server, or does not yet."""
    shown = ["docker", "inspect", "--format", "{{.Config.Cmd}}", "stackyard-restore"]
    done = subprocess.run(shown, capture_output=True, text=True, check=False)
    return done.returncode == 0 and wanted in done.stdout


POINTS = {
    "restoring": lambda: entry().get("phase") == "preparing" and container("--set="),
    "recovering": lambda: container("archive_command=false"),
    "switching": lambda: entry().get("phase") == "switching",
    "exchanged": lambda: (
        entry().get("phase") == "switching" and live.stat().st_ino == entry().get("arriving")
    ),
}

process = subprocess.Popen(
    ["/usr/bin/python3", str(directory / "bin/backup"), *request["arguments"]],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    start_new_session=True,
)
reached = False
while process.poll() is None and not reached:
    reached = POINTS[request["point"]]()
    time.sleep(0.002)
if reached:
    os.killpg(process.pid, signal.SIGKILL)
output, _ = process.communicate()
print(json.dumps({"killed": reached, "output": output}))
