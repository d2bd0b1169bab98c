#!/usr/bin/python
"""Ansible module: keep what was deployed, list it, bring its files back, forget the oldest."""

from __future__ import annotations

DOCUMENTATION = r"""
module: releases
short_description: Keep what was deployed, list it, bring its files back, forget the oldest
description:
  - A release is a directory with the project's files as they were and C(release.json), which says
    when, by whom and from which commit it was deployed, with which images, and what it changed.
    The symbolic link C(current) names the one that runs.
  - C(recorded) makes one of the files that are there, unless they are those of the current one;
    with O(release) it notes that this earlier one runs again. A failed one is kept, for its images
    and for people, and never becomes current.
  - C(restored) writes the files of O(release) back, once it has seen all of its images.
    C(listed) changes nothing, and in check mode C(recorded) does not either.
  - Beyond O(keep), the oldest are forgotten, with those of their images that no release of any
    project on this machine names and no container uses. The current one stays, and so does the one
    before it.
options:
  directory: {description: The project's directory., type: path, required: true}
  state:
    description: What to do.
    type: str
    choices: [recorded, restored, listed]
    default: listed
  release: {description: Id of a release; see O(state)., type: str, default: ""}
  files:
    description: The project's files, relative to the directory; else the current release's.
    type: list
    elements: str
    default: []
  services: {description: What Compose makes of them by service., type: dict, default: {}}
  changes: {description: What changed, lines by service., type: dict, default: {}}
  about:
    description: What else is to be kept, such as C(by), C(commit) and C(env).
    type: dict
    default: {}
  failed: {description: It did not become healthy., type: bool, default: false}
  keep: {description: How many to keep., type: int, default: 5}
attributes:
  check_mode: {support: full}
"""

RETURN = r"""
releases: {description: All of them without their services, the newest first., type: list}
current: {description: Id of the one that runs, empty before the first., type: str}
env: {description: The environment of that one., type: str}
previous: {description: Id of the one to go back to, empty where there is none., type: str}
removed_images: {description: References of images that were removed., type: list}
"""

import json
import os
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

RECORD = "release.json"


class ReleaseError(Exception):
    """One line about a release that cannot be used."""


def read_releases(folder: Path) -> list[dict[str, Any]]:
    """All whole releases, the newest first."""
    found = []
    for path in sorted(folder.glob(f"[0-9]*/{RECORD}"), reverse=True):
        found.append(json.loads(path.read_text(encoding="utf-8")))
    return found


def read_current(folder: Path) -> str:
    """The id of the release that runs, empty before the first."""
    link = folder / "current"
    return link.readlink().name if link.is_symlink() else ""


def write(path: Path, content: bytes, mode: int) -> None:
    """Write a file beside its place and rename it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as stream:
        os.fchmod(stream.fileno(), mode)
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def same_files(project: Path, release: Path, files: list[str]) -> bool:
    """Tell whether the project's files are those of the release."""
    return all(
        (release / name).exists() and (release / name).read_bytes() == (project / name).read_bytes()
        for name in files
    )


def point_at(folder: Path, release: str) -> None:
    """Have the link name the release that runs."""
    temporary = folder / ".current.new"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(release)
    temporary.replace(folder / "current")


def save(folder: Path, record: dict[str, Any]) -> None:
    """Write what is known of a release."""
    text = json.dumps(record, indent=2) + "\n"
    write(folder / record["id"] / RECORD, text.encode(), 0o640)


def record_new(project: Path, folder: Path, given: dict[str, Any], now: datetime) -> str:
    """Make a release of the project's files; return its id."""
    moment = now
    while (folder / (name := f"{moment:%Y%m%d-%H%M%S}")).exists():
        moment += timedelta(seconds=1)
    scratch = folder / f".{name}"
    for file in given["files"]:
        path = project / file
        write(scratch / file, path.read_bytes(), path.stat().st_mode & 0o777)
    event = {"at": now.isoformat(timespec="seconds"), **given["about"]}
    record = {
        "id": name,
        **event,
        "status": "failed" if given["failed"] else "deployed",
        "previous": read_current(folder),
        "images": {service: each["image"] for service, each in given["services"].items()},
        "changes": given["changes"],
        "files": given["files"],
        "services": given["services"],
        "deployed": [] if given["failed"] else [event],
    }
    write(scratch / RECORD, (json.dumps(record, indent=2) + "\n").encode(), 0o640)
    # Whole or not at all.
    scratch.replace(folder / name)
    return name


def remembered_images(project: Path, docker: list[str]) -> set[str]:
    """References that some release of any project on this machine names."""
    listed = [*docker, "ps", "--all", "--format"]
    label = '{{.Label "com.docker.compose.project.working_dir"}}'
    done = subprocess.run([*listed, label], capture_output=True, text=True, check=False)
    places = {project, *(Path(line) for line in done.stdout.splitlines() if line)}
    return {
        image
        for place in places
        for release in read_releases(place / "releases")
        for image in release["images"].values()
    }


