"""Try to get from every place to every other, to the machine and out of it, all at once.

A place is a network namespace: that of a process, or "self" for the machine's own. Attempts are
made from inside it, whatever tools its image has. For the time of the attempts every place
listens on one more port, TCP and UDP, so that what no network carries is told from what nobody
listens to; and whether it was the place meant that got the words is asked there, since what leaves
the machine may be answered by anybody.

Request: places, by name, "machine" among them; ports, to try besides those listened on; published,
each a port of the machine with the place and the port it leads to; world, outside addresses with
ports, and outside_name, to ask them for; names, to ask Docker's DNS for; seconds that an answer may
take.

Report: port, where all places listened; of each place its addresses and, by protocol, the ends that
it listens on; by place the names with their addresses, null when nobody could tell; attempts, each
[from, to, kind, address, port, verdict]. Verdicts: answered; heard there, though no answer came
back; foreign, when somebody else answered; refused; unreachable; silent; or an error's name.
"""

import ctypes
import errno
import functools
import ipaddress
import itertools
import json
import os
import re
import resource
import secrets
import selectors
import socket
import struct
import sys
import time
from contextlib import ExitStack
from pathlib import Path

CLONE_NEWNET = 0x40000000
LISTENING = {"tcp": "0A", "udp": "07"}
ECHO_REPLY, ECHO_REQUEST = 0, 8
NO_SUCH_NAME = 3
DNS = ("127.0.0.11", 53)
# As the kernel gives them to clients, and others.
CLIENT_PORTS = range(32768, 61000)
SERVER_PORTS = range(20000, 30000)
# Sockets at once.
MANY = 8000
AGAIN_SECONDS = 0.5
SOCKETS = {
    "tcp": (socket.AF_INET, socket.SOCK_STREAM, 0),
    "udp": (socket.AF_INET, socket.SOCK_DGRAM, 0),
    "icmp": (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    "dns": (socket.AF_INET, socket.SOCK_DGRAM, 0),
    "name": (socket.AF_INET, socket.SOCK_DGRAM, 0),
}
VERDICTS = {
    errno.ECONNREFUSED: "refused",
    errno.ENETUNREACH: "unreachable",
    errno.EHOSTUNREACH: "unreachable",
}

request = json.loads(sys.argv[1])
nonce = secrets.token_hex(8)
selector = selectors.DefaultSelector()
libc = ctypes.CDLL(None, use_errno=True)


# What there is


def endpoint(text: str) -> tuple:
    """Return address and port, as /proc/net/tcp and its like write them."""
    number, port = text.split(":")
    raw = bytes.fromhex(number)
    words = [
        raw[at : at + 4][:: 1 if sys.byteorder == "big" else -1] for at in range(0, len(raw), 4)
    ]
    address = ipaddress.ip_address(b"".join(words))
    return str(getattr(address, "ipv4_mapped", None) or address), int(port, 16)


class Place:
    """A network namespace."""

    def __init__(self, name: str, namespace: int) -> None:
        """Take an open file of it, and look around in there."""
        self.name = name
        self.namespace = namespace
        local = re.findall(r"-- (\S+)\n +/32 host LOCAL", self.read("fib_trie"))
        rows = [row.split() for row in self.read("if_inet6").splitlines()]
        local += [str(ipaddress.ip_address(bytes.fromhex(row[0]))) for row in rows]
        self.addresses = sorted(
            {each for each in local if not ipaddress.ip_address(each).is_loopback}
        )
        self.listening = {
            kind: sorted(
                {near for near, _, state in self.sockets(kind) if state == LISTENING[kind]}
            )
            for kind in LISTENING
        }

    def read(self, name: str) -> str:
        """Return a file of /proc/net; nothing where the kernel has none."""
        self.enter()
        try:
            return Path("/proc/thread-self/net", name).read_text(encoding="ascii")
        except FileNotFoundError:
            return ""

    def sockets(self, kind: str) -> "list[tuple]":
        """Return near end, far end and state of all sockets, of both address families."""
        lines = [line for end in ("", "6") for line in self.read(kind + end).splitlines()[1:]]
        rows = [line.split() for line in lines]
        return [(endpoint(row[1]), endpoint(row[2]), row[3]) for row in rows]

    def connections(self) -> set:
        """Return each connection's port here, and the far end's address and port."""
        return {(near[1], *far) for near, far, _ in self.sockets("tcp")}

    def enter(self) -> None:
        """Be in there: it is where new sockets are, and what /proc/thread-self/net shows."""
        if libc.setns(self.namespace, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter the network namespace of {self.name}")


# Trying


class Attempt:
    """One try to get from a place to another; `inner` is the port that leads to over there."""

    heard: dict = {}
    numbers = itertools.count()
    # Not from the first again: what an earlier run left behind may still be listed.
    ports = itertools.islice(
        itertools.cycle(CLIENT_PORTS), secrets.randbelow(len(CLIENT_PORTS)), None
    )

    def __init__(
        self, source: Place, target: "Place | None", kind: str, address: str, port: int, inner: int
    ) -> None:
        """Nothing is sent yet."""
        self.source, self.target, self.kind = source, target, kind
        self.address, self.port, self.inner = address, port, inner
        self.word = f"{nonce} {next(self.numbers)}".encode()
        self.verdict = ""
        self.answer = b""

    @property
    def message(self) -> bytes:
        """What is sent."""
        return ping(self.word) if self.kind == "icmp" else self.word

    def start(self) -> None:
        """Send the first packet. The thread has to be in the source already."""
        self.socket = socket.socket(*SOCKETS[self.kind])
        self.socket.setblocking(False)
        if self.kind == "tcp":
            self.bind()
        code = self.socket.connect_ex((self.address, self.port))
        if code not in (0, errno.EINPROGRESS):
            self.end(errors(code))
            return
        wait_for = selectors.EVENT_WRITE if self.kind == "tcp" else selectors.EVENT_READ
        selector.register(self.socket, wait_for, self.settle)
        if self.kind != "tcp":
            self.send()

    def bind(self) -> None:
        """Take a port of its own: by that the connection is known over there."""
        for port in itertools.islice(self.ports, len(CLIENT_PORTS)):
            try:
                self.socket.bind(("0.0.0.0", port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                self.near = port
                return
        raise SystemExit(f"{self.source.name} has no port left")

    def send(self) -> None:
        """Send the message, once more if need be: a datagram may get lost."""
        try:
            self.socket.send(self.message)
        except OSError as error:
            self.end(errors(error.errno))

    def settle(self) -> None:
        """Take what came."""
        if self.kind == "tcp":
            code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self.end(errors(code) if code else "answered")
            return
        try:
            answer = self.socket.recv(4096)
        except OSError as error:
            self.end(errors(error.errno))
            return
        # Every ping of that place comes by here.
        if self.kind != "icmp" or echoed(answer, ECHO_REPLY) == self.word:
            self.answer = answer
            self.end("answered")

    def end(self, verdict: str) -> None:
        """Note what became of it. A connection stays open until it was looked for over there."""
        if not self.verdict:
            self.verdict = verdict
            if self.socket in selector.get_map():
                selector.unregister(self.socket)

    def conclude(self, connections: dict) -> None:
        """Compare with what the target saw, if there is one that can be asked."""
        self.end("silent")
        if self.target:
            if self.kind == "tcp":
                # The machine may have put an address of its own in the place of the source's.
                near = {*self.source.addresses, *places["machine"].addresses}
                ends = {(self.inner, address, self.near) for address in near}
                arrived = not ends.isdisjoint(connections[self.target.name])
            else:
                arrived = self.heard.get(self.word) == self.target.name
            if self.verdict == "answered" and not arrived:
                self.verdict = "foreign"
            elif self.verdict == "silent" and arrived:
                self.verdict = "heard"
        self.socket.close()


class Question(Attempt):
    """A question to a DNS server."""

    def __init__(self, source: Place, kind: str, name: str, server: "tuple[str, int]") -> None:
        """Ask for a name's IPv4 addresses."""
        super().__init__(source, None, kind, *server, server[1])
        self.name = name

    @property
    def message(self) -> bytes:
        """One question."""
        labels = b"".join(bytes([len(part)]) + part.encode() for part in self.name.split("."))
        return b"\1\1\1\0\0\1" + bytes(6) + labels + b"\0\0\1\0\1"

    def addresses(self) -> "list[str] | None":
        """Return the addresses told; none where there is no such name, null where nobody knows."""
        if len(self.answer) < 12 or self.answer[3] & 15 not in (0, NO_SUCH_NAME):
            return None
        # After the question come the answers: type A, class IN, seconds to live, 4 bytes.
        records = re.findall(
            rb"\x00\x01\x00\x01....\x00\x04(....)", self.answer[len(self.message) :], re.DOTALL
        )
        return sorted(socket.inet_ntoa(each) for each in records)


def errors(code: int) -> str:
    """Return what an error number says of the way."""
    return VERDICTS.get(code) or errno.errorcode.get(code, str(code))


def ping(word: bytes) -> bytes:
    """Return an echo request that carries the word."""
    message = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, 0, 0) + word + bytes(len(word) % 2)
    total = sum(struct.unpack(f"!{len(message) // 2}H", message))
    total = (total & 0xFFFF) + (total >> 16)
    return message[:2] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + message[4:]


def echoed(packet: bytes, kind: int) -> bytes:
    """Return the word in a ping of that kind, in its IP packet; nothing in another message."""
    message = packet[(packet[0] & 15) * 4 :]
    return message[8:].rstrip(b"\0") if message[0] == kind else b""


# Listening


def echo(place: Place, ear: socket.socket) -> None:
    """Note a word and send it back; strangers get nothing."""
    word, sender = ear.recvfrom(4096)
    if word.startswith(nonce.encode()):
        Attempt.heard[word] = place.name
        ear.sendto(word, sender)


def overhear(place: Place, ear: socket.socket) -> None:
    """Note the word in a ping; the kernel answers it."""
    word = echoed(ear.recv(4096), ECHO_REQUEST)
    if word.startswith(nonce.encode()):
        Attempt.heard[word] = place.name


def listen(open_sockets: ExitStack) -> int:
    """Listen in every place on one port that is free in all; return it."""
    for _ in range(20):
        port = secrets.choice(SERVER_PORTS)
        with ExitStack() as tried:
            try:
                for place in places.values():
                    place.enter()
                    tcp, udp = (
                        tried.enter_context(socket.socket(*SOCKETS[kind])) for kind in LISTENING
                    )
                    for ear in (tcp, udp):
                        ear.bind(("0.0.0.0", port))
                    # Nobody has to accept: the kernel does.
                    tcp.listen(MANY)
                    selector.register(
                        udp, selectors.EVENT_READ, functools.partial(echo, place, udp)
                    )
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                for key in list(selector.get_map().values()):
                    selector.unregister(key.fileobj)
                continue
            open_sockets.push(tried.pop_all())
            break
    else:
        raise SystemExit("no port is free in all places")
    for place in places.values():
        place.enter()
        raw = open_sockets.enter_context(socket.socket(*SOCKETS["icmp"]))
        selector.register(raw, selectors.EVENT_READ, functools.partial(overhear, place, raw))
    return port


def attempts_from(source: Place, port: int) -> "list[Attempt]":
    """Return all that is tried from one place."""
    found = []
    for target in places.values():
        if source is target and source.name != "machine":
            continue
        ports = {
            kind: {port, *(number for _, number in target.listening[kind])} for kind in LISTENING
        }
        ports["tcp"].update(request["ports"])
        ports["icmp"] = {0}
        published = request["published"] if target.name == "machine" else []
        addresses = [each for each in target.addresses if ":" not in each]
        for address in addresses:
            found += [
                Attempt(source, target, kind, address, number, number)
                for kind, numbers in ports.items()
                for number in sorted(numbers - {number for number, _, _ in published})
            ]
        found += [
            Attempt(source, places[leads_to], "tcp", address, number, inner)
            for number, leads_to, inner in published
            for address in addresses + ["127.0.0.1"] * (source is target)
        ]
    for address, number in request["world"]:
        found.append(Attempt(source, None, "tcp", address, number, number))
    for address in sorted({address for address, _ in request["world"]}):
        found.append(Attempt(source, None, "icmp", address, 0, 0))
        found.append(Question(source, "dns", request["outside_name"], (address, DNS[1])))
    if source.name != "machine":
        found += [Question(source, "name", name, DNS) for name in request["names"]]
    return found


def make(attempts: "list[Attempt]") -> None:
    """Make the attempts at the same time, and wait for what becomes of them."""
    before = {name: place.connections() for name, place in places.items()}
    for attempt in attempts:
        attempt.source.enter()
        attempt.start()
    end = time.monotonic() + request["seconds"]
    again = time.monotonic() + AGAIN_SECONDS
    while (now := time.monotonic()) < end:
        if all(attempt.verdict for attempt in attempts):
            break
        if now >= again:
            again = now + AGAIN_SECONDS
            for attempt in attempts:
                if not attempt.verdict and attempt.kind in ("udp", "icmp", "dns"):
                    attempt.send()
        for key, _ in selector.select(max(0, min(end, again) - now)):
            # An earlier one of these may have ended it.
            if key.fileobj in selector.get_map():
                key.data()
    connections = {name: place.connections() - before[name] for name, place in places.items()}
    for attempt in attempts:
        attempt.conclude(connections)


most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
namespaces = {
    name: os.open(f"/proc/{process}/ns/net", os.O_RDONLY)
    for name, process in request["places"].items()
}
places = {name: Place(name, namespace) for name, namespace in namespaces.items()}
with ExitStack() as open_sockets:
    port = listen(open_sockets)
    attempts = [each for source in places.values() for each in attempts_from(source, port)]
    for first in range(0, len(attempts), MANY):
        make(attempts[first : first + MANY])
names: dict = {}
for attempt in attempts:
    if attempt.kind == "name":
        names.setdefault(attempt.source.name, {})[attempt.name] = attempt.addresses()
report = {
    "port": port,
    "addresses": {place.name: place.addresses for place in places.values()},
    "listening": {place.name: place.listening for place in places.values()},
    "names": names,
    "attempts": [
        [
            attempt.source.name,
            attempt.target.name if attempt.target else "world",
            attempt.kind,
            attempt.address,
            attempt.port,
            attempt.verdict,
        ]
        for attempt in attempts
        if attempt.kind != "name"
    ],
}
print(json.dumps(report))
