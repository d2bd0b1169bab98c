"""The root file system of a bare machine, from the mirrors that this machine's own apt uses."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from bench.labels import LABEL, SCRATCH
from bench.shell import BenchError, check, run, say

SUITE = "trixie"
REPOSITORY = "stackyard-bench/machine"
# What a fresh Debian server has, and what the README asks for.
PACKAGES = [
    *("systemd-sysv", "dbus", "sudo", "passwd", "iproute2", "ca-certificates"),
    *("openssh-server", "git", "make", "python3", "python3-venv"),
]
# A privileged container would otherwise set this machine's kernel parameters and take its consoles.
MASKED = [
    *("systemd-sysctl.service", "systemd-modules-load.service"),
    *("getty.target", "console-getty.service", "systemd-logind.service"),
]


def sources() -> list[str]:
    """Return apt source lines for the suite: the archive and, where there is one, its updates."""
    release = dict(
        line.split("=", 1)
        for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
        if "=" in line
    )
    listed = check(
        [
            *("apt-get", "indextargets", "--no-release-info", "--format", "$(RELEASE) $(REPO_URI)"),
            *("Identifier: Packages", "Component: main"),
        ]
    )
    found = dict(line.split(maxsplit=1) for line in listed.splitlines() if " " in line)
    codename = release.get("VERSION_CODENAME", "").strip('"')
    names = [SUITE, codename, "stable", "oldstable", "testing"]

    def first(suffix: str) -> str | None:
        return next((found[name + suffix] for name in names if name + suffix in found), None)

    main, security = first(""), first("-security")
    if release.get("ID", "").strip('"') != "debian" or main is None:
        raise BenchError("apt on this machine names no Debian mirror: run the bench on a Debian.")
    lines = [f"deb {main} {SUITE} main"]
    return lines + ([f"deb {security} {SUITE}-security main"] if security else [])


def proxy_settings() -> str:
    """Return this machine's apt proxy settings as an apt configuration; empty where none is set."""
    kept = ("Acquire::http::Proxy", "Acquire::https::Proxy", "Acquire::http::Proxy::")
    lines = check(["apt-config", "dump"]).splitlines()
    return "".join(f"{line}\n" for line in lines if line.startswith(kept) and ' "";' not in line)


@functools.cache
def machine_image() -> str:
    """Return the reference of a machine's image; make it where it is not there yet."""
    inputs = {"sources": sources(), "packages": PACKAGES, "masked": MASKED}
    tag = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:12]
    image = f"{REPOSITORY}:{tag}"
    if run(["docker", "image", "inspect", image]).status == 0:
        return image
    if shutil.which("mmdebstrap") is None:
        raise BenchError("mmdebstrap is needed to make bare machines: apt-get install mmdebstrap")
    say("Making the bare machine's root file system (kept for the next bench)")
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir="/var/tmp") as scratch:
        # The bootstrap drops privileges in some modes, and has to get at its own output.
        os.chmod(scratch, 0o755)
        archive = Path(scratch) / "root.tar"
        check(
            [
                *("mmdebstrap", "--quiet", "--variant=apt", f"--include={','.join(PACKAGES)}"),
                f'--customize-hook=chroot "$1" systemctl mask {" ".join(MASKED)}',
                *(SUITE, str(archive), "\n".join(inputs["sources"])),
            ],
            timeout=900,
        )
        check(
            [
                *("docker", "import", f"--change=LABEL {LABEL}"),
                *("--change", "ENV container=docker", str(archive), image),
            ],
            timeout=300,
        )
    _remove_other_images(image)
    return image


def _remove_other_images(image: str) -> None:
    """Remove images that were made of other inputs."""
    listed = run(["docker", "image", "ls", "--format={{.Repository}}:{{.Tag}}", REPOSITORY])
    for other in listed.text.split():
        if other != image:
            run(["docker", "image", "rm", other])


def remove_images() -> None:
    """Remove the machine's images, which are otherwise kept for the next bench."""
    _remove_other_images("")
