"""Steady load through the gateway until a file is there: reads, writes, and requests of 5 s.

Request: url, of the gateway; until, the file; seconds at most; rate, requests a second; slow, how
many requests of 5 s are under way at any time; least, how many requests at least, whenever the file
comes. Half of the clients keep their connections. Answer: requests, writes, slow ones, failures by
reason with a few examples of each, items (path, and the
names that it may have after what was acknowledged), and seconds.
"""

import http.client
import json
import sys
import threading
import time
import urllib.parse
from pathlib import Path

request = json.loads(sys.argv[1])
place = urllib.parse.urlsplit(request["url"])
CLIENTS = 8
READS = ["/", "/api/items", "/api/whoami", "/api/session", "/api/config"]
until = Path(request["until"])
lock = threading.Lock()
report = {"requests": 0, "writes": 0, "slow": 0, "failures": {}, "items": {}}
start = time.monotonic()


def over() -> bool:
    """Tell whether the load is to end."""
    seconds = time.monotonic() - start
    return seconds > request["seconds"] or (
        until.exists() and report["requests"] >= request["least"]
    )


class Client:
    """One connection, kept or made anew for each request."""

    def __init__(self, *, keep: bool, timeout: float = 20) -> None:
        """Nothing is connected yet."""
        self.keep, self.timeout = keep, timeout
        self.connection: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str, content: object = None) -> tuple[int, bytes]:
        """Send a request; return status and body, status 0 with the error where there is none."""
        body = None if content is None else json.dumps(content)
        headers = {"Content-Type": "application/json"} if body else {}
        try:
            if self.connection is None:
                self.connection = http.client.HTTPConnection(
                    place.hostname, place.port, timeout=self.timeout
                )
            self.connection.request(method, path, body, headers)
            answer = self.connection.getresponse()
            text = answer.read()
            if not self.keep or answer.will_close:
                self.close()
            return answer.status, text
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return 0, f"{type(error).__name__}: {error}".encode()

    def close(self) -> None:
        """Hang up."""
        if self.connection:
            self.connection.close()
        self.connection = None


def note(kind: str, path: str, status: int, wanted: int, text: bytes) -> None:
    """Count a request, and what is wrong with its answer."""
    with lock:
        report["requests"] += 1
        if kind:
            report[kind] += 1
        if status != wanted:
            moment = f"{time.monotonic() - start:.1f} s"
            reason = f"{status or text.decode(errors='replace')[:80]}"
            report["failures"].setdefault(reason, []).append(f"{moment} {path}: {text[:200]!r}")


def steady(number: int) -> None:
    """Ask at a steady rate: of ten requests, two are writes."""
    client = Client(keep=number % 2 == 0)
    pause = CLIENTS / request["rate"]
    due = time.monotonic() + pause * number / CLIENTS
    count = number
    # Who else changed an item would decide what it is in the end.
    mine = ""
    while not over():
        time.sleep(max(due - time.monotonic(), 0))
        due += pause
        count += 1
        if count % 10 == 0:
            name = f"steady {number} {count}"
            status, text = client.ask("POST", "/api/items", {"name": name})
            note("writes", "POST /api/items", status, 201, text)
            if status == 201:
                mine = f"/api/items/{json.loads(text)['id']}"
                with lock:
                    report["items"][mine] = [name]
        elif count % 10 == 5 and mine:
            changed = f"{name} again"
            status, text = client.ask("PUT", mine, {"name": changed})
            note("writes", f"PUT {mine}", status, 200, text)
            # One that was not acknowledged may have been done all the same.
            with lock:
                kept = [changed] if status == 200 else [*report["items"][mine], changed]
                report["items"][mine] = kept
        else:
            path = READS[count % len(READS)]
            status, text = client.ask("GET", path)
            note("", path, status, 200, text)


def slow(number: int) -> None:
    """Keep one request of 5 s under way."""
    client = Client(keep=number % 2 == 0)
    time.sleep(number * 5 / max(request["slow"], 1))
    while not over():
        status, text = client.ask("GET", "/api/whoami?wait=5")
        note("slow", "/api/whoami?wait=5", status, 200, text)


threads = [threading.Thread(target=steady, args=(n,)) for n in range(CLIENTS)]
threads += [threading.Thread(target=slow, args=(n,)) for n in range(request["slow"])]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
report["failed"] = sum(len(cases) for cases in report["failures"].values())
report["failures"] = {reason: cases[:5] for reason, cases in report["failures"].items()}
report["seconds"] = round(time.monotonic() - start, 1)
print(json.dumps(report))
