"""The role's own rendering, without a host, and what Compose makes of it.

The arguments of the role's one task are templated by Ansible in this process, with its defaults,
the wiring of playbooks/group_vars and its vars, in Ansible's order of precedence.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar

from .swarm import StackFiles, environment, told

ROOT = Path(__file__).parents[2]
ROLE = ROOT / "roles" / "stack_compose"
SERVICES = ("gateway", "frontend", "api", "database", "cache")
MIB = 1024 * 1024

REPLICAS = {
    "default": {},
    "one": {"stack_compose_frontend_replicas": "1", "stack_compose_api_replicas": "1"},
    "most": {"stack_compose_frontend_replicas": 20, "stack_compose_api_replicas": 20},
}
LIMITS = {
    "default": {},
    "small": {
        setting: value
        for service in SERVICES
        for setting, value in (
            (f"stack_compose_{service}_memory", "32M"),
            (f"stack_compose_{service}_cpus", "0.01"),
        )
    },
    "large": {
        setting: value
        for service in SERVICES
        for setting, value in (
            (f"stack_compose_{service}_memory", "64G"),
            (f"stack_compose_{service}_cpus", 64),
        )
    },
    "core": {f"stack_compose_{service}_cpus": 1 for service in SERVICES},
}
PORTS = {
    "default": {},
    "others": {
        "stack_compose_bind_address": "127.0.0.1",
        "stack_compose_http_port": "80",
        "stack_compose_https_port": "443",
        "stack_compose_api_debug_port": "18000",
        "stack_compose_database_debug_port": "15432",
        "stack_compose_cache_debug_port": "16379",
    },
    # A swarm's are open on every address.
    "public": {"stack_compose_http_port": "80", "stack_compose_https_port": "443"},
}
PLACES = {
    "default": {},
    "others": {"stack_dir": "/srv/lab.2/stack_yard-1", "stack_project": "007"},
}
IMAGES = {
    "built": {},
    "registry": {
        "database": "postgres:17",
        "cache": "redis:8",
        "api": "lab.example:5000/a/api@sha256:" + "0" * 64,
    },
}
# One stack on each machine, or one on all of a swarm.
SWARMS = {
    "none": {},
    "default": {"orchestrator": "swarm"},
    "virtual": {"orchestrator": "swarm", "swarm_endpoint_mode": "vip"},
    "encrypted": {"orchestrator": "swarm", "swarm_encrypted": "true"},
}


@dataclass(frozen=True)
class Combination:
    """What somebody asks for."""

    env: str
    replicas: str = "default"
    limits: str = "default"
    ports: str = "default"
    place: str = "default"
    images: str = "built"
    swarm: str = "none"

    def __str__(self) -> str:
        return "-".join(astuple(self))

    def settings(self) -> dict[str, Any]:
        """Return what is typed with -e."""
        return {
            "env": self.env,
            **REPLICAS[self.replicas],
            **LIMITS[self.limits],
            **PORTS[self.ports],
            **PLACES[self.place],
            **SWARMS[self.swarm],
        }


# Every environment with all counts and limits; of the other three, which meet in no template, each
# pair of choices.
COMBINATIONS = [
    Combination(env, replicas, limits, *others)
    for env, replicas, limits, others in itertools.product(
        ("dev", "prod"),
        REPLICAS,
        LIMITS,
        (
            ("default", "default", "built"),
            ("default", "others", "registry"),
            ("others", "default", "registry"),
            ("others", "others", "built"),
        ),
    )
]
# Of a swarm, which takes prod alone: all counts with all of the others, and each way with each.
SWARM_COMBINATIONS = [
    Combination("prod", replicas, *others, swarm)
    for (replicas, others), swarm in zip(
        itertools.product(
            REPLICAS,
            (
                ("default", "default", "default", "built"),
                ("small", "public", "others", "registry"),
                ("large", "default", "others", "built"),
                ("core", "public", "default", "registry"),
            ),
        ),
        itertools.cycle(("default", "virtual", "encrypted")),
        strict=False,
    )
]


@dataclass
class Stack:
    """A rendered project, and Compose's own reading of it."""

    combination: Combination
    # What was typed, over the role's defaults.
    given: dict[str, Any]
    # Path below the stack_dir, to content and mode.
    files: dict[str, tuple[str, str]]
    # What is theirs once it exists.
    kept: set[str]
    # Path below the stack_dir to mode.
    directories: dict[str, str]
    warnings: str = ""
    code: int = 0
    model: dict[str, Any] = field(default_factory=dict)
    # For a swarm: where it was written, the stack file, Docker's own reading of it, its warnings.
    directory: Path = Path()
    text: dict[str, Any] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)
    refusal: str = ""

    @property
    def prod(self) -> bool:
        """Tell whether it is prod's."""
        return self.combination.env == "prod"

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        """Return Compose's services by name."""
        return self.model["services"]

    def memory(self, service: str) -> int:
        """Return the memory setting of a service in bytes."""
        text = self.given[f"stack_compose_{service}_memory"]
        return int(text[:-1]) * 1024 ** (" KMG".index(text[-1]))

    def tmpfs(self, service: str) -> dict[str, dict[str, str]]:
        """Return the options of a service's tmpfs mounts by target."""
        return {
            target: dict(option.split("=", 1) for option in options.split(","))
            for target, options in (
                entry.split(":", 1) for entry in self.services[service].get("tmpfs", [])
            )
        }

    def flags(self, service: str) -> dict[str, str]:
        """Return the settings that a service's command gives its server."""
        command = self.services[service]["command"]
        if "=" in command[0]:
            return dict(flag.removeprefix("--").split("=", 1) for flag in command)
        return dict(
            zip((flag.removeprefix("--") for flag in command[::2]), command[1::2], strict=True)
        )


