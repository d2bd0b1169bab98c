#!/usr/bin/python
"""Ansible module: ensure directories and text files, all in one execution."""

from __future__ import annotations

DOCUMENTATION = r"""
module: file_tree
short_description: Ensure directories and text files, all in one execution
description:
  - Creates the directories, then writes each file whose content differs, atomically.
    Missing parents are created.
  - Does for a whole tree what C(file) and C(copy) do for one path each. A module execution
    costs a third of a second and more, so that a tree of ten paths is ten times as fast.
options:
  directories:
    description: Directories to ensure.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: Absolute path., type: path, required: true}
      mode: {description: Octal mode as a string., type: raw, required: true}
      owner: {description: User name or uid., type: str}
      group: {description: Group name or gid., type: str}
  files:
    description: Text files to ensure.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: Absolute path., type: path, required: true}
      content: {description: The whole text., type: str}
      secret: {description: The whole text in place of C(content), shown nowhere., type: str}
      mode: {description: Octal mode as a string., type: raw, required: true}
      owner: {description: User name or uid., type: str}
      group: {description: Group name or gid., type: str}
      keep:
        description: Write the file only where there is none; what people edited stays.
        type: bool
        default: false
  absent:
    description: Absolute paths of files that there must not be.
    type: list
    elements: path
    default: []
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
"""

RETURN = r"""
paths:
  description: The paths that were created, written, removed, or given another owner or mode.
  returned: always
  type: list
  elements: str
"""

import os
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule


def ensure_attributes(module: AnsibleModule, entry: dict[str, Any]) -> bool:
    """Give an existing path its owner, group and mode; return whether that changed anything."""
    arguments = module.load_file_common_arguments(
        {key: entry[key] for key in ("path", "mode", "owner", "group")}
    )
    return module.set_fs_attributes_if_different(arguments, False)


def ensure_directory(module: AnsibleModule, entry: dict[str, Any]) -> bool:
    """Create the directory where it is missing; return whether anything changed."""
    path = Path(entry["path"])
    created = not path.is_dir()
    if created:
        if path.exists():
            module.fail_json(msg=f"{path} is not a directory: move it away, then run this again.")
        if module.check_mode:
            return True
        path.mkdir(parents=True)
    return ensure_attributes(module, entry) or created


def write_atomically(module: AnsibleModule, entry: dict[str, Any]) -> None:
    """Write the text beside its place and rename it there, never wider than its final mode."""
    target = Path(entry["path"])
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
            stream.write(entry["content"])
            stream.flush()
            os.fsync(stream.fileno())
        ensure_attributes(module, {**entry, "path": temporary})
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def ensure_file(module: AnsibleModule, entry: dict[str, Any]) -> dict[str, Any] | None:
    """Write the file where it differs; return a diff of what changed, or None."""
    path = Path(entry["path"])
    if path.is_dir():
        module.fail_json(msg=f"{path} is a directory: move it away, then run this again.")
    secret = entry["secret"] is not None
    if secret:
        entry = {**entry, "content": entry["secret"]}
    before = path.read_bytes() if path.is_file() else None
    same = before == entry["content"].encode()
    written = before is None or not (same or entry["keep"])
    if written and not module.check_mode:
        write_atomically(module, entry)
    if written and secret:
        return {"prepared": f"{path}: content\n"}
    if written:
        header = {"before_header": str(path), "after_header": str(path)}
        shown = (before or b"").decode(errors="replace")
        return {"before": shown, "after": entry["content"], **header}
    if ensure_attributes(module, entry):
        return {"prepared": f"{path}: owner or mode\n"}
    return None


def main() -> None:
    """Run the module."""
    attributes = {
        "path": {"type": "path", "required": True},
        "mode": {"type": "raw", "required": True},
        "owner": {"type": "str"},
        "group": {"type": "str"},
    }
    content = {
        "content": {"type": "str"},
        "secret": {"type": "str", "no_log": True},
        "keep": {"type": "bool", "default": False},
    }
    module = AnsibleModule(
        argument_spec={
            "directories": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": attributes,
            },
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": attributes | content,
                "required_one_of": [("content", "secret")],
                "mutually_exclusive": [("content", "secret")],
            },
            "absent": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    paths: list[str] = []
    diffs: list[dict[str, Any]] = []
    try:
        for directory in module.params["directories"]:
            if ensure_directory(module, directory):
                paths.append(directory["path"])
                diffs.append({"prepared": f"{directory['path']}/\n"})
        for entry in module.params["files"]:
            diff = ensure_file(module, entry)
            if diff is not None:
                paths.append(entry["path"])
                diffs.append(diff)
        for path in map(Path, module.params["absent"]):
            if path.is_file() or path.is_symlink():
                if not module.check_mode:
                    path.unlink()
                paths.append(str(path))
                diffs.append({"prepared": f"{path}: removed\n"})
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}", paths=paths)
    module.exit_json(changed=bool(paths), paths=paths, diff=diffs)


if __name__ == "__main__":
    main()
