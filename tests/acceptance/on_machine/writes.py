"""Store an item every tenth of a second until told to stop, and say which were acknowledged.

Request: url; prefix of the items' names; stop, a file whose appearance ends it; seconds at most.
Answer: acknowledged, the names that were answered with 201.
"""

import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

request = json.loads(sys.argv[1])
stop = Path(request["stop"])
acknowledged = []
end = time.monotonic() + request["seconds"]
count = 0
while time.monotonic() < end and not stop.exists():
    count += 1
    name = f"{request['prefix']} {count}"
    body = json.dumps({"name": name}).encode()
    headers = {"Content-Type": "application/json"}
    post = urllib.request.Request(request["url"], body, headers)
    try:
        with urllib.request.urlopen(post, timeout=5) as answer:
            if answer.status == 201:
                acknowledged.append(name)
    except (OSError, urllib.error.URLError):
        pass
    time.sleep(0.1)
stop.unlink(missing_ok=True)
print(json.dumps({"acknowledged": acknowledged}))