@functools.cache
def start_ansible() -> None:
    """Let Ansible find its plugins, once in a process."""
    init_plugin_loader()


class Renderer:
    """Renders the role's files."""

    def __init__(self) -> None:
        """Read the role and its wiring once."""
        start_ansible()
        self.loader = DataLoader()
        self.loader.set_basedir(str(ROOT / "playbooks"))
        self.defaults = self.read(ROLE / "defaults" / "main.yml")
        wiring: dict[str, Any] = {}
        for path in sorted((ROOT / "playbooks" / "group_vars" / "all").glob("*.yml")):
            wiring |= self.read(path)
        self.lower = self.defaults | wiring
        self.higher = self.read(ROLE / "vars" / "main.yml")
        self.text_task, self.tree_task = self.read(ROLE / "tasks" / "main.yml")

    def read(self, path: Path) -> Any:
        """Return the file's data, its templates still to be rendered."""
        return self.loader.load_from_file(str(path), trusted_as_template=True)

    def template(self, task: dict[str, Any], module: str, variables: dict[str, Any]) -> Any:
        """Return the arguments of a task, every value final."""
        templar = Templar(loader=self.loader, variables={**variables, **task["vars"]})
        return templar.template(task[module])

    def value(self, name: str, combination: Combination) -> Any:
        """Return what a variable of the wiring comes to."""
        variables = {**self.lower, **combination.settings(), "groups": {"lab": ["localhost"]}}
        return Templar(loader=self.loader, variables=variables).template(self.lower[name])

    def render(self, combination: Combination) -> Stack:
        """Return the project that the role would write, every value final."""
        given = {
            "role_path": str(ROLE),
            "ansible_search_path": [str(ROLE), str(ROOT / "playbooks")],
            "ansible_managed": "Ansible managed",
            "ansible_connection": "local",
            "inventory_hostname": "localhost",
            "docker_engine_found": {"machine": {"cores": 64}},
            "stack_images_refs": IMAGES[combination.images],
            "stack_images_references": {
                **{service: f"stackyard/{service}:0123456789ab" for service in SERVICES},
                **IMAGES[combination.images],
            },
        }
        variables = {**self.lower, **self.higher, **given, **combination.settings()}
        facts = self.template(self.text_task, "ansible.builtin.set_fact", variables)
        variables |= facts
        tree = self.template(self.tree_task, "file_tree", variables)
        directory = Path(variables.get("stack_dir", "/opt/stackyard"))
        files = {
            str(Path(entry["path"]).relative_to(directory)): (entry["content"], entry["mode"])
            for entry in tree["files"]
        }
        kept = {
            str(Path(entry["path"]).relative_to(directory))
            for entry in tree["files"]
            if entry.get("keep")
        }
        directories = {
            str(Path(entry["path"]).relative_to(directory)): entry["mode"]
            for entry in tree["directories"]
        }
        return Stack(combination, self.defaults | combination.settings(), files, kept, directories)

    def secrets(self) -> list[str]:
        """Return the names of all secret files."""
        definitions = self.lower["stack_secrets_definitions"]
        return [str(file["name"]) for each in definitions for file in each["files"]]


