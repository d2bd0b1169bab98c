#!/usr/bin/python
"""Ansible module: compare a Compose project with its containers, and replace one replica."""

from __future__ import annotations

DOCUMENTATION = r"""
module: compose_services
short_description: Compare a Compose project with its containers, and replace one replica
description:
  - Says what Compose would have, what there is, and where the two differ.
  - With O(replace) it first replaces that one container of a service with several, without leaving
    a request unanswered. A new one is created and has to become healthy, and its neighbours have
    to know it; then the old one is told to stop, by its own stop signal and grace period.
  - A new replica that does not become healthy is removed again, and the old one stays.
  - With O(mend) it reconciles limits and restart policies that C(docker update) changed. What
    C(docker update) cannot take back, such as a limit where there is to be none, makes a container
    outdated.
options:
  directory: {description: The project's directory., type: path, required: true}
  project: {description: The project's name., type: str, required: true}
  files:
    description: Compose files, relative to the directory; with O(rendered), their names there.
    type: list
    elements: str
    required: true
  rendered:
    description: Text of these files by name, to be used instead of those in the directory.
    type: dict
    default: {}
  release:
    description: Directory of the release that was deployed last, to tell what changed since
      and what was edited by hand.
    type: path
    default: ""
  loaded:
    description: By service, a C(command) for its container, which prints the name of the
      configuration that is in use, and the C(file) with the configuration, which holds that name.
    type: dict
    default: {}
  replace: {description: Name of the container to replace., type: str, default: ""}
  noticed:
    description: For a service, who has to know a new replica. C(by) is a service, C(command) is run
      in each of its containers, and C(line) is a regular expression that has to match a line of
      the output; C({address}) in it stands for the addresses of the new one.
    type: dict
    default: {}
  mend: {description: Reconcile limits and restart policies., type: bool, default: false}
  wait:
    description: Seconds until all has to be as it is to be and healthy; 0 does not wait.
    type: int
    default: 0
  timeout: {description: Seconds until a new replica has to be healthy., type: int, default: 180}
  log_lines: {description: Lines of the log of one that is not., type: int, default: 20}
attributes:
  check_mode: {support: full}
"""

RETURN = r"""
wanted:
  description: By service, what Compose makes of the files, with C(hash) and C(replicas).
  type: dict
containers:
  description: Name, service, number, C(current) or not, C(status), C(health), and C(drift).
  type: list
outdated: {description: Names of containers to be replaced, by service., type: dict}
starts: {description: How many containers would start, by service., type: dict}
removes: {description: Names of containers that would be removed., type: list}
changes: {description: What differs from O(release), lines by service., type: dict}
drift: {description: What is not as O(release) left it, one line each., type: list}
edited: {description: Files that are not as O(release) has them, one line each., type: list}
stale: {description: Services that run with another configuration than O(loaded) has., type: list}
release: {description: "Id of O(release), empty where there is none.", type: str}
settled: {description: Whether there is nothing to do and all is healthy., type: bool}
report: {description: Health output and log of a replica that did not become healthy., type: str}
"""

import ipaddress
import json
import re
import shutil
import tempfile
import time
from functools import cached_property
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.root_cause import root_cause

LABEL = "com.docker.compose."
# Until clients, which look every second, know a new replica. One of another release may have no way
# to say so.
NOTICED_SECONDS = 20
NOTICED_BY_OTHERS_SECONDS = 3
RUNNING = ("running", "restarting", "paused")
# A server that ends this often by itself while it starts will not become healthy.
MOST_RESTARTS = 2

# What there is on a machine without an engine.
NOTHING: dict[str, Any] = {
    **{"wanted": {}, "containers": [], "outdated": {}, "changes": {}, "drift": [], "edited": []},
    **{"release": "", "stale": [], "starts": {}, "removes": [], "settled": False},
}

# What docker update can change: its options, and what docker inspect calls them.
RESOURCES = {
    **{"memory": "Memory", "memory-swap": "MemorySwap", "memory-reservation": "MemoryReservation"},
    **{"cpus": "NanoCpus", "cpu-shares": "CpuShares", "cpu-period": "CpuPeriod"},
    **{"cpu-quota": "CpuQuota", "cpuset-cpus": "CpusetCpus", "cpuset-mems": "CpusetMems"},
    **{"blkio-weight": "BlkioWeight", "pids-limit": "PidsLimit"},
}
# Of these, those in Compose's deploy.resources.limits, and what shows that there is none.
LIMITS = {"memory": "memory", "cpus": "cpus", "pids-limit": "pids"}
NONE = {"cpuset-cpus": "none", "cpuset-mems": "none"}
# Of these, what Compose's files call otherwise than docker update.
COMPOSE_NAMES = {
    **{"memory": "mem_limit", "memory-swap": "memswap_limit", "cpuset-cpus": "cpuset"},
    **{"memory-reservation": "mem_reservation"},
}


