"""Ask while replicas of two releases serve, until a file is there.

Request: url, of the gateway; until, the file; item, the path of one whose name is changed all the
while; seconds at most. Answer: rounds, how often all was asked; seen, by the api that answered, by
the name of each frontend and api, what it said of it; stale, reads that did not have the name that
was acknowledged right before.
"""

import http.client
import json
import sys
import time
import urllib.parse
from pathlib import Path

request = json.loads(sys.argv[1])
place = urllib.parse.urlsplit(request["url"])
until = Path(request["until"])
end = time.monotonic() + request["seconds"]
report = {"rounds": 0, "seen": {}, "stale": []}


def ask(method: str, path: str, content: object = None) -> tuple[int, str, dict]:
    """Ask by a connection of its own, for whichever replica; return status, replica and body."""
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=10)
    try:
        body = None if content is None else json.dumps(content)
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.headers.get("x-replica", ""), json.loads(answer.read())
    except (OSError, ValueError, http.client.HTTPException) as error:
        return 0, "", {"error": str(error)}
    finally:
        connection.close()


while not until.exists() and time.monotonic() < end:
    report["rounds"] += 1
    status, replica, body = ask("GET", "/api/status")
    if status == 200:
        seen = report["seen"].setdefault(replica, {})
        for node in [*body["frontends"], *body["apis"]]:
            said = seen.setdefault(node["name"], [])
            if node["status"] not in said:
                said.append(node["status"])
    name = f"changed {report['rounds']} times"
    status, writer, _ = ask("PUT", request["item"], {"name": name})
    for _ in range(2 if status == 200 else 0):
        status, reader, body = ask("GET", request["item"])
        if status == 200 and body["name"] != name:
            report["stale"].append(f"{reader} says {body['name']!r}, {writer} had stored {name!r}")
    time.sleep(0.1)
print(json.dumps(report))
