"""What must not stand in any file: others' registries, machines' paths, secrets."""

from __future__ import annotations

import re

from .conftest import ROOT, project_files

# Put together here, so that this file does not hold them.
REGISTRIES = [
    ".".join(words)
    for words in (
        ("docker", "io/"), ("hub", "docker", "com"), ("ghcr", "io"), ("quay", "io"), ("gcr", "io"),
        ("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("galaxy", "ansible", "com"),
        ("deb", "debian", "org"), ("security", "debian", "org"), ("proxy", "golang", "org"),
    )
]  # fmt: skip
HOMES = re.compile(r"(?<![\w.])/(?:home|Users|work)/[a-z]")
SECRETS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s*\n?[A-Za-z0-9+/=]{20,}"
    r"|\b(?:AKIA|ghp_|gho_|glpat-|xox[bp]-)[A-Za-z0-9_-]{16,}"
    # A value that a generator made: long, and of capitals, small letters and digits.
    r"|(?:password|passwd|secret|token)\w*[\"']?\s*[:=]\s*[\"']?"
    r"(?=[\w-]*[a-z])(?=[\w-]*[A-Z])(?=[\w-]*[0-9])[A-Za-z0-9_-]{24,}",
    re.I,
)


def lines() -> list[tuple[str, str]]:
    """Return every line of text with where it stands."""
    found = []
    for path in project_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        name = str(path.relative_to(ROOT))
        found += [(f"{name}:{number}", line) for number, line in enumerate(text.splitlines(), 1)]
    return found


def test_no_package_registry_is_named() -> None:
    wrong = [where for where, line in lines() if any(name in line for name in REGISTRIES)]
    assert wrong == []


def test_no_path_of_somebodys_machine_is_named() -> None:
    assert [where for where, line in lines() if HOMES.search(line)] == []


def test_no_secret_is_written_down() -> None:
    allowed = "--hash=sha256:"
    assert [where for where, line in lines() if SECRETS.search(line) and allowed not in line] == []
