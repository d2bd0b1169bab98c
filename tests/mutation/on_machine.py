"""Change files of a rendered project: {directory, steps} in. Secrets do not leave the machine.

A step names a path below the directory, and one of: write (its new text), replace (a text, found
once, by another), mode, owner, create (a new file's text).
"""

import json
import os
import re
import sys
from pathlib import Path

request = json.loads(sys.argv[1])
folder = Path(request["directory"])


def with_secrets(text: str) -> str:
    """Return the text with the values of the secrets that it names."""
    return re.sub(
        r"\{secret (\w+)\}", lambda found: (folder / "secrets" / found[1]).read_text().strip(), text
    )


for step in request["steps"]:
    path = folder / step["path"]
    if "write" in step:
        # In place: the file keeps its owner, its mode and its mounts.
        path.write_text(with_secrets(step["write"]))
    elif "replace" in step:
        old, new = step["replace"]
        text = path.read_text()
        if text.count(old) != 1:
            sys.exit(f"{path}: {old!r} occurs {text.count(old)} times")
        path.write_text(text.replace(old, with_secrets(new)))
    elif "create" in step:
        with path.open("x") as file:
            file.write(with_secrets(step["create"]))
    else:
        was = path.stat()
        if step["mode"]:
            path.chmod(int(step["mode"], 8))
        if step["owner"]:
            os.chown(path, *map(int, step["owner"].split(":")))
        now = path.stat()
        if (was.st_mode, was.st_uid, was.st_gid) == (now.st_mode, now.st_uid, now.st_gid):
            sys.exit(f"{path} has that mode and owner already")
