#!/usr/bin/python
"""Ansible module: have a registry's store hold images of this machine's engine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_offer
short_description: Have a registry's store hold images of this machine's engine
description:
  - Pushes those that the store lacks, or has another build of, into a registry that listens on
    loopback while this lasts. The engine sends only layers that the store lacks.
  - Whoever comes while another run pushes waits for it.
  - After a push the store keeps, of each image, the newest two tags and what was offered within a
    day; the layers that only others had are removed.
options:
  directory:
    description: The store. Its user alone may write there; everybody may read.
    type: path
    required: true
  images:
    description: References of images that the engine has.
    type: list
    elements: str
    required: true
  prefix:
    description: First part of their names in the registry.
    type: str
    required: true
attributes:
  check_mode: {support: none}
"""

RETURN = r"""
digests: {description: Digest of the manifest of each image by its reference., type: dict}
pushed: {description: References that the store lacked., type: list, elements: str}
removed: {description: References that the store no longer has., type: list, elements: str}
"""

import fcntl
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.root_cause import root_cause

# Of each image: what machines run, and what they come from.
KEPT = 2
# What is offered now may be on its way to somebody.
KEPT_SECONDS = 24 * 3600
SECONDS_TO_START = 20


class OfferError(Exception):
    """Something that a person has to mend."""