def compose(stack: Stack, directory: Path) -> None:
    """Write the project and let Compose read it as people would."""
    for name, (content, mode) in stack.files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        path.chmod(int(mode, 8))
    override = f"docker-compose.{stack.combination.env}.yml"
    done = subprocess.run(
        [
            "docker",
            "compose",
            "-f",
            "docker-compose.yml",
            "-f",
            override,
            "config",
            "--format",
            "json",
        ],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        env=environment(directory),
    )
    stack.code, stack.warnings = done.returncode, done.stderr.strip()
    stack.model = json.loads(done.stdout) if done.returncode == 0 else {"services": {}}


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> list[Stack]:
    """Return every combination, rendered and read by Compose."""
    if shutil.which("docker") is None:
        pytest.fail("docker compose is what these checks ask: install it", pytrace=False)
    top = tmp_path_factory.mktemp("stacks")
    renderer = Renderer()
    stacks = []
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        jobs = []
        for combination in COMBINATIONS:
            stack = renderer.render(combination)
            stacks.append(stack)
            jobs.append(pool.submit(compose, stack, top / str(combination)))
        for job in jobs:
            job.result()
    assert stacks
    return stacks


@pytest.fixture(scope="session")
def rendered_swarms(tmp_path_factory: pytest.TempPathFactory) -> list[Stack]:
    """Return every combination for a swarm: as Compose reads it on one machine, and as told."""
    top = tmp_path_factory.mktemp("swarms")
    renderer, stack_files = Renderer(), StackFiles()
    stacks = [renderer.render(combination) for combination in SWARM_COMBINATIONS]
    for stack in stacks:
        stack.directory = top / str(stack.combination)
        for name in renderer.secrets():
            path = stack.directory / "secrets" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"what {name} holds", encoding="utf-8")
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        list(pool.map(lambda stack: compose(stack, stack.directory), stacks))
        read = list(pool.map(lambda stack: stack_files.read(stack.directory), stacks))
        for stack, done in zip(stacks, read, strict=True):
            stack.refusal = done.stderr
            if done.returncode == 0:
                stack.text, refusal = stack_files.make(stack.directory, done.stdout)
                stack.refusal += refusal
        good = [stack for stack in stacks if stack.text]
        docker = pool.map(lambda stack: told(stack.text, stack.directory), good)
        for stack, (model, refusal) in zip(good, docker, strict=True):
            stack.told, stack.refusal = model, stack.refusal + refusal
    return stacks


@pytest.fixture(scope="session")
def swarms(rendered_swarms: list[Stack]) -> list[Stack]:
    """Return those that Docker accepts; that it accepts all has a check of its own."""
    accepted = [stack for stack in rendered_swarms if stack.told]
    assert accepted, rendered_swarms[0].refusal
    return accepted


@pytest.fixture(scope="session")
def stacks(rendered: list[Stack]) -> list[Stack]:
    """Return those that Compose accepts; that it accepts all has a check of its own."""
    accepted = [stack for stack in rendered if stack.code == 0]
    assert accepted, rendered[0].warnings
    return accepted


@pytest.fixture(scope="session")
def prod(stacks: list[Stack]) -> list[Stack]:
    """Return those of prod."""
    return [stack for stack in stacks if stack.prod]


@pytest.fixture(scope="session")
def dev(stacks: list[Stack]) -> list[Stack]:
    """Return those of dev."""
    return [stack for stack in stacks if not stack.prod]
