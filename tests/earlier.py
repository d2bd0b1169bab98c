"""The project as an earlier commit had it, for the checks that take its stacks over.

TAKEOVER_COMMIT=fab0b71 make molecule SCENARIO=takeover takes another commit than the default.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACE = ROOT / "build/takeover"
# The newest commit whose stacks people are known to have.
DEFAULT_COMMIT = "91246332b42f52abcd120af055b39b3839708ed9"


class MissingCommitError(Exception):
    """One line: which commit this repository has not, and what to type."""


def checkout() -> Path:
    """Return the folder with the earlier commit, a clone in build/; make it where there is none.

    Raise MissingCommitError where the repository does not have the commit.
    """
    commit = _full_name(os.environ.get("TAKEOVER_COMMIT") or DEFAULT_COMMIT)
    folder = PLACE / commit
    PLACE.mkdir(parents=True, exist_ok=True)
    # Two checks may start at the same moment.
    with (PLACE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            scratch = PLACE / f".{commit}"
            shutil.rmtree(scratch, ignore_errors=True)
            # A repository of its own: what it deploys is recorded with its own commit.
            _git("clone", "--quiet", "--shared", "--no-checkout", str(ROOT), str(scratch))
            _git("-C", str(scratch), "checkout", "--quiet", "--detach", commit)
            scratch.rename(folder)
    return folder


def _full_name(commit: str) -> str:
    try:
        return _git("-C", str(ROOT), "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines() or ["it is not in the history"]
        raise MissingCommitError(
            f"This checkout has no commit {commit} to take a stack over from ({said[0]}):"
            " type git fetch --unshallow, then run this again."
        ) from None


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], capture_output=True, text=True, check=True
    ).stdout.strip()
