#!/usr/bin/python
"""Ansible module: how the stack on this machine fares."""

from __future__ import annotations

DOCUMENTATION = r"""
module: stack_status
short_description: How the stack on this machine fares
description:
  - Services, replicas, health, restarts, memory and CPU against their limits, the ages of
    certificate, backup and release, and in words what is not well; all in one execution.
  - Changes nothing. What cannot be found out is a problem among the others, never a failure.
options:
  directory:
    description: The directory with the rendered project.
    type: path
    required: true
  project:
    description: Name of the Compose project.
    type: str
    required: true
  certificate_days:
    description: A certificate that ends within so many days is a problem.
    type: int
    default: 14
attributes:
  check_mode: {support: full}
"""

RETURN = r"""
status:
  description:
    - C(state), one of C(well), C(ill), C(down) (files and no container), C(no stack), C(no engine).
    - C(problems), what is not well, a sentence each; empty exactly where the state is C(well).
    - C(env), C(engine), C(release), C(backup) and C(certificate), null where there is none. Ages
      are in seconds by the machine's own clock.
    - C(services), each with C(wanted) and C(there) (running) replicas, C(health) in words,
      C(restarts), the fullest replica's C(memory_bytes) and its limit, the busiest one's C(cpus)
      (cores) and its limit, and its C(containers). A limit is null where there is none.
  returned: always
  type: dict
"""

import json
import re
import ssl
import subprocess
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.root_cause import root_cause

# An engine that hangs is said to, rather than waited for.
SECONDS = 20
UNITS = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}
LABEL = "com.docker.compose."


def run(*command: str, folder: str = "/") -> tuple[str, str]:
    """Return the output, and the cause where the command did not succeed."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except FileNotFoundError:
        return "", f"there is no {command[0]}"
    except subprocess.TimeoutExpired:
        return "", f"no answer within {SECONDS} s"
    cause = root_cause(done.stderr, f"{command[0]} ended with {done.returncode}")
    return done.stdout, cause if done.returncode else ""


def span(seconds: float) -> str:
    """Return a length of time as people say it."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def moment(text: str) -> float:
    """Return seconds since the epoch of an ISO 8601 date with or without nanoseconds."""
    # Python 3.11 knows microseconds at most.
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text)).timestamp()


def in_bytes(text: str) -> int:
    """Return the bytes of what docker stats prints, such as 29.15MiB."""
    match = re.fullmatch(r"([\d.]+)([KMGT]?i?B)", text.strip())
    return round(float(match[1]) * UNITS[match[2]]) if match else 0


def record(path: Path, date: str) -> tuple[dict[str, Any] | None, str]:
    """Return a JSON record with the age of its date, or None; and why it cannot be read."""
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        return {**about, "age_seconds": round(time.time() - moment(about[date]))}, ""
    except (FileNotFoundError, NotADirectoryError):
        return None, ""
    except (OSError, ValueError, TypeError, KeyError) as error:
        return None, f"{path} cannot be read: {error!r}"


def certificate(path: Path, days: int) -> tuple[dict[str, Any] | None, str]:
    """Return from when to when the gateway's certificate holds; and what is wrong with it."""
    if not path.exists():
        return None, f"{path} is missing"
    shown, error = run("openssl", "x509", "-in", str(path), "-noout", "-dates")
    dates = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    if error or not {"notBefore", "notAfter"} <= set(dates):
        return None, f"the certificate in {path} cannot be read: {error or 'no dates'}"
    begin, end = (ssl.cert_time_to_seconds(dates[name]) for name in ("notBefore", "notAfter"))
    left = round(end - time.time())
    about = {"ends": datetime.fromtimestamp(end).astimezone().isoformat(), "left_seconds": left}
    about["age_seconds"] = round(time.time() - begin)
    if left < 0:
        return about, f"the gateway's certificate ended {span(-left)} ago"
    if left < days * 86400:
        return about, f"the gateway's certificate ends in {span(left)}"
    return about, ""


