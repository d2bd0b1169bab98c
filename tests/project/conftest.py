"""The project's own files."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())


def read_yaml(path: Path) -> Any:
    """Return the file's data; a tag of Ansible's own stands for its text."""
    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.add_multi_constructor("!", lambda _loader, _tag, node: node.value)
    with path.open(encoding="utf-8") as stream:
        return yaml.load(stream, Loader=loader)  # noqa: S506 - a subclass of the safe one


def role_files(role: str) -> list[Path]:
    """Return the role's text files."""
    return [
        path
        for path in sorted((ROOT / "roles" / role).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]


def playbook_files() -> list[Path]:
    """Return every file in which Ansible looks for tasks or values."""
    files = [ROOT / "site.yml", *sorted((ROOT / "playbooks").rglob("*.yml"))]
    return files + [path for role in ROLES for path in role_files(role)]


def project_files() -> list[Path]:
    """Return the files that are, or could be, committed."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]
