"""Speak to servers in their own language: [[service, address, port]] in, who answered out.

An api's replica by its name, `database` or `cache` for one that answered as such, nothing where
nobody did.
"""

import json
import re
import socket
import sys

WORDS = {
    "api": b"GET /live HTTP/1.0\r\n\r\n",
    # A client's question whether TLS is spoken: the answer is one letter.
    "database": (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big"),
    "cache": b"PING\r\n",
}


def talk(service: str, address: str, port: int) -> str:
    """Return who of that kind answers there."""
    answer = b""
    try:
        with socket.create_connection((address, port), timeout=2) as connection:
            connection.sendall(WORDS[service])
            while chunk := connection.recv(4096):
                answer += chunk
                if service != "api":
                    break
    except OSError:
        return ""
    if service == "api":
        replica = re.search(rb"(?im)^x-replica: *(\S+)", answer)
        return replica[1].decode() if replica else ""
    known = answer in (b"N", b"S") if service == "database" else answer.startswith(b"+PONG")
    return service if known else ""


print(json.dumps([talk(*each) for each in json.loads(sys.argv[1])]))
