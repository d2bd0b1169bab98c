"""What a swarm is told: the role stack_deploy's way, from a project's files to Docker's word."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import add_all_plugin_dirs
from ansible.template import Templar

ROLE = Path(__file__).parents[2] / "roles" / "stack_deploy"


def environment(directory: Path) -> dict[str, str]:
    """Return an environment in which nothing of this machine's own settings has a say."""
    return {"PATH": os.environ["PATH"], "HOME": str(directory)}


class StackFiles:
    """Makes stack files of projects, as the role's tasks do."""

    def __init__(self) -> None:
        """Read the role once. Ansible has to know where its plugins are already."""
        add_all_plugin_dirs(str(ROLE))
        self.loader = DataLoader()
        self.variables = self.load("vars/main.yml")
        self.command = self.template(
            self.load("tasks/swarm.yml")[0]["ansible.builtin.shell"]["cmd"]
        )

    def load(self, name: str) -> Any:
        """Return the data of one of the role's files, its templates still to be rendered."""
        return self.loader.load_from_file(str(ROLE / name), trusted_as_template=True)

    def template(self, text: Any, **more: Any) -> Any:
        """Return what it is with the role's variables, and some more."""
        return Templar(loader=self.loader, variables={**self.variables, **more}).template(text)

    def read(self, directory: Path) -> subprocess.CompletedProcess[str]:
        """Read a project's directory with the role's own command."""
        return subprocess.run(
            ["bash", "-c", self.command],
            cwd=directory,
            capture_output=True,
            text=True,
            check=False,
            env=environment(directory),
        )

    def make(self, directory: Path, output: str) -> tuple[dict[str, Any], str]:
        """Return the stack file for what was read, or why there is none."""
        read = {"stdout_lines": output.splitlines()}
        try:
            text = self.template(
                self.variables["stack_deploy__stack"],
                stack_deploy__project=read,
                stack_deploy_dir=str(directory),
            )
        except AnsibleError as error:
            return {}, str(error)
        return text, ""


def told(text: dict[str, Any], directory: Path) -> tuple[dict[str, Any], str]:
    """Return a stack file as Docker reads it, and its warnings or why it refuses."""
    done = subprocess.run(
        ["docker", "stack", "config", "--compose-file", "-"],
        input=json.dumps(text),
        capture_output=True,
        text=True,
        check=False,
        env=environment(directory),
    )
    return yaml.safe_load(done.stdout) if done.returncode == 0 else {}, done.stderr.strip()
