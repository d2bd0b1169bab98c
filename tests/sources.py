"""Sources that Ansible finds by their place, as modules that checks can import or run."""

from __future__ import annotations

import importlib
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
    # As __main__ a program would run.
    spec = importlib.util.spec_from_file_location(path.stem.strip("_"), path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_siblings(folder: Path, *names: str) -> list[ModuleType]:
    """Return sources of a program that import each other by their bare names."""
    siblings = {path.stem for path in folder.glob("*.py")} - {"__main__"}
    # Others may have modules of these names.
    others = {name: sys.modules.pop(name) for name in siblings & sys.modules.keys()}
    sys.path.insert(0, str(folder))
    try:
        return [
            load(folder / f"{name}.py") if name == "__main__" else importlib.import_module(name)
            for name in names
        ]
    finally:
        sys.path.remove(str(folder))
        for name in siblings & sys.modules.keys():
            del sys.modules[name]
        sys.modules.update(others)


def command(path: Path) -> list[str]:
    """Return the command that runs an Ansible module, which reads its arguments as JSON."""
    return [sys.executable, "-c", RUN, UTILITIES, str(path)]
