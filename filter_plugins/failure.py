"""The filter reason: why a task failed, in one line, from its result."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# What Ansible puts in front.
PREFIX = re.compile(r"^((Task|Action|Module) failed: |Failed to connect to the host via ssh: )+")
# Messages that leave the reason to the output.
EMPTY = (
    "non-zero return code",
    "Module result",
    "MODULE FAILURE",
    "Unknown error",
    "unknown error",
)


def load_root_cause() -> Callable[[str, str], str]:
    """Return what modules find a cause with: Ansible lets no plugin import it by its name."""
    path = Path(__file__).resolve().parents[1] / "module_utils" / "root_cause.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.root_cause  # type: ignore[no-any-return]


root_cause = load_root_cause()
LONGEST_ANSWER = 100


def reason(result: Mapping[str, Any], task: str = "the task") -> str:
    """Return in one line why a task failed: its message, or what its command or module printed."""
    text = str(result.get("msg") or result.get("reason") or "")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # ssh says last why it ended.
    line = PREFIX.sub("", lines[-1 if result.get("unreachable") else 0]) if lines else ""
    code = result.get("rc")
    if line.startswith("Error executing command") and isinstance(code, int):
        words = result.get("cmd") or [task]
        return f"{words.split()[0] if isinstance(words, str) else words[0]}: {os.strerror(code)}"
    if line and not line.startswith(EMPTY):
        return line
    # Of a module that broke, Python's last line is the exception.
    broken = str(result.get("module_stderr") or result.get("module_stdout") or "").strip()
    printed = str(result.get("stderr") or result.get("stdout") or "").strip()
    details = broken.splitlines()[-1].strip() if broken else root_cause(printed, "")
    if not line and result.get("attempts"):
        # Nothing failed, and what it waited for did not come.
        last = f", and the last one said {details}" if 0 < len(printed) < LONGEST_ANSWER else ""
        return f"{task}: not so after {result['attempts']} attempts{last}"
    if details:
        return f"{line.rstrip('.') or task}: {details}"
    if isinstance(code, int) and code:
        return f"{task}: " + (f"ended by signal {-code}" if code < 0 else f"exit status {code}")
    return line or "for no known reason"


class FilterModule:
    """What Ansible looks for in this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by their names."""
        return {"reason": reason}