class RolloutError(Exception):
    """Why a replica cannot be replaced, with a report of what it said."""

    def __init__(self, message: str, report: str = "") -> None:
        """Take one line, and health output and log lines."""
        super().__init__(message)
        self.report = report


def leaves(tree: Any, path: str = "") -> dict[str, str]:
    """Return a nested mapping's values as text, by their path."""
    if isinstance(tree, dict) and tree:
        return {
            name: text
            for key, value in tree.items()
            for name, text in leaves(value, f"{path}.{key}" if path else str(key)).items()
        }
    return {path: tree if isinstance(tree, str) else json.dumps(tree)}


def shown(path: str, value: str) -> str:
    """The value as people write it."""
    return f"{int(value) / 2**20:g}M" if path.endswith("memory") and value.isdecimal() else value


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return what changed in a service, a line each: the path, the old value, the new one."""
    old, new = leaves(before), leaves(now)
    return [
        f"{path}: {shown(path, old.get(path, 'none'))} -> {shown(path, new.get(path, 'none'))}"
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path) and path not in ("hash", "deploy.replicas")
    ]


class Project:
    """A Compose project on this machine."""

    def __init__(self, module: AnsibleModule, scratch: str) -> None:
        """Take the module, and a directory that may hold rendered files for a moment."""
        self.module = module
        given = module.params
        self.name = given["project"]
        folder = Path(given["directory"])
        self.files = []
        for name in given["files"]:
            path = folder / name
            if name in given["rendered"]:
                path = Path(scratch) / name
                path.write_text(given["rendered"][name], encoding="utf-8")
            self.files += ["-f", str(path)]
        self.folder = folder

    def docker(self, *arguments: str, check: bool = True) -> str:
        """Return the output of docker; RolloutError with the cause where it fails."""
        code, output, error = self.module.run_command(["docker", *arguments])
        if code != 0 and check:
            cause = root_cause(error.strip() or output, f"exit status {code}")
            raise RolloutError(f"docker {arguments[0]}: {cause}")
        return output

    def compose(self, *arguments: str) -> str:
        """Return the output of docker compose for this project and these files."""
        place = ["--project-directory", str(self.folder), "--project-name", self.name]
        return self.docker("compose", *place, *self.files, *arguments)

    @cached_property
    def counts_swap(self) -> bool:
        """Whether the kernel counts swap; the engine sets no limit on it otherwise."""
        return self.docker("info", "--format", "{{.SwapLimit}}").strip() != "false"

    def wanted(self) -> dict[str, dict[str, Any]]:
        """What Compose makes of the files, by service, with its hash and count of replicas."""
        services = json.loads(self.compose("config", "--format", "json"))["services"]
        hashes = dict(line.split() for line in self.compose("config", "--hash", "*").splitlines())
        for name, service in services.items():
            service["hash"] = hashes[name]
            service["replicas"] = service.get("deploy", {}).get("replicas", 1)
        return services

    def inspected(self) -> list[dict[str, Any]]:
        """All containers of the project, as the engine describes them, by service and number."""
        labels = [f"label={LABEL}project={self.name}", f"label={LABEL}oneoff=False"]
        filters = [word for label in labels for word in ("--filter", label)]
        ids = self.docker("ps", "--all", "--quiet", "--no-trunc", *filters).split()
        # One may go away between the two questions.
        found = json.loads(self.docker("inspect", *ids, check=False) or "[]") if ids else []
        return sorted(found, key=lambda each: (service_of(each), number_of(each)))

    def image_ids(self, references: list[str]) -> dict[str, str]:
        """The id of each image that is there, by reference."""
        shown = "{{json .RepoTags}} {{json .RepoDigests}} {{.Id}}"
        output = self.docker("image", "inspect", "--format", shown, *references, check=False)
        ids = {}
        for line in output.splitlines():
            names, image = line.rsplit(" ", 1)
            ids |= {name: image for name in re.findall(r'"([^"]+)"', names)}
        return ids


def service_of(container: dict[str, Any]) -> str:
    """The container's Compose service."""
    return container["Config"]["Labels"][f"{LABEL}service"]


