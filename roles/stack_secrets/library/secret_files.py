#!/usr/bin/python
"""Ansible module: create secrets on the machine that uses them, and keep their files right."""

from __future__ import annotations

DOCUMENTATION = r"""
module: secret_files
short_description: Create secrets on the machine that uses them, and keep their files right
description:
  - Writes one file per secret and reader. A value is made on this machine, once, or given.
  - Neither the result nor an error ever holds a value.
  - A file that exists is never replaced by another value; what is wrong with it is an error.
    Every file ends with a newline, so that one that was cut short can be told.
options:
  directory:
    description: Where the files are; created, mode 0700.
    type: path
    required: true
  secrets:
    description: The secrets.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: What messages call it., type: str, required: true}
      value:
        description: Use this value instead of making one.
        type: str
      kind:
        description: A password is 43 random URL-safe characters, 256 bits. A certificate is a
          self-signed one with its P-256 key, in PEM.
        type: str
        choices: [password, certificate]
        default: password
      subjects:
        description: Host names and addresses that a certificate is made for.
        type: list
        elements: str
        default: [localhost]
      used_by:
        description: Files that exist once the value was put to use. A missing secret is then an
          error, since a new value would not fit.
        type: list
        elements: path
        default: []
      files:
        description: One file a reader. The first one holds the value alone.
        type: list
        elements: dict
        required: true
        suboptions:
          name: {description: File name., type: str, required: true}
          owner: {description: The uid that reads it., type: int, required: true}
          template:
            description: Text around the value, which stands for C({value}).
            type: str
            default: "{value}"
attributes:
  check_mode: {support: full}
"""

RETURN = r"""
paths:
  description: The files that were written, or given another owner or mode.
  returned: always
  type: list
  elements: str
missing_program:
  description: The program without which nothing was done; empty where all was.
  returned: always
  type: str
"""

import ipaddress
import os
import secrets
import shutil
import string
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.root_cause import root_cause

PASSWORD_BYTES = 32
# Shorter is a typing mistake or a file cut short, whoever chose it.
MINIMUM_PASSWORD_LENGTH = 12
CERTIFICATE_DAYS = 3650
PRINTABLE = set(string.ascii_letters + string.digits + string.punctuation)


class SecretError(Exception):
    """One line about a secret that is wrong; never its value."""


class MissingProgram(Exception):
    """The name of a program that making a value takes."""


def check_value(name: str, kind: str, value: str, where: str) -> None:
    """Raise SecretError unless the value can serve."""
    if kind == "certificate":
        if "BEGIN CERTIFICATE" not in value or "PRIVATE KEY" not in value:
            raise SecretError(f"{where} lacks a certificate or its key, both in PEM.")
        return
    if len(value) < MINIMUM_PASSWORD_LENGTH:
        raise SecretError(
            f"{where} has {len(value)} characters; {name} takes {MINIMUM_PASSWORD_LENGTH} or more."
        )
    if not set(value) <= PRINTABLE:
        raise SecretError(f"{where} holds a space or a character outside printable ASCII.")


def make_certificate(module: AnsibleModule, subjects: list[str]) -> str:
    """Return a self-signed certificate and its key in PEM; the key never touches another file."""
    if shutil.which("openssl") is None:
        raise MissingProgram("openssl")
    names = []
    for subject in dict.fromkeys(subjects):
        try:
            names.append(f"IP:{ipaddress.ip_address(subject)}")
        except ValueError:
            names.append(f"DNS:{subject}")
    command = [
        *("openssl", "req", "-x509", "-nodes", "-days", str(CERTIFICATE_DAYS)),
        *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-subj", f"/CN={subjects[0][:64]}", "-addext", f"subjectAltName={','.join(names)}"),
        *("-keyout", "-", "-out", "-"),
    ]
    code, output, error = module.run_command(command)
    if code != 0:
        cause = root_cause(error, f"exit status {code}")
        raise SecretError(f"openssl cannot make a certificate: {cause}")
    return output.strip()