class Replica:
    """A container of the stack."""

    def __init__(self, inspected: dict[str, Any], used: dict[str, str]) -> None:
        """Take what docker inspect and docker stats say; no stats for one that does not run."""
        self.state = inspected["State"]
        self.health = self.state.get("Health") or {}
        self.labels = inspected["Config"]["Labels"]
        self.service = self.labels[f"{LABEL}service"]
        limits = inspected["HostConfig"]
        self.about = {
            "name": inspected["Name"].lstrip("/"),
            "replica": int(self.labels.get(f"{LABEL}container-number", 1)),
            "state": self.state["Status"],
            "health": self.health.get("Status", "none"),
            "restarts": inspected["RestartCount"],
            "started": self.state["StartedAt"],
            "memory_bytes": in_bytes(used["MemUsage"].split("/")[0]) if used else None,
            "memory_limit_bytes": limits["Memory"] or None,
            "cpus": round(float(used["CPUPerc"].rstrip("%") or 0) / 100, 3) if used else None,
            "cpus_limit": limits["NanoCpus"] / 1e9 or None,
        }

    @property
    def runs(self) -> bool:
        """Whether it runs, healthy or not."""
        return self.about["state"] == "running"

    @property
    def word(self) -> str:
        """Its health, or its state where it does not run."""
        return self.about["health"] if self.runs else self.about["state"]

    def unhealthy_seconds(self) -> float:
        """Since about when it is: the engine keeps five results, and counts the failures."""
        log = self.health.get("Log") or []
        starts = [moment(entry["Start"]) for entry in log]
        if not starts:
            return 0
        pause = (starts[-1] - starts[0]) / (len(starts) - 1) if len(starts) > 1 else 0
        return time.time() - starts[-1] + (self.health.get("FailingStreak", 1) - 1) * pause

    def problem(self) -> str:
        """What is wrong with it, without its name; nothing where it is well."""
        state, code = self.about["state"], self.state["ExitCode"]
        memory = ", out of memory" if self.state.get("OOMKilled") else ""
        if state == "restarting":
            return f"is restarting, {self.about['restarts']} times now (exit code {code}{memory})"
        if state in ("exited", "dead"):
            ago = span(time.time() - moment(self.state["FinishedAt"]))
            return f"ended {ago} ago (exit code {code}{memory})"
        if state != "running":
            return "was never started" if state == "created" else f"is {state}"
        if self.about["health"] == "starting":
            return f"is starting since {span(time.time() - moment(self.state['StartedAt']))}"
        if self.about["health"] == "unhealthy":
            log = self.health.get("Log") or [{"Output": ""}]
            said = (log[-1]["Output"].strip().splitlines() or ["its health check says nothing"])[0]
            return f"is unhealthy for {span(self.unhealthy_seconds())}: {said[:200]}"
        return ""