class Store:
    """A registry's directory, and what was offered of it: by reference, in `offers.json`."""

    def __init__(self, directory: Path, prefix: str) -> None:
        """Take the directory, which is made where it is missing."""
        self.directory = directory
        self.prefix = prefix
        directory.mkdir(parents=True, exist_ok=True)
        self._record = directory / "offers.json"
        self._layout = directory / "docker/registry/v2"
        try:
            self.offers: dict[str, dict[str, Any]] = json.loads(self._record.read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            # Then all is pushed again, which costs a question a layer.
            self.offers = {}

    def write(self) -> None:
        """Keep what was offered."""
        part = self._record.with_suffix(".part")
        part.write_text(json.dumps(self.offers, indent=1), encoding="utf-8")
        part.replace(self._record)

    def repository(self, reference: str) -> str:
        """Return the name that the image has in the registry, without its tag."""
        return f"{self.prefix}/{reference.rpartition(':')[0]}"

    def _repositories(self) -> Path:
        return self._layout / "repositories"

    def _tag(self, reference: str) -> Path:
        tags = self._repositories() / self.repository(reference) / "_manifests/tags"
        return tags / reference.rpartition(":")[2]

    def digest(self, reference: str) -> str:
        """Return the digest of the manifest that the tag names; empty where there is none."""
        try:
            return (self._tag(reference) / "current/link").read_text("utf-8").strip()
        except FileNotFoundError:
            return ""

    def lacks(self, reference: str, image: str) -> bool:
        """Tell whether the store does not have this build of the image."""
        offer = self.offers.get(reference, {})
        return offer.get("id") != image or offer.get("digest") != self.digest(reference)

    def offered(self, reference: str, image: str) -> None:
        """Note that the store has it, as of now."""
        digest = self.digest(reference)
        self.offers[reference] = {"id": image, "digest": digest, "at": time.time()}

    def configuration(self, address: str) -> str:
        """Return a registry's configuration; JSON is YAML too."""
        return json.dumps(
            {
                "version": "0.1",
                "log": {"level": "error", "accesslog": {"disabled": True}},
                "storage": {"filesystem": {"rootdirectory": str(self.directory)}},
                "http": {"addr": address},
            }
        )

    def forget_uploads(self) -> None:
        """Remove what killed pushes left half sent."""
        for uploads in list(self._repositories().glob("**/_uploads")):
            shutil.rmtree(uploads)

    def forget_tags(self) -> list[str]:
        """Remove all tags but the newest of each image and those of the last day; return them."""
        newest = sorted(self.offers, key=lambda each: self.offers[each]["at"], reverse=True)
        seen: dict[str, int] = {}
        for reference in newest:
            repository = self.repository(reference)
            seen[repository] = seen.get(repository, 0) + 1
            age = time.time() - self.offers[reference]["at"]
            if seen[repository] > KEPT and age > KEPT_SECONDS:
                del self.offers[reference]
        kept = {self._tag(reference) for reference in self.offers}
        # A killed run may have pushed one that it did not come to note.
        unkept = [
            tag for tag in self._repositories().glob("**/_manifests/tags/*") if tag not in kept
        ]
        for tag in unkept:
            shutil.rmtree(tag)
        return [
            f"{tag.parents[2].relative_to(self._repositories() / self.prefix)}:{tag.name}"
            for tag in unkept
        ]

    def forget_links(self) -> None:
        """Remove what the garbage collector leaves: names of layers that are gone."""
        for layer in list(self._repositories().glob("**/_layers/sha256/*")):
            if not (self._layout / "blobs/sha256" / layer.name[:2] / layer.name / "data").exists():
                shutil.rmtree(layer)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Wait until nobody else holds the file, and hold it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def registry(store: Store) -> Iterator[str]:
    """Have a registry listen on loopback; return its address."""
    address = f"127.0.0.1:{free_port()}"
    configuration = store.directory / "push.yml"
    configuration.write_text(store.configuration(address), encoding="utf-8")
    # It ends with this process, however that ends.
    command = ["setpriv", "--pdeathsig", "KILL", "docker-registry", "serve", str(configuration)]
    with (store.directory / "push.log").open("w+", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log
        )
        try:
            wait_for(address, process, store.directory / "push.log")
            yield address
        finally:
            process.terminate()
            process.wait()


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until somebody listens there; raise OfferError where nobody will."""
    host, _, port = address.rpartition(":")
    end = time.monotonic() + SECONDS_TO_START
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                cause = root_cause(log.read_text(encoding="utf-8"), "no word of why")
                raise OfferError(f"docker-registry does not serve {address}: {cause}") from None
            time.sleep(0.05)


class Engine:
    """The machine's engine, by its command."""

    def __init__(self, module: AnsibleModule) -> None:
        """Take what runs commands."""
        self._module = module

    def __call__(self, *arguments: str) -> str:
        """Run a docker command; return its output, or raise OfferError with the cause."""
        code, out, err = self._module.run_command(["docker", *arguments])
        if code != 0:
            cause = root_cause(err.strip() or out, f"exit status {code}")
            raise OfferError(f"docker {' '.join(arguments[:2])}: {cause}")
        return str(out)

    def ids(self, references: list[str]) -> dict[str, str]:
        """Return each image's id by its reference."""
        return {
            each: self("image", "inspect", "-f", "{{.Id}}", each).strip() for each in references
        }

    def forget(self, prefix: str) -> None:
        """Remove the names under which images are pushed, those of killed runs too."""
        names = self("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
        ours = re.compile(rf"127\.0\.0\.1:\d+/{re.escape(prefix)}/")
        for name in names:
            if ours.match(name):
                self("image", "rm", name)


def push(engine: Engine, store: Store, references: list[str]) -> None:
    """Push the images into the store."""
    store.forget_uploads()
    with registry(store) as address:
        try:
            for reference in references:
                name = f"{address}/{store.repository(reference)}:{reference.rpartition(':')[2]}"
                engine("image", "tag", reference, name)
                engine("push", "--quiet", name)
        finally:
            engine.forget(store.prefix)


def collect(module: AnsibleModule, store: Store) -> None:
    """Remove the layers that no tag has any more."""
    configuration = str(store.directory / "push.yml")
    command = ["docker-registry", "garbage-collect", "--delete-untagged", configuration]
    code, out, err = module.run_command(command)
    if code != 0:
        cause = root_cause(err.strip() or out, f"exit status {code}")
        raise OfferError(f"docker-registry garbage-collect: {cause}")
    store.forget_links()


def offer(module: AnsibleModule, directory: Path) -> dict[str, Any]:
    """Push, note, and remove what is too old; return what the module answers."""
    references: list[str] = module.params["images"]
    engine = Engine(module)
    ids = engine.ids(references)
    store = Store(directory, module.params["prefix"])
    lacking = [each for each in references if store.lacks(each, ids[each])]
    if lacking:
        push(engine, store, lacking)
    for reference in references:
        store.offered(reference, ids[reference])
    removed = store.forget_tags() if lacking else []
    store.write()
    if removed:
        collect(module, store)
    digests = {each: store.digest(each) for each in references}
    return {"digests": digests, "pushed": lacking, "removed": removed}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "images": {"type": "list", "elements": "str", "required": True},
            "prefix": {"type": "str", "required": True},
        }
    )
    directory = Path(module.params["directory"])
    # Whoever serves it may be another user.
    os.umask(0o022)
    try:
        with held(directory / "lock"):
            answer = offer(module, directory)
    except OfferError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}")
    module.exit_json(changed=bool(answer["pushed"] or answer["removed"]), **answer)


if __name__ == "__main__":
    main()
