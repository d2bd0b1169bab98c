"""A repository as one file, to be kept elsewhere, and back."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from engine import Refusal, say

if TYPE_CHECKING:
    from repository import Repository
    from stack import Stack


def pack(repository: Repository, target: Path) -> None:
    """Write the repository into a tar file that belongs to its directory's owner.

    Prints its SHA-256 and the newest backup's label. No backup comes or goes meanwhile; a segment
    of the log may come, and is in or not.
    """
    newest = repository.backups()[-1:]
    if not newest:
        raise Refusal(f"there is no backup in {repository.place}: make backup")
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    about = target.parent.stat()
    os.fchown(handle, about.st_uid, about.st_gid)
    with os.fdopen(handle, "wb") as stream, tarfile.open(fileobj=stream, mode="w") as archive:
        for path in sorted(repository.place.rglob("*")):
            # `latest` is a link for people; what is half written has a name of its own.
            if path.is_symlink() or not path.is_file() or path.name.endswith(".tmp"):
                continue
            archive.add(path, str(path.relative_to(repository.place.parent)), recursive=False)
    with target.open("rb") as stream:
        say(hashlib.file_digest(stream, "sha256").hexdigest())
    say(newest[0].label)


def unpack(stack: Stack, source: Path) -> None:
    """Unpack such a file beside the repositories, nowhere else, and remove it."""
    place = stack.backups / "from"
    owner = stack.backups.stat().st_uid
    if place.exists():
        shutil.rmtree(place)
    with source.open("rb") as stream, tarfile.open(fileobj=stream) as archive:
        source.unlink()
        for member in archive:
            name = PurePosixPath(member.name)
            content = archive.extractfile(member)
            if not member.isfile() or content is None or name.is_absolute() or ".." in name.parts:
                raise Refusal(f"{member.name} is in that copy, which is none of ours")
            path = place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as target:
                shutil.copyfileobj(content, target)
    for path in (place, *place.rglob("*")):
        os.chown(path, owner, owner)
        path.chmod(0o700 if path.is_dir() else 0o600)
    say(f"unpacked {', '.join(sorted(path.name for path in place.iterdir()))}")
