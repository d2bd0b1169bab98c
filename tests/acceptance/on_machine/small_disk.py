"""Put a volume's data on a small disk of its own, fill that, make room again, and put it back.

The disk is a tmpfs with a size: a full one refuses like any other, it needs no loop device, and
its end is exact. The data as it was stays below until all of the new is beside it on the volume.
Request: action (lay, fill, drain, lift); place, the volume's directory; room, in bytes, for lay.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

# It is in memory.
MOST = 1 << 30

request = json.loads(sys.argv[1])
place = Path(request["place"])
disk = place.parent / "small-disk"
data, filler = disk / "data", disk / "filler"


def run(*command: object) -> str:
    """Run a command; it has to succeed."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"$ {' '.join(map(str, command))}\n{done.stderr}")
    return done.stdout


def lay() -> None:
    """Copy the data onto a new small disk, and have that in its place."""
    used = int(run("du", "-s", "--block-size=1", place).split()[0])
    if used > MOST:
        raise SystemExit(f"{place} holds {used} bytes, too many to copy: use a stack of its own")
    disk.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"mode=0700,size={used + request['room']}", "tmpfs", disk)
    run("cp", "-a", place, data)
    run("mount", "--bind", data, place)


def fill() -> None:
    """Leave not a byte."""
    with filler.open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                print(error, file=sys.stderr)
    if os.statvfs(disk).f_bavail:
        raise SystemExit(f"{disk} is not full")


def drain() -> None:
    """Make room again."""
    filler.unlink()


def lift() -> None:
    """Put the data back on the volume, with what has changed, however far the laying came."""
    if place.is_mount():
        run("umount", place)
        fresh, old = place.parent / "fresh", place.parent / "old"
        run("cp", "-a", data, fresh)
        run("sync", "-f", fresh)
        place.rename(old)
        fresh.rename(place)
        shutil.rmtree(old)
    if disk.is_mount():
        run("umount", disk)
    if disk.exists():
        disk.rmdir()


{"lay": lay, "fill": fill, "drain": drain, "lift": lift}[request["action"]]()
print(json.dumps({"free": os.statvfs(place).f_bavail}))