def number_of(container: dict[str, Any]) -> int:
    """The container's number in its service."""
    return int(container["Config"]["Labels"][f"{LABEL}container-number"])


def is_current(container: dict[str, Any], service: dict[str, Any]) -> bool:
    """Tell whether Compose would leave the container as it is."""
    return bool(container["Config"]["Labels"][f"{LABEL}config-hash"] == service["hash"])


def name_of(container: dict[str, Any]) -> str:
    """The name that people type."""
    return container["Name"].lstrip("/")


def health_of(container: dict[str, Any]) -> str:
    """healthy, unhealthy or starting; none without a health check."""
    return container["State"].get("Health", {}).get("Status", "none")


def is_healthy(container: dict[str, Any]) -> bool:
    """Tell whether it runs, and is healthy where it has a health check."""
    running = container["State"]["Status"] == "running"
    return running and health_of(container) in ("healthy", "none")


def limits_wanted(service: dict[str, Any]) -> dict[str, str]:
    """Return what docker update can change, by its option, as a new container has it.

    Swap is the engine's own choice where the files say nothing: as much again as the memory.
    """
    deploy = service.get("deploy", {}).get("resources", {})
    limits, reservations = deploy.get("limits", {}), deploy.get("reservations", {})
    names = {option: option.replace("-", "_") for option in RESOURCES} | COMPOSE_NAMES
    given = {option: service.get(name) for option, name in names.items()}
    given["blkio-weight"] = service.get("blkio_config", {}).get("weight")
    given |= {name: limits[key] for name, key in LIMITS.items() if limits.get(key)}
    if reservations.get("memory"):
        given["memory-reservation"] = reservations["memory"]
    if given["memory"] and not given["memory-swap"]:
        given["memory-swap"] = 2 * int(given["memory"])
    given["cpus"] = f"{float(given['cpus'] or 0):g}"
    wanted = {name: str(value or NONE.get(name, "0")) for name, value in given.items()}
    return wanted | {"restart": service.get("restart", "no")}


def limits_found(container: dict[str, Any]) -> dict[str, str]:
    """Return the same, as the container has it."""
    host = container["HostConfig"]
    policy = host["RestartPolicy"]
    most = f":{policy['MaximumRetryCount']}" if policy["MaximumRetryCount"] else ""
    found = {option: host.get(name) for option, name in RESOURCES.items()}
    found["cpus"] = f"{(found['cpus'] or 0) / 1e9:g}"
    # Any number below 1 is no limit on processes.
    found["pids-limit"] = max(found["pids-limit"] or 0, 0)
    shown = {name: str(value or NONE.get(name, "0")) for name, value in found.items()}
    return shown | {"restart": f"{policy['Name']}{most}"}


def drift_of(
    project: Project, container: dict[str, Any], service: dict[str, Any]
) -> dict[str, tuple[str, str]]:
    """Return by option what docker update changed of a container: what is there, and wanted."""
    found, wanted = limits_found(container), limits_wanted(service)
    drift = {name: (found[name], wanted[name]) for name in wanted if found[name] != wanted[name]}
    if found["memory-swap"] == "-1" and "memory-swap" in drift and not project.counts_swap:
        # Without that the engine makes every container so.
        del drift["memory-swap"]
    return drift


def takes_update(option: str, wanted: str) -> bool:
    """Tell whether docker update brings a container to a value: to none it hardly ever does.

    0 leaves what is there, and -1 for swap is written down and not told to the kernel.
    """
    return option in ("restart", "pids-limit") or wanted not in ("0", "none", "-1")


def reconcile(project: Project, wanted: dict[str, dict[str, Any]]) -> bool:
    """Take back what docker update changed of containers that stay; tell whether there was any."""
    changed = False
    for container in project.inspected():
        service = wanted.get(service_of(container))
        if service is None or not is_current(container, service):
            continue
        drift = drift_of(project, container, service)
        values = {name: value for name, (_, value) in drift.items() if takes_update(name, value)}
        if values.keys() & {"memory", "memory-swap"}:
            # Both: the engine and the kernel refuse memory above memory and swap of before.
            limits = limits_wanted(service)
            values |= {name: limits[name] for name in ("memory", "memory-swap")}
        if values.get("pids-limit") == "0":
            values["pids-limit"] = "-1"
        if values:
            update(project, container, values)
            changed = True
    return changed


