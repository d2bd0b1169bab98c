"""Look for secrets where none may be. Values stay here: the answer only names where one was found.

Request: directory; label of all containers; files (secret file names); values, the directory with
these files where it is not the stack's own. Answer: for each kind of place how many were looked at,
how many of these hold the word that shows the look works, and the findings.
With text (zlib, base64) instead of files: how many values are known here, and the names of the
files whose values stand in that text.
"""

import base64
import json
import re
import subprocess
import sys
import urllib.parse
import zlib
from pathlib import Path

request = json.loads(sys.argv[1])
folder = Path(request["directory"])
kept = Path(request.get("values", folder / "secrets"))
SHORTEST = 12


def values(path: Path) -> list:
    """Return what is secret in a file, and a part of it that would give it away."""
    text = path.read_text(encoding="utf-8").strip()
    if "PRIVATE KEY" in text:
        key = text.split("PRIVATE KEY-----")[1]
        return [line for line in key.splitlines() if len(line) >= 40]
    found = re.findall(r">(\S+)", text) if "user " in text else [text]
    return [value for value in found if len(value) >= SHORTEST]


def forms(value: str) -> list:
    """Return the ways in which a value may be written."""
    raw = value.encode()
    # Base64 of a text depends on what stands before it: take the part that is the same.
    codes = [base64.b64encode(b" " * shift + raw)[4:-4] for shift in range(3)]
    return list({raw, urllib.parse.quote(value, safe="").encode(), raw.hex().encode(), *codes})


def run(*command: str) -> bytes:
    """Return both outputs."""
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    return done.stdout + done.stderr


def lines(*command: str) -> list:
    """Return the words of an output."""
    return run(*command).decode().split()


if "text" in request:
    text = zlib.decompress(base64.b64decode(request["text"]))
    known = {
        path.name: values(path)
        for path in sorted((folder / "secrets").rglob("*"))
        if path.is_file()
    }
    held = [
        name
        for name, found in known.items()
        if any(form in text for value in found for form in forms(value))
    ]
    print(json.dumps({"known": sum(map(len, known.values())), "held": held}))
    sys.exit()

label = f"label={request['label']}"
stacks = request["label"].partition("=")[0].encode()
containers = lines("docker", "ps", "-aq", "--filter", label)
running = lines("docker", "ps", "-q", "--filter", label)
images = sorted(set(lines("docker", "inspect", "--format", "{{.Image}}", *containers)))
networks = lines("docker", "network", "ls", "-q", "--filter", label)
volumes = lines("docker", "volume", "ls", "-q", "--filter", label)
# What a swarm knows, of which an engine without one has none.
known = [
    (kind, lines("docker", kind, "ls", "-q", "--filter", label))
    for kind in ("service", "config", "secret")
    if request["label"].startswith("com.docker.stack.")
]
pids = [
    int(word)
    for each in running
    for line in run("docker", "top", each, "-eo", "pid").decode().splitlines()[1:]
    for word in line.split()
]


def compose(env: str) -> bytes:
    """Return what Compose makes of the files."""
    return run(
        *("docker", "compose", "-f", "docker-compose.yml", "-f", f"docker-compose.{env}.yml"),
        "config",
    )


def of_processes(name: str) -> list:
    """Return a file of /proc for every process of every container."""
    found = []
    for pid in pids:
        try:
            found.append((f"process {pid}'s {name}", Path(f"/proc/{pid}/{name}").read_bytes()))
        except OSError:
            continue
    return found


def rendered() -> list:
    """Return all files of the stack but the secrets, and backups, which are compressed."""
    others = {folder / "secrets", folder / "backups"}
    return [
        (str(path), path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not others & set(path.parents)
    ]


def each(names: list, *command: str) -> list:
    """Return the output of a command for each of the names."""
    return [(f"{' '.join(command)} {name}", run(*command, name)) for name in names]


# By kind: a word that each place, or at least one, must hold; and the places.
PLACES = {
    "docker compose config": (
        b"/secrets/database_api_password",
        [(f"docker compose config of {env}", compose(env)) for env in ("dev", "prod")],
    ),
    "docker inspect": (
        stacks,
        each(containers, "docker", "inspect")
        + [place for kind, ids in known for place in each(ids, "docker", kind, "inspect")],
    ),
    "docker inspect of networks and volumes": (
        stacks,
        each(networks, "docker", "network", "inspect")
        + each(volumes, "docker", "volume", "inspect"),
    ),
    "docker inspect of images": (b"RootFS", each(images, "docker", "image", "inspect")),
    "docker history": (b"CREATED BY", each(images, "docker", "history", "--no-trunc")),
    "docker top": (
        b"PID",
        [(f"docker top {name}", run("docker", "top", name, "-eo", "pid,args")) for name in running],
    ),
    "command lines": (b"", of_processes("cmdline")),
    "environments": (b"PATH=", of_processes("environ")),
    "logs": (b"", each(containers, "docker", "logs", "--tail", "20000")),
    "rendered files": (b"", rendered()),
}

wanted = {
    name: [form for value in values(kept / name) for form in forms(value)]
    for name in request["files"]
}
answer = {"unreadable": [name for name in wanted if not wanted[name]], "places": {}}
for kind, (word, places) in PLACES.items():
    answer["places"][kind] = {
        "looked_at": len(places),
        "empty": sum(not text for _, text in places),
        "lacking_word": [place for place, text in places if text and word not in text],
        "findings": sorted(
            {
                f"{name} in {place}"
                for place, text in places
                for name, found in wanted.items()
                if any(form in text for form in found)
            }
        ),
    }
# The same look finds what is there: each secret in its own file.
answer["blind"] = [
    name
    for name, found in wanted.items()
    if not any(form in (kept / name).read_bytes() for form in found)
]
print(json.dumps(answer))
