"""registry_pull beside the pull of a killed run; all else of it is the scenario fleet's."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from .conftest import ROOT, Module, docker

if TYPE_CHECKING:
    from collections.abc import Iterator

registry_pull = Module(ROOT / "roles/stack_images/library/registry_pull.py")
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
KINDS = "application/vnd.docker"
PREFIX = "stackyard-test"
REFERENCE = "stackyard-test/joined:1"
# The engine asks five times, with longer and longer pauses.
GIVEN_UP_SECONDS = 120


def digest(content: bytes) -> str:
    """Return what the content is called in a registry."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Image:
    """An image of one layer that no engine has."""

    def __init__(self) -> None:
        """Make it."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as files:
            about = tarfile.TarInfo("file")
            about.size = 1_000_000
            files.addfile(about, io.BytesIO(os.urandom(about.size)))
        self.layer = gzip.compress(archive.getvalue(), 1)
        layers = {"type": "layers", "diff_ids": [digest(archive.getvalue())]}
        about_it = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": layers}
        config = json.dumps(about_it).encode()
        kinds = {
            f"{KINDS}.container.image.v1+json": config,
            f"{KINDS}.image.rootfs.diff.tar.gzip": self.layer,
        }
        parts = [
            {"mediaType": kind, "size": len(content), "digest": digest(content)}
            for kind, content in kinds.items()
        ]
        named = {"mediaType": MANIFEST, "config": parts[0], "layers": parts[1:]}
        manifest = json.dumps({"schemaVersion": 2, **named}).encode()
        self.digest = digest(manifest)
        self.contents = {digest(each): each for each in (manifest, config, self.layer)}


@contextmanager
def registry(image: Image, *, stalls: bool = False) -> Iterator[tuple[int, threading.Event]]:
    """Serve it at a port of loopback; where that stalls, no layer comes to its end.

    The event is set once the layer was asked for.
    """
    asked, ended = threading.Event(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            content = image.contents.get(self.path.rpartition("/")[2], b"{}")
            self.send_response(200)
            self.send_header("Content-Type", MANIFEST if "/manifests/" in self.path else "x/y")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "HEAD":
                return
            if content == image.layer:
                asked.set()
                if stalls:
                    ended.wait(GIVEN_UP_SECONDS)
                    return
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port, asked
    finally:
        ended.set()
        server.shutdown()
        server.server_close()


def test_pull_that_joins_one_of_a_killed_run_is_asked_for_again() -> None:
    image = Image()
    with registry(image, stalls=True) as (port, asked):
        command = ["docker", "pull", f"127.0.0.1:{port}/{PREFIX}/left@{image.digest}"]
        left = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert asked.wait(30)
    try:
        with registry(image) as (port, _):
            done = registry_pull(port=port, images={REFERENCE: image.digest}, prefix=PREFIX)
        assert done.changed
        assert left.wait(GIVEN_UP_SECONDS) != 0, "it was not there to be joined"
        names = docker("image", "inspect", "--format", "{{.RepoTags}}", REFERENCE)
        assert names == f"[{REFERENCE}]"
    finally:
        left.kill()
        left.wait()
        subprocess.run(["docker", "image", "rm", REFERENCE], capture_output=True, check=False)
