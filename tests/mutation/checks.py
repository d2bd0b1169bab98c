"""Runs of pytest, and what they say about a mutation."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from .mutation import DoesNotApply, Mutation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

ROOT = Path(__file__).parents[2]
# Not those that take a run of a program, the project's history, or the mutations themselves.
NOT_STATIC = ["tests/templates/test_takeover.py", "tests/templates/test_mutations_apply.py"]
STATIC = [
    *("tests/templates", "tests/project", "-m", "not slow", "-p", "tests.mutation.rendered"),
    *(f"--ignore={each}" for each in NOT_STATIC),
]
SECONDS = 300
# Of pytest, and of our plugin.
PASSED, FAILED, NOT_APPLIED = 0, 1, 3


class CannotTell(Exception):  # noqa: N818
    """Something else went wrong than a check, so nothing was learnt."""


@dataclass
class Verdict:
    """What the checks of one kind said about a mutation."""

    # killed; refused, by Compose; survived; broken: checks could not start; inapplicable.
    outcome: str
    # Which check noticed, and the first line of what it said.
    check: str = ""
    message: str = ""
    seconds: float = 0

    @property
    def noticed(self) -> bool:
        """Whether somebody would have been told."""
        return self.outcome in ("killed", "refused")

    def __str__(self) -> str:
        return {
            "killed": self.check,
            "refused": "refused by Compose",
            "survived": "SURVIVED",
            "broken": f"NO CHECK FAILED, and {self.check} could not start",
            "inapplicable": f"DOES NOT APPLY: {self.message}",
        }[self.outcome]


def _run(arguments: Sequence[str], folder: Path) -> Iterator[tuple[str, str, str]]:
    """Yield each check that failed or could not start: which of both, its name, its message."""
    with tempfile.NamedTemporaryFile(suffix=".xml") as report:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
            + [f"--junitxml={report.name}", *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        if done.returncode == NOT_APPLIED:
            raise DoesNotApply(done.stdout.splitlines()[-1])
        if done.returncode not in (PASSED, FAILED):
            raise CannotTell(f"pytest ended with {done.returncode}:\n{done.stdout[-2000:]}")
        for case in ElementTree.parse(report.name).iter("testcase"):  # noqa: S314 - our own
            name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
            for kind in ("failure", "error"):
                found = case.find(kind)
                if found is not None:
                    message = (found.get("message") or "").strip().partition("\n")[0]
                    yield kind, name, message


def failing(arguments: Sequence[str], folder: Path = ROOT) -> list[str]:
    """Return the checks that do not pass, with what they say."""
    return [f"{name}: {message}" for _, name, message in _run(arguments, folder)]


def judge(arguments: Sequence[str], folder: Path = ROOT) -> Verdict:
    """Run the checks up to the first that fails, and past those that cannot start."""
    start = time.monotonic()
    found = list(_run(["-x", *arguments], folder))
    if found and found[0][0] == "error":
        found = list(_run(arguments, folder))
    # A check that cannot start has seen a broken stack, not a broken promise.
    found.sort(key=lambda each: each[0] == "error")
    seconds = time.monotonic() - start
    if not found:
        return Verdict("survived", seconds=seconds)
    kind, name, message = found[0]
    return Verdict("killed" if kind == "failure" else "broken", name, message, seconds)


class Copy:
    """A copy of the repository's files, to break, for the checks that need no machine."""

    def __enter__(self) -> Copy:
        """Copy what is, or could be, committed."""
        self._folder = tempfile.TemporaryDirectory(prefix="stackyard-mutation-")
        self.path = Path(self._folder.name)
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for name in listed.split("\0"):
            if name and (ROOT / name).is_file():
                (self.path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.path / name)
        # Some checks ask git what the project's files are.
        subprocess.run(["git", "init", "--quiet"], cwd=self.path, check=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove it."""
        self._folder.cleanup()

    def failing(self) -> list[str]:
        """Return the checks that do not pass without a mutation."""
        return failing(STATIC, self.path)

    def judge(self, mutation: Mutation) -> Verdict:
        """Break the copy, run the checks, mend the copy."""
        kept = {}
        try:
            for change in mutation.sources:
                path = self.path / change.repository
                text = path.read_text(encoding="utf-8")
                kept.setdefault(path, text)
                path.write_text(change.applied(text), encoding="utf-8")
            return judge([*STATIC, "--mutation", mutation.name], self.path)
        finally:
            for path, text in kept.items():
                path.write_text(text, encoding="utf-8")
