"""What make verify and make chaos install is enough for them, and the lock files agree."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
LOCKS = ["requirements", "requirements-verify", "requirements-test"]
# What pytest and python -m chaos begin with.
PROGRAMS = [
    ROOT / "conftest.py", *(ROOT / "chaos").glob("*.py"), *(ROOT / "tests/acceptance").glob("*.py"),
]  # fmt: skip
ON_MACHINE = [*(ROOT / "tests/acceptance/on_machine").glob("*.py")]


def imported(path: Path) -> Iterator[str]:
    """Return the full names of the modules that a source imports, those for types alone too."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            name = ".".join([*start, *filter(None, [node.module])])
            # It may be a module that is taken from its package.
            yield from (name, *(f"{name}.{alias.name}" for alias in node.names))


def foreign(paths: list[Path]) -> dict[str, str]:
    """Return what these and all of ours that they import take from others, with who does."""
    found, look, seen = {}, list(paths), set(paths)
    while look:
        path = look.pop()
        for name in imported(path):
            place = ROOT.joinpath(*name.split("."))
            ours = [each for each in (place.with_suffix(".py"), place / "__init__.py")
                    if each.exists()]  # fmt: skip
            look += [each for each in ours if each not in seen]
            seen |= {*ours}
            top = name.partition(".")[0]
            if top not in sys.stdlib_module_names and not (ROOT / top).is_dir():
                found[top] = str(path.relative_to(ROOT))
    return found


def asked_for(name: str) -> set[str]:
    """Return the packages that a requirements file names itself."""
    lines = (ROOT / f"{name}.in").read_text(encoding="utf-8").splitlines()
    return {re.split(r"[=<>~!]", line)[0].strip() for line in lines if re.match(r"\w", line)}


def pinned(name: str) -> dict[str, str]:
    """Return the version of each package that a lock file has."""
    text = (ROOT / f"{name}.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.M))


def test_verify_imports_what_it_asks_for_alone() -> None:
    # Ansible is there for a run.
    given = {name.lower() for name in asked_for("requirements-verify")} | {"ansible-core"}
    known = packages_distributions()
    found = foreign(PROGRAMS)
    assert {"pytest", "testinfra", "yaml", "jinja2"} <= set(found)
    missing = {
        name: who
        for name, who in found.items()
        if not given & {each.lower() for each in known.get(name, [])}
    }
    assert missing == {}


def test_programs_for_the_machine_import_nothing_that_it_may_lack() -> None:
    assert ON_MACHINE
    assert foreign(ON_MACHINE) == {}


def test_verify_collects_without_other_plugins() -> None:
    """No option of pyproject.toml, and no fixture, is another plugin's."""
    command = [sys.executable, "-m", "pytest", "-p", "testinfra.plugin", "tests/acceptance"]
    done = subprocess.run(
        [*command, "-q", "--collect-only", "-p", "no:cacheprovider"],
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""},
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ tests collected|\d+/\d+ tests collected", done.stdout)


def test_verify_and_chaos_install_no_more() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for verb in ("verify", "chaos"):
        assert re.search(rf"^{verb}: \$\(VENV\)/verify-ready ", makefile, re.M)


def test_lock_files_agree() -> None:
    run, verify, test = map(pinned, LOCKS)
    assert asked_for("requirements-verify") <= set(verify)
    assert verify.items() <= test.items()
    for name in run.keys() & (verify.keys() | test.keys()):
        assert {run[name]} == {each[name] for each in (verify, test) if name in each}


@pytest.mark.parametrize("name", LOCKS)
def test_lock_file_has_hashes_and_no_place(name: str) -> None:
    text = (ROOT / f"{name}.txt").read_text(encoding="utf-8")
    packages = re.split(r"^(?=[\w.-]+==)", text, flags=re.M)[1:]
    assert len(packages) == len(pinned(name)) > 0
    assert all("--hash=sha256:" in each for each in packages)
    assert not re.search(r"^\s*--(?!hash)|://", text, re.M)
