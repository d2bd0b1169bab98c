"""A bare machine: a Debian with a service manager, in a container that has no engine yet.

The machine's own engine, installed by what is measured, works in a volume of its own: the one on
which the bench runs is only asked for the container, and nothing of it is uninstalled.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.debian import machine_image, proxy_settings
from bench.labels import LABEL, remove
from bench.shell import BenchError, Output, check, run, say, tail

USER = "lab"
CHECKOUT = f"/home/{USER}/stackyard"
BOOT_SECONDS = 90
CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"

# Where the host says where its certificates are, the machine is told too, and so with its index and
# its proxies. Paths and file:// addresses of the host mean nothing in there.
CA_VARIABLES = re.compile(r"PIP_CERT|SSL_CERT_FILE|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE")
VARIABLES = re.compile(r"PIP_(?!FIND_LINKS)\w+|(https?|no|all)_proxy", re.IGNORECASE)

# Times are taken inside, so that the way there does not count. Both streams become one, so that the
# marks come last.
TIMED = """
exec 2>&1
start=$EPOCHREALTIME
"$@"
status=$? end=$EPOCHREALTIME
printf '\\n@timed %s %s\\n' "$start" "$end"
exit $status
"""
MARK = re.compile(r"^@timed (\d+[.,]\d+) (\d+[.,]\d+)$")


@dataclass
class Timed:
    """A command that ended well: its start (seconds since the epoch), seconds, and output."""

    start: float
    seconds: float
    output: Output


def handed_on() -> dict[str, str]:
    """Return the host's environment variables that a machine needs to reach a package index."""
    found = {}
    for name, value in os.environ.items():
        if CA_VARIABLES.fullmatch(name):
            found[name] = CA_BUNDLE
        elif VARIABLES.fullmatch(name) and not value.startswith(("/", "file:")):
            found[name] = value
    return found


class Machine:
    """A running bare machine."""

    def __init__(self, name: str) -> None:
        self.name = name

    def _exec(self, user: str, directory: str, stdin: bool) -> list[str]:
        variables = {"LANG": "C.UTF-8", **handed_on()}
        return [
            *("docker", "exec", *(["--interactive"] if stdin else [])),
            *("--user", user, "--workdir", directory),
            *(f"--env={name}={value}" for name, value in variables.items()),
            self.name,
        ]

    def do(
        self,
        *command: str,
        user: str = "root",
        directory: str = "/",
        stdin: Path | str | None = None,
        timeout: float = 120,
    ) -> str:
        """Run a command and return what it printed; raises BenchError where it fails."""
        prefix = self._exec(user, directory, stdin is not None)
        return check([*prefix, *command], stdin=stdin, timeout=timeout)

    def time(
        self,
        *command: str,
        user: str = "root",
        directory: str = "/",
        timeout: float = 1800,
        log: Path | None = None,
    ) -> Timed:
        """Run a command and measure its wall time; raises BenchError where it fails."""
        prefix = self._exec(user, directory, stdin=False)
        output = run([*prefix, "bash", "-c", TIMED, "bash", *command], timeout=timeout)
        mark = MARK.match(output.lines.pop()[1]) if output.lines else None
        if log is not None:
            output.save(log)
        if output.status != 0 or mark is None:
            where = f" (all of it: {log})" if log else ""
            what = f"Status {output.status} in {self.name}: {shlex.join(command)}{where}"
            raise BenchError(f"{what}\n{tail(output)}")
        start, end = (float(text.replace(",", ".")) for text in mark.groups())
        return Timed(start, end - start, output)

    def put(self, directory: str, archive: Path, user: str) -> None:
        """Unpack a tar archive into a new directory that belongs to the user."""
        self.do("install", "-d", "-o", user, "-g", user, directory)
        self.do("tar", "--extract", "--no-same-owner", "-C", directory, stdin=archive, user=user)

    def address(self) -> str:
        """Return where this machine's engine reaches it."""
        shown = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return check(["docker", "inspect", f"--format={shown}", self.name])

    def get(self, directory: str, archive: Path) -> None:
        """Pack a directory of the machine into a tar archive on the host."""
        prefix = self._exec("root", directory, stdin=False)
        with archive.open("wb") as stream:
            subprocess.run([*prefix, "tar", "--create", "."], stdout=stream, check=True)


def _boot(name: str) -> None:
    deadline = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < deadline:
        state = run(["docker", "exec", name, "systemctl", "is-system-running"]).text.strip()
        # Degraded: some unit that a container cannot have. What counts is tried by its use.
        if state in ("running", "degraded"):
            return
        time.sleep(0.5)
    raise BenchError(f"{name} did not boot within {BOOT_SECONDS} s: systemctl says '{state}'.")


def _furnish(machine: Machine) -> None:
    """Give it the host's certificates and proxies, and a user who may become root."""
    bundle = Path(CA_BUNDLE)
    if bundle.exists():
        machine.do("dd", "status=none", f"of={CA_BUNDLE}", stdin=bundle)
    if settings := proxy_settings():
        machine.do("dd", "status=none", "of=/etc/apt/apt.conf.d/90bench", stdin=settings)
    machine.do("useradd", "--create-home", "--shell", "/bin/bash", USER)
    machine.do(
        *("dd", "status=none", "of=/etc/sudoers.d/bench"), stdin=f"{USER} ALL=(ALL) NOPASSWD: ALL\n"
    )


@contextmanager
def bare_machine(purpose: str, checkout: Path) -> Iterator[Machine]:
    """Make a machine with a copy of the checkout (a tar archive); remove it on the way out."""
    with booted(f"stackyard-bench-{purpose}") as machine:
        machine.put(CHECKOUT, checkout, USER)
        yield machine


@contextmanager
def booted(name: str) -> Iterator[Machine]:
    """Make a machine of that name; remove it on the way out."""
    image = machine_image()
    try:
        check(["docker", "volume", "create", f"--label={LABEL}", name])
        check(
            [
                *("docker", "run", "--detach", "--name", name, "--hostname", "bench"),
                *("--label", LABEL, "--privileged", "--cgroupns=private"),
                *("--tmpfs", "/run", "--tmpfs", "/run/lock"),
                *("--volume", f"{name}:/var/lib/docker", "--stop-signal", "SIGRTMIN+3"),
                # Debian 13's systemd refuses cgroup v1 unless told; on v2 it means nothing.
                *(image, "/sbin/init", "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"),
            ]
        )
        _boot(name)
        machine = Machine(name)
        _furnish(machine)
        yield machine
    finally:
        remove(name)


def pack_checkout(root: Path, archive: Path) -> None:
    """Pack the files of the work tree that git tracks or would track into a tar archive."""
    if shutil.which("git") is None:
        raise BenchError("git is needed to tell the checkout's files: apt-get install git")
    listed = check(["git", "-C", str(root), "ls-files", "-z", "-co", "--exclude-standard"])
    names = sorted(name for name in listed.split("\0") if name and (root / name).is_file())
    with tempfile.NamedTemporaryFile("w", suffix=".names") as stream:
        stream.write("\0".join(names))
        stream.flush()
        check(
            [
                *("tar", "--create", "--file", str(archive), "-C", str(root), "--null"),
                f"--files-from={stream.name}",
            ]
        )
    say(f"The checkout: {len(names)} files")