def update(project: Project, container: dict[str, Any], values: dict[str, str]) -> None:
    """Run docker update; RolloutError with its cause, and what to type, where it fails."""
    try:
        options = [f"--{name}={value}" for name, value in values.items()]
        project.docker("update", *options, name_of(container))
    except RolloutError as error:
        name, service = name_of(container), service_of(container)
        raise RolloutError(
            f"The limits of {name} cannot be reconciled: {error}. To replace it, type:"
            f" cd {project.folder} && docker compose up -d --force-recreate {service}"
        ) from None


def report_on(project: Project, container: dict[str, Any]) -> str:
    """The last health output and log lines of a container."""
    name = name_of(container)
    state = container["State"]
    lines = [f"== {name} {state['Status']} {health_of(container)} (exit code {state['ExitCode']})"]
    for entry in (state.get("Health", {}).get("Log") or [])[-2:]:
        lines.append(f"health check: exit {entry['ExitCode']} {entry['Output'].strip()}")
    tail = str(project.module.params["log_lines"])
    _, output, error = project.module.run_command(["docker", "logs", "--tail", tail, name])
    return "\n".join([*lines, f"{output}{error}".rstrip()])


def refreshed(project: Project, name: str) -> dict[str, Any] | None:
    """The container as it is now, None where it is gone."""
    found = json.loads(project.docker("inspect", name, check=False) or "[]")
    return found[0] if found else None


def wait_healthy(project: Project, container: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Wait until the container is healthy and return it; RolloutError where it will not be."""
    name = name_of(container)
    until = time.monotonic() + seconds
    while True:
        now = refreshed(project, name)
        if now is None:
            raise RolloutError(f"{name} was removed while it started")
        state = now["State"]
        if is_healthy(now):
            return now
        if health_of(now) == "unhealthy":
            raise RolloutError(f"{name} is unhealthy", report_on(project, now))
        if state["Status"] in ("exited", "dead") or now["RestartCount"] >= MOST_RESTARTS:
            raise RolloutError(f"{name} ends by itself", report_on(project, now))
        if time.monotonic() > until:
            raise RolloutError(
                f"{name} is not healthy after {seconds:.0f} s", report_on(project, now)
            )
        time.sleep(0.3)


def wait_noticed(
    project: Project, wanted: dict[str, Any], container: dict[str, Any], noticed: dict[str, Any]
) -> None:
    """Wait until the service's clients know the new replica."""
    networks = container["NetworkSettings"]["Networks"].values()
    addresses = [str(ipaddress.ip_address(each["IPAddress"])) for each in networks]
    known = "|".join(map(re.escape, addresses))
    line = re.compile(noticed["line"].replace("{address}", f"({known})"), re.MULTILINE)
    start = time.monotonic()
    for client in project.inspected():
        if service_of(client) != noticed["by"] or health_of(client) != "healthy":
            continue
        ours = is_current(client, wanted[noticed["by"]])
        while not line.search(
            project.docker("exec", client["Id"], *noticed["command"], check=False)
        ):
            if not ours and time.monotonic() > start + NOTICED_BY_OTHERS_SECONDS:
                break
            if time.monotonic() > start + NOTICED_SECONDS:
                raise RolloutError(
                    f"{name_of(client)} does not know {name_of(container)} "
                    f"after {NOTICED_SECONDS} s"
                )
            time.sleep(0.3)


def create_one(project: Project, wanted: dict[str, Any], service: str) -> dict[str, Any]:
    """Have Compose make one more container of the service, and return it once it has started."""
    before = project.inspected()
    counts = {name: sum(service_of(each) == name for each in before) for name in wanted}
    # Of what it depends on, and what that depends on, keep what is there.
    scale, look = {service: counts[service] + 1}, [service]
    while look:
        for name in wanted[look.pop()].get("depends_on", {}):
            if name not in scale:
                scale[name] = max(counts[name], 1)
                look.append(name)
    scales = [
        f"--scale={name}={count}"
        for name, count in scale.items()
        if name == service or wanted[name]["replicas"] > 1
    ]
    error = None
    try:
        project.compose("up", "--detach", "--no-recreate", *scales, service)
    except RolloutError as problem:
        error = problem
    known = {each["Id"] for each in before}
    new = [each for each in project.inspected() if each["Id"] not in known]
    mine = [each for each in new if service_of(each) == service]
    if error or not mine:
        for each in mine:
            project.docker("rm", "--force", each["Id"], check=False)
        raise error or RolloutError(f"Compose made no new container of {service}")
    return mine[0]


def replace(project: Project, wanted: dict[str, Any], name: str) -> None:
    """Replace a container by a new one of its service."""
    given = project.module.params
    old = refreshed(project, name)
    if old is None:
        return
    service = service_of(old)
    others = [
        each
        for each in project.inspected()
        if service_of(each) == service and each["Id"] != old["Id"]
    ]
    current = [each for each in others if is_current(each, wanted[service])]
    for each in current:
        # Of a run that was killed before it was started.
        if each["State"]["Status"] not in RUNNING:
            project.docker("rm", "--force", each["Id"])
            others.remove(each)
    # One of a run that was killed after it may do; so may there be fewer to be than there are.
    enough = [each for each in others if each in current or is_healthy(each)]
    spare = len(enough) >= max(wanted[service]["replicas"], 1)
    new = None if spare else create_one(project, wanted, service)
    try:
        for each in [new] if new else [e for e in others if e in current]:
            healthy = wait_healthy(project, each, given["timeout"])
            if service in given["noticed"]:
                wait_noticed(project, wanted, healthy, given["noticed"][service])
    except RolloutError:
        if new:
            project.docker("rm", "--force", new["Id"], check=False)
        raise
    project.docker("stop", old["Id"])
    project.docker("rm", "--force", old["Id"], check=False)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "project": {"type": "str", "required": True},
            "files": {"type": "list", "elements": "str", "required": True},
            "rendered": {"type": "dict", "default": {}},
            "release": {"type": "path", "default": ""},
            "loaded": {"type": "dict", "default": {}},
            "replace": {"type": "str", "default": ""},
            "noticed": {"type": "dict", "default": {}},
            "mend": {"type": "bool", "default": False},
            "wait": {"type": "int", "default": 0},
            "timeout": {"type": "int", "default": 180},
            "log_lines": {"type": "int", "default": 20},
        },
        supports_check_mode=True,
    )
    given = module.params
    if module.check_mode and shutil.which("docker") is None:
        # A bare machine: the run would have installed an engine by now.
        module.exit_json(changed=False, **NOTHING)
    with tempfile.TemporaryDirectory() as scratch:
        project = Project(module, scratch)
        try:
            wanted = project.wanted()
            changed = bool(given["replace"])
            if given["replace"] and not module.check_mode:
                replace(project, wanted, given["replace"])
            if given["mend"] and not module.check_mode:
                changed |= reconcile(project, wanted)
            facts = wait_settled(project, wanted, 0 if module.check_mode else given["wait"])
        except RolloutError as error:
            module.fail_json(msg=str(error), report=error.report)
    module.exit_json(changed=changed, **facts)


