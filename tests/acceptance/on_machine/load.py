"""Run commands one after another while clients keep asking, and report every failed request.

Request: urls; clients; folder; phases, each a command, and the seconds to settle and to watch
after it. Answer: requests, failures, and by phase the command's exit code and output, and which
frontends and apis answered while it was watched.
"""

import http.client
import json
import subprocess
import sys
import threading
import time
import urllib.parse

request = json.loads(sys.argv[1])
done = threading.Event()
lock = threading.Lock()
report = {"requests": 0, "failures": [], "phases": []}
now = {"phase": 0, "watching": None}


def ask(url: str) -> None:
    """Send one request over a connection of its own and note what came of it."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    seen, failure = {}, ""
    try:
        connection.request("GET", parts.path)
        response = connection.getresponse()
        body = response.read()
        seen = {name: response.getheader(name) for name in ("X-Served-By", "X-Replica")}
        if response.status != 200:
            failure = f"{response.status} {body[:200]!r}"
    except (OSError, http.client.HTTPException) as error:
        failure = f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    with lock:
        report["requests"] += 1
        if failure:
            report["failures"].append(f"phase {now['phase']}: {parts.path}: {failure}")
        elif now["watching"] is not None:
            for name, value in seen.items():
                if value:
                    now["watching"].setdefault(name, set()).add(value)


def client(number: int) -> None:
    """Keep asking."""
    count = number
    while not done.is_set():
        ask(request["urls"][count % len(request["urls"])])
        count += 1
        time.sleep(0.01)


clients = [threading.Thread(target=client, args=(n,)) for n in range(request["clients"])]
for thread in clients:
    thread.start()
try:
    for phase in request["phases"]:
        run = subprocess.run(
            phase["command"],
            cwd=request["folder"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        time.sleep(phase["settle"])
        with lock:
            now["watching"] = {}
        time.sleep(phase["watch"])
        with lock:
            seen, now["watching"] = now["watching"], None
            now["phase"] += 1
        report["phases"].append(
            {
                "code": run.returncode,
                "out": run.stdout,
                "err": run.stderr,
                "seen": {name: sorted(values) for name, values in seen.items()},
            }
        )
finally:
    done.set()
    for thread in clients:
        thread.join()
print(json.dumps(report))
