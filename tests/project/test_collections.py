"""requirements.yml names the collections in use, at the versions that the controller has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import ansible_collections

from .conftest import ROOT, playbook_files, read_yaml


def required() -> dict[str, str]:
    """Return the versions that requirements.yml asks for by collection."""
    listed = read_yaml(ROOT / "requirements.yml")["collections"]
    return {entry["name"]: entry["version"] for entry in listed}


def bundled(collection: str) -> str:
    """Return the version of the collection that the ansible package brought."""
    for top in ansible_collections.__path__:
        manifest = Path(top, *collection.split("."), "MANIFEST.json")
        if manifest.exists():
            about = json.loads(manifest.read_text(encoding="utf-8"))
            return about["collection_info"]["version"]
    return "none"


def used() -> set[str]:
    """Return the collections that the playbooks and roles take modules and filters from."""
    found = set()
    names = {
        f"{space.name}.{collection.name}"
        for top in ansible_collections.__path__
        for space in Path(top).iterdir()
        if space.is_dir()
        for collection in space.iterdir()
        if (collection / "MANIFEST.json").exists()
    }
    for path in playbook_files():
        text = path.read_text(encoding="utf-8")
        words = re.findall(r"\b([a-z_]+\.[a-z0-9_]+)\.[a-z0-9_]+\b", text)
        found |= {word for word in words if word in names}
    return found


def test_exactly_the_collections_in_use_are_required() -> None:
    assert set(required()) == used()


def test_required_versions_are_the_bundled_ones() -> None:
    assert required() == {name: bundled(name) for name in required()}
