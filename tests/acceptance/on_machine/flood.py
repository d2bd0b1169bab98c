"""Send many requests at the same moment, each on a connection of its own.

Request: url; count; seconds to wait at most; `then`, a command that is run while they wait: once
so many as `early` have their answer, or after `hold` seconds. Answer: the statuses (0 for none) of
those answered before it, and of those after it.
"""

import asyncio
import json
import subprocess
import sys
import time
import urllib.parse

request = json.loads(sys.argv[1])
url = urllib.parse.urlsplit(request["url"])


async def ask() -> int:
    """Send one request and return its status."""
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(f"GET {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode())
    status = int((await reader.readline()).split()[1])
    writer.close()
    return status


async def ask_in_time() -> int:
    """Return a request's status, 0 where nothing came of it in time."""
    try:
        return await asyncio.wait_for(ask(), request["seconds"])
    except (TimeoutError, OSError, IndexError, ValueError):
        return 0


async def main() -> list:
    """Send all of them, and run the command meanwhile."""
    asked = [asyncio.ensure_future(ask_in_time()) for _ in range(request["count"])]
    end = time.monotonic() + request["hold"]
    while time.monotonic() < end and sum(each.done() for each in asked) < request["early"]:
        await asyncio.sleep(0.05)
    early = [each.done() for each in asked]
    subprocess.run(request["then"], check=True, stdout=subprocess.DEVNULL)
    statuses = await asyncio.gather(*asked)
    return [
        [status for status, was_early in zip(statuses, early, strict=True) if was_early],
        [status for status, was_early in zip(statuses, early, strict=True) if not was_early],
    ]


print(json.dumps(asyncio.run(main())))