def read_file(path: Path) -> str | None:
    """Return the text without its closing newline, None where there is no file.

    Raises SecretError where the file is empty or was cut short.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        text = None
    mend = "Restore it from a copy; it is not replaced, since servers were set up with its value."
    if text is None:
        raise SecretError(f"{path} is no text. {mend}")
    if not text.strip():
        raise SecretError(f"{path} is empty. {mend}")
    if not text.endswith("\n"):
        raise SecretError(f"{path} is cut short: it does not end with a newline. {mend}")
    return text[:-1]


class SecretFiles:
    """The files of one secret."""

    def __init__(self, module: AnsibleModule, directory: Path, secret: dict[str, Any]) -> None:
        """Take the module, the directory and one entry of the module's secrets."""
        self.module = module
        self.directory = directory
        self.secret = secret

    def value(self) -> str:
        """Return the value: the one in the files, else the given one, else a new one."""
        name, kind, given = (self.secret[key] for key in ("name", "kind", "value"))
        if (self.directory / f"{name}.next").exists():
            raise SecretError(
                f"A rotation of {name} was begun and is not finished: type make rotate-secrets."
            )
        if given is not None:
            given = given.strip("\n")
            check_value(name, kind, given, f"The value given for {name}")
        found = {
            path: text
            for path in (
                self.directory / entry["name"]
                for entry in self.secret["files"]
                if entry["template"] == "{value}"
            )
            if (text := read_file(path)) is not None
        }
        for path, text in found.items():
            check_value(name, kind, text, str(path))
            if given is not None and text != given:
                raise SecretError(
                    f"{path} differs from the value given for {name}, and what uses it was set up"
                    " with the file's. Give that value or none, or change it: make rotate-secrets."
                )
        if len(set(found.values())) > 1:
            raise SecretError(f"{' and '.join(map(str, found))} differ: restore the right value.")
        if found:
            return next(iter(found.values()))
        self.refuse_if_used()
        if given is not None:
            return given
        if kind == "certificate":
            return make_certificate(self.module, self.secret["subjects"])
        return secrets.token_urlsafe(PASSWORD_BYTES)

    def refuse_if_used(self) -> None:
        """Raise SecretError where something that exists was set up with the missing value."""
        for path in self.secret["used_by"]:
            if Path(path).exists():
                missing = self.directory / self.secret["files"][0]["name"]
                raise SecretError(
                    f"{missing} is missing, and {path} was set up with it. Restore it from a copy,"
                    " or remove the data too: make destroy."
                )

    def ensure(self, value: str) -> list[str]:
        """Write what is missing, mend owners and modes; return the paths that changed."""
        changed = []
        for entry in self.secret["files"]:
            path = self.directory / entry["name"]
            text = entry["template"].replace("{value}", value)
            written = read_file(path) != text
            if written and not self.module.check_mode:
                write_atomically(path, text + "\n")
            if path.exists() and self.mend(path, entry["owner"]):
                written = True
            if written:
                changed.append(str(path))
        return changed

    def mend(self, path: Path, owner: int) -> bool:
        """Give the file its owner and mode 0400; return whether that changed anything."""
        arguments = self.module.load_file_common_arguments(
            {"path": str(path), "owner": str(owner), "group": str(owner), "mode": "0400"}
        )
        return self.module.set_fs_attributes_if_different(arguments, False)


def write_atomically(path: Path, text: str) -> None:
    """Write the text beside its place, readable by root alone, and rename it there."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def ensure_directory(module: AnsibleModule, directory: Path) -> bool:
    """Create the directory where it is missing, for root alone; return whether that changed."""
    created = not directory.is_dir()
    if created and module.check_mode:
        return True
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for leftover in directory.glob(".*"):
        # Of a run that was killed between writing a file and renaming it.
        if not module.check_mode:
            leftover.unlink()
    arguments = module.load_file_common_arguments(
        {"path": str(directory), "owner": "root", "group": "root", "mode": "0700"}
    )
    return module.set_fs_attributes_if_different(arguments, False) or created


def main() -> None:
    """Run the module."""
    file_options = {
        "name": {"type": "str", "required": True},
        "owner": {"type": "int", "required": True},
        "template": {"type": "str", "default": "{value}"},
    }
    secret_options = {
        "name": {"type": "str", "required": True},
        "value": {"type": "str", "no_log": True},
        "kind": {"type": "str", "choices": ["password", "certificate"], "default": "password"},
        "subjects": {"type": "list", "elements": "str", "default": ["localhost"]},
        "used_by": {"type": "list", "elements": "path", "default": []},
        "files": {"type": "list", "elements": "dict", "required": True, "options": file_options},
    }
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "secrets": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": secret_options,
                "no_log": False,
            },
        },
        supports_check_mode=True,
    )
    directory = Path(module.params["directory"])
    all_files = [SecretFiles(module, directory, entry) for entry in module.params["secrets"]]
    paths = []
    try:
        paths += [str(directory)] if ensure_directory(module, directory) else []
        # All are checked before any is written.
        values = [files.value() for files in all_files]
        for files, value in zip(all_files, values, strict=True):
            paths += files.ensure(value)
    except MissingProgram as program:
        module.exit_json(changed=bool(paths), paths=paths, missing_program=str(program))
    except SecretError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}")
    module.exit_json(changed=bool(paths), paths=paths, missing_program="")


if __name__ == "__main__":
    main()
