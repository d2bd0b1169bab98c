"""Print the project that the checkout in the working directory renders, with its images' tags.

Run in a checkout of any commit, by a path: it asks that checkout's own checks and roles. Argument:
env. Output: JSON with files (path below stack_dir to text) and directories.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible.plugins.loader import add_all_plugin_dirs
from ansible.template import Templar

from tests.templates.conftest import Combination, Renderer

if TYPE_CHECKING:
    from collections.abc import Iterator

ROLE = Path("roles/stack_images").resolve()
# What the renderer of the checks gives every image for a tag.
TAG = "0123456789ab"
FACT = "stack_images_references"


def found(node: Any, key: str) -> Iterator[Any]:
    """Yield every value that a key has, however deep."""
    children = node.items() if isinstance(node, dict) else enumerate(node)
    for name, child in children:
        if name == key:
            yield child
        elif isinstance(child, dict | list):
            yield from found(child, key)


def references(renderer: Renderer) -> dict[str, str]:
    """Return the reference of each image that would be built, as the role makes it."""
    add_all_plugin_dirs(str(ROLE))
    variables = {
        **renderer.read(ROLE / "defaults/main.yml"),
        **renderer.read(ROLE / "vars/main.yml"),
        "role_path": str(ROLE),
        "inventory_hostname": "localhost",
    }
    tasks = [renderer.read(path) for path in sorted(ROLE.glob("tasks/*.yml"))]
    (fact,) = found([variables, *tasks], FACT)
    return dict(Templar(loader=renderer.loader, variables=variables).template(fact))


def main() -> None:
    """Render, and print it."""
    renderer = Renderer()
    stack = renderer.render(Combination(sys.argv[1]))
    images = references(renderer)
    files = {name: text for name, (text, _) in stack.files.items()}
    for service, reference in images.items():
        untagged = f"{reference.rpartition(':')[0]}:{TAG}"
        assert any(untagged in text for text in files.values()), f"{service} has no {untagged}"
        files = {name: text.replace(untagged, reference) for name, text in files.items()}
    print(json.dumps({"files": files, "directories": sorted(stack.directories)}))


if __name__ == "__main__":
    main()