def wait_settled(
    project: Project, wanted: dict[str, dict[str, Any]], seconds: float
) -> dict[str, Any]:
    """Return the facts once all is as it is to be; RolloutError with what is not, in time."""
    until = time.monotonic() + seconds
    while True:
        facts = describe(project, wanted)
        if facts["settled"] or not seconds:
            return facts
        if time.monotonic() > until:
            unlike = ", ".join(unsettled(facts)) or "no reason seen"
            raise RolloutError(f"after {seconds:g} s, not all is as the files say: {unlike}")
        time.sleep(1)


def unsettled(facts: dict[str, Any]) -> list[str]:
    """Return in words what keeps a project from being as its files say."""
    containers = facts["containers"]
    return [
        *([] if containers else ["there are no containers"]),
        *drift_lines(facts["wanted"], containers),
        *(f"{each['name']} is starting" for each in containers if each["health"] == "starting"),
        *(f"{name} is outdated" for names in facts["outdated"].values() for name in names),
        *(f"{name} has not loaded its configuration" for name in facts["stale"]),
    ]


def look_at(
    project: Project,
    container: dict[str, Any],
    about: dict[str, Any] | None,
    images: dict[str, str],
) -> dict[str, Any]:
    """Return how a container fares and whether it is as wanted."""
    same = about is not None and (
        is_current(container, about)
        and images.get(about["image"], container["Image"]) == container["Image"]
    )
    drift = drift_of(project, container, about) if about and same else {}
    return {
        "name": name_of(container),
        "service": service_of(container),
        "current": same and all(takes_update(name, value) for name, (_, value) in drift.items()),
        "status": container["State"]["Status"],
        "health": health_of(container),
        "drift": drift,
    }


