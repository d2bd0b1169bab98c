#!/usr/bin/python
"""Ansible module: take a password from one value to the next while it is in use, step by step."""

from __future__ import annotations

DOCUMENTATION = r"""
module: secret_rotation
short_description: Take passwords from one value to the next while they are in use, step by step
description:
  - "Each step can be repeated, so a rotation that was killed is finished by doing all of them
    again: C(prepared) chooses the next value and keeps it beside the files; C(announced) writes
    both values where clients read them; C(accepted) has the servers take the new one; C(settled)
    leaves the new one alone in all files and has the servers refuse the old one; C(done) forgets
    that there was a rotation."
  - At each moment some value in a client's file is one that its server takes.
  - Files are changed in place. A container has its file mounted; a renamed one would be another.
  - Neither the result nor an error ever holds a value; programs get them on their standard input.
options:
  directory: {description: Where the secrets are., type: path, required: true}
  step:
    description: Which step to take.
    type: str
    choices: [prepared, announced, accepted, settled, done]
    required: true
  secrets:
    description: What to rotate, as C(secret_files) has it, and how.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: What messages call it., type: str, required: true}
      value: {description: The next value; a random one without it., type: str}
      files: {description: One file a reader., type: list, elements: dict, required: true}
      both:
        description: By file name, the text that stands for C({value}) in its template while both
          values hold, with C({old}) and C({new}). Files without hold one at a time.
        type: dict
        default: {}
      takes:
        description: How the server is told. C(command) gets C(input), where C({old}) and C({new})
          stand for the values with the characters of C(escape) replaced; what it prints has to
          match the regular expression C(answer).
        type: dict
        required: true
attributes:
  check_mode: {support: none}
"""

RETURN = r"""
secrets: {description: Names of the secrets for which the step had something to do., type: list}
"""

import os
import re
import secrets
import string
import subprocess
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.root_cause import root_cause

PASSWORD_BYTES = 32
MINIMUM_PASSWORD_LENGTH = 12
PRINTABLE = set(string.ascii_letters + string.digits + string.punctuation)
SECONDS = 30


class RotationError(Exception):
    """One line about what keeps a password from being rotated; never its value."""


def overwrite(path: Path, text: str) -> bool:
    """Give a file this text, in place; return whether that changed it.

    Where the text is a line, and so far the last of them, it is there whole at each moment: it is
    written behind the others first.
    """
    before = path.read_text(encoding="utf-8")
    if before == text:
        return False
    handle = os.open(path, os.O_WRONLY)
    try:
        data = text.encode()
        if before.endswith(text):
            os.pwrite(handle, data, len(before.encode()))
            os.fsync(handle)
        os.pwrite(handle, data, 0)
        os.fsync(handle)
        os.ftruncate(handle, len(data))
        os.fsync(handle)
    finally:
        os.close(handle)
    return True


