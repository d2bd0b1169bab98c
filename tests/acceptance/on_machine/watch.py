"""Run a command and return the engine's events meanwhile.

They are followed live: the engine remembers 256 of all kinds, and health checks alone make more.
Request: command, folder, project. Answer: code, out, err; events, each with action, service,
container and the moment in nanoseconds.
"""

import json
import subprocess
import sys
import time

request = json.loads(sys.argv[1])
follow = subprocess.Popen(
    [
        *("docker", "events", "--format", "{{json .}}", "--filter", "type=container"),
        *("--filter", "event=start", "--filter", "event=health_status"),
        *("--filter", f"label=com.docker.compose.project={request['project']}"),
    ],
    stdin=subprocess.DEVNULL,
    stdout=subprocess.PIPE,
    text=True,
)
try:
    # Until it listens.
    time.sleep(0.5)
    done = subprocess.run(
        request["command"],
        cwd=request["folder"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    time.sleep(0.5)
finally:
    follow.terminate()
    lines = follow.communicate()[0].splitlines()
events = []
for event in map(json.loads, lines):
    about = event["Actor"]["Attributes"]
    events.append(
        {
            "action": event["Action"],
            "service": about["com.docker.compose.service"],
            "container": about["name"],
            "moment": event["timeNano"],
        }
    )
report = {"code": done.returncode, "out": done.stdout, "err": done.stderr, "events": events}
print(json.dumps(report))
