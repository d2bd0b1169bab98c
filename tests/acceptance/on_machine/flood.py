"""Send many requests at the same moment, each on a connection of its own.

Request: url; count; seconds to wait at most; hold, the seconds after which `then`, a command, is
run while they wait. Answer: for each request its status (0 for none) and the seconds it took.
"""

import asyncio
import json
import subprocess
import sys
import time
import urllib.parse

request = json.loads(sys.argv[1])
url = urllib.parse.urlsplit(request["url"])


async def ask() -> list:
    """Send one request and return what came of it."""
    start = time.monotonic()
    try:
        async with asyncio.timeout(request["seconds"]):
            reader, writer = await asyncio.open_connection(url.hostname, url.port)
            writer.write(f"GET {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode())
            status = int((await reader.readline()).split()[1])
            writer.close()
    except (OSError, TimeoutError, IndexError, ValueError):
        status = 0
    return [status, round(time.monotonic() - start, 3)]


async def main() -> list:
    """Send all of them, and run the command meanwhile."""
    asked = [asyncio.ensure_future(ask()) for _ in range(request["count"])]
    await asyncio.sleep(request["hold"])
    subprocess.run(request["then"], check=True, stdout=subprocess.DEVNULL)
    return await asyncio.gather(*asked)


print(json.dumps(asyncio.run(main())))
