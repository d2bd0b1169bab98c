"""Runs of site.yml that have to be refused, and a look at what they must not have altered.

They need root and a Docker Engine; the stack that they name is never brought up.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..playbook import command, docker, run_playbook

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).parents[2]
INVENTORY = Path(__file__).parent / "inventory.yml"
PROJECT = "stackyard-refusals"
STACK_DIR = Path("/opt") / PROJECT
LONGEST_RUN_SECONDS = 240.0

# What a message shows where its template failed, or where data was printed raw.
ARTEFACTS = re.compile(
    r"\{\{|\{%|undefined|Traceback|<class|object has no|None\b|  |\n|\\n|\[\{|'\{'"
)


@dataclass(frozen=True)
class Case:
    """Bad inputs: what is given to ansible-playbook, and what each one's only line has to hold."""

    name: str
    arguments: Sequence[str]
    says: Sequence[Sequence[str]]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Run:
    """A finished ansible-playbook."""

    code: int
    output: str

    def errors(self) -> list[str]:
        """Return its error lines, without what Ansible puts in front."""
        # A message of two lines is found here too, and has its end in a place of its own.
        found = re.findall(
            r"^\[ERROR\]: (.*?)(?=^Origin: |^\s*$|^\w+: \[)", self.output, re.M | re.S
        )
        return [
            re.sub(r"^(Task failed: )?(Action failed: |Module failed: )?", "", text).rstrip("\n")
            for text in found
        ]

    def assert_refused(self, *lines: Sequence[str]) -> None:
        """Fail unless it ended and changed nothing, and wrote just these lines.

        Each line is given by the texts that it has to hold, in the order of the lines.
        """
        assert self.code != 0, self.output
        errors = self.errors()
        assert len(errors) == len(lines), "\n".join(errors) or self.output
        for error, texts in zip(errors, lines, strict=True):
            missing = [text for text in texts if text not in error]
            assert not missing, f"{missing} not in: {error}"
            assert not ARTEFACTS.search(error), error
        changes = re.findall(r"changed=(\d+)", self.output)
        assert changes, self.output
        assert set(changes) == {"0"}, self.output


def play(
    *arguments: str,
    inventory: Path = INVENTORY,
    before: Sequence[str] = (),
    tags: str = "always",
    environment: Mapping[str, str] | None = None,
) -> Run:
    """Run site.yml, `before` standing before the command; raise TimeoutExpired if it hangs.

    With the tag always, a run that is not refused ends after preflight: a defect that a test
    is to find must not install or restart anything on the machine that the tests run on.
    """
    line = command(inventory, "site.yml", f"--tags={tags}", *arguments)
    run = run_playbook([*before, *line], seconds=LONGEST_RUN_SECONDS, environment=environment)
    return Run(*run)


def describe(path: Path) -> tuple[object, ...]:
    """Return what would differ if somebody had touched the path."""
    about = path.lstat()
    content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    return (str(path), about.st_mode, about.st_uid, about.st_gid, about.st_mtime_ns, content)


def snapshot() -> dict[str, object]:
    """Return what no refused run may alter, of the stack that the tests name and of the engine."""
    mine = f"label=com.docker.compose.project={PROJECT}"
    return {
        "files": [
            describe(path)
            for top in (STACK_DIR, Path("/etc/docker"))
            if top.exists()
            for path in [top, *sorted(top.rglob("*"))]
        ],
        "containers": docker("ps", "--all", "--filter", mine, "--format", "{{.ID}} {{.State}}"),
        "volumes": docker("volume", "ls", "--quiet", "--filter", f"name={PROJECT}"),
        "networks": docker("network", "ls", "--quiet", "--filter", f"name={PROJECT}"),
    }


@pytest.fixture
def nothing_altered(clean: None) -> Iterator[None]:  # noqa: ARG001 - for its order alone
    """Compare the machine with what it was before the test."""
    before = snapshot()
    yield
    assert snapshot() == before


@pytest.fixture(scope="session", autouse=True)
def _root_and_engine() -> None:
    if os.geteuid() != 0 or shutil.which("docker") is None:
        pytest.fail("these runs need root and a Docker Engine: sudo make test", pytrace=False)


@pytest.fixture
def clean() -> Iterator[None]:
    """Leave nothing of the stack that the tests name."""
    yield
    shutil.rmtree(STACK_DIR, ignore_errors=True)


@pytest.fixture(scope="session")
def runs(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Run]]]:
    """Start the runs of all selected cases, a core each: most of a run is waiting for Python."""
    cases = {
        item.callspec.params["case"].name: item.callspec.params["case"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and "case" in getattr(item, "fixturenames", ())
    }
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        yield {name: pool.submit(play, *case.arguments) for name, case in cases.items()}
        pool.shutdown(cancel_futures=True)


def variables(**values: object) -> list[str]:
    """Return -e arguments: text as name=value, anything else as JSON."""
    return [
        argument
        for name, value in values.items()
        for argument in (
            "-e",
            f"{name}={value}" if isinstance(value, str) else json.dumps({name: value}),
        )
    ]
