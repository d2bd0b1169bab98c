"""Sources that Ansible finds by their place, as modules that checks can import."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType


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