def forget_oldest(project: Path, folder: Path, keep: int) -> list[str]:
    """Remove releases beyond the count, and images that nothing names any more; return these."""
    releases = read_releases(folder)
    current = read_current(folder)
    kept = {current, previous_of(releases, current)}
    for each in releases:
        if len(kept - {""}) < keep:
            kept.add(each["id"])
    gone = [each for each in releases if each["id"] not in kept]
    for each in gone:
        # First what makes it a release, so that no half of one is ever listed.
        (folder / each["id"] / RECORD).unlink()
        shutil.rmtree(folder / each["id"])
    unused = {image for each in gone for image in each["images"].values()}
    removed = []
    for image in sorted(unused - remembered_images(project, ["docker"])):
        # Without force: the engine keeps what a container uses.
        command = ["docker", "image", "rm", image]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            removed.append(image)
    return removed


def previous_of(releases: list[dict[str, Any]], current: str) -> str:
    """The release to go back to: what ran before the current one, or else the next older one."""
    good = [each for each in releases if each["status"] == "deployed"]
    ids = [each["id"] for each in good]
    wanted = next((each["previous"] for each in good if each["id"] == current), "")
    if wanted in ids:
        return wanted
    return next((each for each in ids if each < current), "")


def find(releases: list[dict[str, Any]], wanted: str) -> dict[str, Any]:
    """The release of that id; ReleaseError where there is none that ran."""
    good = [each for each in releases if each["status"] == "deployed"]
    for each in good:
        if each["id"] == wanted:
            return each
    known = ", ".join(each["id"] for each in good) or "none yet"
    raise ReleaseError(f"release is '{wanted}': give one of those that ran, {known}.")


def require_images(release: dict[str, Any]) -> None:
    """Raise ReleaseError unless the machine has all images of the release."""
    for image in sorted(set(release["images"].values())):
        command = ["docker", "image", "inspect", image]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            raise ReleaseError(
                f"release {release['id']} needs {image}, which is not on this machine any more:"
                f" check out commit {release['commit']} and type make up ENV={release['env']}."
            )


def run(given: dict[str, Any], *, check: bool) -> dict[str, Any]:
    """Do what was asked for; return the module's answer."""
    project = Path(given["directory"])
    folder = project / "releases"
    changed = False
    removed: list[str] = []
    now = datetime.now(UTC)
    if given["state"] == "restored":
        release = find(read_releases(folder), given["release"])
        kept = folder / release["id"]
        require_images(release)
        changed = not all((project / n).exists() for n in release["files"]) or not same_files(
            project, kept, release["files"]
        )
        for name in release["files"] if changed and not check else []:
            write(project / name, (kept / name).read_bytes(), (kept / name).stat().st_mode & 0o777)
    elif given["state"] == "recorded" and not check:
        folder.mkdir(mode=0o750, exist_ok=True)
        removed_half = [path for path in folder.glob("[0-9]*") if not (path / RECORD).exists()]
        for leftover in [*folder.glob(".[0-9]*"), *removed_half]:
            # Of a run that was killed while it wrote or removed one.
            shutil.rmtree(leftover)
        current = read_current(folder)
        name = given["release"]
        if not given["files"] and current:
            given = given | {"files": find(read_releases(folder), current)["files"]}
        if name and name != current:
            record = find(read_releases(folder), name)
            record["deployed"].append({"at": now.isoformat(timespec="seconds"), **given["about"]})
            save(folder, record)
            changed = True
        elif (
            not name
            and given["files"]
            and (
                given["failed"]
                or not current
                or not same_files(project, folder / current, given["files"])
            )
        ):
            name = record_new(project, folder, given, now)
            changed = True
        if changed and not given["failed"]:
            point_at(folder, name)
        if changed:
            removed = forget_oldest(project, folder, given["keep"])
    releases = read_releases(folder)
    current = read_current(folder)
    return {
        "changed": changed,
        "releases": [{k: v for k, v in each.items() if k != "services"} for each in releases],
        "current": current,
        "env": next((each["env"] for each in releases if each["id"] == current), ""),
        "previous": previous_of(releases, current),
        "removed_images": removed,
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "state": {
                "type": "str",
                "choices": ["recorded", "restored", "listed"],
                "default": "listed",
            },
            "release": {"type": "str", "default": ""},
            "files": {"type": "list", "elements": "str", "default": []},
            "services": {"type": "dict", "default": {}},
            "changes": {"type": "dict", "default": {}},
            "about": {"type": "dict", "default": {}},
            "failed": {"type": "bool", "default": False},
            "keep": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(module.params, check=module.check_mode))
    except ReleaseError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}")


if __name__ == "__main__":
    main()
