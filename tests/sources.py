"""Sources that Ansible finds by their place, as modules that checks can import or run."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import ansible.module_utils

if TYPE_CHECKING:
    from types import ModuleType

# As Ansible does for a module that it sends to a machine.
UTILITIES = str(Path(__file__).parents[1] / "module_utils")
ansible.module_utils.__path__.append(UTILITIES)
RUN = (
    "import runpy, sys, ansible.module_utils as there; there.__path__.append(sys.argv.pop(1));"
    "runpy.run_path(sys.argv.pop(1), run_name='__main__')"
)


def load(path: Path) -> ModuleType:
    """Return the source at a path, as a module of its own."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def command(path: Path) -> list[str]:
    """Return the command that runs an Ansible module, which reads its arguments as JSON."""
    return [sys.executable, "-c", RUN, UTILITIES, str(path)]
