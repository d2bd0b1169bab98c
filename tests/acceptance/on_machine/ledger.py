"""Reads and writes at a steady rate until a file is there, with a record of every request.

Each client changes items of its own, one after another, so that it knows what an item has to hold:
what was acknowledged last, or what was asked since and may have been done; after such a request it
leaves the item and takes a new one. Request: url, of the gateway; until, the file; seconds at most;
rate, requests a second; clients; name, of all items. Answer: requests, each with the moment it was
sent, its seconds, whether it writes, and its status (0 for none); reasons, of failures with their
number; items by number, each with the moment of its last acknowledged write, and `allowed`: the
notes that it may have (null: it may be gone).
"""

import collections
import http.client
import json
import sys
import threading
import time
import urllib.parse
from pathlib import Path

request = json.loads(sys.argv[1])
place = urllib.parse.urlsplit(request["url"])
TIMEOUT = 10
CHANGES = 5
# Of ten requests, four write.
WRITES = (0, 3, 5, 8)
READS = ("/", "/api/items", "/api/whoami")
until = Path(request["until"])
start = time.monotonic()
lock = threading.Lock()
requests, reasons = [], collections.Counter()
items = {}


def over() -> bool:
    """Tell whether the load is to end."""
    return until.exists() or time.monotonic() - start > request["seconds"]


def ask(method: str, path: str, content: object = None) -> "tuple[int, bytes]":
    """Send a request on a connection of its own, and note it."""
    body = None if content is None else json.dumps(content)
    headers = {"Content-Type": "application/json"} if body else {}
    sent, began = time.time(), time.monotonic()
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=TIMEOUT)
    status, text, reason = 0, b"", ""
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        text = answer.read()
        status = answer.status
        if status >= 400:
            reason = f"{method}: {status}"
    except (OSError, http.client.HTTPException) as error:
        status, reason = 0, f"{method}: {type(error).__name__}: {error}"
    finally:
        connection.close()
    seconds = round(time.monotonic() - began, 3)
    with lock:
        requests.append([round(sent, 3), seconds, method != "GET", status])
        if reason:
            reasons[reason] += 1
    return status, text


class Client:
    """One client and the item that it is changing."""

    def __init__(self) -> None:
        """Nothing is stored yet."""
        self.number = 0
        self.change = 0

    def write(self) -> None:
        """Store, change or delete, and note what is certain since."""
        if not self.number:
            status, text = ask("POST", "/api/items", {"name": request["name"], "note": "0"})
            if status == 201:
                self.number, self.change = json.loads(text)["id"], 0
                self.note(["0"])
            return
        path = f"/api/items/{self.number}"
        last = str(self.change)
        if self.change == CHANGES:
            # Every other item stays.
            if self.number % 2:
                status, _ = ask("DELETE", path)
                self.note([None] if status == 204 else [last, None], acknowledged=status == 204)
            self.number = 0
            return
        self.change += 1
        now = str(self.change)
        status, _ = ask("PUT", path, {"name": request["name"], "note": now})
        self.note([now] if status == 200 else [last, now], acknowledged=status == 200)
        if status != 200:
            self.number = 0

    def note(self, allowed: list, *, acknowledged: bool = True) -> None:
        """Note what the item may hold from now on."""
        with lock:
            entry = items.setdefault(self.number, {})
            entry["allowed"] = allowed
            if acknowledged:
                entry["moment"] = time.time()

    def read(self, count: int) -> None:
        """Ask for the item, or for something else."""
        own = self.number and count % 2
        ask("GET", f"/api/items/{self.number}" if own else READS[count % len(READS)])

    def run(self, number: int) -> None:
        """Ask at a steady rate."""
        pause = request["clients"] / request["rate"]
        due = time.monotonic() + pause * number / request["clients"]
        count = number
        while not over():
            wait = due - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            # Who had to wait for an answer does not make up for it.
            due = max(due + pause, time.monotonic() - pause)
            count += 1
            if count % 10 in WRITES:
                self.write()
            else:
                self.read(count)


threads = [threading.Thread(target=Client().run, args=(n,)) for n in range(request["clients"])]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps({"requests": requests, "reasons": dict(reasons), "items": items}))