class Status:
    """What is found out, bit by bit."""

    def __init__(self, directory: str, project: str, days: int) -> None:
        """Look at everything."""
        self.directory = Path(directory)
        self.project = project
        self.problems: list[str] = []
        self.about: dict[str, Any] = dict.fromkeys(
            ("env", "engine", "release", "backup", "certificate")
        )
        self.about["services"] = []
        self.on_a_swarm = False
        self.about["state"] = self.look(days) or ("ill" if self.problems else "well")
        self.about["problems"] = self.problems

    def noted(self, found: tuple[Any, str]) -> Any:
        """Keep what is wrong, and return what was found."""
        value, problem = found
        if problem:
            self.problems.append(problem)
        return value

    def look(self, days: int) -> str:
        """Fill in what is there; return the state where there is no stack to judge."""
        version, error = run("docker", "version", "--format", "{{.Server.Version}}")
        if error:
            self.problems.append(
                "no engine: make up installs one"
                if error == "there is no docker"
                else f"the engine does not answer: {error}"
            )
            return "no engine"
        self.about["engine"] = version.strip()
        replicas = self.replicas()
        rendered = (self.directory / "docker-compose.yml").exists()
        if not rendered and not replicas:
            self.problems.append("no stack: make up makes one")
            return "no stack"
        releases = self.directory / "releases/current/release.json"
        self.about["release"] = self.noted(record(releases, "at"))
        newest = self.directory / "backups/newest.json"
        self.about["backup"] = self.noted(record(newest, "stopped"))
        path = self.directory / "secrets/gateway_certificate"
        self.about["certificate"] = self.noted(certificate(path, days))
        wanted = self.wanted()
        if not replicas:
            down = "is down: make up brings it back"
            swarms = "is one on a swarm: make status ORCHESTRATOR=swarm tells how it fares"
            self.problems.insert(0, f"the stack {swarms if self.on_a_swarm else down}")
            return "down"
        names = [*wanted, *sorted({each.service for each in replicas} - set(wanted))]
        for name in names:
            mine = [each for each in replicas if each.service == name]
            self.add_service(name, wanted.get(name, 0), mine)
        return ""

    def replicas(self) -> list[Replica]:
        """The project's containers, running or not."""
        filters = [f"label={LABEL}project={self.project}", f"label={LABEL}oneoff=False"]
        options = [word for each in filters for word in ("--filter", each)]
        ids = run("docker", "ps", "--all", "--quiet", "--no-trunc", *options)[0].split()
        if not ids:
            return []
        # One that is gone by now is left out by inspect; stats, which takes two seconds, then has
        # nothing to say of the others either.
        inspected = json.loads(run("docker", "inspect", *ids)[0] or "[]")
        running = [each["Id"] for each in inspected if each["State"]["Running"]]
        shown = ""
        if running:
            command = ("docker", "stats", "--no-stream", "--no-trunc", "--format", "{{json .}}")
            shown = run(*command, *running)[0]
        used = {each["ID"]: each for each in map(json.loads, shown.splitlines())}
        found = [Replica(each, used.get(each["Id"], {})) for each in inspected]
        return sorted(found, key=lambda each: each.about["replica"])

    def wanted(self) -> dict[str, int]:
        """How many replicas of each service the files ask for, in their order of need."""
        command = ("docker", "compose", "config", "--format", "json")
        shown, error = run(*command, folder=str(self.directory))
        if error:
            self.problems.append(f"the files in {self.directory} cannot be read: {error}")
            return {}
        active = self.directory / ".env"
        text = active.read_text(encoding="utf-8") if active.exists() else ""
        match = re.search(r"^COMPOSE_FILE=[^:]+:docker-compose\.(\w+)\.yml(:.+)?$", text, re.M)
        self.about["env"] = match[1] if match else None
        self.on_a_swarm = bool(match and match[2])
        services = json.loads(shown)["services"]
        return {
            name: (services[name].get("deploy") or {}).get("replicas", 1)
            for name in in_order(services)
        }

    def add_service(self, name: str, wanted: int, replicas: list[Replica]) -> None:
        """Sum up a service, and note what is wrong with it."""
        there = sum(each.runs for each in replicas)
        if len(replicas) < wanted:
            missing = wanted - len(replicas)
            self.problems.append(
                f"{name} has {len(replicas)} of {wanted} containers"
                if replicas
                else f"{name} has no container"
                if missing == 1
                else f"{name} has none of {wanted} containers"
            )
        several = max(wanted, len(replicas)) > 1
        for each in replicas:
            problem = each.problem()
            if problem:
                number = f"-{each.about['replica']}" if several else ""
                self.problems.append(f"{name}{number} {problem}")
        words = Counter(each.word for each in replicas)
        health = next(iter(words)) if len(words) == 1 else ""
        self.about["services"].append(
            {
                "name": name,
                "wanted": wanted,
                "there": there,
                "health": health
                or ", ".join(f"{words[word]} {word}" for word in sorted(words))
                or "none",
                "restarts": sum(each.about["restarts"] for each in replicas),
                **most(replicas, "memory_bytes", "memory_limit_bytes"),
                **most(replicas, "cpus", "cpus_limit"),
                "containers": [each.about for each in replicas],
            }
        )


def most(replicas: list[Replica], used: str, limit: str) -> dict[str, Any]:
    """Return use and limit of the replica that has the least left."""
    known = [each.about for each in replicas if each.about[used] is not None]
    if not known:
        return {used: None, limit: None}
    fullest = max(known, key=lambda each: each[used] / (each[limit] or 1))
    return {used: fullest[used], limit: fullest[limit]}


def in_order(services: dict[str, Any]) -> list[str]:
    """Return the services' names, those that need others before these."""
    needs = {name: set(about.get("depends_on") or {}) for name, about in services.items()}

    def depth(name: str) -> int:
        return 1 + max((depth(other) for other in needs[name] if other in needs), default=0)

    return sorted(services, key=lambda name: (depth(name), name), reverse=True)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "project": {"type": "str", "required": True},
            "certificate_days": {"type": "int", "default": 14},
        },
        supports_check_mode=True,
    )
    given = module.params
    status = Status(given["directory"], given["project"], given["certificate_days"])
    module.exit_json(changed=False, status=status.about)


if __name__ == "__main__":
    main()
