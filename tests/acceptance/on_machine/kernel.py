"""What the kernel knows about containers: {name: process number} in, facts by name out.

Limits are null where there is none. Memory is in bytes, CPU in cores.
"""

import json
import sys
from pathlib import Path

UNLIMITED = 1 << 60


def read(path: Path) -> str:
    """Return the text, nothing where there is no such file (or process any more)."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def status(pid: int) -> dict:
    """Return the fields of /proc/PID/status."""
    lines = read(Path(f"/proc/{pid}/status")).splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def memory_limit(cgroup: Path) -> "int | None":
    """Return the limit in bytes, of cgroup v2 or v1."""
    text = read(cgroup / "memory.max") or read(cgroup / "memory/memory.limit_in_bytes")
    if not text:
        raise SystemExit(f"{cgroup} shows no memory limit")
    return None if text == "max" or int(text) >= UNLIMITED else int(text)


def cpu_limit(cgroup: Path) -> "float | None":
    """Return the limit in cores, of cgroup v2 or v1."""
    quota, _, period = read(cgroup / "cpu.max").partition(" ")
    if not quota:
        quota = read(cgroup / "cpu/cpu.cfs_quota_us")
        period = read(cgroup / "cpu/cpu.cfs_period_us")
    if not quota:
        raise SystemExit(f"{cgroup} shows no CPU limit")
    return None if quota in ("max", "-1") else int(quota) / int(period)


def memory_used(cgroup: Path) -> int:
    """Return the bytes in use, without the page cache that can be dropped."""
    used = read(cgroup / "memory.current") or read(cgroup / "memory/memory.usage_in_bytes")
    numbers = read(cgroup / "memory.stat") or read(cgroup / "memory/memory.stat")
    fields = dict(line.split() for line in numbers.splitlines())
    inactive = fields.get("total_inactive_file", fields.get("inactive_file", 0))
    return int(used or 0) - int(inactive)


def tmpfs_sizes(pid: int) -> dict:
    """Return the size in bytes of each tmpfs by its place; 0 where it has no bound."""
    sizes = {}
    for line in read(Path(f"/proc/{pid}/mounts")).splitlines():
        _, place, kind, options = line.split(" ")[:4]
        if kind == "tmpfs":
            size = [word[5:] for word in options.split(",") if word.startswith("size=")]
            sizes[place] = int(size[0].rstrip("k")) * 1024 if size else 0
    return sizes


# Read once: what lives for a moment only is there as it was, or not at all.
everybody = {int(folder.name): status(int(folder.name)) for folder in Path("/proc").glob("[0-9]*")}
parents: dict = {}
for number, about in everybody.items():
    if about:
        parents.setdefault(int(about["PPid"]), []).append(number)


def family(pid: int) -> list:
    """Return the process and its descendants, eldest first."""
    found = [pid]
    for each in found:
        found += sorted(parents.get(each, []))
    return found


def process(pid: int) -> dict:
    """Return who the process is and what it may do."""
    fields = everybody[pid]
    names = ("State", "Uid", "Gid", "Groups", "CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")
    return {
        "pid": pid,
        "comm": fields.get("Name", ""),
        "NoNewPrivs": fields.get("NoNewPrivs", ""),
        "Seccomp": fields.get("Seccomp", ""),
        **{name: fields.get(name, "") for name in names},
    }


facts = {}
for name, pid in json.loads(sys.argv[1]).items():
    cgroup = Path(f"/proc/{pid}/root/sys/fs/cgroup")
    facts[name] = {
        "memory": memory_limit(cgroup),
        "memory_used": memory_used(cgroup),
        "cpus": cpu_limit(cgroup),
        "routes": read(Path(f"/proc/{pid}/net/route")).splitlines()[1:],
        "routes6": read(Path(f"/proc/{pid}/net/ipv6_route")).splitlines(),
        "tmpfs": tmpfs_sizes(pid),
        "processes": [process(each) for each in family(pid)],
    }
print(json.dumps(facts))
