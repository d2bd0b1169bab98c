"""Ansible lookup: the files of an image's build context."""

from __future__ import annotations

DOCUMENTATION = r"""
name: build_context
short_description: The files of an image's build context
description:
  - Reads every file below a directory on the controller, byte-compiled Python left out.
  - The result is what a build depends on, and what is sent to the build host, so a hash of it
    names the image.
options:
  _terms:
    description: Directories on the controller.
    required: true
"""

RETURN = r"""
_list:
  description: For each directory, its files in order; each path begins with the directory's name.
  type: list
  elements: list
"""

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase


def read_context(directory: Path) -> list[dict[str, str]]:
    """Return path (from the directory's parent), content (UTF-8 text) and mode of each file.

    Of the mode only the executable bit counts: a checkout's umask must not change an image.
    """
    return [
        {
            "path": str(path.relative_to(directory.parent)),
            "content": path.read_text(encoding="utf-8"),
            "mode": "0755" if path.stat().st_mode & 0o100 else "0644",
        }
        for path in sorted(directory.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]


class LookupModule(LookupBase):
    """Entry point of the lookup."""

    def run(self, terms: list[str], variables: Any = None, **kwargs: Any) -> list[Any]:
        """Return one list of files a directory; raise AnsibleLookupError where there is none."""
        self.set_options(var_options=variables, direct=kwargs)
        for term in terms:
            if not Path(term).is_dir():
                raise AnsibleLookupError(f"{term} is not a directory with a build context.")
        return [read_context(Path(term)) for term in terms]
