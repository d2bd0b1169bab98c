"""Take steps against containers while clients keep asking, and say what each step did to whom.

Request: urls, and how many requests a second (rate); folder; label of all containers; containers,
by name the process number; steps, each with a command and the seconds to watch after it. Answer:
the engine's events; and by step code, out, err; the seconds that the command took, and those that
the machine's cores were idle meanwhile; asked; failures, each with the seconds from the step's
start to the request's, its own seconds, the path and what was wrong; before and after the command,
what the kernel has counted for each container.
"""

import http.client
import json
import os
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

request = json.loads(sys.argv[1])
CLIENT_SECONDS = 5
done = threading.Event()
lock = threading.Lock()
steps: list = []


def numbers(path: Path) -> dict:
    """Return a file's `name number` lines; nothing where there is no such file any more."""
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) == 2}


def number(path: Path) -> int:
    """Return a file's number, 0 where there is none."""
    try:
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0


def counted(pid: int) -> dict:
    """Return what happened in the container's control group so far, of cgroup v2 or v1."""
    cgroup = Path(f"/proc/{pid}/root/sys/fs/cgroup")
    if (cgroup / "cgroup.controllers").exists():
        cpu = numbers(cgroup / "cpu.stat")
        memory = numbers(cgroup / "memory.events")
        pids = numbers(cgroup / "pids.events")
        used = cpu.get("usage_usec", 0) / 1e6
        peak = number(cgroup / "memory.peak")
    else:
        cpu = numbers(cgroup / "cpu/cpu.stat")
        memory = numbers(cgroup / "memory/memory.oom_control")
        pids = numbers(cgroup / "pids/pids.events")
        used = number(cgroup / "cpuacct/cpuacct.usage") / 1e9
        peak = number(cgroup / "memory/memory.max_usage_in_bytes")
    return {
        "cpu_seconds": used,
        "periods": cpu.get("nr_periods", 0),
        "throttled": cpu.get("nr_throttled", 0),
        "oom_kills": memory.get("oom_kill", 0),
        "peak": peak,
        "forks_refused": pids.get("max", 0),
    }


def all_counted() -> dict:
    """Return the same for every container."""
    return {name: counted(pid) for name, pid in request["containers"].items()}


def idle() -> float:
    """Return for how many seconds the machine's cores have been idle, all together."""
    ticks = Path("/proc/stat").read_text(encoding="utf-8").split(None, 5)[4]
    return int(ticks) / os.sysconf("SC_CLK_TCK")


def ask(url: str) -> None:
    """Send one request over a connection of its own and note when it failed, and how."""
    step, start = steps[-1], time.monotonic()
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=CLIENT_SECONDS)
    failure = ""
    try:
        connection.request("GET", parts.path)
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            failure = f"{response.status} {body[:200]!r}"
    except (OSError, http.client.HTTPException) as error:
        failure = f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    with lock:
        step["asked"] += 1
        if failure:
            at, took = start - step["began"], time.monotonic() - start
            step["failures"].append([round(at, 2), round(took, 2), parts.path, failure])


def keep_asking() -> None:
    """Begin requests at a steady rate, however long those before take."""
    asked, count = [], 0
    while not done.wait(1 / request["rate"]):
        thread = threading.Thread(target=ask, args=(request["urls"][count % len(request["urls"])],))
        thread.start()
        asked.append(thread)
        count += 1
    for thread in asked:
        thread.join()


def take(step: dict) -> None:
    """Run the step's command, watch, and note what came of it."""
    report = {"began": time.monotonic(), "asked": 0, "failures": [], "before": all_counted()}
    steps.append(report)
    if len(steps) == 1 and request["urls"]:
        client.start()
    idle_before = idle()
    run = subprocess.run(
        step["command"],
        cwd=request["folder"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    report |= {"code": run.returncode, "out": run.stdout, "err": run.stderr}
    report["seconds"] = time.monotonic() - report["began"]
    report |= {"idle": idle() - idle_before, "after": all_counted()}
    time.sleep(step["watch"])


follow = subprocess.Popen(
    [
        *("docker", "events", "--format", "{{json .}}", "--filter", "type=container"),
        *(f"--filter=event={action}" for action in ("oom", "die", "start", "pause")),
        *("--filter", f"label={request['label']}"),
    ],
    stdin=subprocess.DEVNULL,
    stdout=subprocess.PIPE,
    text=True,
)
client = threading.Thread(target=keep_asking)
try:
    # Until it listens.
    time.sleep(0.3)
    for step in request["steps"]:
        take(step)
    time.sleep(0.3)
finally:
    done.set()
    if client.ident:
        client.join()
    follow.terminate()
    lines = follow.communicate()[0].splitlines()
events = []
for event in map(json.loads, lines):
    about = event["Actor"]["Attributes"]
    events.append([event["Action"], about["name"], about.get("exitCode", "")])
print(json.dumps({"steps": steps, "events": events}))