def is_stale(project: Project, service: str, containers: list[dict[str, Any]]) -> bool:
    """Tell whether a service that runs has loaded another configuration than its file holds."""
    how = project.module.params["loaded"][service]
    rendered = project.module.params["rendered"]
    running = [
        c["name"] for c in containers if c["service"] == service and c["health"] == "healthy"
    ]
    path = project.folder / how["file"]
    if not running or not (how["file"] in rendered or path.exists()):
        return False
    text = rendered.get(how["file"]) or path.read_text(encoding="utf-8")
    answer = project.docker("exec", running[0], *how["command"], check=False).strip()
    return not answer or answer not in text


def describe(project: Project, wanted: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Say what there is and where it differs from what is wanted and what was left."""
    given = project.module.params
    images = project.image_ids(sorted({service["image"] for service in wanted.values()}))
    containers = [
        look_at(project, each, wanted.get(service_of(each)), images) for each in project.inspected()
    ]
    counts = count(containers, wanted)
    outdated = {
        name: [c["name"] for c in containers if c["service"] == name and not c["current"]]
        for name in wanted
    }
    stale = [name for name in given["loaded"] if is_stale(project, name, containers)]
    folder = Path(given["release"] or "/nonexistent")
    release = {}
    if (folder / "release.json").exists():
        release = json.loads((folder / "release.json").read_text(encoding="utf-8"))
    before = release.get("services", {})
    return {
        "wanted": wanted,
        "containers": containers,
        "outdated": {name: names for name, names in outdated.items() if names},
        "changes": {
            name: lines
            for name, about in wanted.items()
            if name in before and (lines := differences(before[name], about))
        },
        "edited": edited(project.folder, folder, release),
        "drift": drift_lines(release.get("services") or wanted, containers),
        "release": release.get("id", ""),
        "stale": stale,
        "starts": starts(wanted, containers),
        "removes": removes(wanted, containers),
        "settled": not any(outdated.values())
        and not stale
        and all(counts[name] == about["replicas"] for name, about in wanted.items())
        and all(
            each["service"] in wanted
            and each["status"] == "running"
            and each["health"] in ("healthy", "none")
            and not each["drift"]
            for each in containers
        ),
    }


def count(containers: list[dict[str, Any]], services: dict[str, Any]) -> dict[str, int]:
    """Return how many containers each service has."""
    return {name: sum(each["service"] == name for each in containers) for name in services}


def starts(wanted: dict[str, dict[str, Any]], containers: list[dict[str, Any]]) -> dict[str, int]:
    """Return how many containers of each service would start, without services that start none."""
    running = count([each for each in containers if each["status"] in RUNNING], wanted)
    lacking = {name: about["replicas"] - running[name] for name, about in wanted.items()}
    return {name: number for name, number in lacking.items() if number > 0}


def removes(wanted: dict[str, dict[str, Any]], containers: list[dict[str, Any]]) -> list[str]:
    """Return the containers of services that no file has, and those beyond a service's count."""
    gone = [each["name"] for each in containers if each["service"] not in wanted]
    for name, about in wanted.items():
        there = [each for each in containers if each["service"] == name]
        # Compose removes those first that are not as the files say.
        there.sort(key=lambda each: not each["current"])
        gone += [each["name"] for each in there[about["replicas"] :]]
    return gone


def edited(folder: Path, kept: Path, release: dict[str, Any]) -> list[str]:
    """Name the files that are not as the release has them."""
    lines = []
    for name in release.get("files", []):
        path = folder / name
        if not path.exists():
            lines.append(f"{name} is missing")
        elif path.read_bytes() != (kept / name).read_bytes():
            lines.append(f"{name} is not as release {release['id']} has it")
    return lines


def drift_lines(wanted: dict[str, dict[str, Any]], containers: list[dict[str, Any]]) -> list[str]:
    """Return in words what is not as it was left."""
    counts = count(containers, wanted)
    lines = [
        f"{each['name']}: {option} is {found}, not {value}"
        for each in containers
        for option, (found, value) in each["drift"].items()
    ]
    for each in containers:
        if each["service"] not in wanted:
            lines.append(f"{each['name']} belongs to no service of the files")
        elif each["status"] != "running":
            lines.append(f"{each['name']} is {each['status']}")
        elif each["health"] == "unhealthy":
            lines.append(f"{each['name']} is unhealthy")
    lines += [
        f"{service} has {counts[service]} of {about['replicas']} containers"
        for service, about in wanted.items()
        if containers and counts[service] != about["replicas"]
    ]
    return lines


if __name__ == "__main__":
    main()