class Rotation:
    """One secret on its way to the next value."""

    def __init__(self, directory: Path, secret: dict[str, Any]) -> None:
        """Take the directory and one entry of the module's secrets."""
        self.secret = secret
        self.name = secret["name"]
        self.paths = {directory / entry["name"]: entry for entry in secret["files"]}
        self.kept = directory / f"{self.name}.next"

    def values(self) -> tuple[str, str]:
        """The old value and the new one; the same where the old one is nowhere any more."""
        if not self.kept.exists():
            raise RotationError(f"{self.kept} is missing: begin again, make rotate-secrets.")
        old, new = self.kept.read_text(encoding="utf-8").splitlines()
        return old, new

    def choose(self) -> tuple[str, str] | None:
        """The value in use and the next one; None where a rotation cut short has chosen them."""
        if self.kept.exists():
            return None
        first = next(path for path, entry in self.paths.items() if "template" not in entry)
        if not first.exists():
            raise RotationError(f"{first} is missing: type make up first.")
        old = first.read_text(encoding="utf-8").rstrip("\n")
        given = self.secret.get("value")
        new = given.strip("\n") if given else secrets.token_urlsafe(PASSWORD_BYTES)
        if new == old:
            raise RotationError(
                f"The value given for {self.name} is the one in use: give another one, or none."
            )
        if len(new) < MINIMUM_PASSWORD_LENGTH or not set(new) <= PRINTABLE:
            raise RotationError(
                f"The value given for {self.name} has {len(new)} characters: give"
                f" {MINIMUM_PASSWORD_LENGTH} or more of printable ASCII, without a space."
            )
        return old, new

    def keep(self, old: str, new: str) -> None:
        """Write down both, for root alone, until the rotation is done."""
        temporary = self.kept.with_name(f".{self.kept.name}")
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o400)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(f"{old}\n{new}\n")
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(self.kept)

    def write_both(self, *, servers: bool) -> bool:
        """Write both values to the files that can hold both: those of clients, or of servers."""
        old, new = self.values()
        changed = False
        for path, entry in self.paths.items():
            both = self.secret["both"].get(entry["name"])
            if both and ("template" in entry) == servers:
                both = both.replace("{old}", old).replace("{new}", new)
                text = entry.get("template", "{value}").replace("{value}", both) + "\n"
                if path.read_text(encoding="utf-8") not in (text, f"{new}\n"):
                    changed = overwrite(path, text) or changed
        return changed

    def announced(self) -> bool:
        """Have clients know both."""
        return self.write_both(servers=False)

    def accepted(self) -> bool:
        """Have the server take the new one; the old one too, where it can take two."""
        self.write_both(servers=True)
        return self.tell()

    def settled(self) -> bool:
        """Leave the new one alone, first with the clients, and have the server read that."""
        _, new = self.values()
        changed = False
        for path, entry in sorted(self.paths.items(), key=lambda item: "template" in item[1]):
            text = entry.get("template", "{value}").replace("{value}", new) + "\n"
            changed = overwrite(path, text) or changed
        return self.tell() or changed

    def done(self) -> bool:
        """Forget the old value."""
        there = self.kept.exists()
        self.kept.unlink(missing_ok=True)
        return there

    def tell(self) -> bool:
        """Have the server know; RotationError with the cause where it does not."""
        takes = self.secret["takes"]
        old, new = self.values()
        for plain, escaped in takes["escape"].items():
            old, new = old.replace(plain, escaped), new.replace(plain, escaped)
        asked = takes["input"].replace("{old}", old).replace("{new}", new)
        done = subprocess.run(
            takes["command"], input=asked, capture_output=True, text=True, check=False,
            timeout=SECONDS,
        )  # fmt: skip
        if done.returncode != 0 or not re.search(takes["answer"], done.stdout):
            # Without the values first: a part of one that is cut off would be told.
            said = (done.stderr or done.stdout).replace(old, "***").replace(new, "***")
            cause = root_cause(said, "it says nothing")
            raise RotationError(f"The server does not take the new {self.name}: {cause}")
        return True


def main() -> None:
    """Run the module."""
    steps = ["prepared", "announced", "accepted", "settled", "done"]
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "step": {"type": "str", "choices": steps, "required": True},
            "secrets": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "no_log": False,
                "options": {
                    "name": {"type": "str", "required": True},
                    "value": {"type": "str", "no_log": True},
                    "files": {"type": "list", "elements": "dict", "required": True},
                    "both": {"type": "dict", "default": {}},
                    "takes": {"type": "dict", "required": True},
                    # Of secret_files, and of no use here.
                    "used_by": {"type": "list"},
                },
            },
        },
    )
    directory, step = Path(module.params["directory"]), module.params["step"]
    rotations = [Rotation(directory, secret) for secret in module.params["secrets"]]
    changed = []
    try:
        if step == "prepared":
            # All are checked before any is begun.
            chosen = {each: values for each in rotations if (values := each.choose())}
            for each, values in chosen.items():
                each.keep(*values)
            changed = [each.name for each in chosen]
        else:
            changed = [each.name for each in rotations if getattr(each, step)()]
    except RotationError as error:
        module.fail_json(msg=str(error))
    except subprocess.TimeoutExpired as error:
        module.fail_json(msg=f"{' '.join(error.cmd)} gives no answer within {SECONDS} s.")
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}")
    module.exit_json(changed=bool(changed), secrets=changed)


if __name__ == "__main__":
    main()
